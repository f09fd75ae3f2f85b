//! Artifacts whose digests fit: what a file can do that somebody made on purpose.
//!
//! The input is the manifest's JSON. Each kernel in it gets its three tensors, all empty, so that an input gets past the
//! names and the hashes to the checks behind them.

use std::collections::HashMap;

use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

fn hex(bytes: &[u8]) -> String {
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    digest.map(|byte| format!("{byte:02x}")).concat()
}

pub(crate) fn seal(mut manifest: Value) -> Option<Vec<u8>> {
    let kernels = manifest["kernels"].as_array()?;
    let names: Vec<String> = kernels
        .iter()
        .filter_map(|kernel| Some(format!("{}/{}", kernel["arch"].as_str()?, kernel["symbol"].as_str()?)))
        .flat_map(|name| ["cubin", "ptx", "cu"].map(|ending| format!("{name}.{ending}")))
        .collect();
    let digests: Map<String, Value> = names.iter().map(|name| (name.clone(), hex(b"").into())).collect();
    let distinct: Vec<String> = digests.keys().cloned().collect();
    manifest.as_object_mut()?.insert("tensors".to_owned(), digests.into());
    let text = manifest.to_string();
    let moac = format!(r#"{{"sha256":"{}","manifest":{text}}}"#, hex(text.as_bytes()));
    let empty = TensorView::new(Dtype::U8, vec![0], b"").ok()?;
    let tensors = distinct.iter().map(|name| (name, empty.clone()));
    safetensors::serialize(tensors, Some(HashMap::from([("moac".to_owned(), moac)]))).ok()
}
