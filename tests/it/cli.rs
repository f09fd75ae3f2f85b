//! The command line as its users see it: exit codes, what goes where, and the words.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::plans;

/// The result of a run of `moac`.
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    pub(crate) fn of(output: &std::process::Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Self {
            code: output.status.code().unwrap(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }
}

pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moac-under-test"));
    command.args(args).current_dir(plans::folder().join("..")).stdin(Stdio::null());
    // Nothing of the machine decides what a test sees.
    for var in moac_compiler::env::ALL {
        command.env_remove(var.name);
    }
    // Where `CI` is set, a terminal has colours whatever `TERM` says of it.
    for name in ["CI", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "COLORTERM"] {
        command.env_remove(name);
    }
    command
}

pub(crate) fn finish(mut command: Command) -> Run {
    Run::of(&command.output().unwrap())
}

pub(crate) fn moac(args: &[&str]) -> Run {
    finish(command(args))
}

/// The run of a command that must fail: nothing on stdout, and the message.
pub(crate) fn refused(args: &[&str]) -> String {
    let run = moac(args);
    assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{}", run.stderr);
    run.stderr
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Every file below `folder`, sorted, with its text.
fn files(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((path.clone(), std::fs::read_to_string(path).unwrap()));
        }
    }
    found.sort();
    found
}

#[test]
fn emit_writes_sources_headers_and_commands_and_the_same_again() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("a/b");
    let args = ["emit", "plans/odd-heads.json", "-o", text(&out), "--arch", "sm_80,sm_90a"];
    let run = moac(&args);
    assert_eq!((run.code, run.stdout.as_str()), (0, ""));
    let first = files(&out);
    let kernels: Vec<_> =
        first.iter().filter(|(path, _)| path.extension().is_some_and(|it| it == "cu")).collect();
    assert_eq!(kernels.len(), 16, "four layers, two phases, two families");
    assert!(
        out.join("include/moac/params.cuh").is_file() && out.join("include/moac/sm80/decode.cuh").is_file()
    );
    let commands: Value =
        serde_json::from_str(&std::fs::read_to_string(out.join("compile_commands.json")).unwrap()).unwrap();
    assert_eq!(commands.as_array().unwrap().len(), 16);
    for entry in commands.as_array().unwrap() {
        assert!(Path::new(entry["directory"].as_str().unwrap()).is_absolute());
        assert!(out.join(entry["file"].as_str().unwrap()).is_file());
    }
    assert_eq!(moac(&args).code, 0);
    assert_eq!(files(&out), first);
    // What is left of another plan is said, not taken away.
    let run = moac(&["emit", "plans/dense.json", "-o", text(&out)]);
    assert!(run.stderr.contains("note: 16 other .cu files are left in"), "{}", run.stderr);
}

#[test]
fn a_bad_plan_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let mut count = 0;
    for entry in plans::folder().join("invalid").read_dir().unwrap() {
        let path = entry.unwrap().path();
        let message = refused(&["emit", text(&path), "-o", text(&out)]);
        assert!(message.starts_with("error: `"), "{message}");
        assert!(!out.exists());
        let html = folder.path().join("out.html");
        refused(&["inspect", text(&path), "--html", text(&html)]);
        assert!(!html.exists());
        count += 1;
    }
    assert!(count >= 30);
}

#[test]
fn lengths_heads_and_architectures_are_refused_in_words() {
    let refused = |args: &[&str]| refused(&[&["inspect", "plans/odd-heads.json"], args].concat());
    insta::assert_snapshot!(refused(&["--lengths", "1024,9000"]), @r"
    error: --lengths: 9000 is beyond the model's context of 8192 tokens
    hint: lengths up to 8192 can be compiled for this model
    ");
    insta::assert_snapshot!(refused(&["--lengths", "0"]), @"error: --lengths: 0 is out of range, expected at least 1");
    insta::assert_snapshot!(refused(&["--heads", "2..5"]), @r"
    error: --heads: 2..5 is out of range, expected a range within the model's 3 KV heads
    hint: give KV heads, not query heads, as in --heads 0..3
    ");
    insta::assert_snapshot!(refused(&["--heads", "2"]), @r"
    error: invalid value '2' for '--heads <A..B>': `2` is not a range: expected two numbers, as in 0..4

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(refused(&["--arch", "sm_75"]), @r"
    error: invalid value 'sm_75' for '--arch <ARCH,..>': unknown architecture `sm_75`: expected one of sm_80, sm_86, sm_89, sm_90, sm_90a, sm_100, sm_100a

    For more information, try '--help'.
    ");
    assert!(refused(&["--dtype", "fp8"]).contains("expected bf16 or f16"));
    assert!(refused(&["--lengths", "99999999999"]).starts_with("error: invalid value"));
    assert!(refused(&["-m", "llama-9"]).contains("neither a preset nor a file"));
    assert!(refused(&["--frob"]).starts_with("error: unexpected argument"));
}

#[test]
fn rounding_is_noted_on_stderr() {
    let run =
        moac(&["inspect", "plans/odd-heads.json", "--json", "--lengths", "1000", "--lengths", "64,2048"]);
    assert_eq!(run.code, 0);
    insta::assert_snapshot!(run.stderr, @r"
    note: length 1000 rounded up to 1024, a multiple of 64
    note: length 64 rounded up to 128, the plan's min_span
    ");
    let told: Value = serde_json::from_str(&run.stdout).unwrap();
    let lengths: Vec<_> =
        told["buckets"].as_array().unwrap().iter().map(|bucket| &bucket["length"]).collect();
    assert_eq!(lengths, [128, 1024, 2048]);
}

#[test]
fn the_environment_chooses_the_architecture() {
    let arch = |capability: &str, args: &[&str]| {
        let mut command = command(&[&["inspect", "plans/dense.json", "--json"], args].concat());
        command.env("CUDA_COMPUTE_CAP", capability);
        let run = finish(command);
        if run.code != 0 {
            return run.stderr;
        }
        serde_json::from_str::<Value>(&run.stdout).unwrap()["archs"].to_string()
    };
    assert_eq!(arch("", &[]), r#"["sm_90a"]"#);
    assert_eq!(arch("90", &[]), r#"["sm_90"]"#);
    assert_eq!(arch("8.6", &[]), r#"["sm_86"]"#);
    assert_eq!(arch("90", &["--arch", "sm_100a,sm_80", "--arch", "sm_80"]), r#"["sm_80","sm_100a"]"#);
    assert!(arch("75", &[]).starts_with("error: CUDA_COMPUTE_CAP: unknown architecture `sm_75`"));
}

#[test]
fn inspect_shows_a_plan() {
    let run = moac(&["inspect", "plans/odd-heads.json", "--lengths", "256,1024,4096"]);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    // Symbols change with every change of a header's resources; the rest is the plan's.
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.set_snapshot_path("snapshots/cli");
    settings.add_filter("_[0-9a-f]{12} ", "_[digest] ");
    settings.add_filter(r"128 +[0-9.]+ KiB\n", "128 [shared]\n");
    settings.bind(|| insta::assert_snapshot!("inspect", run.stdout));
}

#[test]
fn inspect_adds_up() {
    let run =
        moac(&["inspect", "plans/llama-3-8b.json", "--json", "--lengths", "4096,8192", "--heads", "2..5"]);
    let told: Value = serde_json::from_str(&run.stdout).unwrap();
    let plan = plans::shipped("llama-3-8b");
    for (at, length) in [4096u32, 8192].into_iter().enumerate() {
        let bucket = &told["buckets"][at];
        // 32 layers, 3 KV heads of 128, K and V, 2 bytes.
        let dense = 32 * 3 * 128 * 2 * 2 * u64::from(length);
        assert_eq!(bucket["dense_kv_bytes_per_request"], dense);
        let kv_spans: u64 = told["layers"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|layer| layer["kv_spans"][at].as_array().unwrap())
            .map(|span| span.as_u64().unwrap())
            .sum();
        assert_eq!(bucket["kv_bytes_per_request"], kv_spans * 128 * 2 * 2);
        let share = bucket["slab_over_dense"].as_f64().unwrap();
        assert!((share - (kv_spans * 512) as f64 / dense as f64).abs() < 1e-12);
        assert_eq!(bucket["raised_heads"], 0);
    }
    assert_eq!(told["buckets"][0]["slab_over_dense_just_above_previous"], Value::Null);
    let above = told["buckets"][1]["slab_over_dense_just_above_previous"].as_f64().unwrap();
    let at = told["buckets"][1]["slab_over_dense"].as_f64().unwrap();
    assert!((above - at * 8192.0 / 4097.0).abs() < 1e-12);
    for (layer, rules) in told["layers"].as_array().unwrap().iter().zip(&plan.betas) {
        let mut heads = 0;
        for group in layer["groups"].as_array().unwrap() {
            for head in group["heads"].as_array().unwrap() {
                let head = head.as_u64().unwrap() as usize;
                assert!((8..20).contains(&head), "query heads of KV heads 2..5");
                assert_eq!(group["beta"].as_f64().unwrap().to_bits(), rules[head].to_bits());
                heads += 1;
            }
        }
        assert_eq!(heads, 12);
    }
}

#[test]
fn the_page_is_whole_and_safe() {
    let folder = tempfile::tempdir().unwrap();
    let html = folder.path().join("map.html");
    let run = moac(&["inspect", "plans/odd-heads.json", "--html", text(&html)]);
    assert_eq!((run.code, run.stdout.as_str()), (0, ""));
    let page = std::fs::read_to_string(&html).unwrap();
    assert_eq!(page.matches("<title>layer ").count(), 30 * 9);
    assert!(page.contains("layer 3, head 4: span 8192 of 8192 (100.0%), rule N; KV head 1, KV span 8192"));
    for outside in ["http:", "https:", "src=", "href=", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    let start = page.find("id=\"data\">").unwrap() + 10;
    let data = &page[start..start + page[start..].find("</script>").unwrap()];
    let data: Value = serde_json::from_str(data).unwrap();
    assert_eq!(data["layers"].as_array().unwrap().len(), 30);

    let name = "</title><script>alert(1)</script>";
    let mut plan = plans::shipped("odd-heads");
    name.clone_into(&mut plan.model.name);
    plan.provenance = Some(serde_json::json!({ "</code><script>": name }));
    let file = folder.path().join("plan.json");
    std::fs::write(&file, serde_json::to_string(&plan).unwrap()).unwrap();
    assert_eq!(moac(&["inspect", text(&file), "--html", text(&html)]).code, 0);
    assert!(!std::fs::read_to_string(&html).unwrap().contains("<script>alert"));
}

#[test]
fn inspect_and_diff_take_artifacts() {
    let folder = tempfile::tempdir().unwrap();
    // By its content, whatever it is called.
    let file = folder.path().join("tiny.bin");
    std::fs::write(&file, crate::artifact::bytes()).unwrap();
    let run = moac(&["inspect", text(&file)]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stdout.contains("registers") && run.stdout.contains("artifact sha256:"), "{}", run.stdout);
    let told: Value = serde_json::from_str(&moac(&["inspect", text(&file), "--json"]).stdout).unwrap();
    assert_eq!(told["kernels"][0]["registers"], 168);
    assert_eq!(told["kernels"][0]["layers"], serde_json::json!([0, 2]));
    assert_eq!(told["archs"], serde_json::json!(["sm_80", "sm_90a"]));

    let message = refused(&["inspect", text(&file), "--lengths", "1024"]);
    assert!(message.starts_with("error: --lengths cannot be used with an artifact"), "{message}");
    assert_eq!(moac(&["diff", text(&file), text(&file), "--exit-code"]).stdout, "no difference\n");
    // The sample's kernels are made up, so a plan has others; its spans are the plan's own.
    let plan = folder.path().join("plan.json");
    std::fs::write(&plan, told_plan(&file)).unwrap();
    let run = moac(&["diff", text(&plan), text(&file), "--json", "--exit-code"]);
    let diff: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(
        (run.code, &diff["fields"], &diff["spans"]),
        (1, &serde_json::json!([]), &serde_json::json!([]))
    );
    assert!(diff["kernels"].as_array().unwrap().iter().all(|kernel| kernel["difference"] != "source"));

    let damaged = folder.path().join("cut.moac");
    std::fs::write(&damaged, &crate::artifact::bytes()[..100]).unwrap();
    assert!(refused(&["inspect", text(&damaged)]).starts_with("error: cannot use `"));
    let empty = folder.path().join("empty.moac");
    std::fs::write(&empty, b"").unwrap();
    assert!(refused(&["inspect", text(&empty)]).contains("not a moac artifact"));
}

/// The plan that an artifact holds, as a file.
fn told_plan(artifact: &Path) -> String {
    let artifact = moac_runtime::artifact::Artifact::open(artifact).unwrap();
    serde_json::to_string(&artifact.manifest().plan).unwrap()
}

#[test]
fn diff_shows_what_changed() {
    let folder = tempfile::tempdir().unwrap();
    let mut plan = plans::shipped("odd-heads");
    for head in [1, 2, 5] {
        plan.alphas[29][head] = 1024.0;
    }
    plan.model.context = Some(4096);
    let changed = folder.path().join("changed.json");
    std::fs::write(&changed, serde_json::to_string(&plan).unwrap()).unwrap();
    let args = ["diff", "plans/odd-heads.json", text(&changed), "--lengths", "1024,4096"];
    let run = moac(&args);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    let mut settings = insta::Settings::clone_current();
    settings.set_omit_expression(true);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_snapshot_path("snapshots/cli");
    settings.add_filter("_[0-9a-f]{12} ", "_[digest] ");
    settings.bind(|| insta::assert_snapshot!("diff", run.stdout));
    assert_eq!(moac(&[&args[..], &["--exit-code"]].concat()).code, 1);
    let same = moac(&["diff", "plans/dense.json", "plans/dense.json", "--exit-code"]);
    assert_eq!((same.code, same.stdout.as_str()), (0, "no difference\n"));
    // Shapes that cannot be compared head by head are reported as such.
    let run = moac(&["diff", "plans/dense.json", "plans/vicuna-7b.json", "--json"]);
    let diff: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((&diff["spans"], &diff["buckets"]), (&serde_json::json!([]), &serde_json::json!([])));
    assert!(diff["fields"].as_array().unwrap().len() >= 4);
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let run = moac(&["completions", shell]);
        assert_eq!(run.code, 0);
        assert!(run.stdout.contains("inspect") && run.stdout.contains("lengths"), "{shell}");
    }
}

#[test]
fn help_and_version_are_no_errors_and_nonsense_is() {
    assert_eq!(moac(&["--version"]).stdout, concat!("moac ", env!("CARGO_PKG_VERSION"), "\n"));
    let help = moac(&["--help"]);
    assert!(help.code == 0 && help.stdout.contains("Exit codes:") && help.stdout.contains("MOAC_NVRTC"));
    assert!(refused(&["frobnicate"]).starts_with("error: unrecognized subcommand"));
    assert!(refused(&[]).contains("Usage: moac [OPTIONS] <COMMAND>"));
}

#[test]
fn a_reader_that_stops_early_is_no_error() {
    let mut child =
        command(&["completions", "zsh"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn a_bad_log_filter_is_told_and_ignored() {
    let mut command = command(&["--version"]);
    command.env("MOAC_LOG", "moac=debug");
    assert_eq!(finish(command).stderr, "");
    let mut command = self::command(&["inspect", "plans/dense.json", "--json"]);
    command.env("MOAC_LOG", "moac=frob");
    let run = finish(command);
    assert_eq!(run.code, 0);
    assert!(run.stderr.starts_with("warning: MOAC_LOG is ignored: "), "{}", run.stderr);
}

#[test]
fn quickstart_goes_all_the_way_and_keeps_its_results() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let cache = folder.path().join("cache");
    let mut quickstart = command(&["quickstart", "--out", text(&out)]);
    // So that nothing is downloaded.
    quickstart.env("MOAC_NVRTC", moac_tests::nvrtc().path()).env("MOAC_CACHE_DIR", &cache);
    let model = moac_tests::model_folder();
    std::fs::create_dir(&cache).unwrap();
    std::os::unix::fs::symlink(&model, cache.join(model.file_name().unwrap())).unwrap();
    let run = finish(quickstart);
    assert_eq!(run.code, 0, "{}", run.stderr);
    for ending in ["json", "moac", "html"] {
        let name = format!("smollm2-135m-0.5.{ending}");
        assert!(out.join(&name).is_file(), "{name}");
    }
    let cpu = run.stdout.lines().find(|line| line.contains("from float64 they differ by")).unwrap();
    let error: f64 = cpu.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(error < 1e-5, "{cpu}");
    assert!(run.stdout.contains("\n58 passed, 0 failed, 0 not run\n"), "{}", run.stdout);
    assert!(run.stdout.ends_with("\nThe capital of France is Paris.\n"), "{}", run.stdout);
}
