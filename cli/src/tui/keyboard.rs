//! The keyboard, read on a thread of its own, and only while the terminal is the view's: what is typed while another job
//! has it belongs to that job.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ratatui_crossterm::crossterm::event::{self, Event, KeyEvent};
use tokio::sync::mpsc;

/// How long the thread waits for a key before it looks whether it may go on.
const PATIENCE: Duration = Duration::from_millis(100);
/// Keys that may wait; further ones are lost.
const WAITING_MAX: usize = 64;

/// What came from the terminal.
#[derive(Clone, Copy, Debug)]
pub(super) enum Input {
    Key(KeyEvent),
    Resized,
}

/// What both threads know.
#[derive(Debug, Default)]
struct Gate {
    open: AtomicBool,
    ended: AtomicBool,
    /// Held while the thread may take something from the terminal.
    reading: Mutex<()>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Keyboard {
    inputs: mpsc::Receiver<Input>,
    gate: Arc<Gate>,
}

impl Keyboard {
    /// Begins to read.
    ///
    /// # Errors
    /// If the system has no more threads.
    pub(super) fn open() -> io::Result<Self> {
        let (sender, inputs) = mpsc::channel(WAITING_MAX);
        let gate = Arc::new(Gate { open: AtomicBool::new(true), ..Gate::default() });
        let seen = Arc::clone(&gate);
        drop(std::thread::Builder::new().name("keys".into()).spawn(move || read(&seen, &sender))?);
        Ok(Self { inputs, gate })
    }

    /// What comes next; `None` once the terminal is gone. Safe to cancel.
    pub(super) async fn next(&mut self) -> Option<Input> {
        self.inputs.recv().await
    }

    /// Reads nothing from now on, and drops what waits.
    pub(super) fn shut(&mut self) {
        self.gate.open.store(false, Ordering::SeqCst);
        // The thread lets go within its patience.
        drop(self.gate.reading.lock().unwrap_or_else(PoisonError::into_inner));
        while self.inputs.try_recv().is_ok() {}
    }

    /// Reads again.
    pub(super) fn reopen(&self) {
        self.gate.open.store(true, Ordering::SeqCst);
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        self.gate.ended.store(true, Ordering::SeqCst);
        self.shut();
    }
}

fn read(gate: &Gate, sender: &mpsc::Sender<Input>) {
    while !gate.ended.load(Ordering::SeqCst) {
        if !gate.open.load(Ordering::SeqCst) {
            std::thread::park_timeout(PATIENCE);
            continue;
        }
        let _reading = gate.reading.lock().unwrap_or_else(PoisonError::into_inner);
        if !gate.open.load(Ordering::SeqCst) {
            continue;
        }
        if has_hung_up() {
            return;
        }
        let read = match event::poll(PATIENCE) {
            Ok(false) => continue,
            Ok(true) => event::read(),
            Err(error) => Err(error),
        };
        let input = match read {
            Ok(Event::Key(key)) => Input::Key(key),
            Ok(Event::Resize(..)) => Input::Resized,
            Ok(_) => continue,
            // The terminal is gone.
            Err(_) => return,
        };
        // Nobody types that fast on purpose.
        let _full = sender.try_send(input);
    }
}

/// Whether the terminal is gone. Who reads from such a one is told at once, again and again, that nothing is there.
fn has_hung_up() -> bool {
    let mut asked = libc::pollfd { fd: libc::STDIN_FILENO, events: libc::POLLIN, revents: 0 };
    // SAFETY: one such struct, which outlives the call.
    let ready = unsafe { libc::poll(&raw mut asked, 1, 0) };
    ready > 0 && asked.revents & (libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) != 0
}
