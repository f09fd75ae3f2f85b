//! The pure parts of Hopper's instructions, each from the ISA document: how operands and copies lie in memory, products, and the phases of
//! `mbarrier` objects.

pub(crate) mod descriptor;
pub(crate) mod fragment;
pub(crate) mod mbarrier;
pub(crate) mod product;
pub(crate) mod swizzle;
pub(crate) mod tensor_map;
