//! The payload of an envelope. These types exist apart from the in-process ones so that a change of the latter never changes
//! bytes under signatures unnoticed.

use bincode::{Decode, Encode};
use psyche_messages::{
    Address, BatchInterval, BlobHash, Digest, DigestAnnounced, Evidence, ManifestAnnounced, ResultAnnounced, RoundKey,
    RoundMessage, SkipAnnounced, SnapshotAnnounced, Step, UpdatesAnnounced,
};

use super::WireError;
use super::manifest::WireEntry;

#[derive(Clone, Copy, Encode, Decode)]
pub(super) struct WireRound {
    epoch: u16,
    step: u32,
}

impl From<RoundKey> for WireRound {
    fn from(round: RoundKey) -> Self {
        Self { epoch: round.epoch.0, step: round.step.0 }
    }
}

impl From<WireRound> for RoundKey {
    fn from(round: WireRound) -> Self {
        Self::new(round.epoch, round.step)
    }
}

/// A result without its round, which stands beside it.
#[derive(Encode, Decode)]
pub(super) struct WireResult {
    trainer: [u8; 32],
    batch_start: u64,
    batch_end: u64,
    payload: [u8; 32],
    payload_len: u32,
}

impl From<&ResultAnnounced> for WireResult {
    fn from(result: &ResultAnnounced) -> Self {
        Self {
            trainer: result.trainer.0,
            batch_start: result.batch.start(),
            batch_end: result.batch.end(),
            payload: result.payload.0,
            payload_len: result.payload_len,
        }
    }
}

impl WireResult {
    pub(super) fn into_result(self, round: RoundKey) -> Result<ResultAnnounced, WireError> {
        Ok(ResultAnnounced {
            round,
            trainer: Address(self.trainer),
            batch: BatchInterval::new(self.batch_start, self.batch_end).map_err(WireError::Field)?,
            payload: BlobHash(self.payload),
            payload_len: self.payload_len,
        })
    }
}

#[derive(Encode, Decode)]
pub(super) struct WireManifestAnnounced {
    witness: [u8; 32],
    root: [u8; 32],
    blob: [u8; 32],
    blob_len: u32,
}

#[derive(Encode, Decode)]
pub(super) struct WireDigest {
    results: u16,
    digest: [u8; 32],
}

#[derive(Encode, Decode)]
pub(super) struct WireSnapshot {
    digest: [u8; 32],
    index: [u8; 32],
    index_len: u32,
}

#[derive(Encode, Decode)]
pub(super) struct WireUpdatesAnnounced {
    first: u32,
    digest: [u8; 32],
    blob: [u8; 32],
    blob_len: u32,
}

/// Variants are numbered by position: new ones go to the end.
#[derive(Encode, Decode)]
pub(super) enum WireMessage {
    Result(WireRound, WireResult),
    Manifest(WireRound, WireManifestAnnounced),
    Digest(WireRound, WireDigest),
    Snapshot(WireRound, WireSnapshot),
    Evidence(WireRound, Box<(WireEntry, WireEntry)>),
    Skip(WireRound, [u8; 32]),
    Updates(WireRound, WireUpdatesAnnounced),
}

impl From<&RoundMessage> for WireMessage {
    fn from(message: &RoundMessage) -> Self {
        match message {
            RoundMessage::Result(m) => Self::Result(m.round.into(), m.into()),
            RoundMessage::Manifest(m) => Self::Manifest(
                m.round.into(),
                WireManifestAnnounced { witness: m.witness.0, root: m.root, blob: m.blob.0, blob_len: m.blob_len },
            ),
            RoundMessage::Digest(m) => Self::Digest(m.round.into(), WireDigest { results: m.results, digest: m.digest.0 }),
            RoundMessage::Snapshot(m) => {
                Self::Snapshot(m.round.into(), WireSnapshot { digest: m.digest.0, index: m.index.0, index_len: m.index_len })
            }
            RoundMessage::Skip(m) => Self::Skip(m.round.into(), m.trainer.0),
            RoundMessage::Updates(m) => Self::Updates(
                m.round.into(),
                WireUpdatesAnnounced { first: m.first.0, digest: m.digest.0, blob: m.blob.0, blob_len: m.blob_len },
            ),
            RoundMessage::Evidence(m) => {
                Self::Evidence(m.first.result.round.into(), Box::new(((&m.first).into(), (&m.second).into())))
            }
        }
    }
}

impl TryFrom<WireMessage> for RoundMessage {
    type Error = WireError;

    fn try_from(message: WireMessage) -> Result<Self, WireError> {
        Ok(match message {
            WireMessage::Result(round, m) => Self::Result(m.into_result(round.into())?),
            WireMessage::Manifest(round, m) => Self::Manifest(ManifestAnnounced {
                round: round.into(),
                witness: Address(m.witness),
                root: m.root,
                blob: BlobHash(m.blob),
                blob_len: m.blob_len,
            }),
            WireMessage::Digest(round, m) => {
                Self::Digest(DigestAnnounced { round: round.into(), results: m.results, digest: Digest(m.digest) })
            }
            WireMessage::Snapshot(round, m) => Self::Snapshot(SnapshotAnnounced {
                round: round.into(),
                digest: Digest(m.digest),
                index: BlobHash(m.index),
                index_len: m.index_len,
            }),
            WireMessage::Skip(round, trainer) => Self::Skip(SkipAnnounced { round: round.into(), trainer: Address(trainer) }),
            WireMessage::Updates(round, m) => Self::Updates(UpdatesAnnounced {
                round: round.into(),
                first: Step(m.first),
                digest: Digest(m.digest),
                blob: BlobHash(m.blob),
                blob_len: m.blob_len,
            }),
            WireMessage::Evidence(round, both) => {
                let (first, second) = *both;
                let (first, second) = (first.into_entry(round.into())?, second.into_entry(round.into())?);
                Self::Evidence(Box::new(Evidence { first, second }))
            }
        })
    }
}
