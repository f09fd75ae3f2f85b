//! The methods of Python's values. Those that would change one are unsafe in transformers' sandbox, and so are names
//! with two underscores.

use std::rc::Rc;
use std::sync::Arc;

use crate::call::{CallArgs, integer};
use crate::error::{Result, fail, unsupported};
use crate::number;
use crate::render::Interp;
use crate::unicode::{self, is_space};
use crate::value::{V, need_str};

const STR: [&str; 47] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "encode",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "maketrans",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "translate",
    "upper",
    "zfill",
];
const DICT: [&str; 6] = ["copy", "fromkeys", "get", "items", "keys", "values"];
const DICT_UNSAFE: [&str; 5] = ["clear", "pop", "popitem", "setdefault", "update"];
const LIST: [&str; 3] = ["copy", "count", "index"];
const LIST_UNSAFE: [&str; 8] = ["append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove"];
const FLOAT: [&str; 6] = ["is_integer", "as_integer_ratio", "hex", "conjugate", "real", "imag"];
const INT: [&str; 9] = [
    "bit_length",
    "bit_count",
    "is_integer",
    "as_integer_ratio",
    "conjugate",
    "real",
    "imag",
    "numerator",
    "denominator",
];

/// The error for an attribute that the sandbox hides.
pub(crate) fn unsafe_attribute(value: &V, name: &str) -> String {
    format!("access to attribute '{name}' of '{}' object is unsafe.", value.type_name())
}

/// The method of that name, if Python has one.
pub(crate) fn find(value: &V, name: &Arc<str>) -> Option<V> {
    let (methods, hidden): (&[&str], &[&str]) = match value {
        V::Str(_) | V::Safe(_) => (&STR, &[]),
        V::Dict(_) => (&DICT, &DICT_UNSAFE),
        V::List(_) => (&LIST, &LIST_UNSAFE),
        V::Tuple(_) => (&["count", "index"], &[]),
        V::Range(_) => (&["count", "index", "start", "stop", "step"], &[]),
        V::Float(_) => (&FLOAT, &[]),
        V::Int(_) | V::Bool(_) => (&INT, &[]),
        V::View(..) => (&["isdisjoint", "mapping"], &[]),
        _ => (&[], &[]),
    };
    if hidden.contains(&&**name) {
        return Some(V::Undefined(unsafe_attribute(value, name).into()));
    }
    if !methods.contains(&&**name) {
        return None;
    }
    // Attributes that are not methods.
    Some(match (value, &**name) {
        (V::Range(range), "start") => V::Int(range.start),
        (V::Range(range), "stop") => V::Int(range.stop),
        (V::Range(range), "step") => V::Int(range.step),
        (V::Int(_) | V::Bool(_), "real" | "numerator") => V::Int(value.as_int().unwrap_or(0)),
        (V::Int(_) | V::Bool(_), "imag") => V::Int(0),
        (V::Int(_) | V::Bool(_), "denominator") => V::Int(1),
        (V::Float(_), "real") => value.clone(),
        (V::Float(_), "imag") => V::Float(0.0),
        _ => V::Method(Rc::new((value.clone(), name.clone()))),
    })
}

/// The byte range of `text` between two character positions, as `str.find` takes them.
fn window(text: &str, start: Option<&V>, end: Option<&V>) -> Result<Option<(usize, usize)>> {
    let length = text.chars().count() as i128;
    let place = |value: Option<&V>, default: i128| -> Result<i128> {
        let at = match value {
            None | Some(V::None) => default,
            value => integer(value, default)?,
        };
        Ok((if at < 0 { at.saturating_add(length).max(0) } else { at }).min(length + 1))
    };
    let (start, end) = (place(start, 0)?, place(end, length)?.min(length));
    if start > end {
        return Ok(None);
    }
    let byte = |at: i128| {
        usize::try_from(at)
            .ok()
            .and_then(|at| text.char_indices().nth(at))
            .map_or(text.len(), |(byte, _)| byte)
    };
    Ok(Some((byte(start), byte(end))))
}

impl Interp<'_> {
    pub(crate) fn call_method(&mut self, value: &V, name: &str, args: CallArgs) -> Result<V> {
        match value {
            V::Str(text) => self.str_method(text, name, args),
            V::Safe(_) => unsupported(format!("the method `{name}` of escaped text")),
            V::Dict(dict) => match name {
                "get" => {
                    let [key, default] = args.bind("get", ["", ""])?;
                    let Some(key) = key else { return fail("get expected at least 1 argument, got 0") };
                    let found = dict.get(&key.key(&self.meter)?).cloned();
                    Ok(found.or(default).unwrap_or(V::None))
                }
                "copy" => {
                    let [] = args.bind(name, [])?;
                    Ok(value.clone())
                }
                "items" | "keys" | "values" => {
                    let [] = args.bind(name, [])?;
                    self.meter.items(dict.entries().len())?;
                    let entries = dict.entries().iter();
                    match name {
                        "keys" => V::view("dict_keys", entries.map(|(key, _)| key.clone()).collect()),
                        "values" => V::view("dict_values", entries.map(|(_, value)| value.clone()).collect()),
                        _ => {
                            let items =
                                entries.map(|(key, value)| V::tuple(vec![key.clone(), value.clone()]));
                            V::view("dict_items", items.collect::<Result<_>>()?)
                        }
                    }
                }
                _ => unsupported(format!("`dict.{name}`")),
            },
            V::List(list) | V::Tuple(list) => match name {
                "copy" => Ok(value.clone()),
                "count" => {
                    let wanted = args.one(name)?;
                    let mut count = 0;
                    for item in &list.items {
                        count += i128::from(item.equals(&wanted, &self.meter)?);
                    }
                    Ok(V::Int(count))
                }
                _ => {
                    let [wanted, start, end] = args.bind("index", ["", "", ""])?;
                    let Some(wanted) = wanted else {
                        return fail("index expected at least 1 argument, got 0");
                    };
                    let length = list.items.len() as i128;
                    let place = |value: Option<&V>, default| -> Result<i128> {
                        let at = integer(value, default)?;
                        Ok(if at < 0 { at.saturating_add(length).max(0) } else { at })
                    };
                    let (start, end) = (place(start.as_ref(), 0)?, place(end.as_ref(), length)?);
                    for (at, item) in list.items.iter().enumerate() {
                        if (start..end).contains(&(at as i128)) && item.equals(&wanted, &self.meter)? {
                            return Ok(V::Int(at as i128));
                        }
                    }
                    fail(format!("{} is not in {}", self.repr(&wanted)?, value.type_name()))
                }
            },
            V::Float(number) if name == "is_integer" => Ok(V::Bool(number::is_whole(*number))),
            V::Int(_) | V::Bool(_) if name == "is_integer" => Ok(V::Bool(true)),
            V::Int(number) if name == "bit_length" => {
                Ok(V::Int((128 - number.unsigned_abs().leading_zeros()).into()))
            }
            _ => unsupported(format!("the method `{name}` of '{}'", value.type_name())),
        }
    }

    fn str_method(&mut self, text: &Arc<str>, name: &str, args: CallArgs) -> Result<V> {
        // Most look at all of the text, and give no more than it back.
        self.meter.bytes(4 * text.len())?;
        if let Some(is) = unicode::is(name, text) {
            let [] = args.bind(name, [])?;
            return Ok(V::Bool(is));
        }
        let made = match name {
            "upper" | "lower" | "title" | "capitalize" | "swapcase" | "casefold" => {
                let [] = args.bind(name, [])?;
                match name {
                    "upper" => text.to_uppercase(),
                    "lower" => text.to_lowercase(),
                    "title" => unicode::title(text),
                    "capitalize" => unicode::capitalize(text),
                    "casefold" if text.is_ascii() => text.to_lowercase(),
                    "casefold" => return unsupported("`casefold` of text that is not ASCII"),
                    _ => text
                        .chars()
                        .flat_map(|c| -> Box<dyn Iterator<Item = char>> {
                            if c.is_uppercase() {
                                Box::new(c.to_lowercase())
                            } else {
                                Box::new(c.to_uppercase())
                            }
                        })
                        .collect(),
                }
            }
            "strip" | "lstrip" | "rstrip" => {
                let [chars] = args.bind(name, [""])?;
                self.strip(text, chars.as_ref(), name)?
            }
            "split" | "rsplit" => return self.split(text, name, args),
            "splitlines" => {
                let [keep] = args.bind(name, ["keepends"])?;
                let lines = unicode::lines(text, keep.is_some_and(|keep| keep.truth()));
                self.meter.items(lines.len())?;
                return V::list(lines.into_iter().map(V::text).collect());
            }
            "partition" | "rpartition" => {
                let separator = need_str(&args.one(name)?, "separator")?;
                if separator.is_empty() {
                    return fail("empty separator");
                }
                let found =
                    if name == "partition" { text.find(&*separator) } else { text.rfind(&*separator) };
                let parts = match found {
                    Some(at) => [&text[..at], &separator, &text[at + separator.len()..]],
                    None if name == "partition" => [text, "", ""],
                    None => ["", "", text],
                };
                return V::tuple(parts.into_iter().map(V::text).collect());
            }
            "replace" => {
                let [old, new, count] = args.bind(name, ["", "", "count"])?;
                let (Some(old), Some(new)) = (old, new) else {
                    return fail("replace expected at least 2 arguments");
                };
                let (old, new) = (need_str(&old, "argument")?, need_str(&new, "argument")?);
                self.replace(text, &old, &new, integer(count.as_ref(), -1)?)?
            }
            "startswith" | "endswith" => {
                let [parts, start, end] = args.bind(name, ["", "", ""])?;
                let Some(parts) = parts else { return fail(format!("{name} expected at least 1 argument")) };
                let parts = match &parts {
                    V::Tuple(list) => list.items.clone(),
                    _ => vec![parts],
                };
                let window = window(text, start.as_ref(), end.as_ref())?;
                for part in parts {
                    let part = need_str(&part, "argument")?;
                    self.meter.bytes(part.len())?;
                    if let Some((start, end)) = window {
                        let text = &text[start..end];
                        if if name == "startswith" {
                            text.starts_with(&*part)
                        } else {
                            text.ends_with(&*part)
                        } {
                            return Ok(V::Bool(true));
                        }
                    }
                }
                return Ok(V::Bool(false));
            }
            "find" | "rfind" | "index" | "rindex" | "count" => {
                let [part, start, end] = args.bind(name, ["", "", ""])?;
                let Some(part) = part else { return fail(format!("{name} expected at least 1 argument")) };
                let part = need_str(&part, "argument")?;
                let window = window(text, start.as_ref(), end.as_ref())?;
                let Some((start, end)) = window else {
                    return match name {
                        "count" => Ok(V::Int(0)),
                        "index" | "rindex" => fail("substring not found"),
                        _ => Ok(V::Int(-1)),
                    };
                };
                let inside = &text[start..end];
                if name == "count" {
                    let count = if part.is_empty() {
                        inside.chars().count() + 1
                    } else {
                        inside.matches(&*part).count()
                    };
                    return Ok(V::Int(count as i128));
                }
                let found = if name.starts_with('r') { inside.rfind(&*part) } else { inside.find(&*part) };
                return match found {
                    Some(at) => Ok(V::Int(text[..start + at].chars().count() as i128)),
                    None if name.ends_with("index") => fail("substring not found"),
                    None => Ok(V::Int(-1)),
                };
            }
            "removeprefix" => {
                let part = need_str(&args.one(name)?, "argument")?;
                text.strip_prefix(&*part).unwrap_or(text).to_owned()
            }
            "removesuffix" => {
                let part = need_str(&args.one(name)?, "argument")?;
                text.strip_suffix(&*part).unwrap_or(text).to_owned()
            }
            "center" | "ljust" | "rjust" => {
                let [width, fill] = args.bind(name, ["", ""])?;
                let Some(width) = width else { return fail(format!("{name} expected at least 1 argument")) };
                let fill = fill.map_or_else(|| Ok(" ".into()), |fill| need_str(&fill, "fill"))?;
                if fill.chars().count() != 1 {
                    return fail("The fill character must be exactly one character long");
                }
                let width = usize::try_from(integer(Some(&width), 0)?.max(0)).unwrap_or(usize::MAX);
                let missing = width.saturating_sub(text.chars().count());
                let left = match name {
                    "ljust" => 0,
                    "rjust" => missing,
                    _ => missing / 2 + (missing & width & 1),
                };
                [&self.repeated(&fill, left)?, &**text, &self.repeated(&fill, missing - left)?].concat()
            }
            "zfill" => {
                let width = integer(Some(&args.one(name)?), 0)?.max(0);
                let missing =
                    usize::try_from(width).unwrap_or(usize::MAX).saturating_sub(text.chars().count());
                let sign = usize::from(text.starts_with(['+', '-']));
                [&text[..sign], &self.repeated("0", missing)?, &text[sign..]].concat()
            }
            "expandtabs" => {
                let [size] = args.bind(name, ["tabsize"])?;
                let size = usize::try_from(integer(size.as_ref(), 8)?.max(0)).unwrap_or(usize::MAX);
                let (mut out, mut column) = (String::new(), 0usize);
                for c in text.chars() {
                    match c {
                        '\t' if size > 0 => {
                            let spaces = size - column % size;
                            out.push_str(&self.repeated(" ", spaces)?);
                            column = column.wrapping_add(spaces);
                        }
                        '\t' => {}
                        _ => {
                            out.push(c);
                            column = if matches!(c, '\n' | '\r') { 0 } else { column.wrapping_add(1) };
                        }
                    }
                }
                out
            }
            "join" => {
                let items = args.one(name)?.items(&self.meter)?;
                let mut out = String::new();
                for (at, item) in items.iter().enumerate() {
                    let Some(item) = item.as_str() else {
                        return fail(format!(
                            "sequence item {at}: expected str instance, {} found",
                            item.type_name()
                        ));
                    };
                    self.meter.bytes(item.len() + text.len())?;
                    if at > 0 {
                        out.push_str(text);
                    }
                    out.push_str(item);
                }
                out
            }
            "format" => self.format_method(text, &args)?,
            "format_map" => {
                let V::Dict(dict) = args.one(name)? else { return fail("format_map() takes a mapping") };
                let named = dict.entries().iter().map(|(key, value)| Ok((self.str(key)?, value.clone())));
                let args = CallArgs { positional: Vec::new(), named: named.collect::<Result<_>>()? };
                self.format_method(text, &args)?
            }
            _ => return unsupported(format!("`str.{name}`")),
        };
        self.meter.bytes(made.len())?;
        Ok(V::Str(made.into()))
    }

    /// `str.strip` and its siblings.
    pub(crate) fn strip(&self, text: &str, chars: Option<&V>, name: &str) -> Result<String> {
        let set: Option<Vec<char>> = match chars {
            None | Some(V::None) => None,
            Some(chars) => Some(need_str(chars, "argument")?.chars().collect()),
        };
        self.meter.charge((text.len() as u64).saturating_mul(set.as_ref().map_or(1, Vec::len) as u64))?;
        let strips = |c: char| set.as_ref().map_or_else(|| is_space(c), |set| set.contains(&c));
        Ok(match name {
            "lstrip" => text.trim_start_matches(strips),
            "rstrip" => text.trim_end_matches(strips),
            _ => text.trim_matches(strips),
        }
        .to_owned())
    }

    /// `str.replace`.
    pub(crate) fn replace(&self, text: &str, old: &str, new: &str, count: i128) -> Result<String> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let found = if old.is_empty() { text.chars().count() + 1 } else { text.matches(old).count() };
        self.meter.bytes(text.len())?;
        self.meter.bytes(new.len().saturating_mul(found.min(count)))?;
        Ok(text.replacen(old, new, count))
    }

    fn split(&self, text: &str, name: &str, args: CallArgs) -> Result<V> {
        let [separator, most] = args.bind(name, ["sep", "maxsplit"])?;
        let most = usize::try_from(integer(most.as_ref(), -1)?).unwrap_or(usize::MAX);
        let right = name == "rsplit";
        let parts: Vec<&str> = match separator {
            None | Some(V::None) => {
                let mut parts = Vec::new();
                let trim = |text| -> &str {
                    if right {
                        str::trim_end_matches(text, is_space)
                    } else {
                        str::trim_start_matches(text, is_space)
                    }
                };
                let mut rest = trim(text);
                while !rest.is_empty() {
                    let at = if right {
                        rest.char_indices().rev().find(|(_, c)| is_space(*c)).map(|(at, c)| at + c.len_utf8())
                    } else {
                        rest.find(is_space)
                    };
                    let Some(at) = at.filter(|_| parts.len() < most) else {
                        parts.push(rest);
                        break;
                    };
                    let (head, tail) = rest.split_at(at);
                    parts.push(if right { tail } else { head });
                    rest = trim(if right { head } else { tail });
                }
                if right {
                    parts.reverse();
                }
                parts
            }
            Some(separator) => {
                let separator = need_str(&separator, "separator")?;
                if separator.is_empty() {
                    return fail("empty separator");
                }
                let limit = most.saturating_add(1);
                if right {
                    let mut parts: Vec<&str> = text.rsplitn(limit, &*separator).collect();
                    parts.reverse();
                    parts
                } else {
                    text.splitn(limit, &*separator).collect()
                }
            }
        };
        self.meter.items(parts.len())?;
        V::list(parts.into_iter().map(V::text).collect())
    }
}
