//! The protocol's rules in the engine's types.

use psyche_messages::{Address, BatchInterval, PeerKey, RoundKey};
use psyche_protocol::layout::{Bloom, Coordinator, NodeIdentity, Round};
use psyche_protocol::select::{Assignment, Selection, quorum as quorum_of};

/// A client of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// The wallet's address.
    pub signer: Address,
    /// The peer key.
    pub peer: PeerKey,
}

impl From<&NodeIdentity> for Member {
    fn from(id: &NodeIdentity) -> Self {
        Self { signer: Address(id.signer), peer: PeerKey(id.p2p_identity) }
    }
}

/// What the broadcast bloom of a witness is for; different purposes have different keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BloomOf {
    /// Trainers.
    Participants,
    /// Commitments.
    Broadcasts,
}

/// The bloom over `items` that `me` submits in `round`. Its keys follow from who, when and what for: nobody can prepare
/// an item that every witness's bloom takes for known.
pub(super) fn bloom(me: &Address, round: RoundKey, purpose: BloomOf, items: impl IntoIterator<Item = [u8; 32]>) -> Bloom {
    let mut hasher = blake3::Hasher::new_derive_key("psyche-solana-client 2026-11 bloom keys v1");
    hasher.update(&me.0);
    hasher.update(&round.epoch.0.to_le_bytes());
    hasher.update(&round.step.0.to_le_bytes());
    hasher.update(&[purpose as u8]);
    let mut bytes = [0; 64];
    hasher.finalize_xof().fill(&mut bytes);
    let mut keys = [0; 8];
    for (key, bytes) in keys.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *key = u64::from_le_bytes(*bytes);
    }
    let mut bloom = Bloom::new(keys);
    for item in items {
        bloom.add(&item);
    }
    bloom
}

/// The batch of each client of `round`, by index.
pub(super) fn batches(coordinator: &Coordinator, round: &Round, selection: &Selection) -> Vec<Option<BatchInterval>> {
    let mut batches = vec![None; usize::from(round.clients_len)];
    for assigned in Assignment::new(round, selection, coordinator.global_batch_size(round)).iter() {
        if let Some(slot) = batches.get_mut(usize::from(assigned.client)) {
            *slot = BatchInterval::new(assigned.batch.start, assigned.batch.end).ok();
        }
    }
    batches
}

/// How many of a round's witnesses must agree: of the configured number, or of those that reported where that is 0.
pub(super) fn quorum(witness_nodes: u16, reported: usize) -> usize {
    let witnesses = if witness_nodes == 0 { u16::try_from(reported).unwrap_or(u16::MAX) } else { witness_nodes };
    usize::from(quorum_of(witnesses))
}
