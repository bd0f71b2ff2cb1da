//! Who writes and names a checkpoint, and when.

use psyche_messages::{BlobHash, NodeEvent, RoundKey, SnapshotAnnounced};
use psyche_protocol::layout::{FixedString, RunState};
use psyche_protocol::machine;
use psyche_protocol::model::{Checkpoint, HubRepo};
use psyche_protocol::select::checkpointers;

use super::desk::{DIGEST, Desk, address, sent};
use crate::engine::{Effect, Event};

fn repo() -> HubRepo {
    HubRepo { repo_id: FixedString::new("org/model").unwrap(), revision: None }
}

/// A run of `clients` clients in its first Cooldown, and the last round of the epoch.
fn in_cooldown(clients: u8, set_up: impl Fn(&mut Desk)) -> (Desk, RoundKey) {
    let mut desk = Desk::in_training(clients);
    set_up(&mut desk);
    desk.show();
    let round = desk.round();
    desk.train();
    let clock = desk.clock();
    machine::set_paused(&mut desk.account, true, &clock).unwrap();
    desk.next_round(&[]);
    while desk.account.run_state() != RunState::Cooldown {
        desk.pass_s(30);
        desk.tick();
    }
    let effects = desk.show();
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Apply { .. })), "{effects:?}");
    (desk, round)
}

/// What the engine does when the last round is applied and the snapshot saved.
fn saved(desk: &mut Desk, round: RoundKey) -> Vec<Effect> {
    let effects = desk.tell(Event::Applied { round, digest: DIGEST });
    assert!(effects.iter().any(|effect| matches!(effect, Effect::TakeSnapshot { .. })), "{effects:?}");
    let announced = SnapshotAnnounced { round, digest: DIGEST, index: BlobHash([7; 32]), index_len: 10 };
    desk.tell(Event::SnapshotReady(announced))
}

fn writes(effects: &[Effect]) -> usize {
    effects.iter().filter(|effect| matches!(effect, Effect::WriteCheckpoint { .. })).count()
}

fn keeps(desk: &mut Desk) {
    desk.engine.config.keeps_checkpoints = true;
    desk.engine.config.checkpoint_repo = Some(repo());
}

#[test]
fn an_elected_member_writes_the_checkpoint_once_and_names_it_when_it_is_there() {
    let (mut desk, round) = in_cooldown(3, keeps);
    // Three of three are elected.
    assert!(checkpointers(&desk.account).contains(&Some(address(0).0)));
    let effects = saved(&mut desk, round);
    assert_eq!(writes(&effects), 1, "{effects:?}");
    assert!(!sent(&effects).contains(&"checkpoint"), "nothing is there yet");
    let mut effects = desk.tell(Event::CheckpointWritten { round, path: Some("/here".to_owned()) });
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Report(NodeEvent::CheckpointWritten { .. }))));
    effects.extend(desk.wait_ms(5_000));
    assert_eq!(sent(&effects).iter().filter(|what| **what == "checkpoint").count(), 1, "{effects:?}");
    assert_eq!(writes(&effects), 0);
}

#[test]
fn what_the_run_names_already_is_not_named_again_and_a_failure_is_told() {
    let (mut desk, round) = in_cooldown(3, keeps);
    let clock = desk.clock();
    machine::checkpoint(&mut desk.account, &address(1).0, &Checkpoint::Hub(repo()), &clock).unwrap();
    desk.show();
    saved(&mut desk, round);
    let mut effects = desk.tell(Event::CheckpointWritten { round, path: Some("/here".to_owned()) });
    effects.extend(desk.wait_ms(5_000));
    assert!(!sent(&effects).contains(&"checkpoint"), "{effects:?}");
    let (mut desk, round) = in_cooldown(3, keeps);
    saved(&mut desk, round);
    let effects = desk.tell(Event::CheckpointWritten { round, path: None });
    assert!(super::desk::warned(&effects, "could not be written"), "{effects:?}");
    assert!(!sent(&desk.wait_ms(5_000)).contains(&"checkpoint"));
}

#[test]
fn whoever_keeps_no_checkpoints_or_is_not_elected_leaves_it_to_others() {
    let (mut desk, round) = in_cooldown(3, |_| ());
    let mut effects = saved(&mut desk, round);
    effects.extend(desk.wait_ms(5_000));
    assert_eq!(writes(&effects), 0, "{effects:?}");
    let (mut desk, round) = in_cooldown(9, keeps);
    let elected = checkpointers(&desk.account).contains(&Some(address(0).0));
    let effects = saved(&mut desk, round);
    assert_eq!(writes(&effects), usize::from(elected), "{effects:?}");
}
