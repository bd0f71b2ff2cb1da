//! Reads a node's event log while the node writes it.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use psyche_messages::NodeEvent;
use psyche_messages::events::{EVENT_LOG_VERSION, LoggedEvent};

/// Most bytes that one look at the log takes in, so that no node can keep the others waiting.
const READ_BYTES_MAX: u64 = 1 << 20;
/// Longest line that is read; longer ones are skipped and counted.
const LINE_BYTES_MAX: usize = 1 << 16;

/// A place in a growing event log.
#[derive(Debug)]
pub(crate) struct Follower {
    path: PathBuf,
    offset: u64,
    /// The start of a line whose end is not written yet.
    partial: Vec<u8>,
    /// The rest of the current line is thrown away, because its start was too long.
    skipping: bool,
    /// Lines that were no event.
    unread: u64,
}

impl Follower {
    /// Follows the log at `path` from its start; it may not exist yet.
    pub(crate) const fn new(path: PathBuf) -> Self {
        Self { path, offset: 0, partial: Vec::new(), skipping: false, unread: 0 }
    }

    /// The events that were written since the last call, oldest first.
    ///
    /// # Errors
    /// If the log exists and cannot be read.
    pub(crate) fn poll(&mut self) -> io::Result<Vec<NodeEvent>> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        file.seek(SeekFrom::Start(self.offset))?;
        let mut fresh = Vec::new();
        let read = file.take(READ_BYTES_MAX).read_to_end(&mut fresh)?;
        self.offset = self.offset.saturating_add(read as u64);
        Ok(self.take_in(&fresh))
    }

    /// Lines that were too long, no event, or of another version.
    pub(crate) const fn unread(&self) -> u64 {
        self.unread
    }

    fn take_in(&mut self, fresh: &[u8]) -> Vec<NodeEvent> {
        let mut events = Vec::new();
        for piece in fresh.split_inclusive(|byte| *byte == b'\n') {
            let ended = piece.ends_with(b"\n");
            if !self.skipping {
                self.partial.extend_from_slice(piece);
            }
            if self.partial.len() > LINE_BYTES_MAX {
                self.skipping = true;
                self.partial.clear();
            }
            if !ended {
                continue;
            }
            match serde_json::from_slice::<LoggedEvent>(&self.partial) {
                Ok(line) if !self.skipping && line.v == EVENT_LOG_VERSION => events.push(line.event),
                _ => self.unread = self.unread.saturating_add(1),
            }
            self.partial.clear();
            self.skipping = false;
        }
        events
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use std::io::Write as _;

    use super::*;

    fn warning(text: &str) -> (NodeEvent, String) {
        let event = NodeEvent::Warning { message: text.to_owned() };
        let line = serde_json::to_string(&LoggedEvent { v: EVENT_LOG_VERSION, unix_ms: 1, event: event.clone() }).unwrap();
        (event, line + "\n")
    }

    #[test]
    fn events_come_once_and_in_order_whatever_the_log_s_pieces() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let mut follower = Follower::new(path.clone());
        assert!(follower.poll().unwrap().is_empty(), "a log that is not there yet is empty");
        let (first, first_line) = warning("first");
        let (second, second_line) = warning("second");
        let text = first_line + &second_line;
        let mut seen = Vec::new();
        let mut file = File::create(path).unwrap();
        for piece in text.as_bytes().chunks(7) {
            file.write_all(piece).unwrap();
            seen.extend(follower.poll().unwrap());
        }
        assert_eq!(seen, [first, second]);
        assert!(follower.poll().unwrap().is_empty());
        assert_eq!(follower.unread(), 0);
    }

    #[test]
    fn lines_that_are_no_events_are_counted_and_passed_over() {
        let mut follower = Follower::new(PathBuf::new());
        let (event, line) = warning("kept");
        let other = line.replace("\"v\":1", "\"v\":9");
        let long = format!("{}\n", "x".repeat(LINE_BYTES_MAX + 1));
        let text = format!("not json\n{{\"v\":1}}\n{other}{long}{line}");
        assert_eq!(follower.take_in(text.as_bytes()), [event]);
        assert_eq!(follower.unread(), 4);
    }

    #[test]
    fn a_line_without_end_takes_no_more_memory_than_a_line_may() {
        let mut follower = Follower::new(PathBuf::new());
        for _ in 0..8 {
            assert!(follower.take_in(&vec![b'x'; LINE_BYTES_MAX / 2 + 1]).is_empty());
        }
        assert!(follower.partial.len() <= LINE_BYTES_MAX);
        let (event, line) = warning("next");
        assert_eq!(follower.take_in(format!("\n{line}").as_bytes()), [event]);
    }
}
