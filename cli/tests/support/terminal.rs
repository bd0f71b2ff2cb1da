//! A terminal with a person at it: a pseudo-terminal, an emulator that draws what comes out of it, and a shell inside that
//! does the jobs of a shell.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "each test file uses its part; tests may unwrap"
)]

use std::cell::Cell;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// How long anything may take to be seen.
const PATIENCE: Duration = Duration::from_secs(240);
/// What the shell says when it waits for a command.
pub(crate) const PROMPT: &str = "ready> ";

/// What the reader has drawn, and how often it has.
type Drawn = Arc<(Mutex<vt100::Parser>, Condvar)>;

pub(crate) struct Terminal {
    master: File,
    drawn: Drawn,
    shell: Child,
    /// Command lines that were started.
    lines: Cell<u32>,
}

impl Terminal {
    /// A shell on a terminal of this size, in which `settings` says the folder and the variables.
    pub(crate) fn new((rows, columns): (u16, u16), settings: &Command) -> Self {
        let (master, slave) = open(rows, columns);
        let mut shell = Command::new("/bin/sh");
        shell.arg("-i").env_clear();
        shell.envs(
            std::env::vars_os().filter(|(name, _)| ["PATH", "HOME", "LD_LIBRARY_PATH", "TMPDIR"].iter().any(|n| name == n)),
        );
        shell.envs([("TERM", "xterm-256color"), ("PS1", PROMPT), ("OMP_WAIT_POLICY", "passive")]);
        shell.envs(settings.get_envs().filter_map(|(name, value)| Some((name, value?))));
        shell.current_dir(settings.get_current_dir().unwrap());
        shell.stdin(slave.try_clone().unwrap()).stdout(slave.try_clone().unwrap()).stderr(slave);
        // SAFETY: both calls may be made between fork and exec, and take no pointers.
        unsafe {
            shell.pre_exec(|| {
                if libc::setsid() < 0 || libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = shell.spawn().unwrap();
        // The test's copies of the other end.
        drop(shell);
        let drawn: Drawn = Arc::new((Mutex::new(vt100::Parser::new(rows, columns, 0)), Condvar::new()));
        let (mut output, to) = (master.try_clone().unwrap(), Arc::clone(&drawn));
        drop(std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(read @ 1..) = output.read(&mut piece) {
                to.0.lock().unwrap().process(&piece[..read]);
                to.1.notify_all();
            }
        }));
        let terminal = Self { master, drawn, shell: child, lines: Cell::new(0) };
        terminal.wait_for("a prompt", |screen| at_prompt(screen).then_some(()));
        terminal
    }

    /// Types keys as they are.
    pub(crate) fn keys(&self, keys: &str) {
        (&self.master).write_all(keys.as_bytes()).unwrap();
    }

    /// Types a command line.
    pub(crate) fn line(&self, line: &str) {
        self.keys(&format!("{line}\n"));
    }

    /// Waits until `look` finds something on the screen.
    pub(crate) fn wait_for<T>(&self, what: &str, mut look: impl FnMut(&vt100::Screen) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut parser = self.drawn.0.lock().unwrap();
        loop {
            if let Some(found) = look(parser.screen()) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no {what} on the screen:\n{}", parser.screen().contents());
            parser = self.drawn.1.wait_timeout(parser, left).unwrap().0;
        }
    }

    /// Waits until all of these words are on the screen, at once.
    pub(crate) fn wait_for_words(&self, words: &[&str]) -> String {
        let mut missing = Vec::new();
        let found = |screen: &vt100::Screen| {
            let text = screen.contents();
            missing = words.iter().filter(|words| !text.contains(**words)).map(|words| (*words).to_owned()).collect();
            missing.is_empty().then_some(text)
        };
        self.wait_for(&format!("{words:?}"), found)
    }

    /// Waits until a live view has the screen.
    pub(crate) fn wait_for_view(&self) {
        self.wait_for("view", |screen| (screen.alternate_screen() && screen.hide_cursor()).then_some(()));
    }

    /// Waits until the shell has the terminal again, and asserts that it is as it was: what is on the screen.
    pub(crate) fn given_back(&self) -> String {
        let text = self.wait_for("prompt on a screen that is given back", |screen| {
            (!screen.alternate_screen() && at_prompt(screen)).then(|| screen.contents())
        });
        assert!(!self.drawn.0.lock().unwrap().screen().hide_cursor(), "no cursor:\n{text}");
        assert!(self.is_cooked(), "the terminal is still raw:\n{text}");
        text
    }

    /// What is on the screen.
    pub(crate) fn text(&self) -> String {
        self.drawn.0.lock().unwrap().screen().contents()
    }

    /// Looks at the screen as it is.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&vt100::Screen) -> T) -> T {
        look(self.drawn.0.lock().unwrap().screen())
    }

    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        self.drawn.0.lock().unwrap().screen_mut().set_size(rows, columns);
        let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the terminal is open, and the kernel reads one such struct.
        assert_eq!(unsafe { libc::ioctl(self.master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }, 0);
    }

    /// Whether lines are edited and echoed, and Ctrl-C is a signal.
    pub(crate) fn is_cooked(&self) -> bool {
        // SAFETY: all zeros is such a struct.
        let mut modes: libc::termios = unsafe { std::mem::zeroed() };
        // SAFETY: the terminal is open; asked at this end, Linux tells the modes of the other one.
        assert_eq!(unsafe { libc::tcgetattr(self.master.as_raw_fd(), &raw mut modes) }, 0);
        let wanted = libc::ICANON | libc::ECHO | libc::ISIG;
        modes.c_lflag & wanted == wanted && modes.c_oflag & libc::OPOST != 0
    }

    /// Waits until a job of the shell's has the keyboard.
    pub(crate) fn wait_for_job(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.in_front() == i32::try_from(self.shell.id()).unwrap() {
            assert!(Instant::now() < deadline, "no job:\n{}", self.text());
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// The process group that has the keyboard.
    pub(crate) fn in_front(&self) -> libc::pid_t {
        // SAFETY: the terminal is open.
        let group = unsafe { libc::tcgetpgrp(self.master.as_raw_fd()) };
        assert!(group > 0);
        group
    }

    /// Sends a signal to the job that has the keyboard.
    pub(crate) fn signal(&self, signal: libc::c_int) {
        let group = self.in_front();
        assert_ne!(group, i32::try_from(self.shell.id()).unwrap(), "only the shell is there:\n{}", self.text());
        // SAFETY: takes no pointers.
        assert_eq!(unsafe { libc::kill(-group, signal) }, 0);
    }

    /// Runs a command line on an empty screen, and returns at once.
    pub(crate) fn start(&self, line: &str) {
        let number = self.lines.get() + 1;
        self.lines.set(number);
        self.keys(&format!("printf '\\033[2J\\033[H'; {line}; echo end \"\"of {number}: $?\n"));
    }

    /// Waits until the shell has the terminal again after [`Terminal::start`], and asserts that it is as it was: what was
    /// said, and the command's exit code.
    pub(crate) fn ended(&self) -> (String, i32) {
        let mark = format!("end of {}: ", self.lines.get());
        let said = self.wait_for("end of the command", |screen| {
            (!screen.alternate_screen() && at_prompt(screen)).then(|| screen.contents()).filter(|text| text.contains(&mark))
        });
        let _said = self.given_back();
        let code = said.rsplit_once(&mark).unwrap().1.split_whitespace().next().unwrap().parse().unwrap();
        (said, code)
    }

    /// Runs a command line to its end: what it said, and its exit code.
    pub(crate) fn ran(&self, line: &str) -> (String, i32) {
        self.start(line);
        self.ended()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Whoever is in front, and then the shell.
        // SAFETY: takes no pointers; the group is one of this session.
        let group = unsafe { libc::tcgetpgrp(self.master.as_raw_fd()) };
        if group > 1 {
            // SAFETY: as above.
            let _gone = unsafe { libc::kill(-group, libc::SIGKILL) };
        }
        let _gone = self.shell.kill();
        let _reaped = self.shell.wait();
    }
}

/// Whether the shell waits for a command.
fn at_prompt(screen: &vt100::Screen) -> bool {
    screen.contents().trim_end().ends_with(PROMPT.trim_end())
}

/// Both ends of a new pseudo-terminal.
fn open(rows: u16, columns: u16) -> (File, OwnedFd) {
    let (mut master, mut slave) = (-1, -1);
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let modes = std::ptr::null();
    // SAFETY: both numbers and the size outlive the call; a name and modes are not asked for.
    let code = unsafe { libc::openpty(&raw mut master, &raw mut slave, std::ptr::null_mut(), modes, &raw const size) };
    assert_eq!(code, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: both were opened above and belong to nobody else.
    let ends = unsafe { (File::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
    // What the test starts otherwise must not hold it open.
    for end in [ends.0.as_raw_fd(), ends.1.as_raw_fd()] {
        // SAFETY: takes no pointers.
        assert_eq!(unsafe { libc::fcntl(end, libc::F_SETFD, libc::FD_CLOEXEC) }, 0);
    }
    ends
}
