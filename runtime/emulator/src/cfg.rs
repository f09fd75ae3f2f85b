//! The order in which diverged threads of a warp run, so that they meet again as early as the program allows.
//!
//! Basic blocks are put into a weak topological order: every loop is contiguous and starts with its header, and everything else comes
//! after what leads to it. Running the threads with the smallest rank first then reconverges `if`s at their join and loops at their
//! exit, for any control flow, without a stack of reconvergence points that spinning threads could get stuck in.

use crate::ir::Instr;

/// The basic blocks of a kernel.
pub(crate) struct Blocks {
    /// First instruction of each block, and the end of the last.
    starts: Vec<usize>,
    /// Blocks that control can go to, by block.
    pub(crate) next: Vec<Vec<u32>>,
    /// The order in which diverged threads run them.
    pub(crate) order: Vec<u32>,
}

impl Blocks {
    pub(crate) fn new(code: &[Instr]) -> Self {
        let n = code.len();
        let mut leader = vec![false; n + 1];
        leader[0] = true;
        leader[n] = true;
        for (i, instr) in code.iter().enumerate() {
            for &t in instr.op.targets() {
                leader[t as usize] = true;
            }
            if !instr.op.targets().is_empty() || instr.op.diverts() {
                leader[i + 1] = true;
            }
        }
        let starts: Vec<usize> = (0..=n).filter(|&i| leader[i]).collect();
        let mut block_of = vec![0u32; n];
        for (b, w) in starts.windows(2).enumerate() {
            block_of[w[0]..w[1]].fill(b as u32);
        }
        let successors = |w: &[usize]| {
            let last = &code[w[1] - 1];
            let mut out: Vec<u32> = last.op.targets().iter().map(|&t| block_of[t as usize]).collect();
            if (!last.op.diverts() || last.guard.is_some()) && w[1] < n {
                out.push(block_of[w[1]]);
            }
            out
        };
        let next: Vec<Vec<u32>> = starts.windows(2).map(successors).collect();
        let order = weak_order(&next);
        Self { starts, next, order }
    }

    /// The instructions of a block.
    pub(crate) fn range(&self, block: u32) -> std::ops::Range<usize> {
        self.starts[block as usize]..self.starts[block as usize + 1]
    }

    /// Rank by instruction.
    pub(crate) fn ranks(&self) -> Vec<u32> {
        let mut rank = vec![0; self.starts.last().copied().unwrap_or(0)];
        let mut at = 0;
        for &b in &self.order {
            for i in self.range(b) {
                rank[i] = at;
                at += 1;
            }
        }
        rank
    }
}

/// Loops nested deeper than this run in the order of the text: no compiler makes them.
const MAX_NESTING: usize = 64;

/// All blocks in weak topological order; blocks that nothing reaches come last.
fn weak_order(next: &[Vec<u32>]) -> Vec<u32> {
    let n = next.len();
    let mut out = Vec::with_capacity(n);
    let mut before = vec![Vec::new(); n];
    for (b, targets) in next.iter().enumerate() {
        for &t in targets {
            before[t as usize].push(b as u32);
        }
    }
    let mut search = Search::new(n);
    // Work items: blocks to order, the header whose incoming edges are cut, and in how many loops they are.
    let mut stack: Vec<(Vec<u32>, Option<u32>, usize)> = vec![((0..n as u32).collect(), None, 0)];
    while let Some((members, header, depth)) = stack.pop() {
        if let Some(h) = header {
            out.push(h);
        }
        let mut members: Vec<u32> = members.into_iter().filter(|&b| Some(b) != header).collect();
        if depth > MAX_NESTING {
            members.sort_unstable();
            out.extend(members);
            continue;
        }
        // Components come in reverse topological order; the stack turns that around again.
        for c in search.components(next, &members) {
            if c.len() > 1 {
                // The header: the member entered from outside, the earliest in the text where there are several.
                search.mark(&c);
                let enters = |b: &&u32| before[**b as usize].iter().any(|&p| !search.marked(p));
                let entered = c.iter().filter(enters).copied().min();
                let header = entered.or_else(|| c.iter().copied().min());
                stack.push((c, header, depth + 1));
            } else {
                stack.push((Vec::new(), Some(c[0]), depth));
            }
        }
    }
    out
}

/// The state of a search for components, for each block; a round's marks count only in that round.
struct Search {
    round: u32,
    inside: Vec<u32>,
    seen: Vec<u32>,
    index: Vec<u32>,
    low: Vec<u32>,
    on: Vec<bool>,
}

impl Search {
    fn new(n: usize) -> Self {
        Self {
            round: 0,
            inside: vec![0; n],
            seen: vec![0; n],
            index: vec![0; n],
            low: vec![0; n],
            on: vec![false; n],
        }
    }

    /// Starts a round in which these blocks are inside.
    fn mark(&mut self, members: &[u32]) {
        self.round += 1;
        for &m in members {
            self.inside[m as usize] = self.round;
        }
    }

    fn marked(&self, block: u32) -> bool {
        self.inside[block as usize] == self.round
    }

    /// Strongly connected components of the subgraph of `members`, in reverse topological order (Tarjan, without
    /// recursion).
    fn components(&mut self, next: &[Vec<u32>], members: &[u32]) -> Vec<Vec<u32>> {
        self.mark(members);
        let (mut stack, mut out, mut count) = (Vec::new(), Vec::new(), 0);
        for &root in members {
            if self.seen[root as usize] == self.round {
                continue;
            }
            let mut work = vec![(root, 0usize)];
            while let Some(&mut (b, ref mut edge)) = work.last_mut() {
                let u = b as usize;
                if *edge == 0 {
                    self.seen[u] = self.round;
                    self.index[u] = count;
                    self.low[u] = count;
                    count += 1;
                    stack.push(b);
                    self.on[u] = true;
                }
                let mut child = None;
                while *edge < next[u].len() {
                    let t = next[u][*edge];
                    *edge += 1;
                    if self.inside[t as usize] != self.round {
                        continue;
                    }
                    if self.seen[t as usize] != self.round {
                        child = Some(t);
                        break;
                    }
                    if self.on[t as usize] {
                        self.low[u] = self.low[u].min(self.index[t as usize]);
                    }
                }
                if let Some(t) = child {
                    work.push((t, 0));
                    continue;
                }
                work.pop();
                if let Some(&(p, _)) = work.last() {
                    self.low[p as usize] = self.low[p as usize].min(self.low[u]);
                }
                if self.low[u] == self.index[u] {
                    let mut c = Vec::new();
                    while let Some(t) = stack.pop() {
                        self.on[t as usize] = false;
                        c.push(t);
                        if t == b {
                            break;
                        }
                    }
                    out.push(c);
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_stay_together_and_joins_come_last() {
        // 0 -> 1 (header) -> {4 exit, 2}; 2 -> {3, 5}; 3 -> 5; 5 -> 1; 4 -> end.
        let next = vec![vec![1], vec![4, 2], vec![5, 3], vec![5], vec![], vec![1]];
        assert_eq!(weak_order(&next), [0, 1, 2, 3, 5, 4]);
        // A block with an edge to itself, and one that nothing reaches.
        assert_eq!(weak_order(&[vec![0, 1], vec![], vec![1]]).len(), 3);
    }

    #[test]
    fn nested_loops() {
        // 0 -> 1 -> 2 -> 3 -> {2, 4}; 4 -> {1, 5}.
        let next = vec![vec![1], vec![2], vec![3], vec![5, 2], vec![], vec![1, 4]];
        assert_eq!(weak_order(&next), [0, 1, 2, 3, 5, 4]);
    }
}
