//! Operators, attributes, items and slices.

use std::sync::Arc;

use crate::ast::{Binary, Unary};
use crate::error::{ErrorKind, Result, fail, unsupported};
use crate::methods;
use crate::number;
use crate::render::{Interp, Object};
use crate::value::{Range, V};

fn overflow<T>() -> Result<T> {
    unsupported("an integer beyond 128 bits")
}

pub(crate) fn unary(op: Unary, value: &V) -> Result<V> {
    let minus = matches!(op, Unary::Minus);
    match value {
        V::Undefined(message) => fail(&**message),
        V::Float(number) => Ok(V::Float(if minus { -number } else { *number })),
        _ => match value.as_int() {
            Some(number) if minus => number.checked_neg().map_or_else(overflow, |number| Ok(V::Int(number))),
            Some(number) => Ok(V::Int(number)),
            None => fail(format!("bad operand type for unary operator: '{}'", value.type_name())),
        },
    }
}

impl Interp<'_> {
    pub(crate) fn binary(&self, op: Binary, left: &V, right: &V) -> Result<V> {
        if let (Binary::Mod, Some(format)) = (op, left.as_str()) {
            if matches!(left, V::Safe(_)) {
                return unsupported("`%` on escaped text");
            }
            return self.printf(format, right).map(|text| V::Str(text.into()));
        }
        for side in [left, right] {
            if let V::Undefined(message) = side {
                return fail(&**message);
            }
        }
        if let (Some(a), Some(b)) = (left.as_int(), right.as_int()) {
            return integers(op, a, b);
        }
        if let (Some(a), Some(b)) = (left.as_float(), right.as_float()) {
            return floats(op, a, b).map(V::Float);
        }
        match (op, left, right) {
            (Binary::Add, V::Str(a), V::Str(b)) => {
                self.meter.bytes(a.len() + b.len())?;
                Ok(V::Str([&**a, &**b].concat().into()))
            }
            (Binary::Add, V::Safe(_), V::Safe(_) | V::Str(_)) | (Binary::Add, V::Str(_), V::Safe(_)) => {
                let (a, b) = (self.escape(left)?, self.escape(right)?);
                Ok(V::Safe([&*a, &*b].concat().into()))
            }
            (Binary::Add, V::List(a), V::List(b)) => {
                self.meter.items(a.items.len() + b.items.len())?;
                V::list([a.items.as_slice(), &b.items].concat())
            }
            (Binary::Add, V::Tuple(a), V::Tuple(b)) => {
                self.meter.items(a.items.len() + b.items.len())?;
                V::tuple([a.items.as_slice(), &b.items].concat())
            }
            (Binary::Mul, _, _) if left.as_int().is_some() || right.as_int().is_some() => {
                let (value, times) = if let Some(times) = right.as_int() {
                    (left, times)
                } else {
                    (right, left.as_int().unwrap_or(0))
                };
                self.repeat(value, usize::try_from(times.max(0)).unwrap_or(usize::MAX))
            }
            _ => fail(format!(
                "unsupported operand type(s) for {}: '{}' and '{}'",
                symbol(op),
                left.type_name(),
                right.type_name()
            )),
        }
    }

    fn repeat(&self, value: &V, times: usize) -> Result<V> {
        match value {
            V::Str(text) => Ok(V::Str(self.repeated(text, times)?.into())),
            V::Safe(text) => Ok(V::Safe(self.repeated(text, times)?.into())),
            V::List(list) | V::Tuple(list) => {
                self.meter.items(list.items.len().saturating_mul(times))?;
                let items = (0..times).flat_map(|_| list.items.iter().cloned()).collect();
                if matches!(value, V::List(_)) { V::list(items) } else { V::tuple(items) }
            }
            _ => fail(format!("can't multiply sequence by non-int of type '{}'", value.type_name())),
        }
    }

    /// A text so many times, if it may take that much.
    pub(crate) fn repeated(&self, text: &str, times: usize) -> Result<String> {
        self.meter.bytes(text.len().saturating_mul(times))?;
        Ok(text.repeat(times))
    }

    /// Python's `needle in value`.
    pub(crate) fn contains(&self, value: &V, needle: &V) -> Result<bool> {
        match value {
            V::Str(text) | V::Safe(text) => match needle.as_str() {
                Some(part) => {
                    self.meter.bytes(text.len())?;
                    Ok(text.contains(&**part))
                }
                None => {
                    fail(format!("'in <string>' requires string as left operand, not {}", needle.type_name()))
                }
            },
            V::Dict(dict) => Ok(dict.get(&needle.key(&self.meter)?).is_some()),
            V::Range(range) => Ok(needle
                .as_int()
                .and_then(|n| n.checked_sub(range.start))
                .is_some_and(|at| at % range.step == 0 && (0..range.len()).contains(&(at / range.step)))),
            V::Iter(iter) => {
                while let Some(item) = iter.next() {
                    if item.equals(needle, &self.meter)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            V::List(list) | V::Tuple(list) | V::View(_, list) => {
                for item in &list.items {
                    if item.equals(needle, &self.meter)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            V::Undefined(_) => Ok(false),
            _ => fail(format!("argument of type '{}' is not iterable", value.type_name())),
        }
    }

    /// `value.name`: an attribute, or else an item.
    pub(crate) fn attribute(&self, value: &V, name: &Arc<str>) -> Result<V> {
        if let V::Undefined(message) = value {
            return fail(&**message);
        }
        if let Some(attribute) = self.own_attribute(value, name)? {
            return Ok(attribute);
        }
        if let V::Dict(dict) = value
            && let Some(item) = dict.text(name)
        {
            return Ok(item.clone());
        }
        Ok(no_attribute(value, name))
    }

    /// `value[index]`: an item, or else an attribute.
    pub(crate) fn item(&self, value: &V, index: &V) -> Result<V> {
        let found = match value {
            V::Undefined(message) => return fail(&**message),
            V::Dict(dict) => index.key(&self.meter).ok().and_then(|key| dict.get(&key).cloned()),
            V::List(list) | V::Tuple(list) => {
                index.as_int().and_then(|at| place(at, list.items.len())).map(|at| list.items[at].clone())
            }
            V::Str(text) | V::Safe(text) => match index.as_int() {
                Some(at) => {
                    self.meter.bytes(text.len())?;
                    let at = place(at, text.chars().count());
                    at.and_then(|at| text.chars().nth(at)).map(|c| V::text(c.encode_utf8(&mut [0; 4])))
                }
                None => None,
            },
            V::Range(range) => index
                .as_int()
                .map(|at| if at < 0 { at.saturating_add(range.len()) } else { at })
                .filter(|at| (0..range.len()).contains(at))
                .map(|at| range.at(at)),
            _ => None,
        };
        if let Some(found) = found {
            return Ok(found);
        }
        if let Some(name) = index.as_str() {
            if let Some(attribute) = self.own_attribute(value, name)? {
                return Ok(attribute);
            }
            return Ok(no_attribute(value, name));
        }
        let message = format!("{} has no element {}", described(value), self.repr(index)?);
        Ok(V::Undefined(message.into()))
    }

    /// The attribute that Python's `getattr` finds; items are not attributes.
    fn own_attribute(&self, value: &V, name: &Arc<str>) -> Result<Option<V>> {
        if name.starts_with("__") && name.ends_with("__") && !matches!(value, V::Object(_)) {
            return Ok(Some(V::Undefined(methods::unsafe_attribute(value, name).into())));
        }
        if let V::Object(id) = value {
            return self.object_attribute(*id, name);
        }
        if let V::Tuple(list) = value
            && list.group
        {
            match &**name {
                "grouper" => return Ok(Some(list.items[0].clone())),
                "list" => return Ok(Some(list.items[1].clone())),
                _ => {}
            }
        }
        Ok(methods::find(value, name))
    }

    fn object_attribute(&self, id: usize, name: &Arc<str>) -> Result<Option<V>> {
        let method = || Ok(Some(V::Method(std::rc::Rc::new((V::Object(id), name.clone())))));
        Ok(match &self.objects[id] {
            Object::Namespace(attributes) => {
                self.meter.items(attributes.len())?;
                attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
            }
            Object::Macro { def, .. } => match &**name {
                "name" => Some(V::Str(def.name.clone())),
                "arguments" => {
                    Some(V::tuple(def.params.iter().map(|(name, _)| V::Str(name.clone())).collect())?)
                }
                "catch_kwargs" => Some(V::Bool(def.uses.kwargs)),
                "catch_varargs" => Some(V::Bool(def.uses.varargs)),
                "caller" => Some(V::Bool(def.uses.caller)),
                _ => None,
            },
            Object::Cycler { items, at } => match &**name {
                "current" => Some(items[*at].clone()),
                "next" | "reset" => return method(),
                _ => None,
            },
            Object::Joiner { .. } => None,
            Object::Loop(state) => {
                let (at, length) = (state.index, state.items.len());
                let number = |n: usize| Some(V::Int(n as i128));
                match &**name {
                    "index" => number(at + 1),
                    "index0" => number(at),
                    "revindex" => number(length - at),
                    "revindex0" => number(length - at - 1),
                    "first" => Some(V::Bool(at == 0)),
                    "last" => Some(V::Bool(at + 1 == length)),
                    "length" => number(length),
                    "depth" => number(state.depth + 1),
                    "depth0" => number(state.depth),
                    "previtem" if at == 0 => Some(V::Undefined("there is no previous item".into())),
                    "previtem" => Some(state.items[at - 1].clone()),
                    "nextitem" => Some(match state.items.get(at + 1) {
                        Some(next) => next.clone(),
                        None => V::Undefined("there is no next item".into()),
                    }),
                    "cycle" | "changed" => return method(),
                    _ => None,
                }
            }
        })
    }

    pub(crate) fn slice(&self, value: &V, bounds: &[V; 3]) -> Result<V> {
        let mut parts = [None; 3];
        for (part, bound) in parts.iter_mut().zip(bounds) {
            *part = match bound {
                V::None => None,
                V::Undefined(message) => return fail(&**message),
                _ => match bound.as_int() {
                    Some(number) => Some(number),
                    None => return fail("slice indices must be integers or None"),
                },
            };
        }
        let at = |length: usize| places(parts, length);
        match value {
            V::Undefined(message) => fail(&**message),
            V::Str(text) | V::Safe(text) => {
                self.meter.bytes(4 * text.len())?;
                let chars: Vec<char> = text.chars().collect();
                let kept: String = at(chars.len())?.into_iter().map(|at| chars[at]).collect();
                Ok(if matches!(value, V::Str(_)) { V::Str(kept.into()) } else { V::Safe(kept.into()) })
            }
            V::List(list) | V::Tuple(list) => {
                self.meter.items(list.items.len())?;
                let kept = at(list.items.len())?.into_iter().map(|at| list.items[at].clone()).collect();
                if matches!(value, V::List(_)) { V::list(kept) } else { V::tuple(kept) }
            }
            V::Range(range) => {
                let length = usize::try_from(range.len()).unwrap_or(usize::MAX);
                let (start, stop, step) = indices(parts, length)?;
                Ok(V::Range(Range {
                    start: range.start + start * range.step,
                    stop: range.start + stop * range.step,
                    step: range.step * step,
                }))
            }
            _ => fail(format!("'{}' object is not subscriptable", value.type_name())),
        }
    }
}

fn symbol(op: Binary) -> &'static str {
    match op {
        Binary::Add => "+",
        Binary::Sub => "-",
        Binary::Mul => "*",
        Binary::Div => "/",
        Binary::FloorDiv => "//",
        Binary::Mod => "%",
        Binary::Pow => "** or pow()",
    }
}

fn integers(op: Binary, a: i128, b: i128) -> Result<V> {
    if b == 0 && matches!(op, Binary::Div | Binary::FloorDiv | Binary::Mod) {
        return fail("division by zero");
    }
    let result = match op {
        Binary::Add => a.checked_add(b),
        Binary::Sub => a.checked_sub(b),
        Binary::Mul => a.checked_mul(b),
        Binary::Div => return Ok(V::Float(a as f64 / b as f64)),
        Binary::FloorDiv => {
            a.checked_div(b).map(|quotient| quotient - i128::from(a % b != 0 && (a < 0) != (b < 0)))
        }
        Binary::Mod => {
            a.checked_rem(b).map(|rest| if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest })
        }
        Binary::Pow if b < 0 => return floats(op, a as f64, b as f64).map(V::Float),
        Binary::Pow => match (a, u32::try_from(b)) {
            (0 | 1, _) => Some(if b == 0 { 1 } else { a }),
            (-1, _) => Some(if b % 2 == 0 { 1 } else { -1 }),
            (_, Ok(b)) => a.checked_pow(b),
            _ => None,
        },
    };
    result.map_or_else(overflow, |number| Ok(V::Int(number)))
}

fn floats(op: Binary, a: f64, b: f64) -> Result<f64> {
    if b == 0.0 && matches!(op, Binary::Div | Binary::FloorDiv | Binary::Mod) {
        return fail("float division by zero");
    }
    // Python's remainder has the sign of the divisor.
    let modulo = |a: f64, b: f64| {
        let rest = a % b;
        if rest != 0.0 && (rest < 0.0) != (b < 0.0) {
            rest + b
        } else {
            rest.abs().copysign(if rest == 0.0 { b } else { rest })
        }
    };
    Ok(match op {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div => a / b,
        Binary::Mod => modulo(a, b),
        Binary::FloorDiv => {
            let quotient = ((a - modulo(a, b)) / b).round();
            if quotient == 0.0 { 0f64.copysign(a / b) } else { quotient }
        }
        Binary::Pow => {
            if a == 0.0 && b < 0.0 {
                return fail("0.0 cannot be raised to a negative power");
            }
            if a < 0.0 && !number::is_whole(b) {
                return unsupported("a complex number");
            }
            let power = a.powf(b);
            if power.is_infinite() && a.is_finite() && b.is_finite() {
                return fail("Numerical result out of range");
            }
            power
        }
    })
}

/// Where an index points, which may count from the end.
fn place(index: i128, length: usize) -> Option<usize> {
    let index = if index < 0 { index.saturating_add(length as i128) } else { index };
    usize::try_from(index).ok().filter(|&at| at < length)
}

/// Python's `slice.indices`.
fn indices([start, stop, step]: [Option<i128>; 3], length: usize) -> Result<(i128, i128, i128)> {
    let step = step.unwrap_or(1).clamp(-(1 << 40), 1 << 40);
    if step == 0 {
        return fail("slice step cannot be zero");
    }
    let length = length as i128;
    let (low, high) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let bound = |bound: i128| (if bound < 0 { bound.saturating_add(length) } else { bound }).clamp(low, high);
    let (first, last) = if step > 0 { (low, high) } else { (high, low) };
    Ok((start.map_or(first, bound), stop.map_or(last, bound), step))
}

fn places(parts: [Option<i128>; 3], length: usize) -> Result<Vec<usize>> {
    let (mut at, stop, step) = indices(parts, length)?;
    let mut places = Vec::new();
    while if step > 0 { at < stop } else { at > stop } {
        places.push(usize::try_from(at).map_err(|_| ErrorKind::Runtime("index out of range".into()))?);
        at += step;
    }
    Ok(places)
}

fn described(value: &V) -> String {
    match value {
        V::None => "None".into(),
        _ => format!("{} object", value.type_name()),
    }
}

fn no_attribute(value: &V, name: &str) -> V {
    V::Undefined(format!("'{}' has no attribute '{name}'", described(value)).into())
}
