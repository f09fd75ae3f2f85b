//! Hopper's asynchronous copies: `st.async`, `cp.async.bulk`, `cp.async.bulk.tensor`, `cp.reduce.async.bulk`, `cp.async.mbarrier.arrive`.

use super::{Decoder, Mods, Result};
use crate::count::Class;
use crate::ir::hopper::{Bulk, Op, Reduce, ReduceOp, ReduceTy, Window};
use crate::ir::{self, Reg};
use crate::lanes::Ty;
use crate::parse::ast::{Instruction, Operand};

impl<'a> Decoder<'a> {
    /// `st.async`.
    pub(super) fn store_async(&mut self, i: &'a Instruction, m: &mut Mods) -> Result<()> {
        let ty = self.ty(m)?;
        m.take("weak");
        let completes = m.take("async") && m.take("mbarrier::complete_tx::bytes");
        if !completes || !m.take("shared::cluster") || !matches!(ty.bits(), 32 | 64) {
            return Err(self.unknown(i));
        }
        let n = match m.one_of(&["v2", "v4"]) {
            None => 1,
            Some("v2") => 2,
            Some(_) => 4,
        };
        let [to, values, barrier] = self.operands(i)?;
        let to = self.shared_place(to, Window::Cluster)?;
        let barrier = self.shared_place(barrier, Window::Cluster)?;
        let values = self.sources(values, ty, n)?;
        self.hopper_op(
            Op::StoreAsync { to, values, bytes: ty.bits() as usize / 8, barrier },
            Class::AsyncCopy,
        );
        Ok(())
    }

    /// `cp.async.mbarrier.*`, `cp.async.bulk.*`, `cp.reduce.async.bulk.*`; whether it was one.
    pub(super) fn bulk_copy(&mut self, i: &'a Instruction, m: &mut Mods) -> Result<bool> {
        let has = |s: &str| i.op[1..].iter().any(|o| o == s);
        if !has("async") || !(has("bulk") || has("mbarrier")) {
            return Ok(false);
        }
        m.take("async");
        if m.take("mbarrier") {
            if !(m.take("arrive") && m.take("b64")) {
                return Err(self.unknown(i));
            }
            let (noinc, window) = (m.take("noinc"), Self::window(m));
            let [at] = self.operands(i)?;
            let at = self.shared_place(at, window)?;
            self.hopper_op(Op::CopyArrive { at, noinc }, Class::AsyncCopy);
            return Ok(true);
        }
        m.take("bulk");
        if m.take("commit_group") {
            let [] = self.operands(i)?;
            self.hopper_op(Op::BulkCommit, Class::AsyncCopy);
            return Ok(true);
        }
        if m.take("wait_group") {
            let read = m.take("read");
            let [Operand::Int(n)] = self.operands(i)? else {
                return Err(self.error("`cp.async.bulk.wait_group` takes a literal"));
            };
            self.hopper_op(Op::BulkWait { left: *n as u32, read }, Class::AsyncCopy);
            return Ok(true);
        }
        if m.take("prefetch") {
            m.left.clear();
            self.push(ir::Op::Nop, Class::AsyncCopy);
            return Ok(true);
        }
        let op = self.bulk_transfer(i, m)?;
        self.hopper_op(op, Class::AsyncCopy);
        Ok(true)
    }

    fn bulk_transfer(&mut self, i: &'a Instruction, m: &mut Mods) -> Result<Op> {
        let b32 = Ty::B(32);
        let hint = m.take("L2::cache_hint");
        let mut operands: Vec<&'a Operand> = i.operands.iter().collect();
        if hint {
            let policy = operands.pop().ok_or_else(|| self.error("a cache hint without its operand"))?;
            self.src(policy, Ty::B(64))?;
        }
        let rank = m.one_of(&["1d", "2d", "3d", "4d", "5d"]).map(|d| usize::from(d.as_bytes()[0] - b'0'));
        if m.take("tensor") != rank.is_some()
            || (rank.is_some() && m.left.iter().any(|l| l.starts_with("im2col") || l.starts_with("tile::")))
        {
            return Err(self.unknown(i));
        }
        if rank.is_some() {
            m.take("tile");
        }
        let reduce = if m.take("reduce") { Some(self.reduction(i, m, rank.is_some())?) } else { None };
        let spaces: Vec<&str> =
            m.left.iter().copied().filter(|l| *l == "global" || l.starts_with("shared")).collect();
        m.left.retain(|l| *l != "global" && !l.starts_with("shared"));
        let multicast = m.take("multicast::cluster");
        let by_barrier = m.take("mbarrier::complete_tx::bytes");
        let by_group = m.take("bulk_group");
        match (&spaces[..], rank) {
            (["shared::cluster" | "shared::cta", "global"], rank) if by_barrier && reduce.is_none() => {
                let window = if spaces[0] == "shared::cta" { Window::Cta } else { Window::Cluster };
                let mask = if multicast { operands.pop() } else { None };
                let multicast = mask.map(|o| self.src(o, Ty::B(16))).transpose()?;
                let (to, from, barrier) = match (rank, &operands[..]) {
                    (None, [to, from, bytes, barrier]) => (
                        to,
                        Bulk::Linear { global: self.address(from)?, bytes: self.src(bytes, b32)? },
                        barrier,
                    ),
                    (Some(n), [to, from, barrier]) => (to, self.tensor(from, n)?, barrier),
                    _ => return Err(self.error("a bulk copy with a wrong number of operands")),
                };
                Ok(Op::Load {
                    from,
                    to: self.shared_place(to, window)?,
                    barrier: self.shared_place(barrier, window)?,
                    multicast,
                })
            }
            (["global", "shared::cta"], rank) if by_group && !multicast => {
                if reduce.is_some() {
                    self.communicates = true;
                }
                let (to, from) = match (rank, &operands[..]) {
                    (None, [to, from, bytes]) => {
                        (Bulk::Linear { global: self.address(to)?, bytes: self.src(bytes, b32)? }, from)
                    }
                    (Some(n), [to, from]) => (self.tensor(to, n)?, from),
                    _ => return Err(self.error("a bulk copy with a wrong number of operands")),
                };
                Ok(Op::Store { to, from: self.shared_place(from, Window::Cta)?, reduce })
            }
            (["shared::cluster", "shared::cta"], None) if by_barrier && reduce.is_none() && !multicast => {
                let [to, from, bytes, barrier] = operands[..] else {
                    return Err(self.error("a bulk copy with a wrong number of operands"));
                };
                let to = self.shared_place(to, Window::Cluster)?;
                let barrier = self.shared_place(barrier, Window::Cluster)?;
                Ok(Op::Send {
                    from: self.shared_place(from, Window::Cta)?,
                    bytes: self.src(bytes, b32)?,
                    to,
                    barrier,
                })
            }
            _ => Err(self.unknown(i)),
        }
    }

    fn reduction(&mut self, i: &Instruction, m: &mut Mods, tensor: bool) -> Result<Reduce> {
        let op = match m.one_of(&["add", "min", "max"]) {
            Some("add") => ReduceOp::Add,
            Some("min") => ReduceOp::Min,
            Some(_) => ReduceOp::Max,
            None => return Err(self.unknown(i)),
        };
        if tensor {
            return Ok(Reduce { op, ty: None });
        }
        let noftz = m.take("noftz");
        let ty = match self.ty(m)? {
            Ty::U(32) => ReduceTy::U32,
            Ty::S(32) => ReduceTy::S32,
            Ty::U(64) => ReduceTy::U64,
            Ty::S(64) if op != ReduceOp::Add => ReduceTy::S64,
            Ty::F16 if noftz => ReduceTy::F16,
            Ty::Bf16 if noftz => ReduceTy::Bf16,
            Ty::F16 if op != ReduceOp::Add => ReduceTy::F16,
            Ty::Bf16 if op != ReduceOp::Add => ReduceTy::Bf16,
            Ty::F32 if op == ReduceOp::Add => ReduceTy::F32,
            Ty::F64 if op == ReduceOp::Add => ReduceTy::F64,
            _ => return Err(self.unknown(i)),
        };
        Ok(Reduce { op, ty: Some(ty) })
    }

    /// `[map, {coordinates}]` of `n` dimensions.
    fn tensor(&mut self, o: &Operand, n: usize) -> Result<Bulk> {
        let Operand::Address { base, offset, coords: Some(coords) } = o else {
            return Err(self.error(format!("expected a tensor map with coordinates, found {o:?}")));
        };
        if coords.len() != n {
            return Err(self.error(format!("expected {n} coordinates, found {}", coords.len())));
        }
        let plain = Operand::Address { base: base.clone(), offset: *offset, coords: None };
        let map = self.address(&plain)?;
        let coords = coords.iter().map(|c| self.src(c, Ty::S(32))).collect::<Result<Box<[Reg]>>>()?;
        Ok(Bulk::Tensor { map, coords })
    }
}
