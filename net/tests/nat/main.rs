//! Members behind NAT: hosts in network namespaces, each behind a router that masquerades and lets nobody in, and a relay on the
//! public network between them.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

mod lab;

use std::future::Future;
use std::time::Duration;

use lab::{Host, Lab};
use psyche_messages::{Address, Secret};
use psyche_net::{NetConfig, NetEvent};

/// Nothing here takes longer, also on a machine that is busy with other things.
const DEADLINE: Duration = Duration::from_secs(60);

/// By what the hosts talk.
#[derive(Clone, Copy)]
enum Transport {
    Quic,
    Tcp,
}

impl Transport {
    fn at(self, ip: &str) -> String {
        match self {
            Self::Quic => format!("/ip4/{ip}/udp/4001/quic-v1"),
            Self::Tcp => format!("/ip4/{ip}/tcp/4001"),
        }
    }
}

async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what}: not in time"))
}

/// A relay that serves members only, and two members behind NAT who know of nothing else.
struct Cast {
    relay: Host,
    a: Host,
    b: Host,
    _lab: Lab,
}

async fn play(lab: Lab, transport: Transport) -> Cast {
    let run = Address([0x52; 32]);
    let relay_address = transport.at(Lab::RELAY);
    let relay = lab.host(Lab::RELAY_HOST, |dir| NetConfig {
        listen: vec![relay_address.clone()],
        external: vec![relay_address],
        serves_relay: true,
        ..NetConfig::new(Secret::new([1; 32]), run, dir, 0)
    });
    let known = relay.net.presence().listening;
    let member = |name, seed| {
        lab.host(name, |dir| NetConfig {
            listen: vec![transport.at("0.0.0.0")],
            bootstrap: known.clone(),
            relays: known.clone(),
            ..NetConfig::new(Secret::new([seed; 32]), run, dir, 0)
        })
    };
    let (a, b) = (member("a", 2), member("b", 3));
    let roster = [relay.net.peer_key(), a.net.peer_key(), b.net.peer_key()];
    for host in [&relay, &a, &b] {
        host.net.set_members(&roster).await.unwrap();
    }
    Cast { relay, a, b, _lab: lab }
}

impl Cast {
    async fn a_hands_b_a_blob(&self) {
        let bytes: Vec<u8> = (0..600_000_u32).flat_map(u32::to_le_bytes).collect();
        let len = bytes.len() as u64;
        let hash = self.a.net.put(bytes).await.unwrap();
        self.b.net.fetch(hash, len, &[self.a.net.peer_key()], DEADLINE).await.unwrap();
    }
}

async fn two_hosts_behind_nat_meet_at_a_relay_and_go_on_directly_by(transport: Transport) {
    let mut cast = play(Lab::new(), transport).await;
    let (a, b) = (cast.a.net.peer_key(), cast.b.net.peer_key());
    for (host, other) in [(&mut cast.a, b), (&mut cast.b, a)] {
        let upgraded = async {
            loop {
                match host.events.recv().await.expect("the network has stopped") {
                    NetEvent::PeerUpgraded(peer) if peer == other => break,
                    _ => {}
                }
            }
        };
        in_time("an upgrade to a direct connection", upgraded).await;
    }
    for (host, other) in [(&cast.a, b), (&cast.b, a)] {
        let mut presence = host.net.watch_presence();
        let direct = presence.wait_for(|presence| presence.peers.contains(&other) && !presence.relayed.contains(&other));
        drop(in_time("a direct connection", direct).await.unwrap());
    }
    cast.a_hands_b_a_blob().await;
    // What nobody has reached is no external address; what remains is the relay's word.
    let external = cast.a.net.presence().external;
    assert!(external.iter().all(|address| address.contains("p2p-circuit")), "{external:?}");
    let relay = cast.relay.net.peer_key();
    assert!(cast.a.net.presence().peers.contains(&relay), "the relay stays connected");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hosts_behind_nat_meet_at_a_relay_and_go_on_directly_by_quic() {
    two_hosts_behind_nat_meet_at_a_relay_and_go_on_directly_by(Transport::Quic).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hosts_behind_nat_meet_at_a_relay_and_go_on_directly_by_tcp() {
    two_hosts_behind_nat_meet_at_a_relay_and_go_on_directly_by(Transport::Tcp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hosts_whose_routers_let_nothing_through_exchange_blobs_over_the_relay() {
    let lab = Lab::new();
    lab.part_the_routers();
    let cast = play(lab, Transport::Quic).await;
    for (host, other) in [(&cast.a, cast.b.net.peer_key()), (&cast.b, cast.a.net.peer_key())] {
        let mut presence = host.net.watch_presence();
        let relayed = presence.wait_for(|presence| presence.relayed.contains(&other));
        drop(in_time("a relayed connection", relayed).await.unwrap());
    }
    cast.a_hands_b_a_blob().await;
    assert!(cast.b.net.presence().relayed.contains(&cast.a.net.peer_key()));
    // Who leaves the roster loses the relay: its reservation goes with its connection.
    let (relay, b) = (cast.relay.net.peer_key(), cast.b.net.peer_key());
    cast.relay.net.set_members(&[relay, b]).await.unwrap();
    let mut presence = cast.a.net.watch_presence();
    let alone = presence.wait_for(|presence| presence.peers.is_empty() && presence.external.is_empty());
    drop(in_time("the loss of the relay", alone).await.unwrap());
}
