//! Filters of sequences.

use std::collections::HashSet;

use crate::call::{CallArgs, integer};
use crate::error::{Result, fail};
use crate::meter::Meter;
use crate::render::Interp;
use crate::value::{V, need_str};

/// A stable sort by a comparison that may fail and need not be an order; `less(a, b)` says whether a must come first.
pub(crate) fn sort<T>(
    items: Vec<T>,
    less: impl Fn(&T, &T) -> Result<bool> + Copy,
    meter: &Meter,
) -> Result<Vec<T>> {
    if items.len() < 2 {
        return Ok(items);
    }
    meter.items(items.len())?;
    let mut left = items;
    let right = left.split_off(left.len() / 2);
    let mut right = sort(right, less, meter)?.into_iter().peekable();
    let mut left = sort(left, less, meter)?.into_iter().peekable();
    let mut out = Vec::with_capacity(left.len() + right.len());
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        let next = if less(b, a)? { right.next() } else { left.next() };
        out.extend(next);
    }
    out.extend(left);
    out.extend(right);
    Ok(out)
}

/// The parts of an attribute's name: those of digits are indices.
fn path(attribute: &V) -> Vec<V> {
    match attribute.as_str() {
        None => vec![attribute.clone()],
        Some(text) => text
            .split('.')
            .map(|part| match part.parse() {
                Ok(index) if part.bytes().all(|b| b.is_ascii_digit()) => V::Int(index),
                _ => V::text(part),
            })
            .collect(),
    }
}

fn folded(value: V) -> V {
    match &value {
        V::Str(text) => V::text(text.to_lowercase()),
        _ => value,
    }
}

impl Interp<'_> {
    /// The value at an attribute's path, or `default` where there is no value.
    fn follow(&self, item: &V, path: &[V], default: Option<&V>) -> Result<V> {
        let mut item = item.clone();
        for part in path {
            item = self.item(&item, part)?;
            if let (true, Some(default)) = (item.is_undefined(), default) {
                item = default.clone();
            }
        }
        Ok(item)
    }

    fn is_less(&self, a: &V, b: &V) -> Result<bool> {
        Ok(a.compare(b, &self.meter)?.is_some_and(std::cmp::Ordering::is_lt))
    }

    /// The items with their sort keys, sorted.
    fn sorted(&self, keyed: Vec<(V, V)>, reverse: bool) -> Result<Vec<(V, V)>> {
        // In reverse, items that are equal keep their order too.
        sort(
            keyed,
            |a: &(V, V), b: &(V, V)| {
                if reverse { self.is_less(&b.0, &a.0) } else { self.is_less(&a.0, &b.0) }
            },
            &self.meter,
        )
    }

    fn fold(&self, value: V, sensitive: bool) -> Result<V> {
        if let (false, Some(text)) = (sensitive, value.as_str()) {
            self.meter.bytes(text.len())?;
            return Ok(folded(value));
        }
        Ok(value)
    }

    pub(crate) fn sequence_filter(&mut self, name: &str, value: &V, args: CallArgs) -> Result<V> {
        let flag = |value: Option<V>| value.is_some_and(|value| value.truth());
        let given = |value: Option<V>| value.filter(|value| !matches!(value, V::None));
        match name {
            "list" => {
                let [] = args.bind(name, [])?;
                V::list(value.items(&self.meter)?)
            }
            "first" => {
                let [] = args.bind(name, [])?;
                let first = match value {
                    V::Iter(iter) => iter.next(),
                    _ => value.items(&self.meter)?.into_iter().next(),
                };
                Ok(first.unwrap_or_else(|| V::Undefined("No first item, sequence was empty.".into())))
            }
            "last" => {
                let [] = args.bind(name, [])?;
                if let V::Iter(_) = value {
                    return fail("'generator' object is not reversible");
                }
                let last = value.items(&self.meter)?.pop();
                Ok(last.unwrap_or_else(|| V::Undefined("No last item, sequence was empty.".into())))
            }
            "reverse" => {
                let [] = args.bind(name, [])?;
                if let Some(text) = value.as_str() {
                    self.meter.bytes(text.len())?;
                    return Ok(V::Str(text.chars().rev().collect::<String>().into()));
                }
                let mut items = value.items(&self.meter)?;
                items.reverse();
                if let V::Iter(_) = value { V::list(items) } else { V::iter(items) }
            }
            "join" => {
                let [separator, attribute] = args.bind(name, ["d", "attribute"])?;
                let separator = separator.map_or_else(|| Ok("".into()), |value| self.str(&value))?;
                let path = given(attribute).map(|attribute| path(&attribute));
                let mut out = String::new();
                for (at, item) in value.items(&self.meter)?.iter().enumerate() {
                    let text = match &path {
                        Some(path) => self.str(&self.follow(item, path, None)?)?,
                        None => self.str(item)?,
                    };
                    self.meter.bytes(text.len() + separator.len())?;
                    if at > 0 {
                        out.push_str(&separator);
                    }
                    out.push_str(&text);
                }
                Ok(V::Str(out.into()))
            }
            "sort" => {
                let [reverse, sensitive, attribute] =
                    args.bind(name, ["reverse", "case_sensitive", "attribute"])?;
                let sensitive = flag(sensitive);
                let paths: Vec<Vec<V>> = match given(attribute) {
                    None => vec![Vec::new()],
                    Some(attribute) => match attribute.as_str() {
                        Some(text) => text.split(',').map(|part| path(&V::text(part))).collect(),
                        None => vec![path(&attribute)],
                    },
                };
                let mut keyed = Vec::new();
                for item in value.items(&self.meter)? {
                    let keys = paths.iter().map(|path| self.fold(self.follow(&item, path, None)?, sensitive));
                    keyed.push((V::list(keys.collect::<Result<_>>()?)?, item));
                }
                V::list(self.sorted(keyed, flag(reverse))?.into_iter().map(|(_, item)| item).collect())
            }
            "dictsort" => {
                let [sensitive, by, reverse] = args.bind(name, ["case_sensitive", "by", "reverse"])?;
                let by = by.map_or_else(|| Ok("key".into()), |by| self.str(&by))?;
                let place = match &*by {
                    "key" => 0,
                    "value" => 1,
                    _ => return fail("You can only sort by either \"key\" or \"value\""),
                };
                let V::Dict(dict) = value else {
                    return fail(format!("'{}' object has no attribute 'items'", value.type_name()));
                };
                let sensitive = flag(sensitive);
                let mut keyed = Vec::new();
                for (key, value) in dict.entries() {
                    let by = if place == 0 { key } else { value };
                    let item = V::tuple(vec![key.clone(), value.clone()])?;
                    keyed.push((self.fold(by.clone(), sensitive)?, item));
                }
                V::list(self.sorted(keyed, flag(reverse))?.into_iter().map(|(_, item)| item).collect())
            }
            "unique" => {
                let [sensitive, attribute] = args.bind(name, ["case_sensitive", "attribute"])?;
                let (sensitive, path) =
                    (flag(sensitive), given(attribute).map(|a| path(&a)).unwrap_or_default());
                let mut seen = HashSet::new();
                let mut kept = Vec::new();
                for item in value.items(&self.meter)? {
                    let key = self.fold(self.follow(&item, &path, None)?, sensitive)?;
                    if seen.insert(key.key(&self.meter)?) {
                        kept.push(item);
                    }
                }
                V::iter(kept)
            }
            "min" | "max" => {
                let [sensitive, attribute] = args.bind(name, ["case_sensitive", "attribute"])?;
                let (sensitive, path) =
                    (flag(sensitive), given(attribute).map(|a| path(&a)).unwrap_or_default());
                let mut best: Option<(V, V)> = None;
                for item in value.items(&self.meter)? {
                    let key = self.fold(self.follow(&item, &path, None)?, sensitive)?;
                    let better = match &best {
                        None => true,
                        Some((known, _)) if name == "min" => self.is_less(&key, known)?,
                        Some((known, _)) => self.is_less(known, &key)?,
                    };
                    if better {
                        best = Some((key, item));
                    }
                }
                let none = || V::Undefined("No aggregated item, sequence was empty.".into());
                Ok(best.map_or_else(none, |(_, item)| item))
            }
            "sum" => {
                let [attribute, start] = args.bind(name, ["attribute", "start"])?;
                let path = given(attribute).map(|a| path(&a)).unwrap_or_default();
                let mut total = start.unwrap_or(V::Int(0));
                if total.as_str().is_some() {
                    return fail("sum() can't sum strings [use ''.join(seq) instead]");
                }
                for item in value.items(&self.meter)? {
                    let item = self.follow(&item, &path, None)?;
                    total = self.binary(crate::ast::Binary::Add, &total, &item)?;
                }
                Ok(total)
            }
            "groupby" => {
                let [attribute, default, sensitive] =
                    args.bind(name, ["attribute", "default", "case_sensitive"])?;
                let Some(attribute) = attribute else { return fail("groupby takes an attribute") };
                let (path, default, sensitive) = (path(&attribute), given(default), flag(sensitive));
                let mut keyed = Vec::new();
                for item in value.items(&self.meter)? {
                    let key = self.fold(self.follow(&item, &path, default.as_ref())?, sensitive)?;
                    keyed.push((key, item));
                }
                let mut groups: Vec<(V, Vec<V>)> = Vec::new();
                for (key, item) in self.sorted(keyed, false)? {
                    match groups.last_mut() {
                        Some((known, items)) if known.equals(&key, &self.meter)? => items.push(item),
                        _ => groups.push((key, vec![item])),
                    }
                }
                let groups = groups.into_iter().map(|(key, items)| {
                    let key = if sensitive { key } else { self.follow(&items[0], &path, default.as_ref())? };
                    V::group(key, V::list(items)?)
                });
                V::list(groups.collect::<Result<_>>()?)
            }
            "batch" => {
                let [count, fill] = args.bind(name, ["linecount", "fill_with"])?;
                let count = usize::try_from(integer(count.as_ref(), 0)?).unwrap_or(0);
                let items = value.items(&self.meter)?;
                if count == 0 {
                    // Python never starts a second row.
                    return V::iter(if items.is_empty() { Vec::new() } else { vec![V::list(items)?] });
                }
                let mut rows: Vec<Vec<V>> = items.chunks(count).map(<[V]>::to_vec).collect();
                if let (Some(last), Some(fill)) = (rows.last_mut(), given(fill)) {
                    self.meter.items(count - last.len())?;
                    last.resize(count, fill);
                }
                V::iter(rows.into_iter().map(V::list).collect::<Result<_>>()?)
            }
            "slice" => {
                let [slices, fill] = args.bind(name, ["slices", "fill_with"])?;
                let slices = usize::try_from(integer(slices.as_ref(), 0)?).unwrap_or(0);
                if slices == 0 {
                    return fail("integer division or modulo by zero");
                }
                self.meter.items(slices)?;
                let (items, fill) = (value.items(&self.meter)?, given(fill));
                let (each, extra) = (items.len() / slices, items.len() % slices);
                let mut at = 0;
                let mut rows = Vec::new();
                for slice in 0..slices {
                    let end = at + each + usize::from(slice < extra);
                    let mut row = items[at..end].to_vec();
                    if let (true, Some(fill)) = (slice >= extra, &fill) {
                        row.push(fill.clone());
                    }
                    rows.push(V::list(row)?);
                    at = end;
                }
                V::iter(rows)
            }
            "map" => self.map(value, args),
            "select" | "reject" | "selectattr" | "rejectattr" => self.select(name, value, args),
            _ => fail(format!("No filter named '{name}'.")),
        }
    }

    fn map(&mut self, value: &V, mut args: CallArgs) -> Result<V> {
        if !value.truth() {
            return V::iter(Vec::new());
        }
        let mut made = Vec::new();
        if args.positional.is_empty() {
            let [attribute, default] = args.bind("map", ["attribute", "default"])?;
            let Some(attribute) = attribute else { return fail("map requires a filter argument") };
            let (path, default) = (path(&attribute), default.filter(|value| !matches!(value, V::None)));
            for item in value.items(&self.meter)? {
                made.push(self.follow(&item, &path, default.as_ref())?);
            }
        } else {
            let filter = need_str(&args.positional.remove(0), "filter")?;
            for item in value.items(&self.meter)? {
                let args = CallArgs { positional: args.positional.clone(), named: args.named.clone() };
                self.meter.items(args.positional.len() + args.named.len())?;
                made.push(self.filter(&filter, &item, args)?);
            }
        }
        V::iter(made)
    }

    fn select(&mut self, name: &str, value: &V, args: CallArgs) -> Result<V> {
        if !value.truth() {
            return V::iter(Vec::new());
        }
        let mut positional = args.positional.into_iter();
        let path = if name.ends_with("attr") {
            let Some(attribute) = positional.next() else {
                return fail("Missing parameter for attribute name");
            };
            path(&attribute)
        } else {
            Vec::new()
        };
        let test = positional.next().map(|test| need_str(&test, "test")).transpose()?;
        let rest: Vec<V> = positional.collect();
        let keep = name.starts_with("select");
        let mut kept = Vec::new();
        for item in value.items(&self.meter)? {
            let checked = self.follow(&item, &path, None)?;
            let passes = match &test {
                None => checked.truth(),
                Some(test) => {
                    self.meter.items(rest.len() + args.named.len())?;
                    let args = CallArgs { positional: rest.clone(), named: args.named.clone() };
                    self.check(test, &checked, args)?
                }
            };
            if passes == keep {
                kept.push(item);
            }
        }
        V::iter(kept)
    }
}
