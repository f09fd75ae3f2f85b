//! Register assignment: PTX names a new register for nearly every value; few of them live at the same time.
//!
//! Each register gets one interval, in the order in which blocks are ranked, that covers every place where it is live, and registers
//! with disjoint intervals share a place. That keeps a warp's registers in the host's cache. It is sound under divergence because lanes
//! are columns of their own: what one group of lanes overwrites, another group keeps.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::cfg::Blocks;
use crate::count::Class;
use crate::ir::{Instr, Op, Reg, Use};

/// The most words of a bitmap of all registers at all blocks; the largest kernels of ours need a hundredth.
const MAX_BITMAP: usize = 1 << 23;
/// The most words that are looked at until nothing changes any more.
const MAX_STEPS: usize = 1 << 31;

/// Renames the registers below `count` (those with a bit of `constant` set are left alone); how many places they need, or
/// nothing if the code has far more registers and blocks than kernels have.
pub(super) fn assign(
    code: &mut [Instr],
    blocks: &Blocks,
    rank: &[u32],
    count: Reg,
    constant: Reg,
) -> Option<Reg> {
    let n = count as usize;
    let mut uses = Uses::collect(code, n, constant);
    let live = liveness(blocks, &uses, n)?;
    // First and last rank at which each register is live.
    let mut interval = vec![(u32::MAX, 0u32); n];
    let mut cover = |r: usize, at: u32| {
        interval[r].0 = interval[r].0.min(at);
        interval[r].1 = interval[r].1.max(at);
    };
    for (i, list) in uses.of.iter().enumerate() {
        for &(r, _) in list {
            cover(r as usize, rank[i]);
        }
    }
    for b in 0..blocks.next.len() {
        let range = blocks.range(b as u32);
        for r in members(&live.entry[b]) {
            cover(r, rank[range.start]);
        }
        for r in members(&live.exit[b]) {
            cover(r, rank[range.end - 1]);
        }
    }
    // Asynchronous matrix instructions write their registers later than they name them: those share with nobody.
    for &r in &uses.pinned {
        interval[r as usize] = (0, u32::MAX);
    }
    let mut order: Vec<usize> = (0..n).filter(|&r| interval[r].0 != u32::MAX).collect();
    order.sort_unstable_by_key(|&r| (interval[r].0, r));
    let mut place = vec![0; n];
    let mut busy: BinaryHeap<Reverse<(u32, Reg)>> = BinaryHeap::new();
    let mut free: Vec<Reg> = Vec::new();
    let mut places = 0;
    for r in order {
        while let Some(&Reverse((end, p))) = busy.peek()
            && end < interval[r].0
        {
            busy.pop();
            free.push(p);
        }
        place[r] = free.pop().unwrap_or_else(|| {
            places += 1;
            places - 1
        });
        busy.push(Reverse((interval[r].1, place[r])));
    }
    uses.of.clear();
    for i in code {
        i.op.visit(&mut |_, r| {
            if *r & constant == 0 {
                *r = place[*r as usize];
            }
        });
    }
    Some(places)
}

/// Registers by instruction, and whether they are only written.
struct Uses {
    of: Vec<Vec<(Reg, bool)>>,
    pinned: Vec<Reg>,
}

impl Uses {
    fn collect(code: &mut [Instr], n: usize, constant: Reg) -> Self {
        let mut pinned = vec![false; n];
        let of = code
            .iter_mut()
            .map(|i| {
                let mut list = Vec::new();
                let asynchronous = i.class == Class::Matrix && !matches!(i.op, Op::Mma { .. });
                // A guarded write leaves the other lanes' values as they are.
                let whole = i.guard.is_none();
                i.op.visit(&mut |how, r| {
                    if *r & constant == 0 {
                        list.push((*r, how == Use::Write && whole));
                        pinned[*r as usize] |= asynchronous;
                    }
                });
                list
            })
            .collect();
        let pinned = (0..n as Reg).filter(|&r| pinned[r as usize]).collect();
        Self { of, pinned }
    }
}

struct Liveness {
    entry: Vec<Vec<u64>>,
    exit: Vec<Vec<u64>>,
}

fn liveness(blocks: &Blocks, uses: &Uses, n: usize) -> Option<Liveness> {
    let words = n.div_ceil(64);
    let count = blocks.next.len();
    if words.saturating_mul(count) > MAX_BITMAP {
        return None;
    }
    let edges: usize = blocks.next.iter().map(Vec::len).sum();
    let mut steps = 0usize;
    let (mut gen_, mut kill) = (vec![vec![0u64; words]; count], vec![vec![0u64; words]; count]);
    for b in 0..count {
        for i in blocks.range(b as u32) {
            // All reads of an instruction come before its writes.
            for &(r, _) in uses.of[i].iter().filter(|u| !u.1) {
                let (w, bit) = (r as usize / 64, 1 << (r % 64));
                gen_[b][w] |= bit & !kill[b][w];
            }
            for &(r, _) in uses.of[i].iter().filter(|u| u.1) {
                kill[b][r as usize / 64] |= 1 << (r % 64);
            }
        }
    }
    let mut live = Liveness { entry: gen_, exit: vec![vec![0; words]; count] };
    let mut changed = true;
    while changed {
        changed = false;
        steps = steps.saturating_add(edges.saturating_mul(words));
        if steps > MAX_STEPS {
            return None;
        }
        for &b in blocks.order.iter().rev() {
            let b = b as usize;
            for &t in &blocks.next[b] {
                // A block that follows itself reads and writes the same bitmap.
                let ahead = live.entry[t as usize].clone();
                let (entry, exit) = (&mut live.entry[b], &mut live.exit[b]);
                for (((e, x), k), a) in entry.iter_mut().zip(exit).zip(&kill[b]).zip(&ahead) {
                    *x |= a;
                    let through = *x & !k;
                    changed |= through & !*e != 0;
                    *e |= through;
                }
            }
        }
    }
    Some(live)
}

/// The set bits of a bitmap.
fn members(bits: &[u64]) -> impl Iterator<Item = usize> {
    bits.iter()
        .enumerate()
        .flat_map(|(w, &word)| (0..64).filter(move |b| word >> b & 1 != 0).map(move |b| w * 64 + b))
}
