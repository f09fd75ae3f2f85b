//! The server's counters in Prometheus' format.
//!
//! Counters that vLLM has too have vLLM's names and its label `model_name`, so that the dashboards for it work here. Counters that only
//! this server has, or that count in another way, have the prefix `moac:`. The crate's `README.md` lists both.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use moac_model::Finish;
use moac_model::engine::Stats;

use crate::server::Served;

/// Upper bounds of the buckets of times, in seconds.
const SECONDS: [f64; 16] =
    [0.001, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 40.0, 160.0, 640.0];
/// Upper bounds of the buckets of numbers of tokens.
const TOKENS: [f64; 16] =
    [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5];

#[derive(Debug)]
struct Histogram {
    bounds: [f64; 16],
    counts: [AtomicU64; 17],
    /// In millionths.
    sum: AtomicU64,
}

impl Histogram {
    fn new(bounds: [f64; 16]) -> Self {
        Self { bounds, counts: Default::default(), sum: AtomicU64::new(0) }
    }

    fn observe(&self, value: f64) {
        let place = self.bounds.iter().position(|&bound| value <= bound).unwrap_or(self.bounds.len());
        self.counts[place].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add((1e6 * value) as u64, Ordering::Relaxed);
    }
}

/// The counts so far.
#[derive(Debug)]
pub(crate) struct Metrics {
    first_token: Histogram,
    between_tokens: Histogram,
    requests: Histogram,
    prompts: Histogram,
    answers: Histogram,
    stopped: AtomicU64,
    length: AtomicU64,
    aborted: AtomicU64,
    /// Replies by the first digit of their status.
    replies: [AtomicU64; 6],
}

impl Default for Metrics {
    fn default() -> Self {
        let [first_token, between_tokens, requests] = [SECONDS; 3].map(Histogram::new);
        let [prompts, answers] = [TOKENS; 2].map(Histogram::new);
        let [stopped, length, aborted] = Default::default();
        Self {
            first_token,
            between_tokens,
            requests,
            prompts,
            answers,
            stopped,
            length,
            aborted,
            replies: Default::default(),
        }
    }
}

impl Metrics {
    /// A reply begins.
    pub(crate) fn reply(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).min(self.replies.len() - 1);
        self.replies[class].fetch_add(1, Ordering::Relaxed);
    }

    /// A prompt of so many tokens is handed to the engine.
    pub(crate) fn prompt(&self, tokens: usize) {
        self.prompts.observe(tokens as f64);
    }

    /// A token came so long after the one before, or after the request.
    pub(crate) fn token(&self, first: bool, time: Duration) {
        if first { &self.first_token } else { &self.between_tokens }.observe(time.as_secs_f64());
    }

    /// An answer of so many tokens ended so long after the request.
    pub(crate) fn end(&self, finish: Finish, tokens: u32, time: Duration) {
        let count = match finish {
            Finish::StopToken(_) | Finish::StopString(_) => &self.stopped,
            Finish::Limit | Finish::ContextFull => &self.length,
            Finish::Cancelled => &self.aborted,
        };
        count.fetch_add(1, Ordering::Relaxed);
        self.answers.observe(tokens.into());
        self.requests.observe(time.as_secs_f64());
    }

    pub(crate) fn text(&self, served: &Served) -> String {
        let Stats {
            waiting,
            running,
            contexts,
            slab_bytes,
            kept,
            kept_bytes,
            kept_hits,
            steps,
            prompt_tokens,
            cached_tokens,
            answer_tokens,
        } = served.engine.stats();
        let total = served.engine.limits().slab_bytes;
        let mut page = Page { text: String::new(), label: label(&served.name) };
        let share = slab_bytes as f64 / total.max(1) as f64;
        page.gauge("vllm:num_requests_running", "Answers that run.", running as f64);
        page.gauge("vllm:num_requests_waiting", "Requests that wait.", waiting as f64);
        page.gauge("vllm:kv_cache_usage_perc", "Share of the bytes for caches in use, 1 for all.", share);
        page.counter("vllm:prompt_tokens_total", "Tokens of prompts, computed.", prompt_tokens);
        page.counter("vllm:prompt_tokens_cached_total", "Tokens of prompts, found.", cached_tokens);
        page.counter("vllm:generation_tokens_total", "Tokens of answers.", answer_tokens);
        let counts = [&self.stopped, &self.length, &self.aborted].map(|count| count.load(Ordering::Relaxed));
        let reasons = ["stop", "length", "abort"].map(|reason| format!("finished_reason=\"{reason}\""));
        page.counters("vllm:request_success_total", "Answers by how they ended.", reasons.iter().zip(counts));
        for (name, help, histogram) in [
            ("vllm:time_to_first_token_seconds", "From the request to its first token.", &self.first_token),
            ("vllm:inter_token_latency_seconds", "From one token to the next.", &self.between_tokens),
            ("vllm:e2e_request_latency_seconds", "From the request to an answer's end.", &self.requests),
            ("vllm:request_prompt_tokens", "Tokens of a prompt.", &self.prompts),
            ("vllm:request_generation_tokens", "Tokens of an answer.", &self.answers),
        ] {
            page.histogram(name, help, histogram);
        }
        page.label.clear();
        let dense = contexts * served.dense_bytes;
        page.gauge("moac:kv_bytes_used", "Bytes of the caches of answers that run.", slab_bytes as f64);
        page.gauge(
            "moac:kv_bytes_dense",
            "Bytes that caches of all tokens would take instead.",
            dense as f64,
        );
        page.gauge("moac:kv_bytes_kept", "Bytes of caches kept for the next turn.", kept_bytes as f64);
        page.gauge("moac:conversations_kept", "Caches kept for the next turn.", kept as f64);
        page.counter("moac:conversations_continued_total", "Requests that began with one.", kept_hits);
        page.gauge("moac:kv_bytes_total", "Bytes that there are for caches.", total as f64);
        page.counter("moac:steps_total", "Steps.", steps);
        let replies = self.replies.iter().enumerate().skip(2);
        let replies =
            replies.map(|(class, count)| (format!("status=\"{class}xx\""), count.load(Ordering::Relaxed)));
        page.counters("moac:http_replies_total", "Replies by their status.", replies);
        page.text
    }
}

/// The label of a model's name, whose quotes, backslashes and line breaks are escaped.
fn label(model: &str) -> String {
    let name = model.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("model_name=\"{name}\"")
}

/// The text in the making, and a label that all series have.
struct Page {
    text: String,
    label: String,
}

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn series(&mut self, name: &str, label: &str, value: f64) {
        let labels: Vec<&str> =
            [self.label.as_str(), label].into_iter().filter(|label| !label.is_empty()).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.text, "{name}{labels} {value}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.head(name, "gauge", help);
        self.series(name, "", value);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.counters(name, help, [("", value)]);
    }

    fn counters(&mut self, name: &str, help: &str, series: impl IntoIterator<Item = (impl AsRef<str>, u64)>) {
        self.head(name, "counter", help);
        for (label, value) in series {
            self.series(name, label.as_ref(), value as f64);
        }
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, "histogram", help);
        let mut count = 0;
        for (place, more) in histogram.counts.iter().enumerate() {
            count += more.load(Ordering::Relaxed);
            let bound = histogram.bounds.get(place).map_or_else(|| "+Inf".to_owned(), f64::to_string);
            self.series(&format!("{name}_bucket"), &format!("le=\"{bound}\""), count as f64);
        }
        self.series(&format!("{name}_sum"), "", histogram.sum.load(Ordering::Relaxed) as f64 / 1e6);
        self.series(&format!("{name}_count"), "", count as f64);
    }
}
