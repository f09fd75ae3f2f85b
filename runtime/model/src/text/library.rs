//! Tokenizers that the `tokenizers` crate runs.
//!
//! Its files are untrusted, and it trusts them: it panics on some and asks for any amount of memory on others. What makes
//! it allocate without bound is refused here first; what makes it panic is caught ([`guard`](super::guard)).

use serde::Deserialize;
use serde_json::Value;
use tokenizers::decoders::DecoderWrapper;

use super::guard::caught;

/// The largest `tokenizer.json` that is read. The largest in public use have some 35 MB.
const MAX_FILE: usize = 256 << 20;
/// The most steps of a normalizer, pre-tokenizer or decoder.
const MAX_STEPS: usize = 64;
/// The longest text that a step puts in.
const MAX_CONTENT: usize = 1024;
/// How many times as long a text may become.
const MAX_GROWTH: usize = 64;

/// A tokenizer of the crate.
#[derive(Clone, Debug)]
pub(super) struct Library {
    /// Takes the spelling of a control token for that token.
    control: tokenizers::Tokenizer,
    /// Takes it for text.
    plain: tokenizers::Tokenizer,
}

/// The parts of a `tokenizer.json` that are looked at before the crate sees it.
#[derive(Deserialize)]
struct Parts {
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    decoder: Value,
    model: Model,
}

#[derive(Deserialize)]
struct Model {
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
}

impl Library {
    /// Builds the tokenizer of a `tokenizer.json`, and says which tokens its post-processor puts before a text.
    pub(super) fn new(json: &[u8]) -> Result<(Self, Vec<u32>), String> {
        if json.len() > MAX_FILE {
            return Err(format!("it has {} bytes, expected at most {MAX_FILE}", json.len()));
        }
        let json = json.strip_prefix(b"\xef\xbb\xbf").unwrap_or(json);
        let parts: Parts = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        parts.check()?;
        let start = start(&parts.post_processor)?;
        let control = caught(|| {
            let mut inner = tokenizers::Tokenizer::from_bytes(json).map_err(|error| error.to_string())?;
            // Settings of the training run; a prompt is never cut or padded behind the caller's back.
            inner.with_padding(None);
            inner.with_truncation(None).map_err(|error| error.to_string())?;
            inner.with_post_processor(None::<tokenizers::PostProcessorWrapper>);
            // Calls every part once, so that a part that panics does so now. A text that cannot be encoded is not a reason to refuse the file.
            let _ = inner.encode_fast("a 1", false);
            Ok(inner)
        })?;
        let mut plain = control.clone();
        plain.set_encode_special_tokens(true);
        Ok((Self { control, plain }, start))
    }

    pub(super) fn encode(&self, text: &str, control: bool) -> Result<Vec<u32>, String> {
        let tokenizer = if control { &self.control } else { &self.plain };
        caught(|| {
            let encoding = tokenizer.encode_fast(text, false).map_err(|error| error.to_string())?;
            Ok(encoding.get_ids().to_vec())
        })
    }

    pub(super) fn decode(&self, tokens: &[u32]) -> Result<String, String> {
        caught(|| self.control.decode(tokens, false).map_err(|error| error.to_string()))
    }

    pub(super) fn spelling(&self, token: u32) -> Option<String> {
        self.control.id_to_token(token)
    }

    pub(super) fn id(&self, spelling: &str) -> Option<u32> {
        self.control.token_to_id(spelling)
    }

    pub(super) fn vocab_size(&self) -> usize {
        self.control.get_vocab_size(true)
    }

    /// Whether tokens are spelled in the characters that stand for bytes.
    pub(super) fn is_byte_level(&self) -> bool {
        matches!(self.control.get_decoder(), Some(DecoderWrapper::ByteLevel(_)))
    }
}

impl Parts {
    /// Refuses what would make the crate allocate without bound.
    fn check(&self) -> Result<(), String> {
        for (name, part) in [
            ("normalizer", &self.normalizer),
            ("pre_tokenizer", &self.pre_tokenizer),
            ("decoder", &self.decoder),
        ] {
            let mut found = Vec::new();
            steps(part, &mut found);
            if found.len() > MAX_STEPS {
                return Err(format!("its {name} has {} steps, expected at most {MAX_STEPS}", found.len()));
            }
            let mut growth = 1usize;
            for step in found {
                growth =
                    growth.saturating_mul(check_step(step).map_err(|what| format!("its {name}: {what}"))?);
            }
            if growth > MAX_GROWTH {
                return Err(format!("its {name} makes a text more than {MAX_GROWTH} times as long"));
            }
        }
        for affix in [&self.model.continuing_subword_prefix, &self.model.end_of_word_suffix] {
            if affix.as_ref().is_some_and(|affix| affix.len() > MAX_CONTENT) {
                return Err(format!("a prefix or suffix of its words is longer than {MAX_CONTENT} bytes"));
            }
        }
        Ok(())
    }
}

/// The steps of a part, those of its sequences one by one.
fn steps<'a>(part: &'a Value, found: &mut Vec<&'a Value>) {
    let inner = ["normalizers", "pretokenizers", "decoders"].iter().find_map(|key| part.get(key)?.as_array());
    match inner {
        Some(inner) => inner.iter().for_each(|part| steps(part, found)),
        None if part.is_null() => {}
        None => found.push(part),
    }
}

/// By how much a step can make a text longer.
fn check_step(step: &Value) -> Result<usize, String> {
    let kind = step.get("type").and_then(Value::as_str).unwrap_or_default();
    let content = ["content", "prepend", "replacement"].iter().find_map(|key| step.get(key)?.as_str());
    let length = content.map_or(0, str::len);
    if length > MAX_CONTENT {
        return Err(format!("a text of {length} bytes in a step, expected at most {MAX_CONTENT}"));
    }
    match kind {
        "Replace" => {
            let pattern =
                step.get("pattern").and_then(|pattern| pattern.get("String")).and_then(Value::as_str);
            match pattern {
                Some("") => Err("a step replaces the empty text".into()),
                Some(pattern) => Ok(length.div_ceil(pattern.len()).max(1)),
                // A regular expression may match between any two characters.
                None => Ok(1 + length),
            }
        }
        "FixedLength" if step.get("length").and_then(Value::as_u64) == Some(0) => {
            Err("`FixedLength` with `length` 0".into())
        }
        "Precompiled" => {
            let map = step.get("precompiled_charsmap").and_then(Value::as_str).unwrap_or_default();
            check_character_map(map).map(|()| 1)
        }
        _ => Ok(1),
    }
}

/// Checks a character map of SentencePiece: the length of its trie in four bytes, the trie, and texts that end with a
/// zero byte.
fn check_character_map(base64: &str) -> Result<(), String> {
    let bytes = decode_base64(base64).ok_or("`precompiled_charsmap` is not base64")?;
    let damaged = || "`precompiled_charsmap` is damaged".to_owned();
    let (size, rest) = bytes.split_first_chunk::<4>().ok_or_else(damaged)?;
    let size = u32::from_le_bytes(*size) as usize;
    if size == 0 || !size.is_multiple_of(4) || size > rest.len() {
        return Err(damaged());
    }
    let (trie, texts) = rest.split_at(size);
    let texts = std::str::from_utf8(texts).map_err(|_| damaged())?;
    if texts.split('\0').any(|text| text.len() > MAX_CONTENT) {
        return Err(damaged());
    }
    // Every unit leads to a block of 256 units, or to the place of a text.
    let units: Vec<u32> =
        trie.chunks_exact(4).map(|unit| u32::from_le_bytes([unit[0], unit[1], unit[2], unit[3]])).collect();
    for (at, &unit) in units.iter().enumerate() {
        if unit >> 31 == 1 {
            let place = (unit & 0x7fff_ffff) as usize;
            if place > texts.len() || !texts.is_char_boundary(place) {
                return Err(damaged());
            }
        } else {
            let offset = (unit >> 10) << ((unit & (1 << 9)) >> 6);
            // The block of 256 that the next byte is looked up in.
            let block = (at ^ offset as usize) | 0xff;
            if offset != 0 && block >= units.len().next_multiple_of(256) {
                return Err(damaged());
            }
        }
    }
    Ok(())
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=');
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 3);
    let (mut bits, mut count) = (0u32, 0);
    for c in text.bytes() {
        let digit = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(digit);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    Some(bytes)
}

/// The tokens that a post-processor puts before a text.
fn start(processor: &Value) -> Result<Vec<u32>, String> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let damaged = |what: &str| format!("its post_processor: {what}");
    match processor.get("type").and_then(Value::as_str) {
        Some("Sequence") => {
            let inner = processor.get("processors").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            let starts = inner.iter().map(start).collect::<Result<Vec<_>, _>>()?;
            Ok(starts.into_iter().rev().flatten().collect())
        }
        Some("BertProcessing" | "RobertaProcessing") => {
            let cls = processor.get("cls").and_then(|cls| id(cls.get(1)?));
            Ok(vec![cls.ok_or_else(|| damaged("`cls` has no id"))?])
        }
        Some("TemplateProcessing") => {
            let mut tokens = Vec::new();
            for piece in processor.get("single").and_then(Value::as_array).map_or(&[][..], Vec::as_slice) {
                let Some(special) = piece.get("SpecialToken") else { break };
                let name = special.get("id").and_then(Value::as_str).unwrap_or_default();
                let ids =
                    processor.get("special_tokens").and_then(|known| known.get(name)?.get("ids")?.as_array());
                let ids: Option<Vec<u32>> = ids.and_then(|ids| ids.iter().map(id).collect());
                tokens.extend(ids.ok_or_else(|| damaged(&format!("the special token {name:?} has no ids")))?);
            }
            Ok(tokens)
        }
        _ => Ok(Vec::new()),
    }
}
