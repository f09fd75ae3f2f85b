//! Files that are written whole or not at all, and text files as editors save them. Whatever moac keeps is written here.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Reads a text file that a user may have saved: without the byte order mark that some editors put first.
///
/// # Errors
/// If the file cannot be read or is not UTF-8; UTF-16 is named as such.
pub fn read_text(path: &Path) -> io::Result<String> {
    let mut text = text_of(std::fs::read(path)?)?;
    text.drain(..text.len() - without_mark(&text).len());
    Ok(text)
}

/// A text without the byte order mark that some editors put first.
pub fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

fn text_of(bytes: Vec<u8>) -> io::Result<String> {
    let wide = bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff");
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let found = if wide { "it is UTF-16 text".to_owned() } else { format!("its byte {at} is not UTF-8") };
        io::Error::new(io::ErrorKind::InvalidData, format!("{found}, expected UTF-8 text"))
    })
}

/// The file that writing to `path` would make or replace: what a link points to is replaced, not the link.
///
/// # Errors
/// Where something other than a file is there, as a folder or a device, or the folder of `path` is not.
pub fn target(path: &Path) -> io::Result<PathBuf> {
    match std::fs::metadata(path) {
        Ok(found) if found.is_file() => path.canonicalize(),
        Ok(found) if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Reported now instead of after hours of work.
            if std::fs::metadata(folder(path)).is_ok_and(|folder| folder.is_dir()) {
                Ok(path.to_owned())
            } else {
                Err(io::Error::new(io::ErrorKind::NotFound, "its folder does not exist"))
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
/// The errors of [`target`], and if the folder of `path` cannot be written to. No temporary file is left then.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_as_editors_save_them() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let read = |bytes: &[u8]| {
            std::fs::write(file.path(), bytes).unwrap();
            read_text(file.path()).map_err(|error| error.to_string())
        };
        assert_eq!(read(b"a\r\n"), Ok("a\r\n".to_owned()));
        assert_eq!(read(b"\xef\xbb\xbfa"), Ok("a".to_owned()));
        // Only the first is a mark; any other is a character of the text.
        assert_eq!(read(b"\xef\xbb\xbf\xef\xbb\xbfa"), Ok("\u{feff}a".to_owned()));
        assert_eq!(read(b""), Ok(String::new()));
        assert_eq!(read(b"\xff\xfea\0"), Err("it is UTF-16 text, expected UTF-8 text".to_owned()));
        assert_eq!(read(b"ab\xff"), Err("its byte 2 is not UTF-8, expected UTF-8 text".to_owned()));
    }
}
