//! The variables of a module in a memory: allocated and initialised when one of its kernels is first launched.

use crate::memory::global::Memory;
use crate::module::Module;
use crate::parse::ast::Init;

impl Memory {
    /// Addresses of a module's variables, allocated and initialised on first use.
    pub(super) fn instantiate(&mut self, module: &Module) -> Vec<u64> {
        if let Some(known) = self.modules.get(&module.identity) {
            return known.clone();
        }
        let addresses: Vec<u64> = module
            .variables
            .iter()
            .map(|v| {
                let bytes = v.bytes.unwrap_or(0);
                // Variables without an initialiser are zero.
                self.alloc_filled(v.name.clone(), bytes, 0)
            })
            .collect();
        for (v, &address) in module.variables.iter().zip(&addresses) {
            let mut data = Vec::new();
            for i in &v.init {
                let bits = match i {
                    Init::Bits(b) => *b,
                    Init::Float(f) if v.element == 4 => (*f as f32).to_bits().into(),
                    Init::Float(f) => f.to_bits(),
                    Init::Symbol(name, offset) => {
                        let k = module.variables.iter().position(|v| v.name == *name);
                        k.map_or(0, |k| addresses[k]).wrapping_add(*offset as u64)
                    }
                };
                data.extend_from_slice(&bits.to_le_bytes()[..v.element as usize]);
            }
            data.truncate(v.bytes.unwrap_or(0) as usize);
            // The allocation was made just above, with room for all of it.
            let _ = self.write(address, &data);
            if v.space == "const"
                && let Some(i) = self.at_or_before(address)
            {
                self.allocations[i].read_only = true;
            }
        }
        self.modules.insert(module.identity, addresses.clone());
        addresses
    }

    /// Address of a module's `.global` or `.const` variable, once a kernel of the module was launched.
    pub fn symbol(&self, module: &Module, name: &str) -> Option<u64> {
        let i = module.variables.iter().position(|v| v.name == name)?;
        self.modules.get(&module.identity).map(|a| a[i])
    }
}
