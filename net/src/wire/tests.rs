#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

use proptest::prelude::*;
use psyche_messages::{
    BatchInterval, BlobHash, Digest, DigestAnnounced, Evidence, Manifest, ManifestAnnounced, ManifestEntry, ResultAnnounced,
    RoundKey, SkipAnnounced, SnapshotAnnounced, Step, UpdatesAnnounced,
};

use super::*;
use crate::peer_key_of;

const RUN: Address = Address([0x52; 32]);

fn signer(number: u8) -> Signer {
    Signer::new(&Secret::new([number; 32]), Wire::new(RUN))
}

fn result(start: u64) -> ResultAnnounced {
    ResultAnnounced {
        round: RoundKey::new(3, 0x0a0b),
        trainer: Address([0x11; 32]),
        batch: BatchInterval::new(start, start + 15).unwrap(),
        payload: BlobHash([0x22; 32]),
        payload_len: 0x0001_0203,
    }
}

fn messages() -> [(RoundMessage, String); 6] {
    let round = RoundKey::new(3, 0x0a0b);
    // Variant, epoch and step stand first in each.
    let head = |variant: u8| format!("{variant:02x}000000" /* u32 */) + "03000b0a0000";
    let fill = |byte: &str| byte.repeat(32);
    [
        (
            RoundMessage::Result(result(0x10)),
            head(0) + &fill("11") + "10000000000000001f00000000000000" + &fill("22") + "03020100",
        ),
        (
            RoundMessage::Manifest(ManifestAnnounced {
                round,
                witness: Address([0x33; 32]),
                root: [0x44; 32],
                blob: BlobHash([0x55; 32]),
                blob_len: 9,
            }),
            head(1) + &fill("33") + &fill("44") + &fill("55") + "09000000",
        ),
        (
            RoundMessage::Digest(DigestAnnounced { round, results: 0x0107, digest: Digest([0x66; 32]) }),
            head(2) + "0701" + &fill("66"),
        ),
        (
            RoundMessage::Snapshot(SnapshotAnnounced {
                round,
                digest: Digest([0x77; 32]),
                index: BlobHash([0x88; 32]),
                index_len: 10,
            }),
            head(3) + &fill("77") + &fill("88") + "0a000000",
        ),
        (RoundMessage::Skip(SkipAnnounced { round, trainer: Address([0x99; 32]) }), head(5) + &fill("99")),
        (
            RoundMessage::Updates(UpdatesAnnounced {
                round,
                first: Step(0x0102),
                digest: Digest([0xaa; 32]),
                blob: BlobHash([0xbb; 32]),
                blob_len: 0x0c0d,
            }),
            head(6) + "02010000" + &fill("aa") + &fill("bb") + "0d0c0000",
        ),
    ]
}

fn manifest(starts: &[u64]) -> Manifest {
    let entries = starts.iter().map(|start| {
        let RoundMessage::Result(result) = messages()[0].0.clone() else { unreachable!("the first message is a result") };
        let result = ResultAnnounced { batch: BatchInterval::new(*start, start + 1).unwrap(), ..result };
        let signed = signer(7).sign(RoundMessage::Result(result.clone())).unwrap();
        ManifestEntry { from: signed.from, result, signature: signed.signature }
    });
    Manifest { round: RoundKey::new(3, 0x0a0b), entries: entries.collect() }
}

#[test]
fn every_message_keeps_its_wire_form() {
    for (message, expected) in messages() {
        assert_eq!(hex::encode(payload_of(&message).unwrap()), expected, "{message:?}");
    }
}

#[test]
fn an_envelope_is_version_author_signature_and_payload() {
    let (message, payload) = messages()[2].clone();
    let signed = signer(7).sign(message).unwrap();
    let envelope = Wire::new(RUN).encode_message(&signed).unwrap();
    let author = hex::encode(peer_key_of(&Secret::new([7; 32])).0);
    // Ed25519 signatures are deterministic (RFC 8032), so that this one pins the domain, too.
    let signature = concat!(
        "10eaa01749925414fb0922f9cc489563cec6e082f244cf6d8aa0cbdc4c03c51c",
        "28c611d6d93ada38e0cf045edc78eb37eba918a86e68c15864be4ce3877a3208"
    );
    assert_eq!(hex::encode(&envelope), format!("01{author}{signature}2c00000000000000{payload}"));
}

#[test]
fn envelopes_come_back_as_they_were() {
    for (message, _) in messages() {
        let signed = signer(7).sign(message).unwrap();
        let bytes = Wire::new(RUN).encode_message(&signed).unwrap();
        assert!(bytes.len() < 512);
        assert_eq!(Wire::new(RUN).decode_message(&bytes).unwrap(), signed);
        assert!(Wire::new(RUN).verifies(&signed));
    }
}

#[test]
fn a_signature_counts_for_its_run_and_author_only() {
    let signed = signer(7).sign(messages()[0].0.clone()).unwrap();
    let bytes = Wire::new(RUN).encode_message(&signed).unwrap();
    let other_run = Wire::new(Address([0x53; 32]));
    assert!(matches!(other_run.decode_message(&bytes), Err(WireError::Signature { .. })));
    assert!(!other_run.verifies(&signed));
    let stolen = SignedRoundMessage { from: signer(8).peer_key(), ..signed };
    let bytes = Wire::new(RUN).encode_message(&stolen).unwrap();
    assert!(matches!(Wire::new(RUN).decode_message(&bytes), Err(WireError::Signature { .. })));
}

#[test]
fn other_versions_and_long_input_are_refused_by_name() {
    let mut bytes = Wire::new(RUN).encode_message(&signer(7).sign(messages()[0].0.clone()).unwrap()).unwrap();
    bytes[0] = 2;
    let error = Wire::new(RUN).decode_message(&bytes).unwrap_err();
    assert!(matches!(error, WireError::Version { version: 2, expected: 1 }));
    assert!(error.is_other_version());
    let long = vec![1; ENVELOPE_BYTES_MAX + 1];
    assert!(matches!(Wire::new(RUN).decode_message(&long), Err(WireError::TooLong { .. })));
    assert!(Wire::new(RUN).decode_message(&[]).is_err());
}

#[test]
fn a_batch_that_ends_before_it_starts_is_refused() {
    let payload = payload_of(&messages()[0].0).unwrap();
    let at = payload.windows(8).position(|bytes| bytes == 0x1f_u64.to_le_bytes()).unwrap();
    let mut backwards = payload.clone();
    backwards[at..at + 8].copy_from_slice(&0_u64.to_le_bytes());
    let wire = decode::<WireMessage, ENVELOPE_BYTES_MAX>(&backwards).unwrap();
    assert!(matches!(RoundMessage::try_from(wire), Err(WireError::Field(IdError::Interval { .. }))));
}

#[test]
fn manifests_keep_their_wire_form_and_come_back() {
    let wire = Wire::new(RUN);
    let manifest = manifest(&[0x10]);
    let bytes = wire.encode_manifest(&manifest).unwrap();
    let entry = &manifest.entries[0];
    let expected = [
        "01",
        "0300",
        "0b0a0000",
        "0100000000000000",
        &hex::encode(entry.from.0),
        &"11".repeat(32),
        "10000000000000001100000000000000",
        &"22".repeat(32),
        "03020100",
        &hex::encode(entry.signature),
    ];
    assert_eq!(hex::encode(&bytes), expected.concat());
    assert_eq!(wire.decode_manifest(&bytes).unwrap(), manifest);
    let empty = Manifest { entries: Vec::new(), ..manifest };
    assert_eq!(wire.decode_manifest(&wire.encode_manifest(&empty).unwrap()).unwrap(), empty);
}

#[test]
fn a_full_manifest_fits_and_a_fuller_one_is_refused() {
    let wire = Wire::new(RUN);
    let starts: Vec<u64> = (0..RESULTS_MAX as u64).collect();
    let full = manifest(&starts);
    let bytes = wire.encode_manifest(&full).unwrap();
    assert!(bytes.len() <= MANIFEST_BYTES_MAX);
    assert_eq!(wire.decode_manifest(&bytes).unwrap(), full);
    let mut fuller = full;
    fuller.entries.push(fuller.entries[0].clone());
    assert!(matches!(wire.encode_manifest(&fuller), Err(WireError::TooManyEntries { count: 257 })));
}

#[test]
fn manifests_out_of_order_or_with_repetitions_are_refused() {
    let wire = Wire::new(RUN);
    for (starts, index) in [(vec![1, 5, 3], 2), (vec![1, 1], 1)] {
        let error = wire.encode_manifest(&manifest(&starts)).unwrap_err();
        assert!(matches!(error, WireError::Order { index: found } if found == index), "{error:?}");
    }
    let mut other_round = manifest(&[1, 5]);
    other_round.entries[1].result.round.step.0 += 1;
    assert!(matches!(wire.encode_manifest(&other_round), Err(WireError::Order { index: 1 })));
}

#[test]
fn a_manifest_with_a_forged_entry_is_refused() {
    let wire = Wire::new(RUN);
    let mut forged = manifest(&[1, 5]);
    forged.entries[1].signature[0] ^= 1;
    let bytes = wire.encode_manifest(&forged).unwrap();
    assert!(matches!(wire.decode_manifest(&bytes), Err(WireError::Signature { .. })));
    let bytes = wire.encode_manifest(&manifest(&[1, 5])).unwrap();
    assert!(Wire::new(Address([0x53; 32])).decode_manifest(&bytes).is_err(), "signed for another run");
}

fn file(name: &str, len: u64) -> SnapshotFile {
    SnapshotFile { name: name.to_owned(), blob: BlobHash([0x99; 32]), len }
}

/// Client 7 signed two results for one batch.
fn evidence() -> Evidence {
    let signed = |payload: u8| {
        let result = ResultAnnounced { payload: BlobHash([payload; 32]), ..result(0x10) };
        let signed = signer(7).sign(RoundMessage::Result(result.clone())).unwrap();
        ManifestEntry { from: signed.from, result, signature: signed.signature }
    };
    Evidence::of(signed(1), signed(2), &RUN).unwrap()
}

#[test]
fn evidence_comes_back_and_fits_into_an_envelope_whoever_tells_it() {
    let wire = Wire::new(RUN);
    let told = signer(9).sign(RoundMessage::Evidence(Box::new(evidence()))).unwrap();
    let bytes = wire.encode_message(&told).unwrap();
    assert_eq!(wire.decode_message(&bytes).unwrap(), told);
    let payload = hex::encode(payload_of(&told.message).unwrap());
    assert!(payload.starts_with("0400000003000b0a0000"), "{payload}");
    assert_eq!(payload.len(), 2 * (4 + 6 + 2 * (32 + 84 + 64)));
}

#[test]
fn an_accusation_counts_only_if_the_accused_signed_both_results() {
    let wire = Wire::new(RUN);
    let refused = |change: fn(&mut Evidence)| {
        let mut forged = evidence();
        change(&mut forged);
        let told = signer(9).sign(RoundMessage::Evidence(Box::new(forged))).unwrap();
        wire.decode_message(&wire.encode_message(&told).unwrap()).unwrap_err()
    };
    assert!(matches!(refused(|forged| forged.second.signature[0] ^= 1), WireError::Signature { .. }));
    assert!(matches!(refused(|forged| forged.first.signature[0] ^= 1), WireError::Signature { .. }));
    assert!(matches!(refused(|forged| forged.second = forged.first.clone()), WireError::Evidence));
    assert!(matches!(refused(|forged| std::mem::swap(&mut forged.first, &mut forged.second)), WireError::Evidence));
    assert!(matches!(refused(|forged| forged.second.from = PeerKey([1; 32])), WireError::Evidence));
    assert!(matches!(refused(|forged| forged.second.result.trainer.0[0] ^= 1), WireError::Evidence));
}

#[test]
fn the_snapshot_index_keeps_its_form_and_comes_back() {
    let index = SnapshotIndex::new(vec![file("model.safetensors", 12), file("config.json", 3)]).unwrap();
    let bytes = index.encode().unwrap();
    let blob = "99".repeat(32);
    let expected = format!(
        r#"{{"version":1,"files":[{{"name":"config.json","blob":"{blob}","len":3}},{{"name":"model.safetensors","blob":"{blob}","len":12}}]}}"#
    );
    assert_eq!(String::from_utf8(bytes.clone()).unwrap(), expected);
    assert_eq!(SnapshotIndex::decode(&bytes).unwrap(), index);
    assert_eq!(index.total_len(), 15);
    let spaced = expected.replace("\"version\":1", "\"version\": 1");
    assert!(matches!(SnapshotIndex::decode(spaced.as_bytes()), Err(WireError::NotCanonical)));
    let newer = expected.replace("\"version\":1", "\"version\":2");
    assert!(matches!(SnapshotIndex::decode(newer.as_bytes()), Err(WireError::Version { version: 2, .. })));
}

#[test]
fn snapshot_indices_with_unsafe_names_or_lengths_are_refused() {
    for name in ["", ".", "..", ".hidden", "a/b", "a\\b", "/abs", "nul\0", "ümlaut", &"x".repeat(97)] {
        assert!(SnapshotIndex::new(vec![file(name, 1)]).is_err(), "{name:?}");
    }
    assert!(SnapshotIndex::new(vec![]).is_err());
    assert!(SnapshotIndex::new(vec![file("a", 1), file("a", 2)]).is_err());
    assert!(SnapshotIndex::new(vec![file("a", u64::MAX), file("b", 1)]).is_err());
    assert!(SnapshotIndex::new((0..=INDEX_FILES_MAX).map(|n| file(&n.to_string(), 1)).collect()).is_err());
}

proptest! {
    #[test]
    fn prop_no_bytes_make_the_decoders_panic(version in 0_u8..3, mut bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let wire = Wire::new(RUN);
        prop_assert!(wire.decode_message(&bytes).is_err());
        if let Some(first) = bytes.first_mut() {
            *first = version;
        }
        prop_assert!(wire.decode_message(&bytes).is_err());
        let _manifest = wire.decode_manifest(&bytes);
        prop_assert!(SnapshotIndex::decode(&bytes).is_err());
    }

    #[test]
    fn prop_a_changed_envelope_is_never_accepted(which in 0_usize..5, at: prop::sample::Index, flip in 1_u8..) {
        let wire = Wire::new(RUN);
        let mut bytes = wire.encode_message(&signer(7).sign(messages()[which].0.clone()).unwrap()).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert!(wire.decode_message(&bytes).is_err());
    }

    #[test]
    fn prop_trailing_or_missing_bytes_are_refused(which in 0_usize..5, extra in prop::collection::vec(any::<u8>(), 1..9)) {
        let wire = Wire::new(RUN);
        let bytes = wire.encode_message(&signer(7).sign(messages()[which].0.clone()).unwrap()).unwrap();
        prop_assert!(wire.decode_message(&[bytes.clone(), extra.clone()].concat()).is_err());
        prop_assert!(wire.decode_message(&bytes[..bytes.len() - extra.len()]).is_err());
        let manifest = wire.encode_manifest(&manifest(&[1, 5])).unwrap();
        prop_assert!(wire.decode_manifest(&[manifest.clone(), extra.clone()].concat()).is_err());
        prop_assert!(wire.decode_manifest(&manifest[..manifest.len() - extra.len()]).is_err());
    }

    #[test]
    fn prop_results_come_back_as_they_were(
        epoch: u16, step: u32, trainer: [u8; 32], a: u64, b: u64, payload: [u8; 32], payload_len: u32,
    ) {
        let batch = BatchInterval::new(a.min(b), a.max(b)).unwrap();
        let round = RoundKey::new(epoch, step);
        let (trainer, payload) = (Address(trainer), BlobHash(payload));
        let message = RoundMessage::Result(ResultAnnounced { round, trainer, batch, payload, payload_len });
        let signed = signer(7).sign(message).unwrap();
        let bytes = Wire::new(RUN).encode_message(&signed).unwrap();
        prop_assert_eq!(Wire::new(RUN).decode_message(&bytes).unwrap(), signed);
    }
}
