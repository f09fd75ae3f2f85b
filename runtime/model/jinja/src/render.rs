//! Walks the tree of a template and makes its text.
//!
//! Variables live in frames, each with the frame around it. A frame is dropped with its block, unless a macro that was
//! defined in it may still look into it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::ast::{Args, Comparison, Expr, For, Macro, Stmt, StmtKind, Target};
use crate::call::CallArgs;
use crate::error::{Error, ErrorKind, Result, fail, unsupported};
use crate::meter::{MAX_DEPTH, Meter, STEP};
use crate::time::Now;
use crate::value::{V, Value, need_str};

/// Names that every template has.
const GLOBALS: [&str; 8] =
    ["range", "dict", "lipsum", "cycler", "joiner", "namespace", "raise_exception", "strftime_now"];

/// Bytes that a frame or an object is charged.
const FRAME: u64 = 128;

pub(crate) struct Interp<'t> {
    pub(crate) meter: Meter,
    pub(crate) objects: Vec<Object<'t>>,
    pub(crate) now: Now,
    frames: Vec<Frame>,
    frame: usize,
    /// Macros made so far.
    macros: usize,
    out: String,
    /// The text of the block whose filters are applied.
    captured: V,
    depth: u32,
    line: usize,
}

/// The state of a render.
pub(crate) enum Object<'t> {
    Namespace(Vec<(Arc<str>, V)>),
    Macro { def: &'t Macro, frame: usize },
    Loop(Loop<'t>),
    Cycler { items: Vec<V>, at: usize },
    Joiner { separator: Arc<str>, used: bool },
}

/// A loop that runs.
pub(crate) struct Loop<'t> {
    pub(crate) items: std::rc::Rc<[V]>,
    pub(crate) index: usize,
    /// How many recursive calls it is in.
    pub(crate) depth: usize,
    pub(crate) changed: Option<Vec<V>>,
    /// The loop and the frame around it, if it may call itself.
    pub(crate) again: Option<(&'t For, usize)>,
}

#[derive(Default)]
struct Frame {
    variables: HashMap<Arc<str>, V>,
    parent: Option<usize>,
}

/// How a render goes on after a statement.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Break,
    Continue,
}

pub(crate) fn render(body: &[Stmt], variables: &[(&str, Value)], now: Now, bytes: usize) -> Result<String> {
    let root = Frame {
        variables: variables.iter().map(|(name, value)| ((*name).into(), value.0.clone())).collect(),
        parent: None,
    };
    let mut interp = Interp {
        meter: Meter::new(bytes),
        objects: Vec::new(),
        now,
        frames: vec![root],
        frame: 0,
        macros: 0,
        out: String::new(),
        captured: V::None,
        depth: 0,
        line: 1,
    };
    interp.statements(body)?;
    Ok(interp.out)
}

impl<'t> Interp<'t> {
    /// Runs `body` one level deeper.
    fn deeper<T>(&mut self, body: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.depth += 1;
        if self.depth > 4 * MAX_DEPTH {
            return Err(ErrorKind::Limit("the depth of calls").into());
        }
        let result = body(self);
        self.depth -= 1;
        result
    }

    /// Runs `body` with its output apart.
    fn capture(&mut self, body: impl FnOnce(&mut Self) -> Result<()>) -> Result<Arc<str>> {
        let outer = std::mem::take(&mut self.out);
        let result = body(self);
        let text = std::mem::replace(&mut self.out, outer);
        result?;
        self.meter.bytes(text.len())?;
        Ok(text.into())
    }

    /// Runs `body` in a frame of its own inside `parent`.
    fn within<T>(&mut self, parent: usize, body: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.meter.charge(FRAME)?;
        let (outer, macros, frame) = (self.frame, self.macros, self.frames.len());
        self.frames.push(Frame { variables: HashMap::new(), parent: Some(parent) });
        self.frame = frame;
        let result = body(self);
        self.frame = outer;
        if self.macros == macros {
            self.frames.truncate(frame);
        }
        result
    }

    pub(crate) fn object(&mut self, object: Object<'t>) -> Result<V> {
        self.meter.charge(FRAME)?;
        self.objects.push(object);
        Ok(V::Object(self.objects.len() - 1))
    }

    pub(crate) fn set(&mut self, name: &Arc<str>, value: V) -> Result<()> {
        self.meter.charge(FRAME)?;
        self.frames[self.frame].variables.insert(name.clone(), value);
        Ok(())
    }

    fn lookup(&self, name: &str) -> Option<&V> {
        let mut frame = Some(self.frame);
        while let Some(at) = frame {
            if let Some(value) = self.frames[at].variables.get(name) {
                return Some(value);
            }
            frame = self.frames[at].parent;
        }
        None
    }

    fn write(&mut self, text: &str) -> Result<()> {
        self.meter.bytes(text.len())?;
        self.out.push_str(text);
        Ok(())
    }

    fn statements(&mut self, body: &'t [Stmt]) -> Result<Flow> {
        for statement in body {
            self.line = statement.line;
            let flow = self
                .deeper(|interp| interp.statement(statement))
                .map_err(|error| Error { line: error.line.or(Some(statement.line)), ..error })?;
            if flow != Flow::On {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    fn statement(&mut self, statement: &'t Stmt) -> Result<Flow> {
        self.meter.charge(STEP)?;
        match &statement.kind {
            StmtKind::Text(text) => self.write(text)?,
            StmtKind::Print(values) => {
                for value in values {
                    let value = self.eval(value)?;
                    let text = self.str(&value)?;
                    self.write(&text)?;
                }
            }
            StmtKind::If(branches, otherwise) => {
                for (condition, body) in branches {
                    if self.eval(condition)?.truth() {
                        return self.statements(body);
                    }
                }
                return self.statements(otherwise);
            }
            StmtKind::For(each) => {
                let items = self.eval(&each.iter)?;
                return self.for_loop(each, &items, self.frame, 0);
            }
            StmtKind::Set(target, value) => {
                let value = self.eval(value)?;
                self.assign(target, value)?;
            }
            StmtKind::SetBlock(target, filters, body) => {
                let value = self.block_text(filters.as_ref(), body)?;
                self.assign(target, value)?;
            }
            StmtKind::FilterBlock(filters, body) => {
                let value = self.block_text(Some(filters), body)?;
                let text = self.str(&value)?;
                self.write(&text)?;
            }
            StmtKind::With(values, body) => {
                let values = values
                    .iter()
                    .map(|(target, value)| Ok((target, self.eval(value)?)))
                    .collect::<Result<Vec<_>>>()?;
                return self.within(self.frame, |interp| {
                    for (target, value) in values {
                        interp.assign(target, value)?;
                    }
                    interp.statements(body)
                });
            }
            StmtKind::Macro(def) => {
                let made = self.macro_value(def)?;
                self.set(&def.name, made)?;
            }
            StmtKind::CallBlock(def, call) => {
                let callee = self.eval(&call.callee)?;
                let mut args = self.args(&call.args)?;
                let caller = self.macro_value(def)?;
                args.named.push(("caller".into(), caller));
                let value = self.call(&callee, args)?;
                let text = self.str(&value)?;
                self.write(&text)?;
            }
            // A block sees the variables of the template, not those of the statements around it.
            StmtKind::Block(body) => return self.within(0, |interp| interp.statements(body)),
            StmtKind::Generation(body) => return self.within(self.frame, |interp| interp.statements(body)),
            StmtKind::Autoescape(on, body) => {
                if self.eval(on)?.truth() {
                    return unsupported("`{% autoescape true %}`");
                }
                return self.within(self.frame, |interp| interp.statements(body));
            }
            StmtKind::Break => return Ok(Flow::Break),
            StmtKind::Continue => return Ok(Flow::Continue),
            StmtKind::Loader(what) => return unsupported(*what),
        }
        Ok(Flow::On)
    }

    fn macro_value(&mut self, def: &'t Macro) -> Result<V> {
        self.macros += 1;
        self.object(Object::Macro { def, frame: self.frame })
    }

    fn block_text(&mut self, filters: Option<&'t Expr>, body: &'t [Stmt]) -> Result<V> {
        let frame = self.frame;
        let text = self.capture(|interp| interp.within(frame, |interp| interp.statements(body)).map(drop))?;
        let Some(filters) = filters else { return Ok(V::Str(text)) };
        let outer = std::mem::replace(&mut self.captured, V::Str(text));
        let value = self.eval(filters);
        self.captured = outer;
        value
    }

    fn assign(&mut self, target: &'t Target, value: V) -> Result<()> {
        match target {
            Target::Name(name) => self.set(name, value),
            Target::Attribute(name, attribute) => {
                let object = match self.lookup(name) {
                    Some(V::Object(id)) => *id,
                    Some(V::Undefined(message)) => return fail(&**message),
                    Some(_) => return fail("cannot assign attribute on non-namespace object"),
                    None => return fail(format!("'{name}' is undefined")),
                };
                if attribute.starts_with('_') {
                    return fail(format!("a namespace cannot hold '{attribute}'"));
                }
                self.meter.charge(FRAME)?;
                let Object::Namespace(attributes) = &mut self.objects[object] else {
                    return fail("cannot assign attribute on non-namespace object");
                };
                // Few in practice; a long search is paid for.
                self.meter.items(attributes.len())?;
                match attributes.iter_mut().find(|(known, _)| known == attribute) {
                    Some((_, known)) => *known = value,
                    None => attributes.push((attribute.clone(), value)),
                }
                Ok(())
            }
            Target::Tuple(targets) => {
                let items = value.items(&self.meter)?;
                if items.len() != targets.len() {
                    return fail(format!("expected {} values to unpack, got {}", targets.len(), items.len()));
                }
                for (target, item) in targets.iter().zip(items) {
                    self.assign(target, item)?;
                }
                Ok(())
            }
        }
    }

    fn for_loop(&mut self, each: &'t For, items: &V, parent: usize, depth: usize) -> Result<Flow> {
        let mut items = items.items(&self.meter)?;
        if let Some(test) = &each.test {
            let mut kept = Vec::new();
            for item in items {
                let keep = self.within(parent, |interp| {
                    interp.assign(&each.target, item.clone())?;
                    Ok(interp.eval(test)?.truth())
                })?;
                if keep {
                    kept.push(item);
                }
            }
            items = kept;
        }
        if items.is_empty() {
            return self.within(parent, |interp| interp.statements(&each.otherwise));
        }
        let items: std::rc::Rc<[V]> = items.into();
        let again = each.recursive.then_some((each, parent));
        let state = Loop { items: items.clone(), index: 0, depth, changed: None, again };
        let V::Object(id) = self.object(Object::Loop(state))? else { return Ok(Flow::On) };
        for (index, item) in items.iter().enumerate() {
            if let Object::Loop(state) = &mut self.objects[id] {
                state.index = index;
            }
            let flow = self.within(parent, |interp| {
                interp.set(&"loop".into(), V::Object(id))?;
                interp.assign(&each.target, item.clone())?;
                interp.statements(&each.body)
            })?;
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::On)
    }

    /// A recursive loop called with the items of the next level.
    pub(crate) fn loop_again(&mut self, each: &'t For, parent: usize, items: &V, depth: usize) -> Result<V> {
        let outer = self.frame;
        self.frame = parent;
        let text = self
            .deeper(|interp| interp.capture(|interp| interp.for_loop(each, items, parent, depth).map(drop)));
        self.frame = outer;
        Ok(V::Str(text?))
    }

    /// Calls a macro.
    pub(crate) fn call_macro(&mut self, def: &'t Macro, frame: usize, args: CallArgs) -> Result<V> {
        let CallArgs { positional, mut named } = args;
        let mut positional = positional.into_iter();
        let text = self.deeper(|interp| {
            interp.capture(|interp| {
                interp.within(frame, |interp| {
                    for (name, default) in &def.params {
                        let given = positional.next().or_else(|| {
                            named.iter().position(|(known, _)| known == name).map(|at| named.remove(at).1)
                        });
                        let value = match (given, default) {
                            (Some(value), _) => value,
                            (None, Some(default)) => interp.eval(default)?,
                            (None, None) => {
                                V::Undefined(format!("parameter '{name}' was not provided").into())
                            }
                        };
                        interp.set(name, value)?;
                    }
                    if def.uses.caller && !def.params.iter().any(|(name, _)| &**name == "caller") {
                        let at = named.iter().position(|(name, _)| &**name == "caller");
                        let caller = at.map_or_else(
                            || V::Undefined("No caller defined".into()),
                            |at| named.remove(at).1,
                        );
                        interp.set(&"caller".into(), caller)?;
                    }
                    if def.uses.kwargs {
                        let named = named.drain(..).map(|(name, value)| (V::Str(name), value)).collect();
                        let value = V::dict(named, &interp.meter)?;
                        interp.set(&"kwargs".into(), value)?;
                    } else if let Some((name, _)) = named.first() {
                        return fail(format!("macro '{}' takes no keyword argument '{name}'", def.name));
                    }
                    let rest: Vec<V> = positional.collect();
                    if def.uses.varargs {
                        interp.set(&"varargs".into(), V::tuple(rest)?)?;
                    } else if !rest.is_empty() {
                        let (name, most) = (&def.name, def.params.len());
                        return fail(format!("macro '{name}' takes not more than {most} argument(s)"));
                    }
                    interp.statements(&def.body)
                })?;
                Ok(())
            })
        })?;
        Ok(V::Str(text))
    }

    fn all(&mut self, exprs: &'t [Expr]) -> Result<Vec<V>> {
        exprs.iter().map(|expr| self.eval(expr)).collect()
    }

    fn args(&mut self, args: &'t Args) -> Result<CallArgs> {
        let mut positional = self.all(&args.positional)?;
        if let Some(rest) = &args.rest {
            let rest = self.eval(rest)?;
            positional.extend(rest.items(&self.meter)?);
        }
        let mut named = Vec::with_capacity(args.named.len());
        for (name, value) in &args.named {
            named.push((name.clone(), self.eval(value)?));
        }
        if let Some(rest) = &args.named_rest {
            let V::Dict(rest) = self.eval(rest)? else { return fail("argument after ** must be a mapping") };
            self.meter.items(rest.entries().len())?;
            for (key, value) in rest.entries() {
                named.push((need_str(key, "keywords")?, value.clone()));
            }
        }
        Ok(CallArgs { positional, named })
    }

    pub(crate) fn eval(&mut self, expr: &'t Expr) -> Result<V> {
        self.meter.charge(STEP)?;
        self.deeper(|interp| interp.evaluate(expr))
    }

    fn evaluate(&mut self, expr: &'t Expr) -> Result<V> {
        Ok(match expr {
            Expr::None => V::None,
            Expr::Bool(flag) => V::Bool(*flag),
            Expr::Int(number) => V::Int(*number),
            Expr::Float(number) => V::Float(*number),
            Expr::Str(text) => V::Str(text.clone()),
            Expr::Captured => self.captured.clone(),
            Expr::Name(name) => match self.lookup(name) {
                Some(value) => value.clone(),
                None => match GLOBALS.into_iter().find(|global| *global == &**name) {
                    Some(global) => V::Global(global),
                    None if &**name == "self" || &**name == "super" => {
                        return unsupported(format!("`{name}`"));
                    }
                    None => V::Undefined(format!("'{name}' is undefined").into()),
                },
            },
            Expr::List(items) => V::list(self.all(items)?)?,
            Expr::Tuple(items) => V::tuple(self.all(items)?)?,
            Expr::Dict(entries) => {
                let mut pairs = Vec::with_capacity(entries.len());
                for (key, value) in entries {
                    pairs.push((self.eval(key)?, self.eval(value)?));
                }
                V::dict(pairs, &self.meter)?
            }
            Expr::Attribute(value, name) => {
                let value = self.eval(value)?;
                self.attribute(&value, name)?
            }
            Expr::Item(value, index) => {
                let value = self.eval(value)?;
                let index = self.eval(index)?;
                self.item(&value, &index)?
            }
            Expr::Slice(value, parts) => {
                let value = self.eval(value)?;
                let mut bounds = [V::None, V::None, V::None];
                for (bound, part) in bounds.iter_mut().zip(parts.iter()) {
                    if let Some(part) = part {
                        *bound = self.eval(part)?;
                    }
                }
                self.slice(&value, &bounds)?
            }
            Expr::Call(call) => {
                let callee = self.eval(&call.callee)?;
                let args = self.args(&call.args)?;
                self.call(&callee, args)?
            }
            Expr::Filter(value, name, args) => {
                let value = self.eval(value)?;
                let args = self.args(args)?;
                self.filter(name, &value, args)?
            }
            Expr::Test(value, name, args) => {
                let value = self.eval(value)?;
                let args = self.args(args)?;
                V::Bool(self.check(name, &value, args)?)
            }
            Expr::Not(value) => V::Bool(!self.eval(value)?.truth()),
            Expr::And(left, right) => {
                let left = self.eval(left)?;
                if left.truth() { self.eval(right)? } else { left }
            }
            Expr::Or(left, right) => {
                let left = self.eval(left)?;
                if left.truth() { left } else { self.eval(right)? }
            }
            Expr::Unary(op, value) => {
                let value = self.eval(value)?;
                crate::ops::unary(*op, &value)?
            }
            Expr::Binary(op, left, right) => {
                let (left, right) = (self.eval(left)?, self.eval(right)?);
                self.binary(*op, &left, &right)?
            }
            Expr::Concat(parts) => {
                let mut text = String::new();
                for part in parts {
                    let part = self.eval(part)?;
                    let part = self.str(&part)?;
                    self.meter.bytes(part.len())?;
                    text.push_str(&part);
                }
                V::Str(text.into())
            }
            Expr::Compare(first, rest) => {
                let mut left = self.eval(first)?;
                for (at, (comparison, right)) in rest.iter().enumerate() {
                    let right = self.eval(right)?;
                    let holds = self.holds(*comparison, &left, &right)?;
                    if !holds || at + 1 == rest.len() {
                        return Ok(V::Bool(holds));
                    }
                    left = right;
                }
                left
            }
            Expr::If { condition, value, other } => {
                if self.eval(condition)?.truth() {
                    self.eval(value)?
                } else {
                    match other {
                        Some(other) => self.eval(other)?,
                        None => V::Undefined(
                            "the inline if-expression evaluated to false and no else section was defined"
                                .into(),
                        ),
                    }
                }
            }
        })
    }

    fn holds(&self, comparison: Comparison, left: &V, right: &V) -> Result<bool> {
        use std::cmp::Ordering;
        let ordered = |is: fn(Ordering) -> bool| -> Result<bool> {
            Ok(left.compare(right, &self.meter)?.is_some_and(is))
        };
        match comparison {
            Comparison::Eq => left.equals(right, &self.meter),
            Comparison::Ne => Ok(!left.equals(right, &self.meter)?),
            Comparison::Lt => ordered(Ordering::is_lt),
            Comparison::Le => ordered(Ordering::is_le),
            Comparison::Gt => ordered(Ordering::is_gt),
            Comparison::Ge => ordered(Ordering::is_ge),
            Comparison::In => self.contains(right, left),
            Comparison::NotIn => Ok(!self.contains(right, left)?),
        }
    }
}
