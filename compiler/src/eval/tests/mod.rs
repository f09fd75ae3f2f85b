//! Evaluations against what was worked out otherwise.
