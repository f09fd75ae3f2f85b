//! Every environment variable that moac reads, named and documented once. Nothing else calls `std::env::var`; those about
//! colour are read by anstream.

use std::ffi::OsString;
use std::path::PathBuf;

/// An environment variable: its name, and what it does in one line.
#[derive(Clone, Copy, Debug)]
pub struct Var {
    /// The name.
    pub name: &'static str,
    /// Its effect.
    pub help: &'static str,
}

/// The NVRTC library to use, before any other is looked for.
pub const NVRTC: Var = Var { name: "MOAC_NVRTC", help: "the NVRTC library to load, or its folder" };
/// Where compiled kernels are kept.
pub const CACHE_DIR: Var = Var {
    name: "MOAC_CACHE_DIR",
    help: "folder of compiled kernels [default: $XDG_CACHE_HOME/moac, else ~/.cache/moac]",
};
/// The log filter.
pub const LOG: Var =
    Var { name: "MOAC_LOG", help: "log filter, as in `moac=debug,warn` [default: warn; logs go to stderr]" };
/// The key that the server's clients must send.
pub const API_KEY: Var = Var {
    name: "MOAC_API_KEY",
    help: "the key that clients of `moac serve` must send; without it, all are served",
};
/// The server's settings.
pub const SERVE: Var = Var {
    name: "MOAC_SERVE_*",
    help: "a setting of `moac serve`, as MOAC_SERVE_PORT that of --port, which comes before it",
};
/// The CUDA toolkit.
pub const CUDA_HOME: Var = Var { name: "CUDA_HOME", help: "a CUDA folder to look for NVRTC in" };
/// The CUDA toolkit, under its other name.
pub const CUDA_PATH: Var = Var { name: "CUDA_PATH", help: "as CUDA_HOME, which comes first" };
/// The active conda environment.
pub const CONDA_PREFIX: Var =
    Var { name: "CONDA_PREFIX", help: "the active conda environment, where NVRTC is looked for too" };
/// No colour, by <https://no-color.org>.
pub const NO_COLOR: Var =
    Var { name: "NO_COLOR", help: "print no colour, unless it is empty [--color overrides it]" };
/// Forces colour when the output is not a terminal.
pub const CLICOLOR_FORCE: Var = Var {
    name: "CLICOLOR_FORCE",
    help: "print colour even if the output is not a terminal [--color and NO_COLOR override it]",
};
/// The architecture to compile for where none is asked for.
pub const CUDA_COMPUTE_CAP: Var =
    Var { name: "CUDA_COMPUTE_CAP", help: "compute capability that --arch defaults to, as in `90`" };
/// The user's cache folder.
pub const XDG_CACHE_HOME: Var = Var { name: "XDG_CACHE_HOME", help: "the user's cache folder" };
/// The user's home.
pub const HOME: Var = Var { name: "HOME", help: "the user's home, for ~/.cache" };

/// All of them, in the order that help shows.
pub const ALL: [Var; 13] = [
    NVRTC,
    CACHE_DIR,
    LOG,
    API_KEY,
    SERVE,
    CUDA_HOME,
    CUDA_PATH,
    CONDA_PREFIX,
    CUDA_COMPUTE_CAP,
    NO_COLOR,
    CLICOLOR_FORCE,
    XDG_CACHE_HOME,
    HOME,
];

impl Var {
    /// The value, if it is set and not empty.
    #[allow(clippy::disallowed_methods)] // the one place that may
    pub fn get(self) -> Option<OsString> {
        std::env::var_os(self.name).filter(|value| !value.is_empty())
    }

    /// The value as text, if it is set, not empty and UTF-8.
    pub fn text(self) -> Option<String> {
        self.get().and_then(|value| value.into_string().ok())
    }
}

/// The variable of a setting of the server, by the name of its flag, and its value if it is set and not empty.
#[allow(clippy::disallowed_methods)] // beside `get`, the one place that may
pub fn serve(flag: &str) -> (String, Option<OsString>) {
    let name = SERVE.name.replace('*', &flag.to_uppercase().replace('-', "_"));
    let value = std::env::var_os(&name).filter(|value| !value.is_empty());
    (name, value)
}

/// The folder of everything that moac keeps: `MOAC_CACHE_DIR`, or the user's cache folder.
pub fn cache_folder() -> Option<PathBuf> {
    let users = || {
        let absolute = |path: &PathBuf| path.is_absolute();
        let xdg = XDG_CACHE_HOME.get().map(PathBuf::from).filter(absolute);
        let home = || Some(PathBuf::from(HOME.get()?).join(".cache"));
        Some(xdg.or_else(home)?.join("moac"))
    };
    CACHE_DIR.get().map(PathBuf::from).or_else(users)
}
