//! Tokens of PTX, each with its line.

use crate::parse::Error;

/// A token.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Tok {
    /// A name, a register, an opcode with all its modifiers, or a directive with its leading dot.
    Word(String),
    /// An integer literal.
    Int(u64),
    /// A literal with a fraction or an exponent.
    Decimal(f64),
    /// `0f` and eight hexadecimal digits.
    Bits32(u32),
    /// `0d` and sixteen hexadecimal digits.
    Bits64(u64),
    Text(String),
    Punct(char),
}

/// Splits `source` into tokens with their lines.
pub(crate) fn lex(source: &str) -> Result<Vec<(Tok, u32)>, Error> {
    let b = source.as_bytes();
    let mut out = Vec::new();
    let (mut i, mut line) = (0, 1);
    let name = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'$' | b'%');
    while i < b.len() {
        let c = b[i];
        match c {
            b'\n' => {
                line += 1;
                i += 1;
            }
            c if c.is_ascii_whitespace() => i += 1,
            b'/' if b.get(i + 1) == Some(&b'/') => {
                while i < b.len() && b[i] != b'\n' {
                    i += 1;
                }
            }
            b'/' if b.get(i + 1) == Some(&b'*') => {
                let start = line;
                i += 2;
                while !b[i..].starts_with(b"*/") {
                    if i >= b.len() {
                        return Err(Error::new(start, "comment without an end"));
                    }
                    line += u32::from(b[i] == b'\n');
                    i += 1;
                }
                i += 2;
            }
            b'"' => {
                let from = i + 1;
                i = from;
                while i < b.len() && b[i] != b'"' && b[i] != b'\n' {
                    i += 1;
                }
                if b.get(i) != Some(&b'"') {
                    return Err(Error::new(line, "string without an end"));
                }
                out.push((Tok::Text(source[from..i].to_owned()), line));
                i += 1;
            }
            b'0'..=b'9' => {
                let from = i;
                while i < b.len()
                    && (name(b[i]) || (b[i] == b'.' && b.get(i + 1).is_some_and(u8::is_ascii_digit)))
                {
                    i += 1;
                }
                if matches!(b[i - 1], b'e' | b'E')
                    && !source[from..i].starts_with("0x")
                    && matches!(b.get(i), Some(b'-' | b'+'))
                    && source[from..i].contains('.')
                {
                    i += 1;
                    while i < b.len() && b[i].is_ascii_digit() {
                        i += 1;
                    }
                }
                let text = &source[from..i];
                out.push((
                    number(text).ok_or_else(|| Error::new(line, format!("`{text}` is not a number")))?,
                    line,
                ));
            }
            c if name(c) || (c == b'.' && b.get(i + 1).is_some_and(|&n| name(n))) => {
                let from = i;
                i += 1;
                while i < b.len() {
                    let more = name(b[i])
                        || (b[i] == b'.' && b.get(i + 1).is_some_and(|&n| name(n)))
                        || (b[i..].starts_with(b"::") && b.get(i + 2).is_some_and(|&n| name(n)));
                    if !more {
                        break;
                    }
                    i += if b[i] == b':' { 2 } else { 1 };
                }
                out.push((Tok::Word(source[from..i].to_owned()), line));
            }
            c if c.is_ascii() => {
                out.push((Tok::Punct(c as char), line));
                i += 1;
            }
            _ => return Err(Error::new(line, "a character outside ASCII")),
        }
    }
    Ok(out)
}

fn number(text: &str) -> Option<Tok> {
    let hex = |t: &str| u64::from_str_radix(t, 16).ok();
    if let Some(t) = text.strip_prefix("0f").or_else(|| text.strip_prefix("0F")) {
        return hex(t).filter(|_| t.len() == 8).map(|v| Tok::Bits32(v as u32));
    }
    if let Some(t) = text.strip_prefix("0d").or_else(|| text.strip_prefix("0D")) {
        return hex(t).filter(|_| t.len() == 16).map(Tok::Bits64);
    }
    let int = text.strip_suffix(['U', 'u']).unwrap_or(text);
    if let Some(t) = int.strip_prefix("0x").or_else(|| int.strip_prefix("0X")) {
        return hex(t).map(Tok::Int);
    }
    if let Some(t) = int.strip_prefix("0b").or_else(|| int.strip_prefix("0B")) {
        return u64::from_str_radix(t, 2).ok().map(Tok::Int);
    }
    if int.contains('.') || int.contains(['e', 'E']) {
        return int.parse().ok().map(Tok::Decimal);
    }
    if int.len() > 1 && int.starts_with('0') {
        return u64::from_str_radix(&int[1..], 8).ok().map(Tok::Int);
    }
    int.parse().ok().map(Tok::Int)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opcodes_labels_and_numbers() {
        let t = |s: &str| lex(s).map(|v| v.into_iter().map(|t| t.0).collect::<Vec<_>>()).unwrap();
        let w = |s: &str| Tok::Word(s.into());
        assert_eq!(t("ld.global.L2::128B.v4.f32"), [w("ld.global.L2::128B.v4.f32")]);
        assert_eq!(t("$L__BB0_1:"), [w("$L__BB0_1"), Tok::Punct(':')]);
        assert_eq!(
            t("0f3F800000 0x1fU 077 -1 0.5 1.5e-3"),
            [
                Tok::Bits32(0x3f80_0000),
                Tok::Int(31),
                Tok::Int(63),
                Tok::Punct('-'),
                Tok::Int(1),
                Tok::Decimal(0.5),
                Tok::Decimal(1.5e-3)
            ]
        );
        assert_eq!(t("%r1|%p2, [%rd1+-4];").len(), 11);
        assert_eq!(lex("a\n// b\n/* c\n */ d").unwrap(), [(w("a"), 1), (w("d"), 4)]);
        assert!(lex("/* x").is_err() && lex("\"x").is_err() && lex("12x").is_err());
    }
}
