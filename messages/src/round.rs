//! What nodes of a run tell each other within a round (docs/ARCHITECTURE.md, "A round").
//!
//! These are the in-process forms. Their wire forms live in the network crate; [`ResultAnnounced::commitment`] and
//! [`Manifest::leaves`] define the bytes that end up under signatures and on chain, so they are versioned here.

use crate::ids::{Address, BatchInterval, BlobHash, Digest, PeerKey, RoundKey};
use crate::updates::UpdatesAnnounced;

/// Most results that a round can have: one for each client of an epoch.
pub const RESULTS_MAX: usize = 256;

/// Domain of the commitment hash; changes whenever the committed fields do.
const COMMITMENT_DOMAIN: &str = "psyche-solana-client 2026-11 result commitment v1";

/// "I trained this batch in this round, and this is the payload."
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultAnnounced {
    /// The round that was trained.
    pub round: RoundKey,
    /// The trainer's wallet address.
    pub trainer: Address,
    /// The batch that was trained; must be the assigned one.
    pub batch: BatchInterval,
    /// Name of the payload blob.
    pub payload: BlobHash,
    /// Exact length of the payload in bytes.
    pub payload_len: u32,
}

impl ResultAnnounced {
    /// The 32 bytes that stand for this result in witnesses' blooms and manifests. Covers every field and the run
    /// (`run_tag`: the run's coordinator account address).
    #[must_use]
    pub fn commitment(&self, run_tag: &Address) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key(COMMITMENT_DOMAIN);
        hasher.update(&run_tag.0);
        hasher.update(&self.round.epoch.0.to_le_bytes());
        hasher.update(&self.round.step.0.to_le_bytes());
        hasher.update(&self.trainer.0);
        hasher.update(&self.batch.start().to_le_bytes());
        hasher.update(&self.batch.end().to_le_bytes());
        hasher.update(&self.payload.0);
        hasher.update(&self.payload_len.to_le_bytes());
        *hasher.finalize().as_bytes()
    }
}

/// One accepted result in a witness's manifest: the announcement with its author's signature, so that whoever missed the
/// gossip can still check it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestEntry {
    /// The author's peer key, as the roster holds it.
    pub from: PeerKey,
    /// The announcement.
    pub result: ResultAnnounced,
    /// The author's signature over the announcement's wire form.
    pub signature: [u8; 64],
}

/// The ordered list of the results of `round` that a witness accepted. Its Merkle root is in the witness's transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The round whose results are listed (the one before the round in which the witness submits).
    pub round: RoundKey,
    /// Accepted results by ascending batch start, then by commitment. At most [`RESULTS_MAX`].
    pub entries: Vec<ManifestEntry>,
}

impl Manifest {
    /// The leaves under the Merkle root: the commitments, in order.
    #[must_use]
    pub fn leaves(&self, run_tag: &Address) -> Vec<[u8; 32]> {
        self.entries.iter().map(|entry| entry.result.commitment(run_tag)).collect()
    }
}

/// "The manifest under this root, which I submitted as a witness, is this blob."
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestAnnounced {
    /// The round whose results the manifest lists.
    pub round: RoundKey,
    /// The witness's wallet address.
    pub witness: Address,
    /// The Merkle root in the witness's transaction.
    pub root: [u8; 32],
    /// Name of the manifest blob.
    pub blob: BlobHash,
    /// Exact length of the manifest blob in bytes.
    pub blob_len: u32,
}

/// "After applying the results of this step my parameters have this digest."
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DigestAnnounced {
    /// The round whose results were applied last.
    pub round: RoundKey,
    /// How many results were applied.
    pub results: u16,
    /// The digest of all parameters.
    pub digest: Digest,
}

/// "I serve a snapshot of the parameters as they are after this step."
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotAnnounced {
    /// The round whose results were applied last.
    pub round: RoundKey,
    /// The digest of the parameters in the snapshot.
    pub digest: Digest,
    /// Name of the index blob: JSON that lists the snapshot's files with their blob hashes and lengths.
    pub index: BlobHash,
    /// Exact length of the index blob in bytes.
    pub index_len: u32,
}

/// "I have no result for this round: do not wait for it." The loss was not finite, the data was not to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkipAnnounced {
    /// The round that was not trained to the end.
    pub round: RoundKey,
    /// The trainer's wallet address.
    pub trainer: Address,
}

/// "This trainer signed two different results for one batch." Whoever holds both signatures can check it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// One announcement, that with the lower commitment.
    pub first: ManifestEntry,
    /// The other.
    pub second: ManifestEntry,
}

impl Evidence {
    /// The evidence in two announcements, in the one order that it may travel in; none if they do not contradict each other.
    #[must_use]
    pub fn of(one: ManifestEntry, other: ManifestEntry, run_tag: &Address) -> Option<Self> {
        let same = one.from == other.from
            && one.result.trainer == other.result.trainer
            && one.result.round == other.result.round
            && one.result.batch == other.result.batch;
        match one.result.commitment(run_tag).cmp(&other.result.commitment(run_tag)) {
            core::cmp::Ordering::Less if same => Some(Self { first: one, second: other }),
            core::cmp::Ordering::Greater if same => Some(Self { first: other, second: one }),
            _ => None,
        }
    }
}

/// Everything that travels over gossip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoundMessage {
    /// A trained result.
    Result(ResultAnnounced),
    /// Where a witness's manifest is.
    Manifest(ManifestAnnounced),
    /// A digest after an apply.
    Digest(DigestAnnounced),
    /// A snapshot that joiners may fetch.
    Snapshot(SnapshotAnnounced),
    /// A trainer that says two things.
    Evidence(Box<Evidence>),
    /// A trainer without a result.
    Skip(SkipAnnounced),
    /// Where a node's log of applied steps is.
    Updates(UpdatesAnnounced),
}

impl RoundMessage {
    /// The round it speaks of.
    #[must_use]
    pub const fn round(&self) -> RoundKey {
        match self {
            Self::Result(m) => m.round,
            Self::Manifest(m) => m.round,
            Self::Digest(m) => m.round,
            Self::Snapshot(m) => m.round,
            Self::Evidence(m) => m.first.result.round,
            Self::Skip(m) => m.round,
            Self::Updates(m) => m.round,
        }
    }
}

/// A round message whose signature has been checked against `from`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedRoundMessage {
    /// The author's peer key.
    pub from: PeerKey,
    /// What it says.
    pub message: RoundMessage,
    /// The author's signature over the message's wire form.
    pub signature: [u8; 64],
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use super::*;

    fn result() -> ResultAnnounced {
        ResultAnnounced {
            round: RoundKey::new(1, 7),
            trainer: Address([1; 32]),
            batch: BatchInterval::new(10, 19).unwrap(),
            payload: BlobHash([2; 32]),
            payload_len: 99,
        }
    }

    #[test]
    fn only_two_results_of_one_trainer_for_one_batch_are_evidence() {
        let run = Address([9; 32]);
        let entry = |change: fn(&mut ManifestEntry)| {
            let mut entry = ManifestEntry { from: PeerKey([3; 32]), result: result(), signature: [0; 64] };
            change(&mut entry);
            entry
        };
        let other = entry(|entry| entry.result.payload.0[0] ^= 1);
        let evidence = Evidence::of(entry(|_| ()), other.clone(), &run).unwrap();
        assert_eq!(Evidence::of(other.clone(), entry(|_| ()), &run), Some(evidence.clone()));
        assert!(evidence.first.result.commitment(&run) < evidence.second.result.commitment(&run));
        assert_eq!(Evidence::of(other.clone(), other.clone(), &run), None, "the same twice");
        let harmless: [fn(&mut ManifestEntry); 4] = [
            |entry| entry.from.0[0] ^= 1,
            |entry| entry.result.trainer.0[0] ^= 1,
            |entry| entry.result.round.step.0 += 1,
            |entry| entry.result.batch = BatchInterval::new(10, 20).unwrap(),
        ];
        for change in harmless {
            assert_eq!(Evidence::of(entry(change), other.clone(), &run), None);
        }
    }

    #[test]
    fn every_field_of_a_result_is_under_its_commitment() {
        let run = Address([9; 32]);
        let base = result().commitment(&run);
        let changes: [fn(&mut ResultAnnounced); 6] = [
            |r| r.round.epoch.0 += 1,
            |r| r.round.step.0 += 1,
            |r| r.trainer.0[0] ^= 1,
            |r| r.batch = BatchInterval::new(10, 20).unwrap(),
            |r| r.payload.0[31] ^= 1,
            |r| r.payload_len += 1,
        ];
        for change in changes {
            let mut changed = result();
            change(&mut changed);
            assert_ne!(changed.commitment(&run), base, "{changed:?}");
        }
        assert_ne!(result().commitment(&Address([8; 32])), base);
    }
}
