//! The manifest blob: a witness's ordered list of accepted results with their authors' signatures.

use bincode::{Decode, Encode};
use psyche_messages::round::RESULTS_MAX;
use psyche_messages::{Manifest, ManifestEntry, PeerKey, ResultAnnounced, RoundKey, RoundMessage};

use super::messages::{WireResult, WireRound};
use super::{Wire, WireError, check_version, decode, encode, payload_of};
use crate::identity::verifies;

/// Version of the manifest blob.
const MANIFEST_VERSION: u8 = 1;

/// Longest manifest blob in bytes: 256 entries of 188 bytes and the head stay well below.
pub const MANIFEST_BYTES_MAX: usize = 64 * 1024;

#[derive(Encode, Decode)]
pub(super) struct WireEntry {
    from: [u8; 32],
    result: WireResult,
    signature: [u8; 64],
}

impl From<&ManifestEntry> for WireEntry {
    fn from(entry: &ManifestEntry) -> Self {
        Self { from: entry.from.0, result: (&entry.result).into(), signature: entry.signature }
    }
}

impl WireEntry {
    pub(super) fn into_entry(self, round: RoundKey) -> Result<ManifestEntry, WireError> {
        let result = self.result.into_result(round)?;
        Ok(ManifestEntry { from: PeerKey(self.from), result, signature: self.signature })
    }
}

#[derive(Encode, Decode)]
struct WireManifest {
    version: u8,
    round: WireRound,
    entries: Vec<WireEntry>,
}

impl Wire {
    /// Writes a manifest as the blob that witnesses serve.
    ///
    /// # Errors
    /// [`WireError`] if there are more than [`RESULTS_MAX`] entries, one is of another round, or they are out of order.
    pub fn encode_manifest(&self, manifest: &Manifest) -> Result<Vec<u8>, WireError> {
        self.check_order(manifest)?;
        let entries = manifest.entries.iter().map(WireEntry::from).collect();
        encode::<_, MANIFEST_BYTES_MAX>(&WireManifest { version: MANIFEST_VERSION, round: manifest.round.into(), entries })
    }

    /// Reads a manifest blob; every entry's signature is verified against its author.
    ///
    /// # Errors
    /// [`WireError`] for everything but the canonical form of an ordered manifest of this run with valid signatures.
    pub fn decode_manifest(&self, bytes: &[u8]) -> Result<Manifest, WireError> {
        check_version(bytes, MANIFEST_VERSION)?;
        let wire: WireManifest = decode::<_, MANIFEST_BYTES_MAX>(bytes)?;
        // Bounded before anything is computed for each entry.
        if wire.entries.len() > RESULTS_MAX {
            return Err(WireError::TooManyEntries { count: wire.entries.len() });
        }
        let round = RoundKey::from(wire.round);
        let entries = wire.entries.into_iter().map(|entry| entry.into_entry(round)).collect::<Result<Vec<_>, WireError>>()?;
        let manifest = Manifest { round, entries };
        self.check_order(&manifest)?;
        manifest.entries.iter().try_for_each(|entry| self.check_entry(entry))?;
        Ok(manifest)
    }

    pub(super) fn check_entry(&self, entry: &ManifestEntry) -> Result<(), WireError> {
        let payload = payload_of(&RoundMessage::Result(entry.result.clone()))?;
        if verifies(&entry.from, &self.signed_bytes(&payload), &entry.signature) {
            Ok(())
        } else {
            Err(WireError::Signature { from: entry.from })
        }
    }

    fn check_order(&self, manifest: &Manifest) -> Result<(), WireError> {
        let count = manifest.entries.len();
        if count > RESULTS_MAX {
            return Err(WireError::TooManyEntries { count });
        }
        if let Some(index) = manifest.entries.iter().position(|entry| entry.result.round != manifest.round) {
            return Err(WireError::Order { index });
        }
        let keys: Vec<_> = manifest.entries.iter().map(|entry| self.order_key(&entry.result)).collect();
        match keys.windows(2).position(|pair| pair[0] >= pair[1]) {
            Some(before) => Err(WireError::Order { index: before + 1 }),
            None => Ok(()),
        }
    }

    /// What a manifest's entries are sorted by.
    #[must_use]
    pub fn order_key(&self, result: &ResultAnnounced) -> (u64, [u8; 32]) {
        (result.batch.start(), result.commitment(self.run_tag()))
    }
}
