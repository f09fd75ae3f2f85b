//! Where NVRTC is looked for: `MOAC_NVRTC`, the CUDA folders, the loader's path, the packages of the python3 on the
//! path, the fetched copy. The first that serves is used.

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
    /// `MOAC_NVRTC`: a library or its folder. If there is one, nothing else is tried.
    pub named: Option<PathBuf>,
    /// Roots of CUDA toolkits.
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
        let mut toolkits: Vec<PathBuf> = [env::CUDA_HOME, env::CUDA_PATH]
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
            let library = in_folder(path).unwrap_or_else(|| path.clone());
            let attempt = |outcome| Attempt { place: "`MOAC_NVRTC`".to_owned(), outcome };
            return match open(&library) {
                Ok(nvrtc) => Ok((nvrtc, vec![attempt(Outcome::Found { path: library })])),
                Err(failure) => Err(NvrtcError::Named { path: path.clone(), reason: failure.reason() }),
            };
        }
        let mut searched = Vec::new();
        for (place, candidates) in self.places() {
            let mut outcome = Outcome::Absent;
            for path in candidates() {
                match open(&path) {
                    Ok(nvrtc) => {
                        searched.push(Attempt { place, outcome: Outcome::Found { path } });
                        return Ok((nvrtc, searched));
                    }
                    // The loader does not know every name.
                    Err(Failure::NotLoaded(_)) if path.parent() == Some(Path::new("")) => {}
                    Err(failure) => outcome = Outcome::Unusable { path, reason: failure.reason() },
                }
            }
            searched.push(Attempt { place, outcome });
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

fn open(path: &Path) -> Result<Nvrtc, Failure> {
    let nvrtc = Nvrtc::open(path)?;
    if nvrtc.cuda() < OLDEST {
        let ([major, minor], [oldest, oldest_minor]) = (nvrtc.cuda(), OLDEST);
        let reason = format!("it is of CUDA {major}.{minor}, expected {oldest}.{oldest_minor} or later");
        return Err(Failure::Unfit(reason));
    }
    Ok(nvrtc)
}

/// The library in a folder: the newest of `libnvrtc.so.N`, or else `libnvrtc.so`.
fn in_folder(folder: &Path) -> Option<PathBuf> {
    let names = folder.read_dir().ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let version = |name: &str| -> Option<Vec<u32>> {
        let rest = name.strip_prefix("libnvrtc.so")?;
        rest.split('.').skip(1).map(|part| part.parse().ok()).collect()
    };
    let newest = names.filter_map(|name| Some((version(&name)?, name))).max()?;
    Some(folder.join(newest.1))
}

fn in_toolkit(root: &Path) -> Vec<PathBuf> {
    let target = format!("targets/{}-linux/lib", std::env::consts::ARCH);
    ["lib64", "lib", &target].into_iter().filter_map(|folder| in_folder(&root.join(folder))).collect()
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
    parts.into_iter().rev().filter_map(|part| in_folder(&part.join("lib")))
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
