//! Python's two ways to format: `text % values` and `text.format(values)`.

use std::sync::Arc;

use crate::call::CallArgs;
use crate::error::{Result, fail, unsupported};
use crate::number;
use crate::render::Interp;
use crate::value::V;

/// How a field is laid out.
#[derive(Clone, Debug, Default)]
struct Spec {
    fill: Option<char>,
    align: Option<char>,
    sign: Option<char>,
    alternate: bool,
    zero: bool,
    width: usize,
    grouping: Option<char>,
    precision: Option<usize>,
    kind: Option<char>,
}

/// Digits to a number that is too large for any field.
fn size(digits: &str) -> usize {
    digits.parse().unwrap_or(usize::MAX)
}

impl Interp<'_> {
    /// Fills a field up to its width.
    fn pad(&self, text: &str, spec: &Spec, default: char) -> Result<String> {
        let length = text.chars().count();
        let missing = spec.width.saturating_sub(length);
        let fill = spec.fill.unwrap_or(' ');
        self.meter.bytes(missing.saturating_mul(fill.len_utf8()))?;
        let fill = |count: usize| std::iter::repeat_n(fill, count).collect::<String>();
        Ok(match spec.align.unwrap_or(default) {
            '<' => format!("{text}{}", fill(missing)),
            '^' => format!("{}{text}{}", fill(missing / 2), fill(missing - missing / 2)),
            _ => format!("{}{text}", fill(missing)),
        })
    }

    /// A number's digits with sign, prefix, grouping and width.
    fn pad_number(&self, negative: bool, prefix: &str, digits: &str, spec: &Spec) -> Result<String> {
        let sign = if negative {
            "-"
        } else {
            match spec.sign {
                Some('+') => "+",
                Some(' ') => " ",
                _ => "",
            }
        };
        let inner = spec.align == Some('=') || (spec.zero && spec.align.is_none());
        let fill = spec.fill.unwrap_or(if spec.zero && inner { '0' } else { ' ' });
        let mut digits = digits.to_owned();
        if let Some(separator) = spec.grouping {
            let every = if matches!(spec.kind, Some('b' | 'o' | 'x' | 'X')) { 4 } else { 3 };
            let end = digits.find(['.', 'e', 'E', '%']).unwrap_or(digits.len());
            let mut whole = digits[..end].to_owned();
            if inner && fill == '0' {
                // Zeros in front are grouped too.
                let rest = digits.len() - end + sign.len() + prefix.len();
                let want = spec.width.saturating_sub(rest);
                self.meter.bytes(want)?;
                while whole.len() + (whole.len().saturating_sub(1)) / every < want {
                    whole.insert(0, '0');
                }
            }
            let grouped: String = whole
                .char_indices()
                .flat_map(|(at, c)| {
                    let mark = at > 0 && (whole.len() - at).is_multiple_of(every);
                    mark.then_some(separator).into_iter().chain([c])
                })
                .collect();
            digits = grouped + &digits[end..];
        }
        if inner {
            let missing = spec.width.saturating_sub(sign.len() + prefix.len() + digits.len());
            self.meter.bytes(missing.saturating_mul(fill.len_utf8()))?;
            let fill: String = std::iter::repeat_n(fill, missing).collect();
            return Ok(format!("{sign}{prefix}{fill}{digits}"));
        }
        self.pad(&format!("{sign}{prefix}{digits}"), spec, '>')
    }

    fn format_int(&self, number: i128, spec: &Spec) -> Result<String> {
        let magnitude = number.unsigned_abs();
        let (prefix, digits) = match spec.kind {
            None | Some('d' | 'n') => ("", magnitude.to_string()),
            Some('b') => ("0b", format!("{magnitude:b}")),
            Some('o') => ("0o", format!("{magnitude:o}")),
            Some('x') => ("0x", format!("{magnitude:x}")),
            Some('X') => ("0X", format!("{magnitude:X}")),
            Some('c') => {
                let c = u32::try_from(number).ok().and_then(char::from_u32);
                let Some(c) = c else { return fail("%c arg not in range(0x110000)") };
                return self.pad(c.encode_utf8(&mut [0; 4]), spec, '<');
            }
            _ => return self.format_float(number as f64, spec),
        };
        if spec.precision.is_some() {
            return fail("Precision not allowed in integer format specifier");
        }
        self.pad_number(number < 0, if spec.alternate { prefix } else { "" }, &digits, spec)
    }

    fn format_float(&self, number: f64, spec: &Spec) -> Result<String> {
        let precision = spec.precision.unwrap_or(6);
        self.meter.bytes(precision)?;
        let magnitude = number.abs();
        let upper = matches!(spec.kind, Some('F' | 'E' | 'G'));
        let mut digits = if number.is_finite() {
            match spec.kind {
                Some('f' | 'F') => number::fixed(magnitude, precision),
                Some('e' | 'E') => number::exponential(magnitude, precision),
                Some('g' | 'G' | 'n') => number::general(magnitude, precision, spec.alternate),
                Some('%') => number::fixed(magnitude * 100.0, precision) + "%",
                None => match spec.precision {
                    None => number::repr(magnitude),
                    Some(precision) => {
                        let text = number::general(magnitude, precision, spec.alternate);
                        let plain = text.chars().all(|c| c.is_ascii_digit());
                        // Unlike `g`, there is always a digit behind the point.
                        if plain && text.len() >= precision.max(1) {
                            let scientific = number::exponential(magnitude, precision.max(1) - 1);
                            let (digits, exponent) =
                                scientific.split_once('e').unwrap_or((&scientific, "+00"));
                            let digits = digits.trim_end_matches('0').trim_end_matches('.');
                            format!("{digits}e{exponent}")
                        } else if plain {
                            text + ".0"
                        } else {
                            text
                        }
                    }
                },
                Some(kind) => {
                    return fail(format!("Unknown format code '{kind}' for object of type 'float'"));
                }
            }
        } else {
            let mark = if spec.kind == Some('%') { "%" } else { "" };
            format!("{}{mark}", if number.is_nan() { "nan" } else { "inf" })
        };
        if upper {
            digits.make_ascii_uppercase();
        }
        self.pad_number(number.is_sign_negative() && !number.is_nan(), "", &digits, spec)
    }

    fn format_text(&self, text: &str, spec: &Spec) -> Result<String> {
        let kept: String = match spec.precision {
            Some(precision) => text.chars().take(precision).collect(),
            None => text.to_owned(),
        };
        self.pad(&kept, spec, '<')
    }

    /// `text % values`.
    pub(crate) fn printf(&self, format: &str, values: &V) -> Result<String> {
        self.meter.bytes(format.len())?;
        let many: Option<&[V]> = match values {
            V::Tuple(list) => Some(&list.items),
            _ => None,
        };
        let mut next = 0;
        let mut take = || -> Result<V> {
            next += 1;
            match many {
                Some(items) => items.get(next - 1).cloned(),
                None => (next == 1).then(|| values.clone()),
            }
            .map_or_else(|| fail("not enough arguments for format string"), Ok)
        };
        let mut out = String::new();
        let mut by_name = false;
        let mut chars = format.chars().peekable();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let mut named = None;
            if chars.next_if_eq(&'(').is_some() {
                let (mut name, mut open) = (String::new(), 1);
                loop {
                    match chars.next() {
                        Some(')') if open == 1 => break,
                        Some(c) => {
                            open += i32::from(c == '(') - i32::from(c == ')');
                            name.push(c);
                        }
                        None => return fail("incomplete format key"),
                    }
                }
                let V::Dict(dict) = values else { return fail("format requires a mapping") };
                by_name = true;
                named = Some(match dict.text(&name) {
                    Some(value) => value.clone(),
                    None => return fail(format!("'{name}'")),
                });
            }
            let mut spec = Spec::default();
            while let Some(flag) = chars.next_if(|c| matches!(c, '#' | '0' | '-' | ' ' | '+')) {
                match flag {
                    '#' => spec.alternate = true,
                    '0' => spec.zero = true,
                    '-' => spec.align = Some('<'),
                    ' ' if spec.sign.is_none() => spec.sign = Some(' '),
                    '+' => spec.sign = Some('+'),
                    _ => {}
                }
            }
            let mut number = |chars: &mut std::iter::Peekable<std::str::Chars>| -> Result<(usize, bool)> {
                if chars.next_if_eq(&'*').is_some() {
                    let Some(width) = take()?.as_int() else { return fail("* wants int") };
                    return Ok((usize::try_from(width.unsigned_abs()).unwrap_or(usize::MAX), width < 0));
                }
                let mut digits = String::new();
                while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                    digits.push(digit);
                }
                Ok((if digits.is_empty() { 0 } else { size(&digits) }, false))
            };
            let (width, left) = number(&mut chars)?;
            spec.width = width;
            if left {
                spec.align = Some('<');
            }
            if chars.next_if_eq(&'.').is_some() {
                spec.precision = Some(number(&mut chars)?.0);
            }
            while chars.next_if(|c| matches!(c, 'h' | 'l' | 'L')).is_some() {}
            let Some(kind) = chars.next() else { return fail("incomplete format") };
            if kind == '%' {
                out.push('%');
                continue;
            }
            let value = match named {
                Some(value) => value,
                None => take()?,
            };
            let text = self.printf_field(kind, &value, spec)?;
            self.meter.bytes(text.len())?;
            out.push_str(&text);
        }
        let all = match many {
            Some(items) => next >= items.len(),
            None => next > 0 || by_name || matches!(values, V::Dict(_)),
        };
        if !all && !by_name {
            return fail("not all arguments converted during string formatting");
        }
        Ok(out)
    }

    fn printf_field(&self, kind: char, value: &V, mut spec: Spec) -> Result<String> {
        spec.kind = Some(kind);
        match kind {
            's' | 'r' | 'a' => {
                let text: Arc<str> = if kind == 's' { self.str(value)? } else { self.repr(value)?.into() };
                if kind == 'a' && !text.is_ascii() {
                    return unsupported("`%a` of text that is not ASCII");
                }
                let spec = Spec { zero: false, align: spec.align.or(Some('>')), ..spec };
                self.format_text(&text, &spec)
            }
            'c' => {
                let text = match (value.as_str(), value.as_int()) {
                    (Some(text), _) if text.chars().count() == 1 => text.to_string(),
                    (None, Some(code)) => match u32::try_from(code).ok().and_then(char::from_u32) {
                        Some(c) => c.to_string(),
                        None => return fail("%c arg not in range(0x110000)"),
                    },
                    _ => return fail("%c requires an int or a unicode character"),
                };
                self.pad(&text, &spec, '>')
            }
            'd' | 'i' | 'u' | 'x' | 'X' | 'o' => {
                let number = match (value, value.as_int()) {
                    (_, Some(number)) => number,
                    (V::Float(number), _) if matches!(kind, 'd' | 'i' | 'u') && number.is_finite() => {
                        if number.abs() >= 1e38 {
                            return unsupported("an integer beyond 128 bits");
                        }
                        number.trunc() as i128
                    }
                    (V::Undefined(message), _) => return fail(&**message),
                    _ => {
                        return fail(format!(
                            "%{kind} format: a real number is required, not {}",
                            value.type_name()
                        ));
                    }
                };
                let (prefix, digits) = match kind {
                    'x' => ("0x", format!("{:x}", number.unsigned_abs())),
                    'X' => ("0X", format!("{:X}", number.unsigned_abs())),
                    'o' => ("0o", format!("{:o}", number.unsigned_abs())),
                    _ => ("", number.unsigned_abs().to_string()),
                };
                let missing = spec.precision.unwrap_or(0).saturating_sub(digits.len());
                self.meter.bytes(missing)?;
                let digits = "0".repeat(missing) + &digits;
                self.pad_number(number < 0, if spec.alternate { prefix } else { "" }, &digits, &spec)
            }
            'e' | 'E' | 'f' | 'F' | 'g' | 'G' => match value.as_float() {
                Some(number) => self.format_float(number, &spec),
                None => match value {
                    V::Undefined(message) => fail(&**message),
                    _ => fail(format!("must be real number, not {}", value.type_name())),
                },
            },
            other => fail(format!("unsupported format character '{other}'")),
        }
    }

    /// `text.format(...)`.
    pub(crate) fn format_method(&self, format: &str, args: &CallArgs) -> Result<String> {
        let mut automatic = Some(0);
        self.format_fields(format, args, &mut automatic, 2)
    }

    fn format_fields(
        &self,
        format: &str,
        args: &CallArgs,
        automatic: &mut Option<usize>,
        depth: u32,
    ) -> Result<String> {
        if depth == 0 {
            return fail("Max string recursion exceeded");
        }
        self.meter.bytes(format.len())?;
        let mut out = String::new();
        let mut rest = format;
        while let Some(at) = rest.find(['{', '}']) {
            out.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                out.push_str(brace);
                rest = after;
                continue;
            }
            if brace == "}" {
                return fail("Single '}' encountered in format string");
            }
            let mut open = 1;
            let mut brackets = false;
            let end = rest.find(|c| {
                match c {
                    '[' => brackets = true,
                    ']' => brackets = false,
                    '{' if !brackets => open += 1,
                    '}' if !brackets => open -= 1,
                    _ => {}
                }
                open == 0
            });
            let Some(end) = end else { return fail("expected '}' before end of string") };
            let field = &rest[..end];
            rest = &rest[end + 1..];
            // The name ends at a colon or an exclamation mark outside of brackets.
            let mut brackets = false;
            let name_end = field
                .find(|c| {
                    match c {
                        '[' => brackets = true,
                        ']' => brackets = false,
                        _ => {}
                    }
                    !brackets && matches!(c, ':' | '!')
                })
                .unwrap_or(field.len());
            let (name, tail) = field.split_at(name_end);
            let (conversion, spec) = match tail.strip_prefix('!') {
                Some(tail) => {
                    let mut chars = tail.chars();
                    let conversion = chars.next();
                    let spec = match chars.as_str() {
                        "" => "",
                        spec => match spec.strip_prefix(':') {
                            Some(spec) => spec,
                            None => return fail("expected ':' after conversion specifier"),
                        },
                    };
                    (conversion, spec)
                }
                None => (None, tail.strip_prefix(':').unwrap_or("")),
            };
            let value = self.format_argument(name, args, automatic)?;
            let value = match conversion {
                None => value,
                Some('s') => V::Str(self.str(&value)?),
                Some('r') => V::Str(self.repr(&value)?.into()),
                Some(other) => return fail(format!("Unknown conversion specifier {other}")),
            };
            let spec = if spec.contains(['{', '}']) {
                self.format_fields(spec, args, automatic, depth - 1)?
            } else {
                spec.to_owned()
            };
            let text = self.format_value(&value, &spec)?;
            self.meter.bytes(text.len())?;
            out.push_str(&text);
        }
        out.push_str(rest);
        Ok(out)
    }

    fn format_argument(&self, name: &str, args: &CallArgs, automatic: &mut Option<usize>) -> Result<V> {
        let end = name.find(['.', '[']).unwrap_or(name.len());
        let (first, mut path) = name.split_at(end);
        let mut value = if first.is_empty() || first.bytes().all(|b| b.is_ascii_digit()) {
            let at = match (first.is_empty(), &automatic) {
                (true, Some(at)) => *at,
                (true, None) => {
                    return fail(
                        "cannot switch from manual field specification to automatic field numbering",
                    );
                }
                (false, Some(at)) if *at > 0 => {
                    return fail(
                        "cannot switch from automatic field numbering to manual field specification",
                    );
                }
                (false, _) => size(first),
            };
            *automatic = first.is_empty().then_some(at + 1);
            match args.positional.get(at) {
                Some(value) => value.clone(),
                None => return fail("Replacement index out of range for positional args tuple"),
            }
        } else {
            match args.named.iter().find(|(known, _)| &**known == first) {
                Some((_, value)) => value.clone(),
                None => return fail(format!("'{first}'")),
            }
        };
        while !path.is_empty() {
            if let Some(rest) = path.strip_prefix('.') {
                let end = rest.find(['.', '[']).unwrap_or(rest.len());
                value = self.attribute(&value, &rest[..end].into())?;
                path = &rest[end..];
            } else {
                let inner = &path[1..];
                let Some(end) = inner.find(']') else { return fail("Missing ']' in format string") };
                let key = &inner[..end];
                let index = if key.bytes().all(|b| b.is_ascii_digit()) && !key.is_empty() {
                    V::Int(key.parse().unwrap_or(i128::MAX))
                } else {
                    V::text(key)
                };
                value = self.item(&value, &index)?;
                path = &inner[end + 1..];
            }
        }
        Ok(value)
    }

    /// `format(value, spec)`.
    fn format_value(&self, value: &V, spec: &str) -> Result<String> {
        if spec.is_empty() {
            return Ok(self.str(value)?.to_string());
        }
        let text = value.as_str().is_some();
        let Some(spec) = parse_spec(spec) else { return fail("Invalid format specifier") };
        let unknown = |kind: char| {
            fail(format!("Unknown format code '{kind}' for object of type '{}'", value.type_name()))
        };
        match value {
            _ if text => {
                if spec.kind.is_some_and(|kind| kind != 's') {
                    return unknown(spec.kind.unwrap_or('s'));
                }
                if spec.sign.is_some() || spec.align == Some('=') || spec.grouping.is_some() || spec.alternate
                {
                    return fail("this format is not allowed for a string");
                }
                let spec = Spec { fill: spec.fill.or(spec.zero.then_some('0')), ..spec };
                self.format_text(&self.str(value)?, &spec)
            }
            V::Bool(_) if spec.kind.is_none() => self.format_int(value.as_int().unwrap_or(0), &spec),
            V::Bool(_) | V::Int(_) => match spec.kind {
                None
                | Some('b' | 'c' | 'd' | 'n' | 'o' | 'x' | 'X' | 'e' | 'E' | 'f' | 'F' | 'g' | 'G' | '%') => {
                    self.format_int(value.as_int().unwrap_or(0), &spec)
                }
                Some(kind) => unknown(kind),
            },
            V::Float(number) => self.format_float(*number, &spec),
            V::Undefined(_) => fail("unsupported format string passed to Undefined.__format__"),
            _ => fail(format!("unsupported format string passed to {}.__format__", value.type_name())),
        }
    }
}

/// Reads `[[fill]align][sign][#][0][width][grouping][.precision][type]`.
fn parse_spec(text: &str) -> Option<Spec> {
    let mut spec = Spec::default();
    let mut chars: Vec<char> = text.chars().collect();
    let is_align = |c: &char| matches!(c, '<' | '>' | '=' | '^');
    if chars.get(1).is_some_and(is_align) {
        spec.fill = Some(chars[0]);
        spec.align = Some(chars[1]);
        chars.drain(..2);
    } else if chars.first().is_some_and(is_align) {
        spec.align = Some(chars.remove(0));
    }
    let mut chars = chars.into_iter().peekable();
    spec.sign = chars.next_if(|c| matches!(c, '+' | '-' | ' '));
    spec.alternate = chars.next_if_eq(&'#').is_some();
    spec.zero = chars.next_if_eq(&'0').is_some();
    let mut digits = String::new();
    while let Some(digit) = chars.next_if(char::is_ascii_digit) {
        digits.push(digit);
    }
    spec.width = if digits.is_empty() { 0 } else { size(&digits) };
    spec.grouping = chars.next_if(|c| matches!(c, ',' | '_'));
    if chars.next_if_eq(&'.').is_some() {
        let mut digits = String::new();
        while let Some(digit) = chars.next_if(char::is_ascii_digit) {
            digits.push(digit);
        }
        if digits.is_empty() {
            return None;
        }
        spec.precision = Some(size(&digits));
    }
    spec.kind = chars.next();
    chars.next().is_none().then_some(spec)
}
