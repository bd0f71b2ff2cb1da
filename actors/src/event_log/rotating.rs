//! A file of lines that begins anew when it is full; a bounded number of full ones stay beside it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// How large the event log may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of a file.
    pub file_bytes_max: u64,
    /// Full files that stay beside the one that is written.
    pub full_files_max: u32,
}

impl Default for Bounds {
    /// 160 MiB in all: months of a run whose rounds take a minute.
    fn default() -> Self {
        Self { file_bytes_max: 32 << 20, full_files_max: 4 }
    }
}

/// See the module.
#[derive(Debug)]
pub struct RotatingFile {
    path: PathBuf,
    file: File,
    len: u64,
    bounds: Bounds,
}

impl RotatingFile {
    /// As [`RotatingFile::open_within`] the default bounds.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::open_within(path, Bounds::default())
    }

    /// Appends to the file at `path`. A last line that a crash cut short is ended, so that the next one stands alone.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open_within(path: &Path, bounds: Bounds) -> io::Result<Self> {
        let (mut file, len) = append_to(path)?;
        let mut opened = 0;
        if len > 0 && !ends_in_newline(path, len)? {
            file.write_all(b"\n")?;
            opened = 1;
        }
        Ok(Self { path: path.to_owned(), file, len: len + opened, bounds })
    }

    /// Writes `line`, which ends in a newline, at once and whole.
    ///
    /// # Errors
    /// What the file system says.
    pub fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let bytes = u64::try_from(line.len()).unwrap_or(u64::MAX);
        if self.len > 0 && self.len.saturating_add(bytes) > self.bounds.file_bytes_max {
            self.rotate()?;
        }
        self.file.write_all(line)?;
        self.len += bytes;
        Ok(())
    }

    /// The oldest file goes, the others move by one, a fresh one begins.
    fn rotate(&mut self) -> io::Result<()> {
        if self.bounds.full_files_max == 0 {
            self.file.set_len(0)?;
            self.len = 0;
            return Ok(());
        }
        for number in (1..self.bounds.full_files_max).rev() {
            let from = numbered(&self.path, number);
            if from.exists() {
                fs::rename(&from, numbered(&self.path, number + 1))?;
            }
        }
        fs::rename(&self.path, numbered(&self.path, 1))?;
        (self.file, self.len) = append_to(&self.path)?;
        Ok(())
    }
}

fn append_to(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let len = file.metadata()?.len();
    Ok((file, len))
}

fn ends_in_newline(path: &Path, len: u64) -> io::Result<bool> {
    use std::os::unix::fs::FileExt as _;
    let mut last = [0];
    File::open(path)?.read_exact_at(&mut last, len - 1)?;
    Ok(last == *b"\n")
}

/// The full file `number`, of which 1 is the newest: `events.jsonl.1`.
#[must_use]
pub fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}
