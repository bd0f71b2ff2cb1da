//! Events that no honest peer, chain or shell would produce.

use std::sync::Arc;

use proptest::prelude::*;
use psyche_messages::events::ModelSource;
use psyche_messages::{
    BatchInterval, BlobHash, Digest, Manifest, ManifestAnnounced, ManifestEntry, PeerKey, ResultAnnounced, RoundKey,
    RoundMessage, SignedRoundMessage, Slot, SnapshotAnnounced, Step,
};
use psyche_protocol::layout::{CoordinatorAccount, RunState};

use super::desk::{Desk, PAYLOAD_LEN, address, digest, peer};
use crate::engine::{DiskSnapshot, Event, FetchFault, FetchOutcome, SendId, SendOutcome};

fn round() -> impl Strategy<Value = RoundKey> {
    (0_u16..3, prop_oneof![0_u32..6, Just(u32::MAX)]).prop_map(|(epoch, step)| RoundKey::new(epoch, step))
}

fn blob() -> impl Strategy<Value = BlobHash> {
    (0_u8..6).prop_map(|byte| BlobHash([byte; 32]))
}

fn result() -> impl Strategy<Value = ResultAnnounced> {
    (round(), 0_u8..5, 0_u64..20, 0_u64..20, blob(), PAYLOAD_LEN..PAYLOAD_LEN + 2).prop_map(
        |(round, trainer, start, len, payload, payload_len)| ResultAnnounced {
            round,
            trainer: address(trainer),
            batch: BatchInterval::new(start, start + len).unwrap(),
            payload,
            payload_len,
        },
    )
}

fn message() -> impl Strategy<Value = RoundMessage> {
    prop_oneof![
        result().prop_map(RoundMessage::Result),
        (round(), 0_u8..5, blob(), any::<u32>()).prop_map(|(round, witness, blob, blob_len)| {
            RoundMessage::Manifest(ManifestAnnounced { round, witness: address(witness), root: blob.0, blob, blob_len })
        }),
        (round(), 0_u8..4).prop_map(|(round, byte)| digest(round, Digest([byte; 32]))),
        (round(), 0_u8..4, blob()).prop_map(|(round, byte, index)| {
            RoundMessage::Snapshot(SnapshotAnnounced { round, digest: Digest([byte; 32]), index, index_len: 5 })
        }),
    ]
}

fn signed() -> impl Strategy<Value = SignedRoundMessage> {
    let from = prop_oneof![(0_u8..5).prop_map(peer), Just(PeerKey([0; 32]))];
    (from, message()).prop_map(|(from, message)| SignedRoundMessage { from, message, signature: [0; 64] })
}

fn outcome() -> impl Strategy<Value = FetchOutcome> {
    prop_oneof![
        Just(FetchOutcome::Valid),
        Just(FetchOutcome::Fault(FetchFault::Unavailable)),
        Just(FetchOutcome::Fault(FetchFault::Malformed))
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let entry = |result| ManifestEntry { from: peer(1), result, signature: [0; 64] };
    prop_oneof![
        6 => signed().prop_map(Event::Message),
        1 => signed().prop_map(Event::Published),
        2 => (blob(), outcome()).prop_map(|(blob, outcome)| Event::Fetched { blob, outcome }),
        1 => (blob(), round(), prop::collection::vec(result(), 0..4)).prop_map(move |(blob, round, results)| {
            let entries = results.into_iter().map(entry).collect();
            Event::ManifestFetched { blob, len: 9, outcome: Ok(Manifest { round, entries }) }
        }),
        1 => (round(), blob()).prop_map(|(round, blob)| Event::ManifestStored { round, blob, len: 9 }),
        1 => (round(), blob(), any::<f32>()).prop_map(|(round, payload, loss)| {
            Event::Trained { round, payload, payload_len: PAYLOAD_LEN, loss, tokens_per_second: loss }
        }),
        1 => round().prop_map(|round| Event::TrainingSkipped { round, reason: String::new() }),
        1 => round().prop_map(|round| Event::Applied { round, digest: Digest([1; 32]) }),
        1 => round().prop_map(|round| Event::ApplyFailed { round, reason: String::new() }),
        1 => (0_u32..5, 0_u8..3).prop_map(|(step, byte)| {
            Event::ModelLoaded { step: Step(step), digest: Digest([byte; 32]), source: ModelSource::Peers }
        }),
        1 => Just(Event::ModelLoadFailed { reason: String::new() }),
        1 => (0_u32..5).prop_map(|step| Event::ModelRefuted { step: Step(step) }),
        1 => prop::option::of((0_u32..5, 0_u8..3)).prop_map(|disk| {
            Event::DiskSnapshotChanged(disk.map(|(step, byte)| DiskSnapshot { step: Step(step), digest: Digest([byte; 32]) }))
        }),
        1 => (round(), blob()).prop_map(|(round, index)| {
            Event::SnapshotReady(SnapshotAnnounced { round, digest: Digest([1; 32]), index, index_len: 1 })
        }),
        1 => round().prop_map(|round| Event::SnapshotFailed { round, reason: String::new() }),
        1 => round().prop_map(|round| Event::WitnessesRebuilt { round, witnesses: None }),
        1 => (0_u64..9).prop_map(|id| Event::ChainSent { id: SendId(id), outcome: SendOutcome::Failed }),
        1 => (0_u8..5).prop_map(|client| Event::PeerConnected(peer(client))),
        1 => (0_u8..5).prop_map(|client| Event::PeerDisconnected(peer(client))),
        4 => Just(Event::Timer),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn prop_no_event_however_odd_stops_the_engine(
        events in prop::collection::vec((event(), 0_u64..3_000, 0_u8..12), 1..120),
    ) {
        let mut desk = Desk::in_training(3);
        desk.show();
        for (event, pause_ms, chance) in events {
            desk.now_ms += pause_ms;
            match chance {
                0 if desk.account.run_state() == RunState::RoundTrain => desk.next_round(&[]),
                1 | 2 => desk.tick(),
                _ => {}
            }
            if chance < 6 {
                desk.show();
            }
            let effects = desk.tell(event);
            prop_assert!(effects.len() < 100, "{effects:?}");
        }
    }

    #[test]
    fn prop_an_account_with_any_numbers_is_survived(
        places in prop::collection::vec((408_usize..CoordinatorAccount::SIZE, any::<u8>()), 1..40),
        nonce in any::<u64>(),
    ) {
        let mut desk = Desk::in_training(3);
        desk.show();
        let mut bytes = desk.account.as_bytes().to_vec();
        for (place, byte) in places {
            bytes[place] = byte;
        }
        // What cannot be read never reaches the engine.
        if let Ok(mut account) = CoordinatorAccount::load_boxed(&bytes) {
            account.nonce = nonce;
            desk.tell(Event::CoordinatorAdvanced { slot: Slot(nonce), account: Arc::from(account) });
            desk.wait_ms(2_000);
        }
    }
}
