//! `moac exec`: one layer on the caller's tensors.

use std::path::PathBuf;

use moac_runtime::launch::Phase;

/// Run one layer on tensors of your own
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The artifact
    pub file: PathBuf,
    /// The layer
    #[arg(long, value_name = "L")]
    pub layer: u32,
    /// What to compute
    #[arg(long, value_name = "prefill|decode", value_parser = parse_phase)]
    pub phase: Phase,
    /// safetensors with q [B,T,H,D], k and v [B,T,G,D], and optionally lengths [B] (i32)
    #[arg(long, value_name = "IN.safetensors")]
    pub inputs: PathBuf,
    /// safetensors to write: o and lse
    #[arg(long, value_name = "OUT.safetensors")]
    pub outputs: PathBuf,
    /// Decode: positions to prefill first
    #[arg(long, value_name = "P")]
    pub prompt: Option<u32>,
    /// Prefill in chunks of this many tokens
    #[arg(long, value_name = "C")]
    pub chunk: Option<std::num::NonZeroU32>,
    /// Bucket of every row [default: the smallest that holds the row's length]
    #[arg(long, value_name = "N")]
    pub bucket: Option<u32>,
    /// What to run on; never another silently
    #[arg(long, value_enum, default_value = "gpu")]
    pub device: Device,
    /// Convert the inputs to the artifact's element type
    #[arg(long)]
    pub cast: bool,
}

/// What a layer runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Device {
    /// The GPU
    Gpu,
    /// The float32 CPU path
    Cpu,
    /// The PTX emulator
    Emulator,
}

fn parse_phase(text: &str) -> Result<Phase, String> {
    [Phase::Prefill, Phase::Decode]
        .into_iter()
        .find(|phase| phase.name() == text)
        .ok_or_else(|| format!("`{text}` is no phase: expected prefill or decode"))
}
