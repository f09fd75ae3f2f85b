//! The `mbarrier` instructions.

use crate::exec::mem::At;
use crate::exec::step::{Flow, Step};
use crate::hb::{Published, Scope};
use crate::hopper::mbarrier::{Barrier, MAX_COUNT, Test};
use crate::ir::hopper::{Phase, SharedPlace, Window};
use crate::ir::{Pred, Reg};
use crate::lanes::bits;
use crate::memory::shadow::{Access, STRONG};
use crate::memory::shared::SHARED_BASE;
use crate::memory::{RANK_SHIFT, SHARED_WINDOW, WINDOW};
use crate::report::{FindingKind, Space};
use crate::state::warp::{State, Wait};

/// Bytes of an `mbarrier` object.
const BYTES: usize = 8;

impl Step<'_, '_> {
    /// The CTA (by position among the residents) and offset of `len` bytes of shared memory; reports and gives `None` where there are none.
    pub(crate) fn shared_at(
        &mut self,
        place: SharedPlace,
        len: usize,
        align: usize,
        lane: u32,
    ) -> Option<(usize, usize)> {
        let mut address = self.address(place.address, lane);
        if place.window == Window::Generic {
            if address.wrapping_sub(SHARED_WINDOW) >= WINDOW {
                self.report(FindingKind::OutOfBounds, lane, Some((Space::Global, address)), || {
                    "the address is not in shared memory".to_owned()
                });
                return None;
            }
            address -= SHARED_WINDOW;
        }
        let address = address as u32;
        let rank = address >> RANK_SHIFT;
        let cta = match rank {
            0 => Some(self.at),
            _ if place.window == Window::Cta => None,
            r => self.cluster_cta(r - 1),
        };
        let local = address & ((1 << RANK_SHIFT) - 1);
        if !(local as usize).is_multiple_of(align) {
            self.report(FindingKind::Misaligned, lane, Some((Space::Shared, local.into())), || {
                format!("the address must be a multiple of {align}")
            });
            return None;
        }
        let offset = cta.and_then(|c| self.ctas[c].shared.offset(local, len));
        if offset.is_none() {
            let shared = self.ctas[self.at].shared.len();
            self.report(FindingKind::OutOfBounds, lane, Some((Space::Shared, address.into())), || {
                format!("{len} bytes; shared memory is {shared} bytes from address {SHARED_BASE}")
            });
        }
        Some((cta?, offset?))
    }

    /// Marks the use of a barrier's bytes, and reports an initialisation that nothing orders before it.
    pub(crate) fn use_barrier(&mut self, cta: usize, offset: usize, lane: u32, write: bool) {
        let by = self.warp.stamp(lane, self.pc | if write { 0 } else { STRONG });
        let access = Access { by, write, know: self.warp.know(lane), issuer: None };
        if let Some(c) = self.ctas[cta].shared.check(offset, BYTES, &access) {
            self.clash(c, At::Shared(offset), lane, write);
        }
    }

    /// The barrier at a place: its CTA and offset.
    pub(crate) fn barrier_at(&mut self, place: SharedPlace, lane: u32) -> Option<(usize, u32)> {
        let (cta, offset) = self.shared_at(place, BYTES, BYTES, lane)?;
        if !self.ctas[cta].hopper.barriers.contains_key(&(offset as u32)) {
            self.misuse(lane, offset, || "there is no initialised mbarrier object here".to_owned());
            return None;
        }
        self.use_barrier(cta, offset, lane, false);
        Some((cta, offset as u32))
    }

    fn misuse(&mut self, lane: u32, offset: usize, detail: impl FnOnce() -> String) {
        let address = offset as u64 + u64::from(SHARED_BASE);
        self.report(FindingKind::Misuse, lane, Some((Space::Shared, address)), detail);
    }

    pub(crate) fn mbarrier_init(&mut self, place: SharedPlace, count: Reg, active: u32) -> Flow {
        let counts = *self.reg(count);
        for lane in bits(active) {
            let count = counts[lane as usize] as u32;
            let Some((cta, offset)) = self.shared_at(place, BYTES, BYTES, lane) else { continue };
            self.use_barrier(cta, offset, lane, true);
            if count == 0 || count > MAX_COUNT {
                self.misuse(lane, offset, || {
                    format!("an arrival count of {count} is not in 1..={MAX_COUNT}")
                });
                continue;
            }
            if let Some(old) = self.ctas[cta].hopper.remove(offset as u32) {
                self.misuse(lane, offset, || {
                    format!("an mbarrier object is initialised again without `inval`; {}", old.describe())
                });
            }
            let made = self.warp.stamp(lane, 0).at;
            let state = &mut self.ctas[cta].hopper;
            let Some(agent) = state.place(offset as u32) else {
                self.misuse(lane, offset, || {
                    "the emulator follows at most 184 mbarrier objects of a CTA".to_owned()
                });
                return Flow::Fatal;
            };
            let b = Barrier::new(count, agent, made, &state.nothing);
            state.barriers.insert(offset as u32, b);
        }
        Flow::Next
    }

    pub(crate) fn mbarrier_inval(&mut self, place: SharedPlace, active: u32) {
        for lane in bits(active) {
            let Some((cta, offset)) = self.barrier_at(place, lane) else { continue };
            self.use_barrier(cta, offset as usize, lane, true);
            if let Some(old) = self.ctas[cta].hopper.remove(offset)
                && old.transactions != 0
            {
                self.misuse(lane, offset as usize, || {
                    format!("an mbarrier object is invalidated while in use; {}", old.describe())
                });
            }
        }
    }

    /// `fence.mbarrier_init`: the asynchronous proxy may use what these lanes initialised.
    pub(crate) fn fence_init(&mut self, active: u32) {
        let id = self.warp.id;
        for b in self.ctas[self.at].hopper.barriers.values_mut() {
            b.fenced |= b.initialised.warp == id && b.initialised.mask & active != 0;
        }
    }

    #[allow(clippy::too_many_arguments)] // the fields of one instruction
    pub(crate) fn mbarrier_arrive(
        &mut self,
        place: SharedPlace,
        count: Reg,
        expect: Option<Reg>,
        drop: bool,
        no_complete: bool,
        release: bool,
        d: Option<Reg>,
        active: u32,
    ) {
        let counts = *self.reg(count);
        let expects = expect.map(|r| *self.reg(r));
        let know = release.then(|| self.warp.release(active));
        let mut states = [0; 32];
        // The lanes' history is joined once per phase and barrier.
        let mut joined = None;
        for lane in bits(active) {
            let Some((cta, offset)) = self.barrier_at(place, lane) else { continue };
            let state = &mut self.ctas[cta].hopper;
            let Some(b) = state.barriers.get_mut(&offset) else { continue };
            states[lane as usize] = b.state();
            let key = (cta, offset, b.phase);
            let fresh = if joined == Some(key) { None } else { know.as_ref() };
            joined = Some(key);
            let expected = expects.map_or(Ok(()), |e| b.expect(e[lane as usize] as u32));
            let done =
                expected.and_then(|()| b.arrive(counts[lane as usize] as u32, fresh, drop, &state.nothing));
            match done {
                Ok(completed) => {
                    if completed && no_complete {
                        self.misuse(lane, offset as usize, || {
                            "an arrival with `.noComplete` completes the phase".to_owned()
                        });
                    }
                    if completed {
                        self.phase_complete(cta);
                    }
                }
                Err(what) => self.misuse(lane, offset as usize, || what),
            }
        }
        if let Some(d) = d {
            self.set(d, &states, active);
        }
    }

    fn phase_complete(&mut self, cta: usize) {
        self.ctas[cta].wake(Wait::Phase, self.woken);
        for s in self.warp.splits.iter_mut().filter(|s| s.state == State::Async(Wait::Phase)) {
            s.state = State::Ready;
        }
        self.pending.progress += 1;
    }

    pub(crate) fn mbarrier_transactions(
        &mut self,
        place: SharedPlace,
        bytes: Reg,
        complete: bool,
        active: u32,
    ) {
        let bytes = *self.reg(bytes);
        for lane in bits(active) {
            let Some((cta, offset)) = self.barrier_at(place, lane) else { continue };
            let state = &mut self.ctas[cta].hopper;
            let Some(b) = state.barriers.get_mut(&offset) else { continue };
            let n = bytes[lane as usize] as u32;
            let done = if complete { b.complete(n, &state.nothing) } else { b.expect(n).map(|()| false) };
            match done {
                Ok(true) => self.phase_complete(cta),
                Ok(false) => {}
                Err(what) => self.misuse(lane, offset as usize, || what),
            }
        }
    }

    pub(crate) fn mbarrier_wait(
        &mut self,
        place: SharedPlace,
        p: Pred,
        phase: Phase,
        may_suspend: bool,
        acquire: bool,
        active: u32,
    ) -> Flow {
        let (Phase::Parity(r) | Phase::State(r)) = phase;
        let values = *self.reg(r);
        let base = *self.reg(place.address.base);
        let lead = active.trailing_zeros();
        let uniform = bits(active)
            .all(|l| base[l as usize] == base[lead as usize] && values[l as usize] == values[lead as usize]);
        let mut yes = 0;
        for lane in bits(if uniform { 1 << lead } else { active }) {
            let Some((cta, offset)) = self.barrier_at(place, lane) else {
                // Nobody will ever complete it; going on finds more.
                yes |= 1 << lane;
                continue;
            };
            let Some(b) = self.ctas[cta].hopper.barriers.get(&offset) else { continue };
            let v = values[lane as usize];
            let test = match phase {
                Phase::Parity(_) => Ok(b.test_parity(v as u32)),
                Phase::State(_) => b.test_state(v),
            };
            match test {
                Ok(Test::Incomplete) => {}
                Ok(Test::Complete) => {
                    yes |= 1 << lane;
                    let know = b.completed().clone();
                    let lanes = if uniform { active } else { 1 << lane };
                    if acquire {
                        let lanes = if lanes == self.warp.live { self.warp.present } else { lanes };
                        self.warp.acquire(lanes, &know);
                    } else {
                        let cta = self.ctas[self.at].linear;
                        let seen =
                            Published { scope: Scope::Cluster, cta, cluster: self.env.cluster(cta), know };
                        self.warp.saw(lanes, &seen);
                    }
                }
                Err(what) => {
                    yes |= 1 << lane;
                    self.misuse(lane, offset as usize, || what);
                }
            }
        }
        if uniform && yes != 0 {
            yes = active;
        }
        let expired = std::mem::take(&mut self.warp.hopper.expired);
        // A wait that may suspend may also give up early: now and then it does.
        if yes == 0 && may_suspend && !expired && self.pending.rng.below(8) != 0 {
            return Flow::Block(State::Async(Wait::Phase));
        }
        self.set_pred(p, yes, active);
        Flow::Next
    }
}
