//! Values as text: Python's `str` and `repr`.

use std::fmt::Write;
use std::sync::Arc;

use crate::error::{ErrorKind, Result, unsupported};
use crate::meter::MAX_DEPTH;
use crate::number;
use crate::render::{Interp, Object};
use crate::unicode::is_printable;
use crate::value::{List, V};

impl Interp<'_> {
    /// `str(value)`.
    pub(crate) fn str(&self, value: &V) -> Result<Arc<str>> {
        match value {
            V::Str(text) | V::Safe(text) => Ok(text.clone()),
            V::Undefined(_) => Ok("".into()),
            _ => Ok(self.repr(value)?.into()),
        }
    }

    /// `repr(value)`.
    pub(crate) fn repr(&self, value: &V) -> Result<String> {
        let mut out = String::new();
        self.write_repr(value, 0, &mut out)?;
        Ok(out)
    }

    fn write_repr(&self, value: &V, depth: u32, out: &mut String) -> Result<()> {
        self.meter.items(1)?;
        if depth > MAX_DEPTH {
            return Err(ErrorKind::Limit("nested values").into());
        }
        match value {
            V::Undefined(_) => out.push_str("Undefined"),
            V::None => out.push_str("None"),
            V::Bool(flag) => out.push_str(if *flag { "True" } else { "False" }),
            V::Int(number) => out.push_str(&number.to_string()),
            V::Float(number) => out.push_str(&number::repr(*number)),
            V::Str(text) => self.write_quoted(text, out)?,
            V::Safe(text) => {
                out.push_str("Markup(");
                self.write_quoted(text, out)?;
                out.push(')');
            }
            V::List(list) => self.write_list(('[', ']'), list, depth, out)?,
            V::Tuple(list) => {
                out.push('(');
                self.write_items(list, depth, out)?;
                out.push_str(if list.items.len() == 1 { ",)" } else { ")" });
            }
            V::View(kind, list) => {
                out.push_str(kind);
                out.push('(');
                self.write_list(('[', ']'), list, depth, out)?;
                out.push(')');
            }
            V::Dict(dict) => self.write_entries(dict.entries().iter().map(|(k, v)| (k, v)), depth, out)?,
            V::Range(range) if range.step == 1 => {
                put(out, format_args!("range({}, {})", range.start, range.stop));
            }
            V::Range(range) => {
                put(out, format_args!("range({}, {}, {})", range.start, range.stop, range.step));
            }
            V::Object(id) => match &self.objects[*id] {
                Object::Namespace(attributes) => {
                    out.push_str("<Namespace ");
                    let keys: Vec<V> = attributes.iter().map(|(name, _)| V::Str(name.clone())).collect();
                    self.write_entries(keys.iter().zip(attributes.iter().map(|(_, v)| v)), depth, out)?;
                    out.push('>');
                }
                Object::Macro { def, .. } => {
                    out.push_str("<Macro ");
                    self.write_quoted(&def.name, out)?;
                    out.push('>');
                }
                Object::Loop(state) => {
                    put(out, format_args!("<LoopContext {}/{}>", state.index + 1, state.items.len()));
                }
                _ => return unsupported("printing an object"),
            },
            V::Iter(_) => return unsupported("printing a generator (put `|list` behind it)"),
            V::Method(_) | V::Global(_) => return unsupported("printing a function"),
        }
        Ok(())
    }

    fn write_items(&self, list: &List, depth: u32, out: &mut String) -> Result<()> {
        for (at, item) in list.items.iter().enumerate() {
            if at > 0 {
                out.push_str(", ");
            }
            self.write_repr(item, depth + 1, out)?;
        }
        Ok(())
    }

    fn write_list(&self, brackets: (char, char), list: &List, depth: u32, out: &mut String) -> Result<()> {
        out.push(brackets.0);
        self.write_items(list, depth, out)?;
        out.push(brackets.1);
        Ok(())
    }

    fn write_entries<'v>(
        &self,
        entries: impl Iterator<Item = (&'v V, &'v V)>,
        depth: u32,
        out: &mut String,
    ) -> Result<()> {
        out.push('{');
        for (at, (key, value)) in entries.enumerate() {
            if at > 0 {
                out.push_str(", ");
            }
            self.write_repr(key, depth + 1, out)?;
            out.push_str(": ");
            self.write_repr(value, depth + 1, out)?;
        }
        out.push('}');
        Ok(())
    }

    fn write_quoted(&self, text: &str, out: &mut String) -> Result<()> {
        self.meter.bytes(text.len())?;
        let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
        out.push(quote);
        for c in text.chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                c if c == quote => {
                    out.push('\\');
                    out.push(c);
                }
                c if is_printable(c) => out.push(c),
                c => match c as u32 {
                    code @ 0..=0xff => put(out, format_args!("\\x{code:02x}")),
                    code @ 0x100..=0xffff => put(out, format_args!("\\u{code:04x}")),
                    code => put(out, format_args!("\\U{code:08x}")),
                },
            }
        }
        out.push(quote);
        Ok(())
    }
}

fn put(out: &mut String, text: std::fmt::Arguments) {
    // Writing to a string does not fail.
    let _ = out.write_fmt(text);
}
