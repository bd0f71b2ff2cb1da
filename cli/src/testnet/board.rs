//! What is known of each node, from its events alone.

use std::collections::{BTreeMap, BTreeSet};

use psyche_messages::events::ModelSource;
use psyche_messages::{Digest, Epoch, NodeEvent, Phase, Points, Step};

/// A trained batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Trained {
    pub(crate) loss: f32,
    pub(crate) samples: u64,
}

/// Where the run stands, as a node saw it last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) epoch: Epoch,
    pub(crate) step: Step,
    pub(crate) phase: Phase,
    pub(crate) clients: u16,
    pub(crate) total_steps: u32,
}

/// What a node has told of itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeBoard {
    /// How often it was started.
    pub(crate) starts: u32,
    /// Its wallet's address, once it is up.
    pub(crate) address: Option<String>,
    /// Where peers reach it.
    pub(crate) listen: Vec<String>,
    pub(crate) position: Option<Position>,
    pub(crate) model: Option<(Step, ModelSource)>,
    pub(crate) trained: BTreeMap<Step, Trained>,
    pub(crate) epochs: BTreeSet<Epoch>,
    /// Every digest that it had after a step; more than one would be a contradiction.
    pub(crate) applied: BTreeMap<Step, BTreeSet<Digest>>,
    /// Steps after which a peer's digest differed from its own.
    pub(crate) differed: BTreeSet<Step>,
    pub(crate) skipped: u32,
    pub(crate) tokens_per_second: Option<f32>,
    pub(crate) payload_bytes: u64,
    pub(crate) payloads: u64,
    pub(crate) peers: u16,
    pub(crate) earned: Points,
    pub(crate) claimed: Points,
    pub(crate) warnings: u32,
    pub(crate) last_warning: Option<String>,
    pub(crate) stopped: Option<String>,
}

impl NodeBoard {
    /// Takes in an event; returns what a reader of a plain log should be told, if anything.
    pub(crate) fn apply(&mut self, event: NodeEvent) -> Option<String> {
        match event {
            NodeEvent::Started { address, listen, .. } => {
                self.starts = self.starts.saturating_add(1);
                self.address = Some(address.to_string());
                self.listen = listen;
                self.stopped = None;
                Some("is up".to_owned())
            }
            NodeEvent::PhaseChanged { epoch, step, phase, clients, total_steps, .. } => {
                self.position = Some(Position { epoch, step, phase, clients, total_steps });
                None
            }
            NodeEvent::Joined { .. } => Some("joined".to_owned()),
            NodeEvent::ModelReady { step, source, .. } => {
                self.model = Some((step, source));
                let from = match source {
                    ModelSource::Checkpoint => "the run's checkpoint",
                    ModelSource::Peers => "its peers",
                    ModelSource::Disk => "its disk",
                };
                Some(format!("has the model after step {step} from {from}"))
            }
            NodeEvent::StepTrained { epoch, step, loss, samples, tokens_per_second, payload_bytes } => {
                self.trained.insert(step, Trained { loss, samples });
                self.epochs.insert(epoch);
                self.tokens_per_second = Some(tokens_per_second);
                self.payload_bytes = self.payload_bytes.saturating_add(payload_bytes);
                self.payloads = self.payloads.saturating_add(1);
                None
            }
            NodeEvent::StepSkipped { step, reason, .. } => {
                self.skipped = self.skipped.saturating_add(1);
                Some(format!("skipped step {step}: {reason}"))
            }
            NodeEvent::StepApplied { step, digest, .. } => {
                self.applied.entry(step).or_default().insert(digest);
                None
            }
            NodeEvent::CheckpointWritten { path, .. } => Some(format!("wrote the checkpoint {path}")),
            NodeEvent::UpdatesReplayed { from, to, .. } => Some(format!("replayed steps {from}..{to} from the update log")),
            NodeEvent::DigestCompared { step, equal, peer } => (!equal).then(|| {
                self.differed.insert(step);
                format!("differs from {peer} after step {step}")
            }),
            other => self.apply_business(other),
        }
    }

    /// Events that are not about training.
    fn apply_business(&mut self, event: NodeEvent) -> Option<String> {
        match event {
            NodeEvent::PeersChanged { connected } => {
                self.peers = connected;
                None
            }
            NodeEvent::PointsChanged { earned, claimed } => {
                self.earned = earned;
                self.claimed = claimed;
                None
            }
            NodeEvent::RewardsClaimed { amount, .. } => Some(format!("claimed {amount} points")),
            NodeEvent::Warning { message } => {
                self.warnings = self.warnings.saturating_add(1);
                self.last_warning = Some(message.clone());
                Some(format!("warns: {message}"))
            }
            NodeEvent::Stopped { reason } => {
                self.stopped = Some(reason.clone());
                Some(format!("stopped: {reason}"))
            }
            _ => None,
        }
    }

    /// The newest digest, with the step that it belongs to.
    pub(crate) fn newest_digest(&self) -> Option<(Step, Digest)> {
        let (step, digests) = self.applied.last_key_value()?;
        digests.last().map(|digest| (*step, *digest))
    }

    /// Mean length of its payloads in bytes.
    pub(crate) const fn payload_bytes_mean(&self) -> u64 {
        match self.payload_bytes.checked_div(self.payloads) {
            Some(mean) => mean,
            None => 0,
        }
    }
}

/// Where the run stands: the furthest position that any node saw.
pub(crate) fn position(nodes: &[NodeBoard]) -> Option<Position> {
    nodes.iter().filter_map(|node| node.position).max_by_key(|at| (at.epoch, at.step, order(at.phase)))
}

/// The order of phases within a step.
const fn order(phase: Phase) -> u8 {
    match phase {
        Phase::Uninitialized | Phase::Paused => 0,
        Phase::WaitingForMembers => 1,
        Phase::Warmup => 2,
        Phase::RoundTrain => 3,
        Phase::RoundWitness => 4,
        Phase::Cooldown => 5,
        Phase::Finished => 6,
    }
}

/// Mean loss of every step over the nodes that trained in it, weighted by their samples.
pub(crate) fn losses(nodes: &[NodeBoard]) -> BTreeMap<Step, f64> {
    let mut sums: BTreeMap<Step, (f64, f64)> = BTreeMap::new();
    for (step, trained) in nodes.iter().flat_map(|node| &node.trained) {
        #[expect(clippy::cast_precision_loss, reason = "samples of a batch are few")]
        let weight = trained.samples as f64;
        let sum = sums.entry(*step).or_default();
        sum.0 += f64::from(trained.loss) * weight;
        sum.1 += weight;
    }
    sums.into_iter().filter(|(_, (_, weight))| *weight > 0.0).map(|(step, (sum, weight))| (step, sum / weight)).collect()
}

/// Steps after which not all nodes that applied them had the same digest.
pub(crate) fn disagreements(nodes: &[NodeBoard]) -> BTreeSet<Step> {
    let mut digests: BTreeMap<Step, BTreeSet<Digest>> = BTreeMap::new();
    for (step, seen) in nodes.iter().flat_map(|node| &node.applied) {
        digests.entry(*step).or_default().extend(seen);
    }
    let split = digests.into_iter().filter(|(_, seen)| seen.len() > 1).map(|(step, _)| step);
    split.chain(nodes.iter().flat_map(|node| node.differed.iter().copied())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn trained(step: u32, loss: f32, samples: u64) -> NodeEvent {
        NodeEvent::StepTrained { epoch: Epoch(0), step: Step(step), loss, samples, tokens_per_second: 1.0, payload_bytes: 10 }
    }

    fn applied(step: u32, digest: u8) -> NodeEvent {
        NodeEvent::StepApplied { epoch: Epoch(0), step: Step(step), results: 2, digest: Digest([digest; 32]) }
    }

    fn board(events: impl IntoIterator<Item = NodeEvent>) -> NodeBoard {
        let mut board = NodeBoard::default();
        for event in events {
            board.apply(event);
        }
        board
    }

    #[test]
    fn losses_are_weighted_by_samples() {
        let nodes = [board([trained(1, 8.0, 3), trained(2, 6.0, 1)]), board([trained(1, 4.0, 1)])];
        let losses: Vec<_> = losses(&nodes).into_iter().collect();
        assert_eq!(losses, [(Step(1), 7.0), (Step(2), 6.0)]);
    }

    #[test]
    fn nodes_disagree_only_about_steps_that_both_applied() {
        let nodes = [board([applied(1, 7), applied(2, 8)]), board([applied(2, 8), applied(3, 9)])];
        assert!(disagreements(&nodes).is_empty());
        let other = [board([applied(1, 7), applied(2, 8)]), board([applied(2, 9)])];
        assert_eq!(disagreements(&other), BTreeSet::from([Step(2)]));
    }

    #[test]
    fn a_node_that_contradicts_itself_or_reports_a_difference_disagrees() {
        assert_eq!(disagreements(&[board([applied(1, 7), applied(1, 8)])]), BTreeSet::from([Step(1)]));
        let compared = NodeEvent::DigestCompared { step: Step(5), peer: [1; 32].into(), equal: false };
        assert_eq!(disagreements(&[board([compared])]), BTreeSet::from([Step(5)]));
    }

    #[test]
    fn the_run_stands_where_the_furthest_node_saw_it() {
        let at = |epoch, step, phase| NodeEvent::PhaseChanged {
            epoch: Epoch(epoch),
            step: Step(step),
            phase,
            slot: 1.into(),
            since: 1.into(),
            clients: 2,
            total_steps: 9,
        };
        let nodes = [board([at(0, 3, Phase::RoundWitness)]), board([at(0, 3, Phase::RoundTrain)]), NodeBoard::default()];
        let position = position(&nodes);
        assert_eq!(position.map(|at| (at.step, at.phase)), Some((Step(3), Phase::RoundWitness)));
        assert_eq!(super::position(&[]), None);
    }
}
