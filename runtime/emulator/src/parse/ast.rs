//! The output of the parser, for `decode`.

use std::cell::Cell;
use std::collections::HashMap;

/// An operand as written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Operand {
    /// A register, symbol, label or special register.
    Name(String),
    /// `!p`.
    Not(String),
    Int(i128),
    Decimal(f64),
    Bits32(u32),
    Bits64(u64),
    /// `{a, b}`.
    Vector(Vec<Operand>),
    /// `[base + offset]`, or `[base, {coordinates}]` of a tensor copy.
    Address {
        base: Box<Operand>,
        offset: i64,
        coords: Option<Vec<Operand>>,
    },
    /// `d|p`.
    Pair(Box<Operand>, Box<Operand>),
    /// `symbol + offset` outside brackets.
    Offset(String, i64),
    /// `(a, b)` of a call.
    List(Vec<Operand>),
}

/// A type and size of a declared variable.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Variable {
    pub(crate) name: String,
    pub(crate) space: String,
    pub(crate) align: u64,
    /// Bytes of one element.
    pub(crate) element: u64,
    /// Bytes in all; `None` for `[]` of an extern array.
    pub(crate) bytes: Option<u64>,
    pub(crate) init: Vec<Init>,
    pub(crate) line: u32,
}

/// One element of an initialiser.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Init {
    Bits(u64),
    Float(f64),
    /// Address of a symbol plus an offset.
    Symbol(String, i64),
}

/// A statement of a body.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Statement {
    Label(String, u32),
    /// Registers: type (without its dot), name, and the count of `name<count>`.
    Registers(String, String, Option<u64>),
    Variable(Variable),
    Instruction(Instruction),
    Block(Vec<Statement>),
    /// `name: .branchtargets a, b;`
    Targets(String, Vec<String>),
}

/// An instruction as written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Instruction {
    pub(crate) line: u32,
    /// Predicate and whether it is negated.
    pub(crate) guard: Option<(String, bool)>,
    /// The opcode with its modifiers, split at dots: `ld`, `global`, `v4`, `f32`.
    pub(crate) op: Vec<String>,
    pub(crate) operands: Vec<Operand>,
}

impl Instruction {
    pub(crate) fn name(&self) -> String {
        self.op.join(".")
    }
}

/// A kernel or device function.
#[derive(Clone, Debug)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) entry: bool,
    pub(crate) line: u32,
    pub(crate) results: Vec<Variable>,
    pub(crate) params: Vec<Variable>,
    pub(crate) body: Vec<Statement>,
    pub(crate) required_threads: Option<[u32; 3]>,
    pub(crate) max_threads: Option<[u32; 3]>,
    pub(crate) cluster: Option<[u32; 3]>,
    pub(crate) min_ctas: Option<u32>,
    pub(crate) max_registers: Option<u32>,
}

/// A whole file.
#[derive(Debug, Default)]
pub(crate) struct Unit {
    pub(crate) target: String,
    pub(crate) variables: Vec<Variable>,
    pub(crate) functions: Vec<Function>,
    /// Functions that can be called, by name.
    pub(crate) callees: HashMap<String, usize>,
    /// Variables by name: their place, and their place among those that are not shared.
    pub(crate) symbols: HashMap<String, (usize, u32)>,
    /// How many more registers, statements and inlined instructions the file may have. It starts with its length, so
    /// that decoding takes time and memory in proportion to it.
    pub(crate) left: Cell<usize>,
}

impl Unit {
    /// Indexes the names; the first of a name counts.
    pub(crate) fn index(&mut self) {
        for (at, f) in self.functions.iter().enumerate().filter(|(_, f)| !f.entry) {
            self.callees.entry(f.name.clone()).or_insert(at);
        }
        let mut index = 0;
        for (at, v) in self.variables.iter().enumerate() {
            self.symbols.entry(v.name.clone()).or_insert((at, index));
            index += u32::from(v.space != "shared");
        }
    }
}
