//! Nodes on the loopback interface, over real sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

mod blobs;
mod gossip;
mod lies;
mod peers;
mod stalls;

use std::future::Future;
use std::time::Duration;

use psyche_messages::{Address, Digest, DigestAnnounced, PeerKey, RoundKey, RoundMessage, Secret, SignedRoundMessage};
use tempfile::TempDir;

use crate::{EventReceiver, Net, NetConfig, NetEvent, NetHandle, Presence};

/// What the benchmark of net/bench computes with, which is in a workspace that no test run builds.
#[path = "../bench/src/contest.rs"]
mod bench_contest;
#[expect(dead_code, reason = "as above")]
#[path = "../bench/src/usage.rs"]
mod bench_usage;

const RUN: Address = Address([0x52; 32]);

/// Nothing here takes longer, also on a machine that is busy with other things.
const DEADLINE: Duration = Duration::from_secs(20);

const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
const TCP: &str = "/ip4/127.0.0.1/tcp/0";

struct Node {
    net: NetHandle,
    events: EventReceiver,
    dir: TempDir,
}

/// A configuration that listens by `listen`, knows the nodes of `bootstrap`, and lets everybody in.
fn config(seed: u8, listen: &str, bootstrap: &[&Node], dir: &TempDir) -> NetConfig {
    NetConfig {
        listen: vec![listen.to_owned()],
        bootstrap: bootstrap.iter().flat_map(|node| node.net.presence().listening).collect(),
        blob_bytes_max: 64 << 20,
        members_only: false,
        ..NetConfig::new(Secret::new([seed; 32]), RUN, dir.path().to_owned(), 0)
    }
}

async fn start(seed: u8, listen: &str, bootstrap: &[&Node]) -> Node {
    start_with(seed, listen, bootstrap, |_| {}).await
}

async fn start_with(seed: u8, listen: &str, bootstrap: &[&Node], change: impl FnOnce(&mut NetConfig)) -> Node {
    // Silent unless RUST_LOG says otherwise; the first test to come sets it up for all.
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let _others_were_first = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
    let dir = TempDir::new().unwrap();
    let mut config = config(seed, listen, bootstrap, &dir);
    change(&mut config);
    let (net, events) = Net::start(config).await.unwrap();
    Node { net, events, dir }
}

async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what}: not in time"))
}

impl Node {
    fn key(&self) -> PeerKey {
        self.net.peer_key()
    }

    async fn sees(&self, what: &str, condition: impl FnMut(&Presence) -> bool) {
        drop(in_time(what, self.net.watch_presence().wait_for(condition)).await.unwrap());
    }

    async fn connects_to(&self, other: &Self) {
        self.sees("a connection", |presence| presence.peers.contains(&other.key())).await;
    }

    /// The next message, whatever else happens before.
    async fn hears(&mut self) -> SignedRoundMessage {
        let message = self.next_of(|event| match event {
            NetEvent::Round(signed) => Some(signed),
            _ => None,
        });
        message.await
    }

    async fn next_of<T>(&mut self, mut pick: impl FnMut(NetEvent) -> Option<T>) -> T {
        let events = &mut self.events;
        let picked = async {
            loop {
                let event = events.recv().await.expect("the network has stopped");
                if let Some(picked) = pick(event) {
                    return picked;
                }
            }
        };
        in_time("an event", picked).await
    }
}

fn digest(step: u32) -> RoundMessage {
    let digest = Digest([u8::try_from(step % 256).unwrap(); 32]);
    RoundMessage::Digest(DigestAnnounced { round: RoundKey::new(1, step), results: 2, digest })
}
