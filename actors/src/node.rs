//! A whole node: [`NodeBuilder`] turns a configuration into running actors on threads of their own, so that any service can
//! embed one, whatever runtime it uses.

pub mod checks;
mod start;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

pub use start::{net_config, peer_seed};

use actix::{Addr, System};
use psyche_chain::ChainError;
use psyche_messages::{Address, NodeEvent, PeerKey, RunId};
use psyche_net::NetHandle;
use thiserror::Error;
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::config::{ConfigError, NodeConfig};
use crate::event_log::EventLog;
use crate::rewards::{ClaimRewards, RewardsActor};
use crate::rpc::RpcSupervisor;
use crate::run::{DeviceQueue, PlanError, RunActor};
use crate::supervisor::{GaveUp, Supervised, Vitals};
use crate::telemetry::{self, Sources};
use crate::watcher::CoordinatorWatcher;

/// Why a node does not start, or stops.
#[derive(Debug, Error)]
pub enum NodeError {
    /// The chain can't be read.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The configuration can't work, as only the chain could tell.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The run does not exist.
    #[error("find the run {run_id}: no run of this name exists under the coordinator program {program}")]
    NoRun {
        /// Its name.
        run_id: RunId,
        /// The program that was asked.
        program: Address,
    },
    /// The run wants another version of the client.
    #[error("take part in the run: it wants client version {wanted:?}, this is {ours:?}")]
    OtherVersion {
        /// What the run wants.
        wanted: String,
        /// What this is.
        ours: &'static str,
    },
    /// The wallet may not join.
    #[error(
        "join the run as {wallet}: no authorization lets it in; ask the run's join authority {join_authority} for one, and set \
         AUTHORIZER where it was granted to another address that delegated to this wallet"
    )]
    NotAuthorized {
        /// The wallet.
        wallet: Address,
        /// Who can let it in.
        join_authority: Address,
    },
    /// The wallet can't pay for transactions.
    #[error("pay for transactions: {wallet} holds {balance} lamports; send it some SOL (about 0.01 lasts for days)")]
    NoFunds {
        /// The wallet.
        wallet: Address,
        /// What it holds.
        balance: u64,
    },
    /// The run can't be trained here.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The training data can't be used.
    #[error("use the training data")]
    Data(#[from] psyche_data::DataError),
    /// The devices can't be used.
    #[error("use the devices")]
    Devices(#[from] psyche_gpu::GpuError),
    /// The model can't be split over the devices, or does not fit into them.
    #[error("use the devices")]
    Model(#[source] psyche_gpu::GpuError),
    /// The folder of snapshots can't be used.
    #[error(transparent)]
    Snapshots(#[from] psyche_gpu::snapshot::SnapshotError),
    /// The update log on disk can't be used.
    #[error(transparent)]
    Updates(#[from] crate::run::UpdatesError),
    /// The network can't be started.
    #[error("start the network")]
    Net(#[from] psyche_net::NetError),
    /// The data folder can't be used.
    #[error("use the data folder {path}")]
    Folder {
        /// The folder.
        path: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The address of health and metrics can't be used.
    #[error("serve health and metrics: METRICS_BIND can't be used; set it to a free address of this machine, or to off")]
    Metrics(#[source] std::io::Error),
    /// Another node uses the data folder.
    #[error("use the data folder {path}: another node uses it; give each node its own DATA_DIR")]
    FolderInUse {
        /// The folder.
        path: String,
    },
    /// The run was closed and created anew while the node took part in it. A node that is started now may join it.
    #[error("go on with the run: it was closed and created anew")]
    RunReplaced,
    /// An actor died too often.
    #[error(transparent)]
    GaveUp(#[from] GaveUp),
    /// The node's thread ended unasked.
    #[error("run the node: its thread ended")]
    Gone,
}

/// Starts nodes.
#[derive(Clone, Debug)]
pub struct NodeBuilder {
    config: NodeConfig,
}

/// How a node's work ended.
#[derive(Debug)]
pub enum End {
    /// The run is over for this node: why, in words.
    Finished(String),
    /// The node can't go on.
    Failed(NodeError),
}

/// A node at work. Dropping it stops the node without ceremony; [`RunningNode::stop`] does it properly.
pub struct RunningNode {
    address: Address,
    peer: PeerKey,
    events: EventLog,
    actors: Actors,
    sources: Sources,
    http: Option<SocketAddr>,
    finished: mpsc::Receiver<End>,
    fatal: mpsc::Receiver<GaveUp>,
    system: System,
    thread: Option<JoinHandle<()>>,
    /// Keeps other nodes out of the data folder.
    _lock: std::fs::File,
}

/// The addresses of a node's actors, for embedding services.
#[derive(Clone)]
pub struct Actors {
    /// The run.
    pub run: Supervised<RunActor>,
    /// The rewards.
    pub rewards: Supervised<RewardsActor>,
    /// The endpoints.
    pub rpc: Supervised<RpcSupervisor>,
    /// The run's account.
    pub watcher: Supervised<CoordinatorWatcher>,
    pub(crate) net: NetHandle,
    pub(crate) devices: DeviceQueue,
    pub(crate) vitals: Arc<[Arc<Vitals>]>,
}

impl NodeBuilder {
    /// A builder of nodes with this configuration.
    #[must_use]
    pub const fn new(config: NodeConfig) -> Self {
        Self { config }
    }

    /// Checks what can be checked, joins the network, and starts to follow the run.
    ///
    /// # Errors
    /// [`NodeError`] for whatever keeps the node from ever taking part.
    pub async fn start(self) -> Result<RunningNode, NodeError> {
        let (started, outcome) = oneshot::channel();
        let thread = std::thread::Builder::new().name("node".into()).spawn(move || {
            let system = System::new();
            let handle = System::current();
            let runs = system.block_on(async move {
                let outcome = start::start(self.config).await;
                let up = outcome.is_ok();
                // Nobody takes the outcome if the starter was dropped; then nobody wants the node either.
                started.send(outcome.map(|parts| (parts, handle))).is_ok() && up
            });
            if runs && let Err(error) = system.run() {
                tracing::error!(actor = "node", %error, "the node's thread failed");
            }
        });
        let thread = thread.map_err(|source| NodeError::Folder { path: "(thread)".into(), source })?;
        let (parts, system) = outcome.await.map_err(|_| NodeError::Gone)??;
        let start::Parts { address, peer, events, actors, sources, http, finished, fatal, lock } = parts;
        Ok(RunningNode {
            address,
            peer,
            events,
            actors,
            sources,
            http,
            finished,
            fatal,
            system,
            thread: Some(thread),
            _lock: lock,
        })
    }
}

impl RunningNode {
    /// The wallet's address.
    #[must_use]
    pub const fn address(&self) -> Address {
        self.address
    }

    /// The node's peer key.
    #[must_use]
    pub const fn peer(&self) -> PeerKey {
        self.peer
    }

    /// The node's events from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<NodeEvent> {
        self.events.subscribe()
    }

    /// The node's actors.
    #[must_use]
    pub const fn actors(&self) -> &Actors {
        &self.actors
    }

    /// Where health, metrics and status are served, if they are.
    #[must_use]
    pub const fn http(&self) -> Option<SocketAddr> {
        self.http
    }

    /// What the node says of itself now; `/status` serves the same.
    #[must_use]
    pub fn report(&self) -> telemetry::NodeReport {
        self.sources.report()
    }

    /// What `/metrics` serves, for services that export metrics themselves.
    #[must_use]
    pub fn metrics(&self) -> telemetry::Sheet {
        self.sources.sheet()
    }

    /// Tells `manager` how the node fares, for as long as the returned future is polled.
    pub fn tell(&self, manager: Arc<telemetry::ServiceManager>) -> impl Future<Output = Infallible> + Send + use<> {
        let sources = self.sources.clone();
        async move { manager.follow(&sources).await }
    }

    /// The address of the run's actor that runs now.
    #[must_use]
    pub fn run_addr(&self) -> Addr<RunActor> {
        self.actors.run.addr()
    }

    /// Waits until the run is over for this node, or it can't go on. Safe to cancel.
    pub async fn wait(&mut self) -> End {
        tokio::select! {
            end = self.finished.recv() => end.unwrap_or(End::Failed(NodeError::Gone)),
            gave_up = self.fatal.recv() => End::Failed(gave_up.map_or(NodeError::Gone, NodeError::GaveUp)),
        }
    }

    /// Claims what the wallet can claim now.
    ///
    /// # Errors
    /// [`NodeError`] if the claim failed.
    pub async fn claim_rewards(&self) -> Result<psyche_messages::Points, NodeError> {
        match self.actors.rewards.ask(ClaimRewards).await {
            Ok(claimed) => Ok(claimed?),
            Err(_died) => Err(NodeError::Gone),
        }
    }

    /// Finishes the micro-batch, leaves the network and stops.
    pub async fn stop(mut self, reason: &str) {
        self.actors.devices.cancel_any();
        self.actors.net.shutdown().await;
        self.events.report(NodeEvent::Stopped { reason: reason.to_owned() });
        self.system.stop();
        if let Some(thread) = self.thread.take() {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                tracing::error!(actor = "node", "the node's thread panicked");
            }
        }
    }
}

impl Drop for RunningNode {
    fn drop(&mut self) {
        self.system.stop();
    }
}
