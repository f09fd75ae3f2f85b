//! Quality: dense attention, plans and uniform spans of the same KV bytes side by side, on real text and on retrieval
//! tasks.
//!
//! A [`Run`] is one task at some lengths. Everything that is measured is a cell: one item (a window of text, or a
//! context with its questions, a conversation) under the spans of one [`Method`] at one length. Cells are saved by content
//! ([`cells`]), so an interrupted evaluation resumes where it stopped, plans with the same spans share cells, and
//! folders of cells from several machines can be copied together. [`report`] only makes tables of them.
//!
//! What must hold: an evaluation at length N has context, question and answer within N tokens, in the bucket N; a uniform
//! partner has at least the KV bytes of its plan and less than one tile more per KV head; methods are compared on the same
//! items; and the same inputs give the same tables.

pub mod cells;
mod error;
pub mod fingerprint;
pub mod items;
pub mod measure;
pub mod method;
pub mod report;
mod run;
pub mod stats;
pub mod suite;
mod task;
#[cfg(test)]
mod tests;

pub use self::error::EvalError;
pub use self::method::{Method, NamedPlan, Spans};
pub use self::run::{Evaluation, Measured, Progress, Shard};
pub use self::suite::{Run, Suite};
pub use self::task::Task;
