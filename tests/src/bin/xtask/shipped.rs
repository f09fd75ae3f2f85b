//! Every kernel that the project ships: each plan in `plans/`, for both element types and the architectures asked for.

use std::path::{Path, PathBuf};

use moac_compiler::lower::{self, Lowered, Target};
use moac_compiler::plan;
use moac_runtime::arch::Arch;
use moac_runtime::plan::{DType, Plan};

use super::{Result, root};

/// A plan for one element type, lowered.
pub(super) struct Shipped {
    /// As people say it: the file and the element type.
    pub(super) name: String,
    pub(super) plan: Plan,
    pub(super) lowered: Lowered,
}

/// All of them, at the default buckets.
pub(super) fn all(archs: &[Arch]) -> Result<Vec<Shipped>> {
    let mut shipped = Vec::new();
    for path in plans(&root().join("plans"))? {
        let plan = plan::read(&path, None).map_err(|error| format!("{}: {error}", path.display()))?;
        for dtype in [DType::Bf16, DType::F16] {
            let target = Target {
                kv_heads: 0..plan.model.num_kv_heads,
                lengths: lower::buckets(&plan, &[])?.buckets,
                dtype,
                archs: archs.to_vec(),
            };
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            let lowered = lower::lower(&plan, &target)?;
            shipped.push(Shipped { name: format!("plans/{file} {dtype}"), plan: plan.clone(), lowered });
        }
    }
    if shipped.is_empty() { Err("no plans in plans/".into()) } else { Ok(shipped) }
}

/// The plan files of a folder: its JSON files but the schema.
fn plans(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in folder.read_dir()? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.extension().is_some_and(|ending| ending == "json") && !name.ends_with(".schema.json") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
