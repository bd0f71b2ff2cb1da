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
        tracing::debug!(actor = "event_log", ?event, "event");
        // An error only says that nobody listens.
        let _listeners = self.inner.listeners.send(event);
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
