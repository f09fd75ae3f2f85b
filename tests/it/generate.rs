//! `moac generate` on a tiny random model, as a shell runs it, against the library's forward pass done anew for every
//! token.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use candle_core::quantized::{GgmlDType, gguf_file};
use moac_model::{CHATML, Cache, Message, Model, dense_plan};
use moac_runtime::plan::Plan;
use serde_json::{Value, json};
use tiny::Tiny;

use crate::compile::{finish, moac};

#[path = "../../runtime/model/src/tests/tiny.rs"]
#[allow(dead_code)] // its own crate's tests use the rest
mod tiny;

/// A folder with the model in `tiny`.
pub(crate) fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("tiny")).unwrap();
    Tiny::new(true).write_folder(&folder.path().join("tiny"));
    folder
}

/// The same model as a GGUF file, with some metadata put in or replaced.
pub(crate) fn write_gguf(path: &Path, extra: &[(&str, gguf_file::Value)]) {
    Tiny::new(true).write_gguf_with(path, GgmlDType::F32, extra);
}

fn generate(folder: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    finish(&mut moac(folder, &[&["generate", "tiny"], args].concat()))
}

/// The output of a run that must succeed.
fn printed(folder: &Path, args: &[&str]) -> String {
    let (code, stdout, stderr) = generate(folder, args);
    assert_eq!(code, Some(0), "{stderr}");
    stdout
}

/// The error of a run that must fail; it prints nothing to stdout.
fn refused(folder: &Path, args: &[&str]) -> String {
    let (code, stdout, stderr) = generate(folder, args);
    assert_eq!((code, stdout.as_str()), (Some(2), ""), "{stderr}");
    stderr
}

/// The likeliest continuation under a plan: all tokens go through a new cache for every token that is added.
fn greedy(folder: &Path, plan: Option<&Plan>, prompt: &[u32], limit: usize) -> (String, usize) {
    let model = Model::open(&folder.join("tiny")).unwrap();
    let dense = dense_plan(&model.decoder.config().shape());
    let mut tokens = prompt.to_vec();
    for _ in 0..limit {
        let mut cache = Cache::new(plan.unwrap_or(&dense), 1024).unwrap();
        let hidden = model.decoder.prefill(&tokens, &mut cache).unwrap();
        let logits: Vec<f32> =
            model.decoder.logits(&hidden).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap() as u32;
        if model.decoder.config().eos.contains(&best) {
            break;
        }
        tokens.push(best);
    }
    let answer = &tokens[prompt.len()..];
    (model.tokenizer.decode(answer).unwrap(), answer.len())
}

fn chat_tokens(folder: &Path, messages: &[Message]) -> Vec<u32> {
    Model::open(&folder.join("tiny")).unwrap().chat(messages).unwrap()
}

/// A plan for the tiny model whose heads see 128 tokens.
pub(crate) fn narrow(folder: &Path) -> (PathBuf, Plan) {
    let mut plan = dense_plan(&Model::open(&folder.join("tiny")).unwrap().decoder.config().shape());
    plan.alphas.iter_mut().flatten().for_each(|alpha| *alpha = 128.0);
    plan.betas.iter_mut().flatten().for_each(|beta| *beta = 0.0);
    let path = folder.join("narrow.json");
    std::fs::write(&path, serde_json::to_string(&plan).unwrap()).unwrap();
    (path, plan)
}

/// A prompt of some 300 tokens.
fn long() -> String {
    (0..60).map(|word| (word * 7919 % 1000).to_string()).collect::<Vec<_>>().join(" ")
}

#[test]
fn text_is_the_likeliest_and_json_counts_it() {
    let folder = folder();
    let folder = folder.path();
    let messages = [Message::new("system", "be kind"), Message::new("user", "in the 12é")];
    let tokens = chat_tokens(folder, &messages);
    let (expected, count) = greedy(folder, None, &tokens, 24);
    let args = ["-p", "in the 12é", "--system", "be kind", "-n", "24"];
    assert_eq!(printed(folder, &args), format!("{expected}\n"));
    let answer: Value = serde_json::from_str(&printed(folder, &[&args[..], &["--json"]].concat())).unwrap();
    let stop = if count == 24 { "limit" } else { "end" };
    let all = json!({
        "prompt": "in the 12é", "text": expected, "prompt_tokens": tokens.len(), "tokens": count, "stop": stop
    });
    assert_eq!(answer, all);
    // As it is, without the template.
    let raw = Model::open(&folder.join("tiny")).unwrap().tokenizer.encode("in the").unwrap();
    let (expected, _) = greedy(folder, None, &raw, 8);
    assert_eq!(printed(folder, &["--raw", "-p", "in the", "-n", "8"]), format!("{expected}\n"));
    // The other file format holds the same model.
    write_gguf(&folder.join("tiny.gguf"), &[]);
    let gguf = ["generate", "tiny.gguf", "--raw", "-p", "in the", "-n", "8"];
    assert_eq!(finish(&mut moac(folder, &gguf)).1, format!("{expected}\n"));
}

#[test]
fn random_weights_follow_from_the_seed_and_need_no_weights() {
    let folder = folder();
    let folder = folder.path();
    for shard in 1..3 {
        std::fs::remove_file(folder.join(format!("tiny/model-0000{shard}-of-00002.safetensors"))).unwrap();
    }
    std::fs::remove_file(folder.join("tiny/model.safetensors.index.json")).unwrap();
    let text = |seed: &str| {
        printed(folder, &["-p", "in the", "-n", "24", "--json", "--random-weights", "--seed", seed])
    };
    assert_eq!(text("1"), text("1"));
    assert_ne!(text("1"), text("2"));
    assert!(refused(folder, &["-p", "in the"]).contains("model.safetensors"));
}

#[test]
fn sampling_follows_its_options() {
    let folder = folder();
    let folder = folder.path();
    let text =
        |options: &[&str]| printed(folder, &[&["-p", "in the", "-n", "24", "--json"], options].concat());
    let greedy = text(&[]);
    let hot =
        |seed: &str, options: &[&str]| text(&[&["--temperature", "2", "--seed", seed], options].concat());
    assert_eq!(hot("1", &[]), hot("1", &[]));
    assert_ne!(hot("1", &[]), hot("2", &[]));
    assert_ne!(hot("1", &[]), greedy);
    assert_eq!(hot("1", &["--top-k", "1"]), greedy);
    assert_eq!(hot("1", &["--top-p", "1e-6"]), greedy);
    assert_ne!(hot("1", &["--top-k", "8"]), hot("1", &[]));
    assert_eq!(hot("1", &["--min-p", "1"]), greedy);
    assert_ne!(text(&["--repetition-penalty", "2"]), greedy);
    assert_eq!(text(&["--deterministic", "--device", "cpu"]), greedy);
}

#[test]
fn a_stop_string_ends_an_answer_and_is_no_part_of_it() {
    let folder = folder();
    let folder = folder.path();
    let answer = |options: &[&str]| -> Value {
        let args = [&["-p", "in the", "-n", "24", "--json"], options].concat();
        serde_json::from_str(&printed(folder, &args)).unwrap()
    };
    let whole = answer(&[])["text"].as_str().unwrap().to_owned();
    // Some text from the middle, of more than one character, so of more than one token most likely.
    let middle: String = whole.chars().skip(5).take(3).collect();
    let cut = answer(&["--stop", "nowhere in it", "--stop", &middle]);
    assert_eq!(
        (cut["text"].as_str().unwrap(), &cut["stop"]),
        (whole.split(&middle).next().unwrap(), &json!("stop"))
    );
    let args = ["-p", "in the", "-n", "24", "--stop", &middle];
    assert_eq!(printed(folder, &args), format!("{}\n", whole.split(&middle).next().unwrap()));
}

#[test]
fn a_file_of_prompts_is_each_prompt_alone() {
    let folder = folder();
    let folder = folder.path();
    let alone = |prompt: &str, json: &[&str]| printed(folder, &[&["-p", prompt, "-n", "8"], json].concat());
    std::fs::write(folder.join("p.txt"), "in the\n\nhe 12\n").unwrap();
    let both = format!("{}\n{}", alone("in the", &[]), alone("he 12", &[]));
    assert_eq!(printed(folder, &["--prompts", "p.txt", "-n", "8"]), both);
    let lines = "{\"prompt\": \"in the\", \"more\": 1}\n{\"prompt\": \"two\\nlines\"}\n";
    std::fs::write(folder.join("p.jsonl"), lines).unwrap();
    let both = alone("in the", &["--json"]) + &alone("two\nlines", &["--json"]);
    let (code, stdout, stderr) = generate(folder, &["--prompts", "p.jsonl", "-n", "8", "--json"]);
    assert_eq!((code, stdout), (Some(0), both));
    assert!(stderr.contains("2 prompts, ") && stderr.contains(" a second"), "{stderr}");
}

#[test]
fn a_conversation_keeps_its_turns() {
    let folder = folder();
    let folder = folder.path();
    let mut talk = moac(folder, &["generate", "tiny", "--chat", "-n", "6"]);
    let mut talk = talk.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    talk.stdin.take().unwrap().write_all("in the\n\nhe 12\n".as_bytes()).unwrap();
    let output = talk.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let first = [Message::new("user", "in the")];
    let (answer, _) = greedy(folder, None, &chat_tokens(folder, &first), 6);
    let turns = [first[0].clone(), Message::new("assistant", &answer), Message::new("user", "he 12")];
    let (second, _) = greedy(folder, None, &chat_tokens(folder, &turns), 6);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{answer}\n{second}\n"));
}

#[test]
fn a_plan_and_its_artifact_narrow_what_heads_see() {
    let folder = folder();
    let folder = folder.path();
    let (path, plan) = narrow(folder);
    let prompt = long();
    let run = |options: &[&str]| printed(folder, &[&["--raw", "-p", &prompt, "-n", "12"], options].concat());
    let tokens = Model::open(&folder.join("tiny")).unwrap().tokenizer.encode(&prompt).unwrap();
    assert!(tokens.len() > 200, "{}", tokens.len());
    let dense = run(&[]);
    assert_eq!(dense, greedy(folder, None, &tokens, 12).0 + "\n");
    let narrowed = run(&["--plan", path.to_str().unwrap()]);
    assert_eq!(narrowed, greedy(folder, Some(&plan), &tokens, 12).0 + "\n");
    assert_ne!(dense, narrowed);
    let compiled = ["compile", "narrow.json", "--lengths", "256,512", "--arch", "sm_80", "-o", "narrow.moac"];
    let (code, _, stderr) = finish(&mut moac(folder, &compiled));
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(run(&["--artifact", "narrow.moac"]), narrowed);
    // The artifact's longest context is the end of it, for an answer and for a prompt.
    let most = "7".repeat(509);
    let short = printed(folder, &["--raw", "-p", &most, "-n", "1000", "--artifact", "narrow.moac", "--json"]);
    let short: Value = serde_json::from_str(&short).unwrap();
    assert_eq!(short["stop"], "context");
    // The last token is chosen, and has no place in the cache any more.
    assert_eq!((&short["prompt_tokens"], &short["tokens"]), (&json!(509), &json!(4)));
    let thrice = prompt.repeat(3);
    let message = refused(folder, &["--raw", "-p", &thrice, "--artifact", "narrow.moac"]);
    assert!(message.contains("more than the context of 512"), "{message}");
    let message = refused(folder, &["-p", "a", "--artifact", "narrow.moac", "--context", "513"]);
    assert!(message.contains("--context: found 513 tokens, expected at most 512"), "{message}");
}

#[test]
fn what_cannot_be_done_is_said() {
    let folder = folder();
    let folder = folder.path();
    let long = long().repeat(6);
    std::fs::write(folder.join("bad.jsonl"), "{\"prompt\": \"a\"}\n{\"prompt\": 1}\n").unwrap();
    std::fs::write(folder.join("empty.txt"), "\n\n").unwrap();
    std::fs::write(folder.join("binary.txt"), [0xff, 0xfe, 0]).unwrap();
    let other = crate::plans::folder().join("odd-heads.json").canonicalize().unwrap();
    for (args, expected) in [
        (&["-p", "a", "--plan", other.to_str().unwrap()][..], "$.model.num_layers: found 30, expected 3"),
        (&["-p", "a", "--artifact", other.to_str().unwrap()], "odd-heads.json` is for"),
        (&["-p", "a", "--plan", "nowhere.json"], "nowhere.json"),
        (&["-p", "a", "--artifact", "nowhere.moac"], "nowhere.moac"),
        (&["-p", &long], "more than the context of 1024"),
        (&["-p", "a", "--context", "2048"], "--context: found 2048 tokens, expected at most 1024"),
        (&["-p", "a", "--context", "0"], "--context"),
        (&["-p", "a\u{4}"], "no token for '\\u{4}'"),
        (&["--raw", "-p", ""], "the number of tokens is 0"),
        (&["-p", "a", "--temperature=-1"], "the temperature is -1, expected 0 to 100"),
        (&["-p", "a", "--top-k", "0"], "top-k is 0"),
        (&["-p", "a", "--top-p", "1.5"], "top-p is 1.5"),
        (&["-p", "a", "--min-p", "2"], "min-p is 2"),
        (&["-p", "a", "--repetition-penalty", "0"], "the repetition penalty is 0"),
        (&["-p", "a", "--stop", ""], "a stop string is empty"),
        (&["--prompts", "nowhere.txt"], "nowhere.txt"),
        (&["--prompts", "bad.jsonl"], "`bad.jsonl`, line 2"),
        (&["--prompts", "empty.txt"], "`empty.txt` contains no prompt"),
        (&["--prompts", "binary.txt"], "binary.txt"),
        (&[], "--prompt"),
        (&["-p", "a", "--chat"], "--chat"),
        (&["--chat", "--json"], "--json"),
    ] {
        let message = refused(folder, args);
        assert!(message.contains(expected), "{args:?}: {message}");
    }
    for (model, expected) in
        [("nowhere", "nowhere"), ("narrow.txt", "is not a model"), (".", "is not a model")]
    {
        std::fs::write(folder.join("narrow.txt"), "no model at all").unwrap();
        let (code, stdout, stderr) = finish(&mut moac(folder, &["generate", model, "-p", "a"]));
        assert_eq!((code, stdout.as_str()), (Some(2), ""));
        assert!(stderr.contains(expected), "{model}: {stderr}");
    }
    // A model that ships no template takes plain prompts, and says so where it is to talk.
    std::fs::remove_file(folder.join("tiny/tokenizer_config.json")).unwrap();
    assert_eq!(printed(folder, &["-p", "in", "-n", "4"]), printed(folder, &["--raw", "-p", "in", "-n", "4"]));
    let message = refused(folder, &["-p", "in", "--system", "be kind"]);
    assert!(message.contains("the model ships none"), "{message}");
}
