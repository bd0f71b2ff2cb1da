//! WebSocket servers with no chain behind them: a node has a good provider as well, and must neither suffer nor spin.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use futures::{SinkExt as _, StreamExt as _};
use psyche_chain::{EndpointPair, PairTrust, Rpc};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, accept_async};

use crate::play::{Gait, Play};
use crate::proxy::{Faults, Link};
use crate::record::Record;
use crate::stage::{STEADY, Stage, client};

/// A server that `meet`s everybody who connects.
struct Hostile {
    address: SocketAddr,
    met: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Hostile {
    async fn start<F: Future<Output = Result<()>> + Send + 'static>(
        meet: impl Fn(TcpStream) -> F + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let met = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&met);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                // How a client that is treated like this leaves is its own affair.
                let meeting = meet(stream);
                tokio::spawn(async move { drop(meeting.await) });
            }
        });
        Ok(Self { address, met, task })
    }

    fn met(&self) -> u64 {
        self.met.load(Ordering::Relaxed)
    }

    /// A client of `stage`'s second provider and this websocket.
    fn beside(&self, stage: &Stage) -> Result<Rpc> {
        let good = stage.endpoints[1].pair()?;
        client(vec![EndpointPair::parse("", &format!("ws://{}", self.address))?, good])
    }
}

/// Greets a client and grants it whatever it subscribes to.
async fn subscribed(stream: TcpStream, subscriptions: usize) -> Result<WebSocketStream<TcpStream>> {
    let mut socket = accept_async(stream).await?;
    let mut granted = 0;
    while granted < subscriptions {
        let Some(asked) = socket.next().await.transpose()? else { anyhow::bail!("it left") };
        if let Message::Text(text) = asked {
            let asked: Value = serde_json::from_str(&text)?;
            granted += 1;
            let reply = json!({"jsonrpc": "2.0", "id": asked["id"], "result": granted});
            socket.send(Message::text(reply.to_string())).await?;
        }
    }
    Ok(socket)
}

fn slot(slot: u64) -> Message {
    let result = json!({"slot": slot, "parent": slot, "root": slot});
    let about = json!({"jsonrpc": "2.0", "method": "slotNotification", "params": {"subscription": 2, "result": result}});
    Message::text(about.to_string())
}

fn account(slot: u64, data: &str, encoding: &str) -> Message {
    let value = json!({"lamports": 1, "owner": "4SHugWqSXwKE5fqDchkJcPEqnoZE22VYKtSTVm7axbT7", "data": [data, encoding],
        "executable": false, "rentEpoch": 0, "space": 0});
    let result = json!({"context": {"slot": slot}, "value": value});
    let about = json!({"jsonrpc": "2.0", "method": "accountNotification", "params": {"subscription": 1, "result": result}});
    Message::text(about.to_string())
}

/// A run goes through its phases, and the node sees all of them while `hostile` does what it does until `done`.
async fn endure(hostile: Hostile, mut done: impl FnMut(&Hostile, &Stage) -> bool) -> Result<()> {
    let mut stage = Stage::start(STEADY, 1).await?;
    stage.rpc = hostile.beside(&stage)?;
    let record = Record::start(&stage);
    stage.resume().await?;
    let mut play = Play::start(&stage, &record, Gait::Seen, true);
    while !done(&hostile, &stage) {
        play.phases(1).await?;
    }
    play.phases(3).await?;
    play.go(Gait::Halt);
    let truth = play.settled().await?;
    record.sees(truth.nonce).await?;
    record.must_match(&truth, None)?;
    drop((record, play, hostile));
    stage.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos_a_server_that_accepts_and_closes_is_not_asked_in_a_tight_loop() -> Result<()> {
    let hostile = Hostile::start(async |stream| {
        drop(stream);
        Ok(())
    })
    .await?;
    let mut phases = 0;
    // Its pauses double from 80 ms on, so hundreds of attempts would take hours.
    endure(hostile, move |hostile, _| {
        phases += 1;
        assert!(hostile.met() < 100, "{} connections", hostile.met());
        phases > 12 && hostile.met() > 2
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos_a_server_that_greets_and_closes_is_not_asked_in_a_tight_loop() -> Result<()> {
    let hostile = Hostile::start(async |stream| {
        drop(subscribed(stream, 2).await?);
        Ok(())
    })
    .await?;
    let mut phases = 0;
    endure(hostile, move |hostile, _| {
        phases += 1;
        assert!(hostile.met() < 100, "{} connections", hostile.met());
        phases > 12 && hostile.met() > 2
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos_a_server_that_never_answers_is_given_up() -> Result<()> {
    let hostile = Hostile::start(async |stream| {
        let _open = stream;
        std::future::pending().await
    })
    .await?;
    endure(hostile, |hostile, _| hostile.met() > 1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos_a_server_that_floods_is_cut_off() -> Result<()> {
    let hostile = Hostile::start(async |stream| {
        let mut socket = subscribed(stream, 2).await?;
        // In bursts, since this machine has a chain to run as well.
        for burst in 0_u64.. {
            for at in 0..6_000 {
                socket.feed(slot(burst * 6_000 + at)).await?;
            }
            socket.flush().await?;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Ok(())
    })
    .await?;
    // It is met again only because it was left.
    endure(hostile, |hostile, _| hostile.met() > 1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos_a_frame_beyond_the_bound_ends_the_connection() -> Result<()> {
    let hostile = Hostile::start(async |stream| {
        let mut socket = subscribed(stream, 2).await?;
        // A text frame of a gibibyte, of which nothing ever comes: header, length in eight bytes (RFC 6455, section 5.2).
        let mut header = vec![0x81, 127];
        header.extend_from_slice(&(1_u64 << 30).to_be_bytes());
        socket.get_mut().write_all(&header).await?;
        // Slots would keep it alive for ever, but they would be a part of the frame.
        while let Some(message) = socket.next().await.transpose()? {
            drop(message);
        }
        Ok(())
    })
    .await?;
    endure(hostile, |hostile, _| hostile.met() > 1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos_garbage_in_notifications_costs_reads_and_nothing_else() -> Result<()> {
    let hostile = Hostile::start(async |stream| {
        let mut socket = subscribed(stream, 2).await?;
        for at in 1_u64.. {
            let garbage = [
                account(at, "!", "base64"),
                account(u64::MAX, "AAAA", "base64"),
                account(at, "AAAA", "base64+zstd"),
                slot(u64::MAX),
                Message::text(r#"{"jsonrpc":"2.0","method":"accountNotification","params":{"subscription":1,"result":7}}"#),
                Message::binary(vec![0; 100]),
            ];
            for message in garbage {
                socket.send(message).await?;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    })
    .await?;
    let mut phases = 0;
    endure(hostile, move |hostile, stage| {
        phases += 1;
        assert!(hostile.met() < 100);
        phases > 8 && stage.endpoints[1].http.asked("getAccountInfo") > 5
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos_messages_that_are_no_json_end_the_connection_and_nothing_else() -> Result<()> {
    let hostile = Hostile::start(async |stream| {
        let mut socket = subscribed(stream, 2).await?;
        socket.send(Message::text("{")).await?;
        while let Some(message) = socket.next().await.transpose()? {
            drop(message);
        }
        Ok(())
    })
    .await?;
    endure(hostile, |hostile, _| hostile.met() > 1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos_the_websocket_of_a_provider_on_another_chain_is_not_believed() -> Result<()> {
    let stage = Stage::start(STEADY, 1).await?;
    let elsewhere = Faults { genesis: Some("4uhcVJyU9pJkvQyS88uRDiswHXSCkY3zQawwpjk2NsNY".into()), ..Faults::default() };
    // Of two that disagree the one is believed that was believed before.
    stage.endpoints[1].http.be(Faults::link(Link::Down)).await;
    stage.rpc.clock().await?;
    stage.endpoints[1].http.be(elsewhere).await;
    let record = Record::start(&stage);
    stage.resume().await?;
    let mut play = Play::start(&stage, &record, Gait::Free, true);
    play.phases(6).await?;
    let refused = |trust: &Vec<PairTrust>| *trust == [PairTrust::Trusted, PairTrust::Refused];
    tokio::time::timeout(Duration::from_secs(60), stage.rpc.pair_trust().wait_for(refused)).await??;
    play.phases(3).await?;
    record.connected(1).await?;
    ensure!(stage.endpoints[1].http.transactions().is_empty(), "nothing is sent to it");
    // It has come to its senses.
    stage.endpoints[1].http.be(Faults::default()).await;
    record.connected(2).await?;
    play.phases(2).await?;
    play.go(Gait::Halt);
    let truth = play.settled().await?;
    record.sees(truth.nonce).await?;
    record.must_match(&truth, None)?;
    drop((record, play));
    stage.stop().await
}
