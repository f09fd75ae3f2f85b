//! Counters: exact and repeatable, because they count what the PTX asks for and never what a cache would do.

use std::collections::BTreeMap;

use serde::Serialize;

/// Instruction classes. A warp instruction counts once if at least one lane executes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(usize)]
pub enum Class {
    /// Integer, logic, moves and selects.
    Integer,
    /// Floating-point arithmetic.
    Float,
    /// Approximations: `ex2`, `rcp`, `rsqrt`, `lg2`, `sin`, ..., division and roots.
    Special,
    /// `cvt`.
    Convert,
    /// Comparisons and predicate logic.
    Predicate,
    /// Branches, calls, exits.
    Control,
    /// Loads from global memory.
    GlobalLoad,
    /// Stores to global memory.
    GlobalStore,
    /// Loads from shared memory, `ldmatrix` included.
    SharedLoad,
    /// Stores to shared memory, `stmatrix` included.
    SharedStore,
    /// Local, parameter and constant memory.
    OtherMemory,
    /// `atom` and `red`.
    Atomic,
    /// Asynchronous copies, their commits and waits.
    AsyncCopy,
    /// Matrix instructions.
    Matrix,
    /// Shuffles, votes, reductions across lanes.
    Collective,
    /// Barriers, memory barrier objects and fences.
    Sync,
    /// Everything else.
    Other,
}

impl Class {
    /// All classes, in the order of their discriminants.
    pub const ALL: [Self; 17] = [
        Self::Integer,
        Self::Float,
        Self::Special,
        Self::Convert,
        Self::Predicate,
        Self::Control,
        Self::GlobalLoad,
        Self::GlobalStore,
        Self::SharedLoad,
        Self::SharedStore,
        Self::OtherMemory,
        Self::Atomic,
        Self::AsyncCopy,
        Self::Matrix,
        Self::Collective,
        Self::Sync,
        Self::Other,
    ];
}

/// Traffic of one direction between a kernel and one labelled allocation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Transfers {
    /// Warp instructions (or bulk copies) that touched the label.
    pub requests: u64,
    /// Bytes that the threads asked for, repeats included.
    pub bytes: u64,
    /// 32-byte sectors, summed over requests, each counted once per request.
    pub sectors: u64,
    /// Bytes touched at least once.
    pub unique_bytes: u64,
    /// 32-byte sectors touched at least once.
    pub unique_sectors: u64,
}

/// Traffic of one label. An atomic counts as a read and a write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// Loads and asynchronous copies out of the allocation.
    pub read: Transfers,
    /// Stores into it.
    pub written: Transfers,
}

/// Shared-memory traffic. A wavefront serves each of the 32 four-byte banks once; 8-byte accesses go by half warps, 16-byte ones by
/// quarter warps, `ldmatrix` and `stmatrix` by 8x8 matrices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SharedTraffic {
    /// Bytes loaded.
    pub bytes_read: u64,
    /// Bytes stored, asynchronous copies included.
    pub bytes_written: u64,
    /// Wavefronts of loads.
    pub read_wavefronts: u64,
    /// Wavefronts of stores, those of asynchronous copies included.
    pub write_wavefronts: u64,
    /// Wavefronts of loads beyond one per pass: bank conflicts.
    pub read_conflicts: u64,
    /// Wavefronts of stores beyond one per pass.
    pub write_conflicts: u64,
}

/// Everything that is counted, for one launch or one CTA.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Warp instructions by class; classes that did not occur are absent.
    pub instructions: BTreeMap<Class, u64>,
    /// Warp instructions in all.
    pub warp_instructions: u64,
    /// The same times the lanes that executed them.
    pub thread_instructions: u64,
    /// Floating-point operations of matrix instructions, two per multiply-add, masked or not.
    pub matrix_flops: u64,
    /// Global traffic by allocation label.
    pub global: BTreeMap<String, Traffic>,
    /// Shared-memory traffic.
    pub shared: SharedTraffic,
}

/// The running tally of one CTA: arrays while it runs, maps once it is done.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) classes: [u64; Class::ALL.len()],
    pub(crate) thread_instructions: u64,
    pub(crate) matrix_flops: u64,
    /// By allocation index; unique counts stay zero here and are filled in from the touched-byte maps.
    pub(crate) global: Vec<Traffic>,
    pub(crate) shared: SharedTraffic,
}

impl Tally {
    pub(crate) fn traffic(&mut self, allocation: usize) -> &mut Traffic {
        if self.global.len() <= allocation {
            self.global.resize(allocation + 1, Traffic::default());
        }
        &mut self.global[allocation]
    }

    /// Turns the tally into counters; `labels` names the allocations. Allocations that share a label are summed.
    pub(crate) fn counters(&self, labels: &[String]) -> Counters {
        let mut global = BTreeMap::<String, Traffic>::new();
        for (traffic, label) in self.global.iter().zip(labels) {
            if *traffic != Traffic::default() {
                global.entry(label.clone()).or_default().add(traffic);
            }
        }
        Counters {
            instructions: Class::ALL.into_iter().zip(self.classes).filter(|c| c.1 > 0).collect(),
            warp_instructions: self.classes.iter().sum(),
            thread_instructions: self.thread_instructions,
            matrix_flops: self.matrix_flops,
            global,
            shared: self.shared,
        }
    }

    /// Adds everything of `other` but its unique counts, which do not add up.
    pub(crate) fn add(&mut self, other: &Self) {
        for (a, b) in self.classes.iter_mut().zip(other.classes) {
            *a += b;
        }
        self.thread_instructions += other.thread_instructions;
        self.matrix_flops += other.matrix_flops;
        for (i, t) in other.global.iter().enumerate() {
            let mut t = *t;
            for side in [&mut t.read, &mut t.written] {
                side.unique_bytes = 0;
                side.unique_sectors = 0;
            }
            self.traffic(i).add(&t);
        }
        self.shared.add(&other.shared);
    }
}

impl Traffic {
    fn add(&mut self, other: &Self) {
        for (a, b) in [(&mut self.read, &other.read), (&mut self.written, &other.written)] {
            a.requests += b.requests;
            a.bytes += b.bytes;
            a.sectors += b.sectors;
            a.unique_bytes += b.unique_bytes;
            a.unique_sectors += b.unique_sectors;
        }
    }
}

impl SharedTraffic {
    fn add(&mut self, other: &Self) {
        self.bytes_read += other.bytes_read;
        self.bytes_written += other.bytes_written;
        self.read_wavefronts += other.read_wavefronts;
        self.write_wavefronts += other.write_wavefronts;
        self.read_conflicts += other.read_conflicts;
        self.write_conflicts += other.write_conflicts;
    }
}
