//! Why the blob store refuses.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use psyche_messages::{Backoff, BlobHash, Retry};
use thiserror::Error;

/// Why the store refused.
#[derive(Debug, Error)]
pub enum BlobError {
    /// The disk refused.
    #[error("use {path}")]
    Io {
        /// What was to be read or written.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The blob does not fit, even after everything that may go has gone.
    #[error("store {len} bytes: {free} of {bytes_max} are free")]
    Full {
        /// Length of the blob.
        len: u64,
        /// What is left.
        free: u64,
        /// The quota.
        bytes_max: u64,
    },
    /// Bytes do not have the hash or the length that they were announced with.
    #[error("verify blob {hash}")]
    Wrong {
        /// The announced name.
        hash: BlobHash,
    },
    /// A file changed while it was copied.
    #[error("copy a file of {len} bytes: it changes while it is read")]
    Changed {
        /// Its length at first.
        len: u64,
    },
    /// The caller asked for a blob that is not there.
    #[error("find blob {hash}")]
    Missing {
        /// Its name.
        hash: BlobHash,
    },
}

impl BlobError {
    /// A full store empties as rounds pass; the rest stays.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::Full { .. } => {
                Backoff::new(Duration::from_secs(1), Duration::from_secs(30), 200, 30).map_or(Retry::Never, Retry::After)
            }
            Self::Wrong { .. } => Retry::NextEndpoint,
            Self::Io { .. } | Self::Changed { .. } | Self::Missing { .. } => Retry::Never,
        }
    }
}
