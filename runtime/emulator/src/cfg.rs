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

/// All blocks in weak topological order; blocks that nothing reaches come last.
fn weak_order(next: &[Vec<u32>]) -> Vec<u32> {
    let n = next.len();
    let mut out = Vec::with_capacity(n);
    // Work items: blocks to order, and the header whose incoming edges are cut.
    let mut stack: Vec<(Vec<u32>, Option<u32>)> = vec![((0..n as u32).collect(), None)];
    while let Some((members, header)) = stack.pop() {
        if let Some(h) = header {
            out.push(h);
        }
        let members: Vec<u32> = members.into_iter().filter(|&b| Some(b) != header).collect();
        let mut components = components(next, &members);
        // `components` gives them in reverse topological order; the stack turns that around again.
        for c in components.drain(..) {
            let looped = c.len() > 1;
            if looped {
                // The header: the member entered from outside, the earliest in the text where there are several.
                let mut inside = vec![false; n];
                for &b in &c {
                    inside[b as usize] = true;
                }
                let outside = (0..n).filter(|&p| !inside[p]);
                let entered = outside.flat_map(|p| &next[p]).copied().filter(|&t| inside[t as usize]).min();
                let header = entered.or_else(|| c.iter().copied().min());
                stack.push((c.clone(), header));
            } else {
                stack.push((Vec::new(), Some(c[0])));
            }
        }
    }
    out
}

/// Strongly connected components of the subgraph of `members`, in reverse topological order (Tarjan, without recursion).
fn components(next: &[Vec<u32>], members: &[u32]) -> Vec<Vec<u32>> {
    const UNSEEN: u32 = u32::MAX;
    let n = next.len();
    let mut inside = vec![false; n];
    for &m in members {
        inside[m as usize] = true;
    }
    let (mut index, mut low, mut on) = (vec![UNSEEN; n], vec![0u32; n], vec![false; n]);
    let (mut stack, mut out, mut count) = (Vec::new(), Vec::new(), 0);
    for &root in members {
        if index[root as usize] != UNSEEN {
            continue;
        }
        let mut work = vec![(root, 0usize)];
        while let Some(&mut (b, ref mut edge)) = work.last_mut() {
            let u = b as usize;
            if *edge == 0 {
                index[u] = count;
                low[u] = count;
                count += 1;
                stack.push(b);
                on[u] = true;
            }
            let mut child = None;
            while *edge < next[u].len() {
                let t = next[u][*edge];
                *edge += 1;
                if !inside[t as usize] {
                    continue;
                }
                if index[t as usize] == UNSEEN {
                    child = Some(t);
                    break;
                }
                if on[t as usize] {
                    low[u] = low[u].min(index[t as usize]);
                }
            }
            if let Some(t) = child {
                work.push((t, 0));
                continue;
            }
            work.pop();
            if let Some(&(p, _)) = work.last() {
                low[p as usize] = low[p as usize].min(low[u]);
            }
            if low[u] == index[u] {
                let mut c = Vec::new();
                while let Some(t) = stack.pop() {
                    on[t as usize] = false;
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
