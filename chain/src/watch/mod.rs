//! Following one account over every websocket at once.
//!
//! Each websocket subscribes to the account, and to slots as a heartbeat: one that is silent for too long is dropped and
//! connected anew. After every (re)connect, after the first heartbeat, and on a slow timer a read closes the gap; with every
//! websocket down the account is polled. What arrives is merged into one sequence that never goes backwards
//! ([`merge`](self)): ordered by nonce, then slot.
//!
//! The consumer's queue is bounded. When it is full, the oldest state that is no phase change is dropped; the newest state
//! and every phase change stay, so a slow consumer misses nothing that it must act on, and stops nobody.
//!
//! [`watch_run`] follows a run: its coordinator account, and the instance that names it.

mod merge;
mod queue;
mod reader;
mod run;
mod socket;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use psyche_messages::{Address, Backoff, Slot};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use crate::error::ChainError;
use crate::rpc::{AccountRead, Rpc};
use merge::{Merger, Observation, Seen, Verdict};
use queue::{Queue, Receiver};
pub use run::{RunEvent, RunWatch, watch_run};

/// Observations on their way to the merger. A websocket that finds no room asks for a read instead, so it never makes its
/// server wait; the merger never waits for the consumer.
const OBSERVATIONS: usize = 128;

/// A decoded account that can be followed.
pub trait Watched: Clone + Send + Sync + 'static {
    /// Counts the account's changes: higher is newer.
    fn nonce(&self) -> u64;

    /// Whether the step from `previous` to `self` must not be skipped.
    fn is_phase_change(&self, previous: &Self) -> bool;

    /// Takes note that this state was seen at `slot`.
    fn at_slot(&mut self, slot: Slot);
}

/// When a watch reconnects, polls and reads. All durations are of real time.
#[derive(Clone, Copy, Debug)]
pub struct WatchConfig {
    /// Longest silence of a websocket before it is dropped.
    pub silence: Duration,
    /// How long connecting and subscribing may take.
    pub connect_timeout: Duration,
    /// Pause between two reads while every websocket is down.
    pub poll: Duration,
    /// Pause between two reads while a websocket is up.
    pub refresh: Duration,
    /// Least pause between a read and the next one that websockets ask for.
    pub read_gap: Duration,
    /// How long a read may take before another is begun beside it.
    pub read_patience: Duration,
    /// States that are no phase change and wait for the consumer at most.
    pub queue: usize,
    /// Phase changes that wait for the consumer at most: minutes of the fastest run.
    pub queue_changes: usize,
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
            refresh: Duration::from_secs(10),
            read_gap: Duration::from_millis(100),
            read_patience: Duration::from_secs(2),
            queue: 16,
            queue_changes: 1_024,
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
    /// The account's counter went back: it was closed and created anew, and nothing that was known of it holds.
    Anew(T),
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
    /// The next event. Never ends by itself. Safe to cancel.
    pub async fn recv(&mut self) -> WatchEvent<T> {
        self.events.recv().await
    }

    /// How many websockets are subscribed at present.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.connected.load(Ordering::Relaxed)
    }

    /// How many states that are no phase change were dropped since the consumer was too slow for them.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.events.skipped()
    }

    /// How many phase changes were dropped since more of them than [`WatchConfig::queue_changes`] waited.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.events.missed()
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
    let (queue, events) = queue::bounded(config.queue, config.queue_changes);
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
        let (account, heartbeat, read) = match observation {
            Observation::Told { account, heartbeat } => (account, heartbeat, None),
            Observation::Read { slot, account: Some(account), after } => (account, slot, Some((slot, after))),
            Observation::Read { slot, account: None, after } => {
                if merger.lose(slot, after) {
                    queue.lose(ChainError::AccountMissing { what: "watched account", address: shared.address });
                }
                continue;
            }
        };
        let (slot, print) = (account.slot, merge::fingerprint(&account));
        let seen = Seen { slot, print, heartbeat, read_after: read.map(|(_, after)| after) };
        match decode(account).map(|state| merger.offer(state, seen)) {
            Ok(Verdict::News(state, kind)) => {
                shared.delivered.store(merger.delivered(), Ordering::Relaxed);
                shared.rpc.note_slot(slot);
                queue.push(state, kind);
            }
            Ok(Verdict::Known) => {}
            Ok(Verdict::Doubtful) => shared.read_wanted.notify_one(),
            // What a websocket sent may be cut or stale; only what a read gives is the account's true state.
            Err(error) => match read {
                None => shared.read_wanted.notify_one(),
                Some((slot, after)) if merger.lose(slot, after) => queue.lose(error),
                Some(_) => {}
            },
        }
    }
}
