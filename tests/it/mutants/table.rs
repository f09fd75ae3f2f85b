//! A seeded defect: one small edit of a kernel header, as a tired author might make it.

/// An edit that replaces the only occurrence of `find` in `file`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mutant {
    pub(crate) name: &'static str,
    /// The header, by its include name.
    pub(crate) file: &'static str,
    pub(crate) find: &'static str,
    pub(crate) replace: &'static str,
}

/// A mutant that no check finds, and why that is right.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Survivor {
    pub(crate) name: &'static str,
    #[expect(dead_code, reason = "for the reader")]
    pub(crate) why: &'static str,
}

/// The defects of one kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table {
    pub(crate) mutants: &'static [Mutant],
    /// Those that stay unfound.
    pub(crate) survivors: &'static [Survivor],
}

pub(crate) const fn m(
    name: &'static str,
    file: &'static str,
    find: &'static str,
    replace: &'static str,
) -> Mutant {
    Mutant { name, file, find, replace }
}
