//! Which results are applied, and when.

use psyche_messages::{BlobHash, Digest, Manifest, ManifestAnnounced, ManifestEntry, ResultAnnounced, RoundKey, RoundMessage};
use psyche_protocol::layout::RunState;

use super::desk::{Desk, PAYLOAD_LEN, address, applied, blamed, fetched, peer, warned};
use crate::engine::{Effect, Event, FetchFault, FetchOutcome, Fetching, Lie, Patience};

const FIRST: RoundKey = RoundKey::new(0, 1);

#[test]
fn a_round_is_applied_two_rounds_later_with_what_was_witnessed_and_only_once() {
    let mut desk = Desk::in_training(3);
    desk.show();
    let results = desk.exchange();
    desk.next_round(&[]);
    assert!(applied(&desk.show()).is_empty());
    desk.exchange();
    desk.next_round(&results);
    let effects = desk.show();
    assert_eq!(applied(&effects), [(FIRST, 3)]);
    let order = effects.iter().find_map(|effect| match effect {
        Effect::Apply { results, .. } => Some(results.clone()),
        _ => None,
    });
    assert!(order.unwrap().windows(2).all(|pair| pair[0].batch < pair[1].batch));
    desk.show();
    let effects = desk.tell(Event::Applied { round: FIRST, digest: Digest([2; 32]) });
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Publish(RoundMessage::Digest(_)))));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Train { .. })));
    assert!(applied(&desk.tell(Event::Applied { round: FIRST, digest: Digest([2; 32]) })).is_empty());
    assert!(applied(&desk.wait_ms(5_000)).is_empty());
}

#[test]
fn a_result_that_was_missed_is_found_through_the_witnesses_manifest() {
    let mut desk = Desk::in_training(3);
    desk.show();
    let mut results = vec![desk.train(), desk.receive(1)];
    let missed = desk.result(2);
    results.push(missed.clone());
    desk.next_round(&[]);
    desk.show();
    desk.exchange();
    let root = desk.report(1, &results, &[]).broadcast_merkle;
    let blob = BlobHash([42; 32]);
    let announced = ManifestAnnounced { round: FIRST, witness: address(1), root, blob, blob_len: 77 };
    desk.hear(1, RoundMessage::Manifest(announced));
    desk.next_round(&results);
    let effects = desk.show();
    let wanted = Fetching::Manifest { round: FIRST, root };
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Fetch { what, .. } if *what == wanted)), "{effects:?}");

    results.sort_by_key(|result| result.batch.start());
    let from = |signer| (0..3).find(|client| address(*client) == signer).unwrap();
    let entry = |result: &psyche_messages::ResultAnnounced| ManifestEntry {
        from: peer(from(result.trainer)),
        result: result.clone(),
        signature: [from(result.trainer); 64],
    };
    let manifest = Manifest { round: FIRST, entries: results.iter().map(entry).collect() };
    let effects = desk.tell(Event::ManifestFetched { blob, len: 77, outcome: Ok(manifest) });
    let wanted = Fetching::Payload(missed.clone());
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Fetch { what, .. } if *what == wanted)), "{effects:?}");
    let effects = desk.tell(Event::Fetched { blob: missed.payload, outcome: FetchOutcome::Valid });
    assert_eq!(applied(&effects), [(FIRST, 3)]);
}

#[test]
fn a_manifest_under_another_root_is_refused() {
    let mut desk = Desk::in_training(3);
    desk.show();
    let results = vec![desk.train(), desk.result(1), desk.result(2)];
    desk.next_round(&[]);
    desk.show();
    desk.train();
    let root = desk.report(1, &results, &[]).broadcast_merkle;
    let blob = BlobHash([42; 32]);
    desk.hear(1, RoundMessage::Manifest(ManifestAnnounced { round: FIRST, witness: address(1), root, blob, blob_len: 77 }));
    desk.next_round(&results);
    desk.show();
    let other = Manifest { round: FIRST, entries: Vec::new() };
    let effects = desk.tell(Event::ManifestFetched { blob, len: 77, outcome: Ok(other) });
    assert!(applied(&effects).is_empty());
    assert_eq!(blamed(&effects), [(peer(1), Lie::Mislabelled)]);
    assert!(applied(&desk.wait_ms(10_000)).is_empty());
    let effects = desk.wait_ms(12_000);
    assert!(warned(&effects, "manifests are missing"), "{effects:?}");
}

#[test]
fn whoever_announces_a_manifest_as_something_else_pays_and_holds_nobody_up() {
    let mut desk = Desk::in_training(4);
    desk.show();
    let mut results = vec![desk.train(), desk.receive(1)];
    let missed = desk.result(2);
    results.push(missed.clone());
    desk.next_round(&[]);
    desk.show();
    let root = desk.report(1, &results, &[]).broadcast_merkle;
    let blob = BlobHash([42; 32]);
    // As its payload, with another length, and under another root: all before the honest witness says what it is.
    let announced = |client, root, blob_len| {
        RoundMessage::Manifest(ManifestAnnounced { round: FIRST, witness: address(client), root, blob, blob_len })
    };
    let mislabelled = ResultAnnounced { payload: blob, ..desk.result(3) };
    let effects = desk.hear(3, RoundMessage::Result(mislabelled));
    assert_eq!(fetched(&effects), [(blob, PAYLOAD_LEN)]);
    desk.hear(3, announced(3, root, 76));
    desk.hear(3, announced(3, [13; 32], 77));
    desk.hear(1, announced(1, root, 77));
    desk.train();
    desk.next_round(&results);
    let effects = desk.show();
    assert!(fetched(&effects).contains(&(blob, 77)), "{effects:?}");

    results.sort_by_key(|result| result.batch.start());
    let from = |signer| (0..4).find(|client| address(*client) == signer).unwrap();
    let entry = |result: &ResultAnnounced| ManifestEntry {
        from: peer(from(result.trainer)),
        result: result.clone(),
        signature: [from(result.trainer); 64],
    };
    let manifest = Manifest { round: FIRST, entries: results.iter().map(entry).collect() };
    let effects = desk.tell(Event::ManifestFetched { blob, len: 77, outcome: Ok(manifest) });
    assert!(fetched(&effects).contains(&(missed.payload, PAYLOAD_LEN)), "the manifest counts: {effects:?}");
    assert_eq!(blamed(&effects), [(peer(3), Lie::Mislabelled)]);
    // The blob is here now, and everything else that was said of it turns out to be false.
    let effects = desk.tell(Event::ManifestFetched { blob, len: 76, outcome: Err(FetchFault::Malformed) });
    assert_eq!(blamed(&effects), [(peer(3), Lie::Mislabelled)]);
    let effects = desk.tell(Event::Fetched { blob, outcome: FetchOutcome::Fault(FetchFault::Malformed) });
    assert_eq!(blamed(&effects), [(peer(3), Lie::Mislabelled)]);
    let effects = desk.tell(Event::Fetched { blob: missed.payload, outcome: FetchOutcome::Valid });
    assert_eq!(applied(&effects), [(FIRST, 3)]);
    assert!(blamed(&effects).is_empty());
}

#[test]
fn a_payload_that_cannot_be_had_stops_the_node_but_not_for_good() {
    let mut desk = Desk::in_training(3);
    desk.show();
    let mut results = vec![desk.train(), desk.receive(1)];
    let late = desk.result(2);
    desk.hear(2, RoundMessage::Result(late.clone()));
    results.push(late.clone());
    desk.next_round(&[]);
    desk.show();
    desk.exchange();
    desk.next_round(&results);
    desk.show();
    desk.tell(Event::Fetched { blob: late.payload, outcome: FetchOutcome::Fault(FetchFault::Unavailable) });
    let effects = desk.wait_ms(25_000);
    assert!(applied(&effects).is_empty() && warned(&effects, "payloads are missing"));
    let effects = desk.tell(Event::Fetched { blob: late.payload, outcome: FetchOutcome::Valid });
    assert_eq!(applied(&effects), [(FIRST, 3)]);
}

#[test]
fn a_payload_that_is_gone_from_the_disk_is_fetched_again() {
    let mut desk = Desk::in_training(3);
    desk.show();
    let results = desk.exchange();
    desk.next_round(&[]);
    desk.show();
    desk.exchange();
    desk.next_round(&results);
    assert_eq!(applied(&desk.show()), [(FIRST, 3)]);
    let effects = desk.tell(Event::ApplyFailed { round: FIRST, reason: "find the payload".to_owned() });
    assert!(warned(&effects, "the parameters are given up"));
    let asked: Vec<_> = fetched(&desk.wait_ms(1_000)).into_iter().map(|(blob, _)| blob).collect();
    assert!(results[1..].iter().all(|result| asked.contains(&result.payload)), "{asked:?}");
}

/// Ends the epoch after its second round. Either all clients report and the engine sees it, or only two do, and the engine
/// sees the first.
fn end_of_epoch(seen: bool) -> (Desk, Vec<Effect>) {
    let mut desk = Desk::in_training(3);
    desk.show();
    let results = desk.exchange();
    desk.next_round(&[]);
    desk.account.state.coordinator.config.total_steps = 3;
    desk.show();
    for client in 0..if seen { 3 } else { 2 } {
        let report = desk.report(client, &results, &[0, 1, 2]);
        desk.submit(client, &report);
        if seen || client == 0 {
            desk.show();
        }
    }
    if !seen {
        desk.pass_s(20);
        desk.tick();
    }
    desk.pass_s(2);
    desk.tick();
    assert_eq!(desk.account.run_state(), RunState::Cooldown);
    let effects = desk.show();
    (desk, effects)
}

#[test]
fn an_epochs_end_applies_what_was_witnessed_and_drops_the_rest() {
    let (mut desk, effects) = end_of_epoch(true);
    assert_eq!(applied(&effects), [(FIRST, 3)]);
    let effects = desk.tell(Event::Applied { round: FIRST, digest: Digest([2; 32]) });
    assert_eq!(applied(&effects), [(RoundKey::new(0, 2), 0)]);
    let effects = desk.tell(Event::Applied { round: RoundKey::new(0, 2), digest: Digest([2; 32]) });
    assert!(effects.iter().any(|effect| matches!(effect, Effect::TakeSnapshot { round } if round.step.0 == 2)));
}

#[test]
fn witnesses_that_an_epochs_end_hid_are_looked_up_in_the_history() {
    let (mut desk, effects) = end_of_epoch(false);
    assert!(applied(&effects).is_empty());
    let asked = effects.iter().any(|effect| matches!(effect, Effect::RebuildWitnesses { round, .. } if round.step.0 == 2));
    assert!(asked, "{effects:?}");
    let effects = desk.tell(Event::WitnessesRebuilt { round: RoundKey::new(0, 2), witnesses: Some(Vec::new()) });
    assert_eq!(applied(&effects), [(FIRST, 0)]);
}

#[test]
fn a_report_that_ends_the_epoch_in_the_same_transaction_is_not_missed() {
    let mut desk = Desk::in_training(3);
    desk.show();
    let results = desk.exchange();
    desk.next_round(&[]);
    desk.account.state.coordinator.config.total_steps = 3;
    desk.show();
    let report = desk.report(0, &results, &[0, 1, 2]);
    desk.submit(0, &report);
    desk.pass_s(20);
    desk.tick();
    assert_eq!(desk.account.run_state(), RunState::RoundWitness);
    desk.show();
    desk.pass_s(2);
    // No state shows this report: it moves the run on, and the same transaction clears the round's witnesses.
    let report = desk.report(1, &results, &[0, 1, 2]);
    desk.submit(1, &report);
    assert_eq!(desk.account.run_state(), RunState::Cooldown);
    let effects = desk.show();
    assert!(applied(&effects).is_empty());
    assert!(effects.iter().any(|effect| matches!(effect, Effect::RebuildWitnesses { .. })));
}

#[test]
fn without_history_what_is_known_is_applied_and_said_to_be_uncertain() {
    let (mut desk, mut effects) = end_of_epoch(false);
    let (mut asked, begun_ms) = (0, desk.now_ms);
    while !warned(&effects, "digests will tell") {
        assert!(applied(&effects).is_empty() && asked < 10);
        if effects.iter().any(|effect| matches!(effect, Effect::RebuildWitnesses { .. })) {
            asked += 1;
            desk.tell(Event::WitnessesRebuilt { round: RoundKey::new(0, 2), witnesses: None });
        }
        effects = desk.wait_ms(200);
    }
    assert_eq!(desk.now_ms - begun_ms, Patience::default().rebuild_ms);
    assert_eq!(applied(&desk.wait_ms(200)).len(), 1);
    assert_eq!(asked, 6, "after 0.5, 1, 2, 4, 4 s");
}

#[test]
fn witnesses_that_could_not_have_been_accepted_are_not_believed() {
    let (mut desk, _) = end_of_epoch(false);
    let mut report = desk.report(1, &[], &[]);
    report.proof.position += 1;
    let round = RoundKey::new(0, 2);
    let effects = desk.tell(Event::WitnessesRebuilt { round, witnesses: Some(vec![report]) });
    assert!(applied(&effects).is_empty());
    let asked = |effects: &[Effect]| effects.iter().any(|effect| matches!(effect, Effect::RebuildWitnesses { .. }));
    assert!(asked(&desk.wait_ms(600)), "the history is asked again");
    let effects = desk.tell(Event::WitnessesRebuilt { round, witnesses: Some(Vec::new()) });
    assert_eq!(applied(&effects), [(FIRST, 0)]);
}

/// The second round's reports are on chain, all or one of them, and all of it is seen or nothing; then the epoch ends, another
/// one comes and goes, and only its Cooldown is seen.
fn whole_epoch_missed(all_report: bool) -> (Desk, Vec<Effect>) {
    let mut desk = Desk::in_training(3);
    desk.show();
    let results = desk.exchange();
    desk.next_round(&[]);
    let mut effects = desk.show();
    desk.train();
    for client in 0..if all_report { 3 } else { 2 } {
        let report = desk.report(client, &results, &[0, 1, 2]);
        desk.submit(client, &report);
    }
    effects.extend(desk.show());
    desk.set_paused(true);
    desk.pass_s(20);
    desk.tick();
    desk.pass_s(2);
    desk.tick();
    assert_eq!(desk.account.run_state(), RunState::Cooldown);
    desk.pass_s(5);
    desk.tick();
    desk.set_paused(false);
    desk.begin_epoch();
    assert_eq!(desk.round(), RoundKey::new(1, 3));
    desk.set_paused(true);
    desk.next_round(&[]);
    assert_eq!(desk.account.run_state(), RunState::Cooldown);
    effects.extend(desk.show());
    effects.extend(desk.wait_ms(1_000));
    (desk, effects)
}

#[test]
fn rounds_of_an_epoch_that_was_missed_are_not_taken_for_those_of_the_one_before() {
    let asked = |effects: &[Effect]| effects.iter().any(|effect| matches!(effect, Effect::RebuildWitnesses { .. }));
    let (mut desk, mut effects) = whole_epoch_missed(true);
    assert_eq!(applied(&effects), [(FIRST, 3)], "all its witnesses were seen");
    effects.extend(desk.tell(Event::Applied { round: FIRST, digest: Digest([2; 32]) }));
    assert_eq!(applied(&effects)[1..], [(RoundKey::new(0, 2), 0)], "it was its epoch's last round");
    assert!(!asked(&effects), "{effects:?}");
    let (_, effects) = whole_epoch_missed(false);
    assert!(applied(&effects).is_empty(), "one may have reported unseen");
    assert!(!asked(&effects), "what was reported since cannot be told from reports of the other epoch: {effects:?}");
    assert!(warned(&effects, "its witnesses are not known"), "{effects:?}");
}
