//! The WebSocket side.

use std::collections::VecDeque;

use anyhow::Result;
use futures::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, accept_async, connect_async};

use super::{Faults, Side};

/// Notifications that are held back at most.
const HELD_MAX: usize = 10_000;

pub(super) async fn serve(stream: TcpStream, side: Side) {
    // A client that goes away in the middle is an error of the connection, and nobody's concern.
    let _gone = relay(stream, side).await;
}

/// A notification that waits, and the slot at which it came.
struct Held {
    slot: u64,
    message: Message,
}

struct Relay {
    client: WebSocketStream<TcpStream>,
    server: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// Notifications of a server that lags.
    late: VecDeque<Held>,
    /// A notification that its successor overtakes.
    overtaken: Option<Message>,
    slot: u64,
}

async fn relay(stream: TcpStream, mut side: Side) -> Result<()> {
    if side.faults().too_many_requests.is_some() {
        // Refused before the handshake, as a provider's front does.
        return Ok(());
    }
    let client = accept_async(stream).await?;
    // In a task of its own, which nobody aborts: the local chain's server does not survive a client that goes away in the
    // middle of its handshake.
    let target = format!("ws://{}", side.target);
    let (server, _) = tokio::spawn(async move { connect_async(target).await }).await??;
    let mut relay = Relay { client, server, late: VecDeque::new(), overtaken: None, slot: 0 };
    loop {
        tokio::select! {
            asked = relay.client.next() => {
                let Some(asked) = asked.transpose()? else { return Ok(()) };
                relay.server.send(asked).await?;
            }
            told = relay.server.next() => {
                let Some(told) = told.transpose()? else { return Ok(()) };
                let faults = side.faults();
                if !faults.delay.is_zero() {
                    tokio::time::sleep(faults.delay).await;
                }
                if !relay.pass_on(told, &faults).await? {
                    return Ok(());
                }
            }
            changed = side.faults.changed() => {
                changed?;
                let lag_slots = side.faults.borrow_and_update().lag_slots;
                relay.release(lag_slots).await?;
            }
        }
    }
}

impl Relay {
    /// Passes a server's message on as `faults` say; false if that was the last one.
    async fn pass_on(&mut self, told: Message, faults: &Faults) -> Result<bool> {
        let about = match &told {
            Message::Text(text) => serde_json::from_str(text).unwrap_or(Value::Null),
            _ => Value::Null,
        };
        let Some(method) = about["method"].as_str() else {
            // The reply to a request, or a frame of the protocol's own.
            self.client.send(told).await?;
            return Ok(true);
        };
        if let Some(slot) = about["params"]["result"]["slot"].as_u64() {
            self.slot = slot;
        }
        if faults.truncated {
            self.break_off(told).await?;
            return Ok(false);
        }
        if faults.lag_slots > 0 {
            if self.late.len() < HELD_MAX {
                self.late.push_back(Held { slot: self.slot, message: told });
            }
            self.release(faults.lag_slots).await?;
        } else if faults.shuffled && method == "accountNotification" {
            self.shuffle(told).await?;
        } else {
            self.client.send(told).await?;
        }
        Ok(true)
    }

    /// Lets go of what is old enough.
    async fn release(&mut self, lag_slots: u64) -> Result<()> {
        while self.late.front().is_some_and(|held| held.slot.saturating_add(lag_slots) <= self.slot || lag_slots == 0) {
            if let Some(held) = self.late.pop_front() {
                self.client.send(held.message).await?;
            }
        }
        Ok(())
    }

    /// Every second notification is overtaken by its successor, and comes twice.
    async fn shuffle(&mut self, told: Message) -> Result<()> {
        match self.overtaken.take() {
            None => self.overtaken = Some(told),
            Some(overtaken) => {
                for message in [told.clone(), overtaken.clone(), told, overtaken] {
                    self.client.send(message).await?;
                }
            }
        }
        Ok(())
    }

    /// Sends the first half of a message's frame and ends the connection.
    async fn break_off(&mut self, told: Message) -> Result<()> {
        let mut bytes = Vec::new();
        Frame::message(told.into_data(), OpCode::Data(Data::Text), true).format(&mut bytes)?;
        self.client.flush().await?;
        let half = bytes.len() / 2;
        let stream = self.client.get_mut();
        stream.write_all(&bytes[..half]).await?;
        stream.flush().await?;
        Ok(())
    }
}
