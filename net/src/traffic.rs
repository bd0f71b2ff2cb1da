//! How many bytes of blobs went out and came in.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of blobs since the network was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlobTraffic {
    /// Sent to peers.
    pub sent_bytes: u64,
    /// Received from peers, wrong ones and second copies too.
    pub received_bytes: u64,
}

/// The counters behind it.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Traffic {
    pub(crate) fn count_sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn count_received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> BlobTraffic {
        BlobTraffic { sent_bytes: self.sent.load(Ordering::Relaxed), received_bytes: self.received.load(Ordering::Relaxed) }
    }
}
