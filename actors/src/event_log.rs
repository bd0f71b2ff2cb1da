//! Writes what the node reports to `events.jsonl`, one JSON object a line, and hands it to whoever listens. A full file
//! begins anew; [`Replay`] reads all of them.

mod replay;
mod rotating;
mod stream;
#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use psyche_chain::about;
use psyche_messages::NodeEvent;
use psyche_messages::events::{EVENT_LOG_VERSION, LoggedEvent};
use tokio::sync::broadcast;

pub use replay::{EVENT_LOG_FILE, Replay};
pub use rotating::{Bounds, RotatingFile as LineFile, numbered};
pub use stream::{Events, Heard};

use crate::telemetry::Tally;

/// Events that a slow listener may lag behind before it misses some; it is told how many.
const LISTENER_LAG_MAX: usize = 1024;

/// The node's reporter. Cheap to clone.
#[derive(Clone)]
pub struct EventLog {
    inner: Arc<Inner>,
}

struct Inner {
    file: Option<Mutex<LineFile>>,
    tally: Arc<Tally>,
    listeners: broadcast::Sender<NodeEvent>,
    /// Whether the node has said that it stops, after which nothing is heard of it any more. Held while an event is told.
    stopped: RwLock<bool>,
}

impl EventLog {
    /// Appends to the file at `path`, if one is given.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(path: Option<&Path>) -> io::Result<Self> {
        Self::open_within(path, Bounds::default())
    }

    /// As [`EventLog::open`], with files of other sizes.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open_within(path: Option<&Path>, bounds: Bounds) -> io::Result<Self> {
        let file = path.map(|path| LineFile::open_within(path, bounds)).transpose()?.map(Mutex::new);
        let (listeners, _) = broadcast::channel(LISTENER_LAG_MAX);
        Ok(Self { inner: Arc::new(Inner { file, tally: Arc::default(), listeners, stopped: RwLock::new(false) }) })
    }

    /// What the events add up to.
    #[must_use]
    pub fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.inner.tally)
    }

    /// A stream of the events from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<NodeEvent> {
        self.inner.listeners.subscribe()
    }

    /// Records `event`; that the node stops is the last one, whatever its actors still do. A full disk is logged and
    /// otherwise ignored: training is worth more than its log.
    pub fn report(&self, event: NodeEvent) {
        if matches!(event, NodeEvent::Stopped { .. }) {
            let mut stopped = self.inner.stopped.write().unwrap_or_else(PoisonError::into_inner);
            if !std::mem::replace(&mut *stopped, true) {
                self.record(event);
            }
        } else {
            let stopped = self.inner.stopped.read().unwrap_or_else(PoisonError::into_inner);
            if !*stopped {
                self.record(event);
            }
        }
    }

    fn record(&self, event: NodeEvent) {
        let logged = LoggedEvent { v: EVENT_LOG_VERSION, unix_ms: unix_ms(), event: event.clone() };
        if let Some(file) = &self.inner.file
            && let Err(error) = append(&mut file.lock().unwrap_or_else(PoisonError::into_inner), &logged)
        {
            tracing::warn!(actor = "event_log", %error, "could not write to the event log");
        }
        self.inner.tally.note(logged, Instant::now());
        tell(&event);
        // An error only says that nobody listens.
        let _listeners = self.inner.listeners.send(event);
    }
}

/// What an operator reads in the logs: the same events, with their data in fields.
fn tell(event: &NodeEvent) {
    match event {
        NodeEvent::PhaseChanged { epoch, step, phase, slot, clients, total_steps, .. } => {
            tracing::info!(%epoch, %step, total_steps, %slot, clients, "the run is in {phase}");
        }
        NodeEvent::Joined { epoch, epoch_left_s: None } => tracing::info!(%epoch, "joined the next epoch"),
        NodeEvent::Joined { epoch, epoch_left_s: Some(left) } => {
            tracing::info!(%epoch, "joined the next epoch; the one in work goes on for about {}", about(*left));
        }
        NodeEvent::ModelReady { step, source, digest } => {
            tracing::info!(%step, ?source, digest = digest.short(), "the model is ready");
        }
        NodeEvent::StepTrained { epoch, step, loss, samples, tokens_per_second, payload_bytes } => {
            let (loss, tokens_per_second) = (format_args!("{loss:.4}"), format_args!("{tokens_per_second:.0}"));
            tracing::info!(%epoch, %step, %loss, samples, %tokens_per_second, payload_bytes, "trained a batch");
        }
        NodeEvent::StepSkipped { epoch, step, reason } => tracing::warn!(%epoch, %step, reason, "did not train a batch"),
        NodeEvent::StepApplied { epoch, step, results, digest } => {
            tracing::info!(%epoch, %step, results, digest = digest.short(), "applied the results of a step");
        }
        NodeEvent::CheckpointWritten { step, path } => tracing::info!(%step, path, "the checkpoint is written"),
        NodeEvent::UpdatesReplayed { from, to, peer } => {
            tracing::info!(%peer, "replayed steps {from}..{to} from the update log");
        }
        NodeEvent::DigestCompared { step, peer, equal: false } => tracing::warn!(%step, %peer, "a peer has other parameters"),
        NodeEvent::PeersChanged { connected } => tracing::info!(connected, "connected members"),
        NodeEvent::PointsChanged { earned, claimed } => tracing::info!(%earned, %claimed, "points"),
        NodeEvent::RewardsClaimed { amount, signature } => tracing::info!(%amount, signature, "claimed rewards"),
        NodeEvent::Warning { message } => tracing::warn!("{message}"),
        NodeEvent::Stopped { reason } => tracing::info!(reason, "the node stops"),
        // The chain's client has logged what happened to the endpoint, with the reason.
        NodeEvent::EndpointChanged { .. }
        | NodeEvent::Started { .. }
        | NodeEvent::DigestCompared { .. }
        | NodeEvent::TransactionConfirmed { .. } => {
            tracing::debug!(?event, "event");
        }
    }
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

fn append(file: &mut LineFile, logged: &LoggedEvent) -> io::Result<()> {
    let mut line = serde_json::to_vec(logged)?;
    line.push(b'\n');
    file.append(&line)
}
