//! Tests of the search, by what they are held against.

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
