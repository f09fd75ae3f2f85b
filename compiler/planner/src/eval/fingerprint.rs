//! The fingerprint of a model: the digest of its files.

use std::path::{Path, PathBuf};

use moac_model::Mapped;
use moac_runtime::digest::Digest;

use super::EvalError;

/// Files of a model folder that decide what is computed.
fn decides(name: &str) -> bool {
    name.ends_with(".safetensors")
        || [
            "config.json",
            "generation_config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "chat_template.jinja",
            "model.safetensors.index.json",
        ]
        .contains(&name)
}

/// The digest of a model: of its GGUF file, or of the names and contents of the files that are read from its folder. Where it lies
/// and what it is called makes no difference.
pub fn of_model(path: &Path) -> Result<Digest, EvalError> {
    let digest = |path: &Path| Ok::<_, EvalError>(Digest::of(&Mapped::open(path)?));
    if !path.is_dir() {
        return digest(path);
    }
    let entries = std::fs::read_dir(path).map_err(EvalError::file("read", path))?;
    let mut files: Vec<(String, PathBuf)> = Vec::new();
    for entry in entries {
        let entry = entry.map_err(EvalError::file("read", path))?;
        files.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
    }
    files.retain(|(name, _)| decides(name));
    files.sort();
    let mut fields = Vec::new();
    for (name, path) in files {
        fields.push(name.into_bytes());
        fields.push(digest(&path)?.to_string().into_bytes());
    }
    Ok(Digest::of_fields(fields.iter().map(Vec::as_slice)))
}
