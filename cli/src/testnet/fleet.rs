//! The nodes' processes: started with variables only, never outliving this one, stopped within a bounded time.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::process::{Child, Command};
use tokio::time::{Instant, interval, sleep_until};

use super::plan::NodePlan;

/// How long nodes have to leave the network and write their logs before they are killed.
const STOP_WITHIN: Duration = Duration::from_secs(15);
/// How often it is looked whether a process has ended.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// What nodes inherit of this process's environment; everything else comes from their plan.
const INHERITED: [&str; 11] = [
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
    "RUST_LOG",
    "RUST_BACKTRACE",
    "LLVM_PROFILE_FILE",
];

/// All nodes' processes, by their place in the plan.
#[derive(Debug)]
pub(crate) struct Fleet {
    program: PathBuf,
    children: Vec<Option<Child>>,
}

impl Fleet {
    /// A fleet of `size` nodes that run `program`, none of them started.
    pub(crate) fn new(program: PathBuf, size: usize) -> Self {
        Self { program, children: (0..size).map(|_| None).collect() }
    }

    /// Starts the node at `index`; its output is appended to its log.
    ///
    /// # Errors
    /// If its folder or log can't be written, or the process can't be started.
    pub(crate) fn start(&mut self, index: usize, node: &NodePlan, variables: &[(&'static str, String)]) -> Result<()> {
        std::fs::create_dir_all(node.data()).with_context(|| format!("failed to create {}", node.data().display()))?;
        let log = node.log();
        let open = || OpenOptions::new().create(true).append(true).open(&log);
        let (out, err) =
            open().and_then(|out| Ok((out, open()?))).with_context(|| format!("failed to open {}", log.display()))?;
        let inherited = INHERITED.into_iter().filter_map(|name| std::env::var_os(name).map(|value| (name, value)));
        let mut command = Command::new(&self.program);
        command
            .arg("train")
            .env_clear()
            .env("OMP_NUM_THREADS", "1")
            .env("OMP_WAIT_POLICY", "passive")
            .envs(inherited)
            .envs(variables.iter().map(|(name, value)| (*name, OsString::from(value))))
            .current_dir(&node.folder)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            // A group of its own: Ctrl-C reaches this process, which then stops the nodes in order.
            .process_group(0)
            .kill_on_drop(true);
        die_with_this_process(&mut command);
        let child = command.spawn().with_context(|| format!("failed to start node {}", node.number))?;
        if let Some(pid) = child.id() {
            let path = node.folder.join("pid");
            std::fs::write(&path, format!("{pid}\n")).with_context(|| format!("failed to write {}", path.display()))?;
        }
        self.children[index] = Some(child);
        Ok(())
    }

    /// Whether any node's process is there.
    pub(crate) fn any_running(&self) -> bool {
        self.children.iter().any(Option::is_some)
    }

    /// The nodes whose processes have ended since the last call.
    ///
    /// # Errors
    /// If the system can't say.
    pub(crate) fn ended(&mut self) -> io::Result<Vec<(usize, ExitStatus)>> {
        let mut ended = Vec::new();
        for (index, slot) in self.children.iter_mut().enumerate() {
            if let Some(child) = slot
                && let Some(status) = child.try_wait()?
            {
                ended.push((index, status));
                *slot = None;
            }
        }
        Ok(ended)
    }

    /// Asks every node to stop, waits for a bounded time, and kills who is left. Returns how many had to be killed.
    pub(crate) async fn stop(&mut self) -> usize {
        for child in self.children.iter().flatten() {
            terminate(child);
        }
        let deadline = Instant::now() + STOP_WITHIN;
        let mut look = interval(LOOK_EVERY);
        while self.any_running() {
            tokio::select! {
                _ = look.tick() => if self.ended().is_err() { break },
                () = sleep_until(deadline) => break,
            }
        }
        let mut killed = 0;
        for slot in &mut self.children {
            if let Some(mut child) = slot.take() {
                killed += 1;
                // It may have ended by itself just now.
                let _gone = child.kill().await;
            }
        }
        killed
    }
}

/// Asks a process to stop. One that has not been waited for keeps its id, so no other process can be hit.
fn terminate(child: &Child) {
    if let Some(pid) = child.id().and_then(|pid| libc::pid_t::try_from(pid).ok()) {
        // SAFETY: kill has no memory effects; the id belongs to a child that has not been waited for.
        let _gone = unsafe { libc::kill(pid, libc::SIGTERM) };
    }
}

/// Lets the kernel kill the new process as soon as the thread that starts it is gone. Nodes are started from the main
/// thread, which ends with the process.
fn die_with_this_process(command: &mut Command) {
    let parent = std::process::id();
    let prepare = move || {
        // SAFETY: prctl and getppid are async-signal-safe and touch no memory of ours.
        unsafe {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            // The parent may have died before the line above.
            if u32::try_from(libc::getppid()) != Ok(parent) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        }
        Ok(())
    };
    // SAFETY: the closure runs between fork and exec and calls only async-signal-safe functions; it does not allocate.
    unsafe { command.pre_exec(prepare) };
}

/// How a process ended, in words.
pub(crate) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(0), _) => "ended".to_owned(),
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended in an unknown way".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use super::*;

    /// A program that takes the place of the node.
    fn program(folder: &Path, script: &str) -> PathBuf {
        let path = folder.join("program");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn node(folder: &Path) -> NodePlan {
        NodePlan { number: 1, dp: 1, tp: 1, late: false, folder: folder.join("node-1") }
    }

    async fn end(fleet: &mut Fleet) -> ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut look = interval(Duration::from_millis(10));
        while Instant::now() < deadline {
            if let [(0, status)] = fleet.ended().unwrap()[..] {
                return status;
            }
            look.tick().await;
        }
        panic!("the process did not end");
    }

    #[tokio::test]
    async fn a_node_sees_its_variables_and_none_of_ours() {
        let folder = tempfile::tempdir().unwrap();
        let node = node(folder.path());
        let mut fleet = Fleet::new(program(folder.path(), "env; echo \"args $*\"; echo oops >&2; exit 3"), 1);
        fleet.start(0, &node, &[("RUN_ID", "demo".to_owned())]).unwrap();
        let status = end(&mut fleet).await;
        assert_eq!((status.code(), describe(status)), (Some(3), "ended with exit code 3".to_owned()));
        let log = std::fs::read_to_string(node.log()).unwrap();
        for line in ["RUN_ID=demo", "OMP_WAIT_POLICY=passive", "args train", "oops"] {
            assert!(log.lines().any(|l| l == line), "{line} in {log}");
        }
        assert!(!log.contains("CARGO_"), "{log}");
        assert!(!fleet.any_running());
    }

    #[tokio::test]
    async fn nodes_are_asked_to_stop_before_they_are_killed() {
        let folder = tempfile::tempdir().unwrap();
        let node = node(folder.path());
        let script = "trap 'echo stopping; kill $!; exit 0' TERM; echo ready; sleep 60 & wait";
        let mut fleet = Fleet::new(program(folder.path(), script), 1);
        fleet.start(0, &node, &[]).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut look = interval(Duration::from_millis(10));
        while !std::fs::read_to_string(node.log()).unwrap().contains("ready") {
            assert!(Instant::now() < deadline, "the process did not start");
            look.tick().await;
        }
        assert_eq!(fleet.stop().await, 0);
        assert!(std::fs::read_to_string(node.log()).unwrap().contains("stopping"));
    }
}
