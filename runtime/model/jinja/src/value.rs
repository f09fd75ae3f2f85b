//! Python's values, as far as templates meet them. They are immutable, as in transformers' sandbox; what can change
//! (namespaces, loops, macros) lives with the interpreter and is named here by its number, so no value holds itself.
//!
//! What must hold: containers know how deep they nest, and none is deeper than [`MAX_DEPTH`], so printing, comparing and
//! dropping a value needs a bounded stack.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use crate::error::{ErrorKind, Result, fail};
use crate::meter::{MAX_DEPTH, Meter};
use crate::number::is_whole;

/// A value of a template.
#[derive(Clone, Debug)]
pub struct Value(pub(crate) V);

/// The kinds of values.
#[derive(Clone, Debug)]
pub(crate) enum V {
    /// A name or attribute that is not there, with the message of an attempt to use it.
    Undefined(Rc<str>),
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(Arc<str>),
    /// Text that is escaped for HTML: Python's `Markup`.
    Safe(Arc<str>),
    List(Rc<List>),
    Tuple(Rc<List>),
    Dict(Rc<Dict>),
    /// `dict.keys()` and the like: the name of its type, and its items.
    View(&'static str, Rc<List>),
    Range(Range),
    /// A generator: can be gone through once.
    Iter(Rc<Iter>),
    /// A method of a value.
    Method(Rc<(V, Arc<str>)>),
    /// A function that every template has.
    Global(&'static str),
    /// Something of the interpreter's.
    Object(usize),
}

/// A sequence and how deep it nests.
#[derive(Debug)]
pub(crate) struct List {
    pub(crate) items: Vec<V>,
    depth: u32,
    /// Whether it is one of `groupby`'s pairs, whose parts have names.
    pub(crate) group: bool,
}

/// A dictionary in the order of insertion.
#[derive(Debug)]
pub(crate) struct Dict {
    entries: Vec<(V, V)>,
    index: HashMap<Key, usize>,
    depth: u32,
}

/// Python's `range`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) start: i128,
    pub(crate) stop: i128,
    pub(crate) step: i128,
}

/// A generator whose items are known.
#[derive(Debug)]
pub(crate) struct Iter {
    items: Rc<List>,
    at: Cell<usize>,
}

/// A value as a dictionary's key: equal numbers of any type are one key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    None,
    Int(i128),
    Float(u64),
    Str(Arc<str>),
    Tuple(Vec<Key>),
    Object(usize),
}

impl Value {
    /// Python's `None`.
    pub const NONE: Self = Self(V::None);

    /// A dictionary with texts for keys; a key given twice keeps its last value.
    pub fn dict<'a>(entries: impl IntoIterator<Item = (&'a str, Value)>) -> Result<Self> {
        let entries = entries.into_iter().map(|(key, value)| (V::Str(key.into()), value.0));
        Ok(Self(V::dict(entries.collect(), &Meter::new(usize::MAX))?))
    }

    /// A list.
    pub fn list(items: impl IntoIterator<Item = Value>) -> Result<Self> {
        Ok(Self(V::list(items.into_iter().map(|item| item.0).collect())?))
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self(V::Str(text.into()))
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self(V::Bool(flag))
    }
}

impl List {
    fn new(items: Vec<V>) -> Result<Rc<Self>> {
        let depth = 1 + items.iter().map(V::depth).max().unwrap_or(0);
        nested(depth)?;
        Ok(Rc::new(Self { items, depth, group: false }))
    }
}

impl Dict {
    pub(crate) fn entries(&self) -> &[(V, V)] {
        &self.entries
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&V> {
        self.index.get(key).map(|&at| &self.entries[at].1)
    }

    pub(crate) fn text(&self, key: &str) -> Option<&V> {
        self.get(&Key::Str(key.into()))
    }
}

impl Range {
    pub(crate) fn len(self) -> i128 {
        let (from, to, by) = if self.step > 0 {
            (self.start, self.stop, self.step)
        } else {
            (self.stop, self.start, -self.step)
        };
        if from >= to { 0 } else { (to - from - 1) / by + 1 }
    }

    pub(crate) fn at(self, index: i128) -> V {
        V::Int(self.start + index * self.step)
    }
}

impl Iter {
    /// The items that are left, which are gone then.
    pub(crate) fn take(&self) -> Vec<V> {
        let from = self.at.replace(self.items.items.len());
        self.items.items[from..].to_vec()
    }

    /// The next item.
    pub(crate) fn next(&self) -> Option<V> {
        let item = self.items.items.get(self.at.get())?;
        self.at.set(self.at.get() + 1);
        Some(item.clone())
    }
}

fn nested(depth: u32) -> Result<()> {
    if depth > MAX_DEPTH { Err(ErrorKind::Limit("nested values").into()) } else { Ok(()) }
}

impl V {
    pub(crate) fn text(text: impl AsRef<str>) -> Self {
        Self::Str(text.as_ref().into())
    }

    pub(crate) fn list(items: Vec<Self>) -> Result<Self> {
        Ok(Self::List(List::new(items)?))
    }

    pub(crate) fn tuple(items: Vec<Self>) -> Result<Self> {
        Ok(Self::Tuple(List::new(items)?))
    }

    /// A pair of `groupby`.
    pub(crate) fn group(key: Self, items: Self) -> Result<Self> {
        let mut pair = List::new(vec![key, items])?;
        if let Some(pair) = Rc::get_mut(&mut pair) {
            pair.group = true;
        }
        Ok(Self::Tuple(pair))
    }

    pub(crate) fn view(kind: &'static str, items: Vec<Self>) -> Result<Self> {
        Ok(Self::View(kind, List::new(items)?))
    }

    pub(crate) fn iter(items: Vec<Self>) -> Result<Self> {
        Ok(Self::Iter(Rc::new(Iter { items: List::new(items)?, at: Cell::new(0) })))
    }

    pub(crate) fn dict(pairs: Vec<(Self, Self)>, meter: &Meter) -> Result<Self> {
        let mut entries: Vec<(Self, Self)> = Vec::with_capacity(pairs.len());
        let mut index = HashMap::with_capacity(pairs.len());
        let mut depth = 0;
        for (key, value) in pairs {
            depth = depth.max(key.depth()).max(value.depth());
            let id = key.key(meter)?;
            if let Some(&at) = index.get(&id) {
                let entry: &mut (Self, Self) = &mut entries[at];
                entry.1 = value;
            } else {
                index.insert(id, entries.len());
                entries.push((key, value));
            }
        }
        nested(depth + 1)?;
        Ok(Self::Dict(Rc::new(Dict { entries, index, depth: depth + 1 })))
    }

    fn depth(&self) -> u32 {
        match self {
            Self::List(list) | Self::Tuple(list) | Self::View(_, list) => list.depth,
            Self::Dict(dict) => dict.depth,
            Self::Iter(iter) => iter.items.depth,
            Self::Method(method) => method.0.depth() + 1,
            _ => 0,
        }
    }

    /// The name of Python's type.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::Undefined(_) => "Undefined",
            Self::None => "NoneType",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Str(_) => "str",
            Self::Safe(_) => "Markup",
            Self::List(_) => "list",
            Self::Tuple(_) => "tuple",
            Self::Dict(_) => "dict",
            Self::View(kind, _) => kind,
            Self::Range(_) => "range",
            Self::Iter(_) => "generator",
            Self::Method(_) => "builtin_function_or_method",
            Self::Global(_) => "function",
            Self::Object(_) => "object",
        }
    }

    /// The text of a string of either kind.
    pub(crate) fn as_str(&self) -> Option<&Arc<str>> {
        match self {
            Self::Str(text) | Self::Safe(text) => Some(text),
            _ => None,
        }
    }

    /// An integer, `True` and `False` being 1 and 0.
    pub(crate) fn as_int(&self) -> Option<i128> {
        match *self {
            Self::Bool(flag) => Some(flag.into()),
            Self::Int(number) => Some(number),
            _ => None,
        }
    }

    /// A number as a float.
    pub(crate) fn as_float(&self) -> Option<f64> {
        match *self {
            Self::Float(number) => Some(number),
            _ => self.as_int().map(|number| number as f64),
        }
    }

    pub(crate) fn is_undefined(&self) -> bool {
        matches!(self, Self::Undefined(_))
    }

    pub(crate) fn truth(&self) -> bool {
        match self {
            Self::Undefined(_) | Self::None => false,
            Self::Bool(flag) => *flag,
            Self::Int(number) => *number != 0,
            Self::Float(number) => *number != 0.0,
            Self::Str(text) | Self::Safe(text) => !text.is_empty(),
            Self::List(list) | Self::Tuple(list) | Self::View(_, list) => !list.items.is_empty(),
            Self::Dict(dict) => !dict.entries.is_empty(),
            Self::Range(range) => range.len() > 0,
            Self::Iter(_) | Self::Method(_) | Self::Global(_) | Self::Object(_) => true,
        }
    }

    /// Python's `len`, where there is one.
    pub(crate) fn len(&self) -> Option<usize> {
        Some(match self {
            Self::Undefined(_) => 0,
            Self::Str(text) | Self::Safe(text) => text.chars().count(),
            Self::List(list) | Self::Tuple(list) | Self::View(_, list) => list.items.len(),
            Self::Dict(dict) => dict.entries.len(),
            Self::Range(range) => usize::try_from(range.len()).unwrap_or(usize::MAX),
            _ => return None,
        })
    }

    /// The items of an iterable; those of a generator are used up.
    pub(crate) fn items(&self, meter: &Meter) -> Result<Vec<Self>> {
        let items: Vec<Self> = match self {
            Self::Undefined(_) => Vec::new(),
            Self::Str(text) | Self::Safe(text) => {
                meter.items(text.len())?;
                text.chars().map(|c| Self::text(c.encode_utf8(&mut [0; 4]))).collect()
            }
            Self::List(list) | Self::Tuple(list) | Self::View(_, list) => {
                meter.items(list.items.len())?;
                list.items.clone()
            }
            Self::Dict(dict) => {
                meter.items(dict.entries.len())?;
                dict.entries.iter().map(|(key, _)| key.clone()).collect()
            }
            Self::Range(range) => {
                meter.items(usize::try_from(range.len()).unwrap_or(usize::MAX))?;
                (0..range.len()).map(|at| range.at(at)).collect()
            }
            Self::Iter(iter) => {
                meter.items(iter.items.items.len())?;
                iter.take()
            }
            _ => return fail(format!("'{}' object is not iterable", self.type_name())),
        };
        Ok(items)
    }

    /// The value as a key, or the error of one that cannot be.
    pub(crate) fn key(&self, meter: &Meter) -> Result<Key> {
        meter.items(1)?;
        Ok(match self {
            Self::None => Key::None,
            Self::Bool(flag) => Key::Int((*flag).into()),
            Self::Int(number) => Key::Int(*number),
            Self::Float(number) if is_whole(*number) && number.abs() < 1e38 => Key::Int(*number as i128),
            Self::Float(number) => Key::Float(number.to_bits()),
            Self::Str(text) | Self::Safe(text) => {
                meter.bytes(text.len())?;
                Key::Str(text.clone())
            }
            Self::Tuple(list) => {
                Key::Tuple(list.items.iter().map(|item| item.key(meter)).collect::<Result<_>>()?)
            }
            Self::Object(id) => Key::Object(*id),
            _ => return fail(format!("cannot use '{}' as a dict key (unhashable type)", self.type_name())),
        })
    }

    /// Python's `==`.
    #[allow(clippy::float_cmp)] // as Python compares
    pub(crate) fn equals(&self, other: &Self, meter: &Meter) -> Result<bool> {
        meter.items(1)?;
        let sequences = |a: &List, b: &List| -> Result<bool> {
            if a.items.len() != b.items.len() {
                return Ok(false);
            }
            for (a, b) in a.items.iter().zip(&b.items) {
                if !a.equals(b, meter)? {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        Ok(match (self, other) {
            (Self::Undefined(_), Self::Undefined(_)) | (Self::None, Self::None) => true,
            (Self::Str(a) | Self::Safe(a), Self::Str(b) | Self::Safe(b)) => {
                meter.bytes(a.len())?;
                a == b
            }
            (Self::List(a), Self::List(b)) | (Self::Tuple(a), Self::Tuple(b)) => sequences(a, b)?,
            (Self::View(a, x), Self::View(b, y)) if a == b => sequences(x, y)?,
            (Self::Dict(a), Self::Dict(b)) => {
                if a.entries.len() != b.entries.len() {
                    return Ok(false);
                }
                for (key, value) in &a.entries {
                    match b.get(&key.key(meter)?) {
                        Some(other) if value.equals(other, meter)? => {}
                        _ => return Ok(false),
                    }
                }
                true
            }
            (Self::Range(a), Self::Range(b)) => {
                a.len() == b.len()
                    && (a.len() == 0 || a.start == b.start && (a.len() == 1 || a.step == b.step))
            }
            (Self::Global(a), Self::Global(b)) => a == b,
            (Self::Object(a), Self::Object(b)) => a == b,
            (Self::Method(a), Self::Method(b)) => a.1 == b.1 && a.0.equals(&b.0, meter)?,
            (Self::Iter(a), Self::Iter(b)) => Rc::ptr_eq(a, b),
            _ => match (self.as_int(), other.as_int()) {
                (Some(a), Some(b)) => a == b,
                _ => matches!((self.as_float(), other.as_float()), (Some(a), Some(b)) if a == b),
            },
        })
    }

    /// Python's `is`.
    pub(crate) fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::None, Self::None) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            // Small integers and short texts of a template are one object each in CPython.
            (Self::Int(a), Self::Int(b)) => a == b,
            (Self::Str(a), Self::Str(b)) => a == b,
            (Self::List(a), Self::List(b)) | (Self::Tuple(a), Self::Tuple(b)) => Rc::ptr_eq(a, b),
            (Self::Dict(a), Self::Dict(b)) => Rc::ptr_eq(a, b),
            (Self::Object(a), Self::Object(b)) => a == b,
            (Self::Global(a), Self::Global(b)) => a == b,
            _ => false,
        }
    }

    /// Python's order, `None` for a pair without one (not a number), or the error of types that have none.
    pub(crate) fn compare(&self, other: &Self, meter: &Meter) -> Result<Option<std::cmp::Ordering>> {
        meter.items(1)?;
        if let Self::Undefined(message) = self {
            return fail(&**message);
        }
        if let Self::Undefined(message) = other {
            return fail(&**message);
        }
        match (self, other) {
            (Self::Str(a) | Self::Safe(a), Self::Str(b) | Self::Safe(b)) => {
                meter.bytes(a.len().min(b.len()))?;
                Ok(Some(a.cmp(b)))
            }
            (Self::List(a), Self::List(b)) | (Self::Tuple(a), Self::Tuple(b)) => {
                for (a, b) in a.items.iter().zip(&b.items) {
                    if !a.equals(b, meter)? {
                        return a.compare(b, meter);
                    }
                }
                Ok(Some(a.items.len().cmp(&b.items.len())))
            }
            _ => match (self.as_int(), other.as_int(), self.as_float(), other.as_float()) {
                (Some(a), Some(b), ..) => Ok(Some(a.cmp(&b))),
                (_, _, Some(a), Some(b)) => Ok(a.partial_cmp(&b)),
                _ => fail(format!(
                    "'<' not supported between instances of '{}' and '{}'",
                    self.type_name(),
                    other.type_name()
                )),
            },
        }
    }
}

impl Value {
    /// About how many bytes it takes.
    pub(crate) fn weight(&self) -> usize {
        fn weigh(value: &V) -> usize {
            16 + match value {
                V::Str(text) | V::Safe(text) => text.len(),
                V::List(list) | V::Tuple(list) => list.items.iter().map(weigh).sum(),
                V::Dict(dict) => dict.entries.iter().map(|(key, value)| weigh(key) + weigh(value)).sum(),
                _ => 0,
            }
        }
        weigh(&self.0)
    }
}

/// The text of a value that must be one.
pub(crate) fn need_str(value: &V, what: &str) -> Result<Arc<str>> {
    match value.as_str() {
        Some(text) => Ok(text.clone()),
        None => match value {
            V::Undefined(message) => fail(&**message),
            _ => fail(format!("{what} must be str, not {}", value.type_name())),
        },
    }
}
