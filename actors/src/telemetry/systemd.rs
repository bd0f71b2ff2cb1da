//! Tells systemd how the node fares, where systemd started it (`Type=notify`, `WatchdogSec=`): what `sd_notify(3)` does,
//! without its library.
//!
//! `READY=1` is said once `/readyz` says so, `WATCHDOG=1` only while every actor answers: a node that is stuck is killed and
//! started anew by systemd, as one that ended is.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::gather::Sources;
use super::health::Readiness;

/// Where systemd listens.
const SOCKET: &str = "NOTIFY_SOCKET";
/// After how many microseconds without a word the node is killed, and which process they are meant for.
const WATCHDOG: (&str, &str) = ("WATCHDOG_USEC", "WATCHDOG_PID");
/// How often something is said at least.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// How often at most, however impatient the watchdog is.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// How much longer the start may take after each word, until the node is ready. Loading a large model takes its time.
const START_WITHIN: Duration = Duration::from_secs(60);
/// Longest status line.
const STATUS_CHARS_MAX: usize = 200;

/// The service manager that started this process.
#[derive(Debug)]
pub struct ServiceManager {
    socket: UnixDatagram,
    address: SocketAddr,
    watchdog: Option<Duration>,
    /// Whether it was told that the node is ready: then its watchdog counts.
    ready: AtomicBool,
}

impl ServiceManager {
    /// The one that the environment names, if any.
    ///
    /// # Errors
    /// What the system says of the socket that is named.
    pub fn from_environment() -> io::Result<Option<Self>> {
        Self::named(&|name| std::env::var_os(name), std::process::id())
    }

    fn named(variable: &dyn Fn(&str) -> Option<OsString>, pid: u32) -> io::Result<Option<Self>> {
        let Some(path) = variable(SOCKET).filter(|path| !path.is_empty()) else { return Ok(None) };
        let address = match path.as_bytes().split_first() {
            Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(path)?,
        };
        let socket = UnixDatagram::unbound()?;
        // Nothing that the manager does may hold up the node.
        socket.set_nonblocking(true)?;
        let number = |name| variable(name)?.to_str()?.parse::<u64>().ok();
        let meant = number(WATCHDOG.1).is_none_or(|other| other == u64::from(pid));
        let watchdog = number(WATCHDOG.0).filter(|micros| meant && *micros > 0).map(Duration::from_micros);
        Ok(Some(Self { socket, address, watchdog, ready: AtomicBool::new(false) }))
    }

    /// How long to wait between two words: a third of what the watchdog allows, so that one may be late.
    fn pause(&self) -> Duration {
        self.watchdog.map_or(TELL_EVERY, |watchdog| (watchdog / 3).clamp(PAUSE_MIN, TELL_EVERY))
    }

    fn tell(&self, state: &str) {
        if let Err(error) = self.socket.send_to_addr(state.as_bytes(), &self.address) {
            tracing::debug!(actor = "telemetry", %error, "systemd can't be told");
        }
    }

    /// What says that all is well: after `READY=1` to the watchdog, before it to the time that a start may take.
    fn alive(&self) -> String {
        if self.ready.load(Ordering::Relaxed) {
            "WATCHDOG=1".to_owned()
        } else {
            format!("EXTEND_TIMEOUT_USEC={}", START_WITHIN.as_micros())
        }
    }

    /// Says that the node is about to stop.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=stopping");
    }

    /// Says that the process is there while a node is being started, which asks endpoints and has time-outs of its own.
    pub async fn starting(&self) -> Infallible {
        let mut ticks = tokio::time::interval(self.pause());
        loop {
            ticks.tick().await;
            self.tell(&format!("{}\nSTATUS=starting", self.alive()));
        }
    }

    /// Says how the node fares, for as long as it is asked to.
    pub(crate) async fn follow(&self, sources: &Sources) -> Infallible {
        let mut ticks = tokio::time::interval(self.pause());
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let live = sources.live().await;
            self.report(&live, &sources.readiness());
        }
    }

    fn report(&self, live: &Result<(), String>, readiness: &Readiness) {
        let status = match (live, readiness.problems.first()) {
            (Err(stuck), _) => stuck.clone(),
            (Ok(()), Some(problem)) => format!("{}: {}", readiness.state, problem.problem),
            (Ok(()), None) => readiness.state.clone(),
        };
        let clean = |c: char| if c.is_control() { ' ' } else { c };
        let status: String = status.chars().map(clean).take(STATUS_CHARS_MAX).collect();
        let first = if live.is_err() {
            // Nothing that the watchdog could take for a sign of life.
            String::new()
        } else if readiness.ready && !self.ready.swap(true, Ordering::Relaxed) {
            "READY=1\nWATCHDOG=1\n".to_owned()
        } else {
            self.alive() + "\n"
        };
        self.tell(&format!("{first}STATUS={status}"));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use super::*;
    use crate::telemetry::Problem;

    const PID: u32 = 77;

    fn variables(socket: &std::path::Path, watchdog: &str, pid: &str) -> impl Fn(&str) -> Option<OsString> {
        let all = [(SOCKET, socket.as_os_str().to_owned()), (WATCHDOG.0, watchdog.into()), (WATCHDOG.1, pid.into())];
        move |name| all.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone())
    }

    fn heard(socket: &UnixDatagram) -> Option<String> {
        let mut word = [0; 512];
        let length = socket.recv(&mut word).ok()?;
        Some(String::from_utf8(word[..length].to_vec()).unwrap())
    }

    fn readiness(problem: Option<&str>) -> Readiness {
        let problems = problem.map(|problem| Problem { check: "run".to_owned(), problem: problem.to_owned() });
        Readiness { ready: problem.is_none(), state: "training".to_owned(), problems: problems.into_iter().collect() }
    }

    #[test]
    fn ready_is_said_once_and_the_watchdog_hears_only_of_a_node_that_answers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        systemd.set_nonblocking(true).unwrap();
        let manager = ServiceManager::named(&variables(&path, "30000000", "77"), PID).unwrap().unwrap();
        assert_eq!(manager.pause(), TELL_EVERY, "a third of 30 s would be longer than one waits to be told of readiness");

        manager.report(&Ok(()), &readiness(Some("it has not\njoined")));
        assert_eq!(heard(&systemd).unwrap(), "EXTEND_TIMEOUT_USEC=60000000\nSTATUS=training: it has not joined");
        manager.report(&Ok(()), &readiness(None));
        assert_eq!(heard(&systemd).unwrap(), "READY=1\nWATCHDOG=1\nSTATUS=training");
        manager.report(&Ok(()), &readiness(Some("blind")));
        assert_eq!(heard(&systemd).unwrap(), "WATCHDOG=1\nSTATUS=training: blind", "not ready is not stuck");
        manager.report(&Err("the run actor did not answer".to_owned()), &readiness(None));
        assert_eq!(heard(&systemd).unwrap(), "STATUS=the run actor did not answer");
        manager.report(&Ok(()), &readiness(None));
        assert_eq!(heard(&systemd).unwrap(), "WATCHDOG=1\nSTATUS=training");
        manager.stopping();
        assert_eq!(heard(&systemd).unwrap(), "STOPPING=1\nSTATUS=stopping");
        drop(systemd);
        manager.report(&Ok(()), &readiness(None));
    }

    #[test]
    fn a_watchdog_of_another_process_is_none_and_a_socket_without_a_path_is_found() {
        let abstract_name = format!("@psyche-test-{}", std::process::id());
        let path = std::path::Path::new(&abstract_name);
        let systemd =
            UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&abstract_name.as_bytes()[1..]).unwrap()).unwrap();
        systemd.set_nonblocking(true).unwrap();
        let manager = ServiceManager::named(&variables(path, "90000", "78"), PID).unwrap().unwrap();
        assert_eq!(manager.watchdog, None);
        manager.tell("STATUS=here");
        assert_eq!(heard(&systemd).unwrap(), "STATUS=here");
        let short = ServiceManager::named(&variables(path, "90000", "77"), PID).unwrap().unwrap();
        assert_eq!(short.pause(), PAUSE_MIN);
        assert!(ServiceManager::named(&|_| None, PID).unwrap().is_none());
        assert!(ServiceManager::named(&variables(std::path::Path::new(""), "", ""), PID).unwrap().is_none());
    }
}
