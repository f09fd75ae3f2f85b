//! Tokenizer and chat template.

use candle_core::quantized::GgmlDType;
use proptest::prelude::*;

use super::tiny::*;
use crate::*;

fn model() -> Model {
    let (_folder, path) = gguf_file(GgmlDType::F32);
    Model::open(&path).unwrap()
}

#[test]
fn both_formats_tokenise_alike_and_as_expected() {
    let folder = tempfile::tempdir().unwrap();
    Tiny::new(true).write_folder(folder.path());
    let folder = Model::open(folder.path()).unwrap().tokenizer;
    let gguf = model().tokenizer;
    let vocab = vocabulary();
    let spell = |tokens: Vec<u32>| tokens.iter().map(|&t| vocab[t as usize].clone()).collect::<Vec<_>>();
    for (text, expected) in [
        ("in the", vec!["in", "Ġthe"]),
        ("he12é", vec!["he", "1", "2", "Ã©"]),
        ("a<|im_end|>", vec!["a", "<", "|", "i", "m", "_", "e", "n", "d", "|", ">"]),
        ("", vec![]),
    ] {
        assert_eq!(spell(gguf.encode(text).unwrap()), expected);
        assert_eq!(gguf.encode(text).unwrap(), folder.encode(text).unwrap());
    }
    assert_eq!(spell(gguf.encode_prompt("a<|im_end|>").unwrap()), ["a", "<|im_end|>"]);
    assert_eq!(gguf.vocab_size(), vocab.len());
}

#[test]
fn a_character_that_would_be_lost_is_an_error() {
    let error = model().tokenizer.encode("ok \u{4}").unwrap_err();
    assert!(matches!(error, ModelError::NotInVocabulary { character: '\u{4}', byte: 4, at: 3 }), "{error}");
    let error = model().tokenizer.encode_prompt("é\u{80000}").unwrap_err();
    assert!(
        matches!(error, ModelError::NotInVocabulary { character: '\u{80000}', byte: 0xf2, at: 2 }),
        "{error}"
    );
}

proptest! {
    #[test]
    fn text_comes_back_byte_for_byte(text in any::<String>(), spaces in "[ \t\n\r\u{a0}0-9é<|]*") {
        let tokenizer = model_tokenizer();
        for text in [&text, &spaces, &format!("{text}{spaces}{text}")] {
            let lacks = text.bytes().any(|byte| LACKING.contains(&byte));
            match tokenizer.encode(text) {
                Err(ModelError::NotInVocabulary { .. }) => prop_assert!(lacks),
                Err(error) => return Err(TestCaseError::fail(error.to_string())),
                Ok(tokens) => {
                    prop_assert!(!lacks);
                    prop_assert_eq!(&tokenizer.decode(&tokens).unwrap(), text);
                    // Streamed piece by piece it is the same text, and every piece is whole.
                    let mut stream = tokenizer.stream();
                    let mut pieces = String::new();
                    for &token in &tokens {
                        pieces += &stream.push(token).unwrap();
                        prop_assert!(text.starts_with(&pieces));
                    }
                    pieces += &stream.finish().unwrap();
                    prop_assert_eq!(&pieces, text);
                }
            }
        }
    }
}

fn model_tokenizer() -> &'static Tokenizer {
    static TOKENIZER: std::sync::OnceLock<Tokenizer> = std::sync::OnceLock::new();
    TOKENIZER.get_or_init(|| Tokenizer::clone(&model().tokenizer))
}

/// The token of a byte.
fn byte_token(byte: u8) -> u32 {
    3 + u32::from(byte) - LACKING.iter().filter(|&&lacking| lacking < byte).count() as u32
}

proptest! {
    #[test]
    fn any_bytes_stream_as_they_decode(
        bytes in prop::collection::vec(prop::sample::select(b"a\xe2\x98\x83\xf0\x9f\x99\x82\xef\xbf\xbd\xff".as_slice()), 0..40)
    ) {
        let mut stream = model_tokenizer().stream();
        let mut text = String::new();
        for (taken, &byte) in (1..).zip(&bytes) {
            text += &stream.push(byte_token(byte)).unwrap();
            // However many bytes form no character, only the last may be held back.
            let certain = String::from_utf8_lossy(&bytes[..taken]).chars().count().saturating_sub(8);
            prop_assert!(text.chars().count() >= certain, "{text:?} of {:?}", &bytes[..taken]);
        }
        text += &stream.finish().unwrap();
        prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn half_a_character_waits_and_comes_out_at_the_end() {
    let tokenizer = model_tokenizer();
    let tokens = tokenizer.encode("a€").unwrap();
    let mut stream = tokenizer.stream();
    let pieces: Vec<String> = tokens[..3].iter().map(|&t| stream.push(t).unwrap()).collect();
    assert_eq!(pieces, ["a", "", ""]);
    assert_eq!(stream.clone().push(tokens[3]).unwrap(), "€");
    assert_eq!(stream.finish().unwrap(), "\u{fffd}");
}

#[test]
fn templates_run_in_bounds() {
    let conversation = [Message::new("system", "Be brief."), Message::new("user", " Hi ")];
    let render = |source: &str| {
        ChatTemplate::new(source.into(), vec![("bos_token".into(), "<s>".into())]).render(&conversation)
    };
    assert_eq!(
        render(CHATML).unwrap(),
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n Hi <|im_end|>\n<|im_start|>assistant\n"
    );
    // As Llama 2 and 3 write theirs: the start token, strip, slices, and blocks on their own lines.
    let llama = "{{ bos_token }}{% for m in messages[1:] %}\n    {% if m['role'] == 'user' %}\n[INST] {{ m['content'].strip() }} [/INST]\n    {%- endif %}\n{% endfor %}";
    assert_eq!(render(llama).unwrap(), "<s>[INST] Hi [/INST]");
    let refuses = "{{ raise_exception('roles must alternate') }}";
    assert!(render(refuses).unwrap_err().to_string().contains("roles must alternate"));
    let endless = "{% for i in range(9999) %}{% for j in range(9999) %}{{ i * j }}{% endfor %}{% endfor %}";
    assert!(render(endless).unwrap_err().to_string().contains("limit on time and memory"));
    assert!(render("{% for %}").is_err());
}
