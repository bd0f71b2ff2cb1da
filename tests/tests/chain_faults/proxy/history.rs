//! What a chain looked like some slots ago, for servers that lag.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use psyche_messages::Address;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::http::ask;

/// Moments that are remembered: more than any test lags.
const MOMENTS_MAX: usize = 512;

/// The chain at a slot.
#[derive(Clone, Debug)]
pub(super) struct Moment {
    slot: u64,
    /// Accounts by address, as a server gives them (base64 and zstd).
    pub(super) accounts: BTreeMap<String, Value>,
    pub(super) blockhash: Value,
}

/// Remembers some accounts. Empty unless somebody records.
#[derive(Default)]
pub(crate) struct History {
    moments: Mutex<VecDeque<Moment>>,
    slot: AtomicU64,
}

/// Ends with the value that holds it.
pub(crate) struct Recording(JoinHandle<()>);

impl Drop for Recording {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl History {
    /// The newest slot.
    pub(super) fn slot(&self) -> u64 {
        self.slot.load(Ordering::Relaxed)
    }

    /// How many slots lie behind the first moment.
    pub(crate) fn depth(&self) -> u64 {
        let moments = self.moments.lock().unwrap_or_else(PoisonError::into_inner);
        moments.front().map_or(0, |first| self.slot().saturating_sub(first.slot))
    }

    /// The newest moment at or before `slot`.
    pub(super) fn at(&self, slot: u64) -> Option<Moment> {
        let moments = self.moments.lock().unwrap_or_else(PoisonError::into_inner);
        moments.iter().rev().find(|moment| moment.slot <= slot).cloned()
    }

    /// Records `accounts` every `interval` from now on.
    pub(crate) fn record(self: &Arc<Self>, target: SocketAddr, accounts: &[Address], interval: Duration) -> Recording {
        let (history, accounts) = (Arc::clone(self), accounts.iter().map(Address::to_string).collect::<Vec<_>>());
        Recording(tokio::spawn(async move {
            loop {
                // A chain that is too busy to answer is asked again.
                if let Ok(moment) = look(target, &accounts).await {
                    history.slot.fetch_max(moment.slot, Ordering::Relaxed);
                    let mut moments = history.moments.lock().unwrap_or_else(PoisonError::into_inner);
                    if moments.len() == MOMENTS_MAX {
                        moments.pop_front();
                    }
                    moments.push_back(moment);
                }
                tokio::time::sleep(interval).await;
            }
        }))
    }
}

async fn look(target: SocketAddr, accounts: &[String]) -> Result<Moment> {
    let blockhash = ask(target, "getLatestBlockhash", json!([{"commitment": "confirmed"}])).await?;
    let config = json!({"commitment": "confirmed", "encoding": "base64+zstd"});
    let mut found = ask(target, "getMultipleAccounts", json!([accounts, config])).await?;
    let slot = found["context"]["slot"].as_u64().unwrap_or_default();
    let values = found["value"].as_array_mut().map(std::mem::take).unwrap_or_default();
    let accounts = accounts.iter().cloned().zip(values).collect();
    Ok(Moment { slot, accounts, blockhash: blockhash["value"].clone() })
}
