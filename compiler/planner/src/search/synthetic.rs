//! Synthetic influence with the properties of measured influence, for tests and benchmarks.
//!
//! Each head is of one kind, drawn with its parameters from a seed:
//! - *local* (55%): influence falls as `exp(-distance / reach)`, reach log-normal around 200 tokens;
//! - *broad* (25%): a power law, `(distance + 64)^-p` with p in 0.8..2;
//! - *elastic* (12%): `exp(-distance / (c N))`, a reach that grows with the length, c in 0.02..0.5;
//! - *retrieval* (8%): even over all distances.
//!
//! Every row's influence sums to the head's size, which is log-normal by head (sigma 1.2) and by layer (sigma 0.8),
//! so that a few heads hold most of the loss, as in real models; each block is then scaled by noise in 0.7..1.3.
//! Half of the query heads of a KV head are of the group's own kind, as GQA training makes them alike.

use moac_runtime::plan::{ModelShape, TILE};

use super::influence::{HeadInfluence, Influence, LengthInfluence};

/// A shape with head dimension 128.
pub fn shape(name: &str, layers: u32, heads: u32, kv_heads: u32) -> ModelShape {
    ModelShape {
        name: name.to_owned(),
        num_layers: layers,
        num_heads: heads,
        num_kv_heads: kv_heads,
        head_dim: 128,
        rope_theta: None,
        context: None,
        softmax_scale: None,
    }
}

/// `SplitMix64`: a seeded stream of numbers.
#[derive(Clone, Debug)]
pub struct Stream(u64);

impl Stream {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Even in `0..1`.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Even in `from..to`.
    pub fn between(&mut self, from: f64, to: f64) -> f64 {
        (to - from).mul_add(self.unit(), from)
    }

    /// Log-normal around `median`.
    pub fn log_normal(&mut self, median: f64, sigma: f64) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        median * (sigma * radius * (std::f64::consts::TAU * self.unit()).cos()).exp()
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Local { reach: f64 },
    Broad { power: f64 },
    Elastic { share: f64 },
    Retrieval,
}

impl Kind {
    fn draw(stream: &mut Stream) -> Self {
        match stream.unit() {
            u if u < 0.55 => Self::Local { reach: stream.log_normal(200.0, 1.0) },
            u if u < 0.80 => Self::Broad { power: stream.between(0.8, 2.0) },
            u if u < 0.92 => Self::Elastic { share: stream.between(0.02, 0.5) },
            _ => Self::Retrieval,
        }
    }

    fn weight(self, distance: f64, length: f64) -> f64 {
        match self {
            Self::Local { reach } => (-distance / reach).exp(),
            Self::Broad { power } => (distance + 64.0).powf(-power),
            Self::Elastic { share } => (-distance / (share * length)).exp(),
            Self::Retrieval => 1.0,
        }
    }
}

/// A made-up model's heads.
#[derive(Clone, Debug)]
pub struct Synthetic {
    model: ModelShape,
    seed: u64,
    heads: Vec<(Kind, f64)>,
}

impl Synthetic {
    /// Draws the heads of `model` from `seed`.
    pub fn new(model: ModelShape, seed: u64) -> Self {
        let mut stream = Stream::new(seed);
        let mut heads = Vec::new();
        for _ in 0..model.num_layers {
            let layer = stream.log_normal(1.0, 0.8);
            for _ in 0..model.num_kv_heads {
                let common = Kind::draw(&mut stream);
                for _ in 0..model.group_size() {
                    let own = Kind::draw(&mut stream);
                    let kind = if stream.unit() < 0.5 { common } else { own };
                    heads.push((kind, layer * stream.log_normal(1e-3, 1.2)));
                }
            }
        }
        Self { model, seed, heads }
    }

    /// The model.
    pub fn model(&self) -> &ModelShape {
        &self.model
    }

    /// The far and near halves of one head at one length; see [`HeadInfluence`].
    pub fn head(&self, head: usize, length: u32) -> (Vec<f32>, Vec<f32>) {
        let n = (length / TILE) as usize;
        let (kind, size) = self.heads[head];
        let tile = f64::from(TILE);
        // The middle of the far and near halves of a block at each block distance, and how many pairs they hold.
        let far: Vec<f64> =
            (0..n).map(|d| 2080.0 * kind.weight((d as f64).mul_add(tile, 21.3), length.into())).collect();
        let near: Vec<f64> = (0..n)
            .map(|d| 2016.0 * kind.weight((d as f64).mul_add(tile, -21.3).max(0.0), length.into()))
            .collect();
        let mut stream = Stream::new(self.seed ^ (head as u64) << 32 ^ u64::from(length));
        let (mut fars, mut nears) = (vec![0.0; n * n], vec![0.0; n * n]);
        for query in 0..n {
            let row: f64 = far[..=query].iter().sum::<f64>() + near[1..=query].iter().sum::<f64>();
            let unit = size / (n as f64 * row);
            for key in 0..=query {
                let noise = stream.between(0.7, 1.3) * unit;
                fars[query * n + key] = (far[query - key] * noise) as f32;
                if key < query {
                    nears[query * n + key] = (near[query - key] * noise) as f32;
                }
            }
        }
        (fars, nears)
    }

    /// The losses of one head by window; see [`HeadInfluence::losses`].
    pub fn losses(&self, head: usize, length: u32, sink_blocks: usize) -> Vec<f64> {
        let (far, near) = self.head(head, length);
        HeadInfluence { blocks: (length / TILE) as usize, far: &far, near: &near }.losses(sink_blocks)
    }

    /// The whole influence at `lengths`.
    pub fn influence(&self, lengths: &[u32]) -> Influence {
        let at = |&length: &u32| {
            let mut at = LengthInfluence { length, items: 1, far: Vec::new(), near: Vec::new() };
            for head in 0..self.heads.len() {
                let (far, near) = self.head(head, length);
                at.far.extend(far);
                at.near.extend(near);
            }
            at
        };
        Influence {
            model: self.model.clone(),
            lengths: lengths.iter().map(at).collect(),
            seed: self.seed,
            absolute: true,
            windows: false,
            joint: false,
            data: Some(serde_json::json!("synthetic")),
        }
    }
}
