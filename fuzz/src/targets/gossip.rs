//! Round messages and manifests. Both are signed: mutated ones are signed anew.

use std::sync::OnceLock;

use psyche_messages::{
    Address, AppliedStep, BatchInterval, BlobHash, Digest, DigestAnnounced, Evidence, Manifest, ManifestAnnounced,
    ManifestEntry, ResultAnnounced, RoundKey, RoundMessage, Secret, SkipAnnounced, SnapshotAnnounced, Step, UpdatePage,
    UpdatesAnnounced,
};
use psyche_net::wire::{ENVELOPE_BYTES_MAX, MANIFEST_BYTES_MAX, UPDATES_BYTES_MAX};
use psyche_net::{Signer, Wire, WireError};

use super::{Target, Verdict, canonical, put};
use crate::allocation::within;
use crate::ed25519::Author;

const RUN: Address = Address([0x52; 32]);
const SEED: [u8; 32] = [7; 32];
const DOMAIN: &[u8] = b"psyche-solana-client 2026-11 round message v1";

const PAGE_DOMAIN: &[u8] = b"psyche-solana-client 2026-11 update log page v1";

/// Version, author, signature and length stand before an envelope's payload.
const ENVELOPE_HEAD: usize = 1 + 32 + 64 + 8;
/// Version, epoch, step and number of entries stand before a manifest's entries.
const MANIFEST_HEAD: usize = 1 + 2 + 4 + 8;
/// Bytes of a result, which an entry holds between author and signature.
const RESULT_BYTES: usize = 32 + 8 + 8 + 32 + 4;
const ENTRY_BYTES: usize = 32 + RESULT_BYTES + 64;

fn author() -> &'static Author {
    static AUTHOR: OnceLock<Author> = OnceLock::new();
    AUTHOR.get_or_init(|| Author::new(&SEED))
}

fn signer() -> Signer {
    Signer::new(&Secret::new(SEED), Wire::new(RUN))
}

fn result(start: u64) -> ResultAnnounced {
    ResultAnnounced {
        round: RoundKey::new(3, 9),
        trainer: Address([1; 32]),
        batch: BatchInterval::new(start, start + 4).unwrap_or_else(|error| panic!("{error}")),
        payload: BlobHash([start as u8; 32]),
        payload_len: 77,
    }
}

fn entry(result: ResultAnnounced) -> Option<ManifestEntry> {
    let signed = signer().sign(RoundMessage::Result(result.clone())).ok()?;
    Some(ManifestEntry { from: signed.from, result, signature: signed.signature })
}

/// Signs the entry at `at`, with `round` in front of its result, anew.
fn repair_entry(bytes: &mut [u8], at: usize, round: &[u8]) {
    let from = at + 32;
    let Some(result) = bytes.get(from..from + RESULT_BYTES) else { return };
    let signature = author().sign(&[DOMAIN, &RUN.0, &[0; 4], round, result]);
    put(bytes, at, author().key());
    put(bytes, from + RESULT_BYTES, &signature);
}

/// Messages with their envelopes.
pub(super) const ANNOUNCEMENT: Target = Target {
    name: "announcement",
    length_max: ENVELOPE_BYTES_MAX,
    tokens: &[&[0; 4], &[1, 0, 0, 0], &[2, 0, 0, 0], &[3, 0, 0, 0], &[4, 0, 0, 0], &[5, 0, 0, 0]],
    examples: announcements,
    repair: repair_announcement,
    check: check_announcement,
};

fn announcements() -> Vec<Vec<u8>> {
    let round = RoundKey::new(3, 9);
    let (trainer, digest) = (Address([1; 32]), Digest([4; 32]));
    let mut messages = vec![
        RoundMessage::Result(result(4)),
        RoundMessage::Manifest(ManifestAnnounced {
            round,
            witness: trainer,
            root: [5; 32],
            blob: BlobHash([6; 32]),
            blob_len: 8,
        }),
        RoundMessage::Digest(DigestAnnounced { round, results: 4, digest }),
        RoundMessage::Snapshot(SnapshotAnnounced { round, digest, index: BlobHash([7; 32]), index_len: 99 }),
        RoundMessage::Skip(SkipAnnounced { round, trainer }),
        RoundMessage::Updates(UpdatesAnnounced { round, first: Step(2), digest, blob: BlobHash([7; 32]), blob_len: 99 }),
    ];
    let other = ResultAnnounced { payload: BlobHash([0xee; 32]), ..result(4) };
    if let (Some(first), Some(second)) = (entry(result(4)), entry(other)) {
        messages.extend(Evidence::of(first, second, &RUN).map(|evidence| RoundMessage::Evidence(Box::new(evidence))));
    }
    let envelope = |message| Wire::new(RUN).encode_message(&signer().sign(message).ok()?).ok();
    messages.into_iter().filter_map(envelope).collect()
}

#[expect(clippy::ptr_arg, reason = "a target's repair may change the length")]
fn repair_announcement(bytes: &mut Vec<u8>) {
    let Some((head, payload)) = bytes.split_at_mut_checked(ENVELOPE_HEAD) else { return };
    if payload.first() == Some(&4)
        && let Some((front, entries)) = payload.split_at_mut_checked(4 + 6)
    {
        repair_entry(entries, 0, &front[4..]);
        repair_entry(entries, ENTRY_BYTES, &front[4..]);
    }
    put(head, 0, &[1]);
    put(head, 1, author().key());
    put(head, 33, &author().sign(&[DOMAIN, &RUN.0, payload]));
    put(head, 97, &(payload.len() as u64).to_le_bytes());
}

fn check_announcement(bytes: &[u8]) -> Verdict {
    let wire = Wire::new(RUN);
    let decoded = within(64 * 1024, || wire.decode_message(bytes));
    if let Ok(signed) = &decoded {
        assert!(wire.verifies(signed), "the signature counts for the bytes and not for the message");
        assert!(Wire::new(Address([0x53; 32])).decode_message(bytes).is_err(), "it counts for another run");
    }
    canonical(bytes, decoded, |signed| wire.encode_message(signed))
}

/// Witnesses' lists of results.
pub(super) const MANIFEST: Target = Target {
    name: "manifest",
    length_max: MANIFEST_BYTES_MAX,
    tokens: &[&[0; 180]],
    examples: manifests,
    repair: repair_manifest,
    check: check_manifest,
};

fn manifests() -> Vec<Vec<u8>> {
    let of = |starts: &[u64]| {
        let entries = starts.iter().filter_map(|start| entry(result(*start))).collect();
        Wire::new(RUN).encode_manifest(&Manifest { round: RoundKey::new(3, 9), entries }).ok()
    };
    [of(&[]), of(&[4]), of(&[4, 9, 1 << 40])].into_iter().flatten().collect()
}

fn repair_manifest(bytes: &mut Vec<u8>) {
    let Some((head, entries)) = bytes.split_at_mut_checked(MANIFEST_HEAD) else { return };
    let count = entries.len() / ENTRY_BYTES;
    put(head, 0, &[1]);
    put(head, 7, &(count as u64).to_le_bytes());
    // Enough of them: more cost time and show nothing new.
    (0..count.min(4)).for_each(|index| repair_entry(entries, index * ENTRY_BYTES, &head[1..7]));
    bytes.truncate(MANIFEST_HEAD + count * ENTRY_BYTES);
}

fn check_manifest(bytes: &[u8]) -> Verdict {
    let wire = Wire::new(RUN);
    let decoded = within(4 * MANIFEST_BYTES_MAX, || wire.decode_manifest(bytes));
    if let Ok(manifest) = &decoded {
        let keys: Vec<_> = manifest.entries.iter().map(|entry| wire.order_key(&entry.result)).collect();
        assert!(keys.is_sorted_by(|a, b| a < b) && keys.len() <= psyche_messages::round::RESULTS_MAX, "it is in disorder");
    }
    canonical(bytes, decoded, |manifest| -> Result<_, WireError> { wire.encode_manifest(manifest) })
}

/// Version, signature and length stand before a page of the update log.
const PAGE_HEAD: usize = 1 + 64 + 8;

/// Pages of nodes' update logs.
pub(super) const UPDATE_LOG: Target = Target {
    name: "update_log",
    length_max: UPDATES_BYTES_MAX,
    tokens: &[&[0; 84], &[0; 8], &[1, 0, 0, 0, 0, 0, 0, 0], &[4; 32], &[5; 32]],
    examples: pages,
    repair: repair_page,
    check: check_page,
};

fn pages() -> Vec<Vec<u8>> {
    let step = |number: u32, starts: &[u64]| {
        let round = RoundKey::new(3, number);
        AppliedStep {
            round,
            cold_start: (number == 9).then_some((Step(8), Step(12))),
            results: starts.iter().map(|start| ResultAnnounced { round, ..result(*start) }).collect(),
            before: Digest([number as u8; 32]),
            after: Digest([number as u8 + 1; 32]),
        }
    };
    let page = |previous, steps| {
        let author = signer().peer_key();
        signer().sign_updates(&UpdatePage { author, previous, steps }).ok()
    };
    let previous = Some((BlobHash([3; 32]), 77));
    let pages = [
        page(None, vec![step(4, &[])]),
        page(previous, vec![step(9, &[4, 9])]),
        page(previous, vec![step(4, &[0, 10]), step(5, &[]), step(6, &[20])]),
    ];
    pages.into_iter().flatten().collect()
}

#[expect(clippy::ptr_arg, reason = "a target's repair may change the length")]
fn repair_page(bytes: &mut Vec<u8>) {
    let Some((head, page)) = bytes.split_at_mut_checked(PAGE_HEAD) else { return };
    put(page, 0, author().key());
    put(head, 0, &[1]);
    put(head, 1, &author().sign(&[PAGE_DOMAIN, &RUN.0, page]));
    put(head, 65, &(page.len() as u64).to_le_bytes());
}

fn check_page(bytes: &[u8]) -> Verdict {
    let wire = Wire::new(RUN);
    // The page, its steps and results, and the encoding that it is compared with.
    let decoded = within(2 * UPDATES_BYTES_MAX + 16 * bytes.len(), || wire.decode_updates(bytes));
    if let Ok(page) = &decoded {
        assert!(page.is_sound() && page.author == signer().peer_key(), "it is not sound, or somebody else's");
        assert!(Wire::new(Address([0x53; 32])).decode_updates(bytes).is_err(), "it counts for another run");
    }
    canonical(bytes, decoded, |page| signer().sign_updates(page))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_repaired_after_a_change_is_accepted_again() {
        let mut changed = announcements().into_iter();
        // The second byte of the round, whatever is told.
        let accepted = changed.all(|mut bytes| {
            bytes[ENVELOPE_HEAD + 5] ^= 1;
            assert_ne!(check_announcement(&bytes), Verdict::Accepted);
            repair_announcement(&mut bytes);
            check_announcement(&bytes) == Verdict::Accepted || bytes[ENVELOPE_HEAD] == 4
        });
        assert!(accepted);
        let mut manifest = manifests().remove(2);
        manifest[MANIFEST_HEAD + 40] ^= 1;
        repair_manifest(&mut manifest);
        assert_ne!(manifest, manifests()[2]);
        put(&mut manifest, 3, &[8]);
        assert_ne!(check_manifest(&manifest), Verdict::Accepted);
        repair_manifest(&mut manifest);
        assert_eq!(check_manifest(&manifest), Verdict::Accepted);
    }
}
