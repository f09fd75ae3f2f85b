//! Text to tokens, with Jinja2's rules for white space: `trim_blocks` and `lstrip_blocks` are on, as transformers has
//! them, and every line ends with a line feed.

use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};

/// A token and the line it is on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Token {
    pub(crate) kind: Tok,
    pub(crate) line: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Tok {
    Data(Arc<str>),
    BlockBegin,
    BlockEnd,
    VariableBegin,
    VariableEnd,
    Name(Arc<str>),
    Str(Arc<str>),
    Int(i128),
    Float(f64),
    /// An operator or a bracket, as it is written.
    Op(&'static str),
    End,
}

/// Longest first.
const OPERATORS: [&str; 26] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<",
    "=", ".", ":", "|", ",", ";",
];

/// The most bytes of a template. The longest in public use have some 20 kB.
const MAX_SOURCE: usize = 1 << 20;

pub(crate) fn tokens(source: &str) -> Result<Vec<Token>> {
    if source.len() > MAX_SOURCE {
        return Err(ErrorKind::Limit("the template's length").into());
    }
    let mut source = source.replace("\r\n", "\n").replace('\r', "\n");
    if source.ends_with('\n') {
        source.pop();
    }
    let mut lexer = Lexer { source: &source, at: 0, line: 1, line_starting: true, tokens: Vec::new() };
    lexer.run()?;
    Ok(lexer.tokens)
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    line: usize,
    /// Whether the text before `at` is the start, or ends a line.
    line_starting: bool,
    tokens: Vec<Token>,
}

/// The kinds of tags.
#[derive(Clone, Copy, PartialEq)]
enum Tag {
    Block,
    Variable,
    Comment,
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.source[self.at..]
    }

    fn syntax<T>(&self, message: impl Into<String>) -> Result<T> {
        Err(Error { kind: ErrorKind::Syntax(message.into()), line: Some(self.line) })
    }

    fn push(&mut self, kind: Tok) {
        self.tokens.push(Token { kind, line: self.line });
    }

    fn advance(&mut self, bytes: usize) {
        let passed = &self.source[self.at..self.at + bytes];
        self.line += passed.matches('\n').count();
        if !passed.is_empty() {
            self.line_starting = passed.ends_with('\n');
        }
        self.at += bytes;
    }

    fn skip_space(&mut self) {
        let space = self.rest().len() - self.rest().trim_start().len();
        self.advance(space);
    }

    fn run(&mut self) -> Result<()> {
        while self.at < self.source.len() {
            let rest = self.rest();
            let begin = rest.match_indices('{').find_map(|(at, _)| match rest.as_bytes().get(at + 1) {
                Some(b'%') => Some((at, Tag::Block)),
                Some(b'{') => Some((at, Tag::Variable)),
                Some(b'#') => Some((at, Tag::Comment)),
                _ => None,
            });
            let Some((begin, tag)) = begin else {
                let (text, length) = (Tok::Data(rest.into()), rest.len());
                self.push(text);
                self.advance(length);
                break;
            };
            let sign = rest[begin + 2..].chars().next().filter(|sign| matches!(sign, '-' | '+'));
            self.data(begin, sign, tag != Tag::Variable);
            self.advance(2 + sign.map_or(0, char::len_utf8));
            match tag {
                Tag::Comment => self.comment()?,
                Tag::Variable => self.tag(Tag::Variable)?,
                Tag::Block => match self.word_then_end("raw") {
                    Some(length) => self.raw(length)?,
                    None => self.tag(Tag::Block)?,
                },
            }
        }
        self.push(Tok::End);
        Ok(())
    }

    /// Text before a tag, without the white space that the tag takes.
    fn data(&mut self, length: usize, sign: Option<char>, block: bool) {
        let text = &self.source[self.at..self.at + length];
        let kept = match sign {
            Some('-') => text.trim_end(),
            None if block => {
                let line = text.rfind('\n').map_or(0, |at| at + 1);
                let indent = &text[line..];
                let starts = line > 0 || self.line_starting;
                if starts && !indent.is_empty() && indent.trim_start().is_empty() {
                    &text[..line]
                } else {
                    text
                }
            }
            Some(_) | None => text,
        };
        if !kept.is_empty() {
            let kept = Tok::Data(kept.into());
            self.push(kept);
        }
        self.advance(length);
    }

    /// The length of `word` and the end of its block, if that is what comes; white space may stand around it.
    fn word_then_end(&self, word: &str) -> Option<usize> {
        let rest = self.rest();
        let after = rest.trim_start().strip_prefix(word)?.trim_start();
        let after = match after.strip_prefix("-%}") {
            Some(after) => after.trim_start(),
            None => after.strip_prefix("%}")?,
        };
        Some(rest.len() - after.len())
    }

    fn raw(&mut self, length: usize) -> Result<()> {
        self.advance(length);
        let rest = self.rest();
        let mut from = 0;
        loop {
            let Some(at) = rest[from..].find("{%").map(|at| from + at) else {
                return self.syntax("Missing end of raw directive");
            };
            let inner = &rest[at + 2..];
            let sign = inner.chars().next().filter(|sign| matches!(sign, '-' | '+'));
            let inner = &inner[sign.map_or(0, char::len_utf8)..];
            if let Some(after) = inner.trim_start().strip_prefix("endraw").map(str::trim_start)
                && let Some(end) = end_of_tag(after, "%}", true)
            {
                let passed = rest.len() - after.len() + end - at;
                self.data(at, sign, true);
                self.advance(passed);
                return Ok(());
            }
            from = at + 2;
        }
    }

    fn comment(&mut self) -> Result<()> {
        let rest = self.rest();
        let Some(end) = rest.find("#}") else { return self.syntax("Missing end of comment tag") };
        // A sign before the end belongs to it.
        let from = if end > 0 && matches!(rest.as_bytes()[end - 1], b'-' | b'+') { end - 1 } else { end };
        let length = end_of_tag(&rest[from..], "#}", true).unwrap_or(2);
        self.advance(from + length);
        Ok(())
    }

    /// The inside of a tag, to its end.
    fn tag(&mut self, tag: Tag) -> Result<()> {
        let (begin, end, close) = match tag {
            Tag::Block => (Tok::BlockBegin, Tok::BlockEnd, "%}"),
            _ => (Tok::VariableBegin, Tok::VariableEnd, "}}"),
        };
        self.push(begin);
        let mut open: Vec<&'static str> = Vec::new();
        loop {
            self.skip_space();
            if open.is_empty()
                && let Some(length) = end_of_tag(self.rest(), close, tag == Tag::Block)
            {
                self.push(end);
                self.advance(length);
                return Ok(());
            }
            let Some(first) = self.rest().chars().next() else {
                return self.syntax("Unexpected end of template");
            };
            if first.is_ascii_digit() {
                self.number()?;
            } else if first == '_' || first.is_alphanumeric() {
                let rest = self.rest();
                let length = rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len());
                self.push(Tok::Name(rest[..length].into()));
                self.advance(length);
            } else if matches!(first, '\'' | '"') {
                self.string(first)?;
            } else {
                let Some(op) = OPERATORS.into_iter().find(|op| self.rest().starts_with(op)) else {
                    return self.syntax(format!("unexpected char {first:?}"));
                };
                match op {
                    "(" => open.push(")"),
                    "[" => open.push("]"),
                    "{" => open.push("}"),
                    ")" | "]" | "}" => match open.pop() {
                        Some(expected) if expected == op => {}
                        Some(expected) => {
                            return self.syntax(format!("unexpected '{op}', expected '{expected}'"));
                        }
                        None => return self.syntax(format!("unexpected '{op}'")),
                    },
                    _ => {}
                }
                self.push(Tok::Op(op));
                self.advance(op.len());
            }
        }
    }

    fn number(&mut self) -> Result<()> {
        let rest = self.rest();
        let digits = |text: &str, is: fn(u8) -> bool| {
            // Digits with single underscores between them.
            let bytes = text.as_bytes();
            let mut end = 0;
            while end < bytes.len()
                && (is(bytes[end])
                    || bytes[end] == b'_' && end > 0 && bytes.get(end + 1).is_some_and(|&b| is(b)))
            {
                end += 1;
            }
            end
        };
        let decimal = |b: u8| b.is_ascii_digit();
        let whole = digits(rest, decimal);
        let fraction = match rest[whole..].strip_prefix('.') {
            Some(after) if after.starts_with(|c: char| c.is_ascii_digit()) => 1 + digits(after, decimal),
            _ => 0,
        };
        let after = &rest[whole + fraction..];
        let exponent = if after.starts_with(['e', 'E']) {
            let sign = usize::from(after[1..].starts_with(['+', '-']));
            match digits(&after[1 + sign..], decimal) {
                0 => 0,
                length => 1 + sign + length,
            }
        } else {
            0
        };
        // A number that follows a dot (`x.1`) has no fraction.
        let dotted = matches!(self.tokens.last(), Some(Token { kind: Tok::Op("."), .. }));
        if fraction + exponent > 0 && !dotted {
            let length = whole + fraction + exponent;
            let text = rest[..length].replace('_', "");
            let Ok(value) = text.parse() else { return self.syntax(format!("invalid number {text}")) };
            self.push(Tok::Float(value));
            self.advance(length);
            return Ok(());
        }
        let based = |prefix: [char; 2], is: fn(u8) -> bool| {
            let after = rest.strip_prefix('0')?.strip_prefix(prefix)?;
            let skip = usize::from(after.starts_with('_'));
            Some(skip + digits(&after[skip..], is)).filter(|&length| length > skip)
        };
        let (radix, start, length) = if let Some(length) = based(['b', 'B'], |b| matches!(b, b'0' | b'1')) {
            (2, 2, length)
        } else if let Some(length) = based(['o', 'O'], |b| matches!(b, b'0'..=b'7')) {
            (8, 2, length)
        } else if let Some(length) = based(['x', 'X'], |b| b.is_ascii_hexdigit()) {
            (16, 2, length)
        } else if rest.starts_with('0') {
            (10, 0, digits(rest, |b| b == b'0'))
        } else {
            (10, 0, whole)
        };
        let text = rest[start..start + length].replace('_', "");
        let Ok(value) = i128::from_str_radix(&text, radix) else {
            return Err(ErrorKind::Unsupported("an integer beyond 128 bits".into()).into());
        };
        self.push(Tok::Int(value));
        self.advance(start + length);
        Ok(())
    }

    fn string(&mut self, quote: char) -> Result<()> {
        let rest = self.rest();
        let mut value = String::new();
        let mut chars = rest.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            if c == quote {
                self.push(Tok::Str(value.into()));
                self.advance(at + 1);
                return Ok(());
            }
            if c != '\\' {
                value.push(c);
                continue;
            }
            let Some((_, escaped)) = chars.next() else { break };
            let hex = |count: usize, chars: &mut std::iter::Skip<std::str::CharIndices>| {
                let mut code = 0u32;
                for _ in 0..count {
                    code = code * 16 + chars.next()?.1.to_digit(16)?;
                }
                Some(code)
            };
            let code = match escaped {
                '\n' => continue,
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                'a' => '\x07',
                'b' => '\x08',
                'f' => '\x0c',
                'v' => '\x0b',
                '\\' | '\'' | '"' => escaped,
                '0'..='7' => {
                    let mut code = escaped.to_digit(8).unwrap_or(0);
                    for _ in 0..2 {
                        let mut ahead = chars.clone();
                        let Some(digit) = ahead.next().and_then(|(_, c)| c.to_digit(8)) else { break };
                        code = code * 8 + digit;
                        chars = ahead;
                    }
                    char::from_u32(code).unwrap_or('\0')
                }
                'x' | 'u' | 'U' => {
                    let count = match escaped {
                        'x' => 2,
                        'u' => 4,
                        _ => 8,
                    };
                    let Some(mut code) = hex(count, &mut chars) else {
                        return self.syntax(format!("truncated \\{escaped} escape"));
                    };
                    // Python keeps halves of a pair apart; a pair is what is meant.
                    if (0xd800..0xdc00).contains(&code) {
                        let mut ahead = chars.clone();
                        let pair = ahead.next().is_some_and(|(_, c)| c == '\\')
                            && ahead.next().is_some_and(|(_, c)| c == 'u');
                        match hex(4, &mut ahead).filter(|low| pair && (0xdc00..0xe000).contains(low)) {
                            Some(low) => {
                                code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
                                chars = ahead;
                            }
                            None => return self.syntax("a lone surrogate in a string"),
                        }
                    }
                    match char::from_u32(code) {
                        Some(c) => c,
                        None => return self.syntax("illegal Unicode character"),
                    }
                }
                'N' => return Err(ErrorKind::Unsupported("an escape `\\N{name}`".into()).into()),
                other => {
                    value.push('\\');
                    other
                }
            };
            value.push(code);
        }
        self.syntax("a string has no end")
    }
}

/// The length of a tag's end, with the white space that it takes.
fn end_of_tag(rest: &str, close: &str, trims_line: bool) -> Option<usize> {
    if let Some(after) = rest.strip_prefix('-').and_then(|rest| rest.strip_prefix(close)) {
        return Some(rest.len() - after.trim_start().len());
    }
    if trims_line && rest.strip_prefix('+').is_some_and(|rest| rest.starts_with(close)) {
        return Some(1 + close.len());
    }
    let after = rest.strip_prefix(close)?;
    Some(close.len() + usize::from(trims_line && after.starts_with('\n')))
}
