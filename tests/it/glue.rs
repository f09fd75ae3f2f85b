//! The engine's own kernels: right on the emulator, in every order of warps; their text; their place in an artifact; and
//! whether a defect in them would be found.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use moac_compiler::build::Builder;
use moac_compiler::cache::Cache;
use moac_compiler::lower::Error;
use moac_compiler::names::cache_key;
use moac_compiler::nvrtc::Compiled;
use moac_compiler::render::Renderer;
use moac_compiler::verify::{Emulated, GlueCandidate, glue};
use moac_runtime::arch::Arch;
use moac_runtime::artifact::{Artifact, Role};
use moac_runtime::glue::Op;
use moac_tests::emulate::schedules;
use moac_tests::glue::{MODELS, Model, wrong};
use moac_tests::nvrtc;
use moac_tests::proven::recall;
use rayon::prelude::*;
use serde_json::{Value, json};

use crate::compile::{finish, moac};
use crate::mutants::table::{Mutant, m};

pub(crate) fn candidate(model: &Model, arch: Arch, op: Op) -> GlueCandidate {
    let compiled = nvrtc().compile(&model.source(arch, op));
    model.kernel(arch, op, compiled.unwrap_or_else(|error| panic!("{}: {error}", model.name)))
}

/// For an architecture that overlaps kernels and for one that does not.
fn check(op: Op) {
    for model in &MODELS {
        for (arch, schedules) in [(Arch::Sm80, 1), (Arch::Sm90a, schedules())] {
            let candidate = candidate(model, arch, op);
            for schedule in 0..schedules {
                let wrong = wrong(&candidate, schedule);
                assert!(
                    wrong.is_empty(),
                    "{}, {arch}, schedule {schedule}:\n{}",
                    model.name,
                    wrong.join("\n")
                );
            }
        }
    }
}

#[test]
fn embedding() {
    check(Op::Embed);
}

#[test]
fn norms() {
    check(Op::Norm);
}

#[test]
fn rotation() {
    check(Op::Rotate);
}

#[test]
fn activation() {
    check(Op::Activate);
}

#[test]
fn sampling() {
    check(Op::Sample);
}

#[test]
fn the_source_of_every_operation() {
    let mut settings = insta::Settings::clone_current();
    settings.set_omit_expression(true);
    settings.set_prepend_module_to_snapshot(false);
    settings.add_filter(concat!("moac ", env!("CARGO_PKG_VERSION"), ";"), "moac [version];");
    settings.set_snapshot_path("snapshots/render");
    settings.bind(|| {
        let renderer = Renderer::new().unwrap();
        for spec in &MODELS[0].lowered(Arch::Sm90a).engine.unwrap().specs {
            insta::assert_snapshot!(
                format!("engine-{}", spec.op.name()),
                renderer.render_glue(spec).unwrap()
            );
        }
    });
}

#[test]
fn the_text_of_a_kernel_does_not_depend_on_the_architecture_or_the_plan() {
    let model = &MODELS[1];
    let of = |arch| model.lowered(arch).engine.unwrap().specs;
    assert_eq!(of(Arch::Sm80), of(Arch::Sm90a)[..Op::ALL.len()]);
    let symbols = |model: &Model| {
        let lowered = model.lowered(Arch::Sm90);
        lowered.engine.unwrap().kernels.into_iter().map(|kernel| kernel.symbol).collect::<Vec<_>>()
    };
    let same = symbols(model).into_iter().zip(symbols(&MODELS[2])).filter(|(a, b)| a == b).count();
    assert_eq!(same, 0, "kernels of different models have different names");
}

#[test]
fn a_model_that_the_kernels_cannot_be_compiled_for_is_refused() {
    let mut model = MODELS[0];
    model.widths[0] = 12;
    let plan = model.plan();
    let lowered = MODELS[0].lowered(Arch::Sm90a);
    let Err(Error::Engine { reason }) = lowered.with_engine(&plan, &model.shape()) else {
        panic!("a row of 12 elements is not a whole number of vectors");
    };
    assert_eq!(reason, "`engine.shape.hidden` is 12, expected a multiple of 8 from 8 to 32768");
}

#[test]
fn an_artifact_has_the_engine_beside_attention() {
    let model = &MODELS[2];
    let (plan, lowered) = (model.plan(), model.lowered(Arch::Sm90a));
    let builder = Builder {
        nvrtc: nvrtc(),
        cache: &Cache::none(),
        jobs: None,
        stop: &AtomicBool::new(false),
        progress: &|_, _| {},
    };
    let artifact = builder.build(&plan, &lowered).unwrap().artifact;
    let manifest = artifact.manifest();
    assert_eq!(manifest.engine.as_ref().unwrap().shape, model.shape());
    assert_eq!(manifest.kernels.len(), lowered.all_kernels().count());
    for op in Op::ALL {
        let kernel = artifact.engine_kernel(op, Arch::Sm90a).unwrap();
        assert_eq!(kernel.role, Role::Glue(op));
        assert!(artifact.ptx(kernel).unwrap().contains(&format!(".entry {}(", kernel.symbol)));
    }
    let candidates = GlueCandidate::of_artifact(&artifact, |_| true).unwrap();
    assert_eq!(candidates.iter().map(|it| it.op).collect::<Vec<_>>(), [&Op::ALL[..], &[Op::Output]].concat());
    // Without the engine, the same attention kernels.
    let alone = builder.build(&plan, &moac_compiler::lower::Lowered { engine: None, ..lowered }).unwrap();
    let attention = alone.artifact.manifest();
    assert_eq!((attention.kernels.as_slice(), &attention.engine), (&manifest.kernels[..2], &None));
}

/// A plan in the reference's format and a configuration of its model, with rows of `hidden` elements.
fn files(folder: &Path, hidden: u32) {
    let config = json!({
        "model_type": "llama", "hidden_size": hidden, "intermediate_size": 96, "num_hidden_layers": 1,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 101,
        "rms_norm_eps": 1e-5, "rope_theta": 10_000.0, "max_position_embeddings": 256
    });
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let plan = json!({"alphas": [[0.0, 0.0, 0.0, 0.0]], "betas": [[1.0, 1.0, 1.0, 1.0]]});
    std::fs::write(folder.join("plan.json"), plan.to_string()).unwrap();
}

#[test]
fn a_configuration_brings_the_engine_to_every_command() {
    let folder = tempfile::tempdir().unwrap();
    files(folder.path(), 64);
    let run = |args: &[&str]| {
        let (code, stdout, stderr) = finish(&mut moac(folder.path(), args));
        assert_eq!(code, Some(0), "{stderr}");
        (stdout, stderr)
    };
    let target = ["-m", "config.json", "--arch", "sm_80", "--lengths", "128"];
    run(&[&["compile", "plan.json"], &target[..]].concat());
    let (stdout, _) = run(&["verify", "plan.moac", "--emulate", "--json"]);
    let verified: Value = serde_json::from_str(&stdout).unwrap();
    let roles: Vec<&str> = verified["files"][0]["kernels"]
        .as_array()
        .unwrap()
        .iter()
        .map(|kernel| kernel["role"].as_str().unwrap())
        .collect();
    assert_eq!(roles, ["prefill", "decode", "embed", "norm", "rotate", "activate", "sample"]);
    let (stdout, _) = run(&["inspect", "plan.moac", "--json"]);
    let told: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&told["engine"]["vocab"], &told["kernels"][6]["role"]), (&json!(101), &json!("sample")));
    let diff = ["diff", "plan.json", "plan.moac", "-m", "config.json", "--exit-code"];
    assert_eq!(run(&diff).0, "no difference\n");
    run(&[&["emit", "plan.json", "-o", "out"], &target[..]].concat());
    for name in ["glue/norm", "glue/cut"] {
        assert!(folder.path().join(format!("out/include/moac/{name}.cuh")).exists());
    }
}

#[test]
fn a_model_that_the_engine_is_not_for_gets_attention_and_a_note() {
    let folder = tempfile::tempdir().unwrap();
    files(folder.path(), 60);
    let args = ["compile", "plan.json", "-m", "config.json", "--arch", "sm_80", "--lengths", "128"];
    let (code, _, stderr) = finish(&mut moac(folder.path(), &args));
    let expected = "attention only, without the engine's kernels: no kernels of the engine for this model: \
                    `engine.shape.hidden` is 60, expected a multiple of 8 from 8 to 32768";
    assert!(code == Some(0) && stderr.contains(expected), "{stderr}");
    let artifact = Artifact::open(folder.path().join("plan.moac")).unwrap();
    assert_eq!((artifact.manifest().kernels.len(), &artifact.manifest().engine), (2, &None));
}

/// The first failure that gives a mutant away, if any does.
fn symptom(models: &[Model], op: Op, mutant: &Mutant) -> Option<String> {
    models.iter().rev().find_map(|model| {
        let mut source = model.source(Arch::Sm90a, op);
        let (_, text) = source.headers.iter_mut().find(|(name, _)| name == mutant.file)?;
        assert_eq!(text.matches(mutant.find).count(), 1, "{}: `{}`", mutant.name, mutant.find);
        *text = text.replace(mutant.find, mutant.replace);
        // The source decides the kernel: one that was judged before is not even compiled.
        let question = format!("symptom {model:?} {op:?} {}", cache_key(&source, nvrtc().build()));
        recall(&question, || match nvrtc().ptx(&source) {
            Ok(ptx) => symptom_of(&model.kernel(Arch::Sm90a, op, Compiled { ptx, ..Compiled::default() })),
            Err(error) => panic!("{}: a mutant must compile: {error}", mutant.name),
        })
    })
}

fn symptom_of(candidate: &GlueCandidate) -> Option<String> {
    let mut device = Emulated::new(0);
    moac_compiler::verify::Device::load_glue(&mut device, candidate).unwrap();
    glue::cases(candidate.op).iter().find_map(|case| match glue::run(&mut device, candidate, case) {
        Ok(outcome) => outcome.failures.first().map(|failure| format!("{}: {failure}", case.name)),
        Err(error) => Some(format!("{}: {error}", case.name)),
    })
}

const COMMON: &str = "moac/glue/common.cuh";
const EMBED: &str = "moac/glue/embed.cuh";
const NORM: &str = "moac/glue/norm.cuh";
const ROTATE: &str = "moac/glue/rotate.cuh";
const ACTIVATE: &str = "moac/glue/activate.cuh";
const SAMPLE: &str = "moac/glue/sample.cuh";
const LOGITS: &str = "moac/glue/logits.cuh";
const CUT: &str = "moac/glue/cut.cuh";

const MUTANTS: &[(Op, Mutant)] = &[
    (Op::Embed, m("padding is not zero", EMBED, "idle ? Vec16{} : load", "false ? Vec16{} : load")),
    (Op::Embed, m("the wrong bit is marked", EMBED, "1u << (token % 32)", "1u << (token % 31)")),
    (Op::Embed, m("a lane out of range", EMBED, "r.lane < p.lanes;", "r.lane != kIdle;")),
    (Op::Embed, m("marks are stored, not added", EMBED, "atomicOr(p.seen +", "atomicExch(p.seen +")),
    (Op::Norm, m("a row behind the last", NORM, "p.of_rows - 1)", "p.of_rows + 1)")),
    (
        Op::Norm,
        m(
            "the last vector is left out",
            NORM,
            "if (index(i) >= kVectors) break;",
            "if (index(i) >= kVectors - 1) break;",
        ),
    ),
    (Op::Norm, m("no epsilon", NORM, " + Spec::kEpsilon)", ")")),
    (
        Op::Norm,
        m("a warp's sum is lost", COMMON, "lane < kWarps ? shared[lane]", "lane < kWarps - 1 ? shared[lane]"),
    ),
    (
        Op::Rotate,
        m(
            "turns the other way",
            ROTATE,
            "fmaf(x, angle[i].y, -y * angle[i].x)",
            "fmaf(x, angle[i].y, y * angle[i].x)",
        ),
    ),
    (
        Op::Rotate,
        m(
            "the low part is forgotten",
            ROTATE,
            "fmaf(position, low, fmaf(position, high, -whole))",
            "fmaf(position, high, -whole)",
        ),
    ),
    (
        Op::Rotate,
        m(
            "k takes the norm of q",
            ROTATE,
            "head < Spec::kHeads ? p.q_norm",
            "head <= Spec::kHeads ? p.q_norm",
        ),
    ),
    (Op::Rotate, m("v turns too", ROTATE, "turned = head < kTurned;", "turned = valid;")),
    (
        Op::Activate,
        m(
            "gate for up",
            ACTIVATE,
            "row * 2 * kVectors + kVectors + i",
            "row * 2 * kVectors + i + 0 * kVectors",
        ),
    ),
    (Op::Activate, m("no sign", ACTIVATE, "exp2_fast(-x * kLog2E)", "exp2_fast(x * kLog2E)")),
    (
        Op::Sample,
        m(
            "the last of equals",
            LOGITS,
            "ordered(x)) << 32 | ~token",
            "ordered(x)) << 32 | (token ^ 0x80000000u)",
        ),
    ),
    (Op::Sample, m("the counter stays", SAMPLE, "p.counters[index] = 0;", "")),
    (
        Op::Sample,
        m(
            "penalty the wrong way",
            LOGITS,
            "x[i] > 0.f ? discount : penalty",
            "x[i] > 0.f ? penalty : discount",
        ),
    ),
    (Op::Sample, m("min-p the wrong way", SAMPLE, "-logf(s.min_p) * 65536.f", "logf(s.min_p) * 65536.f")),
    (
        Op::Sample,
        m(
            "tokens on the cut are dropped",
            LOGITS,
            "best - (steps + 2.f) / per_step",
            "best - (steps - 1.f) / per_step",
        ),
    ),
    (Op::Sample, m("half the chance", SAMPLE, "(z >> 31)) >> 40", "(z >> 31)) >> 41")),
    (Op::Sample, m("a part's best twice", SAMPLE, "own = ++next < tops", "own = next < tops")),
    (Op::Sample, m("one token too many", SAMPLE, "static_cast<u64>(s.top_k)", "s.top_k + 1ull")),
    (
        Op::Sample,
        m("top-p forgets top-k", CUT, "keep_up_to(min(last, pass == 0", "keep_up_to(max(last, pass == 0"),
    ),
    (
        Op::Sample,
        m("a carry is lost", CUT, "if (before + value < before) atomicAdd(&shared.high[bin], 1u);", ""),
    ),
    (
        Op::Sample,
        m(
            "the run before",
            CUT,
            "below + shared.warps[run] <= target",
            "below + shared.warps[run] + (1 << 28) <= target",
        ),
    ),
    (
        Op::Sample,
        m("bins are not cleared", CUT, "shared.low[i] = shared.high[i] = 0;", "shared.high[i] = 0;"),
    ),
    (
        Op::Sample,
        m(
            "two use one table of warps",
            CUT,
            "  __syncthreads();  // all threads have read the last call's values\n",
            "",
        ),
    ),
];

#[test]
fn a_defect_of_the_engines_kernels_is_found() {
    all_are_found(&MODELS, MUTANTS);
}

/// Fails with the names of the mutants that no case of any model finds.
pub(crate) fn all_are_found(models: &[Model], mutants: &[(Op, Mutant)]) {
    let unfound: Vec<&str> = mutants
        .par_iter()
        .with_max_len(1)
        .filter_map(|(op, mutant)| {
            let symptom = symptom(models, *op, mutant);
            println!("{}: {}", mutant.name, symptom.as_deref().unwrap_or("NOT FOUND"));
            symptom.is_none().then_some(mutant.name)
        })
        .collect();
    assert!(unfound.is_empty(), "defects that no check finds: {unfound:?}");
}
