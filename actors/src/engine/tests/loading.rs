//! Loading parameters when something is wrong with them.

use psyche_messages::events::ModelSource;
use psyche_messages::{BlobHash, Digest, NodeEvent, RoundKey, RoundMessage, SnapshotAnnounced, Step, UpdatesAnnounced};

use super::desk::{Desk, peer, warned};
use crate::engine::{DiskSnapshot, Effect, Event, FetchFault, LoadFrom};

/// Steps and sources of the loads among `effects`.
fn loads(effects: &[Effect]) -> Vec<(u32, LoadFrom)> {
    let load = |effect: &Effect| match effect {
        Effect::LoadModel { step, from } => Some((step.0, from.clone())),
        _ => None,
    };
    effects.iter().filter_map(load).collect()
}

/// A run in Warmup before `step`, of which this engine has seen nothing yet.
fn in_warmup_before(step: u32) -> Desk {
    let mut desk = Desk::new(3);
    desk.account.state.coordinator.progress.step = step;
    for client in 0..3 {
        desk.join(client);
    }
    desk.pass_s(3);
    desk.tick();
    desk
}

#[test]
fn refuted_parameters_are_reported_and_asked_for_again_after_a_pause() {
    let mut desk = in_warmup_before(1);
    assert_eq!(loads(&desk.show()), [(0, LoadFrom::Checkpoint)]);
    let effects = desk.tell(Event::ModelRefuted { step: Step(0) });
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Report(NodeEvent::Warning { .. }))), "{effects:?}");
    assert!(loads(&effects).is_empty(), "there is a pause first");
    assert_eq!(loads(&desk.wait_ms(2_000)), [(0, LoadFrom::Checkpoint)]);
}

#[test]
fn a_damaged_snapshot_on_the_own_disk_gives_way_to_the_one_before_it() {
    let mut desk = in_warmup_before(8);
    let disk = |step| Some(DiskSnapshot { step: Step(step), digest: Digest([4; 32]) });
    assert!(loads(&desk.show()).is_empty(), "there is nothing to load");
    let effects = desk.tell(Event::DiskSnapshotChanged(disk(7)));
    assert_eq!(loads(&effects), [(7, LoadFrom::Disk)]);
    desk.tell(Event::DiskSnapshotChanged(disk(5)));
    desk.tell(Event::ModelLoadFailed { reason: "it is damaged".to_owned() });
    // One that is older than the run comes only when peers had time to offer theirs.
    assert_eq!(loads(&desk.wait_ms(12_000)), [(5, LoadFrom::Disk)]);
    // The same one is not tried for ever.
    desk.tell(Event::DiskSnapshotChanged(disk(5)));
    desk.tell(Event::ModelLoadFailed { reason: "the disk does not answer".to_owned() });
    assert!(loads(&desk.wait_ms(12_000)).iter().all(|(_, from)| *from != LoadFrom::Disk));
}

#[test]
fn who_comes_back_between_epochs_serves_what_lies_on_its_disk() {
    let mut desk = in_warmup_before(8);
    desk.account.state.coordinator.progress.epoch = 3;
    desk.show();
    let held = Digest([4; 32]);
    desk.tell(Event::DiskSnapshotChanged(Some(DiskSnapshot { step: Step(7), digest: held })));
    let effects = desk.tell(Event::ModelLoaded { step: Step(7), digest: held, source: ModelSource::Disk });
    let taken = effects.iter().find_map(|effect| if let Effect::TakeSnapshot { round } = effect { Some(*round) } else { None });
    assert_eq!(taken, Some(RoundKey::new(2, 7)), "the round that ended last was one of the epoch before");
}

#[test]
fn older_parameters_are_declared_right_only_when_those_who_joined_late_were_heard_too() {
    let mut desk = in_warmup_before(8);
    for late in [3, 4] {
        desk.join(late);
    }
    for client in [1, 2] {
        desk.tell(Event::PeerConnected(peer(client)));
    }
    desk.show();
    let held = Digest([4; 32]);
    desk.tell(Event::DiskSnapshotChanged(Some(DiskSnapshot { step: Step(5), digest: held })));
    assert_eq!(loads(&desk.wait_ms(12_000)), [(5, LoadFrom::Disk)]);
    desk.tell(Event::ModelLoaded { step: Step(5), digest: held, source: ModelSource::Disk });
    let declared = |effects: &[Effect]| warned(effects, "no client holds the parameters after step 7");
    assert!(!declared(&desk.wait_ms(60_000)), "two of five are out of reach, and may hold newer ones");
    desk.tell(Event::PeerConnected(peer(3)));
    assert!(!declared(&desk.wait_ms(5_000)), "it may not have said yet what it holds");
    assert!(declared(&desk.wait_ms(15_000)), "one of five may lie, and may as well be away");
}

#[test]
fn of_two_snapshots_the_one_whose_author_has_a_false_log_comes_last() {
    let mut desk = in_warmup_before(8);
    desk.show();
    let held = Digest([4; 32]);
    let round = RoundKey::new(0, 7);
    let log = UpdatesAnnounced { round, first: Step(5), digest: Digest([8; 32]), blob: BlobHash([8; 32]), blob_len: 9 };
    desk.hear(1, RoundMessage::Updates(log));
    let effects = desk.tell(Event::DiskSnapshotChanged(Some(DiskSnapshot { step: Step(5), digest: held })));
    assert_eq!(loads(&effects), [(5, LoadFrom::Disk)], "the log leads on from there");
    let effects = desk.tell(Event::ModelLoaded { step: Step(5), digest: held, source: ModelSource::Disk });
    assert!(effects.iter().any(|effect| matches!(effect, Effect::FetchUpdates { .. })), "{effects:?}");
    desk.tell(Event::UpdatesFetched { author: peer(1), outcome: Err(FetchFault::Malformed) });
    for client in [1, 2] {
        let (digest, index) = (Digest([client; 32]), BlobHash([client; 32]));
        desk.hear(client, RoundMessage::Snapshot(SnapshotAnnounced { round, digest, index, index_len: 10 }));
    }
    let digests: Vec<_> = loads(&desk.wait_ms(12_000)).into_iter().filter_map(|(_, from)| peers_digest(&from)).collect();
    assert_eq!(digests, [Digest([2; 32])], "the earlier client's is passed over");
}

fn peers_digest(from: &LoadFrom) -> Option<Digest> {
    if let LoadFrom::Peers { digest, .. } = from { Some(*digest) } else { None }
}
