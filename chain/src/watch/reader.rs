//! The reads of a watch: when somebody wants one, and when the time has come.
//!
//! A read that takes long does not hold up the next one: another is begun beside it, up to a bound, and whichever answers
//! first serves. The client underneath chooses the endpoint, hedges and gives up.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use psyche_messages::Slot;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::Shared;
use super::merge::Observation;
use crate::error::ChainError;
use crate::rpc::AccountRead;

/// Reads that are under way at the same time at most.
const READS_MAX: usize = 3;

type Answer = (usize, Result<(Slot, Option<AccountRead>), ChainError>);

/// Reads until nobody listens.
pub(super) async fn run(shared: Arc<Shared>, observed: mpsc::Sender<Observation>) {
    let mut reads: JoinSet<Answer> = JoinSet::new();
    let (mut begun, mut due) = (Instant::now(), Instant::now());
    loop {
        tokio::select! {
            () = sleep_until(due), if reads.is_empty() => {
                begun = begin(&shared, &mut reads);
                due = begun + pause(&shared);
            }
            () = wanted(&shared, reads.len(), begun) => {
                begun = begin(&shared, &mut reads);
                due = begun + pause(&shared);
            }
            // One that panicked is none of this task's business: the next one is due anyway.
            Some(joined) = reads.join_next() => {
                let Ok((after, answer)) = joined else { continue };
                due = Instant::now() + pause(&shared);
                match answer {
                    Ok((slot, account)) => {
                        if observed.send(Observation::Read { slot, account, after }).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => tracing::debug!(address = %shared.address, %error, "watched account not read"),
                }
            }
        }
    }
}

fn pause(shared: &Shared) -> Duration {
    let up = shared.connected.load(Ordering::Relaxed) > 0;
    if up { shared.config.refresh } else { shared.config.poll }
}

fn begin(shared: &Arc<Shared>, reads: &mut JoinSet<Answer>) -> Instant {
    let after = shared.delivered.load(Ordering::Relaxed);
    let (rpc, address) = (shared.rpc.clone(), shared.address);
    reads.spawn(async move { (after, rpc.account_at(address).await) });
    Instant::now()
}

/// Waits until a read is wanted and may be begun: not right after the last one, whatever the websockets say, and beside
/// others only if they have had their time.
async fn wanted(shared: &Shared, reads: usize, begun: Instant) {
    let config = &shared.config;
    if reads >= READS_MAX {
        return std::future::pending().await;
    }
    if reads == 0 {
        sleep_until(begun + config.read_gap).await;
        shared.read_wanted.notified().await;
    } else {
        // The state of a read that is under way may be older than what asks for another.
        let asked = async {
            sleep_until(begun + config.read_gap).await;
            shared.read_wanted.notified().await;
        };
        tokio::select! {
            () = asked => {}
            () = sleep_until(begun + config.read_patience) => {}
        }
    }
}
