//! The live view on a terminal: it draws what a node says of itself, or what the chain says of a run, four times a second at
//! most, and keeps everything else off the screen. The terminal is given back whatever ends the process, short of SIGKILL,
//! and whenever another job of the shell has it.

mod capture;
mod draw;
mod keyboard;
mod subject;
mod terminal;
#[cfg(test)]
mod tests;
mod view;
mod words;

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use ratatui_core::terminal::Terminal;
use ratatui_crossterm::CrosstermBackend;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Interval, MissedTickBehavior};

use crate::signals::Stop;
use capture::Capture;
pub(crate) use capture::LOG_FILE;
use keyboard::{Input, Keyboard};
pub(crate) use subject::{Look, Subject, WatchedRun};
use terminal::Screen;
pub(crate) use terminal::{is_coloured, is_usable};
use view::{Asked, View};

/// Time between two pictures.
const FRAME: Duration = Duration::from_millis(500);
/// Least time between two pictures where keys are pressed.
const FRAME_MIN: Duration = Duration::from_millis(250);

/// See the module.
pub(crate) struct Live {
    screen: Screen,
    view: View,
    capture: Capture,
    keyboard: Keyboard,
    suspend: Signal,
    resume: Signal,
    frames: Interval,
    drawn: Option<Instant>,
    /// Whether another job has the terminal.
    away: bool,
}

impl Live {
    /// Takes the terminal and stderr, for somebody's own node or for what `watches` something else.
    ///
    /// # Errors
    /// If the terminal does not let itself be taken.
    pub(crate) fn open(watches: bool) -> Result<Self> {
        let suspend = signal(SignalKind::from_raw(libc::SIGTSTP)).context("failed to listen for Ctrl-Z")?;
        let resume = signal(SignalKind::from_raw(libc::SIGCONT)).context("failed to listen for SIGCONT")?;
        let capture = Capture::start().context("failed to keep the log off the screen")?;
        give_back_on_panic();
        let taken = terminal::take().and_then(|()| Terminal::new(CrosstermBackend::new(io::stdout())));
        let screen =
            taken.inspect_err(|_| terminal::give_back()).context("failed to use the terminal (LOGS=plain does without)")?;
        let keyboard = Keyboard::open().inspect_err(|_| terminal::give_back()).context("failed to listen to the keyboard")?;
        let mut frames = tokio::time::interval(FRAME);
        frames.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let view = View::new(is_coloured(), watches);
        Ok(Self { screen, view, capture, keyboard, suspend, resume, frames, drawn: None, away: false })
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

    /// Draws what `look` sees, again and again, until somebody asks to leave: by what. Safe to cancel.
    pub(crate) async fn show(&mut self, stop: &mut Stop, mut look: impl FnMut() -> Look) -> &'static str {
        loop {
            tokio::select! {
                signal = stop.requested() => return signal,
                Some(input) = self.keyboard.next() => match input {
                    Input::Resized => self.drawn = None,
                    Input::Key(key) => match self.view.key(key) {
                        Some(Asked::Leave) => return "Ctrl-C",
                        // The others of this job sleep as well, as if the terminal had told them.
                        Some(Asked::Suspend) => terminal::suspend_others(),
                        None => {}
                    },
                },
                Some(()) = self.suspend.recv() => self.sleep(),
                Some(()) = self.resume.recv() => self.wake(),
                _ = self.frames.tick() => self.drawn = None,
            }
            if self.drawn.is_none_or(|drawn| drawn.elapsed() >= FRAME_MIN) {
                self.draw(&look());
            }
        }
    }

    fn draw(&mut self, look: &Look) {
        self.drawn = Some(Instant::now());
        if let Some(Subject::Node(report)) = &look.subject {
            self.view.saw(report, Instant::now());
        }
        let log = self.capture.latest();
        self.view.saw_events(look.events.as_deref().unwrap_or(&log));
        if self.away {
            if !terminal::is_in_front() {
                return;
            }
            self.wake();
        }
        let view = &self.view;
        // A terminal that is gone is no reason to stop training; its SIGHUP is.
        let _gone = self.screen.draw(|frame| draw::draw(frame, view, look, &log));
    }

    /// Stops this process until it is told to go on, with the terminal as it was.
    fn sleep(&mut self) {
        self.keyboard.shut();
        terminal::give_back();
        terminal::suspend();
        self.wake();
    }

    /// Takes the terminal anew, as far as it is this job's; what happened to it meanwhile is not known.
    fn wake(&mut self) {
        self.away = !terminal::is_in_front();
        if self.away {
            self.keyboard.shut();
            terminal::leave_alone();
            return;
        }
        terminal::give_back();
        let _gone = terminal::take().and_then(|()| self.screen.clear());
        self.keyboard.reopen();
        self.drawn = None;
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.keyboard.shut();
        terminal::give_back();
        self.capture.end();
    }
}

/// A stranger's name, as a terminal may show it.
pub(crate) fn clean(name: &str) -> String {
    words::clean(name, words::NAME_MAX)
}

/// Has a panic of this thread give the terminal and stderr back before it is told. Those of actors are caught, and told in
/// the log.
fn give_back_on_panic() {
    let (told, here) = (std::panic::take_hook(), std::thread::current().id());
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().id() == here {
            terminal::give_back();
            capture::release();
        }
        told(panic);
    }));
}
