//! GPU architectures: their names, and which device runs a cubin made for which.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A real architecture that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Arch {
    /// A100
    Sm80,
    /// A10, RTX 30
    Sm86,
    /// L4, L40, RTX 40
    Sm89,
    /// H100, H200, portable instructions only
    Sm90,
    /// H100, H200, with Hopper's own instructions
    Sm90a,
    /// B200, portable instructions only
    Sm100,
    /// B200, with Blackwell's own instructions
    Sm100a,
}

/// A name that is not a supported architecture.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("unknown architecture `{found}`: expected one of {}", Arch::ALL.map(Arch::name).join(", "))]
pub struct UnknownArch {
    /// The name given.
    pub found: String,
}

impl Arch {
    /// All of them, oldest first.
    pub const ALL: [Self; 7] =
        [Self::Sm80, Self::Sm86, Self::Sm89, Self::Sm90, Self::Sm90a, Self::Sm100, Self::Sm100a];

    /// The name as NVRTC takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sm80 => "sm_80",
            Self::Sm86 => "sm_86",
            Self::Sm89 => "sm_89",
            Self::Sm90 => "sm_90",
            Self::Sm90a => "sm_90a",
            Self::Sm100 => "sm_100",
            Self::Sm100a => "sm_100a",
        }
    }

    /// (major, minor, arch-specific).
    const fn parts(self) -> (u32, u32, bool) {
        match self {
            Self::Sm80 => (8, 0, false),
            Self::Sm86 => (8, 6, false),
            Self::Sm89 => (8, 9, false),
            Self::Sm90 => (9, 0, false),
            Self::Sm90a => (9, 0, true),
            Self::Sm100 => (10, 0, false),
            Self::Sm100a => (10, 0, true),
        }
    }

    /// Whether a device of compute capability `major.minor` runs a cubin of this architecture: the same major and
    /// no smaller minor; an arch-specific one (`a`) runs on exactly its own.
    pub const fn runs_on(self, major: u32, minor: u32) -> bool {
        let (own_major, own_minor, specific) = self.parts();
        major == own_major && if specific { minor == own_minor } else { minor >= own_minor }
    }

    /// Bytes of shared memory of one multiprocessor; each CTA on it takes 1 KiB more than it asks for.
    pub const fn shared_memory_per_sm(self) -> u32 {
        self.shared_memory_per_block() + 1024
    }

    /// Bytes of shared memory that one CTA may opt in to.
    pub const fn shared_memory_per_block(self) -> u32 {
        match self {
            Self::Sm80 => 163 * 1024,
            Self::Sm86 | Self::Sm89 => 99 * 1024,
            Self::Sm90 | Self::Sm90a | Self::Sm100 | Self::Sm100a => 227 * 1024,
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Arch {
    type Err = UnknownArch;

    fn from_str(name: &str) -> Result<Self, UnknownArch> {
        Self::ALL
            .into_iter()
            .find(|arch| arch.name() == name)
            .ok_or_else(|| UnknownArch { found: name.to_owned() })
    }
}

impl TryFrom<String> for Arch {
    type Error = UnknownArch;

    fn try_from(name: String) -> Result<Self, UnknownArch> {
        name.parse()
    }
}

impl From<Arch> for String {
    fn from(arch: Arch) -> Self {
        arch.name().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::Arch;

    #[test]
    fn a_cubin_runs_on_its_own_major_from_its_own_minor_up() {
        let devices = [(8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (10, 3), (12, 0)];
        let runs = |arch: Arch| {
            devices.map(|(major, minor)| if arch.runs_on(major, minor) { 'x' } else { '.' }).iter().collect()
        };
        let table: Vec<(&str, String)> = Arch::ALL.map(|arch| (arch.name(), runs(arch))).to_vec();
        let expected = [
            ("sm_80", "xxx...."),
            ("sm_86", ".xx...."),
            ("sm_89", "..x...."),
            ("sm_90", "...x..."),
            ("sm_90a", "...x..."),
            ("sm_100", "....xx."),
            ("sm_100a", "....x.."),
        ];
        assert_eq!(table, expected.map(|(name, row)| (name, row.to_owned())));
    }

    #[test]
    fn names_round_trip_and_a_stranger_is_named() {
        for arch in Arch::ALL {
            assert_eq!(arch.name().parse(), Ok(arch));
        }
        let error = "sm_75".parse::<Arch>().unwrap_err().to_string();
        assert!(error.contains("sm_75") && error.contains("sm_90a"), "{error}");
    }
}
