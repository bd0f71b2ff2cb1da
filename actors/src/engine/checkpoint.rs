//! Checkpoints for the world outside the run: written at Cooldown by the members that the round's seed elects, as far as
//! their operators keep any, and named on chain; and by every node when the run has finished.
//!
//! Nobody waits for a checkpoint: an epoch goes on by the chain's clock. Of those who are elected the first one names it; the
//! others step in one after another while the account does not show it.

use psyche_messages::events::Phase;
use psyche_messages::{Address, NodeEvent, RoundKey, Step};
use psyche_protocol::model::Checkpoint;
use psyche_protocol::select::checkpointers;

use super::Engine;
use super::api::{ChainAction, Effect};
use super::duty::Duty;

/// How many turns those who are elected leave to whoever comes before them.
const TURNS: u64 = 3;

/// This node's checkpoints.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    /// The step after which one was asked for, and whether an answer has come.
    asked: Option<(Step, bool)>,
    /// The step after which one was written.
    written: Option<Step>,
    /// Naming it.
    pub duty: Duty<Step>,
}

impl Engine {
    /// This node's place among those who may name a checkpoint now.
    fn place_among_checkpointers(&self) -> Option<usize> {
        let view = self.view.as_ref()?;
        checkpointers(&view.account).iter().position(|elected| elected.map(Address) == Some(self.config.me))
    }

    /// Writes a checkpoint of a snapshot that is saved, and names it.
    pub(super) fn drive_checkpoint(&mut self) {
        let Some(view) = &self.view else { return };
        let end = Step(view.step().0.saturating_sub(1));
        if self.model.served != Some(end) || self.model.trouble.is_some() {
            return;
        }
        let place = match view.phase() {
            Phase::Finished => None,
            Phase::Cooldown if self.config.keeps_checkpoints => match self.place_among_checkpointers() {
                Some(place) => Some(place),
                None => return,
            },
            _ => return,
        };
        if self.checkpoints.asked.is_none_or(|(step, _)| step != end) {
            let Some(round) = self.round_behind(end) else { return };
            self.checkpoints.asked = Some((end, false));
            self.out.push(Effect::WriteCheckpoint { round });
        }
        if let Some(place) = place.filter(|_| self.checkpoints.written == Some(end)) {
            self.name_checkpoint(end, place);
        }
    }

    fn name_checkpoint(&mut self, end: Step, place: usize) {
        let (Some(view), Some(repo)) = (&self.view, self.config.checkpoint_repo) else { return };
        let now_ms = self.now.mono_ms;
        let pause_ms = self.config.patience.turn_ms.saturating_mul(TURNS).saturating_mul(place as u64);
        let named = match view.account.state.coordinator.model.checkpoint.get() {
            Some(Checkpoint::Hub(found) | Checkpoint::P2P(found)) => found == repo,
            // The program would keep what it has.
            _ => true,
        };
        if named || now_ms < view.since_ms.saturating_add(pause_ms) || !self.checkpoints.duty.due(end, now_ms) {
            return;
        }
        let id = self.send(ChainAction::Checkpoint(repo));
        self.checkpoints.duty.sent(id, now_ms);
    }

    pub(super) fn on_checkpoint_written(&mut self, round: RoundKey, path: Option<String>) {
        if self.checkpoints.asked != Some((round.step, false)) {
            return;
        }
        self.checkpoints.asked = Some((round.step, true));
        match path {
            Some(path) => {
                self.checkpoints.written = Some(round.step);
                self.report(NodeEvent::CheckpointWritten { step: round.step, path });
            }
            None => self.warn(format!("the checkpoint after step {} could not be written", round.step)),
        }
    }

    /// Whether the checkpoint after `step` is written, or cannot be.
    pub(super) fn checkpoint_is_settled(&self, step: Step) -> bool {
        self.checkpoints.asked == Some((step, true))
    }
}
