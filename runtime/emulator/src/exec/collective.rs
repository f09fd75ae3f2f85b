//! Operations across the lanes of a warp: shuffles, votes, matches, reductions. None of them orders memory.

use crate::exec::step::{Flow, Step};
use crate::ir::{Pred, ReduxOp, Reg, ShuffleMode, VoteMode};
use crate::lanes::bits;
use crate::report::FindingKind;

impl Step<'_, '_> {
    /// Checks the member mask of a collective; the lanes that take part.
    fn members(&mut self, mask: Reg, active: u32, here: u32) -> Result<u32, Flow> {
        let masks = *self.reg(mask);
        let lane = active.trailing_zeros();
        let named = masks[lane as usize] as u32;
        if let Some(l) = bits(active).find(|&l| masks[l as usize] as u32 >> l & 1 == 0) {
            self.report(FindingKind::MaskMismatch, l, None, || {
                format!("member mask {:#010x} does not name the executing lane", masks[l as usize])
            });
        }
        // Lanes of one instruction may form several groups with masks of their own; all that are named must come.
        let all = bits(active).fold(0, |m, l| m | masks[l as usize] as u32);
        self.converged(all, here)?;
        let absent = all & self.warp.present & !active;
        if absent != 0 {
            self.report(FindingKind::MaskMismatch, lane, None, || {
                format!("member mask {named:#010x} names lanes {absent:#010x} that do not execute it")
            });
        }
        Ok(named & active)
    }

    pub(crate) fn shuffle(
        &mut self,
        mode: ShuffleMode,
        d: Reg,
        p: Option<Pred>,
        r: [Reg; 4],
        active: u32,
        here: u32,
    ) -> Flow {
        if let Err(f) = self.members(r[3], active, here) {
            return f;
        }
        let [a, b, c, masks] = r.map(|r| *self.reg(r));
        let (mut out, mut pred) = ([0; 32], 0);
        for lane in bits(active) {
            let l = i64::from(lane);
            let (b, c) = ((b[lane as usize] & 31) as i64, c[lane as usize]);
            let (clamp, segment) = ((c & 31) as i64, (c >> 8 & 31) as i64);
            let max = (l & segment) | (clamp & !segment);
            let min = l & segment;
            let (j, ok) = match mode {
                ShuffleMode::Up => (l - b, l - b >= max),
                ShuffleMode::Down => (l + b, l + b <= max),
                ShuffleMode::Bfly => (l ^ b, l ^ b <= max),
                ShuffleMode::Idx => (min | (b & !segment), (min | (b & !segment)) <= max),
            };
            let j = if ok { j } else { l };
            if active >> j & 1 == 0 || masks[lane as usize] >> j & 1 == 0 {
                self.report(FindingKind::MaskMismatch, lane, None, || {
                    format!("reads lane {j}, which does not take part")
                });
            }
            out[lane as usize] = a[j as usize] & 0xffff_ffff;
            pred |= u32::from(ok) << lane;
        }
        self.set(d, &out, active);
        if let Some(p) = p {
            self.set_pred(p, pred, active);
        }
        Flow::Next
    }

    #[allow(clippy::too_many_arguments)] // the fields of one instruction
    pub(crate) fn vote(
        &mut self,
        mode: VoteMode,
        d: Option<Reg>,
        p: Option<Pred>,
        a: (Pred, bool),
        mask: Reg,
        active: u32,
        here: u32,
    ) -> Flow {
        if let Err(f) = self.members(mask, active, here) {
            return f;
        }
        let (votes, masks) = (self.pred(a) & active, *self.reg(mask));
        let (mut out, mut pred) = ([0; 32], 0);
        for lane in bits(active) {
            let members = masks[lane as usize] as u32 & active;
            let v = votes & members;
            out[lane as usize] = v.into();
            let answer = match mode {
                VoteMode::All => v == members,
                VoteMode::Any => v != 0,
                VoteMode::Uni => v == members || v == 0,
                VoteMode::Ballot => false,
            };
            pred |= u32::from(answer) << lane;
        }
        if let Some(d) = d {
            self.set(d, &out, active);
        }
        if let Some(p) = p {
            self.set_pred(p, pred, active);
        }
        Flow::Next
    }

    #[allow(clippy::too_many_arguments)] // the fields of one instruction
    pub(crate) fn matching(
        &mut self,
        all: bool,
        d: Reg,
        p: Option<Pred>,
        a: Reg,
        mask: Reg,
        active: u32,
        here: u32,
    ) -> Flow {
        if let Err(f) = self.members(mask, active, here) {
            return f;
        }
        let (a, masks) = (*self.reg(a), *self.reg(mask));
        let (mut out, mut pred) = ([0; 32], 0);
        for lane in bits(active) {
            let members = masks[lane as usize] as u32 & active;
            let same =
                bits(members).filter(|&l| a[l as usize] == a[lane as usize]).fold(0, |m, l| m | 1 << l);
            let whole = same == members;
            pred |= u32::from(whole) << lane;
            out[lane as usize] = if all && !whole { 0 } else { u64::from(same) };
        }
        self.set(d, &out, active);
        if let Some(p) = p {
            self.set_pred(p, pred, active);
        }
        Flow::Next
    }

    #[allow(clippy::too_many_arguments)] // the fields of one instruction
    pub(crate) fn redux(
        &mut self,
        op: ReduxOp,
        signed: bool,
        d: Reg,
        a: Reg,
        mask: Reg,
        active: u32,
        here: u32,
    ) -> Flow {
        if let Err(f) = self.members(mask, active, here) {
            return f;
        }
        let (a, masks) = (*self.reg(a), *self.reg(mask));
        let mut out = [0; 32];
        for lane in bits(active) {
            let values = bits(masks[lane as usize] as u32 & active).map(|l| a[l as usize] as u32);
            let f = |x: u32, y: u32| match op {
                ReduxOp::Add => x.wrapping_add(y),
                ReduxOp::Min if signed => (x as i32).min(y as i32) as u32,
                ReduxOp::Max if signed => (x as i32).max(y as i32) as u32,
                ReduxOp::Min => x.min(y),
                ReduxOp::Max => x.max(y),
                ReduxOp::And => x & y,
                ReduxOp::Or => x | y,
                ReduxOp::Xor => x ^ y,
            };
            out[lane as usize] = values.reduce(f).unwrap_or(0).into();
        }
        self.set(d, &out, active);
        Flow::Next
    }

    /// The lowest of the named lanes is elected.
    pub(crate) fn elect(&mut self, d: Option<Reg>, p: Pred, mask: Reg, active: u32, here: u32) -> Flow {
        let members = match self.members(mask, active, here) {
            Ok(m) => m,
            Err(f) => return f,
        };
        let leader = members.trailing_zeros().min(31);
        if let Some(d) = d {
            self.set(d, &[leader.into(); 32], active);
        }
        self.set_pred(p, 1 << leader, active);
        Flow::Next
    }
}
