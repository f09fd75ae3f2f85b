//! Prints a model's loss on a text and its answer to a prompt, on the GPU or, with `--cpu`, on the CPU under the same plan.
//!
//! `cargo run --release -p moac-model --features gpu --example gpu -- MODEL FILE.moac TEXT TOKENS [--cpu]`
//!
//! The artifact must hold the engine's kernels for the model. A JSON object a line: the mean loss, then each prompt's likeliest
//! tokens, each with how much likelier it is than the next one.

use std::error::Error;
use std::path::Path;

use moac_model::engine::runner::{Choice, Decode, Prefill, Runner};
use moac_model::gpu::{GpuRunner, GpuWeights, Options};
use moac_model::{Batch, Cache, Checkpoint, Message, Model, Sampling};
use moac_runtime::artifact::Artifact;
use moac_runtime::gpu::Device;
use serde_json::json;

const PROMPTS: [&str; 10] = [
    "What is the capital of France?",
    "Write a short poem about the sea.",
    "List three prime numbers.",
    "Explain photosynthesis in one sentence.",
    "Who wrote Romeo and Juliet?",
    "Translate 'good morning' to Spanish.",
    "What is 12 times 12?",
    "Name a mammal that can fly.",
    "Give me a recipe for pancakes.",
    "Why is the sky blue?",
];
const ANSWER: usize = 64;

type Answer = Vec<(u32, f32)>;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, artifact, text, tokens, rest @ ..] = args.as_slice() else {
        return Err("usage: gpu MODEL FILE.moac TEXT TOKENS [--cpu]".into());
    };
    let path = Path::new(model);
    let model = Model::open(path)?;
    let artifact = Artifact::open(artifact)?;
    let text: String = std::fs::read_to_string(text)?.chars().take(80_000).collect();
    let mut tokens: Vec<u32> = {
        let all = model.tokenizer.encode(&text)?;
        all[..tokens.parse::<usize>()?.min(all.len())].to_vec()
    };
    tokens.truncate(artifact.geometry().lengths.last().map_or(0, |&length| length as usize));
    let prompts = PROMPTS.map(|prompt| model.chat(&[Message::new("user", prompt)]));
    let prompts = prompts.into_iter().collect::<Result<Vec<_>, _>>()?;
    let (losses, answers) = if rest.first().is_some_and(|flag| flag == "--cpu") {
        cpu(&model, &artifact, &tokens, &prompts)?
    } else {
        gpu(path, &artifact, &tokens, &prompts)?
    };
    let mean = losses.iter().map(|&loss| f64::from(loss)).sum::<f64>() / losses.len() as f64;
    println!(
        "{}",
        json!({"tokens": losses.len(), "mean_loss": mean, "first": &losses[..8.min(losses.len())]})
    );
    for (prompt, answer) in PROMPTS.iter().zip(answers) {
        let (tokens, margins): (Vec<u32>, Vec<f32>) = answer.into_iter().unzip();
        println!("{}", json!({"prompt": prompt, "tokens": tokens, "margins": margins}));
    }
    Ok(())
}

fn gpu(
    model: &Path,
    artifact: &Artifact,
    tokens: &[u32],
    prompts: &[Vec<u32>],
) -> Result<(Vec<f32>, Vec<Answer>), Box<dyn Error>> {
    let device = Device::open(0)?;
    let stream = device.new_stream()?;
    let loaded = artifact.load(&device)?;
    let weights =
        GpuWeights::read(&device, &stream, loaded.dtype(), &Checkpoint::open(model)?, &mut |_, _| ())?;
    let options =
        Options { lanes: prompts.len() as u32, rows: 1024, slab_bytes: Some(2 << 30), folder: None };
    let mut runner = GpuRunner::new(&loaded, stream, weights, &options)?;
    let losses = runner.losses(tokens)?;

    // All prompts in one step, then all answers together, tokens read one step behind.
    let greedy = Sampling::greedy();
    let choice = |counter| Choice { sampling: &greedy, counter, top_logprobs: 2 };
    let mut slabs = Vec::new();
    for (lane, prompt) in (0..).zip(prompts) {
        let length = (prompt.len() + ANSWER) as u32;
        slabs.push(runner.slab(length)?.ok_or("no room for a slab")?);
        runner.reset(lane, &[])?;
    }
    let mut chunks: Vec<_> = (0..)
        .zip(&mut slabs)
        .zip(prompts)
        .map(|((lane, slab), tokens)| Prefill { lane, slab, tokens, choice: Some(choice(0)) })
        .collect();
    runner.start(&mut [], &mut chunks)?;
    let mut answers = vec![Answer::new(); prompts.len()];
    let mut keep = |chosen: Vec<moac_model::engine::runner::Chosen>| {
        for one in chosen {
            answers[one.lane as usize].push((one.outcome.token, one.top[0].1 - one.top[1].1));
        }
    };
    for counter in 1..ANSWER as u32 {
        let mut decodes: Vec<_> = (0..)
            .zip(&mut slabs)
            .map(|(lane, slab)| Decode { lane, slab, choice: choice(counter) })
            .collect();
        runner.start(&mut decodes, &mut [])?;
        keep(runner.finish()?);
    }
    keep(runner.finish()?);
    Ok((losses, answers))
}

fn cpu(
    model: &Model,
    artifact: &Artifact,
    tokens: &[u32],
    prompts: &[Vec<u32>],
) -> Result<(Vec<f32>, Vec<Answer>), Box<dyn Error>> {
    let (plan, lengths) = (&artifact.manifest().plan, &artifact.geometry().lengths);
    let length = |tokens: usize| lengths.iter().copied().find(|&length| length as usize >= tokens);
    let cache = |tokens: usize| Cache::new(plan, length(tokens).unwrap_or_default());
    let log_softmax = |row: &[f32]| {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|&logit| f64::from(logit - largest).exp()).sum();
        (largest, sum.ln())
    };
    let mut whole = cache(tokens.len())?;
    let mut losses = Vec::new();
    for (chunk, start) in tokens.chunks(512).zip((0..).step_by(512)) {
        let hidden = model.decoder.forward(chunk, &mut Batch::one(&mut whole, chunk.len()))?;
        let logits = model.decoder.logits(&hidden)?.to_vec2::<f32>()?;
        for (row, target) in logits.iter().zip(&tokens[start + 1..]) {
            let (largest, log_sum) = log_softmax(row);
            losses.push((log_sum - f64::from(row[*target as usize] - largest)) as f32);
        }
    }
    let mut answers = Vec::new();
    for prompt in prompts {
        let mut cache = cache(prompt.len() + ANSWER)?;
        let mut next = prompt.clone();
        let mut answer = Answer::new();
        while answer.len() < ANSWER {
            let hidden = model.decoder.forward(&next, &mut Batch::one(&mut cache, next.len()))?;
            let rows = hidden.dim(0)?;
            let row =
                model.decoder.logits(&hidden.narrow(0, rows - 1, 1)?)?.flatten_all()?.to_vec1::<f32>()?;
            let mut order: Vec<u32> = (0..row.len() as u32).collect();
            order.sort_by(|&a, &b| row[b as usize].total_cmp(&row[a as usize]).then(a.cmp(&b)));
            answer.push((order[0], row[order[0] as usize] - row[order[1] as usize]));
            next = vec![order[0]];
        }
        answers.push(answer);
    }
    Ok((losses, answers))
}
