//! Writes what the node reports to `events.jsonl`, one JSON object a line, and hands it to whoever listens.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use psyche_messages::NodeEvent;
use psyche_messages::events::{EVENT_LOG_VERSION, LoggedEvent};
use tokio::sync::broadcast;

/// Events that a slow listener may lag behind before it misses some; it is told how many.
const LISTENER_LAG_MAX: usize = 1024;

/// The node's reporter. Cheap to clone.
#[derive(Clone)]
pub struct EventLog {
    inner: Arc<Inner>,
}

struct Inner {
    file: Option<Mutex<BufWriter<File>>>,
    listeners: broadcast::Sender<NodeEvent>,
}

impl EventLog {
    /// Appends to the file at `path`, if one is given.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(path: Option<&Path>) -> io::Result<Self> {
        let file = path
            .map(|path| OpenOptions::new().create(true).append(true).open(path))
            .transpose()?
            .map(|file| Mutex::new(BufWriter::new(file)));
        let (listeners, _) = broadcast::channel(LISTENER_LAG_MAX);
        Ok(Self { inner: Arc::new(Inner { file, listeners }) })
    }

    /// A stream of the events from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<NodeEvent> {
        self.inner.listeners.subscribe()
    }

    /// Records `event`. A full disk is logged and otherwise ignored: training is worth more than its log.
    pub fn report(&self, event: NodeEvent) {
        if let Some(file) = &self.inner.file
            && let Err(error) = append(&mut file.lock().unwrap_or_else(PoisonError::into_inner), &event)
        {
            tracing::warn!(actor = "event_log", %error, "could not write to the event log");
        }
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
        NodeEvent::Joined { epoch } => tracing::info!(%epoch, "joined the next epoch"),
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

fn append(file: &mut BufWriter<File>, event: &NodeEvent) -> io::Result<()> {
    let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
    serde_json::to_writer(&mut *file, &LoggedEvent { v: EVENT_LOG_VERSION, unix_ms, event: event.clone() })?;
    file.write_all(b"\n")?;
    file.flush()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use super::*;

    #[test]
    fn events_are_appended_and_heard() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let event = NodeEvent::Warning { message: "disk \"almost\" full".into() };
        for _ in 0..2 {
            let log = EventLog::open(Some(&path)).unwrap();
            let mut listener = log.subscribe();
            log.report(event.clone());
            assert_eq!(listener.try_recv().unwrap(), event);
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<LoggedEvent> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert!(lines.iter().all(|line| line.event == event));
    }
}
