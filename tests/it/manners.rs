//! The manners shared by all commands: global flags, help, standard input and output, left-overs.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use moac_planner::search::synthetic::{self, Synthetic};

use crate::cli::{Run, command, finish, moac, refused, text};

/// A run with something on standard input.
fn fed(args: &[&str], input: &[u8]) -> Run {
    let mut command = command(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    Run::of(&child.wait_with_output().unwrap())
}

/// A run whose stderr is a terminal, with some variables set; everything that it printed.
fn on_a_terminal(args: &[&str], vars: &[(&str, &str)]) -> String {
    let plain = command(args);
    let script =
        "import os, pty, sys\nstatus = pty.spawn(sys.argv[1:])\nsys.exit(os.waitstatus_to_exitcode(status))";
    let mut command = std::process::Command::new("python3");
    command.args(["-c", script]).arg(plain.get_program()).args(plain.get_args());
    command.current_dir(plain.get_current_dir().unwrap()).stdin(Stdio::null()).env("TERM", "xterm");
    for (name, _) in plain.get_envs() {
        command.env_remove(name);
    }
    command.envs(vars.iter().copied());
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}

#[test]
fn help_has_headings_and_lists_as_they_are_typed() {
    let help = moac(&["--help"]).stdout;
    let places: Vec<usize> =
        ["Find a plan:", "Compile and run:", "Check:", "Setup:", "Options:", "Exit codes:"]
            .iter()
            .map(|heading| help.find(&format!("\n{heading}")).unwrap_or_else(|| panic!("{heading}: {help}")))
            .collect();
    assert!(places.is_sorted(), "{help}");
    let help = moac(&["plan", "--help"]).stdout;
    for heading in
        ["Calibration:", "Profile:", "Search:", "Validation:", "Refinement:", "Options:", "Global options:"]
    {
        assert!(help.contains(&format!("\n{heading}\n")), "{heading}: {help}");
    }
    assert!(help.contains("[default: 1024,2048,4096]"), "{help}");
    for command in ["compile", "calibrate", "eval", "bench"] {
        let help = moac(&[command, "--help"]).stdout;
        assert!(help.contains("<TOKENS,..>") && help.contains("--no-progress"), "{help}");
    }
}

#[test]
fn quiet_leaves_results_and_errors() {
    let args = ["inspect", "plans/odd-heads.json", "--lengths", "1000"];
    let told = moac(&args);
    assert!(told.stderr.starts_with("note: length 1000 rounded up"), "{}", told.stderr);
    for flag in ["-q", "--quiet"] {
        let quiet = moac(&[&args[..], &[flag]].concat());
        assert_eq!((quiet.code, quiet.stdout, quiet.stderr.as_str()), (0, told.stdout.clone(), ""));
        // Before the command's name too.
        assert_eq!(moac(&[&[flag], &args[..]].concat()).stderr, "");
    }
    assert!(refused(&["-q", "inspect", "nowhere.json"]).starts_with("error: cannot read `nowhere.json`"));
    for args in [["-q", "-v", "doctor"], ["-q", "doctor", "-v"], ["doctor", "-vq", "--json"]] {
        assert!(refused(&args).contains("cannot be used with"), "{args:?}");
    }
}

#[test]
fn verbose_logs_more_and_the_flag_wins_over_the_variable() {
    let log = |args: &[&str], filter: &str| {
        let mut command =
            command(&[&["--no-progress", "inspect", "plans/dense.json", "--json"], args].concat());
        command.env("MOAC_LOG", filter);
        finish(command).stderr
    };
    // A filter that cannot be parsed is told of where it is used.
    assert!(log(&[], "moac=frob").starts_with("warning: MOAC_LOG is ignored: "));
    assert_eq!(log(&["-v"], "moac=frob"), "");
    assert_eq!(log(&["-q"], "moac=frob"), "");
}

#[test]
fn colour_is_for_terminals_and_the_flag_decides() {
    let args = ["inspect", "nowhere.json"];
    let coloured = |text: &str| text.contains('\u{1b}');
    assert!(!coloured(&moac(&args).stderr));
    assert!(coloured(&moac(&[&args[..], &["--color", "always"]].concat()).stderr));
    assert!(coloured(&on_a_terminal(&args, &[])));
    for vars in [[("NO_COLOR", "1")], [("TERM", "dumb")]] {
        assert!(!coloured(&on_a_terminal(&args, &vars)), "{vars:?}");
    }
    assert!(!coloured(&on_a_terminal(&[&args[..], &["--color=never"]].concat(), &[])));
    let always = [&args[..], &["--color=always"]].concat();
    assert!(coloured(&on_a_terminal(&always, &[("NO_COLOR", "1")])));
    // The parser's own errors and help, too.
    let nonsense = ["--color", "always", "frobnicate"];
    assert!(coloured(&moac(&nonsense).stderr) && coloured(&moac(&["--color", "always", "--help"]).stdout));
    assert!(!coloured(&on_a_terminal(&["frobnicate"], &[("NO_COLOR", "1")])));
    assert!(!coloured(&on_a_terminal(&["--help"], &[("NO_COLOR", "1")])));
    // And the log: a debug line of the cache, or of anything else that logs.
    let logged =
        |vars: &[(&str, &str)]| on_a_terminal(&["-vvv", "inspect", "plans/dense.json", "--json"], vars);
    assert!(!coloured(&logged(&[("NO_COLOR", "1")])));
}

#[test]
fn a_dash_is_standard_input_and_output() {
    let folder = tempfile::tempdir().unwrap();
    let plan = fs::read(crate::plans::folder().join("odd-heads.json")).unwrap();
    let file = moac(&["inspect", "plans/odd-heads.json", "--json"]);
    assert_eq!(fed(&["inspect", "-", "--json"], &plan).stdout, file.stdout);
    let marked = [&b"\xef\xbb\xbf"[..], &plan].concat();
    assert_eq!(fed(&["inspect", "-", "--json"], &marked).stdout, file.stdout);
    assert_eq!(fed(&["diff", "-", "plans/odd-heads.json", "--exit-code"], &plan).stdout, "no difference\n");
    let bad = fed(&["inspect", "-"], b"{");
    assert_eq!((bad.code, bad.stdout.as_str()), (2, ""));
    assert!(bad.stderr.contains("is not JSON"), "{}", bad.stderr);

    let html = folder.path().join("map.html");
    moac(&["inspect", "plans/odd-heads.json", "--html", text(&html)]);
    let run = moac(&["inspect", "plans/odd-heads.json", "--html", "-"]);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    assert_eq!(run.stdout, fs::read_to_string(html).unwrap());
    let both = refused(&["inspect", "plans/odd-heads.json", "--html", "-", "--json"]);
    assert!(both.contains("would both write to standard output"), "{both}");
    assert!(fed(&["compile", "-"], &plan).stderr.contains("give one with --out"));

    // Where it cannot be, it is refused and not taken for a name.
    for args in [
        &["emit", "plans/dense.json", "-o", "-"][..],
        &["calibrate", "model", "--data", "texts", "-o", "-"],
        &["profile", "model", "items", "-o", "-"],
        &["search", "influence", "--density", "0.5", "-o", "-"],
        &["man", "-o", "-"],
    ] {
        let error = refused(args);
        assert!(error.contains("cannot be written to standard output"), "{args:?}: {error}");
    }
    assert!(!crate::plans::folder().join("../-").exists());
}

#[test]
fn manual_pages_stand_beside_completions() {
    let page = moac(&["man"]).stdout;
    assert!(page.contains(".TH moac 1") && page.contains("moac\\-compile(1)"), "{page:.800}");
    let page = moac(&["man", "search"]).stdout;
    assert!(page.contains(".TH moac-search 1") && page.contains("density"), "{page:.800}");
    assert_eq!(refused(&["man", "frobnicate"]), "error: there is no command `frobnicate`\n");
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("man1");
    assert_eq!(moac(&["man", "-o", text(&out)]).code, 0);
    let pages = out.read_dir().unwrap().count();
    assert!(pages >= 20 && out.join("moac-plan.1").is_file() && out.join("moac.1").is_file(), "{pages}");
}

#[test]
fn one_key_is_set_once() {
    let profile = |args: &[&str]| refused(&[&["profile", "model", "items", "-o", "out"], args].concat());
    let twice = |flag: &str, key: &str| format!("error: {flag} is given twice for `{key}`\n");
    assert_eq!(profile(&["--weights", "kv=1,text=1,kv=2"]), twice("--weights", "kv"));
    assert_eq!(profile(&["--also", "fisher=a", "--also", "fisher=b"]), twice("--also", "fisher"));
    assert_eq!(profile(&["--also", "fisher=out"]), twice("--out or --also", "out"));
    let plan = ["plan", "model", "--data", "texts", "--density", "0.5", "-o", "out"];
    assert_eq!(
        refused(&[&plan[..], &["--weights", "kv=1", "--weights", "kv=1"]].concat()),
        twice("--weights", "kv")
    );
    let folder = tempfile::tempdir().unwrap();
    let influence = influence(folder.path());
    let search = ["search", &influence, "--density", "0.5", "-o", "out"];
    let bounds = ["--bound", "4096=0.4", "--bound", "4096=0.3"];
    assert_eq!(refused(&[&search[..], &bounds].concat()), twice("--bound", "4096"));
}

/// An influence file of a made-up model.
fn influence(folder: &Path) -> String {
    let path = folder.join("influence.safetensors");
    let model = Synthetic::new(synthetic::shape("made-up", 4, 4, 2), 1);
    model.influence(&[1024, 2048]).write(&path).unwrap();
    text(&path).to_owned()
}

#[test]
fn a_folder_of_plans_is_that_of_the_last_search() {
    let folder = tempfile::tempdir().unwrap();
    let influence = influence(folder.path());
    let out = folder.path().join("plans");
    let search = |args: &[&str]| {
        let run = moac(&[&["search", &influence, "-o", text(&out)], args].concat());
        assert_eq!(run.code, 0, "{}", run.stderr);
        let mut names: Vec<String> = out
            .read_dir()
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| Path::new(name).extension().is_some_and(|extension| extension == "json"))
            .collect();
        names.sort();
        (names, run.stderr)
    };
    let (first, told) = search(&["--density", "0.6"]);
    assert!(first.len() > 1 && !told.contains("earlier search"), "{first:?} {told}");
    // Files of the user's own stay, and are told of.
    fs::write(out.join("plan-77.json"), "{}").unwrap();
    fs::copy(out.join("plan-00.json"), out.join("mine.json")).unwrap();
    let (second, told) = search(&["--density", "0.4", "--intervals", "1"]);
    let own = second.iter().filter(|name| *name != "plan-77.json" && *name != "mine.json").count();
    assert!(own < first.len() && second.len() == own + 2, "{second:?}");
    assert!(told.contains(&format!("replaced the {} plans of an earlier search", first.len())), "{told}");
    assert!(told.contains("also holds 2 .json files"), "{told}");
}
