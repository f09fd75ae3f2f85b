//! Loads, stores, atomics, asynchronous copies.

use super::scope::Binding;
use super::{Decoder, Mods, Result};
use crate::count::Class;
use crate::hb::Scope;
use crate::ir::{Address, AtomOp, AtomTy, Extend, MemSpace, Op, Order, Place};
use crate::lanes::Ty;
use crate::parse::ast::{Instruction, Operand};

impl<'a> Decoder<'a> {
    /// `[base + offset]`; a symbol's address is in the space it was declared in.
    pub(super) fn address(&mut self, o: &Operand) -> Result<Address> {
        let Operand::Address { base, offset, coords: None } = o else {
            return Err(self.error(format!("expected an address, found {o:?}")));
        };
        Ok(Address { base: self.base(base)?, offset: *offset })
    }

    fn base(&mut self, base: &Operand) -> Result<u32> {
        // A 32-bit register is fine: shared addresses are that wide.
        let register = matches!(base, Operand::Name(n) if matches!(self.lookup(n), Some(Binding::Reg(..))));
        self.src(base, Ty::B(if register { 32 } else { 64 }))
    }

    /// Drops the modifiers that only speak to caches.
    pub(super) fn cache_hints(m: &mut Mods) -> bool {
        let mut policy = false;
        m.left.retain(|l| {
            policy |= *l == "L2::cache_hint";
            let plain = matches!(*l, "ca" | "cg" | "cs" | "lu" | "cv" | "wb" | "wt" | "nc");
            !(plain || l.starts_with("L1::") || l.starts_with("L2::"))
        });
        policy
    }

    pub(super) fn scope(m: &mut Mods) -> Option<Scope> {
        match m.one_of(&["cta", "cluster", "gpu", "sys"])? {
            "cta" => Some(Scope::Cta),
            "cluster" => Some(Scope::Cluster),
            _ => Some(Scope::Gpu),
        }
    }

    fn space(&self, m: &mut Mods) -> Result<MemSpace> {
        if m.left.contains(&"shared::cluster") {
            return Err(self.error("`.shared::cluster` addresses are not supported here"));
        }
        Ok(
            match m.one_of(&[
                "global",
                "shared::cta",
                "shared",
                "local",
                "param::entry",
                "param::func",
                "param",
                "const",
            ]) {
                None => MemSpace::Generic,
                Some("global") => MemSpace::Global,
                Some("shared" | "shared::cta") => MemSpace::Shared,
                Some("local") => MemSpace::Local,
                Some("const") => MemSpace::Const,
                Some(_) => MemSpace::Param,
            },
        )
    }

    fn order(&mut self, m: &mut Mods, space: MemSpace) -> (Order, Scope) {
        let order = match m.one_of(&["weak", "relaxed", "acquire", "release", "acq_rel", "volatile", "mmio"])
        {
            None | Some("weak") => Order::Weak,
            Some("acquire") => Order::Acquire,
            Some("release") => Order::Release,
            Some("acq_rel") => Order::AcqRel,
            Some(_) => Order::Relaxed,
        };
        let scope = Self::scope(m).unwrap_or(Scope::Gpu);
        if order != Order::Weak
            && matches!(space, MemSpace::Generic | MemSpace::Global)
            && scope == Scope::Gpu
        {
            self.communicates = true;
        }
        (order, scope)
    }

    pub(super) fn memory(&mut self, i: &'a Instruction, m: &mut Mods) -> Result<()> {
        match i.op[0].as_str() {
            "ld" | "ldu" => self.load(i, m),
            "st" if i.op.iter().any(|m| m == "async") => self.store_async(i, m),
            "st" => self.store(i, m),
            "atom" | "red" => self.atomic(i, m),
            // Hints: nothing that can be observed happens.
            "createpolicy" => {
                m.left.clear();
                let d = i.operands.first().ok_or_else(|| self.error("operands are missing"))?;
                let (d, zero) = (self.dst_of(d, 64)?, self.bits(0));
                self.map(crate::lanes::map1(|v| v), d, &[zero], Class::Other);
                Ok(())
            }
            _ => {
                m.left.clear();
                self.push(Op::Nop, Class::Other);
                Ok(())
            }
        }
    }

    fn load(&mut self, i: &'a Instruction, m: &mut Mods) -> Result<()> {
        let ty = self.ty(m)?;
        let policy = Self::cache_hints(m);
        let n = Self::vector_width(m);
        let mut space = self.space(m)?;
        let (order, scope) = self.order(m, space);
        let operands = &i.operands[..];
        let (d, a) = match operands {
            [d, a] => (d, a),
            [d, a, p] if policy => {
                self.src(p, Ty::B(64))?;
                (d, a)
            }
            _ => return Err(self.error("a load takes a destination and an address")),
        };
        if let (MemSpace::Param, Operand::Address { base, .. }) = (space, a) {
            space = self.param_space(base);
        }
        let address = self.address(a)?;
        let list = Self::vector(d);
        if list.len() != n {
            return Err(self.error(format!(
                "`{}` makes {n} values, found {} destinations",
                i.name(),
                list.len()
            )));
        }
        let mut bits = 64;
        let mut regs = Vec::with_capacity(n);
        for o in list {
            let (r, w) = self.dst(o)?;
            if w < ty.bits() {
                return Err(self.error(format!("the destination has {w} bits, the value {}", ty.bits())));
            }
            bits = w;
            regs.push(r);
        }
        let class = match space {
            MemSpace::Shared => Class::SharedLoad,
            MemSpace::Global | MemSpace::Generic => Class::GlobalLoad,
            _ => Class::OtherMemory,
        };
        let place = Place { space, address, order, scope, bytes: (ty.bits() / 8) as u8 };
        self.push(Op::Ld { place, d: regs.into(), extend: Extend { signed: ty.signed(), bits } }, class);
        Ok(())
    }

    fn vector_width(m: &mut Mods) -> usize {
        match m.one_of(&["v2", "v4", "v8"]) {
            Some("v2") => 2,
            Some("v4") => 4,
            Some(_) => 8,
            None => 1,
        }
    }

    fn store(&mut self, i: &'a Instruction, m: &mut Mods) -> Result<()> {
        let ty = self.ty(m)?;
        let policy = Self::cache_hints(m);
        let n = Self::vector_width(m);
        let mut space = self.space(m)?;
        let (order, scope) = self.order(m, space);
        let (a, s) = match &i.operands[..] {
            [a, s] => (a, s),
            [a, s, p] if policy => {
                self.src(p, Ty::B(64))?;
                (a, s)
            }
            _ => return Err(self.error("a store takes an address and a source")),
        };
        if let (MemSpace::Param, Operand::Address { base, .. }) = (space, a) {
            space = self.param_space(base);
        }
        let address = self.address(a)?;
        let s = self.sources(s, ty, n)?;
        let class = match space {
            MemSpace::Shared => Class::SharedStore,
            MemSpace::Global | MemSpace::Generic => Class::GlobalStore,
            _ => Class::OtherMemory,
        };
        self.push(
            Op::St { place: Place { space, address, order, scope, bytes: (ty.bits() / 8) as u8 }, s },
            class,
        );
        Ok(())
    }

    fn atomic(&mut self, i: &'a Instruction, m: &mut Mods) -> Result<()> {
        let returns = i.op[0] == "atom";
        let ty = self.ty(m)?;
        Self::cache_hints(m);
        m.take("noftz");
        let op = m.one_of(&["exch", "cas", "and", "or", "xor", "add", "min", "max", "inc", "dec"]);
        let op = match op {
            Some("exch") => AtomOp::Exch,
            Some("cas") => AtomOp::Cas,
            Some("and") => AtomOp::And,
            Some("or") => AtomOp::Or,
            Some("xor") => AtomOp::Xor,
            Some("add") => AtomOp::Add,
            Some("min") => AtomOp::Min,
            Some("max") => AtomOp::Max,
            Some("inc") => AtomOp::Inc,
            Some("dec") => AtomOp::Dec,
            _ => {
                return Err(self.error(format!("the emulator does not know the operation of `{}`", i.name())));
            }
        };
        let kind = match ty {
            Ty::S(_) => AtomTy::Signed,
            Ty::F32 => AtomTy::F32,
            Ty::F64 => AtomTy::F64,
            Ty::F16 => AtomTy::F16,
            Ty::Bf16 => AtomTy::Bf16,
            Ty::F16x2 => AtomTy::F16x2,
            Ty::Bf16x2 => AtomTy::Bf16x2,
            _ => AtomTy::Unsigned,
        };
        let float = !matches!(kind, AtomTy::Signed | AtomTy::Unsigned);
        if float && !matches!(op, AtomOp::Add)
            || ty.bits() < 16
            || (ty.bits() == 16 && !float && op != AtomOp::Cas)
        {
            return Err(self.error(format!("the emulator does not know the instruction `{}`", i.name())));
        }
        let space = self.space(m)?;
        if !matches!(space, MemSpace::Generic | MemSpace::Global | MemSpace::Shared) {
            return Err(self.error("atomics work on global and shared memory"));
        }
        let (mut order, scope) = self.order(m, space);
        if order == Order::Weak {
            order = Order::Relaxed;
        }
        if space != MemSpace::Shared && scope == Scope::Gpu {
            self.communicates = true;
        }
        let (d, rest) = match &i.operands[..] {
            [d, rest @ ..] if returns => (Some(self.dst_of(d, ty.bits())?), rest),
            rest => (None, rest),
        };
        let (a, b, c) = match rest {
            [a, b] if op != AtomOp::Cas => (a, b, None),
            [a, b, c] if op == AtomOp::Cas => (a, b, Some(self.src(c, ty)?)),
            _ => return Err(self.error("an atomic with a wrong number of operands")),
        };
        let (address, b) = (self.address(a)?, self.src(b, ty)?);
        let place = Place { space, address, order, scope, bytes: (ty.bits() / 8) as u8 };
        self.push(Op::Atom { place, op, ty: kind, d, b, c }, Class::Atomic);
        Ok(())
    }

    /// `cp.async` and its commits and waits.
    pub(super) fn async_copy(&mut self, i: &'a Instruction, m: &mut Mods) -> Result<()> {
        if self.bulk_copy(i, m)? {
            return Ok(());
        }
        if !m.take("async") || m.left.contains(&"reduce") {
            return Err(self.error(format!("the emulator does not know the instruction `{}`", i.name())));
        }
        if m.take("commit_group") {
            self.push(Op::CpCommit, Class::AsyncCopy);
            return Ok(());
        }
        if m.take("wait_all") {
            self.push(Op::CpWait { left: None }, Class::AsyncCopy);
            return Ok(());
        }
        if m.take("wait_group") {
            let [Operand::Int(n)] = self.operands(i)? else {
                return Err(self.error("`cp.async.wait_group` takes a literal"));
            };
            self.push(Op::CpWait { left: Some(*n as u32) }, Class::AsyncCopy);
            return Ok(());
        }
        let whole = m.left.contains(&"cg");
        let policy = Self::cache_hints(m);
        if !(m.take("shared") || m.take("shared::cta")) || !m.take("global") {
            return Err(self.error("`cp.async` copies from global to shared memory"));
        }
        let [to, from, Operand::Int(bytes), rest @ ..] = &i.operands[..] else {
            return Err(self.error("`cp.async` takes two addresses and a literal size"));
        };
        let bytes = u8::try_from(*bytes).ok().filter(|&b| matches!((b, whole), (16, _) | (4 | 8, false)));
        let bytes =
            bytes.ok_or_else(|| self.error("`cp.async` copies 4, 8 or 16 bytes, with .cg only 16"))?;
        let rest = if policy { rest.split_last().map_or(rest, |r| r.1) } else { rest };
        let (mut size, mut ignore) = (None, None);
        match rest {
            [] => {}
            [o] => match self.pred(o) {
                Ok(p) => ignore = Some(p),
                Err(_) => size = Some(self.src(o, Ty::B(32))?),
            },
            _ => return Err(self.error("`cp.async` with too many operands")),
        }
        let (to, from) = (self.address(to)?, self.address(from)?);
        self.push(Op::CpAsync { to, from, bytes, size, ignore }, Class::AsyncCopy);
        Ok(())
    }
}
