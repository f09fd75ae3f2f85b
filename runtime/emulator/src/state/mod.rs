//! The state of a running launch: its grid, CTAs, warps, barriers, the operations under way, the defects met. Nothing here executes
//! an instruction; `exec` does, on these.

pub(crate) mod agents;
pub(crate) mod barrier;
pub(crate) mod cluster;
pub(crate) mod copies;
pub(crate) mod cta;
pub(crate) mod env;
pub(crate) mod events;
pub(crate) mod findings;
pub(crate) mod hopper;
pub(crate) mod locations;
pub(crate) mod products;
pub(crate) mod residents;
pub(crate) mod traffic;
pub(crate) mod waits;
pub(crate) mod warp;
