//! The token cursor, and the parsing of statements and operands.

use crate::parse::Error;
use crate::parse::ast::{Init, Instruction, Operand, Statement, Variable};
use crate::parse::lexer::Tok;

/// Blocks deeper than this are refused.
const MAX_DEPTH: u32 = 64;

pub(super) struct Cursor {
    tokens: Vec<(Tok, u32)>,
    at: usize,
}

pub(super) type Result<T> = std::result::Result<T, Error>;

impl Cursor {
    pub(super) fn new(tokens: Vec<(Tok, u32)>) -> Self {
        Self { tokens, at: 0 }
    }

    pub(super) fn peek(&self) -> Option<&Tok> {
        self.tokens.get(self.at).map(|t| &t.0)
    }

    pub(super) fn line(&self) -> u32 {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(1, |t| t.1)
    }

    pub(super) fn next(&mut self) -> Result<Tok> {
        let t = self.peek().cloned().ok_or_else(|| self.error("the text ends too early"))?;
        self.at += 1;
        Ok(t)
    }

    pub(super) fn error(&self, message: impl Into<String>) -> Error {
        Error::new(self.line(), message)
    }

    pub(super) fn is(&self, c: char) -> bool {
        self.peek() == Some(&Tok::Punct(c))
    }

    pub(super) fn eat(&mut self, c: char) -> bool {
        let yes = self.is(c);
        self.at += usize::from(yes);
        yes
    }

    pub(super) fn expect(&mut self, c: char) -> Result<()> {
        if self.eat(c) { Ok(()) } else { Err(self.error(format!("expected `{c}`, found {:?}", self.peek()))) }
    }

    pub(super) fn word(&mut self) -> Result<String> {
        match self.next()? {
            Tok::Word(w) => Ok(w),
            t => Err(self.error(format!("expected a name, found {t:?}"))),
        }
    }

    pub(super) fn is_word(&self, w: &str) -> bool {
        matches!(self.peek(), Some(Tok::Word(x)) if x == w)
    }

    /// An integer with an optional sign.
    pub(super) fn int(&mut self) -> Result<i128> {
        let negative = self.eat('-');
        match self.next()? {
            Tok::Int(v) => Ok(if negative { -i128::from(v) } else { i128::from(v) }),
            t => Err(self.error(format!("expected an integer, found {t:?}"))),
        }
    }

    pub(super) fn ints3(&mut self) -> Result<[u32; 3]> {
        let mut out = [1; 3];
        for (i, slot) in out.iter_mut().enumerate() {
            if i > 0 && !self.eat(',') {
                break;
            }
            *slot =
                u32::try_from(self.int()?).map_err(|_| self.error("an extent that is no 32-bit number"))?;
        }
        Ok(out)
    }

    /// Skips to behind the next `;`.
    pub(super) fn skip_statement(&mut self) -> Result<()> {
        while !matches!(self.next()?, Tok::Punct(';')) {}
        Ok(())
    }

    /// A variable after its state space: alignment, type, name, extents, initialiser. Does not eat what follows.
    pub(super) fn variable(&mut self, space: &str) -> Result<Variable> {
        let line = self.line();
        let mut align = None;
        let mut element = None;
        let mut vector = 1;
        let mut pointee = false;
        let name = loop {
            let w = self.word()?;
            match w.as_str() {
                // Behind `.ptr`, the alignment is that of what the parameter points to.
                ".align" if pointee => drop(self.int()?),
                ".align" => align = Some(self.int()? as u64),
                ".ptr" => pointee = true,
                ".v2" => vector = 2,
                ".v4" => vector = 4,
                ".global" | ".shared" | ".const" | ".local" | ".generic" if pointee => {}
                w if w.starts_with('.') => {
                    element = Some(
                        type_bytes(&w[1..])
                            .ok_or_else(|| self.error(format!("`{w}` is not a type of a variable")))?,
                    );
                }
                _ => break w,
            }
        };
        let element = element.ok_or_else(|| self.error(format!("variable `{name}` has no type")))? * vector;
        let mut bytes = Some(element);
        while self.eat('[') {
            if self.eat(']') {
                bytes = None;
            } else {
                let n = u64::try_from(self.int()?)
                    .ok()
                    .filter(|&n| n < 1 << 32)
                    .ok_or_else(|| self.error("a bad extent"))?;
                bytes = bytes.map(|b| b.saturating_mul(n));
                self.expect(']')?;
            }
        }
        if bytes.is_some_and(|b| b > 1 << 32) {
            return Err(self.error(format!("variable `{name}` is larger than 4 GiB")));
        }
        let mut init = Vec::new();
        if self.eat('=') {
            self.initialiser(&mut init, 0)?;
            if bytes.is_none() {
                bytes = Some(init.len() as u64 * element);
            }
        }
        let align = align.unwrap_or(element).max(1);
        // Shared memory starts at a multiple of 1024, an allocation at one of 256.
        let most = if space == "shared" { 1024 } else { 256 };
        if !align.is_power_of_two() || align > most {
            return Err(self
                .error(format!("alignment {align} of `{name}`: powers of two up to {most} are supported")));
        }
        Ok(Variable { name, space: space.to_owned(), align, element: element / vector, bytes, init, line })
    }

    fn initialiser(&mut self, out: &mut Vec<Init>, depth: u32) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(self.error("an initialiser nested too deep"));
        }
        if self.eat('{') {
            while !self.eat('}') {
                self.initialiser(out, depth + 1)?;
                if !self.is('}') {
                    self.expect(',')?;
                }
            }
            return Ok(());
        }
        out.push(match self.operand(depth)? {
            Operand::Int(v) => Init::Bits(v as u64),
            Operand::Bits32(v) => Init::Bits(v.into()),
            Operand::Bits64(v) => Init::Bits(v),
            Operand::Decimal(v) => Init::Float(v),
            Operand::Name(n) if n == "generic" && self.eat('(') => {
                let symbol = self.operand(depth)?;
                self.expect(')')?;
                let more = if self.eat('+') { self.int()? as i64 } else { 0 };
                match symbol {
                    Operand::Name(n) => Init::Symbol(n, more),
                    Operand::Offset(n, o) => Init::Symbol(n, o + more),
                    _ => return Err(self.error("expected a symbol in `generic()`")),
                }
            }
            Operand::Name(n) => Init::Symbol(n, 0),
            Operand::Offset(n, o) => Init::Symbol(n, o),
            o => return Err(self.error(format!("an initialiser the emulator does not know: {o:?}"))),
        });
        Ok(())
    }

    /// The statements up to the closing brace, which is eaten.
    pub(super) fn body(&mut self, depth: u32) -> Result<Vec<Statement>> {
        if depth > MAX_DEPTH {
            return Err(self.error("blocks nested too deep"));
        }
        let mut out = Vec::new();
        loop {
            if self.eat('}') {
                return Ok(out);
            }
            if self.eat('{') {
                out.push(Statement::Block(self.body(depth + 1)?));
                continue;
            }
            if self.eat(';') {
                continue;
            }
            let line = self.line();
            let guard = if self.eat('@') {
                let negated = self.eat('!');
                Some((self.word()?, negated))
            } else {
                None
            };
            let w = self.word()?;
            if guard.is_none() && self.eat(':') {
                if self.is_word(".branchtargets") {
                    self.next()?;
                    let mut targets = vec![self.word()?];
                    while self.eat(',') {
                        targets.push(self.word()?);
                    }
                    self.expect(';')?;
                    out.push(Statement::Targets(w, targets));
                } else if self.is_word(".callprototype") || self.is_word(".calltargets") {
                    return Err(self.error("indirect calls are not supported"));
                } else {
                    out.push(Statement::Label(w, line));
                }
                continue;
            }
            if let Some(directive) = w.strip_prefix('.') {
                match directive {
                    "reg" => self.registers(&mut out)?,
                    "shared" | "local" | "param" | "global" | "const" => {
                        out.push(Statement::Variable(self.variable(directive)?));
                        self.expect(';')?;
                    }
                    "pragma" => self.skip_statement()?,
                    "loc" => {
                        while matches!(self.peek(), Some(Tok::Int(_))) && self.line() == line {
                            self.next()?;
                        }
                    }
                    _ => {
                        return Err(Error::new(
                            line,
                            format!("the emulator does not know the directive `.{directive}`"),
                        ));
                    }
                }
                continue;
            }
            let op = w.split('.').map(str::to_owned).collect();
            let mut operands = Vec::new();
            while !self.eat(';') {
                operands.push(self.operand(0)?);
                if !self.is(';') {
                    self.expect(',')?;
                }
            }
            out.push(Statement::Instruction(Instruction { line, guard, op, operands }));
        }
    }

    fn registers(&mut self, out: &mut Vec<Statement>) -> Result<()> {
        let mut kind = self.word()?;
        if matches!(kind.as_str(), ".v2" | ".v4") {
            return Err(self.error("vector registers are not supported"));
        }
        kind.remove(0);
        loop {
            let name = self.word()?;
            let count = if self.eat('<') {
                let n = u64::try_from(self.int()?)
                    .ok()
                    .filter(|&n| n <= 1 << 20)
                    .ok_or_else(|| self.error("a bad register count"))?;
                self.expect('>')?;
                Some(n)
            } else {
                None
            };
            out.push(Statement::Registers(kind.clone(), name, count));
            if !self.eat(',') {
                break;
            }
        }
        self.expect(';')
    }

    pub(super) fn operand(&mut self, depth: u32) -> Result<Operand> {
        if depth > MAX_DEPTH {
            return Err(self.error("operands nested too deep"));
        }
        match self.next()? {
            Tok::Word(w) => {
                if self.eat('|') {
                    return Ok(Operand::Pair(Box::new(Operand::Name(w)), Box::new(self.operand(depth + 1)?)));
                }
                if self.is('+') || self.is('-') {
                    return Ok(Operand::Offset(w, self.offset()?));
                }
                Ok(Operand::Name(w))
            }
            Tok::Int(v) => Ok(Operand::Int(v.into())),
            Tok::Decimal(v) => Ok(Operand::Decimal(v)),
            Tok::Bits32(v) => Ok(Operand::Bits32(v)),
            Tok::Bits64(v) => Ok(Operand::Bits64(v)),
            Tok::Punct('-') => match self.next()? {
                Tok::Int(v) => Ok(Operand::Int(-i128::from(v))),
                Tok::Decimal(v) => Ok(Operand::Decimal(-v)),
                t => Err(self.error(format!("expected a number behind `-`, found {t:?}"))),
            },
            Tok::Punct('!') => Ok(Operand::Not(self.word()?)),
            Tok::Punct('{') => Ok(Operand::Vector(self.list('}', depth)?)),
            Tok::Punct('(') => Ok(Operand::List(self.list(')', depth)?)),
            Tok::Punct('[') => {
                let base = match self.operand(depth + 1)? {
                    Operand::Offset(n, o) => (Operand::Name(n), o),
                    o => (o, 0),
                };
                let offset = base.1 + self.offset()?;
                let coords = if self.eat(',') {
                    match self.operand(depth + 1)? {
                        Operand::Vector(v) => Some(v),
                        o => return Err(self.error(format!("expected coordinates, found {o:?}"))),
                    }
                } else {
                    None
                };
                self.expect(']')?;
                Ok(Operand::Address { base: Box::new(base.0), offset, coords })
            }
            t => Err(self.error(format!("expected an operand, found {t:?}"))),
        }
    }

    fn list(&mut self, end: char, depth: u32) -> Result<Vec<Operand>> {
        let mut out = Vec::new();
        while !self.eat(end) {
            out.push(self.operand(depth + 1)?);
            if !self.is(end) {
                self.expect(',')?;
            }
        }
        Ok(out)
    }

    /// A possibly empty sum of signed integers: `+16`, `+-4`, `-8`.
    fn offset(&mut self) -> Result<i64> {
        let mut sum = 0i128;
        while self.is('+') || self.is('-') {
            self.eat('+');
            sum += self.int()?;
        }
        i64::try_from(sum).map_err(|_| self.error("an offset beyond 64 bits"))
    }
}

/// Bytes of a fundamental type named without its dot.
pub(crate) fn type_bytes(name: &str) -> Option<u64> {
    Some(match name {
        "b8" | "u8" | "s8" => 1,
        "b16" | "u16" | "s16" | "f16" | "bf16" => 2,
        "b32" | "u32" | "s32" | "f32" | "f16x2" | "bf16x2" => 4,
        "b64" | "u64" | "s64" | "f64" => 8,
        "b128" => 16,
        _ => return None,
    })
}
