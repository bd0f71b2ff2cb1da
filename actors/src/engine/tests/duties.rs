//! Training, reports, transactions.

use psyche_messages::{Digest, Epoch, NodeEvent, RoundKey, RoundMessage, SignedRoundMessage, SkipAnnounced};
use psyche_protocol::layout::{EpochClient, RunState, Witness};

use super::desk::{DIGEST, Desk, address, applied, digest, engine, peer, sent, trained, warned};
use crate::engine::{ChainAction, Effect, Event, FetchFault, FetchOutcome, SendId, SendOutcome};

/// The witness's report among `effects`.
fn reported(effects: &[Effect]) -> Option<Witness> {
    effects.iter().find_map(|effect| match effect {
        Effect::Send { action: ChainAction::Witness { witness, .. }, .. } => Some(**witness),
        _ => None,
    })
}

#[test]
fn a_client_joins_once_and_again_only_after_a_failure() {
    let mut desk = Desk::new(3);
    assert_eq!(sent(&desk.show()), ["join"]);
    assert!(sent(&desk.wait_ms(5_000)).is_empty());
    desk.tell(Event::ChainSent { id: SendId(1), outcome: SendOutcome::Failed });
    assert_eq!(sent(&desk.wait_ms(1_000)), ["join"]);
    desk.tell(Event::ChainSent { id: SendId(2), outcome: SendOutcome::Confirmed });
    assert!(sent(&desk.wait_ms(10_000)).is_empty());
    desk.join(0);
    desk.show();
    assert!(sent(&desk.wait_ms(60_000)).is_empty());
}

#[test]
fn who_hears_of_its_join_when_the_epoch_has_begun_is_told_of_no_wait() {
    let mut desk = Desk::new(3);
    assert_eq!(sent(&desk.show()), ["join"]);
    (0..3).for_each(|client| desk.join(client));
    desk.pass_s(3);
    desk.tick();
    desk.show();
    assert_eq!(desk.account.run_state(), RunState::Warmup);
    let effects = desk.tell(Event::ChainSent { id: SendId(1), outcome: SendOutcome::Confirmed });
    let joined = NodeEvent::Joined { epoch: Epoch(0), epoch_left_s: None };
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Report(event) if *event == joined)), "{effects:?}");
}

#[test]
fn a_client_trains_its_batch_as_soon_as_its_parameters_are_compared() {
    let mut desk = Desk::in_training(3);
    let effects = desk.show();
    assert_eq!(trained(&effects), [RoundKey::new(0, 1)]);
    let batch = effects.iter().find_map(|effect| if let Effect::Train { batch, .. } = effect { Some(*batch) } else { None });
    assert_eq!(batch, Some(desk.result(0).batch));
    assert!(trained(&desk.wait_ms(5_000)).is_empty(), "trained twice");
}

#[test]
fn a_node_that_starts_in_the_middle_of_an_epoch_neither_trains_nor_reports() {
    let mut desk = Desk::in_training(3);
    desk.show();
    desk.exchange();
    desk.next_round(&[]);
    desk.engine = engine();
    let mut effects = desk.show();
    effects.extend(desk.tell(Event::ModelLoaded {
        step: psyche_messages::Step(0),
        digest: DIGEST,
        source: psyche_messages::events::ModelSource::Checkpoint,
    }));
    desk.hear(1, digest(RoundKey::new(0, 0), DIGEST));
    desk.hear(2, digest(RoundKey::new(0, 0), DIGEST));
    effects.extend(desk.wait_ms(15_000));
    assert!(trained(&effects).is_empty());
    assert!(!sent(&effects).contains(&"witness"));
}

#[test]
fn the_last_round_of_a_run_is_not_trained() {
    let mut desk = Desk::in_training(3);
    desk.account.state.coordinator.config.total_steps = 2;
    let effects = desk.show();
    assert!(trained(&effects).is_empty());
    assert_eq!(sent(&effects), ["witness"], "but it is witnessed");
}

#[test]
fn a_witness_reports_when_everything_is_here() {
    let mut desk = Desk::in_training(3);
    desk.show();
    // An epoch's first round has nothing to wait for but the own batch.
    let first: Vec<_> = desk.exchange();
    assert_eq!(first.len(), 3);
    desk.next_round(&[]);
    let effects = desk.show();
    assert!(sent(&effects).is_empty(), "the own batch is being trained");
    desk.train();
    let effects = desk.wait_ms(200);
    assert!(effects.is_empty(), "the manifest is not stored yet: {effects:?}");
    let about = RoundKey::new(0, 1);
    let effects = desk.tell(Event::ManifestStored { round: about, blob: psyche_messages::BlobHash([3; 32]), len: 9 });
    assert_eq!(sent(&effects), ["witness"]);
    assert_eq!(reported(&effects), Some(desk.report(0, &first, &[])));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Publish(message) if message.round() == about)));
}

#[test]
fn a_witness_does_not_wait_for_the_absent_for_longer_than_three_quarters_of_the_round() {
    let mut desk = Desk::in_training(3);
    desk.show();
    desk.train();
    desk.receive(1);
    desk.next_round(&[]);
    desk.show();
    desk.train();
    let stores = |effects: &[Effect]| effects.iter().any(|effect| matches!(effect, Effect::StoreManifest(_)));
    assert!(!stores(&desk.wait_ms(14_800)));
    assert!(stores(&desk.wait_ms(400)));
}

#[test]
fn a_witness_does_not_wait_for_a_trainer_whose_payload_is_malformed() {
    let mut desk = Desk::in_training(3);
    desk.show();
    desk.train();
    desk.receive(1);
    let result = desk.result(2);
    desk.hear(2, RoundMessage::Result(result.clone()));
    desk.next_round(&[]);
    desk.show();
    desk.train();
    let stores = |effects: &[Effect]| effects.iter().any(|effect| matches!(effect, Effect::StoreManifest(_)));
    assert!(!stores(&desk.wait_ms(200)), "it may come");
    let outcome = FetchOutcome::Fault(FetchFault::Malformed);
    assert!(stores(&desk.tell(Event::Fetched { blob: result.payload, outcome })), "nothing else comes");
}

#[test]
fn a_trainer_without_a_result_says_so_and_is_neither_waited_for_nor_taken_for_absent() {
    let mut desk = Desk::in_training(3);
    desk.show();
    let round = desk.round();
    let effects = desk.tell(Event::TrainingSkipped { round, reason: "the loss is not finite".to_owned() });
    let skip = RoundMessage::Skip(SkipAnnounced { round, trainer: address(0) });
    assert!(effects.contains(&Effect::Publish(skip.clone())));
    desk.tell(Event::Published(SignedRoundMessage { from: peer(0), message: skip, signature: [0; 64] }));
    let results = [desk.receive(1), desk.receive(2)];
    desk.next_round(&[]);
    desk.show();
    desk.train();
    let about = RoundKey::new(0, 1);
    let effects = desk.tell(Event::ManifestStored { round: about, blob: psyche_messages::BlobHash([3; 32]), len: 9 });
    assert_eq!(reported(&effects), Some(desk.report(0, &results, &[0])));
}

#[test]
fn a_trainer_that_skips_again_and_again_counts_as_absent() {
    let mut desk = Desk::in_training(3);
    desk.show();
    let mut heard = Vec::new();
    for _ in 0..5 {
        let round = desk.round();
        let skip = RoundMessage::Skip(SkipAnnounced { round, trainer: address(1) });
        desk.hear(2, skip.clone());
        let results = vec![desk.train(), desk.receive(2)];
        assert!(!desk.engine.is_excused(round, &address(1)), "another cannot say it");
        desk.hear(1, skip);
        heard.push(desk.engine.is_excused(round, &address(1)));
        desk.next_round(&results);
        show_and_apply(&mut desk);
    }
    assert_eq!(heard, [true, true, false, false, false]);
}

/// The engine sees the account, applies what is due, and agrees with the others.
fn show_and_apply(desk: &mut Desk) {
    for (round, _) in applied(&desk.show()) {
        desk.tell(Event::Applied { round, digest: DIGEST });
        for client in 1..desk.clients {
            desk.hear(client, digest(round, DIGEST));
        }
    }
}

#[test]
fn a_witness_that_knows_the_paces_waits_for_the_absent_only_until_they_are_overdue() {
    let mut desk = Desk::in_training(3);
    desk.show();
    // Some rounds in which everybody is in time.
    let mut results = Vec::new();
    for _ in 0..6 {
        desk.wait_ms(1_000);
        let before = std::mem::replace(&mut results, desk.exchange());
        desk.next_round(&before);
        show_and_apply(&mut desk);
    }
    desk.wait_ms(1_000);
    desk.train();
    desk.receive(1);
    desk.next_round(&results);
    show_and_apply(&mut desk);
    desk.train();
    let stores = |effects: &[Effect]| effects.iter().any(|effect| matches!(effect, Effect::StoreManifest(_)));
    // Three seconds of the silent one's round are over: its usual second, and two until the next round began.
    assert!(!stores(&desk.wait_ms(1_800)), "it is not overdue yet, by more than what a lost message costs");
    assert!(stores(&desk.wait_ms(600)));
}

#[test]
fn training_that_nobody_can_witness_any_more_is_cancelled() {
    let mut desk = Desk::in_training(3);
    assert_eq!(trained(&desk.show()).len(), 1);
    let cancels = |effects: &[Effect]| effects.iter().any(|effect| matches!(effect, Effect::CancelTraining { .. }));
    desk.next_round(&[]);
    assert!(!cancels(&desk.show()), "its result can be witnessed in the next round");
    desk.next_round(&[]);
    let effects = desk.show();
    assert!(cancels(&effects) && trained(&effects).is_empty());
    let round = RoundKey::new(0, 1);
    let effects = desk.tell(Event::TrainingSkipped { round, reason: "cancelled".to_owned() });
    assert_eq!(applied(&effects), [(round, 0)]);
}

#[test]
fn members_take_turns_with_ticks_and_never_send_two_at_once() {
    let mut desk = Desk::in_training(3);
    desk.show();
    desk.pass_s(21);
    // Which turn is this node's follows from the account's nonce.
    let turn = desk.account.nonce % 3;
    let effects = desk.wait_ms(turn * 700 + 200);
    assert_eq!(sent(&effects).iter().filter(|purpose| **purpose == "tick").count(), 1);
    assert!(!sent(&desk.wait_ms(5_000)).contains(&"tick"), "one is on its way");
}

#[test]
fn whoever_is_no_member_ticks_only_when_nobody_else_does() {
    let mut desk = Desk::in_training(3);
    desk.engine = engine();
    desk.account.state.coordinator.epoch_state.clients.retain(|client| client.id.signer != address(0).0);
    desk.show();
    desk.pass_s(21);
    assert!(!sent(&desk.wait_ms(4_800)).contains(&"tick"));
    assert!(sent(&desk.wait_ms(6_000)).contains(&"tick"));
}

#[test]
fn a_health_check_names_whom_the_witnesses_did_not_hear() {
    let mut desk = Desk::in_training(3);
    desk.show();
    desk.exchange();
    desk.next_round(&[]);
    desk.show();
    assert_eq!(unheard(&mut desk), [address(2)]);
}

/// Everyone reports in this round to have heard only clients 0 and 1: whom that has the node report in the next one.
fn unheard(desk: &mut Desk) -> Vec<psyche_messages::Address> {
    for client in 0..3 {
        let report = desk.report(client, &[], &[0, 1]);
        desk.submit(client, &report);
    }
    desk.pass_s(2);
    desk.tick();
    let mut effects = desk.show();
    effects.extend(desk.wait_ms(4_000));
    let target = |effect: &Effect| match effect {
        Effect::Send { action: ChainAction::HealthCheck { target, .. }, .. } => Some(*target),
        _ => None,
    };
    effects.iter().filter_map(target).collect()
}

#[test]
fn a_client_that_is_connected_may_be_absent_once_in_an_epoch() {
    let mut desk = Desk::in_training(3);
    desk.tell(Event::PeerConnected(peer(2)));
    desk.show();
    desk.exchange();
    desk.next_round(&[]);
    desk.show();
    assert_eq!(unheard(&mut desk), []);
    assert_eq!(unheard(&mut desk), [address(2)]);
}

#[test]
fn a_client_that_is_dropped_says_so_and_joins_again_when_it_is_out() {
    let mut desk = Desk::in_training(3);
    desk.show();
    desk.account.state.coordinator.epoch_state.clients.as_mut_slice()[0].state = 1;
    desk.account.nonce += 1;
    let effects = desk.show();
    assert!(warned(&effects, "dropped"));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::CancelTraining { .. })));
    desk.next_round(&[]);
    assert_eq!(desk.account.clients().len(), 2);
    assert!(sent(&desk.show()).contains(&"join"));
}

#[test]
fn a_client_that_is_ejected_says_what_it_costs_and_joins_once_more_only() {
    let mut desk = Desk::in_training(3);
    desk.account.state.clients_state.current_slashing_rate = 70;
    desk.show();
    for (ejections, words) in [(1, "once more"), (2, "joins no more while")] {
        desk.account.state.coordinator.epoch_state.clients.as_mut_slice()[0].state = 3;
        desk.account.nonce += 1;
        let effects = desk.show();
        assert!(warned(&effects, "loses 70 points") && warned(&effects, words), "ejection {ejections}");
        assert!(!warned(&desk.show(), "ejected"), "said once");
        desk.next_round(&[]);
        let mut effects = desk.show();
        assert_eq!(desk.account.clients().len(), 2);
        effects.extend(desk.wait_ms(20_000));
        assert_eq!(sent(&effects).contains(&"join"), ejections == 1);
        assert!(!sent(&effects).contains(&"witness") && trained(&effects).is_empty());
        // The chain puts it back, as if another epoch had begun.
        desk.account.state.coordinator.epoch_state.exited_clients.clear();
        let back = EpochClient::new(desk.account.state.clients_state.clients.as_slice()[0].id);
        let epoch = &mut desk.account.state.coordinator.epoch_state;
        let others: Vec<_> = epoch.clients.as_slice().to_vec();
        epoch.clients.clear();
        for client in std::iter::once(&back).chain(&others) {
            assert!(epoch.clients.push(client));
        }
        epoch.current_round_mut().clients_len = 3;
        desk.account.nonce += 1;
        desk.show();
    }
}

#[test]
fn a_client_that_was_ejected_twice_joins_a_run_that_stands_still() {
    let mut desk = Desk::in_training(3);
    desk.show();
    for _ in 0..2 {
        assert!(desk.account.clients()[0].is_healthy());
        desk.account.state.coordinator.epoch_state.clients.as_mut_slice()[0].state = 3;
        desk.account.nonce += 1;
        desk.show();
        desk.account.state.coordinator.epoch_state.clients.as_mut_slice()[0].state = 0;
        desk.account.nonce += 1;
        desk.show();
    }
    while desk.account.run_state() != RunState::WaitingForMembers {
        desk.pass_s(700);
        desk.tick();
    }
    let mut effects = desk.show();
    effects.extend(desk.wait_ms(50_000));
    assert!(!sent(&effects).contains(&"join"), "others may go on without it");
    assert!(sent(&desk.wait_ms(20_000)).contains(&"join"));
}

#[test]
fn a_tick_that_came_too_early_is_sent_again() {
    let mut desk = Desk::in_training(3);
    desk.show();
    let mut effects = desk.wait_ms(30_000);
    assert_eq!(sent(&effects).iter().filter(|purpose| **purpose == "tick").count(), 1);
    let id = |effects: &[Effect]| {
        let mut ids = effects.iter().rev().filter_map(|effect| match effect {
            Effect::Send { id, action: ChainAction::Tick } => Some(*id),
            _ => None,
        });
        ids.next().unwrap()
    };
    // Confirmed, but the account stays as it is: the chain's clock was behind.
    desk.tell(Event::ChainSent { id: id(&effects), outcome: SendOutcome::Confirmed });
    assert!(!sent(&desk.wait_ms(1_000)).contains(&"tick"));
    effects = desk.wait_ms(2_000);
    assert!(sent(&effects).contains(&"tick"));
    // Refused for good, it is left to others.
    desk.tell(Event::ChainSent { id: id(&effects), outcome: SendOutcome::Refused });
    assert!(!sent(&desk.wait_ms(10_000)).contains(&"tick"));
}

#[test]
fn parameters_that_differ_from_the_majoritys_stop_everything_that_builds_on_them() {
    let mut desk = Desk::in_training(3);
    desk.show();
    let other = Digest([9; 32]);
    desk.hear(1, digest(RoundKey::new(0, 0), other));
    let effects = desk.hear(2, digest(RoundKey::new(0, 0), other));
    assert!(warned(&effects, "differ"));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::CancelTraining { .. })));
    assert_eq!(desk.account.run_state(), RunState::RoundTrain);
    desk.tell(Event::TrainingSkipped { round: RoundKey::new(0, 1), reason: "cancelled".to_owned() });
    desk.next_round(&[]);
    let mut effects = desk.show();
    desk.next_round(&[]);
    effects.extend(desk.show());
    assert!(trained(&effects).is_empty() && applied(&effects).is_empty());
}
