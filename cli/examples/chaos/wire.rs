//! Moves frames between the hosts' TAP devices as the [`Bridge`] decides, on a thread of its own.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};

use super::bridge::{Bridge, Counts};

/// More than the largest frame of a device with the usual MTU.
const FRAME_MAX: usize = 2048;
/// Most frames that one device is asked for before the others get their turn.
const FRAMES_A_TURN: usize = 64;
/// How often it is looked whether to stop.
const LOOK_EVERY_NS: u64 = 50_000_000;

/// The running bridge.
#[derive(Debug)]
pub(crate) struct Wire {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Counts>,
}

impl Wire {
    /// Starts to carry frames between `taps`, which stand in the order of the bridge's ports.
    ///
    /// # Errors
    /// If there is no thread for it.
    pub(crate) fn start(taps: Vec<File>, bridge: Bridge) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("bridge".to_owned())
            .spawn(move || carry(&taps, bridge, &asked))
            .context("failed to start the bridge")?;
        Ok(Self { stop, thread })
    }

    /// Ends it; what is on its way is lost.
    ///
    /// # Errors
    /// If the bridge has died.
    pub(crate) fn end(self) -> Result<Counts> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_panic| anyhow!("the bridge has died"))
    }
}

fn nanoseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

fn carry(taps: &[File], mut bridge: Bridge, stop: &AtomicBool) -> Counts {
    let start = Instant::now();
    let mut frame = [0; FRAME_MAX];
    let watch = |tap: &File| libc::pollfd { fd: tap.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let mut polled: Vec<_> = taps.iter().map(watch).collect();
    while !stop.load(Ordering::Relaxed) {
        let now = nanoseconds(start);
        while let Some((port, frame)) = bridge.due(now) {
            // A device whose queue is full drops the frame, as a network card does.
            let _dropped = (&taps[port]).write(&frame);
        }
        let wait = bridge.next_ns().map_or(LOOK_EVERY_NS, |at| at.saturating_sub(nanoseconds(start)).min(LOOK_EVERY_NS));
        wait_for_frames(&mut polled, wait);
        for (port, mut tap) in taps.iter().enumerate() {
            for _ in 0..FRAMES_A_TURN {
                // Nothing there, or the device is not up yet.
                let Ok(len) = tap.read(&mut frame) else { break };
                bridge.take(nanoseconds(start), port, &frame[..len]);
            }
        }
    }
    bridge.counts()
}

/// Returns when a device has a frame, or after `wait_ns`.
fn wait_for_frames(polled: &mut [libc::pollfd], wait_ns: u64) {
    let wait = libc::timespec { tv_sec: 0, tv_nsec: libc::c_long::try_from(wait_ns).unwrap_or(0) };
    // SAFETY: the descriptors and the time live across the call; no signal mask is given. That a signal interrupts it does not
    // matter, the loop comes back.
    unsafe { libc::ppoll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, &raw const wait, std::ptr::null()) };
}
