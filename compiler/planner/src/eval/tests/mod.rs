//! Evaluations against what was worked out otherwise.

mod cells;
mod methods;
mod parts;
mod runs;
mod stats;
mod suites;
mod tiny;
