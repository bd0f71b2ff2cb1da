//! [`Node`]: a node at work, as its host holds it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use actix::{Addr, System};
use psyche_messages::{Address, PeerKey, Points, RunId};
use serde::Serialize;
use tokio::sync::{oneshot, watch};

use super::{Actors, NodeError};
use crate::event_log::{EventLog, Events};
use crate::rewards::ClaimRewards;
use crate::run::RunActor;
use crate::telemetry::{NodeReport, Readiness, ServiceManager, Sheet, Sources};

/// How a node ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The run is over for this node.
    Finished {
        /// Why, in words.
        reason: String,
    },
    /// Its host stopped it.
    Stopped {
        /// The reason that was given.
        reason: String,
    },
    /// It could not go on.
    Failed(Arc<NodeError>),
}

/// How a node fares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Health {
    /// Whether its actors answer.
    pub live: bool,
    /// Why not, in words.
    pub problem: Option<String>,
    /// Whether it does its part in the run, and why not.
    pub readiness: Readiness,
}

/// A node at work: everything that its host can ask of it. All functions are of any executor, and of any thread.
///
/// [`Node::stop`] ends it properly and waits. A handle that is dropped asks for the same and does not wait: the node
/// finishes its micro-batch, leaves and saves on its own threads, for as long as the process lives.
#[must_use = "a node whose handle is dropped stops"]
pub struct Node {
    pub(super) run_id: RunId,
    pub(super) address: Address,
    pub(super) peer: PeerKey,
    pub(super) events: EventLog,
    pub(super) actors: Actors,
    pub(super) sources: Sources,
    pub(super) http: Option<SocketAddr>,
    pub(super) system: System,
    pub(super) control: Control,
}

/// The host's half of what it and the node's thread say to each other.
pub(super) struct Control {
    /// Asks for a stop, with a reason; so does the end of the sender.
    pub(super) stop: watch::Sender<Option<String>>,
    pub(super) outcome: watch::Receiver<Option<Outcome>>,
    /// Whether there are no more events.
    pub(super) silent: watch::Receiver<bool>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("run_id", &self.run_id).field("address", &self.address).finish_non_exhaustive()
    }
}

impl Node {
    /// The run.
    #[must_use]
    pub const fn run_id(&self) -> &RunId {
        &self.run_id
    }

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

    /// Multiaddresses at which peers reach the node, with its peer id: what others name as bootstrap peers.
    #[must_use]
    pub fn listening(&self) -> Vec<String> {
        self.sources.net.presence().listening
    }

    /// The node's events from now on.
    #[must_use]
    pub fn events(&self) -> Events {
        Events::new(self.events.subscribe(), self.control.silent.clone())
    }

    /// The addresses of the node's actors, which take its commands.
    #[must_use]
    pub const fn actors(&self) -> &Actors {
        &self.actors
    }

    /// The address of the run's actor that runs now.
    #[must_use]
    pub fn run_addr(&self) -> Addr<RunActor> {
        self.actors.run.addr()
    }

    /// Where the node itself serves health, metrics and status, if it does.
    #[must_use]
    pub const fn http(&self) -> Option<SocketAddr> {
        self.http
    }

    /// What the node says of itself now; `/status` serves the same.
    #[must_use]
    pub fn status(&self) -> NodeReport {
        self.sources.report()
    }

    /// What `/metrics` serves, for hosts that export metrics themselves: [`Sheet::text`] is Prometheus' form.
    #[must_use]
    pub fn metrics(&self) -> Sheet {
        self.sources.sheet()
    }

    /// Whether the node lives and is ready, with reasons; `/livez` and `/readyz` serve the same.
    pub async fn health(&self) -> Health {
        let (answer, answered) = oneshot::channel();
        let sources = self.sources.clone();
        // On the node's thread, which has a clock.
        self.system.arbiter().spawn(async move {
            // Nobody waits any more, which is the asker's affair.
            let _asker = answer.send(sources.live().await);
        });
        let problem = match answered.await {
            Ok(live) => live.err(),
            Err(_ended) => Some("the node has ended".to_owned()),
        };
        Health { live: problem.is_none(), problem, readiness: self.sources.readiness() }
    }

    /// Tells `manager` how the node fares, for as long as the returned future is polled, by a tokio runtime.
    pub fn tell(&self, manager: Arc<ServiceManager>) -> impl Future<Output = Infallible> + Send + use<> {
        let sources = self.sources.clone();
        async move { manager.follow(&sources).await }
    }

    /// Claims what the wallet can claim now.
    ///
    /// # Errors
    /// [`NodeError`] if the claim failed.
    pub async fn claim_rewards(&self) -> Result<Points, NodeError> {
        match self.actors.rewards.ask(ClaimRewards).await {
            Ok(claimed) => Ok(claimed?),
            Err(_died) => Err(NodeError::Gone),
        }
    }

    /// Waits until the node has ended by itself, or was stopped, and all of its threads with it. Safe to cancel, and as
    /// often as one likes.
    pub async fn wait(&self) -> Outcome {
        let mut outcome = self.control.outcome.clone();
        let ended = outcome.wait_for(Option::is_some).await.map(|outcome| outcome.clone());
        ended.ok().flatten().unwrap_or_else(|| Outcome::Failed(Arc::new(NodeError::Gone)))
    }

    /// Has the node finish its micro-batch, leave its peers and finish the snapshot that it writes, and waits until it has
    /// ended. The first reason counts; so does an end that came before it.
    pub async fn stop(&self, reason: &str) -> Outcome {
        self.control.stop.send_if_modified(|asked| {
            let is_first = asked.is_none();
            asked.get_or_insert_with(|| reason.to_owned());
            is_first
        });
        self.wait().await
    }
}
