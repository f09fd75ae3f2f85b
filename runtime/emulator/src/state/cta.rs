//! A CTA that is resident: its warps, shared memory, barriers and counts.

use super::barrier::Barrier;
use super::env::Env;
use super::hopper::CtaState;
use super::locations::Locations;
use super::warp::{State, Wait, Warp};
use crate::count::Tally;
use crate::hb::Know;
use crate::ir::Constant;
use crate::memory::shared::Shared;
use crate::memory::touched::Touched;

/// One resident CTA.
pub(crate) struct Cta {
    /// Linear index in the grid.
    pub(crate) linear: u32,
    pub(crate) shared: Shared,
    /// A warp is absent while it runs.
    pub(crate) warps: Vec<Option<Box<Warp>>>,
    pub(crate) barriers: Vec<Barrier>,
    pub(crate) tally: Tally,
    pub(crate) touched: Touched,
    /// The releases at shared addresses.
    pub(crate) locations: Locations,
    /// Warps with threads that have not exited.
    pub(crate) running: u32,
    pub(crate) hopper: CtaState,
}

impl Cta {
    pub(crate) fn new(env: &Env, linear: u32) -> Self {
        let first = linear * env.warps;
        let mut warps = Vec::with_capacity(env.warps as usize);
        for w in 0..env.warps {
            let lanes = (env.threads - w * 32).min(32);
            let present = if lanes == 32 { u32::MAX } else { (1 << lanes) - 1 };
            let mut warp = Warp::new(env.code, w, first + w, present, Know::new(first, env.warps));
            let from = env.code.regs as usize - env.code.constants.len();
            for (reg, c) in warp.regs[from..].iter_mut().zip(&env.code.constants) {
                for (lane, slot) in reg.iter_mut().enumerate() {
                    *slot = match *c {
                        Constant::Bits(v) => v,
                        Constant::Variable(i, offset) => {
                            env.variables[i as usize].wrapping_add(offset as u64)
                        }
                        Constant::DynamicShared(_) => 0,
                        Constant::Special(s) => env.special(s, linear, w, lane as u32).into(),
                    };
                }
            }
            warps.push(Some(Box::new(warp)));
        }
        Self {
            linear,
            shared: Shared::new(env.shared() as usize),
            running: env.warps,
            hopper: CtaState::new(linear, first, env.warps),
            warps,
            barriers: (0..16).map(|_| Barrier::new(first, env.warps)).collect(),
            tally: Tally::default(),
            touched: Touched::default(),
            locations: Locations::default(),
        }
    }

    /// Lets the warps that wait for `wait` look again; those that had nothing else to run go to `ready`.
    pub(crate) fn wake(&mut self, wait: Wait, ready: &mut Vec<(u32, u32)>) {
        let linear = self.linear;
        for warp in self.warps.iter_mut().flatten() {
            let blocked = !warp.ready();
            let mut woke = false;
            for s in warp.splits.iter_mut().filter(|s| s.state == State::Async(wait)) {
                s.state = State::Ready;
                woke = true;
            }
            if woke && blocked {
                ready.push((linear, warp.index));
            }
        }
    }
}
