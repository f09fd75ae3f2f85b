//! The tables that describe a step's rows and samples to the device.

use moac_runtime::glue::{Row, Sample};

use super::sizes::padded;
use crate::engine::runner::Choice;

/// The tables of one step, as the device takes them, and what they hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tables {
    /// [`Row`]s, padding included.
    pub(super) rows: Vec<u8>,
    /// [`Sample`]s, padding included.
    pub(super) samples: Vec<u8>,
    /// The receiver of each sample's token, and the number of likely tokens that it wants with it.
    pub(super) takers: Vec<(u32, u32)>,
    /// Rows so far.
    count: u32,
}

impl Tables {
    /// Empty ones.
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// A request that takes its newest token at `position`.
    pub(super) fn decode(&mut self, lane: u32, position: u32, choice: &Choice<'_>) {
        self.row(Row { token: Row::NEWEST, position, lane, reserved: 0 });
        self.sample(lane, choice);
    }

    /// A chunk of a prompt from `position` on.
    pub(super) fn prefill(&mut self, lane: u32, position: u32, tokens: &[u32], choice: Option<&Choice<'_>>) {
        for (position, &token) in (position..).zip(tokens) {
            self.row(Row { token, position, lane, reserved: 0 });
        }
        if let Some(choice) = choice {
            self.sample(lane, choice);
        }
    }

    /// Pads the rows to the number that a graph or a product has; padding is never read. Samples are padded likewise.
    pub(super) fn pad(&mut self) {
        while self.count < padded(self.count) {
            self.row(Row::PADDING);
        }
        let taken = self.takers.len() as u32;
        if taken > 0 {
            for _ in taken..padded(taken) {
                self.samples.extend(Sample::PADDING.to_bytes());
            }
        }
    }

    /// Rows, padding included.
    pub(super) fn rows(&self) -> u32 {
        self.count
    }

    /// Samples, padding included.
    pub(super) fn samples(&self) -> u32 {
        (self.samples.len() / Sample::BYTES) as u32
    }

    fn row(&mut self, row: Row) {
        self.rows.extend(row.to_bytes());
        self.count += 1;
    }

    /// A sample of the newest row.
    fn sample(&mut self, lane: u32, choice: &Choice<'_>) {
        let sample = choice.sampling.entry(self.count - 1, lane, choice.counter);
        self.samples.extend(Sample { top_logprobs: choice.top_logprobs, ..sample }.to_bytes());
        self.takers.push((lane, choice.top_logprobs));
    }
}

#[cfg(test)]
mod tests {
    use moac_runtime::glue::{Row, Sample};

    use super::Tables;
    use crate::Sampling;
    use crate::engine::runner::Choice;

    fn word(table: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(table[4 * at..4 * at + 4].try_into().unwrap())
    }

    #[test]
    fn decodes_come_first_and_padding_last() {
        let sampling = Sampling { temperature: 0.5, seed: 7, ..Sampling::greedy() };
        let choice = |counter| Choice { sampling: &sampling, counter, top_logprobs: counter };
        let mut tables = Tables::new();
        tables.decode(4, 100, &choice(2));
        tables.decode(1, 9, &choice(0));
        tables.prefill(2, 30, &[5, 6, 7], None);
        tables.prefill(0, 0, &[8, 9, 10, 11], Some(&choice(0)));
        tables.pad();
        assert_eq!((tables.rows(), tables.samples()), (16, 4));
        assert_eq!(tables.takers, [(4, 2), (1, 0), (0, 0)]);
        let row = |at: usize| [0, 1, 2].map(|field| word(&tables.rows, 4 * at + field));
        assert_eq!(row(0), [Row::NEWEST, 100, 4]);
        assert_eq!(row(1), [Row::NEWEST, 9, 1]);
        assert_eq!((row(2), row(4)), ([5, 30, 2], [7, 32, 2]));
        assert_eq!((row(5), row(8)), ([8, 0, 0], [11, 3, 0]));
        assert!((9..16).all(|at| row(at) == [0, 0, Row::IDLE]));
        let sample = |at: usize| [0, 1].map(|field| word(&tables.samples, Sample::BYTES / 4 * at + field));
        assert_eq!([sample(0), sample(1), sample(2)], [[0, 4], [1, 1], [8, 0]]);
        assert_eq!(sample(3)[1], Row::IDLE);
    }

    #[test]
    fn a_step_without_samples_has_none_of_padding() {
        let mut tables = Tables::new();
        tables.prefill(0, 0, &[1; 300], None);
        tables.pad();
        assert_eq!((tables.rows(), tables.samples()), (320, 0));
    }
}
