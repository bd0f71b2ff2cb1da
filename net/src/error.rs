//! What can go wrong in the network, and what the caller may do about it.

use std::time::Duration;

use psyche_messages::{Backoff, BlobHash, Retry};
use thiserror::Error;

use crate::blobs::BlobError;
use crate::wire::WireError;

/// Why the network can't be started or used.
#[derive(Debug, Error)]
pub enum NetError {
    /// A configured address is no multiaddress.
    #[error("parse the address {address:?}")]
    Address {
        /// The text.
        address: String,
        /// The cause.
        #[source]
        source: libp2p::multiaddr::Error,
    },
    /// A bootstrap address does not end in the peer's id.
    #[error("accept the bootstrap address {address:?}: it must end in /p2p/ and the id of an ed25519 peer")]
    BootstrapPeer {
        /// The text.
        address: String,
    },
    /// No address is configured to listen on.
    #[error("listen: no address is configured")]
    NoListenAddress,
    /// More bootstrap peers or members are given than a node handles.
    #[error("accept {count} {what}: at most {count_max} are allowed")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many were given.
        count: usize,
        /// The bound.
        count_max: usize,
    },
    /// An address can't be listened on.
    #[error("listen on {address}")]
    Listen {
        /// The address.
        address: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The listeners did not come up in time.
    #[error("listen within {timeout_s} s")]
    ListenTimeout {
        /// How long it was waited for.
        timeout_s: u64,
    },
    /// A part of libp2p refused its configuration, or the system's resolver can't be used.
    #[error("set up {part}")]
    Setup {
        /// Which part.
        part: &'static str,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The blob store refused.
    #[error("use the blob store")]
    Blobs(#[from] BlobError),
    /// A message can't be written or signed.
    #[error("write a message")]
    Wire(#[from] WireError),
    /// The network was shut down.
    #[error("reach the network task: it has stopped")]
    Closed,
}

impl NetError {
    /// What the caller may do.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::Listen { .. } | Self::ListenTimeout { .. } => after(Duration::from_secs(1), Duration::from_secs(30)),
            Self::Blobs(error) => error.retry(),
            Self::Wire(error) => error.retry(),
            Self::Address { .. }
            | Self::BootstrapPeer { .. }
            | Self::NoListenAddress
            | Self::TooMany { .. }
            | Self::Setup { .. }
            | Self::Closed => Retry::Never,
        }
    }
}

/// Why a blob did not arrive.
#[derive(Debug, Error)]
pub enum FetchError {
    /// Time ran out. The peers that were asked did not have it, did not answer, or answered wrong.
    #[error(
        "fetch blob {hash} of {len} bytes within {timeout_ms} ms: {asked} peers asked, {refused} of them refused for wrong bytes"
    )]
    Timeout {
        /// Its name.
        hash: BlobHash,
        /// Its announced length.
        len: u64,
        /// The limit.
        timeout_ms: u64,
        /// How many peers were asked at least once.
        asked: usize,
        /// How many of them sent bytes of another hash.
        refused: usize,
    },
    /// The blob is here, but of another length than was asked for: whoever announced it lied.
    #[error("fetch blob {hash} of {len} bytes: it has {actual}")]
    Length {
        /// Its name.
        hash: BlobHash,
        /// The announced length.
        len: u64,
        /// Its true length.
        actual: u64,
    },
    /// The blob can't be stored.
    #[error("store blob {hash}")]
    Store {
        /// Its name.
        hash: BlobHash,
        /// The cause.
        #[source]
        source: BlobError,
    },
    /// The network was shut down.
    #[error("reach the network task: it has stopped")]
    Closed,
}

impl FetchError {
    /// What the caller may do.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::Timeout { .. } => after(Duration::from_millis(500), Duration::from_secs(10)),
            Self::Store { source, .. } => source.retry(),
            Self::Length { .. } | Self::Closed => Retry::Never,
        }
    }
}

/// A doubling schedule with 30 percent jitter.
fn after(first: Duration, cap: Duration) -> Retry {
    Backoff::new(first, cap, 200, 30).map_or(Retry::Never, Retry::After)
}

/// Wraps a cause of any type.
pub(crate) fn boxed(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Box<dyn std::error::Error + Send + Sync> {
    source.into()
}
