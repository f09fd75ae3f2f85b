//! The parsing of module-level directives.

use std::cell::Cell;

use crate::parse::Error;
use crate::parse::ast::{Function, Unit, Variable};
use crate::parse::lexer::{Tok, lex};
use crate::parse::statement::{Cursor, Result};

/// Registers, statements and inlined instructions that any file may have; each of its bytes allows one more.
const MIN_ALLOWANCE: usize = 1 << 16;

/// Parses a PTX file.
pub(crate) fn parse(source: &str) -> Result<Unit> {
    let mut c = Cursor::new(lex(source)?);
    let mut unit = Unit { left: Cell::new(MIN_ALLOWANCE + source.len()), ..Unit::default() };
    while c.peek().is_some() {
        let line = c.line();
        let w = c.word()?;
        match w.as_str() {
            ".version" => {
                c.next()?;
            }
            ".target" => {
                unit.target = c.word()?;
                while c.eat(',') {
                    c.word()?;
                }
            }
            ".address_size" => {
                if c.int()? != 64 {
                    return Err(Error::new(line, "only 64-bit addresses are supported"));
                }
            }
            ".visible" | ".extern" | ".weak" | ".common" => {}
            ".global" | ".const" | ".shared" => {
                let v = c.variable(&w[1..])?;
                c.expect(';')?;
                unit.variables.push(v);
            }
            ".file" => {
                while c.line() == line && c.peek().is_some() {
                    c.next()?;
                }
            }
            ".section" => {
                while !c.is('{') {
                    c.next()?;
                }
                while !matches!(c.next()?, Tok::Punct('}')) {}
            }
            ".pragma" => c.skip_statement()?,
            ".alias" => return Err(Error::new(line, "`.alias` is not supported")),
            ".entry" | ".func" => {
                if let Some(f) = function(&mut c, w == ".entry", line)? {
                    unit.functions.push(f);
                }
            }
            _ => return Err(Error::new(line, format!("the emulator does not know `{w}` at module level"))),
        }
    }
    unit.index();
    Ok(unit)
}

/// A function after `.entry` or `.func`; `None` for a declaration without a body.
fn function(c: &mut Cursor, entry: bool, line: u32) -> Result<Option<Function>> {
    let results = if c.is('(') { params(c)? } else { Vec::new() };
    let name = c.word()?;
    let params = if c.is('(') { params(c)? } else { Vec::new() };
    let mut f = Function {
        name,
        entry,
        line,
        results,
        params,
        body: Vec::new(),
        required_threads: None,
        max_threads: None,
        cluster: None,
        min_ctas: None,
        max_registers: None,
    };
    loop {
        if c.eat(';') {
            return Ok(None);
        }
        if c.eat('{') {
            f.body = c.body(0)?;
            return Ok(Some(f));
        }
        let w = c.word()?;
        match w.as_str() {
            ".maxntid" => f.max_threads = Some(c.ints3()?),
            ".reqntid" => f.required_threads = Some(c.ints3()?),
            ".reqnctapercluster" => f.cluster = Some(c.ints3()?),
            ".minnctapersm" => f.min_ctas = u32::try_from(c.int()?).ok().filter(|&n| n > 0),
            ".maxnreg" => f.max_registers = u32::try_from(c.int()?).ok(),
            ".maxnctapersm" | ".maxclusterrank" => {
                c.int()?;
            }
            ".explicitcluster" | ".noreturn" | ".blocksareclusters" => {}
            ".pragma" => c.skip_statement()?,
            _ => return Err(c.error(format!("the emulator does not know the performance directive `{w}`"))),
        }
    }
}

fn params(c: &mut Cursor) -> Result<Vec<Variable>> {
    let mut out = Vec::new();
    c.expect('(')?;
    while !c.eat(')') {
        let w = c.word()?;
        if w != ".param" && w != ".reg" {
            return Err(c.error(format!("expected `.param`, found `{w}`")));
        }
        out.push(c.variable("param")?);
        if !c.is(')') {
            c.expect(',')?;
        }
    }
    Ok(out)
}
