//! The name of a GGUF model, for people: `general.name`, unless that reads like the name of a training run. Then the
//! name of the file is better, since people name files after models.

use std::path::Path;

use moac_runtime::plan::is_name;

/// Names of files that say nothing.
const GENERIC: [&str; 4] = ["model", "ggml-model", "weights", "llama"];

/// The name of the model in the file at `path`, whose `general.name` is `stated`, or `family` where neither is a name.
pub(super) fn of_gguf(stated: &str, family: &str, path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let file = without_format(&stem);
    let usable =
        |name: &str| is_name(name) && name.len() > 2 && !GENERIC.contains(&name.to_lowercase().as_str());
    if is_name(stated) && !(is_of_a_run(stated) && usable(file)) {
        stated.to_owned()
    } else if usable(file) {
        file.to_owned()
    } else {
        family.to_owned()
    }
}

/// Whether a name has a part that only a training run has: an epoch, a checkpoint, a data mix, a long hash.
fn is_of_a_run(name: &str) -> bool {
    const COUNTED: [&str; 7] = ["ep", "epoch", "iter", "ckpt", "checkpoint", "mix", "lc"];
    let counted = |word: &str| {
        let number = word.trim_end_matches(['k', 'm']);
        let prefix = number.trim_end_matches(|c: char| c.is_ascii_digit());
        prefix.len() < number.len() && COUNTED.contains(&prefix)
    };
    let hash = |word: &str| word.len() >= 32 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let words = name.split(|c: char| !c.is_ascii_alphanumeric()).map(str::to_lowercase);
    words.filter(|word| !word.is_empty()).any(|word| {
        counted(&word)
            || hash(&word)
            || ["ckpt", "checkpoint", "checkpoints", "epoch"].contains(&word.as_str())
    })
}

/// A file's name without what says which part it is and how its tensors are stored.
fn without_format(stem: &str) -> &str {
    let part = |rest: &str| rest.len() == 5 && rest.bytes().all(|byte| byte.is_ascii_digit());
    let whole = stem.rsplit_once("-of-").and_then(|(first, parts)| {
        let (before, number) = first.rsplit_once('-')?;
        (part(number) && part(parts)).then_some(before)
    });
    let name = whole.unwrap_or(stem);
    let stored = |text: &str| {
        let upper = text.to_uppercase();
        let digit = |rest: &str| rest.starts_with(|c: char| c.is_ascii_digit());
        ["BF16", "F16", "F32"].contains(&upper.as_str())
            || upper.strip_prefix('Q').is_some_and(digit)
            || upper.strip_prefix("IQ").is_some_and(digit)
    };
    match name.rsplit_once(['.', '-']) {
        Some((before, last)) if stored(last) && !before.is_empty() => before,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_training_run_is_no_name_for_people() {
        let name = |stated: &str, file: &str| of_gguf(stated, "llama", Path::new(file));
        let run = "Smollm2 135M 8k Lc100K Mix1 Ep2";
        assert_eq!(name(run, "a/SmolLM2-135M-Instruct.Q4_1.gguf"), "SmolLM2-135M-Instruct");
        assert_eq!(name(run, "SmolLM2-135M-Instruct-Q8_0-00001-of-00002.gguf"), "SmolLM2-135M-Instruct");
        assert_eq!(name("checkpoint-4000", "tiny-f16.gguf"), "tiny");
        assert_eq!(name("0123456789abcdef0123456789abcdef01234567", "Mistral-7B-IQ3_M.gguf"), "Mistral-7B");
        // A generic file name does not replace the name in the file.
        assert_eq!(name(run, "model.gguf"), run);
        assert_eq!(name("", "ggml-model-q4_0.gguf"), "llama");
        // Names of models that have numbers, steps and mixes in them.
        for good in
            ["Llama 3.2 1B", "Mixtral 8x7B", "Step3", "Step-3.5", "Phi 3 Mini 4k", "Seed-OSS-36B", "tiny"]
        {
            assert_eq!(name(good, "other.gguf"), good);
        }
    }
}
