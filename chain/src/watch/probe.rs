//! Whether a websocket can be followed, found out once.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures::{FutureExt as _, StreamExt as _};
use psyche_messages::Slot;
use solana_pubsub_client::nonblocking::pubsub_client::PubsubClient;
use thiserror::Error;
use tokio::time::timeout;

use crate::endpoint::WsUrl;
use crate::rpc::transport;

/// How a websocket that works answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WebsocketProbe {
    /// How long connecting and subscribing took.
    pub subscribed_after: Duration,
    /// How long the first notification took from there on.
    pub notified_after: Duration,
    /// The slot that it told.
    pub slot: Slot,
}

/// Why a websocket can't be followed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum WebsocketFault {
    /// No connection came about.
    #[error("connect to the websocket")]
    NotConnected,
    /// The server refuses the subscription, or does not answer it.
    #[error("subscribe to slots")]
    NotSubscribed,
    /// Nothing was told.
    #[error("hear anything from the websocket after subscribing")]
    Silent,
}

/// Connects to `url`, subscribes to slots, and waits for the first one; each of the three takes at most `within`.
///
/// # Errors
/// [`WebsocketFault`]: what did not come about. Never the URL.
pub async fn probe_websocket(url: &WsUrl, within: Duration) -> Result<WebsocketProbe, WebsocketFault> {
    transport::choose_tls();
    // The library panics on some answers.
    AssertUnwindSafe(probe(url, within)).catch_unwind().await.unwrap_or(Err(WebsocketFault::NotConnected))
}

async fn probe(url: &WsUrl, within: Duration) -> Result<WebsocketProbe, WebsocketFault> {
    let started = Instant::now();
    let Ok(Ok(client)) = timeout(within, PubsubClient::new(url.expose())).await else {
        return Err(WebsocketFault::NotConnected);
    };
    let Ok(Ok((mut slots, _unsubscribe))) = timeout(within, client.slot_subscribe()).await else {
        return Err(WebsocketFault::NotSubscribed);
    };
    let subscribed_after = started.elapsed();
    let Ok(Some(told)) = timeout(within, slots.next()).await else { return Err(WebsocketFault::Silent) };
    Ok(WebsocketProbe { subscribed_after, notified_after: started.elapsed() - subscribed_after, slot: Slot(told.slot) })
}
