//! `moac serve`: an OpenAI-compatible server on the engine.

mod offer;
mod settings;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use moac_compiler::{env, lower};
use moac_model::gpu::GpuRunner;
use moac_model::{CpuOptions, CpuRunner, Engine, EngineOptions, ModelFiles};
use moac_runtime::gpu;
use moac_server::{Options, Served, serve};

use self::offer::Offer;
use self::settings::Settings;
use super::generate::{Chosen, Device};
use super::gpu as models;
use super::{Context, ExitStatus};
use crate::error::Error;

/// Seed of weights that are made.
const SEED: u64 = 0;
/// Answers that are written at once where nothing else is asked for.
const CPU_LANES: u32 = 8;
const GPU_LANES: u32 = 64;
/// Tokens of prompts in a step of a GPU: as long as a step of many answers takes, so that those wait for twice the time of
/// one at most.
const GPU_CHUNK: u32 = 256;

/// Serve a model to clients of OpenAI's protocol: completions and chat, streamed or not
///
/// Every setting can also be a variable, as MOAC_SERVE_KV_BYTES for --kv-bytes, or a key of the file of --config, as `kv-bytes`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    settings: Settings,
    /// A TOML file of settings; flags and variables override it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Say what would be served, and end; the weights are not read
    #[arg(long)]
    dry_run: bool,
    /// Say it as JSON
    #[arg(long, requires = "dry_run")]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Result<ExitStatus, Error> {
    let settings = args.settings.clone().with_other_places(args.config.as_deref())?;
    let path = settings.model.as_deref().ok_or(Error::NoModel)?;
    let files = match settings.random_weights {
        Some(true) => ModelFiles::random(path, SEED)?,
        _ => ModelFiles::open(path)?,
    };
    let model = Model::new(&settings, path, &files, context)?;
    if args.dry_run {
        let offer = model.offer()?;
        if args.json {
            context.json(&offer)?;
        } else {
            context.print(offer.text())?;
        }
        return Ok(ExitStatus::Done);
    }
    let options = options(&settings)?;
    let host = settings.host.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    if !host.is_loopback() && options.api_key.is_none() {
        let name = env::API_KEY.name;
        context.note(format!("{name} is not set: anyone who can reach {host} can use this server"));
    }
    let served = Served {
        name: model.name.clone(),
        plan: model.chosen.plan.clone(),
        engine: model.engine()?,
        tokenizer: files.tokenizer.clone(),
        template: files.template.clone(),
        stop_tokens: files.checkpoint.config().eos.clone(),
        dense_bytes: model.dense_bytes(),
    };
    let address = SocketAddr::new(host, settings.port.unwrap_or(8000)).to_string();
    serve(&address, served, options, |address| {
        context.note(format!("serving {} on http://{address}/v1", model.name));
    })?;
    Ok(ExitStatus::Done)
}

/// The server's limits.
fn options(settings: &Settings) -> Result<Options, Error> {
    let defaults = Options::default();
    Ok(Options {
        api_key: settings.api_key()?,
        body_bytes: settings.body_bytes.map_or(defaults.body_bytes, |bytes| bytes as usize),
        connections: settings.connections.unwrap_or(defaults.connections),
        prompts: settings.prompts.unwrap_or(defaults.prompts),
        time: settings.timeout.map_or(defaults.time, Duration::from_secs),
        stall: settings.stall.map_or(defaults.stall, Duration::from_secs),
        chat_tokens: settings.chat_tokens.unwrap_or(defaults.chat_tokens),
    })
}

/// A model whose weights are not read yet, and what it is to run under.
struct Model<'a> {
    settings: &'a Settings,
    path: &'a Path,
    files: &'a ModelFiles,
    context: &'a Context,
    name: String,
    chosen: Chosen,
    lengths: Vec<u32>,
    device: Device,
}

impl<'a> Model<'a> {
    fn new(
        settings: &'a Settings,
        path: &'a Path,
        files: &'a ModelFiles,
        context: &'a Context,
    ) -> Result<Self, Error> {
        let chosen = Chosen::read(settings.plan.as_ref(), settings.artifact.as_ref(), files)?;
        let lengths = match (&chosen.lengths, &settings.lengths, &settings.artifact) {
            (Some(_), Some(_), Some(path)) => {
                return Err(Error::Fixed { flag: "--lengths", path: path.clone() });
            }
            (Some(lengths), ..) => lengths.clone(),
            (None, asked, _) => {
                let lengths = lower::buckets(&chosen.plan, asked.as_deref().unwrap_or_default())?;
                for note in &lengths.notes {
                    context.note(note);
                }
                lengths.buckets
            }
        };
        let stem = if path.is_dir() { path.file_name() } else { path.file_stem() };
        let stem = || Some(stem?.to_string_lossy().into_owned());
        let name = settings.name.clone().or_else(stem);
        let name = name.unwrap_or_else(|| files.checkpoint.config().name.clone());
        let present = || if models::present() { Device::Gpu } else { Device::Cpu };
        let device = settings.device.unwrap_or_else(present);
        if device == Device::Gpu && settings.deterministic == Some(true) {
            return Err(Error::DeterministicGpu);
        }
        Ok(Self { settings, path, files, context, name, chosen, lengths, device })
    }

    fn cpu_options(&self) -> CpuOptions {
        CpuOptions {
            lanes: self.settings.lanes.unwrap_or(CPU_LANES),
            slab_bytes: self.settings.kv_bytes,
            deterministic: self.settings.deterministic.unwrap_or(false),
        }
    }

    fn gpu_options(&self) -> moac_model::gpu::Options {
        let lanes = self.settings.lanes.unwrap_or(GPU_LANES);
        let chunk = self.settings.chunk.unwrap_or(GPU_CHUNK);
        models::options(lanes, lanes + chunk, self.settings.kv_bytes)
    }

    /// Bytes that a token takes in a cache of all tokens.
    fn dense_bytes(&self) -> u64 {
        let shape = &self.chosen.plan.model;
        // Artifacts are compiled for elements of two bytes, whichever type they have.
        let element = match self.device {
            Device::Cpu => 4,
            Device::Gpu => 2,
        };
        [shape.num_layers, shape.num_kv_heads, shape.head_dim, 2 * element]
            .into_iter()
            .map(u64::from)
            .product()
    }

    /// Hands the artifact, compiled if it has to be, and the device to `act`.
    fn on_gpu<T>(
        &self,
        act: impl FnOnce(&moac_runtime::artifact::Artifact, &gpu::Device) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let device = gpu::Device::open(0)?;
        if let Some(artifact) = &self.chosen.artifact {
            return act(artifact, &device);
        }
        act(&models::compile(&self.chosen.plan, self.path, &self.lengths, &device, self.context)?, &device)
    }

    fn offer(&self) -> Result<Offer, Error> {
        let (plan, config) = (&self.chosen.plan, self.files.checkpoint.config());
        match self.device {
            Device::Cpu => {
                let limits = CpuRunner::predict(config, plan, &self.lengths, &self.cpu_options())?;
                Ok(Offer::new(&self.name, plan, "cpu, float32".to_owned(), self.dense_bytes(), &limits, None))
            }
            Device::Gpu => self.on_gpu(|artifact, device| {
                let (loaded, stream) = (artifact.load(device)?, device.new_stream()?);
                let (limits, memory) = GpuRunner::predict(&loaded, &stream, config, &self.gpu_options())?;
                let dtype = loaded.dtype();
                let what = format!("gpu, {dtype}: {}", device.info().name);
                Ok(Offer::new(&self.name, plan, what, self.dense_bytes(), &limits, Some(memory)))
            }),
        }
    }

    /// Reads the weights.
    fn engine(&self) -> Result<Engine, Error> {
        let (settings, defaults) = (self.settings, EngineOptions::default());
        let chunk = match self.device {
            Device::Cpu => defaults.chunk,
            Device::Gpu => GPU_CHUNK,
        };
        let options = EngineOptions {
            queue: settings.queue.unwrap_or(defaults.queue),
            chunk: settings.chunk.unwrap_or(chunk),
            keep_bytes: settings.keep_bytes.unwrap_or(defaults.keep_bytes),
            keep_for: settings.keep_seconds.map_or(defaults.keep_for, Duration::from_secs),
        };
        match self.device {
            Device::Cpu => {
                let decoder = self.files.decoder(&mut |_, _| ())?;
                let runner = CpuRunner::new(decoder, &self.chosen.plan, &self.lengths, &self.cpu_options())?;
                Ok(Engine::start(runner, Some(self.files.tokenizer.clone()), options)?)
            }
            Device::Gpu => self.on_gpu(|artifact, device| {
                models::engine(self.files, artifact, device, &self.gpu_options(), options)
            }),
        }
    }
}
