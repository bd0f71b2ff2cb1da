//! How much an engine remembers: what a simulation holds against the bounds.

use super::Engine;

/// Numbers of what an engine remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Rounds of which something was announced.
    pub rounds: usize,
    /// Results, manifests with their entries, and excuses.
    pub announcements: usize,
    /// Messages about rounds that the chain did not show yet.
    pub early: usize,
    /// Own messages that are repeated.
    pub repeated: usize,
    /// Blobs that are here or wanted.
    pub fetches: usize,
    /// Digests that were heard, held and compared.
    pub digests: usize,
    /// Announcements of snapshots, and names of those that were of no use.
    pub snapshots: usize,
}

impl Engine {
    /// How much this engine remembers.
    #[must_use]
    pub fn held(&self) -> Held {
        Held {
            rounds: self.stores.len(),
            announcements: self.stores.values().map(super::store::RoundStore::len).sum(),
            early: self.early.len(),
            repeated: self.outbox.len(),
            fetches: self.fetches.len(),
            digests: self.digests.len(),
            snapshots: self.snapshots.len(),
        }
    }
}
