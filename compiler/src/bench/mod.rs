//! The performance of kernels, compared with the work they need and with the device's measured ceilings.
//!
//! [`work`] has the two numbers that everything is measured in: the bytes of K and V, and the floating-point
//! operations, that follow from the plan's visibility rule alone. [`time`] times phases on a GPU and divides them by
//! the [`ceilings`] that it measured in the same run; [`counters`] counts what launches take on the PTX emulator, and
//! knows no time.

pub mod ceilings;
pub mod counters;
pub mod points;
pub mod time;
pub mod work;

pub use ceilings::Ceilings;
pub use points::Point;
pub use work::Useful;
