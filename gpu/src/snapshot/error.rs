//! What goes wrong with snapshots, with the path and what the operator can do about it.

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use psyche_messages::Digest;

/// Why a snapshot was not saved or is not used; each completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file system refuses. Snapshots from before are untouched.
    #[error("use {}: {obstacle}", path.display())]
    Disk {
        /// The file or folder.
        path: PathBuf,
        /// What is in the way, and what helps.
        obstacle: Obstacle,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file is not what was saved.
    #[error("trust {}: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How it differs.
        problem: String,
    },
    /// The snapshot is whole, but not for this run, this model or this version.
    #[error("go on from {}: {problem}", path.display())]
    Foreign {
        /// The file that shows it.
        path: PathBuf,
        /// What does not fit.
        problem: String,
    },
    /// The weights can be read, and are not the expected ones.
    #[error("trust the weights in {}: their digest is {}, expected is {}", path.display(), found.short(), expected.short())]
    Refuted {
        /// Their folder.
        path: PathBuf,
        /// The digest of what was read.
        found: Digest,
        /// The digest that was announced or saved with them.
        expected: Digest,
    },
}

/// What keeps files from being used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// No room is left.
    DiskFull,
    /// The file system can't be written.
    ReadOnly,
    /// This user may not.
    Denied,
    /// There is something else under this name.
    InTheWay,
    /// Anything else; the source says what.
    Other,
}

impl Obstacle {
    fn of(error: &io::Error) -> Self {
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => Self::DiskFull,
            ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            ErrorKind::PermissionDenied => Self::Denied,
            ErrorKind::NotADirectory | ErrorKind::AlreadyExists | ErrorKind::IsADirectory | ErrorKind::DirectoryNotEmpty => {
                Self::InTheWay
            }
            _ => Self::Other,
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DiskFull => "no room is left; free some, or keep fewer snapshots",
            Self::ReadOnly => "the file system is mounted read-only; mount it writable, or choose another folder",
            Self::Denied => "this user has no permission; change the owner of the folder, or choose another one",
            Self::InTheWay => "something else has this name; move it away, or choose another folder",
            Self::Other => "the system refuses",
        })
    }
}

impl SnapshotError {
    /// A [`SnapshotError::Disk`] of `path`.
    pub(crate) fn disk(path: &Path, source: io::Error) -> Self {
        Self::Disk { path: path.to_owned(), obstacle: Obstacle::of(&source), source }
    }

    /// A [`SnapshotError::Damaged`] of `path`.
    pub(crate) fn damaged(path: &Path, problem: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), problem: problem.into() }
    }

    /// A [`SnapshotError::Foreign`] of `path`.
    pub(crate) fn foreign(path: &Path, problem: impl Into<String>) -> Self {
        Self::Foreign { path: path.to_owned(), problem: problem.into() }
    }

    /// Reading: a file that is not there, or ends too soon, is damage; all else is the disk's.
    pub(crate) fn reading(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            ErrorKind::NotFound => Self::damaged(path, "it is missing"),
            ErrorKind::UnexpectedEof => Self::damaged(path, "it ends too soon"),
            _ => Self::disk(path, source),
        }
    }

    /// Whether the files themselves are wrong, so that no later attempt can use them.
    #[must_use]
    pub const fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Refuted { .. })
    }
}
