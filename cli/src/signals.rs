//! The operator's wish to stop.

use anyhow::{Context as _, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Hears every SIGINT and SIGTERM from the moment it was made: one that comes while nobody waits is kept, not lost.
pub(crate) struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    /// Begins to listen.
    ///
    /// # Errors
    /// If the system lets no handler be installed.
    pub(crate) fn listen() -> Result<Self> {
        let interrupt = signal(SignalKind::interrupt()).context("failed to listen for Ctrl-C")?;
        let terminate = signal(SignalKind::terminate()).context("failed to listen for SIGTERM")?;
        Ok(Self { interrupt, terminate })
    }

    /// Returns at the next signal, with its name. Safe to cancel.
    pub(crate) async fn requested(&mut self) -> &'static str {
        tokio::select! {
            _signal = self.interrupt.recv() => "Ctrl-C",
            _signal = self.terminate.recv() => "SIGTERM",
        }
    }
}
