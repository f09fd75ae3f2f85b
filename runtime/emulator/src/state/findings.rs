//! Collecting defects: one entry per kind and line, the first occurrence described, the rest counted.

use std::collections::BTreeMap;

use super::env::Env;
use crate::memory::global::Memory;
use crate::memory::shadow::{Entry, PC};
use crate::memory::view::CrossClash;
use crate::report::{Finding, FindingKind, Other, Space, Thread};

/// A defect as `exec` meets it; names and texts are filled in at the end.
#[derive(Clone, Debug)]
pub(crate) struct Defect {
    pub(crate) kind: FindingKind,
    /// Instruction index.
    pub(crate) pc: u32,
    pub(crate) thread: (u32, u32),
    pub(crate) access: Option<(Space, u64)>,
    pub(crate) place: Option<(String, i64)>,
    /// An earlier access and whether it was a store.
    pub(crate) other: Option<(Entry, bool)>,
    pub(crate) detail: String,
}

/// Defects by kind and instruction.
#[derive(Debug)]
pub(crate) struct Findings {
    found: BTreeMap<(u32, FindingKind), (Defect, u64)>,
    limit: usize,
}

impl Findings {
    pub(crate) fn new(limit: usize) -> Self {
        Self { found: BTreeMap::new(), limit }
    }

    /// Counts an occurrence; `describe` is called for the first one only.
    pub(crate) fn add(&mut self, kind: FindingKind, pc: u32, describe: impl FnOnce() -> Defect) {
        let full = self.found.len() >= self.limit;
        match self.found.get_mut(&(pc, kind)) {
            Some(f) => f.1 += 1,
            None if full => {}
            None => {
                self.found.insert((pc, kind), (describe(), 1));
            }
        }
    }

    /// Adds another collection; what is described here already only counts.
    pub(crate) fn absorb(&mut self, other: Self) {
        for (key, (defect, count)) in other.found {
            let full = self.found.len() >= self.limit;
            match self.found.get_mut(&key) {
                Some(f) => f.1 += count,
                None if full => {}
                None => {
                    self.found.insert(key, (defect, count));
                }
            }
        }
    }

    /// A race between CTAs that ran apart.
    pub(crate) fn cross(&mut self, env: &Env, base: &Memory, clash: &CrossClash) {
        let by = clash.later.0.or(clash.earlier.0);
        let Some(by) = by else { return };
        let thread = env.thread(by.at);
        self.add(FindingKind::Race, by.pc & PC, || Defect {
            kind: FindingKind::Race,
            pc: by.pc & PC,
            thread,
            access: Some((Space::Global, clash.address)),
            place: base.nearest(clash.address),
            other: clash.earlier.0.map(|e| (e, clash.earlier.1)),
            detail: {
                let what = |w: bool| if w { "stores to" } else { "loads" };
                format!(
                    "this CTA {} what another CTA {}, and nothing orders them",
                    what(clash.later.1),
                    what(clash.earlier.1)
                )
            },
        });
    }

    /// The findings with names and texts, ordered by line and kind.
    pub(crate) fn into_list(self, env: &Env) -> Vec<Finding> {
        let line = |pc: u32| env.code.instrs.get(pc as usize).map_or(0, |i| i.line);
        let thread = |(cta, thread): (u32, u32)| Thread { cta: env.cta(cta), thread };
        let mut out: Vec<Finding> = Vec::new();
        for (defect, count) in self.found.into_values() {
            let at = line(defect.pc);
            // Inlining makes several instructions of one line.
            if let Some(f) = out.iter_mut().find(|f| f.line == at && f.kind == defect.kind) {
                f.count += count;
                continue;
            }
            out.push(Finding {
                kind: defect.kind,
                kernel: env.kernel.name.clone(),
                line: at,
                text: env.module.line(at),
                thread: thread(defect.thread),
                access: defect.access,
                place: defect.place,
                other: defect.other.map(|(e, write)| {
                    let l = line(e.pc & PC);
                    Other { thread: thread(env.thread(e.at)), line: l, text: env.module.line(l), write }
                }),
                detail: defect.detail,
                count,
            });
        }
        out.sort_by_key(|f| (f.line, f.kind));
        out
    }
}
