//! The index of a snapshot: canonical JSON that lists files by name, blob and length. It is fetched from peers, so its size,
//! the number of its files and their names are bounded, and a name can't leave the directory it is written to.

use psyche_messages::BlobHash;
use serde::{Deserialize, Serialize};

use super::WireError;

/// Longest index blob in bytes.
pub const INDEX_BYTES_MAX: usize = 1024 * 1024;

/// Most files of a snapshot.
pub const INDEX_FILES_MAX: usize = 4096;

/// Longest name of a file.
const NAME_LENGTH_MAX: usize = 96;

/// Version of the index.
const INDEX_VERSION: u8 = 1;

/// One file of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotFile {
    /// Its name: 1 to 96 of `A-Z a-z 0-9 . _ -`, not starting with a dot.
    pub name: String,
    /// The blob that is its content.
    pub blob: BlobHash,
    /// Its length in bytes.
    pub len: u64,
}

/// The files of a snapshot, in ascending order of their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotIndex {
    files: Vec<SnapshotFile>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonIndex {
    version: u8,
    files: Vec<SnapshotFile>,
}

impl SnapshotIndex {
    /// An index of `files`, in any order.
    ///
    /// # Errors
    /// [`WireError::Index`] for no files, too many, bad or repeated names, or lengths whose sum overflows.
    pub fn new(mut files: Vec<SnapshotFile>) -> Result<Self, WireError> {
        files.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Self::of_sorted(files)
    }

    fn of_sorted(files: Vec<SnapshotFile>) -> Result<Self, WireError> {
        let refuse = |reason| Err(WireError::Index { reason });
        if files.is_empty() || files.len() > INDEX_FILES_MAX {
            return refuse("it lists no files, or more than 4096");
        }
        if !files.iter().all(|file| is_safe_name(&file.name)) {
            return refuse("a file's name is empty, too long, or holds a character that is not allowed");
        }
        if files.windows(2).any(|pair| pair[0].name >= pair[1].name) {
            return refuse("names are not strictly ascending");
        }
        if files.iter().try_fold(0_u64, |sum, file| sum.checked_add(file.len)).is_none() {
            return refuse("the lengths overflow");
        }
        Ok(Self { files })
    }

    /// The files, by ascending name.
    #[must_use]
    pub fn files(&self) -> &[SnapshotFile] {
        &self.files
    }

    /// Length of all files together in bytes.
    #[must_use]
    pub fn total_len(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.len))
    }

    /// Writes the blob.
    ///
    /// # Errors
    /// [`WireError::TooLong`] if it exceeds [`INDEX_BYTES_MAX`].
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        let json = JsonIndex { version: INDEX_VERSION, files: self.files.clone() };
        let bytes = serde_json::to_vec(&json).map_err(WireError::Json)?;
        if bytes.len() > INDEX_BYTES_MAX {
            return Err(WireError::TooLong { length: bytes.len(), length_max: INDEX_BYTES_MAX });
        }
        Ok(bytes)
    }

    /// Reads the blob.
    ///
    /// # Errors
    /// [`WireError`] for everything but the canonical form of a valid index.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        if bytes.len() > INDEX_BYTES_MAX {
            return Err(WireError::TooLong { length: bytes.len(), length_max: INDEX_BYTES_MAX });
        }
        let json: JsonIndex = serde_json::from_slice(bytes).map_err(WireError::Json)?;
        if json.version != INDEX_VERSION {
            return Err(WireError::Version { version: json.version, expected: INDEX_VERSION });
        }
        let index = Self::of_sorted(json.files)?;
        if index.encode()? == bytes { Ok(index) } else { Err(WireError::NotCanonical) }
    }
}

fn is_safe_name(name: &str) -> bool {
    (1..=NAME_LENGTH_MAX).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}
