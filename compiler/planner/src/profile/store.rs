//! The sums of single items, saved by content: an item is profiled only once.
//!
//! A file `<sha256 of the key>.safetensors` holds one F32 tensor `sums`, `[parts, heads of all layers, n (n + 1) / 2]`, the
//! lower triangle of the item's n blocks row by row, and in its metadata the key, the item's loss and a
//! digest of loss and sums. Ablations are JSON.
//! The key consists of the model's files, the item's tokens and answer, the pass, and, for ablations, the item's
//! length, which determines their windows. Files are written whole or not at all and hold a digest of their content;
//! a damaged file is made again.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use moac_model::Decoder;
use moac_runtime::digest::Digest;
use moac_runtime::file;
use moac_runtime::plan::TILE;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::ProfileError;
use super::ablation::{self, ItemAblation};
use super::measure::{Pass, Targets};
use super::sums::{ItemInfluence, PARTS, triangle};
use crate::items::Item;
use crate::kept::Folder;

/// The version of the computation and of its layout. Raised when either changes: older files are then ignored.
const FORMAT: &str = "moac.item-influence/2";
/// The same of ablations.
const ABLATION_FORMAT: &str = "moac.item-ablation/1";

/// A folder of items' sums for one model.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
    model: Digest,
}

/// The result for one item.
#[derive(Clone, Debug)]
pub enum Kept {
    /// By a reverse pass.
    Influence(Box<ItemInfluence>),
    /// By ablation.
    Ablation(ItemAblation),
}

impl Kept {
    /// The mean loss in nats of the targets.
    pub fn loss(&self) -> f64 {
        match self {
            Self::Influence(influence) => influence.loss,
            Self::Ablation(ablation) => ablation.loss,
        }
    }

    /// Whether all of it is numbers.
    pub fn is_finite(&self) -> bool {
        match self {
            Self::Influence(influence) => influence.is_finite(),
            Self::Ablation(ablation) => ablation.is_finite(),
        }
    }
}

impl Store {
    /// One in `folder`, which is made when something is stored, for the model whose files have this digest.
    pub fn new(folder: &Path, model: Digest) -> Self {
        Self { folder: folder.to_owned(), model }
    }

    fn key(&self, item: &Item, pass: Pass) -> Digest {
        let tokens: Vec<u8> = item.tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
        let (model, answer) = (self.model.to_string(), item.answer.to_string());
        let (format, of) = match pass {
            Pass::Reverse(Targets::Answer) => (FORMAT, "answer".to_owned()),
            Pass::Reverse(Targets::Drawn) => (FORMAT, "drawn".to_owned()),
            Pass::Ablation => (ABLATION_FORMAT, format!("ablation at {}", item.length)),
        };
        let texts = [format, &model, &answer, &of].map(str::as_bytes);
        let [format, model, answer, of] = texts;
        Digest::of_fields([format, model, &tokens, answer, of])
    }

    /// The key that an item's file name is derived from.
    pub(super) fn seed(&self, item: &Item) -> u64 {
        let key = self.key(item, Pass::Reverse(Targets::Drawn)).to_string();
        key.get(..16).and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or_default()
    }

    /// Where what a pass makes of an item is, or would be.
    pub fn path(&self, item: &Item, pass: Pass) -> PathBuf {
        let key = self.key(item, pass);
        match pass {
            Pass::Reverse(_) => self.folder.join(format!("{key}.safetensors")),
            Pass::Ablation => Folder::new(&self.folder).path(key),
        }
    }

    /// Keeps what a pass made of an item.
    pub fn save(&self, decoder: &Decoder, item: &Item, pass: Pass, made: &Kept) -> Result<(), ProfileError> {
        let path = self.path(item, pass);
        let failed = |source| ProfileError::File { action: "write", path: path.clone(), source };
        std::fs::create_dir_all(&self.folder).map_err(failed)?;
        let influence = match made {
            Kept::Influence(influence) => influence,
            Kept::Ablation(ablation) => {
                return Folder::new(&self.folder).save(self.key(item, pass), ablation).map_err(failed);
            }
        };
        let bytes: Vec<u8> = influence.values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let heads = decoder.config().num_layers * decoder.config().num_heads;
        let shape = vec![PARTS, heads, triangle(influence.blocks)];
        let metadata = HashMap::from([("moac".to_owned(), self.mark(item, pass, influence.loss, &bytes))]);
        let file = TensorView::new(Dtype::F32, shape, &bytes)
            .and_then(|view| safetensors::serialize([("sums", view)], Some(metadata)))
            .map_err(|error| failed(std::io::Error::other(error)))?;
        file::write(&path, &file).map_err(failed)
    }

    /// The metadata of sums: the key, the loss, and the digest of loss and sums.
    fn mark(&self, item: &Item, pass: Pass, loss: f64, sums: &[u8]) -> String {
        let loss = format!("{:016x}", loss.to_bits());
        let digest = Digest::of_fields([loss.as_bytes(), sums]);
        format!("{FORMAT} {} {digest} {loss}", self.key(item, pass))
    }

    /// The saved result of a pass over an item, if it exists and is whole.
    pub fn load(&self, decoder: &Decoder, item: &Item, pass: Pass) -> Option<Kept> {
        if pass == Pass::Ablation {
            let config = decoder.config();
            let windows = ablation::windows(item.length.div_ceil(TILE) as usize).len();
            let ablation: ItemAblation = Folder::new(&self.folder).load(self.key(item, pass))?;
            let whole = ablation.is_finite()
                && ablation.more.len() == config.num_layers * config.num_kv_heads
                && ablation.more.iter().all(|more| more.len() == windows);
            return whole.then_some(Kept::Ablation(ablation));
        }
        let file = std::fs::read(self.path(item, pass)).ok()?;
        let (_, metadata) = SafeTensors::read_metadata(&file).ok()?;
        let tensors = SafeTensors::deserialize(&file).ok()?;
        let sums = tensors.tensor("sums").ok()?;
        let text = metadata.metadata().as_ref()?.get("moac")?;
        let loss = f64::from_bits(u64::from_str_radix(text.rsplit(' ').next()?, 16).ok()?);
        if *text != self.mark(item, pass, loss, sums.data()) {
            return None;
        }
        let mut influence = ItemInfluence::new(decoder.config(), item, loss);
        let values = sums.data().as_chunks::<4>().0;
        if sums.dtype() != Dtype::F32 || values.len() != influence.values.len() {
            return None;
        }
        for (to, bytes) in influence.values.iter_mut().zip(values) {
            *to = f32::from_le_bytes(*bytes);
        }
        influence.is_finite().then(|| Kept::Influence(Box::new(influence)))
    }
}
