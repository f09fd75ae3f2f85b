//! Random choices, determined by a seed.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use sha2::{Digest as _, Sha256};

/// A stream of choices: the same names give the same choices, on every machine.
#[derive(Clone, Debug)]
pub struct Random(ChaCha8Rng);

impl Random {
    /// The stream of a seed and of the names of its purpose.
    pub fn new(seed: u64, names: &[&str]) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(seed.to_le_bytes());
        for name in names {
            hasher.update((name.len() as u64).to_le_bytes());
            hasher.update(name);
        }
        Self(ChaCha8Rng::from_seed(hasher.finalize().into()))
    }

    /// A number in `0..n`; 0 where `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.0.next_u64()) * n as u128) >> 64) as usize
    }

    /// A number in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// `n` different numbers of `0..of`, in random order; all of them where there are fewer.
    pub fn distinct(&mut self, n: usize, of: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..of).collect();
        for at in 0..n.min(of) {
            let other = at + self.below(of - at);
            all.swap(at, other);
        }
        all.truncate(n);
        all
    }
}
