//! The command line of moac, as a library so that its binary and that of the tests are one line each.
//!
//! [`commands`] has a file per command: its arguments, and what it calls and prints. [`report`] makes tables, pictures and
//! pages. [`error`] is the one type that names the errors of all libraries.
#![deny(unsafe_code)] // not forbidden: ndarray's macros allow it for themselves

pub mod cli;
pub mod commands;
pub mod doctor;
pub mod error;
pub mod interrupt;
pub mod quickstart;
pub mod report;
pub mod shape;
pub mod subject;
