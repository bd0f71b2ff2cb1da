//! Following one account over every websocket at once.
//!
//! Each websocket subscribes to the account, and to slots as a heartbeat: one that is silent for too long is dropped and
//! connected anew. After every (re)connect, after the first heartbeat, and on a slow timer a read closes the gap; with every
//! websocket down the account is polled. What arrives is merged into one sequence that never goes backwards
//! ([`merge`](self)): ordered by nonce, then slot. Where a state leaps ahead into another phase, what belongs before it has
//! a moment to arrive.
//!
//! The consumer's queue is bounded. When it is full, the oldest state that is no phase change is dropped; the newest state
//! and every phase change stay, so a slow consumer misses nothing that it must act on, and stops nobody.
//!
//! [`watch_run`] follows a run: its coordinator account, and the instance that names it.

mod merge;
mod order;
mod probe;
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
use tokio::time::{Instant, sleep_until};

use crate::error::ChainError;
use crate::rpc::{AccountRead, Rpc};
use merge::{Envelope, Merger, Observation, Seen, Verdict};
use order::Order;
pub use probe::{WebsocketFault, WebsocketProbe, probe_websocket};
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
    /// How long a state that leaps ahead into another phase waits for what belongs before it.
    pub hold: Duration,
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
            hold: Duration::from_millis(150),
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
    for (index, pair) in rpc.config().endpoints.iter().enumerate() {
        if let Some(ws) = &pair.ws {
            tasks.spawn(socket::run(Arc::clone(&shared), index, ws.clone(), observed.clone()));
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
    let mut desk = Desk { merger: Merger::default(), order: Order::new(shared.config.hold), shared, queue };
    loop {
        let waited = async {
            match desk.order.until() {
                Some(until) => sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            observation = observations.recv() => match observation {
                Some(observation) => desk.take_in(observation, &decode),
                None => return,
            },
            () = waited => desk.let_go(),
        }
    }
}

/// Where observations become one sequence.
struct Desk<T> {
    merger: Merger<T>,
    order: Order<(T, Seen)>,
    shared: Arc<Shared>,
    queue: Queue<T>,
}

impl<T: Watched> Desk<T> {
    fn take_in(&mut self, observation: Observation, decode: impl Fn(AccountRead) -> Result<T, ChainError>) {
        let (account, heartbeat, read) = match observation {
            Observation::Told { account, heartbeat } => (account, heartbeat, None),
            Observation::Read { slot, account: Some(account), after } => (account, slot, Some((slot, after))),
            Observation::Read { slot, account: None, after } => {
                if self.merger.lose(slot, after, true) {
                    self.queue.lose(ChainError::AccountMissing { what: "watched account", address: self.shared.address });
                }
                return;
            }
        };
        let (slot, print, envelope) = (account.slot, merge::fingerprint(&account), Envelope::of(&account));
        let seen = Seen { slot, print, envelope, heartbeat, read_after: read.map(|(_, after)| after) };
        if self.merger.repeats(&seen) {
            return self.let_go();
        }
        match (decode(account), read) {
            (Ok(state), _) => self.admit(state, seen),
            // What a websocket sent may be cut or stale; only what a read gives is the account's true state.
            (Err(_), None) => self.shared.read_wanted.notify_one(),
            (Err(error), Some((slot, after))) => {
                if self.merger.lose(slot, after, false) {
                    self.queue.lose(error);
                }
            }
        }
    }

    /// Passes a state on, or keeps it for a moment where a websocket may still tell what belongs before it.
    fn admit(&mut self, state: T, seen: Seen) {
        let told = self.shared.connected.load(Ordering::Relaxed) > 0;
        if told && self.merger.leaps(&state) {
            let Some((state, seen)) = self.order.keep(state.nonce(), (state, seen), Instant::now()) else { return };
            self.offer(state, seen);
        } else {
            self.offer(state, seen);
        }
        self.let_go();
    }

    fn let_go(&mut self) {
        let now = Instant::now();
        while let Some((state, seen)) = self.order.next(|(state, _)| self.merger.leaps(state), now) {
            self.offer(state, seen);
        }
    }

    fn offer(&mut self, state: T, seen: Seen) {
        match self.merger.offer(state, seen) {
            Verdict::News(state, kind) => {
                self.shared.delivered.store(self.merger.delivered(), Ordering::Relaxed);
                self.shared.rpc.note_slot(seen.slot);
                self.queue.push(state, kind);
            }
            Verdict::Known => {}
            Verdict::Doubtful => self.shared.read_wanted.notify_one(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use psyche_messages::Lamports;

    use super::*;
    use crate::transaction::tests::fake::{Chain, Manner};

    /// The first byte counts the changes.
    #[derive(Clone)]
    struct Counted(u8);

    impl Watched for Counted {
        fn nonce(&self) -> u64 {
            self.0.into()
        }

        fn is_phase_change(&self, _previous: &Self) -> bool {
            false
        }

        fn at_slot(&mut self, _slot: Slot) {}
    }

    #[tokio::test]
    async fn what_every_further_websocket_brings_once_more_is_not_decoded_again() {
        let (_chain, rpc) = Chain::new(vec![Manner::default()]);
        let config = WatchConfig::default();
        let (connected, delivered) = (Arc::default(), AtomicUsize::new(0));
        let address = Address([1; 32]);
        let shared = Arc::new(Shared { rpc, address, config, connected, read_wanted: Notify::new(), delivered });
        let (queue, _events) = queue::bounded(4, 4);
        let mut desk = Desk { merger: Merger::default(), order: Order::new(config.hold), shared, queue };
        let decoded = Cell::new(0);
        let mut take_in = |nonce: u8, slot: u64, lamports: u64| {
            let (slot, owner) = (Slot(slot), Address([2; 32]));
            let account = AccountRead { slot, lamports: Lamports(lamports), owner, executable: false, data: vec![nonce] };
            desk.take_in(Observation::Told { account, heartbeat: slot }, |account| {
                decoded.set(decoded.get() + 1);
                Ok(Counted(account.data[0]))
            });
        };
        for (nonce, slot, lamports) in [(1, 10, 5), (1, 10, 5), (1, 11, 5), (2, 12, 5), (2, 12, 5), (2, 13, 6), (2, 13, 6)] {
            take_in(nonce, slot, lamports);
        }
        assert_eq!(decoded.get(), 3);
        assert_eq!(desk.merger.delivered(), 2);
    }
}
