//! From statements to the compact form: names become indexes, modifiers become code, device functions are inlined.

mod bulk;
mod control;
mod convert;
mod float;
mod hopper;
mod integer;
mod matrix;
mod memory;
mod operand;
mod registers;
mod scope;
mod sync;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cfg::Blocks;
use crate::count::Class;
use crate::ir::{Code, Constant, Instr, Op, Pred, Reg};
use crate::kernel::{Kernel, KernelParam};
use crate::lanes::Ty;
use crate::memory::shared::SHARED_BASE;
use crate::parse::Error;
use crate::parse::ast::{Function, Instruction, Statement, Unit, Variable};
use scope::{Binding, Scope};
use watch::watch;

type Result<T> = std::result::Result<T, Error>;

/// Inlining deeper than this is refused: it is recursion.
const MAX_CALLS: usize = 32;
/// Bytes of static shared memory that are refused outright.
const MAX_SHARED: u64 = 1 << 20;
/// Marks constant registers until the number of the others is known.
const CONSTANT: Reg = 1 << 31;

/// Decodes every kernel of a file.
pub(crate) fn kernels(unit: &Unit) -> Result<Vec<Kernel>> {
    unit.functions.iter().filter(|f| f.entry).map(|f| kernel(unit, f)).collect()
}

fn kernel(unit: &Unit, f: &Function) -> Result<Kernel> {
    let mut d = Decoder::new(unit);
    let mut params = Vec::new();
    let mut at = 0u64;
    for p in &f.params {
        let bytes = p.bytes.ok_or_else(|| Error::new(p.line, "a parameter without a size"))?;
        at = at.next_multiple_of(p.align);
        params.push(KernelParam {
            name: p.name.clone(),
            offset: at as u32,
            bytes: bytes as u32,
            align: p.align as u32,
        });
        d.scopes[0].bind(p.name.clone(), Binding::Param(at));
        at += bytes;
        if at > 32764 {
            return Err(Error::new(
                p.line,
                format!("{at} bytes of parameters, more than the 32764 that a kernel can have"),
            ));
        }
    }
    d.function(f)?;
    let (code, static_shared, dynamic_shared_offset) = d.finish()?;
    Ok(Kernel {
        name: f.name.clone(),
        line: f.line,
        params,
        param_bytes: at as u32,
        static_shared,
        dynamic_shared_offset,
        required_threads: f.required_threads,
        max_threads: f.max_threads,
        cluster: f.cluster,
        min_ctas: f.min_ctas,
        max_registers: f.max_registers,
        code,
    })
}

/// The state of decoding one kernel.
pub(crate) struct Decoder<'a> {
    unit: &'a Unit,
    instrs: Vec<Instr>,
    scopes: Vec<Scope>,
    /// Instruction index by label id; targets hold label ids until the end.
    labels: Vec<u32>,
    next_reg: Reg,
    free_regs: Vec<Reg>,
    next_pred: Pred,
    free_preds: Vec<Pred>,
    constants: BTreeMap<Constant, Reg>,
    constant_list: Vec<Constant>,
    shared: u64,
    shared_symbols: BTreeMap<String, u64>,
    dynamic_align: u64,
    local: u64,
    /// Label ids that `ret` of the inlined functions jumps to.
    returns: Vec<u32>,
    communicates: bool,
    guard: Option<(Pred, bool)>,
    line: u32,
}

impl<'a> Decoder<'a> {
    fn new(unit: &'a Unit) -> Self {
        Self {
            unit,
            instrs: Vec::new(),
            scopes: vec![Scope::default()],
            labels: Vec::new(),
            next_reg: 0,
            free_regs: Vec::new(),
            next_pred: 0,
            free_preds: Vec::new(),
            constants: BTreeMap::new(),
            constant_list: Vec::new(),
            shared: 0,
            shared_symbols: BTreeMap::new(),
            dynamic_align: 16,
            local: 0,
            returns: Vec::new(),
            communicates: false,
            guard: None,
            line: 0,
        }
    }

    fn error(&self, message: impl Into<String>) -> Error {
        Error::new(self.line, message)
    }

    fn function(&mut self, f: &'a Function) -> Result<()> {
        self.line = f.line;
        self.block(&f.body)?;
        // Falling off the end is a return.
        self.guard = None;
        match self.returns.last() {
            Some(_) => {}
            None => self.push(Op::Exit, Class::Control),
        }
        Ok(())
    }

    /// Decodes a block with a scope of its own. Its registers are used again after it: they hold nothing outside.
    fn block(&mut self, body: &'a [Statement]) -> Result<()> {
        let mut scope = Scope::default();
        for s in body {
            if let Statement::Label(name, line) = s {
                if scope.has(name) {
                    return Err(Error::new(*line, format!("label `{name}` is defined twice")));
                }
                scope.bind(name.clone(), Binding::Label(self.labels.len() as u32));
                self.labels.push(u32::MAX);
            } else if let Statement::Targets(name, targets) = s {
                scope.bind(name.clone(), Binding::Targets(targets.clone()));
            }
        }
        self.scopes.push(scope);
        for s in body {
            self.statement(s)?;
        }
        if let Some(scope) = self.scopes.pop() {
            self.free_regs.extend(scope.regs);
            self.free_preds.extend(scope.preds);
        }
        Ok(())
    }

    /// Takes from what the file may have in all.
    fn spend(&self, count: usize) -> Result<()> {
        match self.unit.left.get().checked_sub(count) {
            Some(left) => {
                self.unit.left.set(left);
                Ok(())
            }
            None => {
                Err(self.error("more registers and inlined instructions than a file of this length can need"))
            }
        }
    }

    fn statement(&mut self, s: &'a Statement) -> Result<()> {
        self.spend(1)?;
        match s {
            Statement::Label(name, line) => {
                self.line = *line;
                if let Some(Binding::Label(id)) = self.lookup(name) {
                    self.labels[id as usize] = self.instrs.len() as u32;
                }
                Ok(())
            }
            Statement::Registers(kind, name, count) => self.registers(kind, name, *count),
            Statement::Variable(v) => self.variable(v),
            Statement::Block(body) => self.block(body),
            Statement::Targets(..) => Ok(()),
            Statement::Instruction(i) => {
                self.line = i.line;
                self.guard = i.guard.as_ref().map(|(p, n)| Ok((self.predicate(p)?, *n))).transpose()?;
                self.instruction(i)
            }
        }
    }

    fn registers(&mut self, kind: &str, name: &str, count: Option<u64>) -> Result<()> {
        let ty = Ty::parse(kind)
            .ok_or_else(|| self.error(format!("registers of type `.{kind}` are not supported")))?;
        let n = count.unwrap_or(1) as u32;
        self.spend(n as usize)?;
        let mut ids = Vec::with_capacity(n as usize);
        for _ in 0..n {
            ids.push(if ty == Ty::Pred { self.new_pred() } else { self.new_reg() });
        }
        let make = |id: u32| if ty == Ty::Pred { Binding::Pred(id) } else { Binding::Reg(id, ty.bits()) };
        let here = self.here();
        for (i, &id) in ids.iter().enumerate() {
            here.bind(if count.is_some() { format!("{name}{i}") } else { name.to_owned() }, make(id));
        }
        if ty == Ty::Pred {
            here.preds.extend(ids);
        } else {
            here.regs.extend(ids);
        }
        Ok(())
    }

    fn here(&mut self) -> &mut Scope {
        let last = self.scopes.len() - 1;
        &mut self.scopes[last]
    }

    fn variable(&mut self, v: &Variable) -> Result<()> {
        self.line = v.line;
        let Some(bytes) = v.bytes else {
            return Err(self.error(format!("variable `{}` has no size", v.name)));
        };
        let binding = match v.space.as_str() {
            "shared" => Binding::Shared(self.allocate_shared(v.align, bytes)),
            "local" | "param" => {
                self.local = self.local.next_multiple_of(v.align.max(8));
                let at = self.local;
                self.local += bytes;
                if v.space == "local" { Binding::Local(at) } else { Binding::CallParam(at) }
            }
            s => return Err(self.error(format!("`.{s}` variables inside a function are not supported"))),
        };
        self.here().bind(v.name.clone(), binding);
        self.check_shared()
    }

    fn allocate_shared(&mut self, align: u64, bytes: u64) -> u64 {
        let at = self.shared.next_multiple_of(align);
        self.shared = at + bytes;
        at + u64::from(SHARED_BASE)
    }

    /// Static shared memory that no GPU has is refused early, before sums of sizes can overflow.
    fn check_shared(&self) -> Result<()> {
        if self.shared > MAX_SHARED {
            return Err(self.error(format!("{} bytes of static shared memory", self.shared)));
        }
        Ok(())
    }

    fn new_reg(&mut self) -> Reg {
        self.free_regs.pop().unwrap_or_else(|| {
            self.next_reg += 1;
            self.next_reg - 1
        })
    }

    fn new_pred(&mut self) -> Pred {
        self.free_preds.pop().unwrap_or_else(|| {
            self.next_pred += 1;
            self.next_pred - 1
        })
    }

    /// A register for a value that is never read, or for an intermediate one; free again after the enclosing block.
    fn scratch(&mut self) -> Reg {
        let r = self.new_reg();
        self.here().regs.push(r);
        r
    }

    fn scratch_pred(&mut self) -> Pred {
        let p = self.new_pred();
        self.here().preds.push(p);
        p
    }

    pub(crate) fn constant(&mut self, c: Constant) -> Reg {
        *self.constants.entry(c).or_insert_with(|| {
            self.constant_list.push(c);
            CONSTANT | (self.constant_list.len() as Reg - 1)
        })
    }

    fn bits(&mut self, v: u64) -> Reg {
        self.constant(Constant::Bits(v))
    }

    fn push(&mut self, op: Op, class: Class) {
        let guard = self.guard;
        self.instrs.push(Instr { op, guard, class, line: self.line, watch: 0 });
    }

    fn lookup(&self, name: &str) -> Option<Binding> {
        self.scopes.iter().rev().find_map(|s| s.get(name)).cloned()
    }

    fn instruction(&mut self, i: &'a Instruction) -> Result<()> {
        let mut m = Mods::new(i);
        let head = i.op[0].as_str();
        match head {
            "mov" | "cvta" | "selp" | "slct" | "setp" | "set" | "and" | "or" | "xor" | "not" | "isspacep" => {
                self.moves(i, &mut m)?;
            }
            "cvt" => self.convert(i, &mut m)?,
            "add" | "sub" | "mul" | "fma" | "mad" | "div" | "rem" | "min" | "max" | "neg" | "abs" | "rcp"
            | "sqrt" | "rsqrt" | "ex2" | "lg2" | "sin" | "cos" | "tanh" | "copysign" | "testp" | "addc"
            | "subc" => self.arithmetic(i, &mut m)?,
            "cnot" | "popc" | "clz" | "brev" | "bfind" | "sad" | "bfe" | "bfi" | "shl" | "shr" | "shf"
            | "prmt" | "lop3" | "bmsk" | "szext" | "dp4a" | "mul24" | "mad24" => self.bitwise(i, &mut m)?,
            "ld" | "ldu" | "st" | "atom" | "red" | "prefetch" | "prefetchu" | "createpolicy"
            | "applypriority" | "discard" => {
                self.memory(i, &mut m)?;
            }
            "cp" => self.async_copy(i, &mut m)?,
            "mbarrier" | "wgmma" | "setmaxnreg" | "griddepcontrol" | "mapa" | "getctarank" => {
                self.hopper(i, &mut m)?;
            }
            "ldmatrix" | "stmatrix" | "mma" | "movmatrix" => self.matrix(i, &mut m)?,
            "bra" | "brx" | "call" | "ret" | "exit" | "trap" | "brkpt" | "nanosleep" | "pmevent" => {
                self.control(i, &mut m)?;
            }
            "bar" | "barrier" | "fence" | "membar" | "shfl" | "vote" | "match" | "redux" | "activemask"
            | "elect" => self.sync(i, &mut m)?,
            _ => return Err(self.error(format!("the emulator does not know the instruction `{}`", i.name()))),
        }
        if let Some(left) = m.left.first() {
            return Err(
                self.error(format!("the emulator does not know the modifier `.{left}` of `{}`", i.name()))
            );
        }
        Ok(())
    }

    /// Resolves labels, constants and the layout.
    fn finish(mut self) -> Result<(Code, u32, u32)> {
        let dynamic = self.shared.next_multiple_of(self.dynamic_align);
        let labels = std::mem::take(&mut self.labels);
        let mut end = false;
        // A label at the very end needs something to stand before.
        self.guard = None;
        self.push(Op::Exit, Class::Control);
        for i in &mut self.instrs {
            match &mut i.op {
                Op::Branch { target } => *target = labels[*target as usize],
                Op::Switch { targets, .. } => {
                    *targets = targets.iter().map(|&t| labels[t as usize]).collect();
                }
                _ => {}
            }
            end |= i.op.targets().contains(&u32::MAX);
        }
        if end {
            return Err(self.error("a branch to a label that is not defined"));
        }
        let blocks = Blocks::new(&self.instrs);
        let rank = blocks.ranks();
        let regs = registers::assign(&mut self.instrs, &blocks, &rank, self.next_reg, CONSTANT)
            .ok_or_else(|| self.error("too many registers for so many blocks"))?;
        for i in &mut self.instrs {
            i.op.visit(&mut |_, r| {
                if *r & CONSTANT != 0 {
                    *r = regs + (*r & !CONSTANT);
                }
            });
        }
        let constants: Vec<Constant> = self
            .constant_list
            .iter()
            .map(|c| match c {
                Constant::DynamicShared(off) => {
                    Constant::Bits((u64::from(SHARED_BASE) + dynamic).wrapping_add(*off as u64))
                }
                c => *c,
            })
            .collect();
        let local = u32::try_from(self.local).ok().filter(|&l| l <= 512 << 10);
        let Some(local) = local else {
            return Err(self.error(format!("{} bytes of local memory per thread", self.local)));
        };
        let regs = regs + constants.len() as u32;
        let watched = watch(&mut self.instrs, regs);
        let code = Code {
            instrs: self.instrs,
            rank,
            watched,
            regs,
            preds: self.next_pred,
            constants,
            local,
            communicates: self.communicates,
        };
        Ok((code, self.shared as u32, dynamic as u32))
    }

    fn map(&mut self, f: crate::lanes::Map, d: Reg, s: &[Reg], class: Class) {
        let mut regs = [s[0]; 4];
        regs[..s.len()].copy_from_slice(s);
        self.push(Op::Map { f, d, s: regs, n: s.len() as u8 }, class);
    }

    fn switch(&mut self, index: Reg, targets: Vec<u32>) {
        self.push(Op::Switch { index, targets: Arc::from(targets) }, Class::Control);
    }
}

/// The modifiers of an instruction that nothing has understood yet.
pub(crate) struct Mods<'a> {
    left: Vec<&'a str>,
}

impl<'a> Mods<'a> {
    fn new(i: &'a Instruction) -> Self {
        Self { left: i.op[1..].iter().map(String::as_str).collect() }
    }

    /// Whether a modifier is there; it counts as understood.
    fn take(&mut self, m: &str) -> bool {
        let at = self.left.iter().position(|&l| l == m);
        at.map(|at| self.left.remove(at)).is_some()
    }

    /// The first of `choices` that is there.
    fn one_of(&mut self, choices: &[&'static str]) -> Option<&'static str> {
        choices.iter().copied().find(|c| self.take(c))
    }

    /// The last modifier as a type.
    fn ty(&mut self) -> Option<Ty> {
        let t = self.left.last().and_then(|t| Ty::parse(t));
        if t.is_some() {
            self.left.pop();
        }
        t
    }
}

impl Decoder<'_> {
    /// The type at the end of the modifiers.
    fn ty(&self, m: &mut Mods) -> Result<Ty> {
        m.ty().ok_or_else(|| self.error("the instruction's type is missing or not supported"))
    }
}
