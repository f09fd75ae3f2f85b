//! The time and memory of a render. Every step and every byte that is made or read is charged to one account, so that time
//! and memory are bounded together.

use std::cell::Cell;

use crate::error::{ErrorKind, Result};

/// Units that every render may use: about four million steps, or 64 MiB of text.
const BASE: u64 = 64 << 20;
/// Units per byte of template and variables on top of that.
const PER_BYTE: u64 = 64;
/// Units of a step of the interpreter.
pub(crate) const STEP: u64 = 16;
/// How deep values, expressions and calls may nest.
pub(crate) const MAX_DEPTH: u32 = 100;

/// The account of a render.
#[derive(Debug)]
pub(crate) struct Meter {
    left: Cell<u64>,
}

impl Meter {
    pub(crate) fn new(input_bytes: usize) -> Self {
        Self { left: Cell::new(BASE.saturating_add(PER_BYTE.saturating_mul(input_bytes as u64))) }
    }

    /// Takes units before the work is done or the memory asked for.
    pub(crate) fn charge(&self, units: u64) -> Result<()> {
        match self.left.get().checked_sub(units) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => Err(ErrorKind::Limit("time and memory").into()),
        }
    }

    pub(crate) fn bytes(&self, bytes: usize) -> Result<()> {
        self.charge(STEP.saturating_add(bytes as u64))
    }

    pub(crate) fn items(&self, items: usize) -> Result<()> {
        self.charge(STEP.saturating_mul((items as u64).saturating_add(1)))
    }
}
