//! Reads a node's event log while the node writes it, through its rotations.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use psyche_actors::event_log::numbered;
use psyche_messages::NodeEvent;
use psyche_messages::events::{EVENT_LOG_VERSION, LoggedEvent};

/// Most bytes that one look at the log takes in, so that no node can keep the others waiting.
const READ_BYTES_MAX: u64 = 1 << 20;
/// Longest line that is read; longer ones are skipped and counted.
const LINE_BYTES_MAX: usize = 1 << 16;
/// Full files among which the one that was being read is looked for; nodes keep fewer.
const FULL_FILES_MAX: u32 = 16;

/// A place in a growing event log.
#[derive(Debug)]
pub(crate) struct Follower {
    path: PathBuf,
    /// The file that is being read: it stays readable whatever it is called by now, or if it is gone.
    file: Option<File>,
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
        Self { path, file: None, partial: Vec::new(), skipping: false, unread: 0 }
    }

    /// The events that were written since the last call, oldest first.
    ///
    /// # Errors
    /// If the log exists and cannot be read.
    pub(crate) fn poll(&mut self) -> io::Result<Vec<NodeEvent>> {
        let mut fresh = Vec::new();
        loop {
            if self.file.is_none() {
                self.file = opened(&self.path)?;
            }
            let Some(file) = &mut self.file else { break };
            let room = READ_BYTES_MAX.saturating_sub(fresh.len() as u64);
            // Whoever renames a file has written the last of it: what is read after it was seen under its new name is all.
            let next = next_of(&self.path, file)?;
            let read = file.take(room).read_to_end(&mut fresh)? as u64;
            match next {
                Some(next) if read < room => {
                    if !self.partial.is_empty() || fresh.last().is_some_and(|last| *last != b'\n') {
                        fresh.push(b'\n');
                    }
                    self.file = Some(next);
                }
                _ => break,
            }
        }
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

fn opened(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Device and number of a file, which stay as they are when it is renamed.
fn identity(path: &Path) -> io::Result<Option<(u64, u64)>> {
    match fs::metadata(path) {
        Ok(found) => Ok(Some((found.dev(), found.ino()))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The file that follows `file` in the log at `path`; `None` if it is the newest one, or if the files are being renamed just
/// now: the next look will see more.
fn next_of(path: &Path, file: &File) -> io::Result<Option<File>> {
    let own = file.metadata().map(|found| Some((found.dev(), found.ino())))?;
    let named = |number| if number == 0 { path.to_owned() } else { numbered(path, number) };
    for number in 0..=FULL_FILES_MAX {
        if identity(&named(number))? != own {
            continue;
        }
        let Some(newer) = number.checked_sub(1) else { return Ok(None) };
        let next = opened(&named(newer))?;
        // Where everything has moved on meanwhile, what was opened is not the next one.
        return Ok(next.filter(|_| identity(&named(number)).is_ok_and(|still| still == own)));
    }
    // It is gone already: the oldest one that is left comes next.
    let oldest = (0..=FULL_FILES_MAX).rev().map(named).find(|path| path.exists());
    oldest.map_or(Ok(None), |oldest| opened(&oldest))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use std::io::Write as _;

    use psyche_actors::event_log::{Bounds, EventLog};

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
    fn no_event_is_lost_when_the_log_rotates_once_or_often_between_two_looks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        // Two or three events fill a file, and five files are kept.
        let bounds = Bounds { file_bytes_max: 300, full_files_max: 4 };
        let log = EventLog::open_within(Some(&path), bounds).unwrap();
        let mut follower = Follower::new(path.clone());
        let (mut written, mut seen) = (Vec::new(), Vec::new());
        for burst in [1, 1, 2, 3, 5, 1, 8, 1, 6, 2] {
            for _ in 0..burst {
                let event = NodeEvent::Warning { message: format!("event {}", written.len()) };
                log.report(event.clone());
                written.push(event);
            }
            seen.extend(follower.poll().unwrap());
        }
        assert!(numbered(&path, 4).exists(), "the log has rotated");
        assert_eq!((seen, follower.unread()), (written, 0));
    }

    #[test]
    fn who_was_away_for_longer_than_files_are_kept_goes_on_with_the_oldest_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let log = EventLog::open_within(Some(&path), Bounds { file_bytes_max: 1, full_files_max: 2 }).unwrap();
        let mut follower = Follower::new(path);
        let event = |number: u32| NodeEvent::Warning { message: number.to_string() };
        log.report(event(0));
        assert_eq!(follower.poll().unwrap(), [event(0)]);
        (1..=6).for_each(|number| log.report(event(number)));
        assert_eq!(follower.poll().unwrap(), [event(4), event(5), event(6)], "every event has a file of its own");
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
