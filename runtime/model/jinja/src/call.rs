//! Calls: of macros, of the functions that every template has, and of objects of the interpreter (loops, cyclers).

use std::sync::Arc;

use crate::error::{ErrorKind, Result, fail, unsupported};
use crate::render::{Interp, Object};
use crate::time::strftime;
use crate::value::{Range, V, need_str};

/// The most numbers of a `range`, as Jinja2's sandbox has it.
const MAX_RANGE: i128 = 100_000;

/// The arguments of a call.
#[derive(Debug, Default)]
pub(crate) struct CallArgs {
    pub(crate) positional: Vec<V>,
    pub(crate) named: Vec<(Arc<str>, V)>,
}

impl CallArgs {
    /// The arguments by the names of the parameters; `None` for those not given.
    pub(crate) fn bind<const N: usize>(self, function: &str, names: [&str; N]) -> Result<[Option<V>; N]> {
        let mut bound = [const { None }; N];
        if self.positional.len() > N {
            return fail(format!(
                "{function}() takes at most {N} arguments ({} given)",
                self.positional.len()
            ));
        }
        for (slot, value) in bound.iter_mut().zip(self.positional) {
            *slot = Some(value);
        }
        for (name, value) in self.named {
            match names.iter().position(|known| *known == &*name) {
                Some(at) if bound[at].is_none() => bound[at] = Some(value),
                Some(_) => return fail(format!("{function}() got multiple values for argument '{name}'")),
                None => return fail(format!("{function}() got an unexpected keyword argument '{name}'")),
            }
        }
        Ok(bound)
    }

    /// The one argument that there must be.
    pub(crate) fn one(self, function: &str) -> Result<V> {
        let [value] = self.bind(function, [""])?;
        value.map_or_else(|| fail(format!("{function}() takes exactly one argument (0 given)")), Ok)
    }
}

/// An argument that is an integer.
pub(crate) fn integer(value: Option<&V>, default: i128) -> Result<i128> {
    match value {
        None => Ok(default),
        Some(V::Undefined(message)) => fail(&**message),
        Some(value) => match value.as_int() {
            Some(number) => Ok(number),
            None => fail(format!("'{}' object cannot be interpreted as an integer", value.type_name())),
        },
    }
}

impl Interp<'_> {
    pub(crate) fn call(&mut self, callee: &V, args: CallArgs) -> Result<V> {
        match callee {
            V::Undefined(message) => fail(&**message),
            V::Global(name) => self.call_global(name, args),
            V::Method(method) => match &method.0 {
                V::Object(id) => self.call_object(*id, &method.1, args),
                value => self.call_method(value, &method.1, args),
            },
            V::Object(id) => match &mut self.objects[*id] {
                Object::Macro { def, frame } => {
                    let (def, frame) = (*def, *frame);
                    self.call_macro(def, frame, args)
                }
                Object::Loop(state) => {
                    let Some((each, frame)) = state.again else {
                        return fail("The loop must have the 'recursive' marker to be called recursively.");
                    };
                    let depth = state.depth + 1;
                    let items = args.one("loop")?;
                    self.loop_again(each, frame, &items, depth)
                }
                Object::Joiner { separator, used } => {
                    if std::mem::replace(used, true) {
                        Ok(V::Str(separator.clone()))
                    } else {
                        Ok(V::text(""))
                    }
                }
                Object::Namespace(_) => fail("'Namespace' object is not callable"),
                Object::Cycler { .. } => fail("'Cycler' object is not callable"),
            },
            other => fail(format!("'{}' object is not callable", other.type_name())),
        }
    }

    fn call_global(&mut self, name: &str, args: CallArgs) -> Result<V> {
        match name {
            "range" => {
                let [a, b, c] = args.bind("range", ["", "", ""])?;
                let (start, stop) = match (&a, &b) {
                    (None, _) => return fail("range expected at least 1 argument, got 0"),
                    (stop, None) => (0, integer(stop.as_ref(), 0)?),
                    (start, stop) => (integer(start.as_ref(), 0)?, integer(stop.as_ref(), 0)?),
                };
                let step = integer(c.as_ref(), 1)?;
                if step == 0 {
                    return fail("range() arg 3 must not be zero");
                }
                let small = |n: i128| i64::try_from(n).is_ok();
                let range = Range { start, stop, step };
                if ![start, stop, step].into_iter().all(small) || range.len() > MAX_RANGE {
                    return fail("Range too big. The sandbox blocks ranges larger than MAX_RANGE (100000).");
                }
                Ok(V::Range(range))
            }
            "dict" => self.dict(args).and_then(|entries| V::dict(entries, &self.meter)),
            "namespace" => {
                let mut attributes: Vec<(Arc<str>, V)> = Vec::new();
                for (key, value) in self.dict(args)? {
                    let key = need_str(&key, "attribute name")?;
                    if key.starts_with('_') {
                        return fail(format!("a namespace cannot hold '{key}'"));
                    }
                    self.meter.items(attributes.len())?;
                    attributes.retain(|(known, _)| *known != key);
                    attributes.push((key, value));
                }
                self.object(Object::Namespace(attributes))
            }
            "cycler" => {
                if !args.named.is_empty() || args.positional.is_empty() {
                    return fail("at least one item has to be provided");
                }
                self.object(Object::Cycler { items: args.positional, at: 0 })
            }
            "joiner" => {
                let [separator] = args.bind("joiner", ["sep"])?;
                let separator = separator.map_or_else(|| Ok(", ".into()), |value| self.str(&value))?;
                self.object(Object::Joiner { separator, used: false })
            }
            "raise_exception" => {
                let [message] = args.bind("raise_exception", ["message"])?;
                let Some(message) = message else { return fail("raise_exception() takes a message") };
                let message = self.str(&message)?;
                Err(ErrorKind::Raised(message.to_string()).into())
            }
            "strftime_now" => {
                let [format] = args.bind("strftime_now", ["format"])?;
                let Some(format) = format else { return fail("strftime_now() takes a format") };
                let format = need_str(&format, "format")?;
                self.meter.bytes(format.len().saturating_mul(16))?;
                Ok(V::Str(strftime(&format, &self.now)?.into()))
            }
            other => unsupported(format!("`{other}()`")),
        }
    }

    /// The entries of `dict(...)`: those of a dictionary or of pairs, then the named ones.
    fn dict(&self, args: CallArgs) -> Result<Vec<(V, V)>> {
        let mut entries = Vec::new();
        let mut positional = args.positional.into_iter();
        match positional.next() {
            None => {}
            Some(V::Dict(dict)) => {
                self.meter.items(dict.entries().len())?;
                entries.extend(dict.entries().iter().cloned());
            }
            Some(pairs) => {
                for pair in pairs.items(&self.meter)? {
                    let pair = pair.items(&self.meter)?;
                    let [key, value] = &pair[..] else {
                        return fail(format!(
                            "dictionary update sequence element has length {}; 2 is required",
                            pair.len()
                        ));
                    };
                    entries.push((key.clone(), value.clone()));
                }
            }
        }
        if positional.next().is_some() {
            return fail("dict expected at most 1 argument");
        }
        entries.extend(args.named.into_iter().map(|(name, value)| (V::Str(name), value)));
        Ok(entries)
    }

    fn call_object(&mut self, id: usize, method: &str, args: CallArgs) -> Result<V> {
        match (&mut self.objects[id], method) {
            (Object::Cycler { items, at }, "next") => {
                let item = items[*at].clone();
                *at = (*at + 1) % items.len();
                Ok(item)
            }
            (Object::Cycler { at, .. }, "reset") => {
                *at = 0;
                Ok(V::None)
            }
            (Object::Loop(state), "cycle") => match args.positional.len() {
                0 => fail("no items for cycling given"),
                length => Ok(args.positional[state.index % length].clone()),
            },
            (Object::Loop(state), "changed") => {
                let values = args.positional;
                let last = state.changed.take();
                let changed = match &last {
                    Some(last) if last.len() == values.len() => {
                        let mut changed = false;
                        for (a, b) in last.iter().zip(&values) {
                            changed |= !a.equals(b, &self.meter)?;
                        }
                        changed
                    }
                    _ => true,
                };
                if let Object::Loop(state) = &mut self.objects[id] {
                    state.changed = Some(values);
                }
                Ok(V::Bool(changed))
            }
            _ => fail(format!("no method '{method}'")),
        }
    }
}
