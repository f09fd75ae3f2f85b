//! The engine's kernels of small models, compiled for the emulator: every shape that has a path of its own.

use moac_compiler::build;
use moac_compiler::lower::{Lowered, Target, lower};
use moac_compiler::nvrtc::{Compiled, Source};
use moac_compiler::verify::device::DeviceError;
use moac_compiler::verify::glue::{self, GlueCase};
use moac_compiler::verify::{Device as _, Emulated, GlueCandidate};
use moac_runtime::arch::Arch;
use moac_runtime::glue::{EngineShape, Op};
use moac_runtime::plan::{DType, ModelShape, Plan};

use crate::proven::recall;

/// A model small enough for the emulator.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// Its purpose.
    pub name: &'static str,
    /// Query heads, KV heads, elements of a head.
    pub heads: [u32; 3],
    /// Elements of a row, and of the MLP's.
    pub widths: [u32; 2],
    /// Tokens.
    pub vocab: u32,
    /// Whether q, k and v have a bias, and whether the heads of q and k have a norm.
    pub extras: [bool; 2],
    /// Element type.
    pub dtype: DType,
}

/// Rows that are not a whole number of warps, of one and of several vectors a thread; both head dimensions; a bias, norms,
/// neither; vocabularies of one part and of several, in whole vectors and not.
pub const MODELS: [Model; 3] = [
    Model {
        name: "llama",
        heads: [9, 3, 64],
        widths: [576, 1536],
        vocab: 6004,
        extras: [false, false],
        dtype: DType::Bf16,
    },
    Model {
        name: "qwen2, a long row",
        heads: [14, 2, 128],
        widths: [8456, 1032],
        vocab: 2049,
        extras: [true, false],
        dtype: DType::F16,
    },
    Model {
        name: "qwen3, few tokens",
        heads: [20, 4, 128],
        widths: [40, 8],
        vocab: 33,
        extras: [true, true],
        dtype: DType::Bf16,
    },
];

impl Model {
    /// The model that the engine's kernels are compiled for.
    pub fn shape(&self) -> EngineShape {
        let pairs = self.heads[2] / 2;
        let frequency = |pair| 500_000f64.powf(-f64::from(pair) / f64::from(pairs));
        EngineShape {
            hidden: self.widths[0],
            intermediate: self.widths[1],
            vocab: self.vocab,
            norm_eps: 1e-5,
            frequencies: (0..pairs).map(frequency).collect(),
            qkv_bias: self.extras[0],
            qk_norm: self.extras[1],
        }
    }

    /// A plan of one layer in which every head sees everything.
    pub fn plan(&self) -> Plan {
        let [num_heads, num_kv_heads, head_dim] = self.heads;
        Plan {
            format: moac_runtime::plan::PLAN_FORMAT.to_owned(),
            model: ModelShape {
                name: self.name.to_owned(),
                num_layers: 1,
                num_heads,
                num_kv_heads,
                head_dim,
                rope_theta: None,
                context: None,
                softmax_scale: None,
            },
            sink: 64,
            min_span: 128,
            alphas: vec![vec![0.0; num_heads as usize]],
            betas: vec![vec![1.0; num_heads as usize]],
            provenance: None,
        }
    }

    /// The plan lowered for one architecture, with the engine.
    ///
    /// # Panics
    /// If it does not lower, which is a mistake in the model.
    pub fn lowered(&self, arch: Arch) -> Lowered {
        let plan = self.plan();
        let target = Target {
            kv_heads: 0..plan.model.num_kv_heads,
            lengths: vec![128],
            dtype: self.dtype,
            archs: vec![arch],
        };
        let lowered = lower(&plan, &target).and_then(|lowered| lowered.with_engine(&plan, &self.shape()));
        lowered.expect("the models are sound")
    }

    /// The source of an operation's kernel, whose headers may be changed before it is compiled.
    ///
    /// # Panics
    /// If it does not render.
    pub fn source(&self, arch: Arch, op: Op) -> Source {
        let lowered = self.lowered(arch);
        let first = lowered.kernels.len();
        build::sources(&lowered).expect("the template renders").swap_remove(first + self.number(arch, op))
    }

    /// The compiled kernel of an operation.
    pub fn kernel(&self, arch: Arch, op: Op, compiled: Compiled) -> GlueCandidate {
        GlueCandidate::of_lowered(&self.plan(), &self.lowered(arch), self.number(arch, op), compiled)
    }

    /// The place of an operation among an architecture's kernels.
    fn number(&self, arch: Arch, op: Op) -> usize {
        let sizes = self.shape().sizes(&self.plan().model, self.heads[1]);
        sizes.ops(arch).position(|known| known == op).expect("the model has a kernel for the operation")
    }
}

/// The failures of a kernel on the emulator under a schedule, one line each, as far as they are not known from an earlier
/// run.
///
/// # Panics
/// If it cannot be run.
pub fn wrong(candidate: &GlueCandidate, schedule: u64) -> Vec<String> {
    let cases = glue::cases(candidate.op);
    recall(&format!("wrong {candidate:?} {cases:?} {schedule}"), || {
        let mut device = Emulated::new(schedule);
        let failed = |error: DeviceError| format!("{}: {error}", candidate.symbol);
        device.load_glue(candidate).map_err(failed).unwrap();
        let failures = |case: &GlueCase| {
            let outcome = glue::run(&mut device, candidate, case).map_err(failed).unwrap();
            outcome.failures.into_iter().map(|failure| format!("{}: {failure}", case.name)).collect()
        };
        cases.iter().flat_map::<Vec<String>, _>(failures).collect()
    })
}
