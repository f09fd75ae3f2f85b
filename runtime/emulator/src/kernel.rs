//! A kernel of a module: what its declaration says, and its code.

use crate::ir::Code;

/// A parameter of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelParam {
    /// Name in the PTX.
    pub name: String,
    /// Byte offset in the parameter block.
    pub offset: u32,
    /// Size in bytes.
    pub bytes: u32,
    /// Alignment in bytes.
    pub align: u32,
}

/// A kernel of a module.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Symbol.
    pub name: String,
    /// Line of its declaration.
    pub line: u32,
    /// Parameters in order, at the offsets that a launch expects them at.
    pub params: Vec<KernelParam>,
    /// Size of the parameter block in bytes.
    pub param_bytes: u32,
    /// Bytes of static shared memory.
    pub static_shared: u32,
    /// Offset of the dynamic shared memory behind the static one.
    pub dynamic_shared_offset: u32,
    /// `.reqntid`, if given.
    pub required_threads: Option<[u32; 3]>,
    /// `.maxntid`, if given.
    pub max_threads: Option<[u32; 3]>,
    /// `.reqnctapercluster`, if given.
    pub cluster: Option<[u32; 3]>,
    /// `.minnctapersm`, if given.
    pub min_ctas: Option<u32>,
    /// `.maxnreg`, if given.
    pub max_registers: Option<u32>,
    pub(crate) code: Code,
}

impl Kernel {
    /// Registers per thread at launch, as far as the bounds in the text determine them: the most that let the promised number of CTAs
    /// share a multiprocessor's 65536.
    pub(crate) fn registers(&self) -> Option<u32> {
        let threads: u32 = self.required_threads.or(self.max_threads)?.iter().product();
        let share = 65536 / threads.next_multiple_of(128).max(1) / self.min_ctas.unwrap_or(1);
        Some(self.max_registers.unwrap_or(share).min(share).min(256) / 8 * 8)
    }
}
