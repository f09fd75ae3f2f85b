//! Defects: for every kind of finding a small kernel that has it, which must be reported at its line, and the same kernel without it,
//! which must be clean. Both under several schedules.

mod bounds;
mod cooperation;
mod copies;
mod global_races;
mod limits;
mod mutations;
mod shared_races;

use moac_emulator::{Dim3, Finding, FindingKind, Launch, Memory, Module, Report, launch};

const SCHEDULES: u64 = 12;

/// A kernel of one parameter `data` (`%rd1`), with `%r1` the thread, `%r2` the CTA, `%r3` the address of shared `s`.
fn module(body: &str) -> Module {
    let text = format!(
        ".version 9.0\n.target sm_90a\n.address_size 64\n\
         .const .align 4 .b8 constants[4] = {{1}};\n\
         .visible .entry k(.param .u64 data) {{ .shared .align 128 .b8 s[4096]; \
         .reg .b16 %h<9>; .reg .b32 %r<30>; .reg .f32 %f<9>; .reg .b64 %rd<20>; .reg .pred %p<9>; \
         ld.param.u64 %rd1, [data]; mov.u32 %r1, %tid.x; mov.u32 %r2, %ctaid.x; mov.u32 %r3, s;\n{body}\nret; }}"
    );
    Module::parse(&text).unwrap_or_else(|e| panic!("{e}"))
}

/// How to run a body.
#[derive(Clone, Copy)]
struct On {
    ctas: u32,
    threads: u32,
    /// Bytes of `data`, all zero.
    bytes: u64,
}

const WARP: On = On { ctas: 1, threads: 32, bytes: 4096 };
const CTA: On = On { ctas: 1, threads: 128, bytes: 4096 };
const GRID: On = On { ctas: 6, threads: 64, bytes: 4096 };

fn report(body: &str, on: On, schedule: u64) -> Report {
    let mut memory = Memory::new();
    let data = memory.alloc_filled("data", on.bytes, 0);
    memory.alloc_filled("neighbour", 64, 0);
    let mut l = Launch::new("k", on.ctas, on.threads).param(&data.to_le_bytes()).schedule(schedule);
    l.max_instructions = 20_000;
    launch(&module(body), &mut memory, &l).unwrap()
}

/// The body is clean under every schedule.
fn clean(body: &str, on: On) {
    for schedule in 0..SCHEDULES {
        let r = report(body, on, schedule);
        let found: Vec<String> = r.findings.iter().map(ToString::to_string).collect();
        assert!(r.clean(), "schedule {schedule}: {}\n{body}", found.join("\n"));
    }
}

/// Under every schedule the first finding of `kind` is at the line that holds `at`; the finding of the first schedule.
fn found(body: &str, on: On, kind: FindingKind, at: &str) -> Finding {
    let mut first = None;
    for schedule in 0..SCHEDULES {
        let r = report(body, on, schedule);
        let f = r.findings.iter().find(|f| f.kind == kind && f.text.contains(at));
        let Some(f) = f else {
            panic!("schedule {schedule}: no {kind:?} at `{at}` but {:#?}\n{body}", r.findings)
        };
        assert_eq!(f.kernel, "k");
        first.get_or_insert(f.clone());
    }
    first.unwrap()
}

/// The body is clean as it stands, and reported once `part` is taken out.
fn needs(body: &str, part: &str, on: On, kind: FindingKind, at: &str) -> Finding {
    assert!(body.contains(part), "`{part}` is not in the kernel");
    clean(body, on);
    found(&body.replacen(part, "", 1), on, kind, at)
}

fn place(f: &Finding) -> (&str, i64) {
    let p = f.place.as_ref().unwrap();
    (&p.0, p.1)
}

#[test]
fn reports_are_the_same_twice_and_on_any_number_of_cores() {
    let body = "mul.wide.u32 %rd2, %r1, 4; add.s64 %rd2, %rd1, %rd2;\nld.global.u32 %r4, [%rd2]; st.global.u32 [%rd2], %r2;\natom.shared.add.u32 %r5, [s], 1;\nbar.sync 0;";
    let one = rayon_pool(1, || format!("{:?}", report(body, GRID, 3)));
    let two = rayon_pool(2, || format!("{:?}", report(body, GRID, 3)));
    assert_eq!(one, two);
    assert_eq!(one, format!("{:?}", report(body, GRID, 3)));
}

fn rayon_pool<T: Send>(threads: usize, f: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(f)
}

#[test]
fn only_the_chosen_ctas_run() {
    let mut memory = Memory::new();
    let data = memory.alloc_filled("data", 64, 0);
    let mut l = Launch::new("k", 8, 32).param(&data.to_le_bytes());
    let some: Vec<Dim3> = vec![(5, 0, 0), (2, 0, 0)];
    l.ctas = Some(some);
    let m = module(
        "mul.wide.u32 %rd2, %r2, 4; add.s64 %rd2, %rd1, %rd2; setp.eq.u32 %p1, %r1, 0; @%p1 st.global.u32 [%rd2], 7;",
    );
    let r = launch(&m, &mut memory, &l).unwrap();
    assert!(r.clean());
    assert_eq!(r.ctas.iter().map(|c| c.cta).collect::<Vec<_>>(), [(2, 0, 0), (5, 0, 0)]);
    let out = memory.read(data, 32).unwrap();
    assert_eq!(out.chunks(4).map(|w| w[0]).collect::<Vec<_>>(), [0, 0, 7, 0, 0, 7, 0, 0]);
}
