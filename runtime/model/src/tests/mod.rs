//! Tests on a tiny random model, written by other libraries than the ones under test, in both file formats.

mod architectures;
mod backward;
mod damage;
mod engine;
mod faults;
mod files;
mod forward;
mod hard_texts;
mod hostile;
mod settings;
mod streaming;
mod tampered;
mod text;
mod tiny;
mod windows;

use super::CHATML;
