//! Finds plans for a model from texts, and measures their quality.
//!
//! [`calibrate`] makes [`items`] from texts and [`tasks`], [`profile`] measures the loss that masking attention
//! causes on them, [`search`] finds the Pareto set of plans, [`validate`] chooses among them and [`refine`] moves the
//! spans of the chosen one; [`pipeline`] does all of this in one call. [`eval`] measures any plan. Results are saved
//! by [`kept`].
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
