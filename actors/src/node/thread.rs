//! A node's own thread: it starts the node, waits for its end, and takes everything down again.
//!
//! The actors live in an actix system of their own on this thread and on threads that it starts, so that a host may have
//! any runtime, or none. Nothing of a node outlives this thread: it joins all others, and only then gives back the data
//! folder and the wallet and tells the outcome.

use std::fs::File;
use std::future::pending;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::{Arbiter, ArbiterHandle, System};
use psyche_messages::NodeEvent;
use psyche_net::{EventReceiver, Net, NetConfig, NetError, NetHandle};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::Span;

use super::builder::ReadyNode;
use super::handle::{Control, Node, Outcome};
use super::wallets::Claim;
use super::{End, NodeError, name, start};
use crate::event_log::EventLog;
use crate::run::DeviceQueue;
use crate::supervisor::GaveUp;

/// How long a node may take to save and to leave its peers. Who sends SIGTERM gives it 20 s in all.
const LEAVE_WITHIN: Duration = Duration::from_secs(12);

/// The threads of a node's actors.
pub(super) struct Threads {
    arbiters: Mutex<Vec<Arbiter>>,
    /// What every one of them is in.
    span: Span,
}

impl Threads {
    /// One more. It ends with the node's system.
    pub(super) fn arbiter(&self) -> Result<ArbiterHandle, NodeError> {
        let arbiter = Arbiter::try_new().map_err(NodeError::Thread)?;
        let (handle, span) = (arbiter.handle(), self.span.clone());
        handle.spawn_fn(move || name::enter(&span));
        self.arbiters.lock().unwrap_or_else(PoisonError::into_inner).push(arbiter);
        Ok(handle)
    }

    /// The last thing that they are to do before they are stopped.
    fn finish(&self) {
        for arbiter in self.arbiters.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            arbiter.spawn_fn(name::leave);
        }
    }

    /// Waits for the end of all of them.
    fn join(self) {
        for arbiter in self.arbiters.into_inner().unwrap_or_else(PoisonError::into_inner) {
            if arbiter.join().is_err() {
                tracing::error!(actor = "node", "a thread of the node panicked");
            }
        }
    }
}

/// What the node's thread watches over.
pub(super) struct Keep {
    pub(super) finished: mpsc::Receiver<End>,
    pub(super) fatal: mpsc::Receiver<GaveUp>,
    pub(super) devices: DeviceQueue,
    pub(super) net: NetHandle,
    pub(super) events: EventLog,
    pub(super) lock: File,
}

/// The runtime that does the network's work.
pub(super) struct NetRuntime {
    handle: Option<Handle>,
    gone: Option<oneshot::Receiver<()>>,
}

impl NetRuntime {
    fn new(handle: Option<Handle>) -> Self {
        let gone = handle.as_ref().map(|handle| {
            let (alive, gone) = oneshot::channel::<()>();
            // Dropped with the runtime, or as soon as nobody listens.
            drop(handle.spawn(async move {
                let mut alive = alive;
                alive.closed().await;
            }));
            gone
        });
        Self { handle, gone }
    }

    /// Starts the network there.
    pub(super) async fn start(&self, config: NetConfig) -> Result<(NetHandle, EventReceiver), NodeError> {
        let started = match &self.handle {
            None => Net::start(config).await,
            Some(handle) => handle.spawn(Net::start(config)).await.map_err(|_ended| NodeError::RuntimeGone)?,
        };
        started.map_err(|error| match error {
            NetError::Closed if self.handle.is_some() => NodeError::RuntimeGone,
            error => error.into(),
        })
    }

    /// Returns when the runtime ends.
    async fn ended(self) {
        match self.gone {
            Some(gone) => drop(gone.await),
            None => pending().await,
        }
    }
}

/// The node's half of what it and its host say to each other.
struct Line {
    stop: watch::Receiver<Option<String>>,
    outcome: watch::Sender<Option<Outcome>>,
    silent: watch::Sender<bool>,
}

type Started = oneshot::Sender<Result<(start::Shared, System), NodeError>>;

/// Starts a node on a thread of its own.
pub(super) async fn launch(ready: ReadyNode) -> Result<Node, NodeError> {
    let ((stop, asked), (outcome, ended), (silent, silence)) =
        (watch::channel(None), watch::channel(None), watch::channel(false));
    let (started, answer) = oneshot::channel();
    let line = Line { stop: asked, outcome, silent };
    let thread = std::thread::Builder::new().name("node".into()).spawn(move || live(ready, started, line));
    // The thread is not joined here: it tells its outcome as the last thing it does.
    drop(thread.map_err(NodeError::Thread)?);
    let (shared, system) = answer.await.map_err(|_panicked| NodeError::Gone)??;
    let start::Shared { run_id, address, peer, events, actors, sources, http } = shared;
    let control = Control { stop, outcome: ended, silent: silence };
    Ok(Node { run_id, address, peer, events, actors, sources, http, system, control })
}

/// The whole life of a node.
fn live(ready: ReadyNode, started: Started, line: Line) {
    let claim = match Claim::of(&ready.config) {
        Ok(claim) => claim,
        // Whoever called the start off does not want to know.
        Err(error) => return drop(started.send(Err(error))),
    };
    let span = name::span(ready.name.as_deref());
    name::enter(&span);
    let (system, threads) = (System::new(), Threads { arbiters: Mutex::default(), span });
    let Line { stop, outcome, silent } = line;
    let ended = system.block_on(begin_and_attend(ready, &threads, started, stop));
    threads.finish();
    System::current().stop();
    if let Err(error) = system.run() {
        tracing::error!(actor = "node", %error, "the node's system did not stop as it should");
    }
    threads.join();
    name::leave();
    silent.send_replace(true);
    match ended {
        Life::Ended(ended, lock) => {
            drop((lock, claim));
            outcome.send_replace(Some(ended));
        }
        Life::NeverBegan(error, started) => {
            drop(claim);
            drop(started.send(Err(error)));
        }
    }
}

/// What became of a node.
enum Life {
    /// It was at work; the lock is that of its data folder.
    Ended(Outcome, File),
    /// It did not start: why, and who is to be told.
    NeverBegan(NodeError, Started),
}

/// The node's work, from its start to its end.
async fn begin_and_attend(
    ready: ReadyNode,
    threads: &Threads,
    mut started: Started,
    stop: watch::Receiver<Option<String>>,
) -> Life {
    let net = NetRuntime::new(ready.runtime);
    let begun = tokio::select! {
        begun = start::start(ready.config, ready.drill, threads, &net) => begun,
        () = started.closed() => Err(NodeError::Gone),
    };
    let (shared, keep) = match begun {
        Ok(begun) => begun,
        Err(error) => return Life::NeverBegan(error, started),
    };
    // Who called the start off has dropped the other end of `stop` as well.
    drop(started.send(Ok((shared, System::current()))));
    attend(keep, net, stop).await
}

/// Waits for a reason to end, and leaves.
async fn attend(keep: Keep, net: NetRuntime, mut stop: watch::Receiver<Option<String>>) -> Life {
    let Keep { mut finished, mut fatal, devices, net: peers, events, lock } = keep;
    let failed = |error| Outcome::Failed(Arc::new(error));
    let outcome = tokio::select! {
        asked = stop.wait_for(Option::is_some) => {
            let reason = asked.ok().and_then(|asked| asked.clone()).unwrap_or_else(|| "its handle was dropped".to_owned());
            Outcome::Stopped { reason }
        }
        end = finished.recv() => match end {
            Some(End::Finished(reason)) => Outcome::Finished { reason },
            Some(End::Failed(error)) => failed(error),
            None => failed(NodeError::Gone),
        },
        gave_up = fatal.recv() => failed(gave_up.map_or(NodeError::Gone, NodeError::GaveUp)),
        () = net.ended() => failed(NodeError::RuntimeGone),
    };
    let reason = match &outcome {
        Outcome::Finished { reason } | Outcome::Stopped { reason } => reason.clone(),
        Outcome::Failed(error) => crate::chain_of(error.as_ref()),
    };
    let leave = async {
        devices.settle().await;
        peers.shutdown().await;
    };
    if tokio::time::timeout(LEAVE_WITHIN, leave).await.is_err() {
        tracing::warn!(actor = "node", "the node took too long to save and to leave: what it saves is as old as its last step");
    }
    events.report(NodeEvent::Stopped { reason });
    Life::Ended(outcome, lock)
}
