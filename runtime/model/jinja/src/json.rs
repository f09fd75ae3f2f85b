//! `tojson` as transformers has it: Python's `json.dumps`, which escapes nothing for HTML.

use crate::error::{ErrorKind, Result, fail};
use crate::meter::{MAX_DEPTH, Meter};
use crate::number;
use crate::value::V;

/// The settings of `json.dumps`.
pub(crate) struct Style<'a> {
    pub(crate) ascii: bool,
    /// The indentation of a level; `None` writes everything on one line.
    pub(crate) indent: Option<String>,
    pub(crate) item: &'a str,
    pub(crate) key: &'a str,
    pub(crate) sort: bool,
}

pub(crate) fn dump(value: &V, style: &Style, meter: &Meter) -> Result<String> {
    let mut out = String::new();
    write(value, style, 0, &mut out, meter)?;
    Ok(out)
}

fn write(value: &V, style: &Style, depth: u32, out: &mut String, meter: &Meter) -> Result<()> {
    meter.items(1)?;
    if depth > MAX_DEPTH {
        return Err(ErrorKind::Limit("nested values").into());
    }
    match value {
        V::None => out.push_str("null"),
        V::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
        V::Int(number) => out.push_str(&number.to_string()),
        V::Float(number) => out.push_str(&float(*number)),
        V::Str(text) | V::Safe(text) => string(text, style.ascii, out, meter)?,
        V::List(list) | V::Tuple(list) => {
            sequence(('[', ']'), list.items.len(), style, depth, out, meter, |at, out| {
                write(&list.items[at], style, depth + 1, out, meter)
            })?;
        }
        V::Dict(dict) => {
            let mut entries: Vec<&(V, V)> = dict.entries().iter().collect();
            if style.sort {
                let sorted = crate::filters::sequence::sort(
                    entries,
                    |a, b| Ok(a.0.compare(&b.0, meter)?.is_some_and(std::cmp::Ordering::is_lt)),
                    meter,
                )?;
                entries = sorted;
            }
            sequence(('{', '}'), entries.len(), style, depth, out, meter, |at, out| {
                let (key, value) = entries[at];
                let key: String = match key {
                    V::Str(text) | V::Safe(text) => text.to_string(),
                    V::Int(number) => number.to_string(),
                    V::Float(number) => float(*number),
                    V::Bool(flag) => if *flag { "true" } else { "false" }.into(),
                    V::None => "null".into(),
                    other => {
                        return fail(format!(
                            "keys must be str, int, float, bool or None, not {}",
                            other.type_name()
                        ));
                    }
                };
                string(&key, style.ascii, out, meter)?;
                out.push_str(style.key);
                write(value, style, depth + 1, out, meter)
            })?;
        }
        other => return fail(format!("Object of type {} is not JSON serializable", other.type_name())),
    }
    Ok(())
}

fn sequence(
    brackets: (char, char),
    count: usize,
    style: &Style,
    depth: u32,
    out: &mut String,
    meter: &Meter,
    mut element: impl FnMut(usize, &mut String) -> Result<()>,
) -> Result<()> {
    out.push(brackets.0);
    let line = |depth: u32, out: &mut String| -> Result<()> {
        if let Some(indent) = &style.indent {
            meter.charge((indent.len() as u64).saturating_mul(depth.into()))?;
            out.push('\n');
            (0..depth).for_each(|_| out.push_str(indent));
        }
        Ok(())
    };
    for at in 0..count {
        if at > 0 {
            meter.bytes(style.item.len())?;
            out.push_str(style.item);
        }
        line(depth + 1, out)?;
        element(at, out)?;
    }
    if count > 0 {
        line(depth, out)?;
    }
    out.push(brackets.1);
    Ok(())
}

fn float(number: f64) -> String {
    if number.is_nan() {
        "NaN".into()
    } else if number.is_infinite() {
        if number > 0.0 { "Infinity" } else { "-Infinity" }.into()
    } else {
        number::repr(number)
    }
}

fn string(text: &str, ascii: bool, out: &mut String, meter: &Meter) -> Result<()> {
    meter.bytes(text.len())?;
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            c if c < ' ' || ascii && !(' '..='~').contains(&c) => {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    out.extend(format!("\\u{unit:04x}").chars());
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
    Ok(())
}
