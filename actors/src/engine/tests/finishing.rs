//! When a node is done with a run that has finished.

use psyche_messages::events::ModelSource;
use psyche_messages::{BlobHash, RoundKey, SnapshotAnnounced, Step};
use psyche_protocol::layout::RunState;

use super::desk::{DIGEST, Desk, digest, engine, engine_with_log, peer};
use crate::engine::{DiskSnapshot, Effect, Event, LoadFrom};

fn ends(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Finished { .. }))
}

/// A run of three clients that has finished, with everything applied and saved, and the last round.
fn finished(connected: &[u8]) -> (Desk, RoundKey) {
    let mut desk = Desk::in_training(3);
    desk.account.state.coordinator.config.total_steps = 3;
    for client in connected {
        desk.tell(Event::PeerConnected(peer(*client)));
    }
    desk.show();
    let results = desk.exchange();
    desk.next_round(&[]);
    let mut effects = desk.show();
    desk.train();
    desk.next_round(&results);
    while desk.account.run_state() != RunState::Finished {
        effects.extend(desk.show());
        desk.pass_s(30);
        desk.tick();
    }
    effects.extend(desk.show());
    let mut round = None;
    for _ in 0..100 {
        let apply = effects.iter().rev().find_map(|effect| match effect {
            Effect::Apply { round, .. } => Some(*round),
            _ => None,
        });
        round = effects.iter().find_map(|effect| match effect {
            Effect::TakeSnapshot { round } => Some(*round),
            _ => None,
        });
        if round.is_some() {
            break;
        }
        effects = match apply {
            Some(round) => desk.tell(Event::Applied { round, digest: DIGEST }),
            None => desk.wait_ms(200),
        };
    }
    let round = round.expect("the last snapshot");
    assert_eq!(round.step, Step(desk.account.state.coordinator.progress.step - 1));
    let announced = SnapshotAnnounced { round, digest: DIGEST, index: BlobHash([7; 32]), index_len: 10 };
    assert!(!ends(&desk.tell(Event::SnapshotReady(announced))));
    assert!(!ends(&desk.tell(Event::CheckpointWritten { round, path: Some("here".to_owned()) })));
    (desk, round)
}

#[test]
fn a_node_is_done_when_everyone_has_the_same() {
    let (mut desk, round) = finished(&[1, 2]);
    assert!(!ends(&desk.hear(1, digest(round, DIGEST))));
    assert!(ends(&desk.hear(2, digest(round, DIGEST))));
}

#[test]
fn a_node_waits_for_those_within_reach_that_are_behind_but_not_for_ever() {
    let (mut desk, round) = finished(&[1, 2]);
    desk.hear(1, digest(round, DIGEST));
    desk.hear(2, digest(RoundKey { step: Step(round.step.0 - 1), ..round }, DIGEST));
    assert!(!ends(&desk.wait_ms(20_000)), "client 2 is still on its way");
    assert!(ends(&desk.wait_ms(15_000)), "it has had its time");
}

#[test]
fn a_node_waits_for_clients_that_are_cut_off_but_not_for_ever() {
    let (mut desk, round) = finished(&[1]);
    desk.hear(1, digest(round, DIGEST));
    assert!(!ends(&desk.wait_ms(20_000)), "client 2 may come back");
    assert!(ends(&desk.wait_ms(15_000)), "it has had its time");
}

#[test]
fn who_comes_back_when_all_is_over_serves_the_end_before_it_is_done() {
    let (mut desk, round) = finished(&[1, 2]);
    desk.engine = engine();
    desk.tell(Event::DiskSnapshotChanged(Some(DiskSnapshot { step: round.step, digest: DIGEST })));
    for client in [1, 2] {
        desk.tell(Event::PeerConnected(peer(client)));
    }
    let effects = desk.show();
    let loads = |effect: &Effect| matches!(effect, Effect::LoadModel { step, from: LoadFrom::Disk } if *step == round.step);
    assert!(effects.iter().any(loads) && !ends(&effects), "{effects:?}");
    let effects = desk.tell(Event::ModelLoaded { step: round.step, digest: DIGEST, source: ModelSource::Disk });
    assert!(effects.iter().any(|effect| matches!(effect, Effect::TakeSnapshot { round: of } if *of == round)), "{effects:?}");
    let announced = SnapshotAnnounced { round, digest: DIGEST, index: BlobHash([7; 32]), index_len: 10 };
    let effects = desk.tell(Event::SnapshotReady(announced));
    assert!(
        effects.iter().any(|effect| matches!(effect, Effect::WriteCheckpoint { round: of } if *of == round)),
        "{effects:?}"
    );
    assert!(!ends(&desk.tell(Event::CheckpointWritten { round, path: Some("here".to_owned()) })), "others may lack it");
    assert!(!ends(&desk.hear(1, digest(round, DIGEST))));
    assert!(ends(&desk.hear(2, digest(round, DIGEST))));
}

#[test]
fn who_comes_back_with_an_update_log_that_reaches_the_end_replays_it() {
    let (mut desk, round) = finished(&[1, 2]);
    let before = Step(round.step.0 - 1);
    desk.engine = engine_with_log((Step(1), round.step));
    desk.tell(Event::DiskSnapshotChanged(Some(DiskSnapshot { step: before, digest: DIGEST })));
    let effects = desk.show();
    let loads = |effect: &Effect| matches!(effect, Effect::LoadModel { step, from: LoadFrom::Disk } if *step == before);
    assert!(effects.iter().any(loads) && !ends(&effects), "{effects:?}");
    let effects = desk.tell(Event::ModelLoaded { step: before, digest: DIGEST, source: ModelSource::Disk });
    assert!(effects.iter().any(|effect| matches!(effect, Effect::FetchUpdates { head: None, .. })), "{effects:?}");
    assert!(!ends(&effects), "{effects:?}");
}

#[test]
fn who_comes_back_when_all_is_over_with_nothing_is_done_at_once() {
    let (mut desk, round) = finished(&[1, 2]);
    desk.engine = engine();
    desk.tell(Event::DiskSnapshotChanged(Some(DiskSnapshot { step: Step(round.step.0 - 1), digest: DIGEST })));
    assert!(ends(&desk.show()));
}
