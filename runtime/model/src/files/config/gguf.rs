//! The configuration in a GGUF file's metadata.
//!
//! Keys are named after the architecture. An unknown one may change the computation, so it is refused unless
//! it says nothing (0, false or empty).

use super::{
    Config, Family, MAX_LAYERS, MAX_TOKENS, MAX_WIDTH, ROPE_DIVISORS, Rope, RopeScaling, missing, name,
    scales, unsupported, within,
};
use crate::files::gguf::Gguf;
use crate::{ModelError, TensorProblem};

/// Keys that are read below.
const READ: [&str; 18] = [
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "vocab_size",
    "attention.causal",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.attn_factor",
    "rope.scaling.factor",
    "rope.scaling.type",
];

/// Keys that change nothing here: of other kinds of norm, of how the file was made, of scalings that are refused anyway.
const HARMLESS: [&str; 4] = [
    "attention.layer_norm_epsilon",
    "rope.scaling.finetuned",
    "rope.scaling.original_context_length",
    "tensor_data_layout",
];

impl Config {
    /// Reads the metadata of a GGUF file.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, ModelError> {
        Reader::new(gguf)?.read()
    }
}

struct Reader<'a> {
    gguf: &'a Gguf,
    arch: &'a str,
    family: Family,
}

impl<'a> Reader<'a> {
    fn new(gguf: &'a Gguf) -> Result<Self, ModelError> {
        let path = gguf.path();
        if let Some(kind) = gguf.text("general.type")?.filter(|&kind| kind != "model") {
            return Err(unsupported(path, format!("`general.type` {kind}")));
        }
        let arch = gguf.text("general.architecture")?.unwrap_or("missing");
        // Converters write Mistral as llama.
        match Family::of(arch).filter(|&family| family != Family::Mistral) {
            Some(family) => Ok(Self { gguf, arch, family }),
            None => Err(unsupported(path, format!("`general.architecture` {arch}"))),
        }
    }

    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.arch)
    }

    fn unsupported(&self, key: &str, found: impl std::fmt::Display) -> ModelError {
        unsupported(self.gguf.path(), format!("`{}` {found}", self.key(key)))
    }

    fn size(&self, key: &str) -> Result<Option<usize>, ModelError> {
        let max = match key {
            "block_count" => MAX_LAYERS,
            "vocab_size" | "context_length" => MAX_TOKENS,
            _ => MAX_WIDTH,
        };
        let key = self.key(key);
        self.gguf.unsigned(&key)?.map(|value| within(self.gguf.path(), &key, value, max)).transpose()
    }

    fn need(&self, key: &str) -> Result<usize, ModelError> {
        self.size(key)?.ok_or_else(|| missing(self.gguf.path(), &self.key(key)))
    }

    fn number(&self, key: &str) -> Result<Option<f64>, ModelError> {
        self.gguf.number(&self.key(key))
    }

    fn read(self) -> Result<Config, ModelError> {
        let Self { gguf, arch, family } = self;
        let path = gguf.path();
        self.refuse_unknown()?;
        let num_heads = self.need("attention.head_count")?;
        let hidden_size = self.need("embedding_length")?;
        let head_dim = match self.size("attention.key_length")? {
            Some(dim) => dim,
            None => hidden_size / num_heads,
        };
        for key in ["rope.dimension_count", "attention.value_length"] {
            if let Some(found) = self.size(key)?.filter(|&found| found != head_dim) {
                return Err(self.unsupported(key, format!("{found} of {head_dim}")));
            }
        }
        let context = self.need("context_length")?;
        // A window at least as long as the context hides nothing.
        let window = gguf.unsigned(&self.key("attention.sliding_window"))?.unwrap_or(0);
        if (1..context as u64).contains(&window) {
            return Err(self.unsupported("attention.sliding_window", window));
        }
        if gguf.flag(&self.key("attention.causal"))? == Some(false) {
            return Err(self.unsupported("attention.causal", "false"));
        }
        let vocab_size = match self.size("vocab_size")? {
            Some(size) => size,
            None => gguf
                .texts("tokenizer.ggml.tokens")?
                .ok_or_else(|| missing(path, &self.key("vocab_size")))
                .and_then(|tokens| within(path, "tokenizer.ggml.tokens", tokens.len() as u64, MAX_TOKENS))?,
        };
        let id = |key: &str| gguf.unsigned(&format!("tokenizer.ggml.{key}_token_id"));
        let mut eos: Vec<u32> = Vec::new();
        for key in ["eos", "eot"] {
            eos.extend(id(key)?.and_then(|id| u32::try_from(id).ok()));
        }
        let epsilon = "attention.layer_norm_rms_epsilon";
        let config = Config {
            name: name::of_gguf(gguf.text("general.name")?.unwrap_or_default(), arch, path),
            vocab_size,
            hidden_size,
            intermediate_size: self.need("feed_forward_length")?,
            num_layers: self.need("block_count")?,
            num_heads,
            num_kv_heads: self.size("attention.head_count_kv")?.unwrap_or(num_heads),
            head_dim,
            norm_eps: self.number(epsilon)?.ok_or_else(|| missing(path, &self.key(epsilon)))? as f32,
            context,
            rope: Rope {
                theta: self.number("rope.freq_base")?.unwrap_or(10_000.0),
                scaling: self.scaling(head_dim)?,
            },
            qkv_bias: family == Family::Qwen2,
            qk_norm: family == Family::Qwen3,
            tied_embeddings: !gguf.has_tensor("output.weight"),
            bos: id("bos")?.and_then(|id| u32::try_from(id).ok()),
            eos,
        };
        config.check(path)
    }

    /// How the rotary embedding is scaled. A factor without a type means the linear one, as in llama.cpp; 0 means none.
    fn scaling(&self, head_dim: usize) -> Result<RopeScaling, ModelError> {
        let gguf = self.gguf;
        let kind = gguf.text(&self.key("rope.scaling.type"))?;
        // Files of before the type had a key say only by how much.
        let factor = match self.number("rope.scaling.factor")? {
            Some(factor) => Some(factor),
            None => self.number("rope.scale_linear")?,
        };
        let factor = factor.filter(|&factor| factor != 0.0);
        let attention = self.number("rope.scaling.attn_factor")?.filter(|&factor| factor != 0.0);
        if scales(attention) {
            return Err(self.unsupported("rope.scaling.attn_factor", attention.unwrap_or_default()));
        }
        let factor = match kind {
            Some("none") => 1.0,
            Some("linear") | None => factor.unwrap_or(1.0),
            Some(other) => return Err(self.unsupported("rope.scaling.type", other)),
        };
        let scaled = scales(Some(factor));
        if !gguf.has_tensor(ROPE_DIVISORS) {
            return Ok(if scaled { RopeScaling::Linear { factor } } else { RopeScaling::None });
        }
        if scaled {
            let beside = format!("{factor} beside the tensor `{ROPE_DIVISORS}`");
            return Err(self.unsupported("rope.scaling.factor", beside));
        }
        let tensor = gguf.tensor(ROPE_DIVISORS, &[head_dim / 2])?;
        let divisors = tensor.read()?;
        if divisors.contains(&0.0) {
            return Err(tensor.error(TensorProblem::NotFinite));
        }
        Ok(RopeScaling::Divisors(divisors))
    }

    fn refuse_unknown(&self) -> Result<(), ModelError> {
        for key in self.gguf.keys() {
            let Some(own) = key.strip_prefix(self.arch).and_then(|key| key.strip_prefix('.')) else {
                continue;
            };
            if !READ.contains(&own) && !HARMLESS.contains(&own) && !self.gguf.is_unset(key) {
                return Err(unsupported(self.gguf.path(), format!("`{key}`")));
            }
        }
        Ok(())
    }
}

impl Gguf {
    /// Whether the rows of q and k are stored with their rotary pairs side by side, as converters do it for Llama alone.
    pub(crate) fn interleaves_rotary_rows(&self) -> bool {
        matches!(self.text("general.architecture"), Ok(Some("llama")))
    }
}
