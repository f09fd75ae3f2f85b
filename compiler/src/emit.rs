//! The files of `moac emit`: the sources, the headers they include and `compile_commands.json`, for an editor or a
//! reviewer. They are what [`crate::nvrtc`] compiles, byte for byte.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::headers;
use crate::lower::Lowered;
use crate::names;
use crate::render::{Error, Renderer};

/// One entry of a compilation database.
#[derive(Serialize)]
struct Command {
    directory: String,
    file: String,
    arguments: Vec<String>,
}

/// Every file by its path below `folder`, where it is to be written. Only `compile_commands.json` depends on where that
/// is: tools want the absolute path of it.
pub fn files(lowered: &Lowered, folder: &Path) -> Result<BTreeMap<PathBuf, String>, Error> {
    let renderer = Renderer::new()?;
    let mut files = BTreeMap::new();
    let glue = lowered.engine.iter().flat_map(|engine| &engine.specs);
    let attention = lowered.specs.iter().map(|spec| (names::symbol(spec), renderer.render(spec)));
    let glue = glue.map(|spec| (names::glue_symbol(spec), renderer.render_glue(spec)));
    for (symbol, source) in attention.chain(glue) {
        let source = source?;
        for (name, text) in headers::closure(&source) {
            files.insert(Path::new("include").join(name), text.to_owned());
        }
        files.insert(file_name(&symbol), source);
    }
    files.insert(PathBuf::from("compile_commands.json"), commands(lowered, folder));
    Ok(files)
}

fn file_name(symbol: &str) -> PathBuf {
    PathBuf::from(format!("{symbol}.cu"))
}

/// How clang checks each kernel. NVRTC itself is a library, not a command.
fn commands(lowered: &Lowered, folder: &Path) -> String {
    let commands: Vec<Command> = lowered
        .all_kernels()
        .map(|kernel| {
            let file = file_name(&kernel.symbol).display().to_string();
            let arch = format!("--cuda-gpu-arch={}", kernel.arch);
            let options = [
                "clang++",
                "-x",
                "cuda",
                "-std=c++17",
                "--cuda-device-only",
                &arch,
                "-Iinclude",
                "-fsyntax-only",
            ];
            let arguments = options.into_iter().chain([file.as_str()]).map(str::to_owned).collect();
            Command { directory: folder.display().to_string(), file, arguments }
        })
        .collect();
    let mut text = serde_json::to_string_pretty(&commands).expect("strings");
    text.push('\n');
    text
}
