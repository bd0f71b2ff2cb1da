//! Loading parameters when something is wrong with them.

use psyche_messages::{Digest, NodeEvent, Step};

use super::desk::Desk;
use crate::engine::{DiskSnapshot, Effect, Event, LoadFrom};

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
