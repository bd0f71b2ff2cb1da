//! Which manifests this node announced as a witness, kept on disk.
//!
//! A manifest itself lies in the blob store, which outlives the process. Under which name it lies there only its author said, to
//! whoever listened then. If every node restarts between the last report on a round and its application, nobody knows any more,
//! and a round that is decided on chain could not be applied: so a witness says it again when it comes back.

use std::fs;
use std::path::{Path, PathBuf};

use psyche_messages::{Address, BlobHash, ManifestAnnounced, RoundKey, Step};
use serde::{Deserialize, Serialize};

use super::updates::{UpdatesError, write};

/// Most announcements that are kept: one for each of the rounds that the account and the engine remember.
const KEPT_MAX: usize = 8;
/// A longer file is none of ours.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// The file's name.
const NAME: &str = "manifests.json";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    round: RoundKey,
    witness: Address,
    root: [u8; 32],
    blob: BlobHash,
    blob_len: u32,
}

impl From<&ManifestAnnounced> for Kept {
    fn from(announced: &ManifestAnnounced) -> Self {
        let ManifestAnnounced { round, witness, root, blob, blob_len } = announced.clone();
        Self { round, witness, root, blob, blob_len }
    }
}

impl From<&Kept> for ManifestAnnounced {
    fn from(kept: &Kept) -> Self {
        let Kept { round, witness, root, blob, blob_len } = kept.clone();
        Self { round, witness, root, blob, blob_len }
    }
}

/// The announcements, oldest first.
#[derive(Debug)]
pub struct ManifestShelf {
    file: PathBuf,
    kept: Vec<Kept>,
}

impl ManifestShelf {
    /// What `witness` announced according to the file in `folder`, which is made if need be. A file that is damaged says nothing, and is written
    /// anew.
    ///
    /// # Errors
    /// [`UpdatesError::Io`] if the file is there and can't be read.
    pub fn open(folder: &Path, witness: &Address) -> Result<Self, UpdatesError> {
        fs::create_dir_all(folder).map_err(|source| UpdatesError::Io { path: folder.to_owned(), source })?;
        let file = folder.join(NAME);
        let bytes = match fs::metadata(&file) {
            Ok(found) if found.len() <= FILE_BYTES_MAX => fs::read(&file),
            Ok(_) => Ok(Vec::new()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(b"[]".to_vec()),
            Err(error) => Err(error),
        };
        let bytes = bytes.map_err(|source| UpdatesError::Io { path: file.clone(), source })?;
        let mut kept: Vec<Kept> = serde_json::from_slice(&bytes).unwrap_or_else(|error| {
            tracing::warn!(actor = "run", file = %file.display(), %error, "what this node announced as a witness can't be read");
            Vec::new()
        });
        kept.retain(|kept| kept.witness == *witness);
        kept.sort_by_key(|kept| kept.round);
        kept.drain(..kept.len().saturating_sub(KEPT_MAX));
        Ok(Self { file, kept })
    }

    /// The announcements, oldest first.
    #[must_use]
    pub fn kept(&self) -> Vec<ManifestAnnounced> {
        self.kept.iter().map(ManifestAnnounced::from).collect()
    }

    /// Keeps an announcement, in place of an earlier one of its round; one that is kept already costs nothing.
    ///
    /// # Errors
    /// [`UpdatesError`] if it can't be written.
    pub async fn keep(&mut self, announced: &ManifestAnnounced) -> Result<(), UpdatesError> {
        let new = Kept::from(announced);
        if self.kept.contains(&new) {
            return Ok(());
        }
        self.kept.retain(|kept| kept.round != new.round);
        let at = self.kept.partition_point(|kept| kept.round < new.round);
        self.kept.insert(at, new);
        self.kept.drain(..self.kept.len().saturating_sub(KEPT_MAX));
        let bytes = serde_json::to_vec(&self.kept).unwrap_or_default();
        write(&self.file, &bytes).await
    }

    /// Forgets rounds before `step`; the file follows with the next announcement.
    pub fn forget_before(&mut self, step: Step) {
        self.kept.retain(|kept| kept.round.step >= step);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use super::*;

    const ME: Address = Address([3; 32]);

    fn announced(step: u32, byte: u8) -> ManifestAnnounced {
        let round = RoundKey::new(1, step);
        ManifestAnnounced { round, witness: ME, root: [byte; 32], blob: BlobHash([byte; 32]), blob_len: 77 }
    }

    #[tokio::test]
    async fn what_was_announced_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut shelf = ManifestShelf::open(dir.path(), &ME).unwrap();
        assert!(shelf.kept().is_empty());
        for (step, byte) in [(5, 1), (4, 2), (5, 3)] {
            shelf.keep(&announced(step, byte)).await.unwrap();
        }
        let again = ManifestShelf::open(dir.path(), &ME).unwrap();
        assert_eq!(again.kept(), [announced(4, 2), announced(5, 3)]);
        assert!(ManifestShelf::open(dir.path(), &Address([4; 32])).unwrap().kept().is_empty(), "another wallet's");
    }

    #[tokio::test]
    async fn the_oldest_go_first() {
        let dir = tempfile::tempdir().unwrap();
        let mut shelf = ManifestShelf::open(dir.path(), &ME).unwrap();
        for step in 0..40 {
            shelf.keep(&announced(step, 1)).await.unwrap();
        }
        let kept = ManifestShelf::open(dir.path(), &ME).unwrap().kept();
        assert_eq!((kept.len(), kept[0].round.step), (KEPT_MAX, Step(32)));
        shelf.forget_before(Step(38));
        assert_eq!(shelf.kept().len(), 2);
    }

    #[tokio::test]
    async fn a_damaged_or_endless_file_says_nothing_and_is_written_anew() {
        let dir = tempfile::tempdir().unwrap();
        let endless = " ".repeat(1 << 20);
        for text in ["[{\"round\":", "", endless.as_str()] {
            fs::write(dir.path().join(NAME), text).unwrap();
            let mut shelf = ManifestShelf::open(dir.path(), &ME).unwrap();
            assert!(shelf.kept().is_empty());
            shelf.keep(&announced(5, 1)).await.unwrap();
            assert_eq!(ManifestShelf::open(dir.path(), &ME).unwrap().kept().len(), 1);
        }
    }
}
