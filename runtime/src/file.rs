//! Files that are written whole or not at all. Whatever moac keeps is written here.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// The file that writing to `path` would make or replace: what a link points to is replaced, not the link.
///
/// # Errors
/// Where something other than a file is there, as a folder or a device, or the folder of `path` is not.
pub fn target(path: &Path) -> io::Result<PathBuf> {
    match std::fs::metadata(path) {
        Ok(found) if found.is_file() => path.canonicalize(),
        Ok(found) if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Without it there is nowhere to write to, which is told now instead of after hours of work.
            if std::fs::metadata(folder(path)).is_ok_and(|folder| folder.is_dir()) {
                Ok(path.to_owned())
            } else {
                Err(io::Error::new(io::ErrorKind::NotFound, "its folder is not there"))
            }
        }
        Err(error) => Err(error),
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes `bytes` to `path` so that the path holds the old file or the whole new one, whatever happens meanwhile.
///
/// # Errors
/// Those of [`target`], and where the folder of `path` cannot be written to. No temporary file is left then.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let path = &target(path)?;
    let folder = folder(path);
    let mut builder = tempfile::Builder::new();
    builder.prefix(".moac-").suffix(".tmp");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // Like any other new file, less the umask; the default of temporary files is private to the user.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let mut file = builder.tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    // The rename itself is durable only once the folder is.
    #[cfg(unix)]
    std::fs::File::open(folder)?.sync_all()?;
    Ok(())
}
