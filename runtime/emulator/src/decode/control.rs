//! Branches, calls (inlined) and exits.

use super::scope::Binding;
use super::{Decoder, MAX_CALLS, Mods, Result};
use crate::count::Class;
use crate::ir::Op;
use crate::lanes::Ty;
use crate::parse::ast::{Instruction, Operand};

impl<'a> Decoder<'a> {
    pub(super) fn control(&mut self, i: &'a Instruction, m: &mut Mods) -> Result<()> {
        m.take("uni");
        match i.op[0].as_str() {
            "bra" => {
                let [t] = self.operands(i)?;
                let target = self.label(t)?;
                self.push(Op::Branch { target }, Class::Control);
            }
            "brx" => {
                if !m.take("idx") {
                    return Err(self.error("only `brx.idx` is supported"));
                }
                let [index, Operand::Name(list)] = self.operands(i)? else {
                    return Err(self.error("`brx.idx` takes a register and a list of targets"));
                };
                let Some(Binding::Targets(names)) = self.lookup(list) else {
                    return Err(self.error(format!("`{list}` is not a list of targets")));
                };
                self.spend(names.len())?;
                let targets =
                    names.into_iter().map(|n| self.label(&Operand::Name(n))).collect::<Result<Vec<_>>>()?;
                let index = self.src(index, Ty::U(32))?;
                self.switch(index, targets);
            }
            "call" => self.call(i)?,
            "ret" => match self.returns.last() {
                Some(&target) => self.push(Op::Branch { target }, Class::Control),
                None => self.push(Op::Exit, Class::Control),
            },
            "exit" => self.push(Op::Exit, Class::Control),
            "trap" | "brkpt" => self.push(Op::Trap, Class::Control),
            "nanosleep" => {
                m.take("u32");
                self.push(Op::Nop, Class::Other);
            }
            _ => self.push(Op::Nop, Class::Other),
        }
        Ok(())
    }

    /// `call (results), f, (arguments)`: the body of `f` with its parameters bound to the arguments' storage.
    fn call(&mut self, i: &'a Instruction) -> Result<()> {
        let mut rest = &i.operands[..];
        let mut results: &[Operand] = &[];
        if let [Operand::List(r), more @ ..] = rest {
            (results, rest) = (r, more);
        }
        let (name, arguments): (&String, &[Operand]) = match rest {
            [Operand::Name(n)] => (n, &[]),
            [Operand::Name(n), Operand::List(a)] => (n, a),
            _ => return Err(self.error("only direct calls are supported")),
        };
        let unit = self.unit;
        let Some(f) = unit.callees.get(name).map(|&at| &unit.functions[at]) else {
            return Err(self.error(format!(
                "call of `{name}`, which has no body here (calls through pointers are not supported)"
            )));
        };
        if self.returns.len() >= MAX_CALLS {
            return Err(
                self.error(format!("calls nested deeper than {MAX_CALLS}: recursion is not supported"))
            );
        }
        if results.len() != f.results.len() || arguments.len() != f.params.len() {
            return Err(self.error(format!("call of `{name}` with a wrong number of parameters")));
        }
        self.spend(1 + f.results.len() + f.params.len())?;
        // A guarded call jumps over the body.
        let after = self.new_label();
        if let Some((p, negated)) = self.guard {
            self.guard = Some((p, !negated));
            self.push(Op::Branch { target: after }, Class::Control);
            self.guard = None;
        }
        let mut bound = super::scope::Scope::default();
        for (formal, actual) in f.results.iter().zip(results).chain(f.params.iter().zip(arguments)) {
            let Operand::Name(actual) = actual else {
                return Err(self.error("an argument that is no `.param` variable"));
            };
            let Some(b @ Binding::CallParam(_)) = self.lookup(actual) else {
                return Err(self.error(format!("argument `{actual}` is no `.param` variable")));
            };
            bound.bind(formal.name.clone(), b);
        }
        // The callee sees its parameters and the module, not its caller's names.
        let caller = std::mem::replace(&mut self.scopes, vec![bound]);
        let line = self.line;
        self.returns.push(after);
        self.function(f)?;
        self.returns.pop();
        self.scopes = caller;
        self.line = line;
        self.labels[after as usize] = self.instrs.len() as u32;
        Ok(())
    }
}
