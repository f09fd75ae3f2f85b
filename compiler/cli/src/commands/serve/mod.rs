//! `moac serve`: an OpenAI-compatible server on the engine.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use moac_compiler::{env, lower};
use moac_model::{CpuOptions, CpuRunner, Engine, EngineOptions, ModelFiles};
use moac_server::{Options, Served, serve};

use super::generate::Chosen;
use super::{Context, ExitStatus};
use crate::error::Error;

/// Serve a model to clients of OpenAI's protocol: completions and chat, streamed or not
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model: a GGUF file, or a Hugging Face folder
    pub model: PathBuf,
    /// The plan [default: every head sees everything]
    #[arg(long, value_name = "PLAN", conflicts_with = "artifact")]
    plan: Option<PathBuf>,
    /// An artifact: its plan and its context lengths
    #[arg(long, value_name = "FILE")]
    artifact: Option<PathBuf>,
    /// Address to listen on; set MOAC_API_KEY before you listen on an address that others can reach
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    host: IpAddr,
    /// Port to listen on; 0 for any
    #[arg(long, value_name = "PORT", default_value_t = 8000)]
    port: u16,
    /// What clients call the model [default: the name of its file or folder]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Context lengths [default: the artifact's, or multiples of 1024 up to the model's context, at most 16384]
    #[arg(long, value_name = "TOKENS", value_delimiter = ',', conflicts_with = "artifact")]
    lengths: Vec<u32>,
    /// Answers that are written at once
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1024))]
    lanes: u32,
    /// Bytes for the caches of those, and for kept ones, as in 8GiB [default: the longest context in every lane]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    kv_bytes: Option<u64>,
    /// Requests that may wait; the server refuses more with status 429
    #[arg(long, value_name = "N", default_value_t = 1024)]
    queue: usize,
    /// Connections at once
    #[arg(long, value_name = "N", default_value_t = 1024)]
    connections: usize,
    /// Seconds that a request may take
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// The most tokens of a chat's answer where the client does not say
    #[arg(long, value_name = "TOKENS", default_value_t = 1024)]
    chat_tokens: u32,
    /// Say what would be served, and end
    #[arg(long)]
    dry_run: bool,
}

/// A number of bytes with a unit or without.
fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &text[digits.len()..] {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        other => return Err(format!("found the unit {other}, expected B, KiB, MiB or GiB")),
    };
    let number: u64 = digits.parse().map_err(|_| format!("found {digits:?}, expected a whole number"))?;
    number.checked_mul(unit).ok_or_else(|| "out of range: expected less than 2^64 bytes".to_owned())
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Result<ExitStatus, Error> {
    let files = ModelFiles::open(&args.model)?;
    let Chosen { plan, lengths, .. } = Chosen::read(args.plan.as_ref(), args.artifact.as_ref(), &files)?;
    let lengths = match lengths {
        Some(lengths) => lengths,
        None => lower::buckets(&plan, &args.lengths)?.buckets,
    };
    let cpu = CpuOptions { lanes: args.lanes, slab_bytes: args.kv_bytes, ..CpuOptions::default() };
    let options = EngineOptions { queue: args.queue, ..EngineOptions::default() };
    let runner = CpuRunner::new(files.decoder(&mut |_, _| ())?, &plan, &lengths, &cpu)?;
    let engine = Engine::start(runner, Some(files.tokenizer.clone()), options)?;
    let config = files.checkpoint.config();
    let stem = if args.model.is_dir() { args.model.file_name() } else { args.model.file_stem() };
    let name = args.name.clone().or_else(|| Some(stem?.to_string_lossy().into_owned()));
    let name = name.unwrap_or_else(|| config.name.clone());
    if args.dry_run {
        return describe(&name, &plan.model.name, &engine, context);
    }
    let options = Options {
        api_key: env::API_KEY.text(),
        connections: args.connections,
        time: Duration::from_secs(args.timeout),
        chat_tokens: args.chat_tokens,
        ..Options::default()
    };
    if !args.host.is_loopback() && options.api_key.is_none() {
        context.note(format!(
            "{} is not set: anyone who can reach {} can use this server",
            env::API_KEY.name,
            args.host
        ));
    }
    let served = Served {
        name: name.clone(),
        engine,
        tokenizer: files.tokenizer.clone(),
        template: files.template.clone(),
        stop_tokens: config.eos.clone(),
    };
    let address = std::net::SocketAddr::new(args.host, args.port).to_string();
    serve(&address, served, options, |address| {
        context.note(format!("serving {name} on http://{address}/v1"));
    })?;
    Ok(ExitStatus::Done)
}

/// Says what would be served.
fn describe(name: &str, plan: &str, engine: &Engine, context: &Context) -> Result<ExitStatus, Error> {
    let limits = engine.limits();
    context.print(format!("model       {name}, under a plan for {plan}"))?;
    context.print("device      cpu, float32")?;
    context.print(format!("caches      {} bytes", limits.slab_bytes))?;
    for bucket in &limits.buckets {
        let fit = limits.slab_bytes / bucket.slab_bytes;
        context.print(format!(
            "context     {} tokens: {} bytes, {} at once",
            bucket.length,
            bucket.slab_bytes,
            fit.min(limits.lanes.into())
        ))?;
    }
    Ok(ExitStatus::Done)
}
