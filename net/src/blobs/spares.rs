//! Files of dropped blobs, kept to be overwritten by the next ones. Payloads come and go every round and are of one length: a file
//! whose pages and disk blocks are there already is written many times as fast as a new one, for which the system has to find,
//! clear and book both.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::partial::PARTIAL_DIR;
use super::tree::GROUP_BYTES;

/// Most files that are kept, and most bytes of them.
const FILES_MAX: usize = 64;
const BYTES_MAX: u64 = 256 << 20;

/// Shorter files are not worth it.
pub(super) const LEN_MIN: u64 = GROUP_BYTES as u64;

/// The files, in the store's folder of unfinished ones, which is cleared of them at the next start.
#[derive(Debug, Default)]
pub(super) struct Spares {
    /// Number and length, the oldest first.
    files: Vec<(u64, u64)>,
    bytes: u64,
    next: u64,
    /// How many files were given out.
    #[cfg(test)]
    pub(super) taken: usize,
}

impl Spares {
    fn path(dir: &Path, number: u64) -> PathBuf {
        dir.join(PARTIAL_DIR).join(format!("spare.{number}"))
    }

    /// What they take of the disk.
    #[cfg(test)]
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes the file at `path`, of a blob of `len` bytes that nobody reads or writes any more, if the spares may have so much
    /// beside `room`, the bytes that nobody uses. False if the file is to be removed.
    pub(super) fn keep(&mut self, dir: &Path, path: &Path, len: u64, room: u64) -> bool {
        if len < LEN_MIN || len > BYTES_MAX.min(room) {
            return false;
        }
        while self.files.len() >= FILES_MAX || self.bytes.saturating_add(len) > BYTES_MAX.min(room) {
            if !self.drop_oldest(dir) {
                return false;
            }
        }
        // A file with another name elsewhere belongs to somebody else, too; one that has changed is no blob's.
        let own = fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file() && meta.nlink() == 1 && meta.len() == len);
        if !own || fs::rename(path, Self::path(dir, self.next)).is_err() {
            return false;
        }
        self.files.push((self.next, len));
        self.next += 1;
        self.bytes += len;
        true
    }

    /// Removes spares until they take `bytes_max` at most.
    pub(super) fn shrink(&mut self, dir: &Path, bytes_max: u64) {
        while self.bytes > bytes_max && self.drop_oldest(dir) {}
    }

    fn drop_oldest(&mut self, dir: &Path) -> bool {
        if self.files.is_empty() {
            return false;
        }
        let (number, len) = self.files.remove(0);
        self.bytes -= len;
        // What can't be removed is removed at the next start.
        let _removed = fs::remove_file(Self::path(dir, number));
        true
    }

    /// Makes the file at `path` of `len` bytes: the shortest spare that is long enough, whose content is anything, or a new one of
    /// no length. Whoever writes it tells by himself what he has written.
    pub(super) fn open(&mut self, dir: &Path, path: &Path, len: u64) -> io::Result<File> {
        let found = (0..self.files.len()).filter(|at| self.files[*at].1 >= len && len >= LEN_MIN);
        if let Some(at) = found.min_by_key(|at| self.files[*at].1) {
            let (number, held) = self.files.remove(at);
            self.bytes -= held;
            let spare = Self::path(dir, number);
            let opened = OpenOptions::new().read(true).write(true).open(&spare).and_then(|file| {
                file.set_len(len)?;
                fs::rename(&spare, path)?;
                Ok(file)
            });
            if let Ok(file) = opened {
                #[cfg(test)]
                {
                    self.taken += 1;
                }
                return Ok(file);
            }
            let _removed = fs::remove_file(&spare);
        }
        OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)
    }
}
