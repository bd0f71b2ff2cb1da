//! Deterministic selections: what follows from the account alone, the same on chain and on every node (ABI section 4).

mod batch;
mod bloom;
mod checkpointers;
mod committee;
mod health;
mod merkle;
mod shuffle;

pub use batch::{Assigned, Assignment, BatchId, global_batch_size};
pub use bloom::participant_item;
pub use checkpointers::{CHECKPOINTERS, check_checkpointer, checkpointers};
pub use committee::{SelectError, Selection};
pub use health::{Health, MIN_HEALTH_HEIGHT, check_health, quorum, unhealthy_clients, witness_score};
pub use merkle::{EMPTY_ROOT, MerkleBuilder, merkle_root};
pub use shuffle::shuffled_index;

use crate::hash::{low_u64, sha256};

/// The chain's clock, as its sysvar gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Seconds since 1970.
    pub unix_timestamp: i64,
    /// The slot.
    pub slot: u64,
}

impl Clock {
    /// The time as the account stores it; a time before 1970 counts as 0.
    #[must_use]
    pub const fn now(&self) -> u64 {
        if self.unix_timestamp < 0 { 0 } else { self.unix_timestamp as u64 }
    }

    /// The seed of a round that starts now.
    #[must_use]
    pub fn seed(&self) -> u64 {
        low_u64(&sha256(&[&self.unix_timestamp.to_le_bytes(), &self.slot.to_le_bytes()]))
    }
}
