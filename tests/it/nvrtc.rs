//! NVRTC: where it is found, what it makes of good kernels, and how each kind of bad one is refused.

use std::path::Path;

use moac_compiler::hint::Hint;
use moac_compiler::nvrtc::{Allowance, Attempt, CompileError, NvrtcError, Outcome, Search, Source};
use moac_runtime::arch::Arch;
use moac_tests::nvrtc;

fn source(text: &str, arch: Arch) -> Source {
    Source {
        symbol: "k".to_owned(),
        text: text.to_owned(),
        headers: Vec::new(),
        arch,
        allowance: Allowance::default(),
    }
}

fn refusal(source: &Source) -> CompileError {
    nvrtc().compile(source).expect_err("the kernel must not compile")
}

/// 256 bytes of static shared memory, one barrier.
const GOOD: &str = r#"
extern "C" __global__ void k(float* a, int n) {
  __shared__ float s[64];
  s[threadIdx.x] = a[threadIdx.x];
  __syncthreads();
  a[threadIdx.x] = s[n];
}"#;

/// 64 live values for at most 32 registers.
const SPILLING: &str = r#"
extern "C" __global__ void __launch_bounds__(1024, 2) k(float* a, int n) {
  float x[64];
#pragma unroll
  for (int i = 0; i < 64; i++) x[i] = a[i * n];
  for (int j = 0; j < n; j++) {
#pragma unroll
    for (int i = 0; i < 64; i++) x[i] = x[i] * x[(i + 7) % 64] + a[i];
  }
#pragma unroll
  for (int i = 0; i < 64; i++) a[i * n + 1] = x[i];
}"#;

/// An array that is indexed at run time lives in memory: 400 bytes of stack.
const STACKED: &str = r#"
extern "C" __global__ void k(float* a, int n) {
  float y[100];
  for (int i = 0; i < 100; i++) y[i] = a[i + n];
  a[0] = y[n];
}"#;

/// Reads the accumulator of a wgmma before it has waited for it.
const SERIALISED: &str = r#"
extern "C" __global__ void __launch_bounds__(128) k(float* a, unsigned long long x, unsigned long long y) {
  float d0 = a[0], d1 = a[1], d2 = a[2], d3 = a[3];
  asm volatile("wgmma.fence.sync.aligned;");
  for (int i = 0; i < 4; i++) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0, %1, %2, %3}, %4, %5, 1, 1, 1, 0, 0;"
        : "+f"(d0), "+f"(d1), "+f"(d2), "+f"(d3) : "l"(x), "l"(y));
    asm volatile("wgmma.commit_group.sync.aligned;");
    d0 *= 1.5f;
  }
  asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
  a[threadIdx.x] = d0 + d1 + d2 + d3;
}"#;

#[test]
fn one_call_makes_a_cubin_and_its_ptx_for_every_architecture() {
    for arch in Arch::ALL {
        let compiled = nvrtc().compile(&source(GOOD, arch)).unwrap();
        assert_eq!(&compiled.cubin[..4], b"\x7fELF", "{arch}");
        assert_eq!(compiled.cubin[18..20], 190_u16.to_le_bytes(), "{arch}: the machine is EM_CUDA");
        assert!(compiled.ptx.contains(&format!("\n.target {arch}\n")), "{arch}: {:.400}", compiled.ptx);
        assert!(compiled.ptx.ends_with('}') || compiled.ptx.ends_with('\n'), "no NUL at the end");
        let resources = compiled.resources;
        assert_eq!((resources.static_shared_bytes, resources.barriers), (256, 1), "{arch}");
        assert_eq!((resources.stack_bytes, resources.spill_store_bytes), (0, 0), "{arch}");
        assert!((4..=32).contains(&resources.registers), "{arch}: {resources:?}");
        assert_eq!(compiled.warnings, [""; 0], "{arch}");
    }
}

#[test]
fn ptx_alone_is_that_of_the_machine_code() {
    for (text, arch) in [(GOOD, Arch::Sm80), (GOOD, Arch::Sm90a), (STACKED, Arch::Sm90a)] {
        let kernel = Source {
            allowance: Allowance { stack_bytes: 400, ..Allowance::default() },
            ..source(text, arch)
        };
        assert_eq!(nvrtc().ptx(&kernel).unwrap(), nvrtc().compile(&kernel).unwrap().ptx, "{arch}");
    }
    let error = nvrtc().ptx(&source("not C++", Arch::Sm90a)).unwrap_err();
    assert!(matches!(error, CompileError::Source { .. }), "{error}");
}

#[test]
fn the_same_source_gives_the_same_bytes_from_any_thread() {
    let kernel = source(GOOD, Arch::Sm90a);
    let first = nvrtc().compile(&kernel).unwrap();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| nvrtc().compile(&kernel).unwrap())).collect();
        for thread in threads {
            assert_eq!(thread.join().unwrap(), first);
        }
    });
}

#[test]
fn headers_come_from_memory() {
    let mut kernel =
        source("#include <moac/a.cuh>\nextern \"C\" __global__ void k(int* p) { *p = kB; }", Arch::Sm80);
    kernel.headers = vec![
        ("moac/a.cuh".to_owned(), "#pragma once\n#include <moac/b.cuh>".to_owned()),
        ("moac/b.cuh".to_owned(), "#pragma once\nconstexpr int kB = 4711;".to_owned()),
    ];
    assert!(nvrtc().compile(&kernel).unwrap().ptx.contains("4711"));
    kernel.headers.pop();
    let CompileError::Source { log, .. } = refusal(&kernel) else { panic!() };
    assert!(log.contains("moac/b.cuh"), "{log}");
}

#[test]
fn a_source_error_shows_where() {
    let error = refusal(&source("extern \"C\" __global__ void k() {\n  b;\n}", Arch::Sm80));
    let text = error.to_string();
    assert!(text.starts_with("kernel `k` does not compile for sm_80:\nk.cu(2): error: "), "{text}");
    assert!(text.contains("identifier \"b\" is undefined"), "{text}");
}

#[test]
fn warnings_are_reported() {
    let text = "extern \"C\" __global__ void k(int* p) { int unused = 1; *p = 2; }";
    let warnings = nvrtc().compile(&source(text, Arch::Sm80)).unwrap().warnings;
    assert!(matches!(&warnings[..], [one] if one.contains("\"unused\"")), "{warnings:?}");
}

#[test]
fn spills_fail_unless_declared() {
    let mut kernel = source(SPILLING, Arch::Sm90a);
    let error = refusal(&kernel);
    let CompileError::LocalMemory { what, found, declared: 0, .. } = error else { panic!("{error}") };
    assert_eq!(what, "spilled registers");
    assert_eq!(
        error.to_string(),
        format!("kernel `k` for sm_90a has {found} bytes of spilled registers, but declares 0")
    );
    kernel.allowance = Allowance { spill_bytes: found, stack_bytes: 1024, ..Allowance::default() };
    let resources = nvrtc().compile(&kernel).unwrap().resources;
    assert_eq!(resources.spill_store_bytes.max(resources.spill_load_bytes), found);
    kernel.allowance.spill_bytes -= 1;
    assert!(matches!(refusal(&kernel), CompileError::LocalMemory { .. }));
}

#[test]
fn stack_frames_fail_unless_declared() {
    let mut kernel = source(STACKED, Arch::Sm80);
    assert_eq!(
        refusal(&kernel).to_string(),
        "kernel `k` for sm_80 has 400 bytes of stack frame, but declares 0"
    );
    kernel.allowance.stack_bytes = 400;
    assert_eq!(nvrtc().compile(&kernel).unwrap().resources.stack_bytes, 400);
}

#[test]
fn serialised_wgmma_fails_unless_declared() {
    let mut kernel = source(SERIALISED, Arch::Sm90a);
    let text = refusal(&kernel).to_string();
    assert!(text.starts_with("kernel `k` for sm_90a has serialised wgmma instructions"), "{text}");
    assert!(text.contains("(C75"), "{text}");
    kernel.allowance.serialised = true;
    assert!(nvrtc().compile(&kernel).is_ok());
}

#[test]
fn hopper_instructions_want_the_hopper_architecture() {
    let error = refusal(&source(SERIALISED, Arch::Sm90));
    assert!(error.to_string().contains("wgmma"), "{error}");
}

#[test]
fn a_kernel_of_another_name_is_missed() {
    let error = refusal(&source("extern \"C\" __global__ void other() {}", Arch::Sm80));
    assert_eq!(
        error.to_string(),
        "the source of kernel `k` for sm_80 has no `extern \"C\" __global__` function of that name"
    );
}

#[test]
fn a_nul_in_a_source_is_an_error() {
    let error = refusal(&source("// \0", Arch::Sm80));
    assert_eq!(
        error.to_string(),
        "NVRTC failed on kernel `k` for sm_80: nvrtcCreateProgram: a text contains a NUL byte"
    );
}

/// A folder as the package, a toolkit or a fetched copy has it, with links to the NVRTC of this machine.
fn copy_of_nvrtc(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    nvrtc();
    // By what is mapped: where the loader found it by name, its path is not known otherwise.
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let library = maps.split_whitespace().find(|word| word.contains("/libnvrtc.so")).unwrap();
    for entry in Path::new(library).parent().unwrap().read_dir().unwrap() {
        let entry = entry.unwrap();
        if !entry.file_name().to_string_lossy().starts_with("libnvrtc") {
            continue;
        }
        std::os::unix::fs::symlink(entry.path(), folder.join(entry.file_name())).unwrap();
    }
}

fn places(search: &Search) -> Vec<(String, bool)> {
    let attempts = match search.run() {
        Ok((_, attempts)) => attempts,
        Err(NvrtcError::NotFound { searched }) => searched,
        Err(error) => panic!("{error}"),
    };
    let found = |attempt: &Attempt| matches!(attempt.outcome, Outcome::Found { .. });
    attempts.iter().map(|attempt| (attempt.place.clone(), found(attempt))).collect()
}

#[test]
fn places_are_tried_in_their_order() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let python = at("python3");
    std::fs::write(&python, format!("#!/bin/sh\necho\necho {}\n", at("site").display())).unwrap();
    std::fs::set_permissions(&python, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let search = Search {
        named: None,
        toolkits: vec![at("home"), at("path")],
        loader: false,
        python: Some(python.clone()),
        fetched: Some(at("fetched")),
    };
    let names = [
        format!("CUDA toolkit {}", at("home").display()),
        format!("CUDA toolkit {}", at("path").display()),
        format!("packages of {}", python.display()),
        format!("fetched copy {}", at("fetched").display()),
    ];
    let none: Vec<_> = names.iter().map(|name| (name.clone(), false)).collect();
    assert_eq!(places(&search), none);
    // From the last place to the first, each new one is preferred.
    let folders = [
        (3, "fetched/nvidia/cu13/lib"),
        (2, "site/nvidia/cuda_nvrtc/lib"),
        (1, "path/lib64"),
        (0, "home/lib"),
    ];
    for (index, folder) in folders {
        copy_of_nvrtc(&at(folder));
        let mut expected = none[..=index].to_vec();
        expected[index].1 = true;
        assert_eq!(places(&search), expected);
    }
    let named = Search { named: Some(at("home/lib")), ..search };
    assert_eq!(places(&named), [("`MOAC_NVRTC`".to_owned(), true)]);
}

#[test]
fn a_missing_or_strange_library_is_a_typed_error() {
    let nowhere = Search::default().run().unwrap_err();
    assert!(matches!(&nowhere, NvrtcError::NotFound { searched } if searched.is_empty()));
    assert!(nowhere.hints()[0].contains("moac doctor --fetch"));

    let named = |path: &Path| Search { named: Some(path.to_owned()), ..Search::default() }.run().unwrap_err();
    let missing = named(Path::new("/nowhere/libnvrtc.so"));
    let text = missing.to_string();
    assert!(text.starts_with("`MOAC_NVRTC` names /nowhere/libnvrtc.so, which is unusable: "), "{text}");
    assert!(missing.hints()[0].contains("CUDA 12.8"));

    // A library that loads and is something else.
    assert_eq!(
        named(Path::new("libm.so.6")).to_string(),
        "`MOAC_NVRTC` names libm.so.6, which is unusable: it has no function `nvrtcVersion`"
    );

    // A damaged file where a toolkit should have one: it is named, and the search goes on.
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("lib64")).unwrap();
    std::fs::write(root.path().join("lib64/libnvrtc.so.13"), b"not a library").unwrap();
    let search = Search { toolkits: vec![root.path().to_owned()], ..Search::default() };
    let NvrtcError::NotFound { searched } = search.run().unwrap_err() else { panic!() };
    assert!(
        matches!(&searched[0].outcome, Outcome::Unusable { path, .. } if path.ends_with("libnvrtc.so.13"))
    );
}

/// The search of one folder of libraries, as a toolkit has it.
fn search_of(root: &Path) -> Search {
    Search { toolkits: vec![root.to_owned()], ..Search::default() }
}

#[test]
fn a_bad_neighbour_spoils_no_library() {
    use std::os::unix::fs::symlink;
    let root = tempfile::tempdir().unwrap();
    let lib = root.path().join("lib");
    copy_of_nvrtc(&lib);
    let found = |search: &Search| match search.run() {
        Ok((nvrtc, searched)) => (nvrtc.path().to_owned(), searched.len()),
        Err(error) => panic!("{error}"),
    };
    let good = found(&search_of(root.path()));
    assert_eq!(good.1, 1);
    // Newer names that lead nowhere or hold nothing, and builtins of other versions that do either.
    symlink("/nowhere/libnvrtc.so.99", lib.join("libnvrtc.so.99")).unwrap();
    std::fs::write(lib.join("libnvrtc.so.98"), b"").unwrap();
    symlink("/nowhere/b", lib.join("libnvrtc-builtins.so.12.9")).unwrap();
    std::fs::write(lib.join("libnvrtc-builtins.so.11.0"), b"").unwrap();
    std::fs::write(lib.join("libnvrtc-builtins.so.99.0"), b"not a library").unwrap();
    for search in [search_of(root.path()), Search { named: Some(lib.clone()), ..Search::default() }] {
        let (nvrtc, searched) = search.run().unwrap();
        assert_eq!(nvrtc.path(), good.0);
        let reasons: Vec<String> = searched.iter().map(ToString::to_string).collect();
        assert!(reasons[0].contains("libnvrtc.so.99") && reasons[0].contains("No such file"), "{reasons:?}");
        assert!(reasons[1].contains("libnvrtc.so.98") && reasons[1].contains("too short"), "{reasons:?}");
        assert_eq!(reasons.len(), 3);
    }
    // A toolkit is named by its root, too.
    let named = Search { named: Some(root.path().to_owned()), ..Search::default() };
    assert_eq!(found(&named).0, good.0);
}

#[test]
fn links_are_followed_to_the_builtins() {
    let root = tempfile::tempdir().unwrap();
    let lib = root.path().join("lib");
    copy_of_nvrtc(&lib);
    let library = search_of(root.path()).run().unwrap().0.path().canonicalize().unwrap();
    let link = root.path().join("elsewhere/libnvrtc.so");
    std::fs::create_dir(link.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(&library, &link).unwrap();
    // In a process that has not loaded the builtins yet, so that only what lies beside the library can serve.
    let doctor = |path: &Path| {
        let mut command = crate::cli::command(&["doctor", "--json"]);
        command.env("MOAC_NVRTC", path).env("MOAC_CACHE_DIR", root.path());
        serde_json::from_str::<serde_json::Value>(&crate::cli::finish(command).stdout).unwrap()
    };
    let told = doctor(&link);
    assert_eq!(told["nvrtc"]["build"], nvrtc().build(), "{told}");
    let told = doctor(&root.path().join("none/libnvrtc.so"));
    let why = told["nvrtc"]["searched"][0].as_str().unwrap();
    assert!(
        why.contains("none/libnvrtc.so: cannot open shared object file: No such file or directory"),
        "{why}"
    );
    let told = doctor(link.parent().unwrap().parent().unwrap().join("empty").as_path());
    assert_eq!(told["nvrtc"]["path"], serde_json::Value::Null);
}

#[test]
fn a_conda_environment_is_searched_like_a_toolkit() {
    let root = tempfile::tempdir().unwrap();
    copy_of_nvrtc(&root.path().join("targets").join(format!("{}-linux", std::env::consts::ARCH)).join("lib"));
    let mut command = crate::cli::command(&["doctor", "--json"]);
    command.env("CONDA_PREFIX", root.path()).env("MOAC_CACHE_DIR", root.path());
    let told: serde_json::Value = serde_json::from_str(&crate::cli::finish(command).stdout).unwrap();
    // A toolkit of this machine comes later, one that a variable names earlier.
    assert!(told["nvrtc"]["path"].as_str().unwrap().starts_with(root.path().to_str().unwrap()), "{told}");
}

#[test]
fn it_says_which_build_it_is() {
    let [major, minor] = nvrtc().cuda();
    assert!(nvrtc().build().starts_with(&format!("{major}.{minor}.")), "{}", nvrtc().build());
}
