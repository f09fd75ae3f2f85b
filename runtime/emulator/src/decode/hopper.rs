//! Hopper's instructions: `mbarrier`, `wgmma`, proxy fences, registers, clusters. The asynchronous copies are in `bulk`.

use super::{Decoder, Mods, Result};
use crate::count::Class;
use crate::ir::hopper::{Op, OperandA, Phase, SharedPlace, Wgmma, Window};
use crate::ir::{self, Accumulator, Address, Element};
use crate::lanes::{Ty, map1};
use crate::parse::Error;
use crate::parse::ast::{Instruction, Operand};

impl<'a> Decoder<'a> {
    pub(super) fn unknown(&self, i: &Instruction) -> Error {
        self.error(format!("the emulator does not know the instruction `{}`", i.name()))
    }

    pub(super) fn hopper_op(&mut self, op: Op, class: Class) {
        self.push(ir::Op::Hopper(Box::new(op)), class);
    }

    pub(super) fn window(m: &mut Mods) -> Window {
        match m.one_of(&["shared::cluster", "shared::cta", "shared"]) {
            Some("shared::cluster") => Window::Cluster,
            Some(_) => Window::Cta,
            None => Window::Generic,
        }
    }

    pub(super) fn shared_place(&mut self, o: &Operand, window: Window) -> Result<SharedPlace> {
        Ok(SharedPlace { window, address: self.address(o)? })
    }

    pub(super) fn hopper(&mut self, i: &'a Instruction, m: &mut Mods) -> Result<()> {
        match i.op[0].as_str() {
            "mbarrier" => self.mbarrier(i, m),
            "wgmma" => self.wgmma(i, m),
            "setmaxnreg" => {
                let increase = match m.one_of(&["inc", "dec"]) {
                    Some(w) => w == "inc",
                    None => return Err(self.unknown(i)),
                };
                if !(m.take("sync") && m.take("aligned") && m.take("u32")) {
                    return Err(self.unknown(i));
                }
                let [Operand::Int(n)] = self.operands(i)? else {
                    return Err(self.error("`setmaxnreg` takes a literal"));
                };
                if *n % 8 != 0 || !(24..=256).contains(n) {
                    return Err(
                        self.error(format!("`setmaxnreg` takes a multiple of 8 in 24..=256, found {n}"))
                    );
                }
                self.hopper_op(Op::SetMaxNReg { count: *n as u32, increase }, Class::Other);
                Ok(())
            }
            // A launch stands alone here: what came before it has ended, and nothing after it has begun.
            "griddepcontrol" => {
                if m.one_of(&["wait", "launch_dependents"]).is_none() {
                    return Err(self.unknown(i));
                }
                let [] = self.operands(i)?;
                self.push(ir::Op::Nop, Class::Other);
                Ok(())
            }
            "mapa" | "getctarank" => self.mapped(i, m),
            _ => Err(self.unknown(i)),
        }
    }

    fn mapped(&mut self, i: &'a Instruction, m: &mut Mods) -> Result<()> {
        let window = Self::window(m);
        let ty = self.ty(m)?;
        if window == Window::Cta || !matches!(ty, Ty::U(32 | 64)) {
            return Err(self.unknown(i));
        }
        let wide = if i.op[0] == "mapa" { ty } else { Ty::U(64) };
        let place = |d: &mut Self, a: &'a Operand| -> Result<SharedPlace> {
            let base = d.src(a, if window == Window::Cluster { Ty::U(32) } else { wide })?;
            Ok(SharedPlace { window, address: Address { base, offset: 0 } })
        };
        let op = if i.op[0] == "mapa" {
            let [d, a, rank] = self.operands(i)?;
            Op::Mapa { d: self.dst_of(d, ty.bits())?, a: place(self, a)?, rank: self.src(rank, Ty::U(32))? }
        } else {
            let [d, a] = self.operands(i)?;
            Op::CtaRank { d: self.dst_of(d, 32)?, a: place(self, a)? }
        };
        self.hopper_op(op, Class::Integer);
        Ok(())
    }

    fn mbarrier(&mut self, i: &'a Instruction, m: &mut Mods) -> Result<()> {
        let what = m.one_of(&[
            "init",
            "inval",
            "arrive_drop",
            "arrive",
            "test_wait",
            "try_wait",
            "pending_count",
            "expect_tx",
            "complete_tx",
        ]);
        let Some(what) = what else { return Err(self.unknown(i)) };
        if !m.take("b64") {
            return Err(self.unknown(i));
        }
        let (b32, b64) = (Ty::B(32), Ty::B(64));
        if what == "pending_count" {
            let [d, state] = self.operands(i)?;
            let (d, state) = (self.dst_of(d, 32)?, self.src(state, b64)?);
            self.map(map1(|s| s & 0xffff_ffff), d, &[state], Class::Sync);
            return Ok(());
        }
        let window = Self::window(m);
        let expects = what.starts_with("arrive") && m.take("expect_tx");
        let no_complete = what.starts_with("arrive") && m.take("noComplete");
        let parity = m.take("parity");
        let order = m.one_of(&["release", "acquire", "relaxed"]);
        // Barriers are used within the cluster; whether an arrival's scope reaches its waiters is not checked.
        Self::scope(m);
        let remote_ok = matches!(what, "arrive" | "arrive_drop" | "expect_tx" | "complete_tx");
        if window == Window::Cluster && (!remote_ok || no_complete) {
            return Err(self.error(format!("`mbarrier.{what}` works on a barrier of the CTA itself")));
        }
        let op = match what {
            "init" => {
                let [at, count] = self.operands(i)?;
                Op::Init { at: self.shared_place(at, window)?, count: self.src(count, b32)? }
            }
            "inval" => {
                let [at] = self.operands(i)?;
                Op::Inval { at: self.shared_place(at, window)? }
            }
            "expect_tx" | "complete_tx" => {
                if order != Some("relaxed") {
                    return Err(self.unknown(i));
                }
                let [at, bytes] = self.operands(i)?;
                let (at, bytes) = (self.shared_place(at, window)?, self.src(bytes, b32)?);
                if what == "expect_tx" { Op::Expect { at, bytes } } else { Op::CompleteTx { at, bytes } }
            }
            "arrive" | "arrive_drop" => {
                let [d, at, rest @ ..] = &i.operands[..] else {
                    return Err(self.error("`mbarrier.arrive` takes a state and an address"));
                };
                let nowhere = *d == Operand::Name("_".to_owned());
                if window == Window::Cluster && !nowhere {
                    return Err(self
                        .error("an arrival at a barrier of the cluster returns no state: `_` is expected"));
                }
                let d = if nowhere { None } else { Some(self.dst_of(d, 64)?) };
                let at = self.shared_place(at, window)?;
                let one = self.bits(1);
                let (count, expect) = match rest {
                    [] if !expects && !no_complete => (one, None),
                    [n] if expects => (one, Some(self.src(n, b32)?)),
                    [n] => (self.src(n, b32)?, None),
                    _ => return Err(self.error("`mbarrier.arrive` with a wrong number of operands")),
                };
                Op::Arrive {
                    at,
                    count,
                    expect,
                    drop: what == "arrive_drop",
                    no_complete,
                    release: order != Some("relaxed"),
                    d,
                }
            }
            _ => {
                let [p, at, on, hint @ ..] = &i.operands[..] else {
                    return Err(self.error("a wait takes a predicate, an address and a phase"));
                };
                if hint.len() > usize::from(what == "try_wait") {
                    return Err(self.error("a wait with a wrong number of operands"));
                }
                for h in hint {
                    self.src(h, b32)?;
                }
                let (p, at) = (self.dst_pred(p)?, self.shared_place(at, window)?);
                let phase =
                    if parity { Phase::Parity(self.src(on, b32)?) } else { Phase::State(self.src(on, b64)?) };
                Op::Wait { at, p, phase, may_suspend: what == "try_wait", acquire: order != Some("relaxed") }
            }
        };
        self.hopper_op(op, Class::Sync);
        Ok(())
    }

    fn wgmma(&mut self, i: &'a Instruction, m: &mut Mods) -> Result<()> {
        let Some(what) = m.one_of(&["mma_async", "fence", "commit_group", "wait_group"]) else {
            return Err(self.unknown(i));
        };
        if !(m.take("sync") && m.take("aligned")) {
            return Err(self.unknown(i));
        }
        let op = match what {
            "fence" => {
                let [] = self.operands(i)?;
                Op::WgmmaFence
            }
            "commit_group" => {
                let [] = self.operands(i)?;
                Op::WgmmaCommit
            }
            "wait_group" => {
                let [Operand::Int(n)] = self.operands(i)? else {
                    return Err(self.error("`wgmma.wait_group` takes a literal"));
                };
                Op::WgmmaWait { left: *n as u32 }
            }
            _ => {
                let w = self.mma_async(i, m)?;
                self.hopper_op(Op::Wgmma(w), Class::Matrix);
                return Ok(());
            }
        };
        self.hopper_op(op, Class::Sync);
        Ok(())
    }

    fn mma_async(&mut self, i: &'a Instruction, m: &mut Mods) -> Result<Wgmma> {
        let left = std::mem::take(&mut m.left);
        let [shape, d, a, b] = left[..] else { return Err(self.unknown(i)) };
        let element = |s: &str| match s {
            "f16" => Some(Element::F16),
            "bf16" => Some(Element::Bf16),
            "e4m3" => Some(Element::E4m3),
            "e5m2" => Some(Element::E5m2),
            _ => None,
        };
        let (Some(a_type), Some(b_type)) = (element(a), element(b)) else { return Err(self.unknown(i)) };
        let acc = match d {
            "f32" => Accumulator::F32,
            "f16" if a_type != Element::Bf16 => Accumulator::F16,
            _ => return Err(self.unknown(i)),
        };
        let wide = a_type.bytes() == 2;
        if b_type.bytes() != a_type.bytes() || (wide && a_type != b_type) {
            return Err(self.unknown(i));
        }
        let k = if wide { "k16" } else { "k32" };
        let n =
            shape.strip_prefix("m64n").and_then(|s| s.strip_suffix(k)).and_then(|n| n.parse::<usize>().ok());
        let n = n.filter(|n| n % 8 == 0 && (8..=256).contains(n)).ok_or_else(|| self.unknown(i))?;
        let (f32s, b64) = (Ty::B(32), Ty::B(64));
        let [d, a, b, scale_d, rest @ ..] = &i.operands[..] else {
            return Err(self.error("`wgmma.mma_async` with too few operands"));
        };
        let registers = matches!(a, Operand::Vector(_));
        // Two signs; then, for 16-bit elements, which operands in shared memory are transposed.
        let expected = 2 + if !wide {
            0
        } else if registers {
            1
        } else {
            2
        };
        let mut literals = [0; 4];
        if rest.len() != expected {
            return Err(
                self.error(format!("`wgmma.mma_async` takes {expected} literals here, found {}", rest.len()))
            );
        }
        for (k, (slot, o)) in literals.iter_mut().zip(rest).enumerate() {
            *slot = match o {
                Operand::Int(v @ (1 | -1)) if k < 2 => *v,
                Operand::Int(v @ (0 | 1)) if k >= 2 => *v,
                o => {
                    return Err(self.error(format!("scales are 1 or -1, transpositions 0 or 1; found {o:?}")));
                }
            };
        }
        let transpose =
            if registers { [false, literals[2] == 1] } else { [literals[2] == 1, literals[3] == 1] };
        let scale_d = match scale_d {
            Operand::Int(v @ (0 | 1)) => Err(*v == 1),
            p => Ok(self.pred(p)?),
        };
        let count = if acc == Accumulator::F32 { n / 2 } else { n / 4 };
        let a = if registers {
            OperandA::Registers(self.sources(a, f32s, 4)?)
        } else {
            OperandA::Shared(self.src(a, b64)?)
        };
        Ok(Wgmma {
            n,
            a_type,
            b_type,
            acc,
            d: self.destinations(d, 32, count)?,
            a,
            b: self.src(b, b64)?,
            scale_d,
            negate: [literals[0] == -1, literals[1] == -1],
            transpose,
        })
    }

    /// `fence.proxy.*` and `fence.mbarrier_init`; whether it was one.
    pub(super) fn proxy_fence(&mut self, i: &'a Instruction, m: &mut Mods) -> Result<bool> {
        if m.take("mbarrier_init") {
            if !(m.take("release") && m.take("cluster")) {
                return Err(self.unknown(i));
            }
            self.hopper_op(Op::FenceInit, Class::Sync);
            return Ok(true);
        }
        if !m.take("proxy") {
            return Ok(false);
        }
        // Tensor maps do not change here, and there are no aliases of an address.
        if m.take("alias") || m.take("tensormap::generic") {
            m.left.clear();
            self.push(ir::Op::Nop, Class::Sync);
            return Ok(true);
        }
        let (mut shared, mut global) = (true, true);
        if m.take("async") {
            match m.one_of(&["global", "shared::cta", "shared::cluster"]) {
                Some("global") => shared = false,
                Some(_) => global = false,
                None => {}
            }
        } else if m.take("async::generic") {
            // The directed forms: of `acquire`, nothing is needed here, as completions carry their own fence.
            let release = m.take("release");
            if !release && !m.take("acquire") {
                return Err(self.unknown(i));
            }
            m.take("cluster");
            if m.one_of(&["sync_restrict::shared::cta", "sync_restrict::shared::cluster"]).is_none() {
                return Err(self.unknown(i));
            }
            (shared, global) = (release, false);
        } else {
            return Err(self.unknown(i));
        }
        self.hopper_op(Op::ProxyFence { shared, global }, Class::Sync);
        Ok(true)
    }

    /// `barrier.cluster.*`; whether it was one.
    pub(super) fn cluster_barrier(&mut self, i: &'a Instruction, m: &mut Mods) -> Result<bool> {
        if !m.take("cluster") {
            return Ok(false);
        }
        let aligned = m.take("aligned");
        let order = m.one_of(&["release", "relaxed", "acquire"]);
        let op = match (m.one_of(&["arrive", "wait"]), order) {
            (Some("arrive"), None | Some("release")) => Op::ClusterArrive { release: true, aligned },
            (Some("arrive"), Some("relaxed")) => Op::ClusterArrive { release: false, aligned },
            (Some("wait"), None | Some("acquire")) => Op::ClusterWait { aligned },
            _ => return Err(self.unknown(i)),
        };
        let [] = self.operands(i)?;
        self.hopper_op(op, Class::Sync);
        Ok(true)
    }
}
