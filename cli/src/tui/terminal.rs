//! The terminal as the view needs it, and as it was before.

use std::io::{self, IsTerminal as _, Stdout};
use std::sync::atomic::{AtomicBool, Ordering};

use ratatui_core::terminal::Terminal;
use ratatui_crossterm::CrosstermBackend;
use ratatui_crossterm::crossterm::cursor::{Hide, Show};
use ratatui_crossterm::crossterm::execute;
use ratatui_crossterm::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};

pub(super) type Screen = Terminal<CrosstermBackend<Stdout>>;

/// Whether the terminal is the view's now.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Whether a view can be shown: a terminal that can place its cursor, on both sides, and this process in front of it.
pub(crate) fn is_usable() -> bool {
    let capable = std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb");
    // SAFETY: neither takes pointers.
    let in_front = || unsafe { libc::tcgetpgrp(libc::STDIN_FILENO) == libc::getpgrp() };
    capable && io::stdin().is_terminal() && io::stdout().is_terminal() && in_front()
}

/// Whether colours are wanted (<https://no-color.org>).
pub(crate) fn is_coloured() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Takes the terminal.
pub(super) fn take() -> io::Result<()> {
    enable_raw_mode()?;
    TAKEN.store(true, Ordering::SeqCst);
    execute!(io::stdout(), EnterAlternateScreen, Hide)
}

/// Gives the terminal back, as often as one likes.
pub(super) fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        // What fails here, fails because the terminal is gone.
        let _gone = execute!(io::stdout(), LeaveAlternateScreen, Show);
        let _gone = disable_raw_mode();
    }
}
