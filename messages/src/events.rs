//! What a node reports about itself. The same values go to embedding services as a stream and to the event log as one
//! JSON object a line, so the serialized form is a public format: fields are added, never renamed.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{Address, ChainTime, Digest, Epoch, PeerKey, Points, Slot, Step};

/// The phase of a run, named as on chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// No configuration yet.
    Uninitialized,
    /// Waiting until enough clients have joined.
    WaitingForMembers,
    /// Clients load the model.
    Warmup,
    /// Clients train their batches.
    RoundTrain,
    /// Late witnesses are collected.
    RoundWitness,
    /// The epoch is over; checkpoints are written.
    Cooldown,
    /// The run has trained all its steps.
    Finished,
    /// The owner paused the run.
    Paused,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Where a node's parameters came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelSource {
    /// The run's checkpoint.
    Checkpoint,
    /// A snapshot of other members.
    Peers,
    /// The node's own disk.
    Disk,
}

/// What an endpoint of the chain is to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointState {
    /// It answers, and is asked.
    InUse,
    /// It failed, and rests until a probe is answered.
    Resting,
    /// It is on another cluster than the others, and is not used.
    WrongCluster,
}

/// Something that happened to or in a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum NodeEvent {
    /// The node is up and follows the run.
    Started {
        /// The wallet's address.
        address: Address,
        /// The peer key.
        peer: PeerKey,
        /// Addresses on which peers reach this node, with the peer id.
        listen: Vec<String>,
        /// Data-parallel ranks.
        dp: u16,
        /// Tensor-parallel ranks.
        tp: u16,
    },
    /// The run entered another phase, or another round.
    PhaseChanged {
        /// The epoch.
        epoch: Epoch,
        /// The step.
        step: Step,
        /// The new phase.
        phase: Phase,
        /// The slot at which this was seen.
        slot: Slot,
        /// The chain's clock when the phase began.
        since: ChainTime,
        /// Clients of the epoch.
        clients: u16,
        /// Steps that the run trains in all.
        total_steps: u32,
    },
    /// The join transaction for the next epoch is confirmed.
    Joined {
        /// The epoch that runs or ended last when the node joined.
        epoch: Epoch,
        /// Seconds of the chain's clock until the time of the epoch that runs is up; the next one follows.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        epoch_left_s: Option<u64>,
    },
    /// Parameters are loaded.
    ModelReady {
        /// The last step that the parameters contain; 0 for initial weights.
        step: Step,
        /// Where they came from.
        source: ModelSource,
        /// Their digest.
        digest: Digest,
    },
    /// A batch was trained.
    StepTrained {
        /// The epoch.
        epoch: Epoch,
        /// The step.
        step: Step,
        /// Mean loss over the batch's tokens, in nats.
        loss: f32,
        /// Samples in the batch.
        samples: u64,
        /// Tokens a second of this node.
        tokens_per_second: f32,
        /// Length of the payload in bytes.
        payload_bytes: u64,
    },
    /// A batch was not trained to the end.
    StepSkipped {
        /// The epoch.
        epoch: Epoch,
        /// The step.
        step: Step,
        /// Why.
        reason: String,
    },
    /// The results of a step were applied.
    StepApplied {
        /// The epoch.
        epoch: Epoch,
        /// The step whose results were applied.
        step: Step,
        /// How many results.
        results: u16,
        /// Digest of the parameters afterwards.
        digest: Digest,
    },
    /// Steps were applied from a signed update log, so that the parameters are further than the snapshot they came from.
    UpdatesReplayed {
        /// The first step.
        from: Step,
        /// The last one.
        to: Step,
        /// Whose log it was.
        peer: PeerKey,
    },
    /// The weights are written where the operator keeps checkpoints.
    CheckpointWritten {
        /// The last step that they contain.
        step: Step,
        /// The folder.
        path: String,
    },
    /// A peer's digest for a step that this node has applied.
    DigestCompared {
        /// The step.
        step: Step,
        /// The peer.
        peer: PeerKey,
        /// Whether both have the same bits.
        equal: bool,
    },
    /// The number of connected members changed.
    PeersChanged {
        /// Connected members of the run.
        connected: u16,
    },
    /// Points changed.
    PointsChanged {
        /// Earned in all.
        earned: Points,
        /// Claimed in all.
        claimed: Points,
    },
    /// Rewards were claimed.
    RewardsClaimed {
        /// Amount in base units of the reward token.
        amount: Points,
        /// Signature of the claiming transaction.
        signature: String,
    },
    /// A transaction of this node is confirmed.
    TransactionConfirmed {
        /// What it was for.
        purpose: String,
        /// Its signature.
        signature: String,
    },
    /// An endpoint of the chain was given up, or came back.
    EndpointChanged {
        /// Scheme, host and port.
        endpoint: String,
        /// What it is now.
        state: EndpointState,
    },
    /// Something went wrong that an operator should know of; the node goes on.
    Warning {
        /// What, in words.
        message: String,
    },
    /// The node stops.
    Stopped {
        /// Why, in words.
        reason: String,
    },
}

/// A line of the event log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoggedEvent {
    /// Version of the format.
    pub v: u8,
    /// Milliseconds since the Unix epoch by the machine's clock.
    pub unix_ms: u64,
    /// The event.
    #[serde(flatten)]
    pub event: NodeEvent,
}

/// The version that [`LoggedEvent::v`] has now.
pub const EVENT_LOG_VERSION: u8 = 1;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use super::*;

    #[test]
    fn logged_events_keep_their_public_form() {
        let line = LoggedEvent {
            v: EVENT_LOG_VERSION,
            unix_ms: 5,
            event: NodeEvent::StepApplied { epoch: Epoch(1), step: Step(7), results: 3, digest: Digest([0; 32]) },
        };
        let json = serde_json::to_string(&line).unwrap();
        let zeros = "0".repeat(64);
        assert_eq!(
            json,
            format!(r#"{{"v":1,"unix_ms":5,"event":"step_applied","epoch":1,"step":7,"results":3,"digest":"{zeros}"}}"#)
        );
        assert_eq!(serde_json::from_str::<LoggedEvent>(&json).unwrap(), line);
    }
}
