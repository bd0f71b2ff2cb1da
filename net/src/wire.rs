//! What travels: versioned bincode with fixed-width little-endian integers, so that each value has one encoding. Decoding
//! consumes every byte and re-encodes to compare; anything else is refused.
//!
//! A gossip message is an envelope of version, author, signature and payload. The signature covers a domain string, the run
//! and the payload: a message of one run or one purpose never counts in another. Manifests ([`Wire::encode_manifest`]) repeat
//! the authors' signatures, and verify them again when decoded.

mod index;
mod manifest;
mod messages;
mod updates;

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use bincode::{Decode, Encode};
use libp2p::identity::ed25519;
use psyche_messages::ids::IdError;
use psyche_messages::round::RESULTS_MAX;
use psyche_messages::{Address, Evidence, PeerKey, Retry, RoundMessage, Secret, SignedRoundMessage};
use thiserror::Error;

pub use index::{INDEX_BYTES_MAX, INDEX_FILES_MAX, SnapshotFile, SnapshotIndex};
pub use manifest::MANIFEST_BYTES_MAX;
use messages::WireMessage;
pub use updates::UPDATES_BYTES_MAX;

use crate::identity::{ed25519_pair, verifies};

/// Version of the envelope and of the payload in it.
pub const ENVELOPE_VERSION: u8 = 1;

/// Longest envelope in bytes.
pub const ENVELOPE_BYTES_MAX: usize = 4096;

/// What every signature of a round message starts with; changes whenever the payload's form does.
const MESSAGE_DOMAIN: &[u8] = b"psyche-solana-client 2026-11 round message v1";

/// Why bytes were refused, or a value can't be written.
#[derive(Debug, Error)]
pub enum WireError {
    /// The input is longer than its kind may be.
    #[error("read {length} bytes: at most {length_max} are allowed")]
    TooLong {
        /// Length of the input.
        length: usize,
        /// The bound.
        length_max: usize,
    },
    /// The input speaks another version of the format.
    #[error("read format version {version}: this node speaks version {expected}")]
    Version {
        /// The version that was found.
        version: u8,
        /// The version that is spoken here.
        expected: u8,
    },
    /// The bytes are no value of the format.
    #[error("decode the bytes")]
    Decode(#[source] bincode::error::DecodeError),
    /// The value does not fit the format.
    #[error("encode the value")]
    Encode(#[source] bincode::error::EncodeError),
    /// The bytes mean a value whose one encoding they are not.
    #[error("accept bytes that are not in canonical form")]
    NotCanonical,
    /// A field holds a value that its type forbids.
    #[error("accept a field")]
    Field(#[source] IdError),
    /// A signature is not by the author over this run and payload.
    #[error("verify the signature of {from}")]
    Signature {
        /// The alleged author.
        from: PeerKey,
    },
    /// A manifest has too many entries.
    #[error("accept a manifest of {count} entries: at most {RESULTS_MAX} are allowed")]
    TooManyEntries {
        /// How many it has.
        count: usize,
    },
    /// An answer names too many peers.
    #[error("accept an answer that names {count} peers: at most four are allowed")]
    TooManyPeers {
        /// How many it names.
        count: usize,
    },
    /// A manifest's entries are not strictly ascending by batch start and commitment, or speak of another round.
    #[error("accept manifest entry {index}: entries are of the manifest's round and strictly ascending")]
    Order {
        /// The first entry that is out of place.
        index: usize,
    },
    /// Two announcements that do not contradict each other, or in the wrong order.
    #[error("accept evidence: it is two announcements of one trainer for one batch, the lower commitment first")]
    Evidence,
    /// A page of an update log whose steps are too many, do not follow each other, or hold results out of place.
    #[error("accept a page of an update log: its steps do not follow each other, or hold results out of place")]
    Updates,
    /// A snapshot index is malformed.
    #[error("accept a snapshot index: {reason}")]
    Index {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A snapshot index is no JSON of the expected shape.
    #[error("parse the snapshot index")]
    Json(#[source] serde_json::Error),
}

impl WireError {
    /// The same bytes are refused again.
    #[must_use]
    pub const fn retry(&self) -> Retry {
        Retry::Never
    }

    /// Whether the sender may be an honest node of another release.
    pub(crate) const fn is_other_version(&self) -> bool {
        matches!(self, Self::Version { .. })
    }
}

type Config<const N: usize> = Configuration<LittleEndian, Fixint, Limit<N>>;

const fn config<const N: usize>() -> Config<N> {
    bincode::config::standard().with_little_endian().with_fixed_int_encoding().with_limit::<N>()
}

/// Writes `value`, of at most `N` bytes.
pub(crate) fn encode<T: Encode, const N: usize>(value: &T) -> Result<Vec<u8>, WireError> {
    let bytes = bincode::encode_to_vec(value, config::<N>()).map_err(WireError::Encode)?;
    if bytes.len() > N {
        return Err(WireError::TooLong { length: bytes.len(), length_max: N });
    }
    Ok(bytes)
}

/// Reads the one value of which `bytes`, at most `N` of them, are the canonical form.
pub(crate) fn decode<T: Encode + Decode<()>, const N: usize>(bytes: &[u8]) -> Result<T, WireError> {
    if bytes.len() > N {
        return Err(WireError::TooLong { length: bytes.len(), length_max: N });
    }
    let (value, _) = bincode::decode_from_slice::<T, _>(bytes, config::<N>()).map_err(WireError::Decode)?;
    if encode::<T, N>(&value)? != bytes {
        return Err(WireError::NotCanonical);
    }
    Ok(value)
}

/// A signed round message as it travels. The first byte is the version.
#[derive(Encode, Decode)]
struct SignedEnvelope {
    version: u8,
    from: [u8; 32],
    signature: [u8; 64],
    payload: Vec<u8>,
}

/// The wire forms of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wire {
    run_tag: Address,
}

impl Wire {
    /// The wire forms of the run whose coordinator account is `run_tag`.
    #[must_use]
    pub const fn new(run_tag: Address) -> Self {
        Self { run_tag }
    }

    /// The run.
    #[must_use]
    pub const fn run_tag(&self) -> &Address {
        &self.run_tag
    }

    /// Writes an envelope around a message that is signed already.
    ///
    /// # Errors
    /// [`WireError`] if the message does not fit into [`ENVELOPE_BYTES_MAX`].
    pub fn encode_message(&self, signed: &SignedRoundMessage) -> Result<Vec<u8>, WireError> {
        encode::<_, ENVELOPE_BYTES_MAX>(&SignedEnvelope {
            version: ENVELOPE_VERSION,
            from: signed.from.0,
            signature: signed.signature,
            payload: payload_of(&signed.message)?,
        })
    }

    /// Reads an envelope and verifies its signature.
    ///
    /// # Errors
    /// [`WireError`] for everything but the canonical form of a message of this run, signed by its author.
    pub fn decode_message(&self, bytes: &[u8]) -> Result<SignedRoundMessage, WireError> {
        check_version(bytes, ENVELOPE_VERSION)?;
        let envelope: SignedEnvelope = decode::<_, ENVELOPE_BYTES_MAX>(bytes)?;
        let message = RoundMessage::try_from(decode::<WireMessage, ENVELOPE_BYTES_MAX>(&envelope.payload)?)?;
        let from = PeerKey(envelope.from);
        if !verifies(&from, &self.signed_bytes(&envelope.payload), &envelope.signature) {
            return Err(WireError::Signature { from });
        }
        if let RoundMessage::Evidence(evidence) = &message {
            self.check_evidence(evidence)?;
        }
        Ok(SignedRoundMessage { from, message, signature: envelope.signature })
    }

    /// Refuses an accusation that the accused did not sign itself.
    fn check_evidence(&self, evidence: &Evidence) -> Result<(), WireError> {
        let (first, second) = (&evidence.first, &evidence.second);
        if Evidence::of(first.clone(), second.clone(), &self.run_tag).as_ref() != Some(evidence) {
            return Err(WireError::Evidence);
        }
        self.check_entry(first)?;
        self.check_entry(second)
    }

    /// Whether `signed` carries its author's signature for this run.
    #[must_use]
    pub fn verifies(&self, signed: &SignedRoundMessage) -> bool {
        payload_of(&signed.message).is_ok_and(|payload| verifies(&signed.from, &self.signed_bytes(&payload), &signed.signature))
    }

    fn signed_bytes(&self, payload: &[u8]) -> Vec<u8> {
        [MESSAGE_DOMAIN, &self.run_tag.0, payload].concat()
    }
}

/// Signs round messages of one run with a node's identity.
pub struct Signer {
    pair: ed25519::Keypair,
    wire: Wire,
}

impl Signer {
    /// Signs as the owner of `seed` for the run of `wire`.
    #[must_use]
    pub fn new(seed: &Secret<[u8; 32]>, wire: Wire) -> Self {
        Self { pair: ed25519_pair(seed), wire }
    }

    /// The author that messages get.
    #[must_use]
    pub fn peer_key(&self) -> PeerKey {
        PeerKey(self.pair.public().to_bytes())
    }

    /// Signs `message`.
    ///
    /// # Errors
    /// [`WireError`] if the message does not fit into an envelope.
    pub fn sign(&self, message: RoundMessage) -> Result<SignedRoundMessage, WireError> {
        let payload = payload_of(&message)?;
        let signature = self.pair.sign(&self.wire.signed_bytes(&payload));
        let length = signature.len();
        let signature = signature.try_into().map_err(|_| WireError::TooLong { length, length_max: 64 })?;
        Ok(SignedRoundMessage { from: self.peer_key(), message, signature })
    }
}

/// The bytes of a message that its author signs.
fn payload_of(message: &RoundMessage) -> Result<Vec<u8>, WireError> {
    encode::<_, ENVELOPE_BYTES_MAX>(&WireMessage::from(message))
}

/// Refuses input whose first byte is not `expected`.
fn check_version(bytes: &[u8], expected: u8) -> Result<(), WireError> {
    match bytes.first() {
        Some(&version) if version != expected => Err(WireError::Version { version, expected }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
