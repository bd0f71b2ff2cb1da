//! The terminal as the view needs it, and as it was before, whatever ends the process.

use std::ffi::c_int;
use std::io::{self, IsTerminal as _, Stdout};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use ratatui_core::terminal::Terminal;
use ratatui_crossterm::CrosstermBackend;
use ratatui_crossterm::crossterm::cursor::{Hide, Show};
use ratatui_crossterm::crossterm::execute;
use ratatui_crossterm::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};

use super::capture;

pub(super) type Screen = Terminal<CrosstermBackend<Stdout>>;

/// Whether the terminal is the view's now.
static TAKEN: AtomicBool = AtomicBool::new(false);
/// The terminal's modes before it was taken for the first time.
static MODES: OnceLock<libc::termios> = OnceLock::new();
/// What [`Show`] and [`LeaveAlternateScreen`] write.
const GIVE_BACK: &[u8] = b"\x1b[?1049l\x1b[?25h";

/// Signals that end a process which does not ask for them: faults, aborts of libraries, and `kill -QUIT`.
const FATAL: [c_int; 6] = [libc::SIGABRT, libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGQUIT];
/// What they did before, by their place in [`FATAL`].
static BEFORE: OnceLock<[libc::sigaction; FATAL.len()]> = OnceLock::new();

/// Whether this terminal can place its cursor.
pub(crate) fn is_capable() -> bool {
    std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb")
}

/// Whether a view can be shown: a capable terminal on both sides, and this process in front of it.
pub(crate) fn is_usable() -> bool {
    is_capable() && io::stdin().is_terminal() && io::stdout().is_terminal() && is_in_front()
}

/// Whether the keyboard is this process's, not another job's.
pub(super) fn is_in_front() -> bool {
    // SAFETY: neither takes pointers.
    unsafe { libc::tcgetpgrp(libc::STDIN_FILENO) == libc::getpgrp() }
}

/// Whether colours are wanted (<https://no-color.org>).
pub(crate) fn is_coloured() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Takes the terminal.
pub(super) fn take() -> io::Result<()> {
    if MODES.get().is_none() {
        // SAFETY: zeros are a value of it, which the kernel overwrites.
        let mut modes: libc::termios = unsafe { std::mem::zeroed() };
        // SAFETY: the struct outlives the call.
        if unsafe { libc::tcgetattr(libc::STDIN_FILENO, &raw mut modes) } == 0 {
            let _first = MODES.set(modes);
        }
        watch_for_the_end();
    }
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

/// Forgets the terminal, which another job has: nothing is written to it.
pub(super) fn leave_alone() {
    TAKEN.store(false, Ordering::SeqCst);
}

/// Tells everybody else of this job to sleep, and this process that it was told.
pub(super) fn suspend_others() {
    // SAFETY: takes no pointers.
    let _told = unsafe { libc::kill(0, libc::SIGTSTP) };
}

/// Stops this process as Ctrl-Z does where nobody listens for it: not at all where no shell could tell it to go on.
pub(super) fn suspend() {
    // SAFETY: zeros are values of it; what was there before is put back; a signal to this process takes no pointers.
    unsafe {
        let (mut default, mut before): (libc::sigaction, libc::sigaction) = (std::mem::zeroed(), std::mem::zeroed());
        default.sa_sigaction = libc::SIG_DFL;
        libc::sigaction(libc::SIGTSTP, &raw const default, &raw mut before);
        libc::raise(libc::SIGTSTP);
        libc::sigaction(libc::SIGTSTP, &raw const before, std::ptr::null_mut());
    }
}

/// Has the signals that end the process give the terminal back first.
fn watch_for_the_end() {
    // SAFETY: zeros are values of it.
    let mut before: [libc::sigaction; FATAL.len()] = unsafe { std::mem::zeroed() };
    for (signal, before) in FATAL.into_iter().zip(&mut before) {
        // SAFETY: the kernel writes one such struct.
        unsafe { libc::sigaction(signal, std::ptr::null(), before) };
    }
    if BEFORE.set(before).is_err() {
        return;
    }
    for signal in FATAL {
        // SAFETY: as above.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = fatal as extern "C" fn(c_int, *const libc::siginfo_t) as usize;
        // A stack that ran over has no room for a handler; Rust's threads have another one for it.
        action.sa_flags = libc::SA_ONSTACK | libc::SA_SIGINFO;
        // SAFETY: the handler makes only calls that may be made in one, and is there for as long as the process.
        unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
    }
}

/// Gives the terminal back in a signal's handler, and then lets the signal do what it did before.
extern "C" fn fatal(signal: c_int, info: *const libc::siginfo_t) {
    if TAKEN.swap(false, Ordering::SeqCst) {
        // SAFETY: both are allowed in a signal's handler; the bytes and the modes are there for as long as the process.
        unsafe {
            libc::write(libc::STDOUT_FILENO, GIVE_BACK.as_ptr().cast(), GIVE_BACK.len());
            if let Some(modes) = MODES.get() {
                libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, modes);
            }
        }
    }
    capture::release();
    // SAFETY: the kernel hands one over.
    let is_fault = unsafe { info.as_ref() }.is_some_and(|info| info.si_code > 0);
    let place = FATAL.iter().position(|fatal| *fatal == signal);
    let before = place.and_then(|place| BEFORE.get()?.get(place));
    // SAFETY: zeros are a value of it: what the system does where nobody listens.
    let default: libc::sigaction = unsafe { std::mem::zeroed() };
    // Whoever listened before knows faults, and what to say of a stack that ran over; what was sent is no fault, and would
    // come once.
    let next = before.filter(|_| is_fault).unwrap_or(&default);
    // SAFETY: the struct is there; a signal may be raised in its handler, and comes after it.
    unsafe {
        libc::sigaction(signal, next, std::ptr::null_mut());
        libc::raise(signal);
    }
}
