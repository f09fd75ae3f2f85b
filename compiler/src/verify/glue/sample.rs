//! The choice of tokens, as float64 has it.
//!
//! A kernel may be a float32 rounding away: a token whose logit is that close to a cut may be kept or not, and chance may
//! mean a neighbour where it falls on the border of two tokens. [`Expected`] says what is right then.

use moac_runtime::element::f32_from_bytes;
use moac_runtime::glue::{Block, Op, Outcome as Chosen, Row, Sample, SampleParams, TOP_LOGPROBS, uniform};

use super::Kind;
use super::noise::Noise;
use super::stage::Stage;
use crate::verify::compare;
use crate::verify::device::{Device, DeviceError, Fresh, POISON};
use crate::verify::verdict::Outcome;

const LANES: u32 = 20;
/// The tolerance of a log-probability: float32 sums over a vocabulary.
const LOGPROB: f64 = 1e-4;
/// How close to a cut counts as on it, in natural units: the kernel's steps of 2^-16 and float32 logits.
const CUT: f64 = 5e-5;
/// How close to a border chance may fall, as a part of all kept probability.
const BORDER: f64 = 2e-6;

/// A sample's logits and parameters.
struct Question {
    sample: Sample,
    logits: Vec<f32>,
    seen: Vec<u32>,
}

pub(super) fn sample<D: Device>(mut stage: Stage<'_, D>) -> Result<Outcome, DeviceError> {
    let (sizes, kind) = (stage.sizes(), stage.case.kind);
    let rows = stage.case.rows as usize;
    let vocab = sizes.vocab as usize;
    let questions: Vec<Question> =
        (0..rows).map(|at| question(at, kind, vocab, sizes.seen_words())).collect();
    let bytes = |of: &dyn Fn(&Question) -> Vec<u8>| questions.iter().flat_map(of).collect::<Vec<u8>>();
    let mut seen = vec![0u32; (LANES * sizes.seen_words()) as usize];
    for question in questions.iter().filter(|question| question.sample.lane < LANES) {
        let lane = (question.sample.lane * sizes.seen_words()) as usize;
        seen[lane..][..question.seen.len()].copy_from_slice(&question.seen);
    }
    let outcomes = stage.output("outcomes", rows * Chosen::BYTES)?;
    let top_bytes = rows * TOP_LOGPROBS as usize * Chosen::BYTES;
    let top = stage.output("top", top_bytes)?;
    let newest = stage.output("newest", LANES as usize * 4)?;
    let counters = stage.device.alloc("counters", 0, rows as u64 * 4, Fresh::Zero)?;
    let scratch = stage.device.alloc("scratch", 0, sizes.scratch_bytes(rows as u32), Fresh::Unwritten)?;
    let block = SampleParams {
        samples: stage.input("samples", &bytes(&|it| it.sample.to_bytes().to_vec()))?,
        logits: stage
            .input("logits", &bytes(&|it| it.logits.iter().flat_map(|x| x.to_le_bytes()).collect()))?,
        outcomes,
        top: if kind == Kind::Top { top } else { 0 },
        newest,
        seen: stage.input("seen", &seen.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>())?,
        counters,
        scratch,
        lanes: LANES,
        rows: rows as u32,
    };
    stage.launch(Block::Sample(block))?;

    let found = stage.read("outcomes", outcomes, rows * Chosen::BYTES)?;
    let tokens = stage.read("newest", newest, LANES as usize * 4)?;
    let top = stage.read("top", top, top_bytes)?;
    let mut lanes = vec![POISON; LANES as usize * 4];
    for (at, question) in questions.iter().enumerate() {
        let of = &found[at * Chosen::BYTES..][..Chosen::BYTES];
        let top = &top[at * TOP_LOGPROBS as usize * Chosen::BYTES..][..TOP_LOGPROBS as usize * Chosen::BYTES];
        if question.sample.lane >= LANES {
            if of.iter().chain(top).any(|&byte| byte != POISON) {
                stage.fail(compare::Kind::Stray, format!("sample {at}: written, though nobody reads it"));
            }
            continue;
        }
        lanes[question.sample.lane as usize * 4..][..4].copy_from_slice(&of[..4]);
        let wanted = if kind == Kind::Top { question.sample.top_logprobs } else { 0 };
        check(&mut stage, at, question, (of, top, wanted.min(TOP_LOGPROBS).min(sizes.vocab)));
    }
    if tokens != lanes {
        stage.fail(compare::Kind::Output, "`newest` is not what the samples chose");
    }
    if stage.device.read(counters, rows as u64 * 4)?.iter().any(|&byte| byte != 0) {
        stage.fail(compare::Kind::Scratch, "the counters are not zero after the launch");
    }
    if kind == Kind::Plain {
        // Greedy samples read each logit once, and the chosen one again.
        let taken = questions.iter().filter(|question| question.sample.lane < LANES).count();
        let read = taken * (vocab + 1) * 4;
        let parts = sizes.rule(Op::Sample).grid.of_rows(taken as u32);
        let found = (parts[0] * parts[1]) as usize * 16;
        stage.moved(&[
            ("logits", read, 0, 0),
            ("outcomes", 0, taken * 8, taken * 8),
            ("newest", 0, taken * 4, taken * 4),
            ("scratch", found, found, found),
            (
                "counters",
                (parts[0] * parts[1]) as usize * 4,
                (parts[0] * (parts[1] + 1)) as usize * 4,
                taken * 4,
            ),
        ]);
    }
    Ok(stage.outcome)
}

/// Sample `at` of a case.
fn question(at: usize, kind: Kind, vocab: usize, words: u32) -> Question {
    let mut noise = Noise::new(100 + at as u64);
    let mut logits: Vec<f32> = (0..vocab).map(|_| (3.0 * noise.normal() - 2.0) as f32).collect();
    let mut sample = Sample { seed: noise.bits(), counter: at as u32 * 3, ..Sample::greedy(0, at as u32) };
    let seen = (0..words).map(|_| (noise.bits() & noise.bits()) as u32).collect();
    match kind {
        Kind::Plain => {
            // Two equal peaks, the second in another part; the last token; a sample that nobody reads.
            match at {
                0 => [vocab / 5, vocab / 2].map(|token| logits[token] = 30.0).into_iter().collect(),
                1 => logits[vocab - 1] = 30.0,
                _ => sample.lane = Row::IDLE,
            }
        }
        Kind::Cuts => cuts(at, &mut sample),
        Kind::Top => {
            sample.top_logprobs = [1, 20, 5, 99][at % 4];
            sample.penalty = 1.5;
            logits[vocab / 3] = logits[vocab / 4]; // of equals, the first comes first
            logits[vocab - 1] = 40.0;
        }
        Kind::Other | Kind::Odd => odd(at, &mut sample, &mut logits),
    }
    Question { sample, logits, seen }
}

/// Every parameter alone, then together.
fn cuts(at: usize, sample: &mut Sample) {
    sample.temperature = 1.0;
    match at {
        0 => {}
        1 => sample.temperature = 0.3,
        2 => sample.temperature = 4.0,
        3 => sample.top_k = 1,
        4 => sample.top_k = 40,
        5 => sample.top_k = 1000,
        6 => sample.top_k = u32::MAX,
        7 => sample.top_p = 0.9,
        8 => sample.top_p = 0.5,
        9 => sample.top_p = 0.999,
        10 => sample.top_p = 1e-6,
        11 => sample.min_p = 0.1,
        12 => sample.min_p = 1.0,
        13 => sample.penalty = 1.3,
        14 => {
            sample.temperature = 0.0;
            sample.penalty = 0.7;
        }
        _ => {
            *sample =
                Sample { top_k: 50, temperature: 0.8, top_p: 0.9, min_p: 0.02, penalty: 1.1, ..*sample };
        }
    }
}

/// Logits that models hardly make.
fn odd(at: usize, sample: &mut Sample, logits: &mut [f32]) {
    sample.temperature = 1.0;
    let last = logits.len() - 1;
    match at {
        0 => logits.fill(1.5), // all are as likely as the last one kept
        1 => {
            logits.fill(f32::NEG_INFINITY);
            logits[last] = -3.0;
        }
        2 => logits[last / 2] = f32::NAN,
        3 => logits.fill(f32::NEG_INFINITY),
        4 => logits.iter_mut().for_each(|logit| *logit *= 1e4),
        _ => logits.iter_mut().for_each(|logit| *logit *= 1e-2),
    }
    (sample.top_k, sample.top_p) = if at == 0 { (3, 0.5) } else { (20, 0.7) };
}

fn check<D: Device>(
    stage: &mut Stage<'_, D>,
    at: usize,
    question: &Question,
    (found, top, wanted): (&[u8], &[u8], u32),
) {
    let (token, logprob) = outcome(found);
    let expected = Expected::new(question);
    let Some(log_sum) = expected.log_sum else {
        if token as usize >= question.logits.len() || !logprob.is_nan() {
            let what = format!("sample {at}: token {token}, log-probability {logprob}, where there is none");
            stage.fail(compare::Kind::Output, what);
        }
        return;
    };
    if !expected.may_be(token) {
        let what = format!("sample {at} ({:?}): token {token}; {}", question.sample, expected.near(token));
        stage.fail(compare::Kind::Output, what);
        return;
    }
    let near = |stage: &mut Stage<'_, D>, what: &str, token: u32, found: f32| {
        let expected = f64::from(question.logits[token as usize]) - log_sum;
        let difference = (f64::from(found) - expected).abs();
        // Large logits have large last bits.
        let most = LOGPROB + expected.abs() * 1e-6;
        if compare::within(difference, most) {
            stage.outcome.lse_error = stage.outcome.lse_error.max(difference);
        } else {
            let what =
                format!("sample {at}: {what} {token} has log-probability {found}, expected {expected}");
            stage.fail(compare::Kind::Lse, what);
        }
    };
    near(stage, "token", token, logprob);
    let mut order: Vec<u32> = (0..question.logits.len() as u32).collect();
    order.sort_by(|&a, &b| {
        question.logits[b as usize].total_cmp(&question.logits[a as usize]).then(a.cmp(&b))
    });
    for (rank, (of, &expected)) in top.chunks_exact(Chosen::BYTES).zip(&order).enumerate() {
        if rank >= wanted as usize {
            if of.iter().any(|&byte| byte != POISON) {
                stage.fail(
                    compare::Kind::Stray,
                    format!("sample {at}: likeliest token {rank} was not asked for"),
                );
            }
            continue;
        }
        let (token, logprob) = outcome(of);
        if token == expected {
            near(stage, "likely token", token, logprob);
        } else {
            let what = format!("sample {at}: likeliest token {rank} is {token}, expected {expected}");
            stage.fail(compare::Kind::Output, what);
            return;
        }
    }
}

fn outcome(bytes: &[u8]) -> (u32, f32) {
    let word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    (word, f32_from_bytes(&bytes[4..])[0])
}

/// The tokens that may be chosen.
struct Expected {
    /// The natural logarithm of the sum of e^logit; none where the largest logit is not finite or one is not a number.
    log_sum: Option<f64>,
    /// Of each token, the weights of those kept up to and with it, where all that lie on a cut are kept and where none is.
    kept: [Vec<f64>; 2],
    /// Tokens that may be chosen without chance.
    likeliest: Option<u32>,
    chance: f64,
}

impl Expected {
    fn new(question: &Question) -> Self {
        let Question { sample, logits, seen } = question;
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sound = largest.is_finite() && !logits.iter().any(|logit| logit.is_nan());
        let wide: Vec<f64> = logits.iter().copied().map(f64::from).collect();
        let sum: f64 = wide.iter().map(|logit| (logit - f64::from(largest)).exp()).sum();
        let log_sum = sound.then(|| f64::from(largest) + sum.ln());
        let penalty = f64::from(sample.penalty);
        let penalised = wide.iter().enumerate().map(|(token, &logit)| {
            match (seen[token / 32] >> (token % 32) & 1 == 1, logit > 0.0) {
                (true, true) => logit / penalty,
                (true, false) => logit * penalty,
                (false, _) => logit,
            }
        });
        let penalised: Vec<f64> = penalised.collect();
        let best = penalised.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        // Of equals the first, which comes last from behind.
        let from_behind = penalised.iter().enumerate().rev();
        let likeliest = from_behind.max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(token, _)| token as u32);
        let chance = f64::from(uniform(sample.seed, sample.counter));
        if sample.temperature == 0.0 {
            return Self { log_sum, kept: [vec![], vec![]], likeliest: Some(likeliest), chance };
        }
        let behind: Vec<f64> =
            penalised.iter().map(|logit| (best - logit) / f64::from(sample.temperature)).collect();
        let cut = cut(&behind, sample);
        let running = |cut: f64| {
            let mut sum = 0.0;
            behind
                .iter()
                .map(|&behind| {
                    sum += if behind <= cut { (-behind).exp() } else { 0.0 };
                    sum
                })
                .collect()
        };
        Self { log_sum, kept: [running(cut + CUT), running(cut - CUT)], likeliest: None, chance }
    }

    /// Where chance would have to fall for a token, as parts of the whole.
    fn range(&self, token: u32) -> (f64, f64) {
        let ends = self.kept.each_ref().map(|sums| {
            let whole = sums.last().copied().unwrap_or_default();
            let before = if token == 0 { 0.0 } else { sums[token as usize - 1] };
            (before / whole, sums[token as usize] / whole)
        });
        (ends[0].0.min(ends[1].0), ends[0].1.max(ends[1].1))
    }

    fn may_be(&self, token: u32) -> bool {
        if let Some(likeliest) = self.likeliest {
            return token == likeliest;
        }
        let Some((from, to)) = ((token as usize) < self.kept[0].len()).then(|| self.range(token)) else {
            return false;
        };
        let before = if token == 0 { 0.0 } else { self.kept[0][token as usize - 1] };
        // A token that is cut has no part of the whole.
        let kept = self.kept[0][token as usize] > before;
        kept && from - BORDER <= self.chance && self.chance <= to + BORDER
    }

    fn near(&self, token: u32) -> String {
        match self.likeliest {
            Some(likeliest) => format!("expected {likeliest}"),
            None if (token as usize) < self.kept[0].len() => {
                format!("chance is {}, the token's {:?}", self.chance, self.range(token))
            }
            None => "there is no such token".to_owned(),
        }
    }
}

/// The distance behind the likeliest token up to which tokens are kept.
fn cut(behind: &[f64], sample: &Sample) -> f64 {
    let mut sorted = behind.to_vec();
    sorted.sort_by(f64::total_cmp);
    let mut cut = f64::INFINITY;
    if sample.top_k > 0 && (sample.top_k as usize) < sorted.len() {
        cut = sorted[sample.top_k as usize - 1];
    }
    if sample.top_p < 1.0 {
        let kept: Vec<f64> = sorted.iter().copied().filter(|&behind| behind <= cut).collect();
        let enough = f64::from(sample.top_p) * kept.iter().map(|behind| (-behind).exp()).sum::<f64>();
        let mut sum = 0.0;
        let last = kept.iter().find(|&&behind| {
            sum += (-behind).exp();
            sum >= enough * (1.0 - 1e-9)
        });
        cut = last.copied().unwrap_or(cut);
    }
    if sample.min_p > 0.0 {
        cut = cut.min(-f64::from(sample.min_p).ln());
    }
    cut
}
