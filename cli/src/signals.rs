//! The operator's wish to stop.

use anyhow::{Context as _, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Hears every SIGINT, SIGTERM and SIGHUP from the moment it was made: one that comes while nobody waits is kept, not lost.
pub(crate) struct Stop {
    interrupt: Signal,
    terminate: Signal,
    /// Of a terminal that was closed; none under `nohup`, which has it ignored.
    hangup: Option<Signal>,
}

impl Stop {
    /// Begins to listen.
    ///
    /// # Errors
    /// If the system lets no handler be installed.
    pub(crate) fn listen() -> Result<Self> {
        let interrupt = signal(SignalKind::interrupt()).context("failed to listen for Ctrl-C")?;
        let terminate = signal(SignalKind::terminate()).context("failed to listen for SIGTERM")?;
        let hangup = if is_ignored(libc::SIGHUP) { None } else { Some(signal(SignalKind::hangup())) };
        let hangup = hangup.transpose().context("failed to listen for SIGHUP")?;
        Ok(Self { interrupt, terminate, hangup })
    }

    /// Returns at the next signal, with its name. Safe to cancel.
    pub(crate) async fn requested(&mut self) -> &'static str {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _signal = self.interrupt.recv() => "Ctrl-C",
            _signal = self.terminate.recv() => "SIGTERM",
            _signal = hangup => "SIGHUP",
        }
    }
}

/// Whether whoever started this process wants it to ignore a signal.
fn is_ignored(signal: libc::c_int) -> bool {
    // SAFETY: zeros are a value of it.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: nothing is changed; the kernel writes one such struct.
    let code = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) };
    code == 0 && action.sa_sigaction == libc::SIG_IGN
}
