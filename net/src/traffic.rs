//! How many bytes of blobs went out and came in, in all and for each peer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use psyche_messages::PeerKey;

/// Peers whose bytes are told apart; a newcomer takes the place of the one that moved least.
const PEERS_MAX: usize = 1024;

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
    peers: Mutex<BTreeMap<PeerKey, BlobTraffic>>,
}

impl Traffic {
    pub(crate) fn count_sent(&self, peer: Option<PeerKey>, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        self.of(peer, |traffic| traffic.sent_bytes += bytes as u64);
    }

    pub(crate) fn count_received(&self, peer: PeerKey, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
        self.of(Some(peer), |traffic| traffic.received_bytes += bytes as u64);
    }

    pub(crate) fn read(&self) -> BlobTraffic {
        BlobTraffic { sent_bytes: self.sent.load(Ordering::Relaxed), received_bytes: self.received.load(Ordering::Relaxed) }
    }

    /// The same for each peer, by key.
    pub(crate) fn by_peer(&self) -> BTreeMap<PeerKey, BlobTraffic> {
        self.peers().clone()
    }

    fn peers(&self) -> MutexGuard<'_, BTreeMap<PeerKey, BlobTraffic>> {
        // Every change leaves the map whole.
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, peer: Option<PeerKey>, change: impl FnOnce(&mut BlobTraffic)) {
        let Some(peer) = peer else { return };
        let mut peers = self.peers();
        if peers.len() >= PEERS_MAX && !peers.contains_key(&peer) {
            let least = peers.iter().min_by_key(|(_, traffic)| traffic.sent_bytes.saturating_add(traffic.received_bytes));
            if let Some(least) = least.map(|(key, _)| *key) {
                peers.remove(&least);
            }
        }
        change(peers.entry(peer).or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_told_apart_by_peer_for_a_bounded_number_of_peers() {
        let (traffic, key) = (Traffic::default(), |n: u32| {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&n.to_be_bytes());
            PeerKey(bytes)
        });
        traffic.count_sent(Some(key(0)), 5_000);
        traffic.count_sent(None, 7);
        for n in 1..3_000 {
            traffic.count_received(key(n), 3);
        }
        let peers = traffic.by_peer();
        assert_eq!(peers.len(), PEERS_MAX);
        assert_eq!(peers.get(&key(0)), Some(&BlobTraffic { sent_bytes: 5_000, received_bytes: 0 }));
        assert_eq!(traffic.read(), BlobTraffic { sent_bytes: 5_007, received_bytes: 2_999 * 3 });
    }
}
