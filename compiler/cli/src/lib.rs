//! The command line of moac, as a library, so that its binary and that of the tests are one line each.
//!
//! [`commands`] has a file for each command, with its arguments and its output. [`report`] makes tables, pictures and
//! pages. [`error`] wraps the errors of all libraries.
#![deny(unsafe_code)] // not forbidden: ndarray's macros allow it for themselves

pub mod cli;
pub mod commands;
pub mod context;
pub mod doctor;
pub mod error;
pub mod interrupt;
pub mod prompts;
pub mod quickstart;
pub mod report;
pub mod shape;
pub mod subject;
