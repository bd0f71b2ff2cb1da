//! The reads of a watch: one after the other, when somebody wants one and when the time has come.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc;

use super::Shared;
use super::merge::Observation;

/// Reads until nobody listens.
pub(super) async fn run(shared: Arc<Shared>, observed: mpsc::Sender<Observation>) {
    loop {
        let read_after = Some(shared.delivered.load(Ordering::Relaxed));
        match shared.rpc.account(shared.address).await {
            Ok(account) => {
                if observed.send(Observation { account, read_after }).await.is_err() {
                    return;
                }
            }
            Err(error) => tracing::debug!(address = %shared.address, %error, "watched account not read"),
        }
        let up = shared.connected.load(Ordering::Relaxed) > 0;
        let pause = if up { shared.config.refresh } else { shared.config.poll };
        tokio::select! {
            () = shared.read_wanted.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}
