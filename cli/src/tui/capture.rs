//! Keeps everything that is written to stderr off the screen: logs, notes, panics, and what C++ libraries say. It goes to a
//! bounded list for the screen and, once the data folder is the node's own, to a rotated file in it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use psyche_actors::event_log::LineFile;

/// Lines that are remembered.
const LINES_MAX: usize = 1000;
/// Bytes of a line.
const LINE_BYTES_MAX: u64 = 4096;
/// How long the last lines may take to get onto the disk.
const DRAIN: Duration = Duration::from_secs(1);
/// Name of the file in a node's data folder.
pub(crate) const LOG_FILE: &str = "log.txt";

/// What stderr was before, while it is held; otherwise none.
static BEFORE: AtomicI32 = AtomicI32::new(NONE);
const NONE: RawFd = -1;

/// Where the lines go.
#[derive(Debug, Default)]
struct Lines {
    latest: VecDeque<String>,
    /// How many of the latest the file has not got.
    unwritten: usize,
    file: Option<LineFile>,
}

impl Lines {
    fn push(&mut self, line: String) {
        if self.latest.len() == LINES_MAX {
            self.latest.pop_front();
        }
        self.latest.push_back(line);
        self.unwritten = (self.unwritten + 1).min(self.latest.len());
        self.write();
    }

    fn write(&mut self) {
        let Some(file) = &mut self.file else { return };
        for line in self.latest.iter().skip(self.latest.len() - self.unwritten) {
            // A full disk stops no training, and there is nowhere to say so.
            let _full = file.append(format!("{line}\n").as_bytes());
        }
        self.unwritten = 0;
    }
}

/// Stderr, held until this is dropped.
#[derive(Debug)]
pub(super) struct Capture {
    lines: Arc<Mutex<Lines>>,
    before: Option<OwnedFd>,
    ended: Receiver<()>,
}

impl Capture {
    /// Takes stderr.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn start() -> io::Result<Self> {
        let mut ends = [0; 2];
        // SAFETY: the array has room for both ends.
        if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: both were opened above and belong to nobody else.
        let (read, write) = unsafe { (File::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) };
        // SAFETY: takes no pointers; the copy is ours.
        let before = unsafe { libc::fcntl(libc::STDERR_FILENO, libc::F_DUPFD_CLOEXEC, 3) };
        if before < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: opened above.
        let before = unsafe { OwnedFd::from_raw_fd(before) };
        let (end, ended) = sync_channel(1);
        let lines = Arc::<Mutex<Lines>>::default();
        let kept = Arc::clone(&lines);
        let reader = move || {
            follow(read, &kept);
            // Nobody may wait any more.
            let _gone = end.send(());
        };
        drop(std::thread::Builder::new().name("stderr".into()).spawn(reader)?);
        redirect(write.as_raw_fd())?;
        BEFORE.store(before.as_raw_fd(), Ordering::SeqCst);
        Ok(Self { lines, before: Some(before), ended })
    }

    /// From now on lines go to a file in `folder`, too, and those that were remembered.
    pub(super) fn keep_in(&self, folder: &Path) {
        let path: PathBuf = folder.join(LOG_FILE);
        let opened = LineFile::open(&path);
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        match opened {
            Ok(file) => {
                lines.file.get_or_insert(file);
                lines.write();
            }
            Err(error) => lines.push(format!("WARN the log can't be kept in {}: {error}", path.display())),
        }
    }

    /// What was written lately, the oldest line first.
    pub(super) fn latest(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).latest.iter().cloned().collect()
    }

    /// Gives stderr back.
    pub(super) fn end(&mut self) {
        let Some(before) = self.before.take() else { return };
        BEFORE.store(NONE, Ordering::SeqCst);
        if redirect(before.as_raw_fd()).is_ok() {
            // Without a writer the reader ends, unless a child process still has stderr.
            let _late = self.ended.recv_timeout(DRAIN);
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.end();
    }
}

/// Gives stderr back to whoever dies with something to say. May be called in a signal's handler.
pub(super) fn release() {
    let before = BEFORE.swap(NONE, Ordering::SeqCst);
    if before != NONE {
        // There is nowhere to say what fails.
        let _failed = redirect(before);
    }
}

/// Makes stderr what `to` is.
fn redirect(to: RawFd) -> io::Result<()> {
    // SAFETY: takes no pointers; both descriptors are open, and stderr stays open throughout.
    if unsafe { libc::dup2(to, libc::STDERR_FILENO) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn follow(read: File, lines: &Mutex<Lines>) {
    let mut reader = BufReader::new(read);
    loop {
        let mut line = Vec::new();
        match reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let text = String::from_utf8_lossy(&line);
                lines.lock().unwrap_or_else(PoisonError::into_inner).push(text.trim_end().to_owned());
            }
        }
    }
}
