//! The linear layers of few rows: right on the emulator, in every order of warps, with every byte counted; and whether a
//! defect in them would be found.

use moac_runtime::arch::Arch;
use moac_runtime::glue::Op;
use moac_runtime::plan::DType;
use moac_tests::emulate::schedules;
use moac_tests::glue::{Model, wrong};
use rayon::prelude::*;

use crate::glue::{all_are_found, candidate};
use crate::mutants::table::{Mutant, m};

/// Depths of one chunk of which some warps have none, of several whole ones, and of one that ends in the middle of a
/// warp's slice; tiles taken in one go and in several, and last ones that are not full; stages that are filled again.
const MODELS: [Model; 3] = [
    model("a shallow one", [4, 2, 64], [96, 32], 1006, DType::Bf16),
    model("two chunks", [8, 2, 64], [1120, 544], 514, DType::F16),
    model("a deep one", [2, 1, 128], [512, 2080], 40, DType::Bf16),
];

const fn model(name: &'static str, heads: [u32; 3], widths: [u32; 2], vocab: u32, dtype: DType) -> Model {
    Model { name, heads, widths, vocab, extras: [false, false], dtype }
}

fn check(op: Op) {
    MODELS.par_iter().for_each(|model| {
        let candidate = candidate(model, Arch::Sm90a, op);
        for schedule in 0..schedules() {
            let wrong = wrong(&candidate, schedule);
            assert!(wrong.is_empty(), "{}, schedule {schedule}:\n{}", model.name, wrong.join("\n"));
        }
    });
}

#[test]
fn qkv() {
    check(Op::Qkv);
}

#[test]
fn output() {
    check(Op::Output);
}

#[test]
fn gate_up() {
    check(Op::GateUp);
}

#[test]
fn down() {
    check(Op::Down);
}

#[test]
fn head() {
    check(Op::Head);
}

const KERNEL: &str = "moac/sm90/linear.cuh";
const STAGE: &str = "moac/sm90/linear_stage.cuh";
const SUMS: &str = "moac/sm90/linear_sums.cuh";

const MUTANTS: &[(Op, Mutant)] = &[
    (
        Op::Qkv,
        m("read before it is there", KERNEL, "    barrier_wait(stages.full(), stages.cursor.phase);\n", ""),
    ),
    (
        Op::Qkv,
        m(
            "copied over before it is read",
            STAGE,
            "        barrier_wait(stages.empty(), stages.cursor.phase ^ 1);\n",
            "",
        ),
    ),
    (
        Op::Qkv,
        m(
            "given back without a proxy fence",
            KERNEL,
            "give_back(stages.empty());",
            "__syncwarp();\n    if (lane == 0) barrier_arrive(stages.empty());",
        ),
    ),
    (
        Op::Qkv,
        m(
            "given back before all lanes are done",
            KERNEL,
            "give_back(stages.empty());",
            "async_proxy_fence();\n    if (lane == 0) barrier_arrive(stages.empty());",
        ),
    ),
    (Op::Qkv, m("one copying warp counts", STAGE, "i * 16, L::kCopyWarps)", "i * 16, 1)")),
    (Op::Qkv, m("x of the chunk before", KERNEL, "in.load(p, chunk + 1)", "in.load(p, chunk)")),
    (
        Op::Head,
        m("a row behind the last", STAGE, "min(tile * kRows + row, Spec::kOut - 1)", "(tile * kRows + row)"),
    ),
    (Op::GateUp, m("up begins a row late", STAGE, "(row >> 3) * kResults", "(row >> 3) * (kResults - 1)")),
    (Op::Down, m("behind the depth", STAGE, "if (Spec::kIn % kDepth == 0) return true;", "return true;")),
    (
        Op::Output,
        m(
            "a tile is left out",
            STAGE,
            "kTiles / gridDim.x * cta + min(cta, kTiles % gridDim.x)",
            "kTiles / gridDim.x * cta",
        ),
    ),
    (Op::Qkv, m("columns past the rows", SUMS, "column() < static_cast<int>(p.rows) && at", "at")),
    (Op::Head, m("results past the row", SUMS, " && at < L::kResults ?", " ?")),
    (
        Op::Down,
        m("a warp's sum is lost", SUMS, "w = 0; w < L::kWarps; ++w) {", "w = 1; w < L::kWarps; ++w) {"),
    ),
    (
        Op::Head,
        m(
            "no barrier in front of the sums",
            SUMS,
            "    named_barrier_sync<1, L::kMathThreads>();\n    const int t",
            "    const int t",
        ),
    ),
    (
        Op::Head,
        m(
            "no barrier behind the sums",
            SUMS,
            "    named_barrier_sync<1, L::kMathThreads>();\n  }\n\n private:",
            "  }\n\n private:",
        ),
    ),
    (Op::Qkv, m("no epsilon", SUMS, " + Spec::kEpsilon)", ")")),
    (Op::Output, m("what was there is forgotten", SUMS, "if (t < count && at >= 0) old", "if (false) old")),
    (
        Op::GateUp,
        m("gate for up", SUMS, "load_shared_float(from + i * 4 + 32)", "load_shared_float(from + i * 4)"),
    ),
    (Op::Qkv, m("no factor", SUMS, "sum = {sum.x * scale, sum.y * scale};", "")),
];

#[test]
fn a_defect_of_a_linear_layer_is_found() {
    all_are_found(&MODELS, MUTANTS);
}
