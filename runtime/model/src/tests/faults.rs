//! Faults that users of other programs reported, as tests: special tokens, prompts and the ends of answers.

use std::path::Path;

use candle_core::quantized::gguf_file::Value;
use serde_json::json;

use super::hard_texts::vocabulary;
use crate::text::Texts;
use crate::*;

/// Characters, then special tokens: `<s>` 96, `</s>` 97, `<|eot_id|>` 98, `<|im_end|>` 99, `<unk>` 100.
const SPECIAL: [&str; 5] = ["<s>", "</s>", "<|eot_id|>", "<|im_end|>", "<unk>"];

fn tokenizer_json(post_processor: &serde_json::Value) -> serde_json::Value {
    let plain = (' '..='~').chain(['\n']).map(|c| match c {
        ' ' => "Ġ".to_owned(),
        '\n' => "Ċ".to_owned(),
        c => c.to_string(),
    });
    let vocab: serde_json::Map<_, _> =
        plain.chain(SPECIAL.map(str::to_owned)).zip(0..).map(|(token, id)| (token, json!(id))).collect();
    let added: Vec<_> = SPECIAL.iter().zip(96..).map(|(content, id)| {
        json!({"id": id, "content": content, "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false})
    }).collect();
    json!({
        "version": "1.0", "added_tokens": added,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "post_processor": post_processor,
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    })
}

/// `<s>` before a text, and `</s>` behind it if `eos`.
fn template_processing(eos: bool) -> serde_json::Value {
    let mut single = vec![
        json!({"SpecialToken": {"id": "<s>", "type_id": 0}}),
        json!({"Sequence": {"id": "A", "type_id": 0}}),
    ];
    if eos {
        single.push(json!({"SpecialToken": {"id": "</s>", "type_id": 0}}));
    }
    json!({
        "type": "TemplateProcessing", "single": single, "pair": [],
        "special_tokens": {
            "<s>": {"id": "<s>", "ids": [96], "tokens": ["<s>"]},
            "</s>": {"id": "</s>", "ids": [97], "tokens": ["</s>"]},
        },
    })
}

fn config() -> Config {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    let config = json!({
        "model_type": "llama", "vocab_size": 128, "hidden_size": 64, "intermediate_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 64, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 4096, "rope_theta": 1e4, "tie_word_embeddings": true, "bos_token_id": 96,
        "eos_token_id": [97, 98], "hidden_act": "silu",
    });
    std::fs::write(&path, config.to_string()).unwrap();
    Config::from_json(&path).unwrap()
}

fn texts(post_processor: &serde_json::Value, files: &[(&str, String)]) -> Result<Texts, ModelError> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), tokenizer_json(post_processor).to_string()).unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    Texts::of_folder(folder.path(), &config())
}

/// The tokens of the conversation of one turn.
fn chat(texts: &Texts, user: &str) -> Vec<u32> {
    let rendered = texts.template.as_ref().unwrap().render(&[Message::new("user", user)]).unwrap();
    texts.tokenizer.encode_chat(&rendered).unwrap()
}

/// The tokens of a text in which special tokens are spelled out.
fn spelled(text: &str) -> Vec<u32> {
    texts(&json!(null), &[]).unwrap().tokenizer.encode_chat(text).unwrap()
}

fn with_template(template: &serde_json::Value) -> [(&'static str, String); 1] {
    let config = json!({"bos_token": "<s>", "eos_token": {"content": "<|eot_id|>", "lstrip": false}, "chat_template": template});
    [("tokenizer_config.json", config.to_string())]
}

#[test]
fn prompts_are_those_of_transformers() {
    for (template, user, expected) in [
        ("{{ messages[0].content | tojson }}", "<a> & 'b'", "\"<a> & 'b'\""),
        (
            "{% if tools is not none %}[T]{% for t in tools %}{{ t }}{% endfor %}[/T]{% endif %}{{ messages[0].content }}",
            "hi",
            "hi",
        ),
        ("{{ tools is defined }} {{ documents is none }} {{ tools is iterable }}", "hi", "True True False"),
        ("{{ messages[0].content }}{{ eos_token }}{{ bos_token }}", "hi", "hi<|eot_id|><s>"),
        ("{{ unk_token is defined }}{{ pad_token is defined }}", "hi", "FalseFalse"),
        ("{% generation %}{{ messages[0].content }}{% endgeneration %}", "hi", "hi"),
        (
            "{{ messages[0].content.title() }} {{ 1e20 }} {{ 'a-b'.rsplit('-', 1) }}",
            "hi ho",
            "Hi Ho 1e+20 ['a', 'b']",
        ),
    ] {
        let texts = texts(&json!(null), &with_template(&json!(template))).unwrap();
        assert_eq!(chat(&texts, user), spelled(expected), "{template}");
    }
    let crlf = "{% for m in messages %}\r\n{{ m.content }}\r\n{% endfor %}\r\nx\r\n".to_owned();
    let texts = texts(&json!(null), &[("chat_template.jinja", crlf)]).unwrap();
    assert_eq!(chat(&texts, "hi"), spelled("hi\nx"));
}

#[test]
fn a_rendered_chat_gets_no_special_tokens() {
    let template = with_template(&json!("[u]{{ messages[0].content }}[a]"));
    let texts = texts(&template_processing(false), &template).unwrap();
    assert_eq!(chat(&texts, "hi"), spelled("[u]hi[a]"));
    assert_eq!(texts.tokenizer.encode_prompt("hi").unwrap(), spelled("<s>hi"));
}

#[test]
fn what_a_post_processor_puts_behind_a_text_is_not_put_before_it() {
    for processor in [
        template_processing(true),
        json!({"type": "Sequence", "processors": [
            {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true}, template_processing(true)]}),
        json!({"type": "RobertaProcessing", "sep": ["</s>", 97], "cls": ["<s>", 96], "trim_offsets": true, "add_prefix_space": false}),
    ] {
        let tokenizer = texts(&processor, &[]).unwrap().tokenizer;
        assert_eq!(tokenizer.encode_prompt("hi").unwrap(), spelled("<s>hi"));
        assert_eq!(tokenizer.encode_prompt("").unwrap(), [96]);
        assert_eq!(tokenizer.encode_prompt("<s>hi").unwrap(), spelled("<s>hi"));
        assert_eq!(tokenizer.encode("hi").unwrap(), spelled("hi"));
    }
    // What tokenizer_config.json says comes first.
    let says = |adds: bool| {
        [("tokenizer_config.json", json!({"bos_token": "<s>", "add_bos_token": adds}).to_string())]
    };
    let tokenizer = texts(&template_processing(true), &says(false)).unwrap().tokenizer;
    assert_eq!(tokenizer.encode_prompt("hi").unwrap(), spelled("hi"));
    let tokenizer = texts(&json!(null), &says(true)).unwrap().tokenizer;
    assert_eq!(tokenizer.encode_prompt("hi").unwrap(), spelled("<s>hi"));
}

#[test]
fn special_tokens_come_from_the_first_file_that_names_them() {
    let template = "{{ bos_token }}|{{ eos_token }}|{{ unk_token }}";
    let jinja = ("chat_template.jinja", template.to_owned());
    let map = (
        "special_tokens_map.json",
        json!({"eos_token": "<|im_end|>", "unk_token": {"content": "<unk>"}}).to_string(),
    );
    let settings = ("tokenizer_config.json", json!({"eos_token": "<|eot_id|>"}).to_string());
    for (files, expected, ends) in [
        (vec![jinja.clone()], "<s>|</s>|", vec![97, 98]),
        (vec![jinja.clone(), map.clone()], "<s>|<|im_end|>|<unk>", vec![97, 98, 99]),
        (vec![jinja, map, settings], "<s>|<|eot_id|>|<unk>", vec![97, 98]),
    ] {
        let texts = texts(&json!(null), &files).unwrap();
        assert_eq!(chat(&texts, "hi"), spelled(expected));
        assert_eq!(texts.ends, ends);
    }
}

#[test]
fn a_template_matters_when_it_is_used() {
    let texts = texts(&json!(null), &with_template(&json!("{% nosuch %}"))).unwrap();
    assert_eq!(texts.tokenizer.encode_prompt("ab").unwrap(), spelled("ab"));
    let error = texts.template.unwrap().render(&[Message::new("user", "hi")]).unwrap_err().to_string();
    assert!(error.contains("nosuch") && error.contains("line 1"), "{error}");
}

#[test]
fn templates_with_names() {
    let named = |name: &str, template: &str| json!({"name": name, "template": template});
    for template in
        [json!([named("tool_use", "T"), named("default", "D")]), json!({"default": "D", "rag": "R"})]
    {
        let texts = texts(&json!(null), &with_template(&template)).unwrap();
        assert_eq!(chat(&texts, "hi"), spelled("D"));
    }
    for (template, message) in [
        (json!([named("rag", "R")]), "the templates `rag`, expected one named `default`"),
        (json!(7), "expected a template, or templates with names"),
    ] {
        // It does not make the model unusable.
        let texts = texts(&json!(null), &with_template(&template)).unwrap();
        let error = texts.template.unwrap().render(&[Message::new("user", "hi")]).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    assert!(texts(&json!(null), &with_template(&json!([]))).unwrap().template.is_none());
    let legacy = [("chat_template.json", json!({"chat_template": "L"}).to_string())];
    assert_eq!(chat(&texts(&json!(null), &legacy).unwrap(), "hi"), spelled("L"));
}

fn gguf_texts(extra: &[(&str, Value)]) -> (tempfile::TempDir, Gguf) {
    let tokens = ["g", "h", "i", "<s>", "</s>", "<|eot_id|>", "<|im_end|>", "<|eom_id|>", "hi"];
    let kinds = [1, 1, 1, 3, 3, 3, 4, 3, 1];
    let text = |text: &str| Value::String(text.to_owned());
    let mut metadata = vec![
        ("tokenizer.ggml.model", text("gpt2")),
        ("tokenizer.ggml.tokens", Value::Array(tokens.map(text).to_vec())),
        ("tokenizer.ggml.token_type", Value::Array(kinds.map(Value::I32).to_vec())),
        ("tokenizer.ggml.merges", Value::Array(vec![text("h i")])),
    ];
    metadata.extend(extra.iter().cloned());
    let folder = tempfile::tempdir().unwrap();
    let file = vocabulary(&folder.path().join("m.gguf"), &metadata);
    (folder, file)
}

#[test]
fn an_answer_of_a_gguf_model_ends_at_every_end() {
    let config = Config { eos: vec![4], ..config() };
    let (_folder, file) = gguf_texts(&[("tokenizer.ggml.eos_token_id", Value::U32(4))]);
    assert_eq!(Texts::of_gguf(&file, &config).unwrap().ends, [4, 5, 6, 7]);
    // Keys count whatever the token is called.
    let (_folder, file) = gguf_texts(&[
        ("tokenizer.ggml.eot_token_id", Value::U32(0)),
        ("tokenizer.ggml.eom_token_id", Value::U32(1)),
        ("tokenizer.ggml.bos_token_id", Value::U32(3)),
        ("tokenizer.ggml.padding_token_id", Value::U32(2)),
        ("tokenizer.chat_template", Value::String("{{ bos_token }}{{ pad_token }}{{ eos_token }}".into())),
    ]);
    let texts = Texts::of_gguf(&file, &config).unwrap();
    assert_eq!(texts.ends, [0, 1, 4, 5, 6, 7]);
    assert_eq!(texts.template.unwrap().render(&[]).unwrap(), "<s>i");
}

#[test]
fn an_answer_keeps_the_space_that_it_starts_with() {
    let json = json!({
        "added_tokens": [],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true,
            "vocab": {"<unk>": 0, "<0xC3>": 1, "<0xA9>": 2, "▁b": 3, "▁▁▁": 4, "a": 5, "▁": 6, "b": 7, "▁▁": 8},
            "merges": [["▁", "b"], ["▁", "▁"], ["▁▁", "▁"]]},
    });
    let tokenizer = Tokenizer::from_json(json.to_string().as_bytes(), Path::new("t")).unwrap();
    let prompt = tokenizer.encode("a").unwrap();
    assert_eq!(tokenizer.decode_after(&prompt, &[4, 3]).unwrap(), "    b");
    assert_eq!(tokenizer.decode_after(&prompt, &[3, 3]).unwrap(), " b b");
    assert_eq!(tokenizer.decode_after(&[], &[3, 3]).unwrap(), "b b");
    // A character that the prompt began is completed.
    assert_eq!(tokenizer.decode_after(&[5, 1], &[2, 5]).unwrap(), "éa");
}
