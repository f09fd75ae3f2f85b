//! The online softmax in float32, by the number of query rows.

use ndarray::{Array1, Array2};

use super::few::Few;
use super::lanes::Lanes;
use super::softmax::{Row, Softmax, Tile};
use crate::matvec::FEW;

/// The state of some rows, laid out as suits their number.
#[derive(Debug)]
pub enum Online {
    /// The state of a decode step.
    Few(Box<Few>),
    /// The state of a block of prefill, or of a large group.
    Many(Lanes),
}

impl Softmax<f32> for Online {
    fn start(q: &Array2<f32>, rows: &[Row], sink: u32) -> Self {
        if rows.len() <= FEW {
            Self::Few(Box::new(Few::start(q, rows, sink)))
        } else {
            Self::Many(Lanes::start(q, rows, sink))
        }
    }

    fn take(&mut self, tile: &Tile<'_, f32>) {
        match self {
            Self::Few(few) => few.take(tile),
            Self::Many(lanes) => lanes.take(tile),
        }
    }

    fn finish(self) -> (Array2<f32>, Array1<f32>) {
        match self {
            Self::Few(few) => few.finish(),
            Self::Many(lanes) => lanes.finish(),
        }
    }
}
