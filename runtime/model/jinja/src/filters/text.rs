//! Filters of text.

use std::sync::Arc;

use crate::call::{CallArgs, integer};
use crate::error::{Result, fail};
use crate::number;
use crate::render::Interp;
use crate::unicode::{self, WORD, is_space};
use crate::value::{V, need_str};

impl Interp<'_> {
    /// Text that is safe in HTML: escaped unless it is already.
    pub(crate) fn escape(&self, value: &V) -> Result<Arc<str>> {
        if let V::Safe(text) = value {
            return Ok(text.clone());
        }
        let text = self.str(value)?;
        self.meter.bytes(6 * text.len())?;
        let mut out = String::with_capacity(text.len());
        for c in text.chars() {
            match c {
                '&' => out.push_str("&amp;"),
                '<' => out.push_str("&lt;"),
                '>' => out.push_str("&gt;"),
                '"' => out.push_str("&#34;"),
                '\'' => out.push_str("&#39;"),
                c => out.push(c),
            }
        }
        Ok(out.into())
    }

    /// One of the filters of text; `None` if it is another.
    pub(crate) fn text_filter(&mut self, name: &str, value: &V, args: &CallArgs) -> Result<Option<V>> {
        let args = || CallArgs { positional: args.positional.clone(), named: args.named.clone() };
        let made = match name {
            "escape" | "e" => {
                let [] = args().bind(name, [])?;
                return Ok(Some(V::Safe(self.escape(value)?)));
            }
            "forceescape" => {
                let text = V::Str(self.str(value)?);
                return Ok(Some(V::Safe(self.escape(&text)?)));
            }
            "safe" => return Ok(Some(V::Safe(self.str(value)?))),
            "upper" | "lower" | "capitalize" | "title" => {
                let [] = args().bind(name, [])?;
                let text = self.str(value)?;
                self.meter.bytes(4 * text.len())?;
                match name {
                    "upper" => text.to_uppercase(),
                    "lower" => text.to_lowercase(),
                    "capitalize" => unicode::capitalize(&text),
                    _ => words(&text),
                }
            }
            "trim" => {
                let [chars] = args().bind(name, ["chars"])?;
                let text = self.str(value)?;
                self.strip(&text, chars.as_ref(), "strip")?
            }
            "replace" => {
                let [old, new, count] = args().bind(name, ["old", "new", "count"])?;
                let (Some(old), Some(new)) = (old, new) else {
                    return fail("do_replace() missing required arguments");
                };
                let count = match &count {
                    None | Some(V::None) => -1,
                    count => integer(count.as_ref(), -1)?,
                };
                let (text, old, new) = (self.str(value)?, self.str(&old)?, self.str(&new)?);
                self.replace(&text, &old, &new, count)?
            }
            "center" => {
                let [width] = args().bind(name, ["width"])?;
                let text = V::Str(self.str(value)?);
                let width = width.unwrap_or(V::Int(80));
                let args = CallArgs { positional: vec![width], named: Vec::new() };
                return self.call_method(&text, "center", args).map(Some);
            }
            "indent" => {
                let [width, first, blank] = args().bind(name, ["width", "first", "blank"])?;
                self.indent(value, width, first.is_some_and(|v| v.truth()), blank.is_some_and(|v| v.truth()))?
            }
            "truncate" => {
                let [length, kill, end, leeway] =
                    args().bind(name, ["length", "killwords", "end", "leeway"])?;
                let end = end.map_or_else(|| Ok("...".into()), |end| need_str(&end, "end"))?;
                let leeway = match &leeway {
                    None | Some(V::None) => 5,
                    leeway => integer(leeway.as_ref(), 5)?,
                };
                let length = integer(length.as_ref(), 255)?;
                let short = end.chars().count() as i128;
                if length < short || leeway < 0 {
                    return fail(format!("expected length >= {short}, got {length}"));
                }
                let text = need_str(value, "value")?;
                self.meter.bytes(4 * text.len())?;
                if (text.chars().count() as i128) <= length.saturating_add(leeway) {
                    text.to_string()
                } else {
                    let cut: String =
                        text.chars().take(usize::try_from(length - short).unwrap_or(usize::MAX)).collect();
                    let cut = if kill.is_some_and(|v| v.truth()) {
                        &*cut
                    } else {
                        cut.rsplit_once(' ').map_or(&*cut, |(head, _)| head)
                    };
                    format!("{cut}{end}")
                }
            }
            "wordcount" => {
                let text = self.str(value)?;
                self.meter.bytes(4 * text.len())?;
                return Ok(Some(V::Int(WORD.find_iter(&text).count() as i128)));
            }
            "format" => {
                let args = args();
                if !args.positional.is_empty() && !args.named.is_empty() {
                    return fail("can't handle positional and keyword arguments at the same time");
                }
                let text = self.str(value)?;
                let values = if args.named.is_empty() {
                    V::tuple(args.positional)?
                } else {
                    V::dict(args.named.into_iter().map(|(k, v)| (V::Str(k), v)).collect(), &self.meter)?
                };
                self.printf(&text, &values)?
            }
            "urlencode" => self.urlencode(value)?,
            "filesizeformat" => {
                let [binary] = args().bind(name, ["binary"])?;
                let number = match value.as_str() {
                    Some(text) => number::parse_float(text),
                    None => value.as_float(),
                };
                let Some(number) = number.filter(|n| n.is_finite()) else {
                    return fail("a size must be a number");
                };
                file_size(number, binary.is_some_and(|v| v.truth()))
            }
            "xmlattr" => {
                let [space] = args().bind(name, ["autospace"])?;
                let V::Dict(dict) = value else { return fail("xmlattr takes a mapping") };
                let mut parts = Vec::new();
                for (key, value) in dict.entries() {
                    if value.is_undefined() || matches!(value, V::None) {
                        continue;
                    }
                    let name = need_str(key, "attribute name")?;
                    if name.contains([' ', '\t', '\n', '\r', '\x0b', '\x0c', '/', '>', '=']) {
                        return fail(format!("Invalid character in attribute name: {}", self.repr(key)?));
                    }
                    parts.push(format!("{}=\"{}\"", self.escape(key)?, self.escape(value)?));
                }
                let text = parts.join(" ");
                let space = space.is_none_or(|v| v.truth()) && !text.is_empty();
                format!("{}{text}", if space { " " } else { "" })
            }
            _ => return Ok(None),
        };
        self.meter.bytes(made.len())?;
        Ok(Some(V::Str(made.into())))
    }

    fn indent(&self, value: &V, width: Option<V>, first: bool, blank: bool) -> Result<String> {
        let indention: Arc<str> = match width {
            Some(V::Str(text)) => text,
            width => {
                let width = integer(width.as_ref(), 4)?.max(0);
                self.repeated(" ", usize::try_from(width).unwrap_or(usize::MAX))?.into()
            }
        };
        let text = match value {
            V::Undefined(message) => return fail(&**message),
            _ => format!("{}\n", need_str(value, "value")?),
        };
        let lines = unicode::lines(&text, false);
        self.meter.bytes(text.len().saturating_add(indention.len().saturating_mul(lines.len())))?;
        let mut out = String::new();
        for (at, line) in lines.iter().enumerate() {
            if at > 0 {
                out.push('\n');
            }
            if if at == 0 { first } else { blank || !line.is_empty() } {
                out.push_str(&indention);
            }
            out.push_str(line);
        }
        Ok(out)
    }

    fn urlencode(&self, value: &V) -> Result<String> {
        let quoted = |value: &V, query: bool| -> Result<String> {
            let text = self.str(value)?;
            self.meter.bytes(3 * text.len())?;
            Ok(quote(&text, query))
        };
        if value.as_str().is_some() || matches!(value, V::Int(_) | V::Float(_) | V::Bool(_) | V::None) {
            return quoted(value, false);
        }
        let pairs: Vec<(V, V)> = if let V::Dict(dict) = value {
            dict.entries().to_vec()
        } else {
            let mut pairs = Vec::new();
            for pair in value.items(&self.meter)? {
                let pair = pair.items(&self.meter)?;
                let [key, value] = &pair[..] else { return fail("expected pairs") };
                pairs.push((key.clone(), value.clone()));
            }
            pairs
        };
        let parts = pairs.iter().map(|(k, v)| Ok(format!("{}={}", quoted(k, true)?, quoted(v, true)?)));
        Ok(parts.collect::<Result<Vec<_>>>()?.join("&"))
    }
}

/// `urllib.parse.quote`; in a query a space is a plus and a slash is not left.
fn quote(text: &str, query: bool) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => out.push(byte.into()),
            b'/' if !query => out.push('/'),
            b' ' if query => out.push('+'),
            _ => out.extend(format!("%{byte:02X}").chars()),
        }
    }
    out
}

/// The filter `title`: unlike `str.title`, an apostrophe is a part of a word.
fn words(text: &str) -> String {
    let mut out = String::new();
    let mut start = true;
    for c in text.chars() {
        if matches!(c, '-' | '(' | '{' | '[' | '<') || is_space(c) {
            out.push(c);
            start = true;
        } else if start {
            out.extend(c.to_uppercase());
            start = false;
        } else {
            out.extend(c.to_lowercase());
        }
    }
    out
}

fn file_size(bytes: f64, binary: bool) -> String {
    let base: f64 = if binary { 1024.0 } else { 1000.0 };
    let prefixes = if binary {
        ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"]
    } else {
        ["kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"]
    };
    if (bytes - 1.0).abs() < f64::EPSILON {
        return "1 Byte".into();
    }
    if bytes < base {
        return format!("{} Bytes", bytes.trunc());
    }
    let mut last = String::new();
    for (power, prefix) in (2..).zip(prefixes) {
        let unit = base.powi(power);
        last = format!("{:.1} {prefix}", base * bytes / unit);
        if bytes < unit {
            break;
        }
    }
    last
}
