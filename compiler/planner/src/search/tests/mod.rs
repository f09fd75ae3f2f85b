//! Tests of the search, a file for each reference that it is compared with.

mod brute;
#[cfg(feature = "highs")]
mod highs;
mod influence;
mod instances;
mod mask;
mod plans;

use std::ops::ControlFlow;

/// Stops no search.
fn go_on(_done: usize, _all: usize) -> ControlFlow<()> {
    ControlFlow::Continue(())
}
