//! Properties of characters as Python's `str` has them, where Rust's `char` differs.

use std::sync::LazyLock;

use regex::Regex;

/// `str.isspace` of one character.
pub(crate) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

pub(crate) fn is_cased(c: char) -> bool {
    c.is_uppercase() || c.is_lowercase() || is_title(c)
}

fn is_title(c: char) -> bool {
    matches!(c, '\u{1c5}' | '\u{1c8}' | '\u{1cb}' | '\u{1f2}')
}

/// A character at the start of a word.
pub(crate) fn titlecase(c: char) -> String {
    match c {
        '\u{1c4}'..='\u{1c6}' => "\u{1c5}".into(),
        '\u{1c7}'..='\u{1c9}' => "\u{1c8}".into(),
        '\u{1ca}'..='\u{1cc}' => "\u{1cb}".into(),
        '\u{1f1}'..='\u{1f3}' => "\u{1f2}".into(),
        '\u{10d0}'..='\u{10ff}' => c.into(),
        _ => {
            let mut upper = c.to_uppercase();
            let first = upper.next().into_iter();
            first.chain(upper.flat_map(char::to_lowercase)).collect()
        }
    }
}

fn all_of(class: &str) -> Regex {
    // The classes below are literals, so they compile.
    Regex::new(&format!("^(?:{class})+$")).unwrap_or_else(|error| unreachable!("{error}"))
}

/// Digits that are not decimal: superscripts, subscripts and circled ones.
const DIGITS: &str = r"\p{Nd}²³¹⁰⁴-⁹₀-₉①-⑨⑴-⑼⒈-⒐";

static ALPHA: LazyLock<Regex> = LazyLock::new(|| all_of(r"\p{L}"));
static ALNUM: LazyLock<Regex> = LazyLock::new(|| all_of(r"[\p{L}\p{N}]"));
static DECIMAL: LazyLock<Regex> = LazyLock::new(|| all_of(r"\p{Nd}"));
static DIGIT: LazyLock<Regex> = LazyLock::new(|| all_of(&format!("[{DIGITS}]")));
static NUMERIC: LazyLock<Regex> = LazyLock::new(|| all_of(r"\p{N}"));
static HIDDEN: LazyLock<Regex> = LazyLock::new(|| all_of(r"[\p{C}\p{Z}]"));
static IDENTIFIER: LazyLock<Regex> = LazyLock::new(|| all_of(r"[\p{XID_Start}_]\p{XID_Continue}*"));
pub(crate) static WORD: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"[\p{L}\p{N}_]+").unwrap_or_else(|error| unreachable!("{error}")));

/// Whether `repr` shows a character as it is.
pub(crate) fn is_printable(c: char) -> bool {
    match c {
        ' '..='~' => true,
        '\0'..='\x1f' | '\x7f' => false,
        _ => !HIDDEN.is_match(c.encode_utf8(&mut [0; 4])),
    }
}

/// One of Python's `str.is…` methods.
pub(crate) fn is(method: &str, text: &str) -> Option<bool> {
    Some(match method {
        "isalpha" => ALPHA.is_match(text),
        "isalnum" => ALNUM.is_match(text),
        "isdecimal" => DECIMAL.is_match(text),
        "isdigit" => DIGIT.is_match(text),
        "isnumeric" => NUMERIC.is_match(text),
        "isidentifier" => IDENTIFIER.is_match(text),
        "isascii" => text.is_ascii(),
        "isprintable" => text.chars().all(is_printable),
        "isspace" => !text.is_empty() && text.chars().all(is_space),
        "islower" => text.chars().any(is_cased) && !text.chars().any(|c| c.is_uppercase() || is_title(c)),
        "isupper" => text.chars().any(is_cased) && !text.chars().any(|c| c.is_lowercase() || is_title(c)),
        "istitle" => {
            let (mut inside, mut any) = (false, false);
            for c in text.chars() {
                if c.is_uppercase() || is_title(c) {
                    if inside {
                        return Some(false);
                    }
                    (inside, any) = (true, true);
                } else if c.is_lowercase() {
                    if !inside {
                        return Some(false);
                    }
                    any = true;
                } else {
                    inside = false;
                }
            }
            any
        }
        _ => return None,
    })
}

/// `str.title`.
pub(crate) fn title(text: &str) -> String {
    let mut inside = false;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if inside {
            out.extend(c.to_lowercase());
        } else {
            out.push_str(&titlecase(c));
        }
        inside = is_cased(c);
    }
    out
}

/// `str.capitalize`.
pub(crate) fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(titlecase).unwrap_or_default();
    first + &chars.as_str().to_lowercase()
}

/// `str.splitlines`, each line with its end or without.
pub(crate) fn lines(text: &str, keep: bool) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut start = 0;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if !matches!(
            c,
            '\n' | '\r' | '\x0b' | '\x0c' | '\x1c' | '\x1d' | '\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}'
        ) {
            continue;
        }
        let mut end = at + c.len_utf8();
        if c == '\r' && chars.next_if(|&(_, next)| next == '\n').is_some() {
            end += 1;
        }
        lines.push(&text[start..if keep { end } else { at }]);
        start = end;
    }
    if start < text.len() {
        lines.push(&text[start..]);
    }
    lines
}
