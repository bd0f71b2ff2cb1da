//! The node's configuration: read from environment variables, checked as a whole, every violation named at once.
//!
//! Values never appear in messages, since some of them are secrets and endpoint URLs carry keys.

mod draft;
mod environment;
#[cfg(test)]
mod tests;

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use psyche_chain::{EndpointPair, EndpointVariables, ProgramIds, Wallet};
use psyche_gpu::GpuError;
use psyche_gpu::devices::{DeviceSpec, Machine, Placement, Seat, load_torch_cuda};
use psyche_gpu::mesh::Topology;
use psyche_gpu::precision::Precision;
use psyche_messages::{Address, RunId, Secret};
use psyche_protocol::model::HubRepo;
use thiserror::Error;

pub(crate) use draft::Draft;
pub use environment::{Unset, VARIABLES, Variable};
pub(crate) use environment::{wallet_in, wallet_of};

use crate::telemetry::{MetricsBind, OtlpConfig};

/// Most ranks along one axis of the device mesh that configuration may ask for.
pub const PARALLELISM_MAX: u16 = 64;
/// Largest micro-batch that configuration may ask for.
pub const MICRO_BATCH_MAX: u32 = 65_536;
/// Most bootstrap peers.
pub const BOOTSTRAP_PEERS_MAX: usize = 64;

/// A variable whose value cannot be used, and why. Never holds the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Name of the variable.
    pub variable: String,
    /// What is wrong and what is accepted.
    pub problem: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.variable, self.problem)
    }
}

/// Everything that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("use the configuration: {} of its variables cannot be used{}", .violations.len(), lines(.violations))]
pub struct ConfigError {
    /// One for each unusable variable.
    pub violations: Vec<Violation>,
}

fn lines(violations: &[Violation]) -> String {
    violations.iter().map(|violation| format!("\n  {violation}")).collect()
}

/// How a node's devices are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeshShape {
    /// Data-parallel ranks: the batch is split over them.
    pub dp: u16,
    /// Tensor-parallel ranks: the model is split over them.
    pub tp: u16,
    /// Samples that one rank trains at a time.
    pub micro_batch: u32,
}

/// How the devices compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ComputeConfig {
    /// Element type of compute copies and activations; none leaves it to the device.
    pub precision: Option<Precision>,
    /// Whether layers run again in the backward pass instead of keeping what they computed.
    pub checkpointing: bool,
    /// Whether steps whose loss is a spike are skipped; a loss that is no number always skips its step.
    pub skips_spikes: bool,
}

impl Default for ComputeConfig {
    fn default() -> Self {
        Self { precision: None, checkpointing: false, skips_spikes: true }
    }
}

impl ComputeConfig {
    /// The element type on `device`: what the operator set, otherwise bf16 on CUDA devices and f32 on the CPU.
    #[must_use]
    pub fn precision_on(&self, device: &Seat) -> Precision {
        self.precision.unwrap_or(if device.is_cuda() { Precision::Bf16 } else { Precision::F32 })
    }
}

/// Where and how the node is reached by peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct P2pConfig {
    /// Interface to listen on.
    pub bind: std::net::IpAddr,
    /// TCP and UDP port; 0 takes a free one.
    pub port: u16,
    /// Multiaddresses of members through which the others are found.
    pub bootstrap: Vec<String>,
    /// Multiaddresses of relays, for nodes behind NAT.
    pub relays: Vec<String>,
    /// Whether this node is a relay for other members.
    pub serves_relay: bool,
    /// Multiaddresses under which others reach this node although it can't see them itself.
    pub external: Vec<String>,
}

impl Default for P2pConfig {
    /// A free port of every interface, and nobody to ask.
    fn default() -> Self {
        let bind = std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
        Self { bind, port: 0, bootstrap: Vec::new(), relays: Vec::new(), serves_relay: false, external: Vec::new() }
    }
}

/// What a compute unit of the node's transactions may cost, in millionths of a lamport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeeBounds {
    /// At least this, also where the chain knows no recent fees.
    pub floor_micro_lamports: u64,
    /// At most this, whatever recent fees say.
    pub cap_micro_lamports: u64,
}

impl Default for FeeBounds {
    fn default() -> Self {
        Self { floor_micro_lamports: 0, cap_micro_lamports: 1_000_000 }
    }
}

/// The bounds of priority fees that `variables` (pairs of name and value) name.
///
/// # Errors
/// [`ConfigError`] with every violation, by the variable's name.
pub fn fees_from(variables: impl IntoIterator<Item = (String, String)>) -> Result<FeeBounds, ConfigError> {
    environment::read_fees(variables)
}

/// When earned rewards are claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimPolicy {
    /// Only by the operator's command.
    Manual,
    /// At the end of every epoch in which something was earned, and when the run is finished.
    Automatic,
}

/// A complete, valid configuration of a node.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The Solana endpoints, the preferred one first. At least one of them has a JSON-RPC server.
    pub endpoints: Vec<EndpointPair>,
    /// For each of them, the variable by which the operator knows it.
    pub endpoint_names: Vec<String>,
    /// The run to join.
    pub run_id: RunId,
    /// The grantee whose authorization lists this wallet as a delegate, where the wallet is not authorized itself.
    pub authorizer: Option<Address>,
    /// The wallet that joins, pays and earns.
    pub wallet: Wallet,
    /// Layout of the devices.
    pub mesh: MeshShape,
    /// The devices.
    pub device: DeviceSpec,
    /// How they compute.
    pub compute: ComputeConfig,
    /// Peer-to-peer settings.
    pub p2p: P2pConfig,
    /// Seed of the key by which peers know the node; without one it is derived from the wallet and the run.
    pub identity: Option<Secret<[u8; 32]>>,
    /// Folder for blobs, snapshots and the event log.
    pub data_dir: PathBuf,
    /// Snapshots that stay on the disk.
    pub snapshots_kept: NonZeroUsize,
    /// Folder for checkpoints, where the operator keeps any.
    pub checkpoint_dir: Option<PathBuf>,
    /// The repository that is filled from there, to be named on chain.
    pub checkpoint_repo: Option<HubRepo>,
    /// The training data, where it does not lie at the place that the run names.
    pub data_path: Option<PathBuf>,
    /// Folder in which a checkpoint that the run names by a relative path is looked up.
    pub models_dir: PathBuf,
    /// Where health, metrics and status are served.
    pub metrics: MetricsBind,
    /// Where metrics are pushed, if anywhere.
    pub otlp: Option<OtlpConfig>,
    /// When rewards are claimed.
    pub claim: ClaimPolicy,
    /// What transactions may cost.
    pub fees: FeeBounds,
    /// The programs on chain.
    pub programs: ProgramIds,
}

/// The endpoints that `variables` (pairs of name and value; the later one of two with one name counts) name: `RPC`/`WS_RPC`,
/// `RPC_2`/`WS_RPC_2` and so on. What serves only one purpose is listed in [`EndpointVariables::missing`].
///
/// # Errors
/// [`ConfigError`] with every violation, by the variable's name.
pub fn endpoints_from(variables: impl IntoIterator<Item = (String, String)>) -> Result<EndpointVariables, ConfigError> {
    environment::read_endpoints(variables)
}

impl NodeConfig {
    /// Reads the configuration from `variables`, pairs of name and value; unknown names are ignored.
    ///
    /// # Errors
    /// [`ConfigError`] with every violation.
    pub fn from_variables(variables: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        environment::read(variables).finish()
    }

    /// The device of every rank on `machine`. Loads libtorch's CUDA half where one is to compute there, so it must come
    /// before the process makes any tensor.
    ///
    /// # Errors
    /// [`GpuError`], with the numbers and what to set instead, if there are fewer devices than ranks or if they can't be used.
    pub fn placement(&self, machine: &Machine) -> Result<Placement, GpuError> {
        let topology = Topology::new(usize::from(self.mesh.dp), usize::from(self.mesh.tp))?;
        self.device.place(topology, machine, load_torch_cuda)
    }
}
