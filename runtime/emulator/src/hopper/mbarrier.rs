//! The state of `mbarrier` objects: phases, pending arrivals, transaction counts, and what a completed phase hands to its waiters.
//!
//! The 64 bits that the object takes in shared memory are opaque: the emulator keeps the state beside them, and an ordinary access to
//! them between `init` and `inval` is a race or a defect of its own, found where accesses are checked.

use crate::hb::{Know, LaneClock};

/// Largest arrival count, pending count and magnitude of the transaction count.
pub(crate) const MAX_COUNT: u32 = (1 << 20) - 1;

/// An `mbarrier` object in use.
#[derive(Clone, Debug)]
pub(crate) struct Barrier {
    /// Completed phases.
    pub(crate) phase: u64,
    /// Arrivals that a phase takes.
    pub(crate) expected: u32,
    /// Arrivals that the current phase lacks.
    pub(crate) pending: u32,
    /// Bytes that the current phase lacks.
    pub(crate) transactions: i64,
    /// The releases of the arrivals of the current phase so far.
    released: Know,
    /// The releases of the previous phase, which its waiters acquire.
    completed: Know,
    /// The agent that completed copies write as, at the clock of the current phase.
    agent: LaneClock,
    /// The thread that initialised it.
    pub(crate) initialised: LaneClock,
    /// Whether a fence of that thread's followed, so that the asynchronous proxy may use it.
    pub(crate) fenced: bool,
}

/// The result of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Test {
    Complete,
    Incomplete,
}

impl Barrier {
    /// A fresh object for phases of `count` arrivals, made by `initialised`. Its copies' agent starts at `agent`'s clock. `nothing` is
    /// the knowledge of a thread that knows nothing.
    pub(crate) fn new(count: u32, agent: LaneClock, initialised: LaneClock, nothing: &Know) -> Self {
        Self {
            phase: 0,
            expected: count,
            pending: count,
            transactions: 0,
            released: nothing.clone(),
            completed: nothing.clone(),
            agent,
            initialised,
            fenced: false,
        }
    }

    /// The stamp of copies that complete on the current phase.
    pub(crate) fn agent(&self) -> LaneClock {
        self.agent
    }

    /// The bits that an arrival returns: the phase it arrives at, and the arrivals that the phase lacked before.
    pub(crate) fn state(&self) -> u64 {
        (self.phase & 0xffff_ffff) << 32 | u64::from(self.pending)
    }

    /// `count` arrivals, each a release of `know`; `drop` takes them out of the following phases too. Whether the phase completed;
    /// `Err` says which rule is broken.
    pub(crate) fn arrive(
        &mut self,
        count: u32,
        know: Option<&Know>,
        drop: bool,
        nothing: &Know,
    ) -> Result<bool, String> {
        if count == 0 || count > MAX_COUNT {
            return Err(format!("an arrival count of {count} is not in 1..={MAX_COUNT}"));
        }
        if count > self.pending {
            return Err(format!(
                "{count} arrivals at a phase that lacks {} of {}",
                self.pending, self.expected
            ));
        }
        if let Some(know) = know {
            self.released.join(know);
        }
        self.pending -= count;
        if drop {
            self.expected -= count;
        }
        Ok(self.complete_if_done(nothing))
    }

    /// The current phase waits for one arrival more.
    pub(crate) fn add_pending(&mut self) -> Result<(), String> {
        if self.pending >= MAX_COUNT {
            return Err(format!("the pending count exceeds {MAX_COUNT}"));
        }
        self.pending += 1;
        Ok(())
    }

    /// The current phase waits for `bytes` more.
    pub(crate) fn expect(&mut self, bytes: u32) -> Result<(), String> {
        self.add(i64::from(bytes))
    }

    /// `bytes` of the current phase have arrived. Whether that completed it.
    pub(crate) fn complete(&mut self, bytes: u32, nothing: &Know) -> Result<bool, String> {
        self.add(-i64::from(bytes))?;
        Ok(self.complete_if_done(nothing))
    }

    fn add(&mut self, bytes: i64) -> Result<(), String> {
        let sum = self.transactions + bytes;
        if sum.unsigned_abs() > MAX_COUNT.into() {
            return Err(format!("the transaction count becomes {sum}, outside -{MAX_COUNT}..={MAX_COUNT}"));
        }
        self.transactions = sum;
        Ok(())
    }

    fn complete_if_done(&mut self, nothing: &Know) -> bool {
        let done = self.pending == 0 && self.transactions == 0;
        if done {
            self.phase += 1;
            self.pending = self.expected;
            self.completed = std::mem::replace(&mut self.released, nothing.clone());
            self.completed.learn(self.agent);
            self.agent.clock += 1;
        }
        done
    }

    /// Whether the phase of parity `parity` is complete: the current phase is not, the one before is.
    pub(crate) fn test_parity(&self, parity: u32) -> Test {
        if self.phase & 1 == u64::from(parity & 1) { Test::Incomplete } else { Test::Complete }
    }

    /// Whether the phase that `state` was returned at is complete; `Err` if that is neither the current phase nor the one before.
    pub(crate) fn test_state(&self, state: u64) -> Result<Test, String> {
        match (self.phase & 0xffff_ffff).wrapping_sub(state >> 32) & 0xffff_ffff {
            0 => Ok(Test::Incomplete),
            1 => Ok(Test::Complete),
            n => Err(format!("the state {state:#x} is of a phase {} before the current one", n as i32)),
        }
    }

    /// The releases that a waiter for the completed phase acquires.
    pub(crate) fn completed(&self) -> &Know {
        &self.completed
    }

    /// Where it stands, for reports.
    pub(crate) fn describe(&self) -> String {
        format!(
            "phase {} lacks {} of {} arrivals and {} bytes",
            self.phase, self.pending, self.expected, self.transactions
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh(count: u32, none: &Know) -> Barrier {
        let at = LaneClock { warp: crate::hb::agent(0, 80), clock: 1, mask: u32::MAX };
        Barrier::new(count, at, LaneClock { warp: 0, clock: 1, mask: 1 }, none)
    }

    #[test]
    fn phases_complete_on_arrivals_and_bytes() {
        let none = Know::new(0, 1);
        let mut b = fresh(2, &none);
        assert_eq!(b.test_parity(1), Test::Complete, "the phase before the first counts as complete");
        assert_eq!(b.test_parity(0), Test::Incomplete);
        let state = b.state();
        assert_eq!(b.arrive(1, None, false, &none), Ok(false));
        b.expect(64).unwrap();
        assert_eq!(b.arrive(1, None, false, &none), Ok(false));
        assert_eq!(b.test_state(state), Ok(Test::Incomplete));
        assert_eq!(b.complete(48, &none), Ok(false));
        assert_eq!(b.complete(16, &none), Ok(true));
        assert_eq!((b.phase, b.pending, b.test_state(state)), (1, 2, Ok(Test::Complete)));
        assert_eq!(b.test_parity(0), Test::Complete);
        // Bytes may come before they are expected.
        assert_eq!(b.complete(32, &none), Ok(false));
        assert_eq!(b.arrive(1, None, true, &none), Ok(false));
        b.expect(32).unwrap();
        assert_eq!(b.arrive(1, None, false, &none), Ok(true));
        assert_eq!((b.expected, b.pending), (1, 1));
        assert!(b.test_state(state).is_err());
    }

    #[test]
    fn counts_have_bounds() {
        let none = Know::new(0, 1);
        let mut b = fresh(1, &none);
        assert!(b.arrive(2, None, false, &none).unwrap_err().contains("lacks 1 of 1"));
        assert!(b.arrive(0, None, false, &none).is_err());
        b.expect(MAX_COUNT).unwrap();
        assert!(b.expect(1).is_err());
        assert!(b.complete(MAX_COUNT, &none).is_ok());
    }

    #[test]
    fn waiters_learn_what_their_phase_released() {
        let none = Know::new(0, 2);
        let at = |warp, clock| LaneClock { warp, clock, mask: u32::MAX };
        let mut know = none.clone();
        know.learn(at(0, 3));
        let mut b = fresh(1, &none);
        assert_eq!(b.arrive(1, Some(&know), false, &none), Ok(true));
        assert!(b.completed().covers(at(0, 3)));
        assert!(b.completed().covers(at(crate::hb::agent(0, 80), 1)) && !b.completed().covers(b.agent()));
        assert_eq!(b.arrive(1, None, false, &none), Ok(true));
        assert!(!b.completed().covers(at(0, 3)));
    }
}
