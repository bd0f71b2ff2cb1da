//! The operator's wish to stop.

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};

/// Returns at the first SIGINT or SIGTERM.
///
/// # Errors
/// If the system lets no handler be installed.
pub(crate) async fn stop_requested() -> Result<&'static str> {
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to listen for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("failed to listen for SIGTERM")?;
    Ok(tokio::select! {
        _signal = interrupt.recv() => "Ctrl-C",
        _signal = terminate.recv() => "SIGTERM",
    })
}
