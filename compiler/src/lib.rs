//! The plan compiler, as a library.
//!
//! One way through: [`plan`] reads and checks a plan, [`lower`] turns it into kernel specs (every decision is made
//! there), [`render`] prints each spec as a thin source file that includes the [`headers`].
#![forbid(unsafe_code)]

pub mod cli;
pub mod commands;
pub mod emit;
pub mod env;
pub mod error;
pub mod headers;
pub mod lower;
pub mod names;
pub mod plan;
pub mod render;
pub mod report;
pub mod subject;
pub mod verify;
