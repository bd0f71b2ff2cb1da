//! A whole node: [`NodeBuilder`] turns a configuration into running actors on threads of their own, so that any service can
//! embed one, whatever runtime it uses; [`Node`] is the host's handle.

mod builder;
pub mod checks;
mod drill;
mod handle;
mod name;
mod start;
mod thread;
mod wallets;

use std::sync::Arc;

pub use builder::{NodeBuilder, ReadyNode};
pub use drill::Drill;
pub use handle::{Health, Node, Outcome};
pub use start::{net_config, peer_seed, plan_of};

use psyche_chain::ChainError;
use psyche_messages::{Address, RunId};
use thiserror::Error;

use crate::config::ConfigError;
use crate::rewards::RewardsActor;
use crate::rpc::RpcSupervisor;
use crate::run::{PlanError, RunActor};
use crate::supervisor::{GaveUp, Supervised, Vitals};
use crate::trainer::TrainerWorker;
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
    #[error("pay for transactions: {wallet} holds {balance} lamports; send it some SOL (about 0.1 lasts for days)")]
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
    /// Another node of this process takes part in the run with the same wallet.
    #[error("join the run {run_id} as {wallet}: another node of this process does so already; give each node its own wallet")]
    WalletInUse {
        /// The wallet.
        wallet: Address,
        /// The run.
        run_id: RunId,
    },
    /// The host's runtime ended while the node was at work on it.
    #[error("reach the peers: the runtime that the host gave the node has ended; stop the node before its runtime")]
    RuntimeGone,
    /// The system has no thread to give.
    #[error("start a thread")]
    Thread(#[source] std::io::Error),
    /// The node's thread ended unasked.
    #[error("run the node: its thread ended")]
    Gone,
}

/// How a node's work ends, as its actors tell it.
#[derive(Debug)]
pub enum End {
    /// The run is over for this node: why, in words.
    Finished(String),
    /// The node can't go on.
    Failed(NodeError),
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
    /// The devices, by rank. Commands to them are collective: all of them get the same one, or none does.
    pub trainers: Arc<[Supervised<TrainerWorker>]>,
    pub(crate) vitals: Arc<[Arc<Vitals>]>,
}
