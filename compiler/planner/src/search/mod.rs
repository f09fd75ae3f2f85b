//! The search: from attention influence to plans.
//!
//! ```text
//! Influence + candidate rules + bounds --tables--> Problem --pareto/solve--> assignments --outcome--> Plans
//! ```
//!
//! - [`influence`]: the file that `moac profile` writes, in half-blocks that make the loss of every span exact;
//! - [`rules`]: candidate rules; [`tables`]: their losses and costs, with exactly the runtime's mask;
//! - [`problem`]: the problem without models or lengths; [`solve`]: one search with a proven gap; [`pareto`]: several
//!   lengths;
//! - [`outcome`]: plans with provenance.
//!
//! # The method
//! The plan problem is a multiple-choice knapsack: each head takes a rule, the losses add up, a few rows bound the
//! costs, and a layer uses at most two rules. Given prices for the rows, layers are independent and each is solved
//! exactly by sweeping its sets of rules; the best prices (a Lagrangian dual, by cutting planes) give a lower bound.
//! A column is one layer's choice of rules. Those within the gap of their layer's cheapest are all that a better plan
//! can be made of, so a small mixed program over them finds the plan, and proves it once none is left out.
//! Every linear or mixed program goes through `good_lp`.

mod columns;
mod dual;
pub mod influence;
mod lp;
mod master;
mod model;
pub mod outcome;
pub mod pareto;
mod price;
pub mod problem;
pub mod rules;
pub mod solve;
pub mod synthetic;
pub mod tables;
#[cfg(test)]
mod tests;

pub use lp::Solver;
