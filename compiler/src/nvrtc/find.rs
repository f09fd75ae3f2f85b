//! Where NVRTC is looked for: `MOAC_NVRTC`, the CUDA folders and the conda environment, the loader's path, the packages
//! of the python3 on the path, the fetched copy. The first library that serves is used; one that does not is reported
//! with the loader's own words, and the search goes on with the next, in the same folder or elsewhere.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::error::{Attempt, NvrtcError, Outcome};
use super::{Failure, Nvrtc};
use crate::{env, fetch};

/// The oldest CUDA version whose NVRTC knows every architecture.
const OLDEST: [u32; 2] = [12, 8];

/// Names for the loader, newest first.
const BARE_NAMES: [&str; 3] = ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"];

/// The places, in the order in which they are tried.
#[derive(Clone, Debug, Default)]
pub struct Search {
    /// `MOAC_NVRTC`: a library, its folder, or a toolkit. If there is one, nothing else is tried.
    pub named: Option<PathBuf>,
    /// Roots of CUDA toolkits, and of a conda environment, which is laid out like one.
    pub toolkits: Vec<PathBuf>,
    /// Whether to ask the loader.
    pub loader: bool,
    /// The interpreter whose packages are searched.
    pub python: Option<PathBuf>,
    /// Where `doctor --fetch` unpacks its copy.
    pub fetched: Option<PathBuf>,
}

impl Search {
    /// All places of this machine.
    pub fn of_this_machine() -> Self {
        let mut toolkits: Vec<PathBuf> = [env::CUDA_HOME, env::CUDA_PATH, env::CONDA_PREFIX]
            .into_iter()
            .filter_map(env::Var::get)
            .map(PathBuf::from)
            .collect();
        toolkits.extend(["/usr/local/cuda", "/opt/cuda"].map(PathBuf::from));
        toolkits.dedup();
        Self {
            named: env::NVRTC.get().map(PathBuf::from),
            toolkits,
            loader: true,
            python: Some(PathBuf::from("python3")),
            fetched: fetch::NVRTC.folder(),
        }
    }

    /// Tries every place until one serves; also says what was at each.
    ///
    /// # Errors
    /// If there is none, or the named one does not serve.
    pub fn run(&self) -> Result<(Nvrtc, Vec<Attempt>), NvrtcError> {
        if let Some(path) = &self.named {
            let mut searched = Vec::new();
            if let Some(nvrtc) = first("`MOAC_NVRTC`", named(path), &mut searched) {
                return Ok((nvrtc, searched));
            }
            let reasons = searched.iter().filter_map(|attempt| match &attempt.outcome {
                Outcome::Unusable { reason, .. } => Some(reason.clone()),
                Outcome::Absent | Outcome::Found { .. } => None,
            });
            let reasons: Vec<String> = reasons.collect();
            let none = || "the folder holds no libnvrtc.so".to_owned();
            let reason = if reasons.is_empty() { none() } else { reasons.join("; ") };
            return Err(NvrtcError::Named { path: path.clone(), reason });
        }
        let mut searched = Vec::new();
        for (place, candidates) in self.places() {
            if let Some(nvrtc) = first(&place, candidates(), &mut searched) {
                return Ok((nvrtc, searched));
            }
        }
        Err(NvrtcError::NotFound { searched })
    }

    /// Each place with its candidates, found only when it is its turn: asking python3 takes a moment.
    #[expect(clippy::type_complexity, reason = "a list of names and thunks, used once")]
    fn places(&self) -> Vec<(String, Box<dyn Fn() -> Vec<PathBuf> + '_>)> {
        let mut places: Vec<(String, Box<dyn Fn() -> Vec<PathBuf>>)> = Vec::new();
        for root in &self.toolkits {
            places.push((format!("CUDA toolkit {}", root.display()), Box::new(|| in_toolkit(root))));
        }
        if self.loader {
            places.push((
                "the loader's path".to_owned(),
                Box::new(|| BARE_NAMES.iter().map(PathBuf::from).collect()),
            ));
        }
        if let Some(python) = &self.python {
            places.push((format!("packages of {}", python.display()), Box::new(|| in_packages(python))));
        }
        if let Some(folder) = &self.fetched {
            places.push((
                format!("fetched copy {}", folder.display()),
                Box::new(|| in_wheel(folder).collect()),
            ));
        }
        places
    }
}

/// The first candidate at a place that serves. What was at the place is added to `searched`: every candidate that does
/// not serve, and the one that does.
fn first(place: &str, candidates: Vec<PathBuf>, searched: &mut Vec<Attempt>) -> Option<Nvrtc> {
    let before = searched.len();
    let mut tried = Vec::new();
    for path in candidates {
        // Several names of one file are one candidate.
        let file = path.canonicalize().unwrap_or_else(|_| path.clone());
        if tried.contains(&file) {
            continue;
        }
        tried.push(file);
        let opened = open(&path);
        let (nvrtc, outcome) = match opened {
            Ok(nvrtc) => (Some(nvrtc), Outcome::Found { path }),
            Err(Failure::NotLoaded(words)) if is_bare(&path) && is_absent(&path, &words) => continue,
            Err(failure) => (None, Outcome::Unusable { path, reason: failure.reason() }),
        };
        searched.push(Attempt { place: place.to_owned(), outcome });
        if nvrtc.is_some() {
            return nvrtc;
        }
    }
    if searched.len() == before {
        searched.push(Attempt { place: place.to_owned(), outcome: Outcome::Absent });
    }
    None
}

/// Whether a path is a name for the loader to find.
fn is_bare(path: &Path) -> bool {
    path.parent() == Some(Path::new(""))
}

/// Whether the loader knows no library of this name, as its words have it: a library that it finds and refuses, or one
/// that misses another, it describes otherwise.
fn is_absent(name: &Path, words: &str) -> bool {
    words.starts_with(&*name.to_string_lossy()) && words.contains("No such file or directory")
}

fn open(path: &Path) -> Result<Nvrtc, Failure> {
    let nvrtc = Nvrtc::open(path)?;
    if nvrtc.cuda() < OLDEST {
        let ([major, minor], [oldest, oldest_minor]) = (nvrtc.cuda(), OLDEST);
        let reason = format!("it belongs to CUDA {major}.{minor}, expected {oldest}.{oldest_minor} or later");
        return Err(Failure::Unfit(reason));
    }
    Ok(nvrtc)
}

/// The candidates that `MOAC_NVRTC` names: a library, those of a folder, or those of a toolkit.
fn named(path: &Path) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_owned()];
    }
    in_folder(path).into_iter().chain(in_toolkit(path)).collect()
}

/// The libraries in a folder: `libnvrtc.so.N` from the newest to the oldest, then `libnvrtc.so`.
fn in_folder(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = folder.read_dir() else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let version = |name: &str| -> Option<Vec<u32>> {
        let rest = name.strip_prefix("libnvrtc.so")?;
        rest.split('.').skip(1).map(|part| part.parse().ok()).collect()
    };
    let mut found: Vec<_> = names.filter_map(|name| Some((version(&name)?, name))).collect();
    found.sort();
    found.into_iter().rev().map(|(_, name)| folder.join(name)).collect()
}

fn in_toolkit(root: &Path) -> Vec<PathBuf> {
    // An ARM server is `sbsa` to CUDA.
    let targets = [std::env::consts::ARCH, "sbsa"].map(|target| format!("targets/{target}-linux/lib"));
    ["lib64", "lib", &targets[0], &targets[1]]
        .iter()
        .flat_map(|folder| in_folder(&root.join(folder)))
        .collect()
}

/// `nvidia/*/lib` below a folder of packages.
fn in_wheel(site: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let mut parts: Vec<PathBuf> = site
        .join("nvidia")
        .read_dir()
        .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
        .unwrap_or_default();
    parts.sort();
    // cu13 before cu12 before cuda_nvrtc: the newest first.
    parts.into_iter().rev().flat_map(|part| in_folder(&part.join("lib")))
}

fn in_packages(python: &Path) -> Vec<PathBuf> {
    let script = "import sys; print('\\n'.join(sys.path))";
    let Ok(output) = Command::new(python).args(["-c", script]).stdin(Stdio::null()).output() else {
        return Vec::new();
    };
    let folders = String::from_utf8_lossy(&output.stdout).into_owned();
    folders
        .lines()
        .filter(|folder| !folder.is_empty())
        .flat_map(|folder| in_wheel(Path::new(folder)))
        .collect()
}
