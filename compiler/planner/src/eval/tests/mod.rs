//! Evaluations against what was worked out otherwise.

mod cells;
mod methods;
mod runs;
mod stats;
mod suites;
mod tiny;
