//! Connections: discovery, members only, loss and return, shutdown.

use futures::StreamExt;
use libp2p::swarm::SwarmEvent;
use psyche_messages::Retry;

use super::*;
use crate::NetError;
use crate::behaviour::{self, Role};
use crate::identity::keypair_of;

async fn members_who_share_a_bootstrap_peer_find_each_other_by(listen: &str) {
    let a = start_with(1, listen, &[], |config| config.members_only = true).await;
    let b = start_with(2, listen, &[&a], |config| config.members_only = true).await;
    let c = start_with(3, listen, &[&a], |config| config.members_only = true).await;
    let everybody = [a.key(), b.key(), c.key()];
    for node in [&a, &b, &c] {
        node.net.set_members(&everybody).await.unwrap();
    }
    for node in [&a, &b, &c] {
        node.sees("both others", |presence| presence.members.len() == 2 && presence.peers == presence.members).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_who_share_a_bootstrap_peer_find_each_other_by_quic() {
    members_who_share_a_bootstrap_peer_find_each_other_by(QUIC).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_who_share_a_bootstrap_peer_find_each_other_by_tcp() {
    members_who_share_a_bootstrap_peer_find_each_other_by(TCP).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused_and_former_members_disconnected() {
    let a = start_with(1, QUIC, &[], |config| config.members_only = true).await;
    let b = start(2, QUIC, &[&a]).await;
    a.net.set_members(&[a.key(), b.key(), PeerKey([0xff; 32])]).await.unwrap();
    a.connects_to(&b).await;

    let mut stranger = behaviour::build(keypair_of(&Secret::new([66; 32])), &RUN, Role::default()).unwrap();
    stranger.dial(a.net.presence().listening[0].parse::<libp2p::Multiaddr>().unwrap()).unwrap();
    let refused = async {
        loop {
            let event = stranger.select_next_some().await;
            if matches!(event, SwarmEvent::ConnectionClosed { .. } | SwarmEvent::OutgoingConnectionError { .. }) {
                return;
            }
        }
    };
    in_time("a refusal", refused).await;
    assert_eq!(a.net.presence().peers, [b.key()]);

    a.net.set_members(&[a.key()]).await.unwrap();
    a.sees("nobody", |presence| presence.peers.is_empty()).await;
}

/// The first node again at the address it had, as soon as the system lets go of it.
async fn restart(listen: &str) -> Node {
    let dir = TempDir::new().unwrap();
    loop {
        match Net::start(config(1, listen, &[], &dir)).await {
            Ok((net, events)) => return Node { net, events, dir },
            Err(error) => match error.retry() {
                Retry::After(backoff) => tokio::time::sleep(backoff.delay(0, 0)).await,
                verdict => panic!("{verdict:?}: {error}"),
            },
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_peer_is_dialled_until_it_is_back_and_hears_what_it_missed() {
    let a = start(1, QUIC, &[]).await;
    let mut b = start(2, QUIC, &[&a]).await;
    b.connects_to(&a).await;
    let address = a.net.presence().listening[0].clone();
    let port = address.split('/').nth(4).unwrap().to_owned();
    a.net.shutdown().await;
    let gone = b.next_of(|event| match event {
        NetEvent::PeerDisconnected(peer) => Some(peer),
        _ => None,
    });
    assert_eq!(gone.await, a.key());
    let missed = b.net.publish(digest(4)).await.unwrap();
    let mut a = in_time("the port to be free again", restart(&format!("/ip4/127.0.0.1/udp/{port}/quic-v1"))).await;
    assert_eq!(a.net.presence().listening, [address]);
    assert_eq!(a.hears().await, missed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_dies_and_comes_back_unnoticed_hears_and_is_heard() {
    let mut a = start(1, QUIC, &[]).await;
    let bootstrap = a.net.presence().listening;
    let start_b = move || {
        // Threads of its own, so that it can end as a process that is killed: without a word to anybody.
        let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let dir = TempDir::new().unwrap();
        let config = NetConfig { bootstrap: bootstrap.clone(), ..config(2, QUIC, &[], &dir) };
        let (net, events) = threads.block_on(Net::start(config)).unwrap();
        (threads, Node { net, events, dir })
    };
    let (threads, b) = tokio::task::spawn_blocking(start_b.clone()).await.unwrap();
    let said = b.net.publish(digest(1)).await.unwrap();
    assert_eq!(a.hears().await, said);
    threads.shutdown_background();
    let (threads, mut b) = tokio::task::spawn_blocking(start_b).await.unwrap();
    let (from_b, from_a) = (b.net.publish(digest(2)).await.unwrap(), a.net.publish(digest(3)).await.unwrap());
    assert_eq!(a.hears().await, from_b);
    assert_eq!(b.hears().await, from_a);
    threads.shutdown_background();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_shutdown_everything_answers_closed() {
    let mut a = start(1, TCP, &[]).await;
    a.net.shutdown().await;
    a.net.shutdown().await;
    assert!(matches!(a.net.publish(digest(1)).await, Err(NetError::Closed)));
    assert!(matches!(a.net.set_members(&[]).await, Err(NetError::Closed)));
    let fetched = a.net.fetch(psyche_messages::BlobHash([0; 32]), 1, &[PeerKey([3; 32])], DEADLINE).await;
    assert!(matches!(fetched, Err(crate::FetchError::Closed)), "{fetched:?}");
    while let Some(event) = a.events.recv().await {
        assert!(matches!(event, NetEvent::Listening(_)), "{event:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_work_is_refused_at_the_start() {
    let dir = TempDir::new().unwrap();
    let started = async |change: fn(&mut NetConfig)| {
        let mut config = config(1, TCP, &[], &dir);
        change(&mut config);
        Net::start(config).await.map(|_| ()).unwrap_err()
    };
    assert!(matches!(started(|config| config.listen.clear()).await, NetError::NoListenAddress));
    assert!(matches!(started(|config| config.listen = vec!["nonsense".to_owned()]).await, NetError::Address { .. }));
    let elsewhere = started(|config| config.listen = vec!["/ip4/192.0.2.1/tcp/0".to_owned()]).await;
    assert!(matches!(elsewhere, NetError::Listen { .. }), "{elsewhere}");
    let nowhere = started(|config| config.bootstrap = vec!["/ip4/127.0.0.1/tcp/1".to_owned()]).await;
    assert!(matches!(nowhere, NetError::BootstrapPeer { .. }), "{nowhere}");
    let no_dir = started(|config| config.blob_dir = "/dev/null/blobs".into()).await;
    assert!(matches!(no_dir, NetError::Blobs(_)), "{no_dir}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_counts_as_external_once_a_peer_has_reached_it() {
    let a = start(1, QUIC, &[]).await;
    let b = start(2, QUIC, &[&a]).await;
    assert_eq!(b.net.presence().external, Vec::<String>::new());
    b.sees("its own address", |presence| presence.external == presence.listening).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_is_no_member_stays_connected() {
    let relay = start(1, QUIC, &[]).await;
    let known = relay.net.presence().listening;
    let member = start_with(2, QUIC, &[], |config| (config.members_only, config.relays) = (true, known)).await;
    member.net.set_members(&[member.key(), PeerKey([9; 32])]).await.unwrap();
    member.connects_to(&relay).await;
    member.net.set_members(&[member.key()]).await.unwrap();
    // Commands are carried out in order: the change has happened when the blob is here.
    let hash = relay.net.put(vec![1; 100]).await.unwrap();
    member.net.fetch(hash, 100, &[relay.key()], DEADLINE).await.unwrap();
    assert_eq!(member.net.presence().peers, [relay.key()]);
}
