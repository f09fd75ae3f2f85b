//! The targets: for each kind of file or request, what a program does with one.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use moac_emulator::Module;
use moac_jinja::{Now, Value};
use moac_model::{ChatTemplate, Message, ModelFiles, Tokenizer};
use moac_planner::items::Items;
use moac_planner::search::influence::Influence;
use moac_runtime::artifact::Artifact;

use crate::files::{with_file, with_folder};
use crate::sealed::seal;

/// Something from outside.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its folder of seeds.
    pub name: &'static str,
    /// Reads an input and uses what came of it.
    pub run: fn(&[u8]),
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
        also: &["plans", "plans/invalid"],
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
    Target { name: "ptx", run: ptx, words: PTX_WORDS, also: &["runtime/emulator/tests/ptx"] },
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

impl Target {
    /// The seeds: files of its folder, and of those it names.
    pub fn seeds(&self) -> Vec<Vec<u8>> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
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

fn plan(input: &[u8]) {
    let text = text(input);
    for preset in ["smollm2-135m", "llama-3-8b"] {
        let shape = moac_compiler::plan::shape(preset).ok();
        if let Ok(plan) = moac_compiler::plan::parse(&text, Path::new("plan.json"), shape) {
            // What is read is valid, so spans can be made of it.
            assert!(plan.model.defect().is_none(), "{:?}", plan.model);
        }
    }
    let _ = moac_compiler::plan::parse(&text, Path::new("plan.json"), None);
}

/// What a program does with a tokenizer and a template.
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

fn open_model(path: &Path) {
    if let Ok(files) = ModelFiles::open(path) {
        use_texts(&files.tokenizer, files.template.as_ref());
    }
}

fn gguf(input: &[u8]) {
    with_file("m.gguf", input, |path| {
        open_model(path);
        // The parts that a missing tensor keeps from being reached.
        if let Ok(file) = moac_model::Gguf::open(path)
            && let Ok(tokenizer) = Tokenizer::from_gguf(&file)
        {
            use_texts(&tokenizer, None);
        }
    });
}

const TOKENIZER: &[u8] = include_bytes!("../seeds/tokenizer/byte_level.json");

fn folder(input: &[u8]) {
    with_folder(input, &[("tokenizer.json", TOKENIZER)], open_model);
}

fn tokenizer(input: &[u8]) {
    if let Ok(tokenizer) = Tokenizer::from_json(input, Path::new("tokenizer.json")) {
        use_texts(&tokenizer, None);
    }
}

fn chat(input: &[u8]) {
    let template = ChatTemplate::new(text(input).into_owned(), vec![("bos_token".into(), "<s>".into())]);
    let messages: Result<Value, _> = serde_json::from_str(
        r#"[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "a <b> ' \n é"},
            {"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f", "arguments": {"x": [1, 2.5, true]}}}]}]"#,
    );
    if let Ok(messages) = messages {
        let _ = template.render_with([("messages", messages)], Now::utc(0));
    }
}

fn request(input: &[u8]) {
    static TOKENIZERS: LazyLock<Vec<Tokenizer>> = LazyLock::new(|| {
        [TOKENIZER, &include_bytes!("../seeds/tokenizer/sentencepiece.json")[..]]
            .into_iter()
            .filter_map(|json| Tokenizer::from_json(json, Path::new("tokenizer.json")).ok())
            .collect()
    });
    let text = text(input);
    assert_eq!(TOKENIZERS.len(), 2);
    for tokenizer in TOKENIZERS.iter() {
        let Ok(tokens) = tokenizer.encode(&text) else { continue };
        let _ = tokenizer.encode_chat(&text);
        let _ = tokenizer.decode(&tokens);
        let _ = tokenizer.decode_after(&tokens[..tokens.len() / 2], &tokens[tokens.len() / 2..]);
    }
}

fn items(input: &[u8]) {
    let _ = Items::parse(&text(input), Path::new("items.jsonl"));
}

fn influence(input: &[u8]) {
    if let Ok(influence) = Influence::parse(input, Path::new("influence.safetensors")) {
        assert!(influence.model.defect().is_none(), "{:?}", influence.model);
        let _ = Influence::merge(vec![influence.clone(), influence]);
    }
}

fn artifact(input: &[u8]) {
    let _ = Artifact::from_bytes(input.to_vec());
}

fn sealed(input: &[u8]) {
    let Ok(manifest) = serde_json::from_slice(input) else { return };
    if let Some(bytes) = seal(manifest) {
        let _ = Artifact::from_bytes(bytes);
    }
}

fn ptx(input: &[u8]) {
    let _ = Module::parse(&text(input));
}

fn safetensors(input: &[u8]) {
    const CONFIG: &[u8] = include_bytes!("../seeds/folder/config.json");
    with_folder(
        b"",
        &[("config.json", CONFIG), ("tokenizer.json", TOKENIZER), ("model.safetensors", input)],
        |path| {
            open_model(path);
        },
    );
}
