//! Hosts: network namespaces without a name, each with one TAP device. Nobody has to take them down: the kernel does it with
//! the last process that holds them, however that ends.

use std::fs::{File, OpenOptions};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::bridge::Bridge;

/// The device's name in every host.
const DEVICE: &str = "eth0";
const TUN: &str = "/dev/net/tun";

/// A host on the bridge.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) ip: Ipv4Addr,
    namespace: File,
    /// Frames of the host's device, without blocking.
    pub(crate) tap: File,
}

impl Host {
    /// The host at `port` of the bridge. Its uplink has `rate_bits` a second, where it has a limit.
    ///
    /// # Errors
    /// If this process may not make it, or a tool is missing.
    pub(crate) fn new(port: u8, rate_bits: Option<u64>) -> Result<Self> {
        let ip = Ipv4Addr::new(10, 77, 0, port + 1);
        // A thread of its own leaves this one where it is.
        let made = std::thread::spawn(move || make(port, ip, rate_bits)).join();
        made.map_err(|_panic| anyhow::anyhow!("the thread that makes a host has died"))?
    }

    /// Moves the calling thread, and the threads and processes that it starts from now on, to this host.
    pub(crate) fn enter(&self) -> io::Result<()> {
        enter(self.namespace.as_raw_fd())
    }

    /// Lets `command` run on this host, and no longer than the calling thread.
    pub(crate) fn bind(&self, command: &mut Command) {
        let namespace = self.namespace.as_raw_fd();
        let parent = std::process::id();
        let prepare = move || {
            enter(namespace)?;
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
}

fn enter(namespace: i32) -> io::Result<()> {
    // SAFETY: setns takes a descriptor, which the host keeps open, and changes nothing but the thread's network.
    match unsafe { libc::setns(namespace, libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn make(port: u8, ip: Ipv4Addr, rate_bits: Option<u64>) -> Result<Host> {
    // SAFETY: unshare changes nothing but this thread's network, and the thread ends after this function.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        return Err(io::Error::last_os_error()).context("failed to make a network namespace (this needs root)");
    }
    let namespace = File::open("/proc/thread-self/ns/net").context("failed to open the namespace")?;
    let tap = tap().with_context(|| format!("failed to make a TAP device with {TUN}"))?;
    let address = Bridge::address(port).map(|byte| format!("{byte:02x}")).join(":");
    tool("ip", &["link", "set", "dev", "lo", "up"])?;
    tool("ip", &["link", "set", "dev", DEVICE, "address", &address])?;
    tool("ip", &["addr", "add", &format!("{ip}/24"), "dev", DEVICE])?;
    tool("ip", &["link", "set", "dev", DEVICE, "up"])?;
    if let Some(rate) = rate_bits {
        let rate = format!("{rate}bit");
        let limit = ["rate", &rate, "burst", "64kb", "latency", "100ms"];
        tool("tc", &[&["qdisc", "add", "dev", DEVICE, "root", "tbf"], &limit[..]].concat())?;
    }
    Ok(Host { ip, namespace, tap })
}

/// A new TAP device in the calling thread's namespace.
fn tap() -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(TUN)?;
    // SAFETY: an ifreq of zeros is a valid one: integers, and a union of them.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(DEVICE.bytes()) {
        *to = from.cast_signed();
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI;
    request.ifr_ifru.ifru_flags = i16::try_from(flags).map_err(io::Error::other)?;
    // SAFETY: TUNSETIFF reads and writes an ifreq, which lives across the call; the descriptor is open.
    match unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) } {
        0 => Ok(file),
        _ => Err(io::Error::last_os_error()),
    }
}

fn tool(program: &str, args: &[&str]) -> Result<()> {
    let output = Command::new(program).args(args).output().with_context(|| format!("failed to run {program} (iproute2)"))?;
    if !output.status.success() {
        bail!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// What this machine lacks for hosts.
pub(crate) fn missing() -> Option<String> {
    // SAFETY: reads a number.
    if unsafe { libc::geteuid() } != 0 {
        return Some("only root can make network namespaces".to_owned());
    }
    if !std::path::Path::new(TUN).exists() {
        return Some(format!("there is no {TUN}"));
    }
    let works = |program: &&str| Command::new(program).arg("-V").output().is_ok_and(|output| output.status.success());
    let absent = ["ip", "tc"].into_iter().find(|program| !works(program))?;
    Some(format!("{absent} is not installed (package iproute2)"))
}
