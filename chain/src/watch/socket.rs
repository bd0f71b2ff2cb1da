//! One websocket of a watch: connect, subscribe, listen until it fails or falls silent, pause, again.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::{FutureExt as _, StreamExt as _};
use psyche_messages::Slot;
use solana_account_decoder_client_types::{UiAccount, UiAccountEncoding};
use solana_client::rpc_config::RpcAccountInfoConfig;
use solana_commitment_config::CommitmentConfig;
use solana_pubsub_client::nonblocking::pubsub_client::{PubsubClient, PubsubClientError};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::timeout;

use super::Shared;
use super::merge::Observation;
use crate::convert::key;
use crate::endpoint::WsUrl;
use crate::rpc::AccountRead;

/// Messages that one websocket may send within [`FLOOD_WINDOW`]: far more than a chain has slots and an account changes.
/// The library's queues have no bound, but they are emptied at once, and whoever fills them without end is cut off.
const MESSAGES_MAX: u32 = 4_000;
const FLOOD_WINDOW: Duration = Duration::from_secs(2);
/// How often it is looked whether a provider of another chain has come to its senses.
const DISTRUST_PAUSE: Duration = Duration::from_secs(1);

/// How a connection ended.
#[derive(Debug)]
enum End {
    /// It could not be made, or no subscription could.
    NotConnected,
    /// The server ended it, or it broke.
    Closed,
    /// No slot for too long.
    Silent,
    /// More messages than any chain has to tell.
    Flooding,
    /// Its provider turned out to serve another chain.
    Distrusted,
    /// The library panicked. A watch that quietly loses a websocket for good would be worse than trying again.
    Panicked,
    /// Nobody listens to the watch any more.
    Unheard,
}

/// Keeps one websocket subscribed until nobody listens.
pub(super) async fn run(shared: Arc<Shared>, pair: usize, url: WsUrl, observed: mpsc::Sender<Observation>) {
    let mut attempt = 0;
    loop {
        trusted(&shared, pair).await;
        let started = Instant::now();
        let end = AssertUnwindSafe(connection(&shared, pair, &url, &observed)).catch_unwind().await;
        let end = end.unwrap_or(End::Panicked);
        let lived = started.elapsed();
        tracing::debug!(endpoint = %url, ?end, lived_ms = lived.as_millis(), attempt, "websocket ended");
        if matches!(end, End::Unheard) {
            return;
        }
        // A server that accepts and closes at once must not be asked in a tight loop.
        if !matches!(end, End::NotConnected | End::Panicked) && lived >= shared.config.proven_after {
            attempt = 0;
        }
        tokio::time::sleep(shared.config.backoff.delay(attempt, rand::random())).await;
        attempt = attempt.saturating_add(1);
    }
}

/// Waits until the pair's websocket may be used.
async fn trusted(shared: &Shared, pair: usize) {
    let mut trust = shared.rpc.pair_trust();
    while !shared.rpc.pair_trusted(pair) {
        // An error means that the client is gone, and this watch with it before long.
        let _changed = timeout(DISTRUST_PAUSE, trust.changed()).await;
    }
}

async fn connection(shared: &Shared, pair: usize, url: &WsUrl, observed: &mpsc::Sender<Observation>) -> End {
    let within = shared.config.connect_timeout;
    let Some(client) = settled(url, timeout(within, PubsubClient::new(url.expose())).await) else {
        return End::NotConnected;
    };
    let end = subscribed(shared, pair, url, &client, observed).await;
    // A dead connection can't be closed politely; it ends with the client in any case.
    let _closed = timeout(Duration::from_millis(200), client.shutdown()).await;
    end
}

async fn subscribed(
    shared: &Shared,
    pair: usize,
    url: &WsUrl,
    client: &PubsubClient,
    observed: &mpsc::Sender<Observation>,
) -> End {
    let within = shared.config.connect_timeout;
    let config = RpcAccountInfoConfig {
        encoding: Some(UiAccountEncoding::Base64Zstd),
        commitment: Some(CommitmentConfig::confirmed()),
        ..Default::default()
    };
    let address = key(shared.address);
    let account = client.account_subscribe(&address, Some(config));
    let Some((mut updates, _unsubscribe)) = settled(url, timeout(within, account).await) else {
        return End::NotConnected;
    };
    let Some((mut slots, _unsubscribe_slots)) = settled(url, timeout(within, client.slot_subscribe()).await) else {
        return End::NotConnected;
    };
    let _up = Up::new(shared);
    // What changed before the subscription took hold is known only to a read. A server may acknowledge a subscription
    // before it has begun to watch, so the first heartbeat asks for one more.
    shared.read_wanted.notify_one();
    let mut heartbeat = None;
    let mut flood = Flood::new();
    loop {
        tokio::select! {
            update = updates.next() => {
                let Some(update) = update else { return End::Closed };
                if !pass_on(shared, observed, update.context.slot, update.value, heartbeat) {
                    return End::Unheard;
                }
            }
            slot = slots.next() => {
                let Some(slot) = slot else { return End::Closed };
                if heartbeat.replace(Slot(slot.slot)).is_none() {
                    shared.read_wanted.notify_one();
                }
            }
            () = tokio::time::sleep(shared.config.silence) => return End::Silent,
        }
        if flood.rises() {
            return End::Flooding;
        }
        if !shared.rpc.pair_trusted(pair) {
            return End::Distrusted;
        }
    }
}

/// Hands a notification to the merger; false if nobody listens. Never waits: what finds no room, or can't be unpacked, is
/// asked for by a read.
fn pass_on(
    shared: &Shared,
    observed: &mpsc::Sender<Observation>,
    slot: u64,
    account: UiAccount,
    heartbeat: Option<Slot>,
) -> bool {
    let Some(account) = AccountRead::unpack(Slot(slot), account) else {
        shared.read_wanted.notify_one();
        return true;
    };
    let heartbeat = heartbeat.unwrap_or(account.slot);
    match observed.try_send(Observation::Told { account, heartbeat }) {
        Ok(()) => true,
        Err(TrySendError::Full(_)) => {
            shared.read_wanted.notify_one();
            true
        }
        Err(TrySendError::Closed(_)) => false,
    }
}

/// Counts messages.
struct Flood {
    since: Instant,
    messages: u32,
}

impl Flood {
    fn new() -> Self {
        Self { since: Instant::now(), messages: 0 }
    }

    /// Counts a message; true if there were too many.
    fn rises(&mut self) -> bool {
        if self.since.elapsed() > FLOOD_WINDOW {
            *self = Self::new();
        }
        self.messages += 1;
        self.messages > MESSAGES_MAX
    }
}

fn settled<T>(url: &WsUrl, result: Result<Result<T, PubsubClientError>, tokio::time::error::Elapsed>) -> Option<T> {
    match result {
        Ok(Ok(value)) => Some(value),
        // The error's text may repeat the URL with its key, so only its kind is told.
        Ok(Err(error)) => {
            tracing::debug!(endpoint = %url, kind = kind(&error), "websocket not connected");
            None
        }
        Err(_elapsed) => {
            tracing::debug!(endpoint = %url, kind = "timeout", "websocket not connected");
            None
        }
    }
}

const fn kind(error: &PubsubClientError) -> &'static str {
    match error {
        PubsubClientError::UrlParseError(_) => "url",
        PubsubClientError::ConnectionError(_) => "connection",
        PubsubClientError::WsError(_) | PubsubClientError::ConnectionClosed(_) => "closed",
        PubsubClientError::SubscribeFailed { .. } | PubsubClientError::RequestFailed { .. } => "refused",
        _ => "protocol",
    }
}

/// Counts this websocket as connected for as long as it lives; when the last one goes, polling begins at once.
struct Up<'a>(&'a Shared);

impl<'a> Up<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.connected.fetch_add(1, Ordering::Relaxed);
        Self(shared)
    }
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        self.0.connected.fetch_sub(1, Ordering::Relaxed);
        self.0.read_wanted.notify_one();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use super::*;

    /// The TLS library panics where more than one of its back ends is compiled in and none is chosen.
    #[tokio::test]
    async fn an_encrypted_connection_to_a_server_without_encryption_is_an_error() {
        crate::rpc::transport::choose_tls();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: WsUrl = format!("wss://{}", listener.local_addr().unwrap()).parse().unwrap();
        let server = tokio::spawn(async move { listener.accept().await.map(drop) });
        let connected = timeout(Duration::from_secs(10), PubsubClient::new(url.expose())).await;
        assert!(settled(&url, connected).is_none());
        server.await.unwrap().unwrap();
    }
}
