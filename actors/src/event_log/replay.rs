//! Reads an event log, with its full files, from the oldest event to the newest.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use psyche_messages::events::LoggedEvent;

use super::rotating::numbered;

/// Bytes of a line; events take a few hundred.
const LINE_BYTES_MAX: u64 = 1 << 16;
/// Full files that are looked for.
const FILES_MAX: u32 = 1024;
/// Name of the file in a node's data folder.
pub const EVENT_LOG_FILE: &str = "events.jsonl";

/// An event log that is read.
#[derive(Debug)]
pub struct Replay {
    /// Files that are still to be read, the next one last.
    left: Vec<PathBuf>,
    reader: Option<BufReader<File>>,
    unreadable: u64,
}

impl Replay {
    /// The log at `path`: a node's data folder, its `events.jsonl` with the full files beside it, or any one file of it.
    ///
    /// # Errors
    /// If there is none.
    pub fn open(path: &Path) -> io::Result<Self> {
        let newest = if path.is_dir() { path.join(EVENT_LOG_FILE) } else { path.to_owned() };
        let mut left = vec![newest.clone()];
        left.extend((1..=FILES_MAX).map(|number| numbered(&newest, number)).take_while(|full| full.exists()));
        // Opened at once, so that what is missing is told before anything is shown.
        File::open(&newest)?;
        Ok(Self { left, reader: None, unreadable: 0 })
    }

    /// Lines so far that were no events: cut short by a crash, or written by something else.
    #[must_use]
    pub const fn unreadable(&self) -> u64 {
        self.unreadable
    }

    /// The next event; `None` at the end of the log.
    ///
    /// # Errors
    /// What the file system says.
    pub fn next_event(&mut self) -> io::Result<Option<LoggedEvent>> {
        loop {
            let reader = match &mut self.reader {
                Some(reader) => reader,
                None => match self.left.pop() {
                    Some(path) => self.reader.insert(BufReader::new(File::open(path)?)),
                    None => return Ok(None),
                },
            };
            let mut line = Vec::new();
            if reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
                self.reader = None;
                continue;
            }
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            match serde_json::from_slice(&line) {
                Ok(event) => return Ok(Some(event)),
                Err(_) => self.unreadable += 1,
            }
        }
    }
}
