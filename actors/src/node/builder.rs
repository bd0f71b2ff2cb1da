//! [`NodeBuilder`]: a node's configuration, in code or from the environment.

use std::path::PathBuf;

use psyche_chain::{ProgramIds, Wallet};
use psyche_gpu::devices::DeviceSpec;
use psyche_messages::{Address, Secret};
use tokio::runtime::Handle;

use super::{Drill, Node, NodeError, thread};
use crate::config::{ClaimPolicy, ComputeConfig, ConfigError, Draft, FeeBounds, NodeConfig, P2pConfig};
use crate::telemetry::{MetricsBind, OtlpConfig};

/// Puts a node's configuration together and starts the node.
///
/// Every setter stands for a variable of the environment, by whose name a violation is told. What is set last counts.
/// Nothing is read from the environment unless [`NodeBuilder::from_env`] is asked to.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is started"]
pub struct NodeBuilder {
    draft: Draft,
    runtime: Option<Handle>,
    name: Option<String>,
    drill: Option<Drill>,
}

/// A configuration that can be used, ready to start; see [`NodeBuilder::build`].
#[derive(Clone, Debug)]
#[must_use = "a node does nothing until it is started"]
pub struct ReadyNode {
    pub(super) config: NodeConfig,
    pub(super) runtime: Option<Handle>,
    pub(super) name: Option<String>,
    pub(super) drill: Option<Drill>,
}

impl Default for NodeBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl From<NodeConfig> for NodeBuilder {
    fn from(config: NodeConfig) -> Self {
        Self { draft: Draft::of_config(config), runtime: None, name: None, drill: None }
    }
}

impl NodeBuilder {
    /// A builder that knows nothing yet: it needs a run, a wallet and an endpoint. No port is opened for health and
    /// metrics unless [`NodeBuilder::telemetry`] says so; everything else begins as operators know it.
    pub fn new() -> Self {
        let mut draft = Draft::of([]);
        draft.metrics = MetricsBind::Off;
        Self { draft, runtime: None, name: None, drill: None }
    }

    /// What the process's environment says, as the command `train` reads it. Variables that are no text are none of ours.
    pub fn from_env() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self::from_variables(std::env::vars_os().filter_map(text))
    }

    /// What `variables` say, pairs of name and value; unknown names are ignored.
    pub fn from_variables(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        Self { draft: Draft::of(variables), runtime: None, name: None, drill: None }
    }

    /// The run to join (`RUN_ID`).
    pub fn run_id(mut self, run_id: &str) -> Self {
        self.draft.set_run_id(run_id);
        self
    }

    /// One more pair of a JSON-RPC URL and a websocket URL, the preferred one first (`RPC`/`WS_RPC`, `RPC_2`/`WS_RPC_2`
    /// and so on); an empty text means none.
    pub fn endpoint(mut self, rpc: &str, ws: &str) -> Self {
        self.draft.add_endpoint(rpc, ws);
        self
    }

    /// The wallet that joins, pays and earns.
    pub fn wallet(mut self, wallet: Wallet) -> Self {
        self.draft.set_wallet(|_| Some(wallet));
        self
    }

    /// The wallet in a file that only its owner may read (`WALLET_PRIVATE_KEY_PATH`). Read at once.
    pub fn wallet_file(mut self, path: impl AsRef<std::path::Path>) -> Self {
        self.draft.set_wallet(|reader| crate::config::wallet_in(reader, path.as_ref()));
        self
    }

    /// The wallet in a text, a JSON array of 64 numbers or base58 (`RAW_WALLET_PRIVATE_KEY`).
    pub fn wallet_key(mut self, key: &Secret<String>) -> Self {
        self.draft.set_wallet(|reader| crate::config::wallet_of(reader, key.expose()));
        self
    }

    /// The grantee whose authorization lists the wallet as a delegate (`AUTHORIZER`).
    pub fn authorizer(mut self, authorizer: Address) -> Self {
        self.draft.settle(&["AUTHORIZER"]);
        self.draft.authorizer = Some(authorizer);
        self
    }

    /// The node's own list of devices (`DEVICE`): `"cpu".parse()`, `DeviceSpec::Cuda(Some(vec![0, 2]))`.
    pub fn devices(mut self, devices: DeviceSpec) -> Self {
        self.draft.settle(&["DEVICE"]);
        self.draft.device = devices;
        self
    }

    /// Data-parallel and tensor-parallel ranks, one device each (`DATA_PARALLELISM`, `TENSOR_PARALLELISM`).
    pub fn parallelism(mut self, dp: u16, tp: u16) -> Self {
        self.draft.set_mesh(dp, tp);
        self
    }

    /// Samples that one rank trains at a time (`MICRO_BATCH_SIZE`).
    pub fn micro_batch(mut self, samples: u32) -> Self {
        self.draft.set_micro_batch(samples);
        self
    }

    /// How devices compute (`PRECISION`, `ACTIVATION_CHECKPOINTING`, `SKIP_LOSS_SPIKES`).
    pub fn compute(mut self, compute: ComputeConfig) -> Self {
        self.draft.settle(&["PRECISION", "ACTIVATION_CHECKPOINTING", "SKIP_LOSS_SPIKES"]);
        self.draft.compute = compute;
        self
    }

    /// Where and how peers reach the node (`P2P_BIND`, `P2P_PORT`, `BOOTSTRAP_PEERS`, `P2P_RELAY`, `P2P_EXTERNAL`).
    pub fn p2p(mut self, p2p: P2pConfig) -> Self {
        self.draft.set_p2p(p2p);
        self
    }

    /// Seed of the key by which peers know the node (`RAW_IDENTITY_SECRET_KEY`); without one it follows from wallet and run.
    pub fn identity(mut self, seed: Secret<[u8; 32]>) -> Self {
        self.draft.settle(&["RAW_IDENTITY_SECRET_KEY", "IDENTITY_SECRET_KEY_PATH"]);
        self.draft.identity = Some(seed);
        self
    }

    /// Folder for blobs, snapshots and the event log (`DATA_DIR`), of this node alone.
    pub fn data_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.draft.data_dir = folder.into();
        self
    }

    /// Snapshots that stay on the disk (`SNAPSHOTS_KEPT`).
    pub fn snapshots_kept(mut self, snapshots: u32) -> Self {
        self.draft.set_snapshots_kept(snapshots);
        self
    }

    /// Folder for checkpoints (`CHECKPOINT_DIR`), and the repository owner/name that is filled from there
    /// (`CHECKPOINT_REPO`), where there is one.
    pub fn checkpoints(mut self, folder: impl Into<PathBuf>, repo: Option<&str>) -> Self {
        self.draft.set_checkpoints(folder.into(), repo);
        self
    }

    /// The training data, where it does not lie at the place that the run names (`DATA_PATH`).
    pub fn data_path(mut self, path: impl Into<PathBuf>) -> Self {
        self.draft.data_path = Some(path.into());
        self
    }

    /// Folder in which a checkpoint that the run names by a relative path is looked up (`MODELS_DIR`).
    pub fn models_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.draft.models_dir = folder.into();
        self
    }

    /// Where the node serves health, metrics and status by itself (`METRICS_BIND`). With [`MetricsBind::Off`] the host has
    /// them as data: [`Node::health`], [`Node::metrics`], [`Node::status`].
    pub fn telemetry(mut self, bind: MetricsBind) -> Self {
        self.draft.settle(&["METRICS_BIND"]);
        self.draft.metrics = bind;
        self
    }

    /// Where metrics are pushed (`OTEL_*`), if anywhere.
    pub fn otlp(mut self, otlp: Option<OtlpConfig>) -> Self {
        self.draft.settle_all(|variable| variable.starts_with("OTEL_"));
        self.draft.otlp = otlp;
        self
    }

    /// When rewards are claimed (`CLAIM_REWARDS`).
    pub fn claim(mut self, claim: ClaimPolicy) -> Self {
        self.draft.settle(&["CLAIM_REWARDS"]);
        self.draft.claim = claim;
        self
    }

    /// What transactions may cost (`PRIORITY_FEE_FLOOR_MICRO_LAMPORTS`, `PRIORITY_FEE_CAP_MICRO_LAMPORTS`).
    pub fn fees(mut self, fees: FeeBounds) -> Self {
        self.draft.set_fees(fees);
        self
    }

    /// The programs on chain (`COORDINATOR_PROGRAM_ID`, `AUTHORIZER_PROGRAM_ID`, `TREASURER_PROGRAM_ID`).
    pub fn programs(mut self, programs: ProgramIds) -> Self {
        self.draft.settle(&["COORDINATOR_PROGRAM_ID", "AUTHORIZER_PROGRAM_ID", "TREASURER_PROGRAM_ID"]);
        self.draft.programs = programs;
        self
    }

    /// Has the node's traffic with peers done by this runtime, of which the host keeps a thread free and which it keeps
    /// until the node has ended: without it the node ends with [`NodeError::RuntimeGone`]. Without a call of this, the node
    /// does everything on threads of its own. Actors and devices have threads of their own in any case.
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// The name under which the lines of the node's own threads appear in the host's log: they are in a span `node` with
    /// it. For hosts with several nodes; without one there is no span.
    pub fn log_name(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// Has the node say something else than it means to, to rehearse how others bear it: such a node harms its run.
    pub fn drill(mut self, drill: Drill) -> Self {
        self.drill = Some(drill);
        self
    }

    /// Checks everything that can be checked without asking anybody.
    ///
    /// # Errors
    /// [`ConfigError`] with every violation.
    pub fn build(self) -> Result<ReadyNode, ConfigError> {
        Ok(ReadyNode { config: self.draft.finish()?, runtime: self.runtime, name: self.name, drill: self.drill })
    }

    /// [`NodeBuilder::build`] and [`ReadyNode::start`].
    ///
    /// # Errors
    /// Those of both.
    pub async fn start(self) -> Result<Node, NodeError> {
        self.build()?.start().await
    }
}

impl ReadyNode {
    /// What it is configured to do.
    #[must_use]
    pub const fn config(&self) -> &NodeConfig {
        &self.config
    }

    /// Starts the node's threads, checks what can be checked, joins the network, and begins to follow the run. Needs no
    /// particular executor. Who drops the future calls the start off.
    ///
    /// # Errors
    /// [`NodeError`] for whatever keeps the node from ever taking part.
    pub async fn start(self) -> Result<Node, NodeError> {
        thread::launch(self).await
    }
}
