//! A page of a node's update log, as a blob that its author signed.

use bincode::{Decode, Encode};
use psyche_messages::{AppliedStep, BlobHash, Digest, PeerKey, RoundKey, Step, UpdatePage};

use super::messages::{WireResult, WireRound};
use super::{Signer, Wire, WireError, check_version, decode, encode};
use crate::identity::verifies;

/// Version of the page.
const PAGE_VERSION: u8 = 1;

/// Longest page in bytes: 32 steps of 256 results of 84 bytes, with their heads, stay below.
pub const UPDATES_BYTES_MAX: usize = 1 << 20;

/// What every signature of a page starts with; changes whenever the page's form does.
const PAGE_DOMAIN: &[u8] = b"psyche-solana-client 2026-11 update log page v1";

#[derive(Encode, Decode)]
struct WireStep {
    round: WireRound,
    cold_start: Option<(u32, u32)>,
    before: [u8; 32],
    after: [u8; 32],
    results: Vec<WireResult>,
}

#[derive(Encode, Decode)]
struct WirePage {
    author: [u8; 32],
    previous: Option<([u8; 32], u32)>,
    steps: Vec<WireStep>,
}

#[derive(Encode, Decode)]
struct SignedPage {
    version: u8,
    signature: [u8; 64],
    page: Vec<u8>,
}

impl From<&AppliedStep> for WireStep {
    fn from(step: &AppliedStep) -> Self {
        Self {
            round: step.round.into(),
            cold_start: step.cold_start.map(|(from, to)| (from.0, to.0)),
            before: step.before.0,
            after: step.after.0,
            results: step.results.iter().map(WireResult::from).collect(),
        }
    }
}

impl TryFrom<WireStep> for AppliedStep {
    type Error = WireError;

    fn try_from(step: WireStep) -> Result<Self, WireError> {
        let round = RoundKey::from(step.round);
        Ok(Self {
            round,
            cold_start: step.cold_start.map(|(from, to)| (Step(from), Step(to))),
            results: step.results.into_iter().map(|result| result.into_result(round)).collect::<Result<_, _>>()?,
            before: Digest(step.before),
            after: Digest(step.after),
        })
    }
}

impl Signer {
    /// Writes a page of the signer's update log.
    ///
    /// # Errors
    /// [`WireError`] if the page is not sound, or is another author's.
    pub fn sign_updates(&self, page: &UpdatePage) -> Result<Vec<u8>, WireError> {
        if !page.is_sound() {
            return Err(WireError::Updates);
        }
        if page.author != self.peer_key() {
            return Err(WireError::Signature { from: page.author });
        }
        let steps = page.steps.iter().map(WireStep::from).collect();
        let previous = page.previous.map(|(blob, len)| (blob.0, len));
        let bytes = encode::<_, UPDATES_BYTES_MAX>(&WirePage { author: page.author.0, previous, steps })?;
        let signature = self.pair.sign(&self.wire.page_bytes(&bytes));
        let length = signature.len();
        let signature = signature.try_into().map_err(|_| WireError::TooLong { length, length_max: 64 })?;
        encode::<_, UPDATES_BYTES_MAX>(&SignedPage { version: PAGE_VERSION, signature, page: bytes })
    }
}

impl Wire {
    /// Reads a page of an update log and verifies its author's signature.
    ///
    /// # Errors
    /// [`WireError`] for everything but the canonical form of a sound page of this run, signed by its author.
    pub fn decode_updates(&self, bytes: &[u8]) -> Result<UpdatePage, WireError> {
        check_version(bytes, PAGE_VERSION)?;
        let signed: SignedPage = decode::<_, UPDATES_BYTES_MAX>(bytes)?;
        let wire: WirePage = decode::<_, UPDATES_BYTES_MAX>(&signed.page)?;
        let from = PeerKey(wire.author);
        if !verifies(&from, &self.page_bytes(&signed.page), &signed.signature) {
            return Err(WireError::Signature { from });
        }
        let steps = wire.steps.into_iter().map(AppliedStep::try_from).collect::<Result<_, _>>()?;
        let previous = wire.previous.map(|(blob, len)| (BlobHash(blob), len));
        let page = UpdatePage { author: from, previous, steps };
        if page.is_sound() { Ok(page) } else { Err(WireError::Updates) }
    }

    fn page_bytes(&self, page: &[u8]) -> Vec<u8> {
        [PAGE_DOMAIN, &self.run_tag().0, page].concat()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use psyche_messages::updates::PAGE_STEPS_MAX;
    use psyche_messages::{Address, BatchInterval, ResultAnnounced, Secret};

    use super::*;

    fn signer(number: u8) -> Signer {
        Signer::new(&Secret::new([number; 32]), Wire::new(Address([0x52; 32])))
    }

    fn step(number: u32, results: u64) -> AppliedStep {
        let round = RoundKey::new(2, number);
        let result = |at: u64| ResultAnnounced {
            round,
            trainer: Address([at as u8; 32]),
            batch: BatchInterval::new(at * 10, at * 10 + 9).unwrap(),
            payload: BlobHash([at as u8; 32]),
            payload_len: 7,
        };
        AppliedStep {
            round,
            cold_start: None,
            results: (0..results).map(result).collect(),
            before: Digest([number as u8; 32]),
            after: Digest([number as u8 + 1; 32]),
        }
    }

    fn page(results: u64, steps: u32) -> UpdatePage {
        let steps = (5..5 + steps).map(|number| step(number, results)).collect();
        UpdatePage { author: signer(7).peer_key(), previous: Some((BlobHash([3; 32]), 9)), steps }
    }

    #[test]
    fn a_page_of_the_largest_kind_survives_the_journey() {
        let page = page(256, PAGE_STEPS_MAX as u32);
        let bytes = signer(7).sign_updates(&page).unwrap();
        assert_eq!(Wire::new(Address([0x52; 32])).decode_updates(&bytes).unwrap(), page);
    }

    #[test]
    fn no_byte_of_a_page_can_be_changed() {
        let bytes = signer(7).sign_updates(&page(2, 2)).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(Wire::new(Address([0x52; 32])).decode_updates(&changed).is_err(), "byte {at}");
        }
        assert!(Wire::new(Address([0x53; 32])).decode_updates(&bytes).is_err(), "it is another run's");
        assert!(Wire::new(Address([0x52; 32])).decode_updates(&bytes[..bytes.len() - 1]).is_err());
    }

    #[test]
    fn steps_out_of_order_or_without_the_digest_before_make_no_page() {
        let refused = |change: fn(&mut UpdatePage)| {
            let mut page = page(2, 3);
            change(&mut page);
            assert!(signer(7).sign_updates(&page).is_err(), "{page:?}");
        };
        refused(|page| page.steps.swap(0, 1));
        refused(|page| drop(page.steps.remove(1)));
        refused(|page| page.steps[1].before = Digest([99; 32]));
        refused(|page| page.steps[1].results.swap(0, 1));
        refused(|page| page.steps[1].results[0].round.step.0 += 1);
        refused(|page| page.steps.clear());
        refused(|page| page.author.0[0] ^= 1);
    }
}
