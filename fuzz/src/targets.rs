//! The decoders, and what must hold for each.

mod accounts;
mod blobs;
mod gossip;
mod models;

/// What a decoder said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The input is the encoding of a value, and was compared with it.
    Accepted,
    /// It is not, for this reason.
    Refused(String),
}

/// A decoder under test.
pub struct Target {
    /// Its name, and that of its corpus's folder.
    pub name: &'static str,
    /// Longest input that is of interest: one byte more is tried, too.
    pub length_max: usize,
    /// Words of the format.
    pub tokens: &'static [&'static [u8]],
    /// Inputs that are accepted, beside the corpus.
    pub examples: fn() -> Vec<Vec<u8>>,
    /// Puts right what would stop a mutated input at the door: versions, lengths, signatures.
    pub repair: fn(&mut Vec<u8>),
    /// Decodes; panics if that shows a fault of the decoder.
    pub check: fn(&[u8]) -> Verdict,
}

/// All decoders that peers and RPC endpoints reach.
pub const TARGETS: [&Target; 11] = [
    &gossip::ANNOUNCEMENT,
    &gossip::MANIFEST,
    &gossip::UPDATE_LOG,
    &blobs::REQUEST,
    &blobs::RESPONSE,
    &blobs::SNAPSHOT_INDEX,
    &models::PAYLOAD,
    &models::CONFIG,
    &accounts::COORDINATOR,
    &accounts::BORSH,
    &accounts::INSTRUCTION,
];

/// The verdict on `result`, whose value was accepted from `bytes` and has to be encoded to them again by `encode`.
fn canonical<T, E: std::fmt::Debug, F: std::fmt::Debug>(
    bytes: &[u8],
    result: Result<T, E>,
    encode: impl FnOnce(&T) -> Result<Vec<u8>, F>,
) -> Verdict {
    match result {
        Ok(value) => match encode(&value) {
            Ok(again) => {
                assert!(again == bytes, "accepted bytes are not the value's encoding");
                Verdict::Accepted
            }
            Err(error) => panic!("an accepted value can't be encoded: {error:?}"),
        },
        Err(error) => Verdict::Refused(format!("{error:?}")),
    }
}

/// Replaces `bytes[at..]` as far as they go.
fn put(bytes: &mut [u8], at: usize, with: &[u8]) {
    bytes.iter_mut().skip(at).zip(with).for_each(|(byte, with)| *byte = *with);
}
