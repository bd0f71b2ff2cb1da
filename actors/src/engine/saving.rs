//! When this node takes snapshots, and serves them.

use psyche_messages::events::Phase;
use psyche_messages::{Epoch, RoundKey, RoundMessage, SnapshotAnnounced, Step};

use super::Engine;
use super::api::Effect;
use super::model::Trouble;
use super::snapshots::DiskSnapshot;

/// How often a failed snapshot is tried again.
const SNAPSHOT_TRIES: u32 = 3;
/// Snapshots that this node serves at a time, from which others replay its log.
const SNAPSHOTS_SERVED: usize = 2;

impl Engine {
    /// Takes a snapshot when an epoch is over and everything witnessed in it is applied. Who comes back serves anew what it has,
    /// as nobody else may.
    pub(super) fn drive_snapshot(&mut self) {
        let Some(view) = &self.view else { return };
        let end = Step(view.step().0.saturating_sub(1));
        let came_back = || self.config.disk.is_some_and(|disk| disk.step == end && Some(disk.digest) == self.model.digest);
        let over = match view.phase() {
            Phase::Cooldown | Phase::WaitingForMembers | Phase::Finished | Phase::Paused => true,
            Phase::Warmup => came_back(),
            Phase::Uninitialized | Phase::RoundTrain | Phase::RoundWitness => false,
        };
        if !over || self.busy.is_some() || self.model.step != Some(end) || self.model.trouble.is_some() {
            return;
        }
        if self.model.snapshot_tries.is_some_and(|(step, _)| step == end) {
            return;
        }
        if let Some(round) = self.round_behind(end) {
            self.take_snapshot(round);
        }
    }

    /// The round that ended last, which was that of the step `end`; `None` where none ended yet, or one is in work.
    pub(super) fn round_behind(&self, end: Step) -> Option<RoundKey> {
        if let Some((at, height)) = self.locate_step(end) {
            return self.logs.get(at).map(|log| log.round(height));
        }
        let view = self.view.as_ref()?;
        // Epochs are counted when they end, and only those that had rounds.
        let epoch = match view.phase() {
            Phase::Uninitialized | Phase::RoundTrain | Phase::RoundWitness => return None,
            Phase::Cooldown => view.epoch(),
            Phase::WaitingForMembers | Phase::Warmup | Phase::Finished | Phase::Paused => Epoch(view.epoch().0.checked_sub(1)?),
        };
        (end > Step(0)).then_some(RoundKey { epoch, step: end })
    }

    pub(super) fn take_snapshot(&mut self, round: RoundKey) {
        let tries = match self.model.snapshot_tries {
            Some((step, tries)) if step == round.step => tries.saturating_add(1),
            _ => 1,
        };
        self.model.snapshot_tries = Some((round.step, tries));
        self.out.push(Effect::TakeSnapshot { round });
    }

    pub(super) fn on_snapshot_ready(&mut self, announced: SnapshotAnnounced) {
        let wanted = self.model.snapshot_tries.is_some_and(|(step, _)| step == announced.round.step);
        if !wanted || matches!(self.model.trouble, Some(Trouble::Diverged { .. })) {
            return;
        }
        self.model.served = Some(announced.round.step);
        self.model.kept.push_back(announced.round.step);
        while self.model.kept.len() > SNAPSHOTS_SERVED {
            self.model.kept.pop_front();
        }
        // From now on this is what lies on the disk.
        self.config.disk = Some(DiskSnapshot { step: announced.round.step, digest: announced.digest });
        self.model.disk_tried = false;
        self.publish(RoundMessage::Snapshot(announced));
    }

    pub(super) fn on_snapshot_failed(&mut self, round: RoundKey, reason: &str) {
        self.warn(format!("no snapshot could be taken after step {}: {reason}", round.step));
        let again = self.model.snapshot_tries.is_some_and(|(step, tries)| step == round.step && tries < SNAPSHOT_TRIES);
        if again && self.model.step == Some(round.step) {
            self.take_snapshot(round);
        }
    }
}
