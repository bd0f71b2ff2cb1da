//! Following one account over every websocket at once.
//!
//! Each websocket subscribes to the account, and to slots as a heartbeat: one that is silent for too long is dropped and
//! connected anew. After every (re)connect, after the first heartbeat, and on a slow timer a read closes the gap; with every
//! websocket down the account is polled. What arrives is merged into one sequence that never goes backwards
//! ([`merge`](self)): ordered by nonce, then slot.
//!
//! The consumer's queue is bounded. When it is full, the oldest state that is no phase change is dropped; the newest state
//! and every phase change stay, so a slow consumer misses nothing that it must act on, and stops nobody.

mod merge;
mod queue;
mod reader;
mod socket;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use psyche_messages::{Address, Backoff, Slot};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use crate::error::ChainError;
use crate::rpc::{AccountRead, Rpc};
use merge::{Merger, Observation};
use queue::{Queue, Receiver};

/// Observations on their way to the merger. Sockets wait when it is full; the merger never waits for the consumer.
const OBSERVATIONS: usize = 32;

/// A decoded account that can be followed.
pub trait Watched: Clone + Send + Sync + 'static {
    /// Counts the account's changes: higher is newer.
    fn nonce(&self) -> u64;

    /// Whether the step from `previous` to `self` must not be skipped.
    fn is_phase_change(&self, previous: &Self) -> bool;

    /// Takes note that this state was seen at `slot`.
    fn at_slot(&mut self, slot: Slot);
}

/// When a watch reconnects, polls and reads.
#[derive(Clone, Copy, Debug)]
pub struct WatchConfig {
    /// Longest silence of a websocket, in real time, before it is dropped.
    pub silence: Duration,
    /// How long connecting and subscribing may take.
    pub connect_timeout: Duration,
    /// Pause between two reads while every websocket is down.
    pub poll: Duration,
    /// Pause between two reads while a websocket is up.
    pub refresh: Duration,
    /// States that wait for the consumer at most.
    pub queue: usize,
    /// Pauses between two attempts to connect.
    pub backoff: Backoff,
    /// How long a connection must have lived before the pauses start anew.
    pub proven_after: Duration,
}

const RECONNECT: Backoff = match Backoff::new(Duration::from_millis(250), Duration::from_secs(30), 200, 50) {
    Ok(backoff) => backoff,
    Err(_) => panic!("a constant schedule must be valid"),
};

impl Default for WatchConfig {
    fn default() -> Self {
        Self {
            silence: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(10),
            poll: Duration::from_millis(500),
            refresh: Duration::from_secs(15),
            queue: 64,
            backoff: RECONNECT,
            proven_after: Duration::from_secs(10),
        }
    }
}

/// What a watch reports.
#[derive(Debug)]
pub enum WatchEvent<T> {
    /// The account has another state.
    Changed(T),
    /// The account is missing or can't be decoded. Reported once, until it can be read again.
    Lost(ChainError),
}

/// A running watch. Dropping it ends it.
#[derive(Debug)]
pub struct Watch<T> {
    events: Receiver<T>,
    connected: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl<T: Watched> Watch<T> {
    /// The next event. Never ends by itself.
    pub async fn recv(&mut self) -> WatchEvent<T> {
        self.events.recv().await
    }

    /// How many websockets are subscribed at present.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.connected.load(Ordering::Relaxed)
    }

    /// How many states were dropped since the consumer was too slow.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.events.dropped()
    }
}

/// What the tasks of a watch share.
struct Shared {
    rpc: Rpc,
    address: Address,
    config: WatchConfig,
    connected: Arc<AtomicUsize>,
    read_wanted: Notify,
    delivered: AtomicUsize,
}

/// Follows `address` over all websockets of `rpc`'s endpoints. Must be called within a tokio runtime.
#[must_use]
pub fn watch_account<T, D>(rpc: &Rpc, address: Address, decode: D, config: WatchConfig) -> Watch<T>
where
    T: Watched,
    D: Fn(AccountRead) -> Result<T, ChainError> + Send + Sync + 'static,
{
    let connected = Arc::new(AtomicUsize::new(0));
    let shared = Arc::new(Shared {
        rpc: rpc.clone(),
        address,
        config,
        connected: Arc::clone(&connected),
        read_wanted: Notify::new(),
        delivered: AtomicUsize::new(0),
    });
    let (observed, observations) = mpsc::channel(OBSERVATIONS);
    let (queue, events) = queue::bounded(config.queue);
    let mut tasks = JoinSet::new();
    for pair in &rpc.config().endpoints {
        if let Some(ws) = &pair.ws {
            tasks.spawn(socket::run(Arc::clone(&shared), ws.clone(), observed.clone()));
        }
    }
    tasks.spawn(reader::run(Arc::clone(&shared), observed));
    tasks.spawn(merge_all(shared, observations, decode, queue));
    Watch { events, connected, _tasks: tasks }
}

async fn merge_all<T, D>(shared: Arc<Shared>, mut observations: mpsc::Receiver<Observation>, decode: D, queue: Queue<T>)
where
    T: Watched,
    D: Fn(AccountRead) -> Result<T, ChainError> + Send + Sync,
{
    let mut merger = Merger::default();
    while let Some(observation) = observations.recv().await {
        let account = match observation.account {
            Some(account) => account,
            None => {
                let missing = ChainError::AccountMissing { what: "watched account", address: shared.address };
                if merger.lose() {
                    queue.lose(missing);
                }
                continue;
            }
        };
        let (slot, digest) = (account.slot, merge::digest(&account));
        shared.rpc.note_slot(slot);
        match decode(account) {
            Ok(state) => {
                if let Some(state) = merger.offer(state, slot, digest, observation.read_after) {
                    shared.delivered.store(merger.delivered(), Ordering::Relaxed);
                    queue.push(state);
                }
            }
            // What a websocket sent may be cut or stale; only what a read gives is the account's true state.
            Err(_) if observation.read_after.is_none() => shared.read_wanted.notify_one(),
            Err(error) => {
                if merger.lose() {
                    queue.lose(error);
                }
            }
        }
    }
}
