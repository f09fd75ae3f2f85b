//! Each misuse of barriers, bulk and tensor copies, registers and clusters, and the finding that reports it. The right versions are
//! the kernels of `copies`, clean under every schedule there.

use crate::copies::PTX;
use crate::support::{Edit, apply};
use moac_emulator::{
    FindingKind, Launch, Memory, Module, OobFill, Report, Swizzle, TensorMap, TensorType, launch,
};

use FindingKind::{
    AsyncInFlight, BarrierMisuse, Deadlock, Misaligned, MissingProxyFence, Misuse, OutOfBounds, Race,
    Uninitialised,
};

/// Runs a kernel of `instructions.cu` with memory of the right size; `bytes` are what a copy moves.
fn run(module: &Module, kernel: &str, bytes: u32, seed: u64) -> Report {
    let mut memory = Memory::new();
    let from = memory.alloc_filled("in", 4096, 1);
    let to = memory.alloc("out", 4096);
    let dump = memory.alloc("dump", 512);
    let map = |a| {
        TensorMap::tiled(
            TensorType::F32,
            a,
            &[64, 16],
            &[256],
            &[16, 8],
            &[1, 1],
            Swizzle::None,
            OobFill::Zeros,
        )
        .unwrap()
        .bytes()
    };
    let line =
        TensorMap::tiled(TensorType::U32, from, &[16], &[], &[16], &[1], Swizzle::None, OobFill::Zeros);
    let line = line.unwrap();
    let l = match kernel {
        "bulk" => Launch::new("bulk", 1, 64)
            .param(&from.to_le_bytes())
            .param(&to.to_le_bytes())
            .param(&bytes.to_le_bytes()),
        "tensor2" => {
            let l = Launch::new(kernel, 1, 32)
                .param(&map(from))
                .param(&map(to))
                .param(&dump.to_le_bytes())
                .param(&512u32.to_le_bytes());
            (0..5).fold(l, |l, _| l.param(&0u32.to_le_bytes()))
        }
        "reduce" => Launch::new(kernel, 2, 32)
            .param(&line.bytes())
            .param(&(from + 1024).to_le_bytes())
            .param(&(from + 2048).to_le_bytes()),
        "cluster" => Launch::new(kernel, 2, 32).param(&from.to_le_bytes()).param(&to.to_le_bytes()),
        "phases" => Launch::new(kernel, 1, 128).param(&to.to_le_bytes()),
        "copy_arrive" => Launch::new(kernel, 1, 64).param(&from.to_le_bytes()).param(&to.to_le_bytes()),
        _ => Launch::new(kernel, 1, 256).param(&to.to_le_bytes()),
    };
    let mut l = l.dynamic_shared(2048).schedule(seed);
    l.max_instructions = 100_000;
    launch(module, &mut memory, &l).unwrap()
}

/// The text of one kernel.
fn kernel_text(name: &str) -> String {
    let at = PTX.find(&format!(".visible .entry {name}(")).unwrap();
    let end = PTX[at..].find("\n\n}\n").unwrap();
    let externs = ".extern .shared .align 1024 .b8 smem[];";
    format!(".version 9.0\n.target sm_90a\n.address_size 64\n{externs}\n{}\n}}\n", &PTX[at..at + end])
}

#[test]
fn misused_copies_are_reported() {
    const COPY: &str = "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%r17], [%rd1], %r12, [%r19], %rd3;";
    let cases: &[(&str, &str, FindingKind, &[Edit])] = &[
        (
            "data read before the copy is waited for",
            "bulk",
            AsyncInFlight,
            &[Edit("mbarrier.try_wait.parity.shared::cta.b64 p, [%r20], %r21;", 1, "setp.eq.u32 p, 0, 0;")],
        ),
        (
            "a wait for the phase before",
            "bulk",
            AsyncInFlight,
            &[Edit("mov.u32 \t%r21, 0;", 1, "mov.u32 %r21, 1;")],
        ),
        (
            "nothing expected",
            "bulk",
            Deadlock,
            &[Edit("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r19], %r12;", 1, "")],
        ),
        (
            "an arrival that expects no bytes",
            "bulk",
            AsyncInFlight,
            &[Edit(
                "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r19], %r12;",
                1,
                "mbarrier.arrive.shared::cta.b64 _, [%r19];",
            )],
        ),
        ("more bytes expected than come", "bulk", Deadlock, &[Edit("[%r19], %r12;", 1, "[%r19], 1040;")]),
        (
            "no fence behind the initialisation",
            "bulk",
            MissingProxyFence,
            &[Edit("fence.mbarrier_init.release.cluster;", 1, "")],
        ),
        (
            "no proxy fence before the store",
            "bulk",
            MissingProxyFence,
            &[Edit("fence.proxy.async.shared::cta;", 1, "")],
        ),
        ("no barrier before the store", "bulk", Race, &[Edit("bar.sync \t0;", 2, "")]),
        ("the store is not committed", "bulk", AsyncInFlight, &[Edit("cp.async.bulk.commit_group;", 1, "")]),
        ("the store is not waited for", "bulk", AsyncInFlight, &[Edit("cp.async.bulk.wait_group 0;", 1, "")]),
        (
            "a wait that leaves the store",
            "bulk",
            AsyncInFlight,
            &[Edit("cp.async.bulk.wait_group 0;", 1, "cp.async.bulk.wait_group 1;")],
        ),
        (
            "shared memory changed before the store has read it",
            "bulk",
            AsyncInFlight,
            &[Edit("cp.async.bulk.wait_group 0;", 1, "st.shared.u32 [%r38], 1; cp.async.bulk.wait_group 0;")],
        ),
        (
            "output read before the store has written it",
            "bulk",
            AsyncInFlight,
            &[Edit(
                "cp.async.bulk.wait_group 0;",
                1,
                "cp.async.bulk.wait_group.read 0; ld.global.u32 %r38, [%rd2]; cp.async.bulk.wait_group 0;",
            )],
        ),
        (
            "two copies to one place",
            "bulk",
            Race,
            &[Edit(
                COPY,
                1,
                "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r17], [%rd1], %r12, [%r19]; cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r17], [%rd1], %r12, [%r19];",
            )],
        ),
        (
            "a copy onto bytes that were just stored",
            "bulk",
            MissingProxyFence,
            &[Edit(
                COPY,
                1,
                "st.shared.u32 [%r17], 1; cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r17], [%rd1], %r12, [%r19];",
            )],
        ),
        (
            "global data just stored",
            "bulk",
            MissingProxyFence,
            &[Edit(
                COPY,
                1,
                "st.global.u32 [%rd1], 1; fence.proxy.async.shared::cta; cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r17], [%rd1], %r12, [%r19];",
            )],
        ),
        (
            "a destination that is not a multiple of 16",
            "bulk",
            Misaligned,
            &[Edit("bytes.L2::cache_hint [%r17]", 1, "bytes.L2::cache_hint [%r17+8]")],
        ),
        (
            "a source that is not a multiple of 16",
            "bulk",
            Misaligned,
            &[Edit("[%r17], [%rd1],", 1, "[%r17], [%rd1+4],")],
        ),
        (
            "a source behind its end",
            "bulk",
            OutOfBounds,
            &[Edit("[%r17], [%rd1],", 1, "[%r17], [%rd1+3584],")],
        ),
        (
            "a destination behind the end of shared memory",
            "bulk",
            OutOfBounds,
            &[Edit("bytes.L2::cache_hint [%r17]", 1, "bytes.L2::cache_hint [%r17+1536]")],
        ),
        (
            "a source that nobody wrote",
            "bulk",
            Uninitialised,
            &[Edit("[%r17], [%rd1],", 1, "[%r17], [%rd2],")],
        ),
        (
            "an address without a barrier",
            "bulk",
            Misuse,
            &[
                Edit("%r12, [%r19], %rd3;", 1, "%r12, [%r19+8], %rd3;"),
                Edit("_ZZ4bulkE3bar;", 1, "_ZZ4bulkE3bar[2];"),
            ],
        ),
        (
            "a barrier at an odd place",
            "bulk",
            Misaligned,
            &[
                Edit("%r12, [%r19], %rd3;", 1, "%r12, [%r19+4], %rd3;"),
                Edit("_ZZ4bulkE3bar;", 1, "_ZZ4bulkE3bar[2];"),
            ],
        ),
        (
            "a map of another rank",
            "tensor2",
            Misuse,
            &[Edit(".2d.shared", 1, ".1d.shared"), Edit("{%r13, %r14}], [%r2", 1, "{%r13}], [%r2")],
        ),
        (
            "bytes that are not a map",
            "tensor2",
            Misuse,
            &[Edit("prefetch.tensormap", 1, "add.u64 %rd6, %rd6, 64; prefetch.tensormap")],
        ),
        (
            "a box at a multiple of 64 only",
            "tensor2",
            Misaligned,
            &[Edit("complete_tx::bytes [%r22]", 1, "complete_tx::bytes [%r22+64]")],
        ),
        (
            "no proxy fence before a reduction",
            "reduce",
            MissingProxyFence,
            &[Edit("fence.proxy.async.shared::cta;", 1, "")],
        ),
        ("no wait for a reduction", "reduce", AsyncInFlight, &[Edit("cp.async.bulk.wait_group 0;", 1, "")]),
        (
            "a plain store beside a reduction",
            "reduce",
            Race,
            &[Edit(
                "cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32",
                1,
                "cp.async.bulk.global.shared::cta.bulk_group",
            )],
        ),
        (
            "copies of threads read without the barrier",
            "copy_arrive",
            AsyncInFlight,
            &[Edit("mbarrier.try_wait.parity.shared::cta.b64 p, [%r6], %r7;", 1, "setp.eq.u32 p, 0, 0;")],
        ),
        (
            "an arrival for copies that counts twice",
            "copy_arrive",
            Deadlock,
            &[Edit("arrive.noinc", 1, "arrive")],
        ),
        (
            "registers in the other direction",
            "control",
            Misuse,
            &[Edit("setmaxnreg.dec.sync.aligned.u32 24;", 1, "setmaxnreg.inc.sync.aligned.u32 24;")],
        ),
        (
            "more registers than there are",
            "control",
            Deadlock,
            &[
                Edit("setmaxnreg.dec", 1, "setmaxnreg.inc"),
                Edit("u32 24;", 1, "u32 256;"),
                Edit(".minnctapersm 1", 1, ".minnctapersm 2"),
            ],
        ),
        (
            "no bound for the registers at launch",
            "control",
            Misuse,
            &[Edit(".maxntid 256, 1, 1", 1, ""), Edit(".minnctapersm 1", 1, "")],
        ),
        (
            "warps of a warpgroup take different registers",
            "control",
            Misuse,
            &[Edit("setp.lt.u32 \t%p1, %r1, 128;", 1, "setp.lt.u32 \t%p1, %r1, 64;")],
        ),
        (
            "no cluster barrier behind the initialisation",
            "cluster",
            Race,
            &[Edit("barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;", 1, "")],
        ),
        (
            "a wait for the cluster without an arrival",
            "cluster",
            BarrierMisuse,
            &[Edit("barrier.cluster.arrive.aligned;", 1, "")],
        ),
        (
            "an arrival at the cluster without a wait",
            "cluster",
            BarrierMisuse,
            &[Edit(
                "barrier.cluster.arrive.aligned;",
                1,
                "barrier.cluster.arrive.aligned;\nbarrier.cluster.arrive.aligned;",
            )],
        ),
        (
            "mail read before it came",
            "cluster",
            AsyncInFlight,
            &[Edit("mbarrier.try_wait.parity.shared::cta.b64 p, [%r21], %r36;", 1, "setp.eq.u32 p, 0, 0;")],
        ),
        (
            "a rank that the cluster does not have",
            "cluster",
            Misuse,
            &[Edit("xor.b32  \t%r25, %r6, 1;", 1, "or.b32  \t%r25, %r6, 2;")],
        ),
        (
            "an arrival that must not complete does",
            "phases",
            Misuse,
            &[Edit("mbarrier.arrive.shared::cta.b64", 1, "mbarrier.arrive.noComplete.shared::cta.b64")],
        ),
        (
            "data written before its readers are done",
            "phases",
            Race,
            &[Edit("mbarrier.test_wait.shared::cta.b64 p, [%r30], %rd5;", 1, "setp.eq.u32 p, 0, 0;")],
        ),
    ];
    for (name, kernel, kind, edits) in cases {
        let source = edits.iter().fold(kernel_text(kernel), |s, &e| apply(&s, e));
        let module = Module::parse(&source).unwrap_or_else(|e| panic!("{name}: {e}"));
        for seed in 0..5 {
            let report = run(&module, kernel, 1024, seed);
            // Before its initialisation, which races, there is no barrier at all.
            let kinds = if *kind == Race { [Race, Misuse] } else { [*kind; 2] };
            assert!(
                report.findings.iter().any(|f| kinds.contains(&f.kind)),
                "{name}, schedule {seed}: {:#?}",
                report.findings
            );
        }
    }
    for kernel in ["bulk", "tensor2", "reduce", "copy_arrive", "control", "cluster", "phases"] {
        let report = run(&Module::parse(&kernel_text(kernel)).unwrap(), kernel, 1024, 1);
        assert!(report.clean(), "{kernel}: {:#?}", report.findings);
    }
}

/// A kernel of one warp with two barriers at `%b` and 64 bytes of data at `%s`; lane 0 runs `first`, then all run `then`.
fn barrier_kernel(first: &str, then: &str) -> Module {
    Module::parse(&format!(
        ".version 9.0\n.target sm_90a\n.address_size 64\n.visible .entry k()\n.maxntid 64, 1, 1\n{{\n\
         .reg .b32 %r<4>; .reg .b32 %b, %s; .reg .b64 %p<4>; .reg .pred %q, %w;\n.shared .align 8 .b64 bars[2]; .shared .align 16 .b8 data[64];\n\
         mov.u32 %b, bars; mov.u32 %s, data; mov.u32 %r0, %tid.x; setp.ne.u32 %q, %r0, 0; @%q bra ALL;\n{first}\n\
         ALL:\nbar.sync 0;\n{then}\nret;\n}}\n"
    ))
    .unwrap()
}

#[test]
fn misused_barriers_are_reported() {
    const INIT: &str = "mbarrier.init.shared::cta.b64 [%b], 64;";
    const ARRIVE: &str = "mbarrier.arrive.shared::cta.b64 %p0, [%b];";
    const LOOP: &str = "L: mbarrier.try_wait.shared::cta.b64 %w, [%b], %p0; @!%w bra L;";
    let twice = format!("{INIT}\n{INIT}");
    let reinit = format!("{INIT}\nmbarrier.inval.shared::cta.b64 [%b];\n{INIT}");
    let cases: &[(&str, Option<FindingKind>, &str, String)] = &[
        ("the right use", None, INIT, format!("{ARRIVE}\n{LOOP}")),
        ("invalidated in between", None, &reinit, format!("{ARRIVE}\n{LOOP}")),
        ("initialised twice", Some(Misuse), &twice, format!("{ARRIVE}\n{LOOP}")),
        ("never initialised", Some(Misuse), "", format!("{ARRIVE}\n{LOOP}")),
        ("used after it was invalidated", Some(Misuse), "mbarrier.init.shared::cta.b64 [%b], 64; mbarrier.inval.shared::cta.b64 [%b];", format!("{ARRIVE}\n{LOOP}")),
        ("for no arrivals", Some(Misuse), "mbarrier.init.shared::cta.b64 [%b], 0;", String::new()),
        ("for too many arrivals", Some(Misuse), "mbarrier.init.shared::cta.b64 [%b], 1048576;", String::new()),
        ("at a place that is not a multiple of 8", Some(Misaligned), "mbarrier.init.shared::cta.b64 [%b+4], 1;", String::new()),
        ("outside shared memory", Some(OutOfBounds), "mbarrier.init.shared::cta.b64 [%b+80], 1;", String::new()),
        ("too few arrivals", Some(Deadlock), "mbarrier.init.shared::cta.b64 [%b], 65;", format!("{ARRIVE}\n{LOOP}")),
        ("more arrivals than the phase lacks", Some(Misuse), "mbarrier.init.shared::cta.b64 [%b], 100;", "mbarrier.arrive.shared::cta.b64 %p0, [%b], 3;".into()),
        ("an arrival count of nothing", Some(Misuse), INIT, "mbarrier.arrive.shared::cta.b64 %p0, [%b], 0;".into()),
        ("more bytes expected than can be counted", Some(Misuse), INIT, "mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%b], 1000000;".into()),
        ("a state of an old phase", Some(Misuse), "mbarrier.init.shared::cta.b64 [%b], 1; mbarrier.arrive.shared::cta.b64 %p0, [%b]; mbarrier.arrive.shared::cta.b64 _, [%b]; mbarrier.test_wait.shared::cta.b64 %w, [%b], %p0;", String::new()),
        ("invalidated with bytes under way", Some(Misuse), "mbarrier.init.shared::cta.b64 [%b], 64; mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%b], 16; mbarrier.inval.shared::cta.b64 [%b];", String::new()),
        ("data that nothing hands over", Some(Race), INIT, format!("@!%q st.shared.u32 [%s], 7;\n{ARRIVE}\nld.shared.u32 %r1, [%s];")),
        ("an arrival that releases nothing", Some(Race), INIT, format!("@!%q st.shared.u32 [%s], 7;\nmbarrier.arrive.release.cta.shared::cta.b64 %p0, [%b];\n{LOOP}\nld.shared.u32 %r1, [%s];").replace("release.cta", "relaxed.cta")),
        ("a wait that acquires nothing", Some(Race), INIT, format!("@!%q st.shared.u32 [%s], 7;\n{ARRIVE}\n{LOOP}\nld.shared.u32 %r1, [%s];").replace("try_wait.shared", "try_wait.relaxed.cta.shared")),
        ("a relaxed wait and a fence", None, INIT, format!("@!%q st.shared.u32 [%s], 7;\n{ARRIVE}\n{LOOP}\nfence.acq_rel.cta; ld.shared.u32 %r1, [%s];").replace("try_wait.shared", "try_wait.relaxed.cta.shared")),
        ("data handed over", None, INIT, format!("@!%q st.shared.u32 [%s], 7;\n{ARRIVE}\n{LOOP}\nld.shared.u32 %r1, [%s];")),
        ("bytes completed by hand", None, "mbarrier.init.shared::cta.b64 [%b], 1; mbarrier.arrive.expect_tx.shared::cta.b64 %p0, [%b], 8; mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [%b], 8; mbarrier.test_wait.shared::cta.b64 %w, [%b], %p0; @!%w trap;", String::new()),
    ];
    for (name, kind, first, then) in cases {
        let module = barrier_kernel(first, then);
        for seed in 0..20 {
            let mut l = Launch::new("k", 1, 64).schedule(seed);
            l.max_instructions = 10_000;
            let report = launch(&module, &mut Memory::new(), &l).unwrap();
            match kind {
                None => assert!(report.clean(), "{name}, schedule {seed}: {:#?}", report.findings),
                Some(k) => assert!(
                    report.findings.iter().any(|f| f.kind == *k),
                    "{name}, schedule {seed}: {:#?}",
                    report.findings
                ),
            }
        }
    }
}

/// A stage of 512 bytes at `%s` that is copied in, is read and given back by the lanes of one warp (`%a` is a lane's own 16 bytes, its
/// predicate `%q` false in lane 0), and is copied into again by a thread of another warp.
fn stage_kernel(give_back: &str, take: &str) -> Module {
    const COPY: &str = "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%b], 512; \
                        cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%s], [%from], 512, [%b];";
    Module::parse(&format!(
        ".version 9.0\n.target sm_90a\n.address_size 64\n.visible .entry k(.param .u64 in, .param .u64 out)\n.maxntid 64, 1, 1\n{{\n\
         .reg .b32 %t, %v, %a, %b, %e, %s; .reg .b64 %from, %to; .reg .pred %q, %w;\n\
         .shared .align 8 .b64 bars[2]; .shared .align 16 .b8 data[512];\n\
         ld.param.u64 %from, [in]; ld.param.u64 %to, [out]; mov.u32 %b, bars; add.u32 %e, %b, 8; mov.u32 %s, data;\n\
         mov.u32 %t, %tid.x; setp.ne.u32 %q, %t, 0; mad.lo.u32 %a, %t, 16, %s; @%q bra MADE;\n\
         mbarrier.init.shared::cta.b64 [%b], 1; mbarrier.init.shared::cta.b64 [%e], 32;\n\
         fence.mbarrier_init.release.cluster;\n{COPY}\n\
         MADE: bar.sync 0;\nsetp.ge.u32 %w, %t, 32; @%w bra OTHER;\n\
         FULL: mbarrier.try_wait.parity.shared::cta.b64 %w, [%b], 0; @!%w bra FULL;\n{give_back}\nret;\n\
         OTHER: setp.ne.u32 %w, %t, 32; @%w bra END;\n{take}\n{COPY}\n\
         AGAIN: mbarrier.try_wait.parity.shared::cta.b64 %w, [%b], 1; @!%w bra AGAIN;\nEND: ret;\n}}\n"
    ))
    .unwrap()
}

#[test]
fn a_stage_that_was_read_is_copied_into_across_a_proxy_fence() {
    const READ: &str = "ld.shared.u32 %v, [%a];";
    const FENCE: &str = "fence.proxy.async.shared::cta;";
    const ARRIVE: &str = "mbarrier.arrive.shared::cta.b64 _, [%e];";
    const WAIT: &str = "EMPTY: mbarrier.try_wait.parity.shared::cta.b64 %w, [%e], 0; @!%w bra EMPTY;";
    const COPY_OUT: &str = "bar.warp.sync -1; @%q bra OUT; cp.async.bulk.global.shared::cta.bulk_group [%to], [%s], 512; \
                            cp.async.bulk.commit_group; cp.async.bulk.wait_group 0; OUT: bar.warp.sync -1;";
    // A name, the finding expected, the readers' instructions and the copier's.
    type Case<'a> = (&'a str, Option<FindingKind>, &'a [&'a str], &'a [&'a str]);
    let cases: &[Case<'_>] = &[
        ("fenced by the readers", None, &[READ, FENCE, ARRIVE], &[WAIT]),
        ("fenced by the copier", None, &[READ, ARRIVE], &[WAIT, FENCE]),
        ("read by nobody", None, &[ARRIVE], &[WAIT]),
        ("read by a copy alone", None, &[COPY_OUT, ARRIVE], &[WAIT]),
        ("not fenced", Some(MissingProxyFence), &[READ, ARRIVE], &[WAIT]),
        ("fenced before the read", Some(MissingProxyFence), &[FENCE, READ, ARRIVE], &[WAIT]),
        ("fenced before the wait", Some(MissingProxyFence), &[READ, ARRIVE], &[FENCE, WAIT]),
        (
            "a fence of other memory",
            Some(MissingProxyFence),
            &[READ, "fence.proxy.async.global;", ARRIVE],
            &[WAIT],
        ),
        ("fenced by one lane for itself", Some(MissingProxyFence), &[READ, "@!%q", FENCE, ARRIVE], &[WAIT]),
        ("read before a copy read it", Some(MissingProxyFence), &[READ, COPY_OUT, ARRIVE], &[WAIT]),
        ("not waited for", Some(Race), &[READ, FENCE, ARRIVE], &[]),
    ];
    for (name, kind, give_back, take) in cases {
        let module = stage_kernel(&give_back.join("\n"), &take.join("\n"));
        for seed in 0..10 {
            let mut memory = Memory::new();
            let (from, to) = (memory.alloc_filled("in", 512, 1), memory.alloc("out", 512));
            let mut l =
                Launch::new("k", 1, 64).param(&from.to_le_bytes()).param(&to.to_le_bytes()).schedule(seed);
            l.max_instructions = 10_000;
            let report = launch(&module, &mut memory, &l).unwrap();
            let found: Vec<FindingKind> = report.findings.iter().map(|f| f.kind).collect();
            match kind {
                // Which of the two accesses comes first is up to the schedule.
                Some(Race) => assert!(
                    found.iter().any(|f| matches!(f, Race | AsyncInFlight)),
                    "{name}, schedule {seed}: {:#?}",
                    report.findings
                ),
                Some(k) => assert_eq!(found, [*k], "{name}, schedule {seed}: {:#?}", report.findings),
                None => assert!(report.clean(), "{name}, schedule {seed}: {:#?}", report.findings),
            }
        }
    }
}

#[test]
fn an_unordered_initialisation_is_reported() {
    let then = "@!%q mbarrier.init.shared::cta.b64 [%b], 64;\nbar.warp.sync -1;\nsetp.lt.u32 %w, %r0, 32;\n@%w bra D;\n\
                mbarrier.arrive.shared::cta.b64 %p0, [%b];\nD:";
    let module = barrier_kernel("", then);
    let mut races = 0;
    for seed in 0..20 {
        let report = launch(&module, &mut Memory::new(), &Launch::new("k", 1, 64).schedule(seed)).unwrap();
        // Too early, there is no barrier; later, the use races with the initialisation.
        assert!(
            report.findings.iter().all(|f| matches!(f.kind, Race | Misuse)) && !report.findings.is_empty()
        );
        races += usize::from(report.findings.iter().any(|f| f.kind == Race));
    }
    assert!((1..20).contains(&races));
}

#[test]
fn unknown_instructions_are_named() {
    for i in [
        "mbarrier.frobnicate.b64 [%b];",
        "setmaxnreg.inc.sync.aligned.u32 25;",
        "cp.async.bulk.tensor.2d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes [%b], [%p0, {%r0, %r0}], [%b];",
        "cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f16 [%p0], [%b], 16;",
        "fence.proxy.texture;",
        "mapa.shared::cta.u32 %r0, %b, 0;",
        "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.u8 [%b], 1, [%b];",
    ] {
        let source = format!(
            ".version 9.0\n.target sm_90a\n.address_size 64\n.visible .entry k()\n{{\n.reg .b32 %r<4>; .reg .b32 %b; .reg .b64 %p<4>;\n{i}\nret;\n}}\n"
        );
        let e = Module::parse(&source).unwrap_err();
        assert_eq!(e.line, 7, "{e}");
        assert!(e.text.contains(i), "{e}");
    }
}
