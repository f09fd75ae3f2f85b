//! The targets: for each kind of file or request, what a program does with one.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use moac_emulator::Module;
use moac_jinja::{Now, Value};
use moac_model::{ChatTemplate, Checkpoint, Message, ModelError, ModelFiles, Shards, Tokenizer};
use moac_planner::items::Items;
use moac_planner::search::influence::Influence;
use moac_runtime::artifact::Artifact;
use moac_runtime::plan::ModelShape;

use crate::files::{with_file, with_folder};
use crate::sealed::seal;

/// Something from outside.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its folder of seeds.
    pub name: &'static str,
    /// Reads an input and uses what came of it. Returns whether the input was accepted.
    pub run: fn(&[u8]) -> bool,
    /// Words of the format.
    pub words: &'static [&'static str],
    /// Seeds elsewhere in the repository, from its root: files or folders.
    pub also: &'static [&'static str],
}

/// Every target.
pub const TARGETS: [Target; 12] = [
    Target {
        name: "plan",
        run: plan,
        words: &["\"alphas\"", "\"model\"", "null", "[[", "\"sink\":0", "1e999"],
        also: &["plans/invalid"],
    },
    Target {
        name: "gguf",
        run: gguf,
        words: &["GGUF", "gpt2", "llama", "qwen2", "smollm", "tokenizer.ggml.pre", "general.architecture"],
        also: &[],
    },
    Target {
        name: "folder",
        run: folder,
        words: &[
            "null",
            "\n=== config.json\n",
            "\"rope_scaling\"",
            "\"linear\"",
            "\"add_bos_token\"",
            "[[",
            "{{",
        ],
        also: &[],
    },
    Target { name: "tokenizer", run: tokenizer, words: TOKENIZER_WORDS, also: &[] },
    Target { name: "chat", run: chat, words: CHAT_WORDS, also: &[] },
    Target {
        name: "request",
        run: request,
        words: &["<s>", "<|im_end|>", "\u{2581}", "🙂", "\u{301}", "\r\n", "<0x41>"],
        also: &[],
    },
    Target {
        name: "items",
        run: items,
        words: &["\"tokens\":", "null", "[", "\n{", "\"format\""],
        also: &[],
    },
    Target {
        name: "influence",
        run: influence,
        words: &["\"shape\":", "\\\"lengths\\\"", "F32", "far.256", "near.256"],
        also: &[],
    },
    Target {
        name: "artifact",
        run: artifact,
        words: &["\"shape\":", "data_offsets", "U8", "manifest"],
        also: &["tests/it/artifact/golden"],
    },
    Target {
        name: "open_sealed",
        run: sealed,
        words: &["\"symbol\":", "null", "[]", "{}", "\"buckets\":"],
        also: &[],
    },
    Target { name: "ptx", run: ptx, words: PTX_WORDS, also: &[] },
    Target {
        name: "safetensors",
        run: safetensors,
        words: &["\"shape\":", "BF16", "F32", "data_offsets", "__metadata__"],
        also: &[],
    },
];

const TOKENIZER_WORDS: &[&str] = &[
    "\"type\":\"Replace\"",
    "\"type\":\"Precompiled\"",
    "\"type\":\"Sequence\"",
    "\"type\":\"Unigram\"",
    "\"type\":\"WordPiece\"",
    "\"type\":\"Metaspace\"",
    "\"type\":\"Split\"",
    "\"type\":\"Strip\"",
    "\"type\":\"FixedLength\"",
    "\"type\":\"TemplateProcessing\"",
    "\"type\":\"ByteFallback\"",
    "\"type\":\"CTC\"",
    "{\"Regex\":\"(a|b*)*c\"}",
    "{\"String\":\"\"}",
    "null",
    "true",
    "\\ud800",
    "\"continuing_subword_prefix\":\"##\"",
    "\"byte_fallback\":true",
    "\"lstrip\":true",
    "\"single_word\":true",
];
const CHAT_WORDS: &[&str] = &[
    "{% for x in range(9999) %}",
    "{% endfor %}",
    "{% if x %}",
    "{% endif %}",
    "{% macro m(a) %}",
    "{% endmacro %}",
    "{{ m(m) }}",
    "{% set ns = namespace(x=[]) %}",
    "{% set ns.x = [ns.x] %}",
    " * 1000000",
    "|join(x)",
    "|tojson(indent=9)",
    ".replace('a', s)",
    "'%99999d' % 1",
    "'{:>99999}'.format(x)",
    "|groupby('a')",
    "|sort",
    "|batch(3)",
    "loop(",
    " recursive",
    "[::-1]",
    " ** ",
    " // 0",
    "{% raw %}",
    "{% endraw %}",
    "{#",
    "#}",
    "-%}",
    "{{-",
    "|map('upper')",
    "|select",
    "|indent(99)",
    "**",
    "|round(3)",
    "caller()",
];
const PTX_WORDS: &[&str] = &[
    ".reg .b32 %r<99999>;",
    ".reg .pred %p<999>;",
    "bra $L;",
    "$L:",
    "@%p1 ",
    "call (r), f, (a);",
    ".shared .align 16 .b8 s[99999];",
    ".global .b32 g = {1, 2};",
    "wgmma.mma_async",
    "mbarrier.init.shared.b64",
    "brx.idx %r1, t;",
    "t: .branchtargets $L;",
    "ret;",
    "ld.global.v4.f32",
    "{",
    "}",
    ".visible .entry k()",
    ".func f()",
    "cp.async.bulk",
    "-9223372036854775808",
    "+-4",
];

/// The folder of this crate: where it was compiled, or else `fuzz` in the working folder, for a binary that was copied to
/// another machine.
pub fn home() -> PathBuf {
    let compiled = Path::new(env!("CARGO_MANIFEST_DIR"));
    if compiled.is_dir() { compiled.to_owned() } else { PathBuf::from("fuzz") }
}

impl Target {
    /// The seeds: files of its folder, and of those it names.
    pub fn seeds(&self) -> Vec<Vec<u8>> {
        let root = home().join("..");
        let own = format!("fuzz/seeds/{}", self.name);
        let mut paths: Vec<PathBuf> = Vec::new();
        for place in self.also.iter().map(|place| root.join(place)).chain([root.join(own)]) {
            if place.is_file() {
                paths.push(place);
            } else if let Ok(entries) = std::fs::read_dir(&place) {
                paths.extend(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()));
            }
        }
        paths.sort();
        paths.iter().filter_map(|path| std::fs::read(path).ok()).collect()
    }
}

fn text(input: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(input)
}

fn plan(input: &[u8]) -> bool {
    let text = text(input);
    // A plan states its model's shape, or takes that of `--model`.
    let shape = || ModelShape { num_layers: 2, num_heads: 4, num_kv_heads: 2, ..preset("smollm2-135m") };
    let plans =
        [None, Some(shape())].map(|shape| moac_compiler::plan::parse(&text, Path::new("plan.json"), shape));
    for plan in plans.iter().flatten() {
        // What is read is valid, so spans can be made of it.
        assert!(plan.model.defect().is_none(), "{:?}", plan.model);
    }
    plans.iter().any(Result::is_ok)
}

fn preset(name: &str) -> ModelShape {
    moac_compiler::plan::presets::get(name).expect("a preset")
}

/// Uses a tokenizer and a template as a program does.
fn use_texts(tokenizer: &Tokenizer, template: Option<&ChatTemplate>) {
    for text in ["Hello, wörld!  12345\r\n\t🙂", "<s><|im_end|> a\u{301}\u{200b}x"] {
        if let Ok(tokens) = tokenizer.encode_prompt(text) {
            let _ = tokenizer.decode(&tokens);
            let (before, after) = tokens.split_at(tokens.len() / 2);
            let _ = tokenizer.decode_after(before, after);
        }
    }
    let _ = tokenizer.decode(&[0, 1, 2, 3, u32::MAX]);
    if let Some(template) = template
        && let Ok(text) = template.render(&[Message::new("user", "hi")])
    {
        let _ = tokenizer.encode_chat(&text);
    }
}

/// Reads all weights, as a program does that runs the model.
fn use_weights(checkpoint: &Checkpoint) -> bool {
    checkpoint.stream_all(&mut |_, _| (), |_, _: &[f32]| Ok::<(), ModelError>(())).is_ok()
}

fn gguf(input: &[u8]) -> bool {
    with_file("m.gguf", input, |path| {
        if let Ok(files) = ModelFiles::open(path) {
            use_texts(&files.tokenizer, files.template.as_ref());
            return use_weights(&files.checkpoint);
        }
        // The parts that a missing tensor keeps from being reached.
        let tokenizer = moac_model::Gguf::open(path).and_then(|file| Tokenizer::from_gguf(&file));
        tokenizer.inspect(|tokenizer| use_texts(tokenizer, None)).is_ok()
    })
}

const TOKENIZER: &[u8] = include_bytes!("../seeds/tokenizer/byte_level.json");
/// A tokenizer that is quickly read.
const SMALL: &[u8] = include_bytes!("../seeds/tokenizer/small.json");
const CONFIG: &[u8] = include_bytes!("../seeds/folder/config.json");

fn folder(input: &[u8]) -> bool {
    with_folder(input, &[("tokenizer.json", SMALL)], |path| {
        let _ = Shards::open(path);
        // With weights of its own, so that the texts are read whatever the weights are.
        let files = ModelFiles::random(path, 0);
        files.inspect(|files| use_texts(&files.tokenizer, files.template.as_ref())).is_ok()
    })
}

fn tokenizer(input: &[u8]) -> bool {
    let tokenizer = Tokenizer::from_json(input, Path::new("tokenizer.json"));
    tokenizer.inspect(|tokenizer| use_texts(tokenizer, None)).is_ok()
}

fn chat(input: &[u8]) -> bool {
    thread_local! {
        static MESSAGES: Value = serde_json::from_str(
            r#"[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "a <b> ' \n é"},
                {"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f", "arguments": {"x": [1, 2.5, true]}}}]}]"#,
        )
        .expect("JSON");
    }
    let template = ChatTemplate::new(text(input).into_owned(), vec![("bos_token".into(), "<s>".into())]);
    template.render_with([("messages", MESSAGES.with(Value::clone))], Now::utc(0)).is_ok()
}

fn request(input: &[u8]) -> bool {
    static TOKENIZERS: LazyLock<[Tokenizer; 2]> = LazyLock::new(|| {
        [TOKENIZER, include_bytes!("../seeds/tokenizer/sentencepiece.json")]
            .map(|json| Tokenizer::from_json(json, Path::new("tokenizer.json")).expect("a tokenizer"))
    });
    let text = text(input);
    TOKENIZERS.iter().all(|tokenizer| {
        let Ok(tokens) = tokenizer.encode(&text) else { return false };
        let (before, after) = tokens.split_at(tokens.len() / 2);
        let _ = tokenizer.encode_chat(&text);
        let _ = tokenizer.decode(&tokens);
        tokenizer.decode_after(before, after).is_ok()
    })
}

fn items(input: &[u8]) -> bool {
    Items::parse(&text(input), Path::new("items.jsonl")).is_ok()
}

fn influence(input: &[u8]) -> bool {
    let Ok(influence) = Influence::parse(input, Path::new("influence.safetensors")) else { return false };
    assert!(influence.model.defect().is_none(), "{:?}", influence.model);
    let _ = Influence::merge(vec![influence.clone(), influence]);
    true
}

fn artifact(input: &[u8]) -> bool {
    Artifact::from_bytes(input.to_vec()).is_ok()
}

fn sealed(input: &[u8]) -> bool {
    let manifest = serde_json::from_slice(input).ok();
    manifest.and_then(seal).is_some_and(|bytes| Artifact::from_bytes(bytes).is_ok())
}

fn ptx(input: &[u8]) -> bool {
    Module::parse(&text(input)).is_ok()
}

fn safetensors(input: &[u8]) -> bool {
    with_folder(b"", &[("config.json", CONFIG), ("model.safetensors", input)], |path| {
        Checkpoint::open(path).is_ok_and(|checkpoint| use_weights(&checkpoint))
    })
}
