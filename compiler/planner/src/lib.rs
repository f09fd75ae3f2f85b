//! Plans for a model from texts: what they are chosen by, and what they are worth.
//!
//! [`calibrate`] makes [`items`] from texts and [`tasks`], [`profile`] measures what masking attention loses on them,
//! [`search`] finds the Pareto set of plans, [`validate`] chooses among them and [`refine`] moves the spans of the chosen
//! one; [`pipeline`] is all of that in one call. [`eval`] measures any plan. What was computed is [`kept`].
#![forbid(unsafe_code)]

pub mod calibrate;
pub mod eval;
pub mod items;
pub mod kept;
pub mod pipeline;
pub mod profile;
pub mod refine;
pub mod search;
pub mod tasks;
pub mod validate;
