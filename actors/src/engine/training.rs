//! This node's own batch of a round.

use psyche_messages::{
    BatchInterval, BlobHash, NodeEvent, ResultAnnounced, RoundKey, RoundMessage, SkipAnnounced, Step, events::Phase,
};

use super::api::{Effect, WitnessNumbers};
use super::model::Trouble;
use super::{Busy, Engine};

/// What became of this node's batch of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MyRound {
    /// It is being trained.
    Training { batch: BatchInterval },
    /// It is trained, and announced if that was still of use.
    Trained,
    /// It was not trained to the end, or not begun.
    Skipped,
    /// There was nothing to train.
    NoBatch,
}

impl Engine {
    /// Trains this node's batch of the round in work, on the parameters that the round calls for.
    pub(super) fn drive_training(&mut self) {
        self.cancel_useless_training();
        let Some(view) = &self.view else { return };
        let Some(round) = view.round() else { return };
        if self.my_rounds.contains_key(&round) {
            return;
        }
        let in_time = view.phase() == Phase::RoundTrain;
        let (healthy, last_round) = (view.is_healthy(&self.me()), view.is_last_round(round.step));
        let Some((at, height)) = self.locate(round) else { return };
        let Some(log) = self.logs.get(at) else { return };
        let Some(facts) = log.facts_at(height) else { return };
        let Some(batch) = facts.batch_of(&self.config.me) else {
            self.my_rounds.insert(round, MyRound::NoBatch);
            return;
        };
        if !healthy || last_round {
            self.my_rounds.insert(round, MyRound::Skipped);
            return;
        }
        if !in_time {
            self.my_rounds.insert(round, MyRound::Skipped);
            let reason = self.why_not_trained().to_owned();
            self.report(NodeEvent::StepSkipped { epoch: round.epoch, step: round.step, reason });
            return;
        }
        // Whoever died in this round may have announced a result already, and a second one would be taken for a lie.
        if height <= log.watched_from && !log.watched_from_start {
            return;
        }
        // Look-ahead: training overlaps the exchange of the round before, so it begins two applications behind.
        let base = Step(log.start_step.0.saturating_sub(1).max(round.step.0.saturating_sub(2)));
        let (schedule, cold_start, epoch) = (log.schedule, log.cold_start, log.epoch);
        if self.busy.is_some() || self.model.trouble.is_some() || self.model.step != Some(base) {
            return;
        }
        if base < log.start_step && self.awaits_comparison(base) {
            return;
        }
        if cold_start && self.model.momentum_reset_in != Some(epoch) {
            self.model.momentum_reset_in = Some(epoch);
            self.out.push(Effect::ResetMomentum);
        }
        self.my_rounds.insert(round, MyRound::Training { batch });
        self.lead.begin_training(round, batch.samples(), self.now.mono_ms);
        self.busy = Some(Busy::Training { round, cancelled: false });
        self.out.push(Effect::Train { round, batch, schedule });
    }

    /// Why the batch of a round was not begun.
    const fn why_not_trained(&self) -> &'static str {
        match (&self.model.step, &self.model.trouble, &self.busy) {
            (None, _, _) => "this node has no parameters",
            (_, Some(Trouble::Diverged { .. }), _) => "this node's parameters are wrong",
            (_, Some(Trouble::Stalled { .. }), _) => "an earlier round could not be applied",
            (_, _, Some(_)) => "the trainer was busy",
            _ => "an earlier round was not applied in time",
        }
    }

    /// Stops training that no witness can vouch for any more, or that goes on from wrong parameters.
    fn cancel_useless_training(&mut self) {
        let Some(Busy::Training { round, cancelled: false }) = self.busy else { return };
        let diverged = matches!(self.model.trouble, Some(Trouble::Diverged { .. }));
        if !diverged && self.is_witnessable(round) {
            return;
        }
        self.busy = Some(Busy::Training { round, cancelled: true });
        self.out.push(Effect::CancelTraining { round });
    }

    /// Whether a result of this node for `round` could still be witnessed.
    fn is_witnessable(&self, round: RoundKey) -> bool {
        self.view.as_ref().is_some_and(|view| {
            view.in_round() && view.epoch() == round.epoch && view.step().since(round.step) <= 1 && view.is_healthy(&self.me())
        })
    }

    /// Whether this node's part of the round in work is over, or cannot begin any more.
    pub(super) fn own_training_is_over(&self, round: RoundKey) -> bool {
        match self.my_rounds.get(&round) {
            Some(MyRound::Training { .. }) => false,
            Some(_) => true,
            None => self.model.step.is_none() || self.model.trouble.is_some(),
        }
    }

    fn end_training(&mut self, round: RoundKey, outcome: MyRound) -> Option<BatchInterval> {
        if !matches!(self.busy, Some(Busy::Training { round: training, .. }) if training == round) {
            return None;
        }
        self.busy = None;
        self.lead.end_training(round, outcome == MyRound::Trained, self.now.mono_ms);
        match self.my_rounds.insert(round, outcome) {
            Some(MyRound::Training { batch }) => Some(batch),
            _ => None,
        }
    }

    pub(super) fn on_trained(
        &mut self,
        round: RoundKey,
        payload: BlobHash,
        payload_len: u32,
        loss: f32,
        tokens_per_second: f32,
    ) {
        let Some(batch) = self.end_training(round, MyRound::Trained) else { return };
        self.numbers = WitnessNumbers { step: round.step, tokens_per_second, loss };
        self.report(NodeEvent::StepTrained {
            epoch: round.epoch,
            step: round.step,
            loss,
            samples: batch.samples(),
            tokens_per_second,
            payload_bytes: u64::from(payload_len),
        });
        if payload_len != self.config.payload_len {
            self.warn(format!(
                "the payload of round {round} has {payload_len} bytes instead of {}; peers would refuse it",
                self.config.payload_len
            ));
        } else if !self.is_witnessable(round) || matches!(self.model.trouble, Some(Trouble::Diverged { .. })) {
            let reason = "it was trained too late to be witnessed".to_owned();
            self.report(NodeEvent::StepSkipped { epoch: round.epoch, step: round.step, reason });
        } else {
            let trainer = self.config.me;
            self.publish(RoundMessage::Result(ResultAnnounced { round, trainer, batch, payload, payload_len }));
        }
    }

    pub(super) fn on_training_skipped(&mut self, round: RoundKey, reason: String) {
        let wanted = matches!(self.busy, Some(Busy::Training { cancelled: false, .. }));
        if self.end_training(round, MyRound::Skipped).is_some() {
            if wanted && self.is_witnessable(round) {
                self.publish(RoundMessage::Skip(SkipAnnounced { round, trainer: self.config.me }));
            }
            self.report(NodeEvent::StepSkipped { epoch: round.epoch, step: round.step, reason });
        }
    }
}
