//! `/status`: what a node says of itself, for people and scripts. A public format: fields are added, never renamed.

use psyche_chain::{Circuit, EndpointHealth};
use psyche_messages::events::LoggedEvent;
use psyche_messages::{Address, Digest, Epoch, PeerKey, Phase, Points, Slot, Step};
use serde::{Deserialize, Serialize};

use super::health::Readiness;

/// An endpoint of the chain, as the node sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndpointReport {
    /// Scheme, host and port.
    pub endpoint: String,
    /// Its place among the configured pairs.
    pub pair: usize,
    /// Whether requests flow to it.
    pub up: bool,
    /// Whether it is asked first.
    pub first: bool,
    /// Moving average of its answers.
    pub latency_ms: Option<u64>,
    /// Slots behind the best endpoint.
    pub slot_lag: Option<u64>,
    /// Requests answered or failed.
    pub requests: u64,
    /// Those that failed.
    pub errors: u64,
}

impl From<EndpointHealth> for EndpointReport {
    fn from(health: EndpointHealth) -> Self {
        Self {
            up: health.circuit == Circuit::Closed,
            endpoint: health.endpoint,
            pair: health.pair,
            first: health.is_first,
            latency_ms: health.latency_ms,
            slot_lag: health.slot_lag,
            requests: health.requests,
            errors: health.failures,
        }
    }
}

/// The instances of an actor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActorReport {
    /// Its name.
    pub actor: String,
    /// Instances that run.
    pub up: u64,
    /// Instances that there should be.
    pub of: u64,
    /// Restarts of all of them.
    pub restarts: u64,
    /// Messages that wait or are being answered.
    pub mailbox: u64,
}

/// A batch that the node trained.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BatchReport {
    /// The step.
    pub step: Step,
    /// Its mean loss, in nats per token.
    pub loss: f32,
    /// Tokens a second.
    pub tokens_per_second: f32,
}

/// A device that ranks of the node train on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceReport {
    /// Its name: `cpu`, or `cuda:0` and so on.
    pub device: String,
    /// Ranks on it.
    pub ranks: usize,
    /// Its memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Of it, what is used: by this process on the CPU, by anybody on a CUDA device.
    pub memory_used_bytes: Option<u64>,
    /// How much of the time it works, from 0 to 1, where that is known.
    pub utilisation: Option<f32>,
}

/// A peer of the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerReport {
    /// Its key.
    pub peer: PeerKey,
    /// Whether it is connected.
    pub connected: bool,
    /// Whether it is a connected member of the run.
    pub member: bool,
    /// Whether it is reached only through a relay.
    pub relayed: bool,
    /// The last step for which its digest was compared with this node's.
    pub compared_step: Option<Step>,
    /// Whether both had the same bits there.
    pub agrees: Option<bool>,
    /// Bytes of blobs sent to it.
    pub bytes_sent: u64,
    /// Bytes of blobs received from it.
    pub bytes_received: u64,
}

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeReport {
    /// The client's version.
    pub version: String,
    /// The run.
    pub run_id: String,
    /// The wallet's address.
    pub address: Address,
    /// The peer key.
    pub peer: PeerKey,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// Whether it is ready, and why not.
    pub readiness: Readiness,
    /// The run's phase, once it was seen.
    pub phase: Option<Phase>,
    /// The run's epoch.
    pub epoch: Option<Epoch>,
    /// The run's step.
    pub step: Option<Step>,
    /// Steps that the run trains in all.
    pub total_steps: Option<u32>,
    /// Clients of the epoch.
    pub clients: Option<u16>,
    /// The newest slot that was seen.
    pub slot: Option<Slot>,
    /// The last step that the parameters contain.
    pub model_step: Option<Step>,
    /// Their digest.
    pub digest: Option<Digest>,
    /// Mean loss of the batch trained last.
    pub loss: Option<f32>,
    /// Tokens a second of that batch.
    pub tokens_per_second: Option<f32>,
    /// Batches that it trained.
    pub steps_trained: u64,
    /// Batches that it did not train to the end.
    pub steps_skipped: u64,
    /// Steps whose results it applied.
    pub steps_applied: u64,
    /// Digests of peers that differed from its own.
    pub desyncs: u64,
    /// Connected members of the run.
    pub peers: u16,
    /// Bytes of blobs sent to peers.
    pub blob_bytes_sent: u64,
    /// Bytes of blobs received from peers.
    pub blob_bytes_received: u64,
    /// Points earned in all.
    pub earned: Points,
    /// Points claimed in all.
    pub claimed: Points,
    /// Points neither lost nor claimed.
    pub claimable: Points,
    /// What the wallet holds.
    pub lamports: Option<u64>,
    /// The chain's endpoints.
    pub endpoints: Vec<EndpointReport>,
    /// The actors.
    pub actors: Vec<ActorReport>,
    /// The latest events, the newest one last.
    pub events: Vec<LoggedEvent>,
    /// The round within the epoch, from 0.
    #[serde(default)]
    pub round: Option<u32>,
    /// Seconds until the phase ends if nothing ends it before, by this machine's clock.
    #[serde(default)]
    pub phase_left_seconds: Option<u64>,
    /// The batches that it trained lately, the newest one last.
    #[serde(default)]
    pub history: Vec<BatchReport>,
    /// What it trains on.
    #[serde(default)]
    pub devices: Vec<DeviceReport>,
    /// Peers that are connected, or were heard of.
    #[serde(default)]
    pub peer_list: Vec<PeerReport>,
}
