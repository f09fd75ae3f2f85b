//! The instructions that touch registers of asynchronous products: running one checks that the product was waited for.

use crate::ir::{Instr, Op, Reg, hopper};

/// Finds the instructions that touch registers of some `wgmma`, and marks them; the registers by mark, less one.
pub(crate) fn watch(instrs: &mut [Instr], regs: u32) -> Vec<Box<[Reg]>> {
    let mut used = vec![false; regs as usize];
    for i in instrs.iter() {
        let Op::Hopper(op) = &i.op else { continue };
        let hopper::Op::Wgmma(w) = &**op else { continue };
        let a: &[Reg] = if let hopper::OperandA::Registers(a) = &w.a { a } else { &[] };
        for &r in w.d.iter().chain(a) {
            used[r as usize] = true;
        }
    }
    let mut out = Vec::new();
    for i in instrs.iter_mut() {
        if matches!(&i.op, Op::Hopper(op) if matches!(**op, hopper::Op::Wgmma(_))) {
            continue;
        }
        let mut touches = Vec::new();
        i.op.visit(&mut |_, r| {
            if used.get(*r as usize).is_some_and(|&u| u) {
                touches.push(*r);
            }
        });
        if !touches.is_empty() {
            out.push(touches.into());
            i.watch = out.len() as u32;
        }
    }
    out
}
