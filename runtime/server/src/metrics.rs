//! What the server counts, as Prometheus reads it, by the names that dashboards for such servers know.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moac_model::engine::Stats;
use moac_model::{Engine, Finish};

/// Upper bounds of the histograms' buckets, in seconds.
const BOUNDS: [f64; 16] =
    [0.001, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 40.0, 160.0, 640.0];

#[derive(Debug, Default)]
struct Histogram {
    counts: [AtomicU64; BOUNDS.len() + 1],
    microseconds: AtomicU64,
}

impl Histogram {
    fn observe(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let place = BOUNDS.iter().position(|&bound| seconds <= bound).unwrap_or(BOUNDS.len());
        self.counts[place].fetch_add(1, Ordering::Relaxed);
        self.microseconds.fetch_add(time.as_micros() as u64, Ordering::Relaxed);
    }

    fn write(&self, out: &mut String, name: &str, help: &str) {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} histogram");
        let mut sum = 0;
        for (place, count) in self.counts.iter().enumerate() {
            sum += count.load(Ordering::Relaxed);
            let bound = BOUNDS.get(place).map_or_else(|| "+Inf".to_owned(), f64::to_string);
            let _ = writeln!(out, "{name}_bucket{{le=\"{bound}\"}} {sum}");
        }
        let seconds = self.microseconds.load(Ordering::Relaxed) as f64 / 1e6;
        let _ = writeln!(out, "{name}_sum {seconds}\n{name}_count {sum}");
    }
}

/// What has been counted so far.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    first_token: Histogram,
    between_tokens: Histogram,
    requests: Histogram,
    stopped: AtomicU64,
    length: AtomicU64,
    aborted: AtomicU64,
}

impl Metrics {
    /// A token came so long after the one before, or after the request.
    pub(crate) fn token(&self, first: bool, time: Duration) {
        if first { &self.first_token } else { &self.between_tokens }.observe(time);
    }

    /// An answer ended so long after the request.
    pub(crate) fn end(&self, finish: Finish, time: Duration) {
        let count = match finish {
            Finish::StopToken(_) | Finish::StopString(_) => &self.stopped,
            Finish::Limit | Finish::ContextFull => &self.length,
            Finish::Cancelled => &self.aborted,
        };
        count.fetch_add(1, Ordering::Relaxed);
        self.requests.observe(time);
    }

    pub(crate) fn text(&self, engine: &Engine) -> String {
        let Stats {
            waiting,
            running,
            slab_bytes,
            kept_bytes,
            steps,
            prompt_tokens,
            cached_tokens,
            answer_tokens,
        } = engine.stats();
        let total = engine.limits().slab_bytes;
        let mut out = String::new();
        let mut one = |name: &str, kind: &str, help: &str, value: f64| {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        };
        one("vllm:num_requests_running", "gauge", "Answers that run.", running as f64);
        one("vllm:num_requests_waiting", "gauge", "Requests that wait.", waiting as f64);
        let share = slab_bytes as f64 / total.max(1) as f64;
        one("vllm:kv_cache_usage_perc", "gauge", "Share of the bytes for caches in use, 1 for all.", share);
        one("moac:kv_bytes_used", "gauge", "Bytes of the caches of answers that run.", slab_bytes as f64);
        one("moac:kv_bytes_kept", "gauge", "Bytes of caches kept for the next turn.", kept_bytes as f64);
        one("moac:kv_bytes_total", "gauge", "Bytes that there are for caches.", total as f64);
        one("moac:steps_total", "counter", "Steps.", steps as f64);
        one("vllm:prompt_tokens_total", "counter", "Tokens of prompts, computed.", prompt_tokens as f64);
        one("vllm:prompt_tokens_cached_total", "counter", "Tokens of prompts, found.", cached_tokens as f64);
        one("vllm:generation_tokens_total", "counter", "Tokens of answers.", answer_tokens as f64);
        let name = "vllm:request_success_total";
        let _ = writeln!(out, "# HELP {name} Answers by how they ended.\n# TYPE {name} counter");
        for (reason, count) in [("stop", &self.stopped), ("length", &self.length), ("abort", &self.aborted)] {
            let count = count.load(Ordering::Relaxed);
            let _ = writeln!(out, "{name}{{finished_reason=\"{reason}\"}} {count}");
        }
        self.first_token.write(
            &mut out,
            "vllm:time_to_first_token_seconds",
            "From the request to its first token.",
        );
        self.between_tokens.write(
            &mut out,
            "vllm:inter_token_latency_seconds",
            "From one token to the next.",
        );
        self.requests.write(
            &mut out,
            "vllm:e2e_request_latency_seconds",
            "From the request to an answer's end.",
        );
        out
    }
}
