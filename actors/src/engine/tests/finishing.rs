//! When a node is done with a run that has finished.

use psyche_messages::{BlobHash, RoundKey, SnapshotAnnounced, Step};
use psyche_protocol::layout::RunState;

use super::desk::{DIGEST, Desk, digest, peer};
use crate::engine::{Effect, Event};

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
