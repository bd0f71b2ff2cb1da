//! The test network: namespaces joined by virtual cables.
//!
//! ```text
//!   a 10.0.1.2 -- 10.0.1.1 router-a 203.0.113.20 --+
//!                                                  +-- bridge 203.0.113.10 (relay)
//!   b 10.0.1.2 -- 10.0.1.1 router-b 203.0.113.30 --+
//! ```
//! Both hosts have the same private address, so that nobody reaches anybody by it.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

use psyche_net::{EventReceiver, Net, NetConfig, NetHandle};
use tempfile::TempDir;

/// Makes the names of labs that run beside each other unique within the process.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A network of its own, taken down when dropped.
pub(crate) struct Lab {
    prefix: String,
}

const NAMESPACES: [&str; 5] = ["relay", "router-a", "router-b", "a", "b"];

impl Lab {
    /// The relay's address.
    pub(crate) const RELAY: &str = "203.0.113.10";
    /// The relay's host.
    pub(crate) const RELAY_HOST: &str = "relay";

    /// Builds the network.
    pub(crate) fn new() -> Self {
        if let Some(missing) = missing() {
            panic!(
                "this test has NOT run: {missing}. It builds a network of its own and needs root, iproute2 and nftables (on \
                 Debian and Ubuntu: apt-get install iproute2 nftables)"
            );
        }
        let lab = Self { prefix: format!("psy{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)) };
        for namespace in NAMESPACES {
            ip(&["netns", "add", &lab.name(namespace)]);
            lab.ip(namespace, &["link", "set", "dev", "lo", "up"]);
        }
        lab.ip("relay", &["link", "add", "name", "bridge", "type", "bridge"]);
        lab.ip("relay", &["addr", "add", &format!("{}/24", Self::RELAY), "dev", "bridge"]);
        lab.ip("relay", &["link", "set", "dev", "bridge", "up"]);
        for (host, outer) in [("a", "203.0.113.20/24"), ("b", "203.0.113.30/24")] {
            let router = format!("router-{host}");
            lab.cable((&router, "out"), ("relay", host));
            lab.cable((&router, "in"), (host, "eth"));
            lab.ip("relay", &["link", "set", "dev", host, "master", "bridge"]);
            lab.ip(&router, &["addr", "add", outer, "dev", "out"]);
            lab.ip(&router, &["addr", "add", "10.0.1.1/24", "dev", "in"]);
            lab.ip(host, &["addr", "add", "10.0.1.2/24", "dev", "eth"]);
            lab.ip(host, &["route", "add", "default", "via", "10.0.1.1"]);
            lab.masquerade(&router);
        }
        lab
    }

    fn name(&self, namespace: &str) -> String {
        format!("{}-{namespace}", self.prefix)
    }

    fn ip(&self, namespace: &str, args: &[&str]) {
        let name = self.name(namespace);
        ip(&[&["-n", name.as_str()], args].concat());
    }

    fn exec(&self, namespace: &str, args: &[&str]) {
        let name = self.name(namespace);
        ip(&[&["netns", "exec", name.as_str()], args].concat());
    }

    fn cable(&self, one: (&str, &str), other: (&str, &str)) {
        let (ns, ns_other) = (self.name(one.0), self.name(other.0));
        ip(&["link", "add", "name", one.1, "netns", &ns, "type", "veth", "peer", "name", other.1, "netns", &ns_other]);
        self.ip(one.0, &["link", "set", "dev", one.1, "up"]);
        self.ip(other.0, &["link", "set", "dev", other.1, "up"]);
    }

    /// A router as people have them at home: what goes out is masqueraded, what comes in is dropped unless it was asked for.
    fn masquerade(&self, router: &str) {
        self.exec(router, &["sysctl", "-qw", "net.ipv4.ip_forward=1"]);
        let rules = "
            table ip nat {
                chain postrouting {
                    type nat hook postrouting priority 100;
                    oifname \"out\" masquerade;
                }
            }
            table ip filter {
                chain parted {
                }
                chain forward {
                    type filter hook forward priority 0; policy drop;
                    jump parted;
                    ct state established,related accept;
                    iifname \"in\" accept;
                }
                chain input {
                    type filter hook input priority 0; policy accept;
                    iifname \"out\" ct state established,related accept;
                    iifname \"out\" drop;
                }
            }";
        self.exec(router, &["nft", rules]);
    }

    /// From now on nothing passes from router to router, only to and from the relay.
    pub(crate) fn part_the_routers(&self) {
        for router in ["router-a", "router-b"] {
            for field in ["saddr", "daddr"] {
                let rule = format!("add rule ip filter parted ip {field} {{ 203.0.113.20, 203.0.113.30 }} drop");
                self.exec(router, &["nft", &rule]);
            }
        }
    }

    /// A node on the host `name`, on a thread of its own that lives in the host's namespace.
    pub(crate) fn host(&self, name: &str, config: impl FnOnce(PathBuf) -> NetConfig) -> Host {
        let dir = TempDir::new().unwrap();
        let config = config(dir.path().to_owned());
        let namespace = std::fs::File::open(format!("/var/run/netns/{}", self.name(name))).unwrap();
        let (started, start) = mpsc::sync_channel(1);
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            enter(&namespace);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                started.send(Net::start(config).await).unwrap();
                // Dropped by whoever drops the host.
                drop(stopped.await);
            });
        });
        let (net, events) = start.recv().unwrap().unwrap();
        Host { net, events, stop: Some(stop), thread: Some(thread), _dir: dir }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in NAMESPACES {
            // A lab that could not be built lacks some; cables go with their ends.
            drop(Command::new("ip").args(["netns", "del", &self.name(namespace)]).status());
        }
    }
}

/// A running node.
pub(crate) struct Host {
    pub(crate) net: NetHandle,
    pub(crate) events: EventReceiver,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    _dir: TempDir,
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Moves the calling thread, and the threads that it starts from now on, into `namespace`.
fn enter(namespace: &std::fs::File) {
    use std::os::fd::AsRawFd;
    // SAFETY: setns takes an open descriptor, which `namespace` holds, and changes nothing but the thread's network.
    let entered = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
    assert_eq!(entered, 0, "{}", std::io::Error::last_os_error());
}

fn ip(args: &[&str]) {
    let output = Command::new("ip").args(args).output().expect("ip runs");
    assert!(output.status.success(), "ip {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
}

/// What this machine lacks for a network of its own.
fn missing() -> Option<String> {
    let works = |program: &str, args: &[&str]| Command::new(program).args(args).output().is_ok_and(|out| out.status.success());
    // SAFETY: reads a number.
    if unsafe { libc::geteuid() } != 0 {
        return Some("it does not run as root".to_owned());
    }
    let absent = ["ip", "nft"].into_iter().find(|program| !works(program, &["-V"]));
    absent.map(|program| format!("{program} is not installed"))
}
