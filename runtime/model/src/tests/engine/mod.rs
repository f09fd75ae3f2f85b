//! The engine: sampling, schedules, streams.

mod sampling;
