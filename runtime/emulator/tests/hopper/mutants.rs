//! Seeded defects in the attention kernel: each is a text edit of its PTX, and each must be reported, as a finding or as a wrong result.

use crate::attention::{Case, PTX, TOLERANCE, error};
use crate::support::{Edit, apply};
use moac_emulator::Module;

struct Mutant {
    name: &'static str,
    edits: &'static [Edit],
}

const fn mutant(name: &'static str, edits: &'static [Edit]) -> Mutant {
    Mutant { name, edits }
}

/// A wait that does not wait.
const GO: &str = "setp.eq.s32 p, 0, 0;";
const FENCE: &str = "wgmma.fence.sync.aligned;";
const COMMIT: &str = "wgmma.commit_group.sync.aligned;";
const WAIT_0: &str = "wgmma.wait_group.sync.aligned 0;";
const WAIT_1: &str = "wgmma.wait_group.sync.aligned 1;";
const ARRIVE: &str = "mbarrier.arrive.shared::cta.b64 _, ";
/// The constant part of the descriptors: 128-byte swizzle, groups of eight rows 1024 bytes apart.
const DESC: &str = "4611686293305360384;";

/// Not here, because they are not defects: K released early, or on the barrier of the ring's other stage. The producer waits for V's
/// stage in between, which orders the two.
const MUTANTS: &[Mutant] = &[
    // Barriers, waits, arrivals.
    mutant("no CTA barrier behind the initialisation", &[Edit("bar.sync \t0;", 1, "")]),
    mutant("no wait for Q", &[Edit("mbarrier.try_wait.parity.shared::cta.b64 p, [%r132], %r136;", 1, GO)]),
    mutant(
        "no wait for the first K",
        &[Edit("mbarrier.try_wait.parity.shared::cta.b64 p, [%r134], %r136;", 1, GO)],
    ),
    mutant(
        "no wait for K in the loop",
        &[Edit("mbarrier.try_wait.parity.shared::cta.b64 p, [%r223], %r224;", 1, GO)],
    ),
    mutant(
        "no wait for V in the loop",
        &[Edit("mbarrier.try_wait.parity.shared::cta.b64 p, [%r230], %r231;", 1, GO)],
    ),
    mutant(
        "no wait for the last V",
        &[Edit("mbarrier.try_wait.parity.shared::cta.b64 p, [%r347], %r348;", 1, GO)],
    ),
    mutant(
        "no wait for an empty K stage",
        &[Edit("mbarrier.try_wait.parity.shared::cta.b64 p, [%r502], %r503;", 1, GO)],
    ),
    mutant(
        "no wait for an empty V stage",
        &[Edit("mbarrier.try_wait.parity.shared::cta.b64 p, [%r511], %r503;", 1, GO)],
    ),
    mutant("the first K is not released", &[Edit("mbarrier.arrive.shared::cta.b64 _, [%r166];", 1, "")]),
    mutant("K is not released in the loop", &[Edit("mbarrier.arrive.shared::cta.b64 _, [%r294];", 1, "")]),
    mutant("V is not released", &[Edit("mbarrier.arrive.shared::cta.b64 _, [%r328];", 1, "")]),
    mutant(
        "V is released before its product is waited for",
        &[
            Edit(WAIT_0, 2, ""),
            Edit(ARRIVE, 3, "\nmbarrier.arrive.shared::cta.b64 _, "),
            Edit(
                "\nmbarrier.arrive.shared::cta.b64 _, [%r328];",
                1,
                "mbarrier.arrive.shared::cta.b64 _, [%r328];\n",
            ),
            Edit("$L__BB0_19:", 1, "$L__BB0_19:\nwgmma.wait_group.sync.aligned 0;"),
        ],
    ),
    mutant(
        "an empty barrier for one arrival instead of two",
        &[Edit("[%r120], %r131;", 1, "[%r120], %r127;")],
    ),
    mutant("a full barrier for two arrivals instead of one", &[Edit("[%r116], %r127;", 1, "[%r116], 2;")]),
    mutant(
        "K completes on V's barrier",
        &[Edit("{%r517, %r518, %r89}], [%r504];", 1, "{%r517, %r518, %r89}], [%r504+32];")],
    ),
    mutant(
        "a barrier that is not initialised",
        &[Edit("mbarrier.init.shared::cta.b64 [%r130], %r131;", 1, "")],
    ),
    mutant(
        "a barrier initialised twice",
        &[Edit(
            "mbarrier.init.shared::cta.b64 [%r130], %r131;",
            1,
            "mbarrier.init.shared::cta.b64 [%r128], %r131;",
        )],
    ),
    mutant(
        "the turn at the tensor cores is awaited by the wrong number",
        &[Edit("bar.sync %r2, 256;", 1, "bar.sync %r2, 128;")],
    ),
    mutant("nobody gives the first turn", &[Edit("bar.arrive 1, 256;", 1, "")]),
    mutant("no barrier between the output's rows and its copy", &[Edit("bar.sync %r417, 128;", 1, "")]),
    // Bytes, phases, stages.
    mutant("Q expects too few bytes", &[Edit("mov.u32 \t%r490, 16384;", 1, "mov.u32 \t%r490, 16368;")]),
    mutant("K and V expect too many bytes", &[Edit("mov.u32 \t%r514, 8192;", 1, "mov.u32 \t%r514, 8208;")]),
    mutant(
        "the producer's phase is off by one",
        &[Edit("not.b32 \t%r521, %r520;", 1, "mov.b32 \t%r521, %r520;")],
    ),
    mutant(
        "the consumers' K phase is off by one",
        &[Edit("shr.u32 \t%r256, %r576, 1;", 1, "shr.u32 \t%r256, %r576, 1; not.b32 %r256, %r256;")],
    ),
    mutant(
        "the consumers' V phase does not turn",
        &[Edit("and.b32  \t%r231, %r279, 1;", 1, "mov.u32 \t%r231, 0;")],
    ),
    mutant(
        "the producer's stage is off by one",
        &[Edit(
            "and.b32  \t%r527, %r526, 8192;",
            1,
            "and.b32  \t%r527, %r526, 8192; xor.b32 %r527, %r527, 8192;",
        )],
    ),
    mutant(
        "the consumers' K stage is off by one",
        &[Edit(
            "and.b32  \t%r258, %r257, 8192;",
            1,
            "and.b32  \t%r258, %r257, 8192; xor.b32 %r258, %r258, 8192;",
        )],
    ),
    mutant(
        "the K ring's stage does not advance",
        &[Edit("and.b32  \t%r258, %r257, 8192;", 1, "mov.u32 \t%r258, 0;")],
    ),
    // Fences.
    mutant(
        "no fence behind the barriers' initialisation",
        &[Edit("fence.mbarrier_init.release.cluster;", 1, "")],
    ),
    mutant("no proxy fence before the output's copy", &[Edit("fence.proxy.async.shared::cta;", 1, "")]),
    mutant(
        "a proxy fence for the wrong space",
        &[Edit("fence.proxy.async.shared::cta;", 1, "fence.proxy.async.global;")],
    ),
    mutant("no wgmma fence before the first product", &[Edit(FENCE, 1, "")]),
    mutant("no wgmma fence in the loop", &[Edit(FENCE, 2, "")]),
    mutant("no wgmma fence before the last product", &[Edit(FENCE, 3, "")]),
    // Commits and waits.
    mutant("the first product is not committed", &[Edit(COMMIT, 1, "")]),
    mutant("QK in the loop is not committed", &[Edit(COMMIT, 2, "")]),
    mutant("PV in the loop is not committed", &[Edit(COMMIT, 3, "")]),
    mutant("the last product is not committed", &[Edit(COMMIT, 4, "")]),
    mutant("no wait for the first product", &[Edit(WAIT_0, 1, "")]),
    mutant("scores touched before their wait", &[Edit(WAIT_1, 1, "")]),
    mutant("a wait that leaves one group too many", &[Edit(WAIT_1, 1, "wgmma.wait_group.sync.aligned 2;")]),
    mutant("weights overwritten before PV is waited for", &[Edit(WAIT_0, 2, "")]),
    mutant("no wait for the last product", &[Edit(WAIT_0, 3, "")]),
    mutant("the output's copy is not committed", &[Edit("cp.async.bulk.commit_group;", 1, "")]),
    mutant("the output's copy is not waited for", &[Edit("cp.async.bulk.wait_group 0;", 1, "")]),
    // Descriptors and layouts.
    mutant("K's swizzle mode is 64 bytes", &[Edit(DESC, 10, "9223372311732748288;")]),
    mutant("K is read without a swizzle", &[Edit(DESC, 10, "274877972480;")]),
    mutant("V's groups of rows are 512 bytes apart", &[Edit(DESC, 14, "4611686155866406912;")]),
    mutant("K's second step is the third", &[Edit("16416;", 1, "16448;")]),
    mutant("V's second step is half a step", &[Edit("34816;", 1, "33792;")]),
    mutant(
        "a descriptor outside shared memory",
        &[Edit(
            "or.b64  \t%rd39, %rd49, 4611686293305360384;",
            1,
            "or.b64  \t%rd39, %rd49, 4611686293305376767;",
        )],
    ),
    mutant("V is not transposed", &[Edit("p, 1, 1, 1;", 1, "p, 1, 1, 0;")]),
    mutant("scores are added to the last tile's", &[Edit("mov.u32 \t%r226, 0;", 1, "mov.u32 \t%r226, 1;")]),
    mutant(
        "the output is swizzled wrongly",
        &[Edit("and.b32  \t%r455, %r454, 112;", 1, "and.b32  \t%r455, %r454, 48;")],
    ),
    mutant(
        "half of Q is not loaded",
        &[Edit("[%rd68, {%r593, %r499, %r4}]", 1, "[%rd68, {%r593, %r5, %r4}]")],
    ),
    mutant("another head's K", &[Edit("div.s32 \t%r89, %r4, %r95;", 1, "mov.u32 \t%r89, %r4;")]),
    // Spans and masks.
    mutant(
        "the window is one token short",
        &[Edit("sub.s32 \t%r17, %r13, %r93;", 1, "sub.s32 \t%r17, %r13, %r93; add.s32 %r17, %r17, 1;")],
    ),
    mutant(
        "the window begins a tile late",
        &[Edit("shr.u32 \t%r6, %r107, 6;", 1, "add.s32 \t%r107, %r107, 64; shr.u32 \t%r6, %r107, 6;")],
    ),
    mutant("the sink's tiles are skipped", &[Edit("min.s32 \t%r7, %r112, %r6;", 1, "mov.u32 \t%r7, 0;")]),
    mutant(
        "a column of the loop's mask forgets the window",
        &[Edit("setp.gt.s32 \t%p157, %r300, %r17;", 1, "setp.eq.s32 \t%p157, %r300, %r300;")],
    ),
    mutant(
        "a column of the causal mask is missing",
        &[Edit("setp.le.s32 \t%p22, %r195, %r13;", 1, "setp.eq.s32 \t%p22, %r195, %r195;")],
    ),
    mutant(
        "the last tile is left out",
        &[Edit("add.s32 \t%r8, %r113, %r7;", 1, "add.s32 \t%r8, %r113, %r7; add.s32 %r8, %r8, -1;")],
    ),
    // Registers.
    mutant("registers are taken that nobody gave", &[Edit("setmaxnreg.dec.sync.aligned.u32 24;", 1, "")]),
];

/// Long and short rings, a sink apart from the window, grouped heads, a ragged tail.
const CASES: [Case; 3] = [
    Case { tokens: 437, span: 100, sink: 70, heads: 2, kv_heads: 1 },
    Case { tokens: 200, span: 7, sink: 3, heads: 1, kv_heads: 1 },
    Case { tokens: 384, span: 1 << 20, sink: 0, heads: 1, kv_heads: 1 },
];

#[test]
fn seeded_defects_are_reported() {
    let inputs: Vec<_> =
        CASES.iter().map(|c| (c, c.inputs())).map(|(c, x)| (c, c.reference(&x), x)).collect();
    let mut missed = Vec::new();
    for m in MUTANTS {
        let source = m.edits.iter().fold(PTX.to_owned(), |s, &e| apply(&s, e));
        let module = Module::parse(&source).unwrap_or_else(|e| panic!("{}: {e}", m.name));
        let caught = (0..3).find_map(|seed| {
            inputs.iter().find_map(|(case, expected, x)| {
                let (report, out) = case.run(&module, x, seed);
                let e = error(&out, expected);
                match report.findings.first() {
                    Some(f) => Some(f.to_string()),
                    None if !report.completed || e > TOLERANCE => Some(format!("wrong by {e:.3}")),
                    None => None,
                }
            })
        });
        match caught {
            Some(how) => println!("{}: {how}", m.name),
            None => missed.push(m.name),
        }
    }
    assert!(missed.is_empty(), "{} of {} defects were not reported: {missed:?}", missed.len(), MUTANTS.len());
}

#[test]
fn the_right_kernel_is_clean_under_many_schedules() {
    let module = Module::parse(PTX).unwrap();
    for case in CASES {
        let x = case.inputs();
        let mut first = None;
        for seed in 0..24 {
            let (report, out) = case.run(&module, &x, seed);
            assert!(
                report.clean(),
                "{case:?}, schedule {seed}: {}",
                report.findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
            );
            // Schedules change nothing: not a bit of the output, not a byte of what was moved.
            let moved = (report.counters.global, report.counters.matrix_flops, out);
            let same = first.get_or_insert_with(|| moved.clone());
            assert!(*same == moved, "{case:?}: schedule {seed} differs");
        }
        let e = error(&first.unwrap().2, &case.reference(&x));
        assert!(e < TOLERANCE, "{case:?}: {e}");
    }
}
