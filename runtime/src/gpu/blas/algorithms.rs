//! The algorithms that were the fastest, in a file: for one GPU and one version of the library, or it is not read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Product;
use crate::file;

/// Larger files were not written here.
const MOST_BYTES: u64 = 16 << 20;

/// An algorithm as the library lays it out; it has no meaning but for the version that made it.
pub(super) type Words = [u64; 8];

/// The key of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Of {
    gpu: String,
    library: usize,
}

/// A product and its algorithm.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    #[serde(flatten)]
    product: Product,
    algorithm: Words,
}

#[derive(Debug, Serialize, Deserialize)]
struct Contents {
    #[serde(flatten)]
    of: Of,
    algorithms: Vec<Entry>,
}

/// The algorithms that are known, and the file that keeps them.
#[derive(Debug)]
pub(super) struct Algorithms {
    of: Of,
    path: Option<PathBuf>,
    known: BTreeMap<Product, Words>,
    changed: bool,
}

impl Algorithms {
    /// The algorithms in the folder's file for a GPU and a version of the library; none without a folder, or where the file is not
    /// there or is not one.
    pub(super) fn open(folder: Option<&Path>, gpu: &str, library: usize) -> Self {
        let of = Of { gpu: gpu.to_owned(), library };
        let name: String = gpu.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let path = folder.map(|folder| folder.join(format!("products-{name}-{library}.json")));
        let read = path.as_deref().map(|path| (path, read(path, &of)));
        let known = match read {
            Some((_, Ok(known))) => known,
            Some((path, Err(why))) => {
                tracing::info!(path = %path.display(), why, "products' algorithms are chosen anew");
                BTreeMap::new()
            }
            None => BTreeMap::new(),
        };
        Self { of, path, known, changed: false }
    }

    pub(super) fn get(&self, product: &Product) -> Option<Words> {
        self.known.get(product).copied()
    }

    pub(super) fn insert(&mut self, product: Product, algorithm: Words) {
        self.changed |= self.known.insert(product, algorithm) != Some(algorithm);
    }

    /// Writes what is new. A file that cannot be written only costs time at the next start, so this is not an error.
    pub(super) fn save(&mut self) {
        let Some(path) = self.path.as_deref().filter(|_| self.changed) else { return };
        self.changed = false;
        let algorithms =
            self.known.iter().map(|(&product, &algorithm)| Entry { product, algorithm }).collect();
        let written = serde_json::to_vec(&Contents { of: self.of.clone(), algorithms })
            .map_err(std::io::Error::from)
            .and_then(|bytes| {
                path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
                file::write(path, &bytes)
            });
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "products' algorithms are not kept");
        }
    }
}

fn read(path: &Path, of: &Of) -> Result<BTreeMap<Product, Words>, String> {
    let found = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if !found.is_file() || found.len() > MOST_BYTES {
        return Err(format!("{} bytes, expected a file of at most {MOST_BYTES}", found.len()));
    }
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    let contents: Contents = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    if contents.of != *of {
        return Err(format!("it is of {:?}, expected {of:?}", contents.of));
    }
    Ok(contents.algorithms.into_iter().map(|entry| (entry.product, entry.algorithm)).collect())
}

#[cfg(test)]
mod tests {
    use super::Algorithms;
    use crate::gpu::blas::{Product, ResultType};
    use crate::plan::DType;

    const PRODUCT: Product = Product {
        rows: 8,
        out: 6144,
        inner: 4096,
        dtype: DType::Bf16,
        result: ResultType::Elements,
        add: true,
    };

    #[test]
    fn what_was_chosen_is_known_again_on_the_same_gpu_and_library_only() {
        let folder = tempfile::tempdir().unwrap();
        let open = |gpu: &str, library| Algorithms::open(Some(folder.path()), gpu, library);
        let mut first = open("NVIDIA H100 80GB HBM3", 130_000);
        assert_eq!(first.get(&PRODUCT), None);
        first.insert(PRODUCT, [7; 8]);
        first.save();
        let again = open("NVIDIA H100 80GB HBM3", 130_000);
        assert_eq!(again.get(&PRODUCT), Some([7; 8]));
        assert_eq!(again.get(&Product { rows: 9, ..PRODUCT }), None);
        assert_eq!(again.get(&Product { add: false, ..PRODUCT }), None);
        assert_eq!(open("NVIDIA H100 80GB HBM3", 130_001).get(&PRODUCT), None);
        assert_eq!(open("NVIDIA H200", 130_000).get(&PRODUCT), None);
        assert_eq!(Algorithms::open(None, "NVIDIA H200", 1).get(&PRODUCT), None);
    }

    #[test]
    fn a_damaged_or_foreign_file_is_not_read_and_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("products-A-1.json");
        let foreign = r#"{"gpu": "B", "library": 1, "algorithms": []}"#;
        for text in ["", "{", "[]", foreign, r#"{"gpu": "A", "library": 1, "algorithms": [{"rows": -1}]}"#] {
            std::fs::write(&path, text).unwrap();
            let mut found = Algorithms::open(Some(folder.path()), "A", 1);
            assert_eq!(found.get(&PRODUCT), None, "{text}");
            found.insert(PRODUCT, [u64::MAX; 8]);
            found.save();
            let again = Algorithms::open(Some(folder.path()), "A", 1);
            assert_eq!(again.get(&PRODUCT), Some([u64::MAX; 8]), "{text}");
        }
    }

    #[test]
    fn a_folder_that_cannot_be_written_to_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a file");
        std::fs::write(&file, "").unwrap();
        let mut algorithms = Algorithms::open(Some(&file), "A", 1);
        algorithms.insert(PRODUCT, [1; 8]);
        algorithms.save();
        assert_eq!(algorithms.get(&PRODUCT), Some([1; 8]));
    }
}
