//! Kernels on the PTX emulator: small layers whose every launch runs whole, and the shipped plans' own kernels on the
//! CTAs at their edges. `cargo xtask emulate --full` runs more of the same than the tests do.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use moac_compiler::build;
use moac_compiler::cache::Cache;
use moac_compiler::lower::{Lowered, Target, buckets, lower};
use moac_compiler::names::cache_key;
use moac_compiler::nvrtc::{CompileError, Compiled, Source};
use moac_compiler::plan;
use moac_compiler::verify::session::{self, Verdict, Watch};
use moac_compiler::verify::{Candidate, Case, Device as _, Emulated, Harness, Inputs, Outcome, cases};
use moac_runtime::arch::Arch;
use moac_runtime::launch::Phase;
use moac_runtime::plan::{DType, ModelShape, PLAN_FORMAT, Plan};
use rayon::prelude::*;

use crate::nvrtc;
use crate::proven::recall;

/// A layer small enough to be run whole.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Its purpose.
    pub name: &'static str,
    /// Query heads.
    pub heads: u32,
    /// KV heads.
    pub kv_heads: u32,
    /// Elements of a head.
    pub head_dim: u32,
    /// Element type.
    pub dtype: DType,
    /// Sink tokens.
    pub sink: u32,
    /// alpha and beta, dealt out to the heads in turn.
    pub rules: &'static [(f64, f64)],
    /// Buckets.
    pub lengths: &'static [u32],
}

/// An architecture of each family of kernels.
pub const FAMILIES: [Arch; 2] = [Arch::Sm90, Arch::Sm90a];

/// Whether this is CI, which takes its time.
#[expect(clippy::disallowed_methods, reason = "what runs the tests sets it; moac itself never reads it")]
fn ci() -> bool {
    std::env::var_os("CI").is_some()
}

/// Orders of warps that small layers are run in: one for a developer, three in CI.
pub fn schedules() -> u64 {
    if ci() { 3 } else { 1 }
}

/// Every group size with a path of its own, both head dimensions, both element types; one to three buckets; spans
/// that are the whole context, that fill a fraction of it, and that wrap many times.
pub const SHAPES: [Shape; 5] = [
    Shape {
        name: "a KV head for every head",
        heads: 3,
        kv_heads: 3,
        head_dim: 64,
        dtype: DType::Bf16,
        sink: 64,
        rules: &[(0.0, 0.0), (0.0, 1.0), (0.0, 0.5)],
        lengths: &[256, 448],
    },
    Shape {
        name: "groups of three",
        heads: 6,
        kv_heads: 2,
        head_dim: 64,
        dtype: DType::F16,
        sink: 64,
        rules: &[(0.0, 0.5), (0.0, 0.25)],
        lengths: &[128, 320, 512],
    },
    Shape {
        name: "groups of four",
        heads: 8,
        kv_heads: 2,
        head_dim: 128,
        dtype: DType::Bf16,
        sink: 64,
        rules: &[(0.0, 0.0), (64.0, 0.25), (0.0, 0.0), (0.0, 0.0), (0.0, 0.5)],
        lengths: &[320, 640],
    },
    Shape {
        name: "one group of sixteen, a long sink",
        heads: 16,
        kv_heads: 1,
        head_dim: 128,
        dtype: DType::F16,
        sink: 128,
        rules: &[(0.0, 0.0), (0.0, 0.75), (0.0, 0.25)],
        lengths: &[448],
    },
    Shape {
        name: "dense",
        heads: 2,
        kv_heads: 1,
        head_dim: 128,
        dtype: DType::Bf16,
        sink: 64,
        rules: &[(0.0, 1.0)],
        lengths: &[384],
    },
];

/// A head long enough for decode to split it into more parts than one of its threads reads at once. Prefill gains
/// nothing from it.
pub const MANY_SPLITS: Shape = Shape {
    name: "many splits",
    heads: 16,
    kv_heads: 1,
    head_dim: 64,
    dtype: DType::Bf16,
    sink: 64,
    rules: &[(0.0, 1.0), (0.0, 0.75)],
    lengths: &[1408],
};

impl Shape {
    /// A plan of one layer.
    pub fn plan(&self) -> Plan {
        let of_heads = |rule: fn(&(f64, f64)) -> f64| {
            vec![self.rules.iter().map(rule).cycle().take(self.heads as usize).collect()]
        };
        Plan {
            format: PLAN_FORMAT.to_owned(),
            model: ModelShape {
                name: self.name.to_owned(),
                num_layers: 1,
                num_heads: self.heads,
                num_kv_heads: self.kv_heads,
                head_dim: self.head_dim,
                rope_theta: None,
                context: None,
                softmax_scale: None,
            },
            sink: self.sink,
            min_span: self.sink + 64,
            alphas: of_heads(|rule| rule.0),
            betas: of_heads(|rule| rule.1),
            provenance: None,
        }
    }

    /// The plan lowered for one architecture.
    ///
    /// # Panics
    /// If it does not lower, which is a mistake in the shape.
    pub fn lowered(&self, arch: Arch) -> Lowered {
        let target = Target {
            kv_heads: 0..self.kv_heads,
            lengths: self.lengths.to_vec(),
            dtype: self.dtype,
            archs: vec![arch],
        };
        lower(&self.plan(), &target).expect("the shapes are sound")
    }

    /// The source of the kernel of `phase`, whose headers may be changed before it is compiled.
    ///
    /// # Panics
    /// If it does not render.
    pub fn source(&self, arch: Arch, phase: Phase) -> Source {
        let lowered = self.lowered(arch);
        let kernel = lowered.layers[0][0].of(phase);
        build::sources(&lowered).expect("the template renders").swap_remove(kernel)
    }

    /// The kernel of a source for the emulator, which needs no machine code.
    ///
    /// # Errors
    /// The compiler's error.
    pub fn emulated(&self, arch: Arch, phase: Phase, source: &Source) -> Result<Candidate, CompileError> {
        let lowered = self.lowered(arch);
        let kernel = lowered.layers[0][0].of(phase);
        let compiled = Compiled { ptx: nvrtc().ptx(source)?, ..Compiled::default() };
        Ok(Candidate::of_lowered(&self.plan(), &lowered, kernel, compiled))
    }

    /// The kernel of `phase`.
    ///
    /// # Panics
    /// If it does not compile.
    pub fn candidate(&self, arch: Arch, phase: Phase) -> Candidate {
        let lowered = self.lowered(arch);
        let kernel = lowered.layers[0][0].of(phase);
        let source = self.source(arch, phase);
        let compiled = Cache::of_this_machine().compile(nvrtc(), &source);
        let (compiled, _) = compiled.unwrap_or_else(|error| panic!("{}: {error}", self.name));
        Candidate::of_lowered(&self.plan(), &lowered, kernel, compiled)
    }
}

/// A harness on the emulator that has loaded `candidate`.
///
/// # Panics
/// If the emulator does not know an instruction of it.
pub fn harness(candidate: &Candidate, schedule: u64) -> Harness<Emulated> {
    let inputs = Inputs::new(candidate.layer.dtype, candidate.layer.head_dim, 1);
    let mut harness = Harness::new(Emulated::new(schedule), inputs, 1);
    if let Err(error) = harness.device.load(candidate) {
        panic!("{error}");
    }
    harness
}

/// Runs one case.
///
/// # Panics
/// If it cannot be run.
pub fn run(harness: &mut Harness<Emulated>, candidate: &Candidate, case: &Case) -> Outcome {
    harness
        .run(candidate, case)
        .unwrap_or_else(|error| panic!("{}: {}: {error}", candidate.symbol, case.name))
}

/// Runs cases under a schedule; what failed, a line each.
///
/// # Panics
/// If a case cannot be run.
pub fn failures(candidate: &Candidate, cases: &[Case], schedule: u64) -> Vec<String> {
    let mut harness = harness(candidate, schedule);
    let mut failures = Vec::new();
    for case in cases {
        let outcome = run(&mut harness, candidate, case);
        failures.extend(outcome.failures.iter().map(|failure| format!("{}: {failure}", case.name)));
    }
    failures
}

/// The names of the shipped plans: the files in `plans/`.
///
/// # Panics
/// If the folder cannot be read.
pub fn plan_names() -> Vec<String> {
    let files = plan_folder().read_dir().expect("the shipped plans are there");
    let paths = files.map(|file| file.expect("a folder can be listed").path());
    let mut names: Vec<String> = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .filter(|name| !name.ends_with(".schema"))
        .collect();
    names.sort();
    names
}

fn plan_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../plans")
}

/// The kernels of a shipped plan, at the default buckets.
#[derive(Debug)]
pub struct Shipped {
    plan: Plan,
    lowered: Lowered,
    sources: Vec<Source>,
}

impl Shipped {
    /// The kernels of the plan of this name.
    ///
    /// # Panics
    /// If it does not lower.
    pub fn of(name: &str, dtype: DType, archs: &[Arch]) -> Self {
        let path = plan_folder().join(format!("{name}.json"));
        let plan = plan::read(&path, None).unwrap_or_else(|error| panic!("{error}"));
        let lengths = buckets(&plan, &[]).expect("the default buckets suit every plan").buckets;
        let target = Target { kv_heads: 0..plan.model.num_kv_heads, lengths, dtype, archs: archs.to_vec() };
        let lowered = lower(&plan, &target).expect("a shipped plan lowers");
        let sources = build::sources(&lowered).expect("the template renders");
        assert!(!sources.is_empty(), "{name} has no kernels");
        Self { plan, lowered, sources }
    }

    /// What is wrong with them, one line each; of each kernel, as far as that is not known from an earlier run.
    ///
    /// # Panics
    /// If one does not compile.
    pub fn wrong(&self) -> Vec<String> {
        let pool =
            rayon::ThreadPoolBuilder::new().stack_size(build::STACK_BYTES).build().expect("threads start");
        let kernels = (0..self.sources.len()).into_par_iter().with_max_len(1);
        pool.install(|| kernels.flat_map_iter(|kernel| self.wrong_with(kernel)).collect())
    }

    fn wrong_with(&self, kernel: usize) -> Vec<String> {
        let source = &self.sources[kernel];
        let candidate = |compiled| Candidate::of_lowered(&self.plan, &self.lowered, kernel, compiled);
        // The source decides the code: of a kernel that was judged before, not even that is made.
        let bare = candidate(Compiled::default());
        let key = cache_key(source, nvrtc().build());
        recall(&format!("wrong {bare:?} {:?} {key}", cases::for_emulator(&bare)), || {
            let verdicts = verdicts(&[candidate(compiled(source))], &[0], &|_| {});
            let lines = verdicts.iter().flat_map(|verdict| {
                let line = |wrong: &session::Wrong| {
                    format!("{} for {}: {}: {}", verdict.symbol, verdict.arch, wrong.case, wrong.failure)
                };
                verdict.failures.iter().map(line)
            });
            lines.collect()
        })
    }
}

/// The code of a shipped kernel: in CI with what the assembler makes of it, which the steps behind the tests take from the
/// cache; else as far as the emulator needs it, in half the time.
fn compiled(source: &Source) -> Compiled {
    let compiled = if ci() {
        Cache::of_this_machine().compile(nvrtc(), source).map(|(compiled, _)| compiled)
    } else {
        nvrtc().ptx(source).map(|ptx| Compiled { ptx, ..Compiled::default() })
    };
    compiled.unwrap_or_else(|error| panic!("{error}"))
}

/// Runs kernels as `moac verify --emulate` does; `done` hears of each.
///
/// # Panics
/// If a case cannot be run.
pub fn verdicts(
    candidates: &[Candidate],
    schedules: &[u64],
    done: &(dyn Fn(&Verdict) + Sync),
) -> Vec<Verdict> {
    let watch = Watch { case: &|_, _| {}, done, stop: &AtomicBool::new(false) };
    session::on_emulator(candidates, schedules, &watch).unwrap_or_else(|error| panic!("{error}"))
}
