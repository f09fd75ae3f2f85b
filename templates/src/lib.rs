//! The kernel templates and the CUDA headers, embedded.
//!
//! Text only: nothing here knows what it means. `templates/README.md` states the contract between the rendered file
//! and the headers.
#![forbid(unsafe_code)]

macro_rules! header {
    ($path:literal) => {
        ($path, include_str!(concat!("../include/", $path)))
    };
}

/// The template of the one file that is rendered per kernel of attention.
pub const KERNEL: &str = include_str!("../kernel.cu.tera");

/// The template of the file that is rendered per kernel of the engine.
pub const GLUE: &str = include_str!("../glue.cu.tera");

/// Every header as `(the path it is included by, its text)`, sorted by path.
pub const HEADERS: &[(&str, &str)] = &[
    header!("moac/element.cuh"),
    header!("moac/glue/activate.cuh"),
    header!("moac/glue/common.cuh"),
    header!("moac/glue/cut.cuh"),
    header!("moac/glue/embed.cuh"),
    header!("moac/glue/linear.cuh"),
    header!("moac/glue/logits.cuh"),
    header!("moac/glue/norm.cuh"),
    header!("moac/glue/params.cuh"),
    header!("moac/glue/rotate.cuh"),
    header!("moac/glue/sample.cuh"),
    header!("moac/params.cuh"),
    header!("moac/ptx.cuh"),
    header!("moac/ptx/hopper.cuh"),
    header!("moac/sm80/combine.cuh"),
    header!("moac/sm80/decode.cuh"),
    header!("moac/sm80/fill.cuh"),
    header!("moac/sm80/prefill.cuh"),
    header!("moac/sm80/split.cuh"),
    header!("moac/sm90/combine.cuh"),
    header!("moac/sm90/decode.cuh"),
    header!("moac/sm90/decode_params.cuh"),
    header!("moac/sm90/fill.cuh"),
    header!("moac/sm90/items.cuh"),
    header!("moac/sm90/linear.cuh"),
    header!("moac/sm90/linear_stage.cuh"),
    header!("moac/sm90/linear_sums.cuh"),
    header!("moac/sm90/narrow.cuh"),
    header!("moac/sm90/params.cuh"),
    header!("moac/sm90/prefill.cuh"),
    header!("moac/sm90/produce.cuh"),
    header!("moac/sm90/ring.cuh"),
    header!("moac/sm90/rows.cuh"),
    header!("moac/sm90/shared.cuh"),
    header!("moac/sm90/split.cuh"),
    header!("moac/sm90/stage.cuh"),
    header!("moac/sm90/supply.cuh"),
    header!("moac/sm90/walk.cuh"),
    header!("moac/sm90/wgmma.cuh"),
    header!("moac/softmax.cuh"),
    header!("moac/tile.cuh"),
    header!("moac/window.cuh"),
];

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::HEADERS;

    fn files(folder: &Path, found: &mut Vec<String>, base: &Path) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files(&path, found, base);
            } else {
                found.push(path.strip_prefix(base).unwrap().to_str().unwrap().replace('\\', "/"));
            }
        }
    }

    #[test]
    fn every_file_of_the_include_folder_is_embedded_in_order() {
        let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("include");
        let mut found = Vec::new();
        files(&base, &mut found, &base);
        found.sort();
        assert_eq!(HEADERS.iter().map(|(name, _)| *name).collect::<Vec<_>>(), found);
    }
}
