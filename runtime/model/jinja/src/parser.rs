//! Tokens to a syntax tree, as Jinja2's parser takes them.
//!
//! What must hold: the tree is no deeper than [`MAX_TREE`], however the template nests or chains its operators, so that
//! walking and dropping it needs a bounded stack.

use std::collections::HashSet;
use std::sync::Arc;

use crate::ast::{
    Args, Binary, Call, Comparison, Expr, For, Macro, Name, Stmt, StmtKind, Target, Unary, Uses,
};
use crate::error::{Error, ErrorKind, Result};
use crate::lexer::{Tok, Token, tokens};

/// The deepest a tree may be.
pub(crate) const MAX_TREE: u32 = 150;

pub(crate) fn parse(source: &str) -> Result<Vec<Stmt>> {
    let tokens = tokens(source)?;
    let mut parser =
        Parser { tokens, at: 0, depth: 0, loops: 0, uses: Uses::default(), blocks: HashSet::new() };
    let body = parser.statements(&[])?;
    match parser.peek() {
        Tok::End => Ok(body),
        _ => parser.syntax("unexpected end of a block"),
    }
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: u32,
    /// Loops around this place.
    loops: u32,
    /// The special names read since the macro around began.
    uses: Uses,
    blocks: HashSet<Name>,
}

impl Parser {
    fn peek(&self) -> &Tok {
        &self.tokens[self.at].kind
    }

    fn ahead(&self) -> &Tok {
        &self.tokens[(self.at + 1).min(self.tokens.len() - 1)].kind
    }

    fn line(&self) -> usize {
        self.tokens[self.at].line
    }

    fn next(&mut self) -> Tok {
        let token = self.peek().clone();
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
        token
    }

    fn syntax<T>(&self, message: impl Into<String>) -> Result<T> {
        Err(Error { kind: ErrorKind::Syntax(message.into()), line: Some(self.line()) })
    }

    fn describe(&self) -> String {
        match self.peek() {
            Tok::Data(_) => "template text".to_owned(),
            Tok::BlockBegin => "a statement".to_owned(),
            Tok::BlockEnd => "the end of a statement".to_owned(),
            Tok::VariableBegin => "`{{`".to_owned(),
            Tok::VariableEnd => "the end of an expression".to_owned(),
            Tok::Name(name) => format!("`{name}`"),
            Tok::Str(_) => "a string".to_owned(),
            Tok::Int(_) | Tok::Float(_) => "a number".to_owned(),
            Tok::Op(op) => format!("`{op}`"),
            Tok::End => "the end of the template".to_owned(),
        }
    }

    fn is_op(&self, op: &str) -> bool {
        matches!(self.peek(), Tok::Op(found) if *found == op)
    }

    fn is_name(&self, name: &str) -> bool {
        matches!(self.peek(), Tok::Name(found) if &**found == name)
    }

    fn skip_op(&mut self, op: &str) -> bool {
        let is = self.is_op(op);
        if is {
            self.next();
        }
        is
    }

    fn skip_name(&mut self, name: &str) -> bool {
        let is = self.is_name(name);
        if is {
            self.next();
        }
        is
    }

    fn expect_op(&mut self, op: &str) -> Result<()> {
        if self.skip_op(op) {
            Ok(())
        } else {
            self.syntax(format!("expected `{op}`, found {}", self.describe()))
        }
    }

    fn expect_name(&mut self, name: &str) -> Result<()> {
        if self.skip_name(name) {
            Ok(())
        } else {
            self.syntax(format!("expected `{name}`, found {}", self.describe()))
        }
    }

    fn name(&mut self) -> Result<Name> {
        match self.peek() {
            Tok::Name(_) => match self.next() {
                Tok::Name(name) => Ok(name),
                _ => unreachable!("a name was seen"),
            },
            _ => self.syntax(format!("expected a name, found {}", self.describe())),
        }
    }

    fn block_end(&mut self) -> Result<()> {
        match self.peek() {
            Tok::BlockEnd => {
                self.next();
                Ok(())
            }
            _ => self.syntax(format!("expected the end of the statement, found {}", self.describe())),
        }
    }

    /// Runs `parse` one level deeper.
    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let depth = self.depth;
        self.depth += 1;
        if self.depth > MAX_TREE {
            return Err(Error {
                kind: ErrorKind::Limit("the depth of statements and expressions"),
                line: Some(self.line()),
            });
        }
        let parsed = parse(self);
        self.depth = depth;
        parsed
    }

    /// A chain of operators, each of which is one level of the tree.
    fn chain(
        &mut self,
        operand: impl Fn(&mut Self) -> Result<Expr>,
        mut operator: impl FnMut(&mut Self) -> Option<fn(Expr, Expr) -> Expr>,
    ) -> Result<Expr> {
        let depth = self.depth;
        let mut left = operand(self)?;
        while let Some(join) = operator(self) {
            left = self.deeper(|parser| Ok(join(left, operand(parser)?)))?;
            self.depth += 1;
        }
        self.depth = depth;
        Ok(left)
    }

    /// Statements up to one whose tag begins with a name of `ends`, which is left to be read; or to the end.
    fn statements(&mut self, ends: &[&str]) -> Result<Vec<Stmt>> {
        let mut body = Vec::new();
        loop {
            let line = self.line();
            let kind = match self.peek() {
                Tok::Data(text) => {
                    let text = text.clone();
                    self.next();
                    StmtKind::Text(text)
                }
                Tok::VariableBegin => {
                    self.next();
                    let value = self.tuple(true, &[])?;
                    if *self.peek() != Tok::VariableEnd {
                        let found = self.describe();
                        return self.syntax(format!("expected the end of the expression, found {found}"));
                    }
                    self.next();
                    StmtKind::Print(vec![value])
                }
                Tok::BlockBegin => {
                    self.next();
                    if matches!(self.peek(), Tok::Name(name) if ends.contains(&&**name)) {
                        return Ok(body);
                    }
                    let kind = self.deeper(Self::statement)?;
                    self.block_end()?;
                    kind
                }
                _ if ends.is_empty() => return Ok(body),
                _ => {
                    return self
                        .syntax(format!("the template ends where `{}` is expected", ends.join("` or `")));
                }
            };
            body.push(Stmt { kind, line });
        }
    }

    /// The body of a statement up to its end tag, of which the name is taken.
    fn body(&mut self, ends: &[&str]) -> Result<(Vec<Stmt>, Name)> {
        self.skip_op(":");
        self.block_end()?;
        let body = self.statements(ends)?;
        Ok((body, self.name()?))
    }

    fn statement(&mut self) -> Result<StmtKind> {
        let tag = self.name()?;
        Ok(match &*tag {
            "for" => self.for_loop()?,
            "if" => self.if_branches()?,
            "set" => self.set()?,
            "with" => {
                let mut values = Vec::new();
                while !matches!(self.peek(), Tok::BlockEnd) {
                    if !values.is_empty() {
                        self.expect_op(",")?;
                    }
                    let target = self.target(&[])?;
                    self.expect_op("=")?;
                    values.push((target, self.expression(true)?));
                }
                StmtKind::With(values, self.body(&["endwith"])?.0)
            }
            "macro" => {
                let name = self.name()?;
                StmtKind::Macro(Box::new(self.macro_of(name, true, "endmacro")?))
            }
            "call" => {
                let line = self.line();
                let outer = std::mem::take(&mut self.uses);
                let params = if self.is_op("(") { self.signature()? } else { Vec::new() };
                let Expr::Call(call) = self.expression(true)? else {
                    return Err(Error { kind: ErrorKind::Syntax("expected call".into()), line: Some(line) });
                };
                let loops = std::mem::take(&mut self.loops);
                let body = self.body(&["endcall"])?.0;
                self.loops = loops;
                let uses = std::mem::replace(&mut self.uses, outer);
                self.used(uses);
                StmtKind::CallBlock(Box::new(Macro { name: "caller".into(), params, body, uses }), call)
            }
            "filter" => {
                let filters = self.filters(Expr::Captured, true)?;
                StmtKind::FilterBlock(filters, self.body(&["endfilter"])?.0)
            }
            "generation" => StmtKind::Generation(self.body(&["endgeneration"])?.0),
            "block" => {
                let name = self.name()?;
                let _ = self.skip_name("scoped");
                let required = self.skip_name("required");
                if required {
                    return Err(ErrorKind::Unsupported("a required block".into()).into());
                }
                if !self.blocks.insert(name.clone()) {
                    return self.syntax(format!("block '{name}' defined twice"));
                }
                let body = self.body(&["endblock"])?.0;
                self.skip_name(&name);
                StmtKind::Block(body)
            }
            "autoescape" => {
                let on = self.expression(true)?;
                StmtKind::Autoescape(on, self.body(&["endautoescape"])?.0)
            }
            "print" => {
                let mut values = Vec::new();
                while !matches!(self.peek(), Tok::BlockEnd) {
                    if !values.is_empty() {
                        self.expect_op(",")?;
                    }
                    values.push(self.expression(true)?);
                }
                StmtKind::Print(values)
            }
            "break" | "continue" => {
                if self.loops == 0 {
                    return self.syntax(format!("`{tag}` outside of a loop"));
                }
                if &*tag == "break" { StmtKind::Break } else { StmtKind::Continue }
            }
            "include" | "import" | "from" | "extends" => {
                while !matches!(self.peek(), Tok::BlockEnd | Tok::End) {
                    self.next();
                }
                StmtKind::Loader(match &*tag {
                    "include" => "`{% include %}`",
                    "import" => "`{% import %}`",
                    "from" => "`{% from %}`",
                    _ => "`{% extends %}`",
                })
            }
            _ => {
                self.at -= 1;
                return self.syntax(format!("unknown or misplaced tag `{tag}`"));
            }
        })
    }

    fn used(&mut self, inner: Uses) {
        self.uses.caller |= inner.caller;
        self.uses.kwargs |= inner.kwargs;
        self.uses.varargs |= inner.varargs;
    }

    fn for_loop(&mut self) -> Result<StmtKind> {
        let target = self.target(&["in"])?;
        self.expect_name("in")?;
        let iter = self.tuple(false, &["recursive"])?;
        let test = if self.skip_name("if") { Some(self.expression(true)?) } else { None };
        let recursive = self.skip_name("recursive");
        let loops = self.loops;
        self.loops = loops + 1;
        let (body, end) = self.body(&["endfor", "else"])?;
        self.loops = loops;
        let otherwise = if &*end == "else" { self.body(&["endfor"])?.0 } else { Vec::new() };
        Ok(StmtKind::For(Box::new(For { target, iter, test, body, otherwise, recursive })))
    }

    fn if_branches(&mut self) -> Result<StmtKind> {
        let mut branches = Vec::new();
        loop {
            let condition = self.tuple(false, &[])?;
            let (body, end) = self.body(&["elif", "else", "endif"])?;
            branches.push((condition, body));
            match &*end {
                "elif" => {}
                "else" => return Ok(StmtKind::If(branches, self.body(&["endif"])?.0)),
                _ => return Ok(StmtKind::If(branches, Vec::new())),
            }
        }
    }

    fn set(&mut self) -> Result<StmtKind> {
        let target = self.target(&[])?;
        if self.skip_op("=") {
            return Ok(StmtKind::Set(target, self.tuple(true, &[])?));
        }
        let filters = if self.is_op("|") { Some(self.filters(Expr::Captured, false)?) } else { None };
        Ok(StmtKind::SetBlock(target, filters, self.body(&["endset"])?.0))
    }

    fn macro_of(&mut self, name: Name, signature: bool, end: &str) -> Result<Macro> {
        let outer = std::mem::take(&mut self.uses);
        let params = if signature { self.signature()? } else { Vec::new() };
        let loops = std::mem::take(&mut self.loops);
        let body = self.body(&[end])?.0;
        self.loops = loops;
        let uses = std::mem::replace(&mut self.uses, outer);
        self.used(uses);
        Ok(Macro { name, params, body, uses })
    }

    fn signature(&mut self) -> Result<Vec<(Name, Option<Expr>)>> {
        self.expect_op("(")?;
        let mut params: Vec<(Name, Option<Expr>)> = Vec::new();
        while !self.is_op(")") {
            if !params.is_empty() {
                self.expect_op(",")?;
            }
            let name = self.name()?;
            let default = if self.skip_op("=") { Some(self.expression(true)?) } else { None };
            if default.is_none() && params.last().is_some_and(|(_, default)| default.is_some()) {
                return self.syntax("non-default argument follows default argument");
            }
            params.push((name, default));
        }
        self.expect_op(")")?;
        Ok(params)
    }

    /// The target of an assignment: a name, an attribute of a namespace, or several.
    fn target(&mut self, ends: &[&str]) -> Result<Target> {
        let mut targets = Vec::new();
        let mut tuple = false;
        loop {
            if matches!(self.peek(), Tok::BlockEnd | Tok::Op("=" | ")"))
                || matches!(self.peek(), Tok::Name(name) if ends.contains(&&**name))
            {
                break;
            }
            let one = if self.skip_op("(") {
                let inner = self.deeper(|parser| parser.target(&[]))?;
                self.expect_op(")")?;
                inner
            } else {
                let name = self.name()?;
                if matches!(&*name, "true" | "false" | "none" | "True" | "False" | "None") {
                    return self.syntax("can't assign to 'const'");
                }
                if self.skip_op(".") { Target::Attribute(name, self.name()?) } else { Target::Name(name) }
            };
            targets.push(one);
            if !self.skip_op(",") {
                break;
            }
            tuple = true;
        }
        match targets.pop() {
            Some(only) if !tuple => Ok(only),
            Some(last) => {
                targets.push(last);
                Ok(Target::Tuple(targets))
            }
            None => self.syntax(format!("expected a name, found {}", self.describe())),
        }
    }

    /// An expression, or several with commas between, which are a tuple.
    fn tuple(&mut self, conditional: bool, ends: &[&str]) -> Result<Expr> {
        let mut items = Vec::new();
        let mut tuple = false;
        loop {
            if matches!(self.peek(), Tok::BlockEnd | Tok::VariableEnd | Tok::Op(")"))
                || matches!(self.peek(), Tok::Name(name) if ends.contains(&&**name))
            {
                break;
            }
            items.push(self.expression(conditional)?);
            if !self.skip_op(",") {
                break;
            }
            tuple = true;
        }
        match items.pop() {
            Some(only) if !tuple => Ok(only),
            Some(last) => {
                items.push(last);
                Ok(Expr::Tuple(items))
            }
            None => self.syntax(format!("expected an expression, found {}", self.describe())),
        }
    }

    fn expression(&mut self, conditional: bool) -> Result<Expr> {
        self.deeper(|parser| if conditional { parser.conditional() } else { parser.or() })
    }

    fn conditional(&mut self) -> Result<Expr> {
        let depth = self.depth;
        let mut value = self.or()?;
        while self.skip_name("if") {
            let (condition, other) = self.deeper(|parser| {
                let condition = parser.or()?;
                let other =
                    if parser.skip_name("else") { Some(Box::new(parser.expression(true)?)) } else { None };
                Ok((condition, other))
            })?;
            value = Expr::If { condition: Box::new(condition), value: Box::new(value), other };
            self.depth += 1;
        }
        self.depth = depth;
        Ok(value)
    }

    fn or(&mut self) -> Result<Expr> {
        self.chain(Self::and, |parser| {
            parser.skip_name("or").then_some(|a, b| Expr::Or(Box::new(a), Box::new(b)))
        })
    }

    fn and(&mut self) -> Result<Expr> {
        self.chain(Self::not, |parser| {
            parser.skip_name("and").then_some(|a, b| Expr::And(Box::new(a), Box::new(b)))
        })
    }

    fn not(&mut self) -> Result<Expr> {
        if self.skip_name("not") {
            return self.deeper(|parser| Ok(Expr::Not(Box::new(parser.not()?))));
        }
        self.compare()
    }

    fn compare(&mut self) -> Result<Expr> {
        let first = self.sum()?;
        let mut rest = Vec::new();
        loop {
            let comparison = match self.peek() {
                Tok::Op("==") => Comparison::Eq,
                Tok::Op("!=") => Comparison::Ne,
                Tok::Op("<") => Comparison::Lt,
                Tok::Op("<=") => Comparison::Le,
                Tok::Op(">") => Comparison::Gt,
                Tok::Op(">=") => Comparison::Ge,
                Tok::Name(name) if &**name == "in" => Comparison::In,
                Tok::Name(name)
                    if &**name == "not" && matches!(self.ahead(), Tok::Name(name) if &**name == "in") =>
                {
                    self.next();
                    Comparison::NotIn
                }
                _ => break,
            };
            self.next();
            rest.push((comparison, self.sum()?));
        }
        Ok(if rest.is_empty() { first } else { Expr::Compare(Box::new(first), rest) })
    }

    fn sum(&mut self) -> Result<Expr> {
        self.chain(Self::concat, |parser| {
            if parser.skip_op("+") {
                Some(|a, b| Expr::Binary(Binary::Add, Box::new(a), Box::new(b)))
            } else if parser.skip_op("-") {
                Some(|a, b| Expr::Binary(Binary::Sub, Box::new(a), Box::new(b)))
            } else {
                None
            }
        })
    }

    fn concat(&mut self) -> Result<Expr> {
        let first = self.product()?;
        if !self.is_op("~") {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.skip_op("~") {
            parts.push(self.product()?);
        }
        Ok(Expr::Concat(parts))
    }

    fn product(&mut self) -> Result<Expr> {
        self.chain(Self::power, |parser| {
            let join: fn(Expr, Expr) -> Expr = match parser.peek() {
                Tok::Op("*") => |a, b| Expr::Binary(Binary::Mul, Box::new(a), Box::new(b)),
                Tok::Op("/") => |a, b| Expr::Binary(Binary::Div, Box::new(a), Box::new(b)),
                Tok::Op("//") => |a, b| Expr::Binary(Binary::FloorDiv, Box::new(a), Box::new(b)),
                Tok::Op("%") => |a, b| Expr::Binary(Binary::Mod, Box::new(a), Box::new(b)),
                _ => return None,
            };
            parser.next();
            Some(join)
        })
    }

    fn power(&mut self) -> Result<Expr> {
        self.chain(
            |parser| parser.unary(true),
            |parser| {
                parser.skip_op("**").then_some(|a, b| Expr::Binary(Binary::Pow, Box::new(a), Box::new(b)))
            },
        )
    }

    fn unary(&mut self, filtered: bool) -> Result<Expr> {
        let depth = self.depth;
        let sign = if self.skip_op("-") {
            Some(Unary::Minus)
        } else if self.skip_op("+") {
            Some(Unary::Plus)
        } else {
            None
        };
        let value = match sign {
            Some(sign) => self.deeper(|parser| Ok(Expr::Unary(sign, Box::new(parser.unary(false)?))))?,
            None => self.primary()?,
        };
        let value = self.postfix(value)?;
        let value = if filtered { self.filter_expression(value)? } else { value };
        self.depth = depth;
        Ok(value)
    }

    fn primary(&mut self) -> Result<Expr> {
        let token = self.peek().clone();
        match token {
            Tok::Name(name) => {
                self.next();
                Ok(match &*name {
                    "true" | "True" => Expr::Bool(true),
                    "false" | "False" => Expr::Bool(false),
                    "none" | "None" => Expr::None,
                    _ => {
                        match &*name {
                            "caller" => self.uses.caller = true,
                            "kwargs" => self.uses.kwargs = true,
                            "varargs" => self.uses.varargs = true,
                            _ => {}
                        }
                        Expr::Name(name)
                    }
                })
            }
            Tok::Str(first) => {
                self.next();
                let mut text: Arc<str> = first;
                while let Tok::Str(more) = self.peek() {
                    text = format!("{text}{more}").into();
                    self.next();
                }
                Ok(Expr::Str(text))
            }
            Tok::Int(number) => {
                self.next();
                Ok(Expr::Int(number))
            }
            Tok::Float(number) => {
                self.next();
                Ok(Expr::Float(number))
            }
            Tok::Op("(") => {
                self.next();
                if self.skip_op(")") {
                    return Ok(Expr::Tuple(Vec::new()));
                }
                let value = self.tuple(true, &[])?;
                self.expect_op(")")?;
                Ok(value)
            }
            Tok::Op("[") => {
                self.next();
                let mut items = Vec::new();
                while !self.is_op("]") {
                    items.push(self.expression(true)?);
                    if !self.skip_op(",") {
                        break;
                    }
                }
                self.expect_op("]")?;
                Ok(Expr::List(items))
            }
            Tok::Op("{") => {
                self.next();
                let mut entries = Vec::new();
                while !self.is_op("}") {
                    let key = self.expression(true)?;
                    self.expect_op(":")?;
                    entries.push((key, self.expression(true)?));
                    if !self.skip_op(",") {
                        break;
                    }
                }
                self.expect_op("}")?;
                Ok(Expr::Dict(entries))
            }
            _ => self.syntax(format!("unexpected {}", self.describe())),
        }
    }

    /// Attributes, items and calls; each is one level of the tree.
    fn postfix(&mut self, mut value: Expr) -> Result<Expr> {
        loop {
            value = match self.peek() {
                Tok::Op(".") => {
                    self.next();
                    match self.next() {
                        Tok::Name(name) => self.deeper(|_| Ok(Expr::Attribute(Box::new(value), name)))?,
                        Tok::Int(index) => {
                            self.deeper(|_| Ok(Expr::Item(Box::new(value), Box::new(Expr::Int(index)))))?
                        }
                        _ => return self.syntax("expected name or number"),
                    }
                }
                Tok::Op("[") => self.deeper(|parser| parser.subscript(value))?,
                Tok::Op("(") => self.deeper(|parser| parser.call(value))?,
                _ => return Ok(value),
            };
            self.depth += 1;
        }
    }

    fn filter_expression(&mut self, mut value: Expr) -> Result<Expr> {
        loop {
            value = match self.peek() {
                Tok::Op("|") => self.filters(value, false)?,
                Tok::Name(name) if &**name == "is" => self.deeper(|parser| parser.test(value))?,
                Tok::Op("(") => self.deeper(|parser| parser.call(value))?,
                _ => return Ok(value),
            };
            self.depth += 1;
        }
    }

    fn call(&mut self, callee: Expr) -> Result<Expr> {
        Ok(Expr::Call(Box::new(Call { callee, args: self.args()? })))
    }

    fn subscript(&mut self, value: Expr) -> Result<Expr> {
        self.expect_op("[")?;
        let mut parts: [Option<Expr>; 3] = [None, None, None];
        let mut colons = 0;
        while !self.is_op("]") {
            if self.is_op(",") {
                return Err(ErrorKind::Unsupported("a subscript of several parts".into()).into());
            }
            if self.is_op(":") && colons < 2 {
                self.next();
                colons += 1;
                continue;
            }
            if parts[colons].is_some() {
                return self.syntax(format!("unexpected {}", self.describe()));
            }
            parts[colons] = Some(self.expression(true)?);
        }
        self.expect_op("]")?;
        match (colons, parts) {
            (0, [Some(index), ..]) => Ok(Expr::Item(Box::new(value), Box::new(index))),
            (0, _) => self.syntax("a subscript is empty"),
            (_, parts) => Ok(Expr::Slice(Box::new(value), Box::new(parts))),
        }
    }

    fn args(&mut self) -> Result<Args> {
        self.expect_op("(")?;
        let mut args = Args::default();
        while !self.is_op(")") {
            if self.skip_op("*") {
                if args.rest.is_some() || args.named_rest.is_some() {
                    return self.syntax("invalid syntax for function call expression");
                }
                args.rest = Some(Box::new(self.expression(true)?));
            } else if self.skip_op("**") {
                if args.named_rest.is_some() {
                    return self.syntax("invalid syntax for function call expression");
                }
                args.named_rest = Some(Box::new(self.expression(true)?));
            } else if matches!((self.peek(), self.ahead()), (Tok::Name(_), Tok::Op("="))) {
                if args.named_rest.is_some() {
                    return self.syntax("invalid syntax for function call expression");
                }
                let name = self.name()?;
                self.next();
                if args.named.iter().any(|(known, _)| *known == name) {
                    return self.syntax(format!("keyword argument repeated: {name}"));
                }
                args.named.push((name, self.expression(true)?));
            } else {
                if args.rest.is_some() || args.named_rest.is_some() || !args.named.is_empty() {
                    return self.syntax("invalid syntax for function call expression");
                }
                args.positional.push(self.expression(true)?);
            }
            if !self.skip_op(",") {
                break;
            }
        }
        self.expect_op(")")?;
        Ok(args)
    }

    /// A name that may have dots in it.
    fn dotted(&mut self) -> Result<Name> {
        let mut name = self.name()?;
        while self.skip_op(".") {
            name = format!("{name}.{}", self.name()?).into();
        }
        Ok(name)
    }

    fn filters(&mut self, mut value: Expr, inline: bool) -> Result<Expr> {
        let depth = self.depth;
        let mut first = inline;
        while first || self.skip_op("|") {
            first = false;
            let name = self.dotted()?;
            value = self.deeper(|parser| {
                let args = if parser.is_op("(") { parser.args()? } else { Args::default() };
                Ok(Expr::Filter(Box::new(value), name, args))
            })?;
            self.depth += 1;
        }
        self.depth = depth + 1;
        Ok(value)
    }

    fn test(&mut self, value: Expr) -> Result<Expr> {
        self.expect_name("is")?;
        let negated = self.skip_name("not");
        let name = self.dotted()?;
        let args = match self.peek() {
            Tok::Op("(") => self.args()?,
            Tok::Name(name) if matches!(&**name, "else" | "or" | "and") => Args::default(),
            Tok::Name(name) if &**name == "is" => {
                return self.syntax("You cannot chain multiple tests with is");
            }
            Tok::Name(_) | Tok::Str(_) | Tok::Int(_) | Tok::Float(_) | Tok::Op("[" | "{") => {
                let depth = self.depth;
                let value = self.primary()?;
                let value = self.postfix(value)?;
                self.depth = depth;
                Args { positional: vec![value], ..Args::default() }
            }
            _ => Args::default(),
        };
        let test = Expr::Test(Box::new(value), name, args);
        Ok(if negated { Expr::Not(Box::new(test)) } else { test })
    }
}
