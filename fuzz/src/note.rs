//! The progress of a worker, in a file, so that it can be read while the worker runs and after it has died.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const FIELDS: usize = 7;

/// The progress of a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The number of the input that runs.
    pub number: u64,
    /// Inputs that have run.
    pub done: u64,
    /// Inputs that were accepted, and not refused with an error.
    pub accepted: u64,
    /// The longest time of an input, in microseconds.
    pub slowest_us: u64,
    /// The number of the input that took longest.
    pub slowest: u64,
    /// The memory of the process before the first input, in KiB.
    pub before_kib: u64,
    /// The most memory that the process had, in KiB.
    pub peak_kib: u64,
}

impl Progress {
    /// Adds what another worker did.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let slower = if other.slowest_us > self.slowest_us { other } else { self };
        Self {
            number: self.number.max(other.number),
            done: self.done + other.done,
            accepted: self.accepted + other.accepted,
            slowest_us: slower.slowest_us,
            slowest: slower.slowest,
            before_kib: self.before_kib.max(other.before_kib),
            peak_kib: self.peak_kib.max(other.peak_kib),
        }
    }
}

/// The file with a worker's progress.
#[derive(Debug)]
pub struct Note(File);

impl Note {
    /// Makes the file.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
        let note = Self(file);
        note.write(&Progress::default())?;
        Ok(note)
    }

    /// Opens a file that was made before.
    ///
    /// # Errors
    /// If it is not there.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(File::options().read(true).write(true).open(path)?))
    }

    /// Writes the progress: one call of the system, so cheap enough for every input.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, progress: &Progress) -> io::Result<()> {
        let &Progress { number, done, accepted, slowest_us, slowest, before_kib, peak_kib } = progress;
        let fields: [u64; FIELDS] = [number, done, accepted, slowest_us, slowest, before_kib, peak_kib];
        self.0.write_all_at(fields.map(u64::to_le_bytes).as_flattened(), 0)
    }

    /// Reads the progress.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn read(&self) -> io::Result<Progress> {
        let mut fields = [[0; 8]; FIELDS];
        self.0.read_exact_at(fields.as_flattened_mut(), 0)?;
        let [number, done, accepted, slowest_us, slowest, before_kib, peak_kib] =
            fields.map(u64::from_le_bytes);
        Ok(Progress { number, done, accepted, slowest_us, slowest, before_kib, peak_kib })
    }
}
