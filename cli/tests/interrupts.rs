//! Ctrl-C loses nothing, and nobody waits without being told for what.
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod support;

use std::io::{BufRead as _, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

use support::{command, silent_server, text};

/// A command that waits for a server that never answers.
struct Waiting {
    child: Child,
    lines: Lines<BufReader<ChildStderr>>,
}

impl Waiting {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Reads on until a line holds `words`.
    fn wait_for(&mut self, words: &str) -> String {
        let mut seen = Vec::new();
        for line in self.lines.by_ref() {
            let line = line.unwrap();
            if line.contains(words) {
                return line;
            }
            seen.push(line);
        }
        panic!("{words:?} is not in {seen:#?}");
    }

    fn interrupt(&self) {
        let pid = libc::pid_t::try_from(self.child.id()).unwrap();
        // SAFETY: kill takes no pointers, and the child was not waited for yet.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGINT) }, 0);
    }

    fn code(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

fn wallet(folder: &Path) {
    let made = command().args(["wallet", "new", "--out", "id.json"]).current_dir(folder).output().unwrap();
    assert!(made.status.success(), "{}", text(&made.stderr));
}

#[test]
fn a_command_that_only_reads_says_what_it_waits_for_and_ends_at_ctrl_c() {
    let rpc = silent_server();
    let mut waiting = Waiting::start(command().args(["json-dump-run", "--run-id", "run", "--rpc", &rpc, "--logs", "none"]));
    waiting.wait_for("still reading the run");
    waiting.interrupt();
    let last = waiting.wait_for("error: stopped by Ctrl-C");
    assert!(last.contains("goes on from there"), "{last}");
    assert_eq!(waiting.code(), Some(130));
}

#[test]
fn a_command_that_pays_waits_at_the_first_ctrl_c_and_leaves_at_the_second() {
    let (rpc, folder) = (silent_server(), tempfile::tempdir().unwrap());
    wallet(folder.path());
    let line = "treasurer-top-up-rewards --run-id run --points 5 --wallet-private-key-path id.json --logs none";
    let mut waiting = Waiting::start(command().args(line.split(' ')).args(["--rpc", &rpc]).current_dir(folder.path()));
    waiting.wait_for("still moving the tokens");
    waiting.interrupt();
    waiting.wait_for("waiting for what was sent");
    waiting.interrupt();
    let last = waiting.wait_for("error: left by Ctrl-C");
    assert!(last.contains("look before you send it again"), "{last}");
    assert_eq!(waiting.code(), Some(130));
}
