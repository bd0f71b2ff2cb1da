//! The live view of a node on a terminal: it draws the report that `/status` serves, four times a second at most, and keeps
//! everything else off the screen. The terminal is given back whatever ends the process, short of SIGKILL.

mod capture;
mod draw;
mod terminal;
#[cfg(test)]
mod tests;
mod view;
mod words;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use psyche_actors::telemetry::NodeReport;
use ratatui_core::terminal::Terminal;
use ratatui_crossterm::CrosstermBackend;
use ratatui_crossterm::crossterm::event::{self, Event, KeyEvent};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior};

use crate::signals::Stop;
use capture::Capture;
use terminal::Screen;
pub(crate) use terminal::{is_coloured, is_usable};
use view::{Asked, View};

/// Time between two pictures.
const FRAME: Duration = Duration::from_millis(500);
/// Least time between two pictures where keys are pressed.
const FRAME_MIN: Duration = Duration::from_millis(250);
/// How long the keyboard is waited for before it is looked whether anybody still listens.
const KEY_PATIENCE: Duration = Duration::from_millis(200);
/// Keys that may wait; further ones are lost.
const KEYS_MAX: usize = 64;

/// See the module.
pub(crate) struct Live {
    screen: Screen,
    view: View,
    capture: Capture,
    keys: mpsc::Receiver<KeyEvent>,
    listening: Arc<AtomicBool>,
    suspend: Signal,
    frames: Interval,
    drawn: Option<Instant>,
}

impl Live {
    /// Takes the terminal and stderr.
    ///
    /// # Errors
    /// If the terminal does not let itself be taken.
    pub(crate) fn open() -> Result<Self> {
        let suspend = signal(SignalKind::from_raw(libc::SIGTSTP)).context("failed to listen for Ctrl-Z")?;
        let capture = Capture::start().context("failed to keep the log off the screen")?;
        give_back_on_panic();
        let taken = terminal::take().and_then(|()| Terminal::new(CrosstermBackend::new(io::stdout())));
        let screen =
            taken.inspect_err(|_| terminal::give_back()).context("failed to use the terminal (LOGS=plain does without)")?;
        let listening = Arc::new(AtomicBool::new(true));
        let keys = listen(Arc::clone(&listening)).context("failed to listen to the keyboard")?;
        let mut frames = tokio::time::interval(FRAME);
        frames.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self { screen, view: View::new(is_coloured()), capture, keys, listening, suspend, frames, drawn: None })
    }

    /// Keeps the log in `folder`, too.
    pub(crate) fn keep_log_in(&self, folder: &Path) {
        self.capture.keep_in(folder);
    }

    /// Says something in the last line.
    pub(crate) fn say(&mut self, banner: String) {
        self.view.banner = Some(banner);
        self.drawn = None;
    }

    /// Draws what `report` says, again and again, until somebody asks to leave: by what. Safe to cancel.
    pub(crate) async fn show(&mut self, stop: &mut Stop, mut report: impl FnMut() -> Option<NodeReport>) -> &'static str {
        loop {
            tokio::select! {
                signal = stop.requested() => return signal,
                Some(key) = self.keys.recv() => match self.view.key(key) {
                    Some(Asked::Leave) => return "Ctrl-C",
                    Some(Asked::Suspend) => self.sleep(),
                    None => {}
                },
                Some(()) = self.suspend.recv() => self.sleep(),
                _ = self.frames.tick() => self.drawn = None,
            }
            if self.drawn.is_none_or(|drawn| drawn.elapsed() >= FRAME_MIN) {
                self.draw(report().as_ref());
            }
        }
    }

    fn draw(&mut self, report: Option<&NodeReport>) {
        self.drawn = Some(Instant::now());
        if let Some(report) = report {
            self.view.saw(report, Instant::now());
        }
        let (view, log) = (&self.view, self.capture.latest());
        // A terminal that is gone is no reason to stop training; its SIGHUP is.
        let _gone = self.screen.draw(|frame| draw::draw(frame, view, report, &log));
    }

    /// Stops this process until it is told to go on, with the terminal as it was.
    fn sleep(&mut self) {
        terminal::give_back();
        // SAFETY: takes no pointers; the process goes on here after SIGCONT.
        unsafe { libc::raise(libc::SIGSTOP) };
        let _gone = terminal::take().and_then(|()| self.screen.clear());
        self.drawn = None;
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.listening.store(false, Ordering::SeqCst);
        terminal::give_back();
        self.capture.end();
    }
}

/// Reads keys on a thread of their own, which ends soon after nobody listens any more.
fn listen(listening: Arc<AtomicBool>) -> io::Result<mpsc::Receiver<KeyEvent>> {
    let (sender, keys) = mpsc::channel(KEYS_MAX);
    let read = move || {
        while listening.load(Ordering::SeqCst) {
            match event::poll(KEY_PATIENCE) {
                Ok(false) => {}
                Ok(true) => match event::read() {
                    Ok(Event::Key(key)) => drop(sender.try_send(key)),
                    Ok(_) => {}
                    Err(_) => return,
                },
                Err(_) => return,
            }
        }
    };
    drop(std::thread::Builder::new().name("keys".into()).spawn(read)?);
    Ok(keys)
}

/// Has a panic of this thread give the terminal back before it is told. Those of actors are caught, and told in the log.
fn give_back_on_panic() {
    let (told, here) = (std::panic::take_hook(), std::thread::current().id());
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().id() == here {
            terminal::give_back();
        }
        told(panic);
    }));
}
