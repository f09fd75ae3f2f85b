//! Reading the JSON files of a model folder.

use std::path::Path;

use serde::de::DeserializeOwned;

use crate::ModelError;

/// Reads a JSON file.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, ModelError> {
    let text = std::fs::read(path).map_err(|source| ModelError::Read { path: path.to_owned(), source })?;
    serde_json::from_slice(&text)
        .map_err(|error| ModelError::Damaged { path: path.to_owned(), what: error.to_string() })
}
