//! The engine on the CPU path, with a tiny random model: the answer to a request does not depend on the other requests.

use std::sync::OnceLock;

use candle_core::quantized::GgmlDType;
use moac_runtime::plan::Plan;

use super::Heard;
use super::order::Random;
use crate::engine::job::{Job, Ticket};
use crate::engine::runner::{Choice, Runner as _};
use crate::engine::scheduler::Scheduler;
use crate::engine::{Answer, EngineOptions, Finish, Request, Sampling, Seen, choose};
use crate::tests::tiny::{gguf_file, vocabulary};
use crate::{Batch, Cache, CpuOptions, CpuRunner, Decoder, Model, TextStream, dense_plan};

pub(super) const LENGTHS: [u32; 2] = [128, 192];

pub(super) fn model() -> &'static Model {
    static MODEL: OnceLock<Model> = OnceLock::new();
    MODEL.get_or_init(|| {
        let (_folder, path) = gguf_file(GgmlDType::F32);
        let mut model = Model::open(&path).unwrap();
        // One layer is enough to depend on all that is in a cache.
        let (mut config, mut weights) = (model.decoder.config().clone(), model.decoder.weights().clone());
        config.num_layers = 1;
        weights.layers.truncate(1);
        model.decoder = Decoder::new(config, weights);
        model
    })
}

/// Heads that see all, and heads whose rings wrap in the larger bucket.
pub(super) fn plan() -> Plan {
    let mut plan = dense_plan(&model().decoder.config().shape());
    for (layer, (alphas, betas)) in plan.alphas.iter_mut().zip(&mut plan.betas).enumerate() {
        for (head, (alpha, beta)) in alphas.iter_mut().zip(betas).enumerate() {
            if (layer + head / 2) % 2 == 0 {
                (*alpha, *beta) = (128.0, 0.0);
            }
        }
    }
    plan
}

fn runner(lanes: u32, slab_bytes: Option<u64>, deterministic: bool) -> CpuRunner {
    let options = CpuOptions { lanes, slab_bytes, deterministic };
    CpuRunner::new(model().decoder.clone(), &plan(), &LENGTHS, &options).unwrap()
}

/// Requests of every kind, from which schedules draw.
fn requests() -> Vec<Request> {
    let vocab = vocabulary().len() as u32;
    let random = &mut Random::new(1);
    (0..40)
        .map(|number| {
            let context = LENGTHS[number % 2];
            let length = match number % 8 {
                0 => 1,
                1 => context - 2 - random.below(3),
                _ => 1 + random.below(60),
            };
            let mut request = Request::new(
                (0..length).map(|_| 3 + random.below(vocab - 3)).collect(),
                1 + random.below(10),
            );
            request.context = Some(context);
            request.n = if number % 5 == 0 { 2 } else { 1 };
            request.sampling = Sampling {
                temperature: [0.0, 0.8, 1.5][number % 3],
                top_k: (number % 4 == 1).then_some(20),
                top_p: [1.0, 0.9][number / 3 % 2],
                repetition_penalty: [1.0, 1.3][number / 2 % 2],
                seed: number as u64,
                ..Sampling::greedy()
            };
            if number % 3 == 0 {
                request.stop_tokens = (0..vocab).filter(|token| token % 9 == number as u32 % 9).collect();
            }
            if number % 4 == 2 {
                request.stop_strings = ["a", "e", "t", "\u{fffd}", "1", " "].map(str::to_owned).into();
            }
            request.top_logprobs = number as u32 % 3;
            request.keep = number % 7 != 0;
            request
        })
        .collect()
}

/// A second turn for each that has room for one, behind all of the first or behind its beginning.
fn second_turns(requests: &[Request]) -> Vec<Request> {
    let random = &mut Random::new(2);
    let turn = |request: &Request| {
        let mut next = request.clone();
        if random.one_in(3) {
            next.prompt.truncate(request.prompt.len() * 3 / 4 + 1);
        } else {
            next.prompt.extend(&alone(request, 24)[0].tokens);
        }
        next.prompt.extend((0..4).map(|_| 3 + random.below(100)));
        next
    };
    let mut next: Vec<_> = requests.iter().map(turn).collect();
    for (next, first) in next.iter_mut().zip(requests) {
        next.prompt.truncate(first.context.unwrap() as usize);
    }
    next
}

fn options(random: &mut Random) -> EngineOptions {
    // The borders of chunks are the same wherever bits are compared.
    let chunk = [24, 24, 24, 7][random.below(4) as usize];
    let keep_bytes = if random.one_in(4) { 0 } else { u64::MAX };
    EngineOptions { chunk, keep_bytes, ..EngineOptions::default() }
}

/// The result of a request that runs alone.
fn alone(request: &Request, chunk: u32) -> Vec<Answer> {
    let options = EngineOptions { chunk, ..EngineOptions::default() };
    let mut scheduler = Scheduler::new(runner(2, None, true), Some(&model().tokenizer), &options);
    let heard = Heard::new(request.n);
    let (job, _ticket) = Job::new(request.clone(), heard.sink());
    scheduler.submit(job);
    while !scheduler.is_idle() {
        scheduler.step().unwrap();
    }
    heard.answers()
}

#[test]
fn a_thousand_random_schedules_give_every_request_what_it_gets_alone() {
    let mut requests = requests();
    let firsts = requests.len();
    requests.extend(second_turns(&requests));
    let expected = [24, 7].map(|chunk| requests.iter().map(|of| alone(of, chunk)).collect::<Vec<_>>());
    let (mut whole, mut cut, mut together, mut cached) = (0, 0, 0, 0);
    for seed in 0..1000 {
        let random = &mut Random::new(seed);
        let options = options(random);
        let expected = &expected[usize::from(options.chunk == 7)];
        let largest = runner(1, None, true).limits().slab_bytes;
        // Room for two to four of the larger slabs.
        let slab_bytes = largest * u64::from(4 + random.below(5)) / 2;
        let runner = runner(2 + random.below(3), Some(slab_bytes), true);
        let space = runner.space();
        let mut scheduler = Scheduler::new(runner, Some(&model().tokenizer), &options);
        let mut running: Vec<(usize, Heard, Option<Ticket>)> = Vec::new();
        let count = 2 + random.below(5) as usize;
        while running.len() < count || !scheduler.is_idle() {
            if running.len() < count && random.one_in(2) {
                let mut which = random.below(firsts as u32) as usize;
                if let Some((first, ..)) =
                    running.iter().find(|(of, heard, _)| *of < firsts && heard.is_over())
                {
                    which = first + firsts;
                }
                let heard = Heard::new(requests[which].n);
                let (job, ticket) = Job::new(requests[which].clone(), heard.sink());
                scheduler.submit(job);
                running.push((which, heard, Some(ticket)));
            }
            if random.one_in(16) && !running.is_empty() {
                let at = random.below(running.len() as u32) as usize;
                running[at].2 = None;
            }
            scheduler.step().unwrap();
            together = together.max(scheduler.stats().running);
            let stats = scheduler.stats();
            assert!(stats.slab_bytes + stats.kept_bytes <= slab_bytes);
        }
        assert_eq!(space.lock().unwrap().taken(), scheduler.stats().kept_bytes, "a slab was not given back");
        drop(scheduler);
        assert_eq!(space.lock().unwrap().taken(), 0, "a slab was not given back");
        for (which, heard, ticket) in running {
            for (mut found, expected) in heard.answers().into_iter().zip(&expected[which]) {
                cached += usize::from(std::mem::take(&mut found.cached) > 0);
                if found.finish == Some(Finish::Cancelled) {
                    assert!(ticket.is_none() && expected.tokens.starts_with(&found.tokens));
                    cut += 1;
                } else {
                    assert_eq!(found, *expected, "schedule {seed}, request {which}");
                    whole += 1;
                }
            }
        }
    }
    assert!(whole > 3000 && cut > 100 && together == 4 && cached > 200, "{whole} {cut} {together} {cached}");
}

/// Logits of every token of a sequence by one pass over all of it, as the caches of an answer would have them.
fn logits(tokens: &[u32], context: u32) -> Vec<Vec<f32>> {
    let mut cache = Cache::new(&plan(), context).unwrap();
    let hidden = model().decoder.forward(tokens, &mut Batch::one(&mut cache, tokens.len())).unwrap();
    model().decoder.logits(&hidden).unwrap().to_vec2().unwrap()
}

#[test]
fn tokens_are_chosen_from_the_logits_of_one_pass() {
    // On the runner that is not deterministic, all at once, each token against an independent computation.
    let requests = requests();
    let options = EngineOptions { chunk: 24, ..EngineOptions::default() };
    let mut scheduler = Scheduler::new(runner(6, None, false), Some(&model().tokenizer), &options);
    let heard: Vec<_> = requests
        .iter()
        .map(|request| {
            let heard = Heard::new(request.n);
            let (job, ticket) = Job::new(request.clone(), heard.sink());
            scheduler.submit(job);
            (heard, ticket)
        })
        .collect();
    while !scheduler.is_idle() {
        scheduler.step().unwrap();
    }
    let (mut same, mut near) = (0, 0);
    for (request, (heard, _)) in requests.iter().zip(&heard) {
        for (choice, answer) in (0..).zip(heard.answers()) {
            check_text(request, &answer);
            let tokens = [&request.prompt[..], &answer.tokens].concat();
            let rows = logits(
                &tokens[..tokens.len().min(request.context.unwrap() as usize)],
                request.context.unwrap(),
            );
            let sampling = Sampling { seed: request.sampling.seed + choice, ..request.sampling };
            for (at, &token) in answer.tokens.iter().enumerate() {
                let mut seen = Seen::new(vocabulary().len());
                tokens[..request.prompt.len() + at].iter().for_each(|&token| seen.insert(token));
                let row = &rows[request.prompt.len() + at - 1];
                let choice = Choice { sampling: &sampling, counter: at as u32, top_logprobs: 0 };
                let (outcome, _) = choose(row, &seen, choice);
                same += usize::from(outcome.token == token);
                near += usize::from(outcome.token != token);
                if outcome.token == token {
                    assert!((outcome.logprob - answer.logprobs[at]).abs() < 1e-3);
                }
            }
        }
    }
    // Borders may fall within rounding of each other, but hardly ever do.
    assert!(same > 150 && near <= 1, "{same} {near}");
}

/// Whether the text is that of the tokens, up to a stop string.
fn check_text(request: &Request, answer: &Answer) {
    let mut stream = model().tokenizer.stream_after(&request.prompt);
    let mut text: String = answer.tokens.iter().map(|&token| stream.push(token).unwrap()).collect();
    text += &TextStream::finish(stream).unwrap();
    let stop = request.stop_strings.iter().filter_map(|stop| text.find(stop.as_str())).min();
    assert_eq!(answer.text, text[..stop.unwrap_or(text.len())]);
    assert_eq!(stop.is_some(), matches!(answer.finish, Some(Finish::StopString(_))), "{answer:?}");
}

#[test]
fn a_stop_string_straddles_tokens() {
    let mut request = Request::new(vec![5, 6, 7], 12);
    let plain = alone(&request, 24).remove(0);
    let text: Vec<char> = plain.text.chars().collect();
    let mut straddled = 0;
    for start in 0..text.len() - 2 {
        let stop: String = text[start..start + 3].iter().collect();
        request.stop_strings = vec!["never there".into(), stop.clone()];
        let cut = alone(&request, 24).remove(0);
        let at = plain.text.find(&stop).unwrap();
        assert_eq!((cut.text.as_str(), cut.finish), (&plain.text[..at], Some(Finish::StopString(1))));
        assert!(plain.tokens.starts_with(&cut.tokens));
        straddled += usize::from(cut.tokens.len() > 1);
    }
    assert!(straddled > 5);
}

#[test]
fn a_kept_slab_changes_nothing_but_the_work() {
    let options = EngineOptions { chunk: 24, ..EngineOptions::default() };
    let mut scheduler = Scheduler::new(runner(2, None, false), Some(&model().tokenizer), &options);
    let mut prompt: Vec<u32> = (10..60).collect();
    for turn in 0..3 {
        let mut request = Request::new(prompt.clone(), 8);
        (request.keep, request.context, request.sampling.repetition_penalty) = (true, Some(192), 1.1);
        let heard = Heard::new(1);
        let (job, _ticket) = Job::new(request.clone(), heard.sink());
        scheduler.submit(job);
        while !scheduler.is_idle() {
            scheduler.step().unwrap();
        }
        let answer = heard.answers().remove(0);
        assert_eq!(answer.tokens, alone(&request, 24)[0].tokens);
        assert_eq!(answer.cached, if turn == 0 { 0 } else { prompt.len() as u32 - 4 });
        prompt.extend(&answer.tokens);
        prompt.extend([20, 30, 40 + turn]);
    }
}
