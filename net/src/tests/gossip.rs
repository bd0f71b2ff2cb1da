//! Gossip between nodes, and what becomes of gossip that nobody should send.

use futures::StreamExt;
use libp2p::Swarm;
use libp2p::gossipsub;
use libp2p::swarm::SwarmEvent;

use psyche_messages::{BatchInterval, BlobHash, ManifestAnnounced, ResultAnnounced, SnapshotAnnounced};

use super::*;
use crate::behaviour::{self, Behaviour, BehaviourEvent, Role, topic_of};
use crate::identity::keypair_of;
use crate::wire::{ENVELOPE_BYTES_MAX, INDEX_BYTES_MAX, MANIFEST_BYTES_MAX, Signer, Wire};

/// What comes of `hears` while the author of a message repeats it, as whoever said it does.
async fn while_repeated<T>(author: &Node, messages: &[RoundMessage], hears: impl Future<Output = T>) -> T {
    let repeating = async {
        let mut every = tokio::time::interval(Duration::from_millis(100));
        loop {
            let _ = every.tick().await;
            for message in messages {
                drop(author.net.publish(message.clone()).await.unwrap());
            }
        }
    };
    tokio::select! {
        heard = hears => heard,
        () = repeating => unreachable!("it loops"),
    }
}

async fn gossip_reaches_everybody_by(listen: &str) {
    let mut a = start(1, listen, &[]).await;
    let mut b = start(2, listen, &[&a]).await;
    let mut c = start(3, listen, &[&a]).await;
    b.connects_to(&a).await;
    c.connects_to(&a).await;
    let from_a = a.net.publish(digest(1)).await.unwrap();
    let from_b = b.net.publish(digest(2)).await.unwrap();
    let from_c = c.net.publish(digest(3)).await.unwrap();
    for (node, expected) in [(&mut a, [&from_b, &from_c]), (&mut b, [&from_a, &from_c]), (&mut c, [&from_a, &from_b])] {
        let mut heard = [node.hears().await, node.hears().await];
        heard.sort_by_key(|signed| signed.message.round().step);
        assert_eq!([&heard[0], &heard[1]], expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gossip_reaches_everybody_by_quic() {
    gossip_reaches_everybody_by(QUIC).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gossip_reaches_everybody_by_tcp() {
    gossip_reaches_everybody_by(TCP).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_without_peers_waits_for_the_first_and_each_later_one() {
    let a = start(1, QUIC, &[]).await;
    let signed = a.net.publish(digest(7)).await.unwrap();
    let mut b = start(2, QUIC, &[&a]).await;
    assert_eq!(b.hears().await, signed);
    let mut c = start(3, QUIC, &[&a]).await;
    assert_eq!(c.hears().await, signed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_message_is_reported_once() {
    let a = start(1, QUIC, &[]).await;
    let mut b = start(2, QUIC, &[&a]).await;
    b.connects_to(&a).await;
    let first = a.net.publish(digest(1)).await.unwrap();
    assert_eq!(b.hears().await, first);
    // C's coming makes A say everything again.
    let c = start(3, QUIC, &[&a]).await;
    c.connects_to(&a).await;
    let _same = a.net.publish(digest(1)).await.unwrap();
    let last = a.net.publish(digest(2)).await.unwrap();
    assert_eq!(b.hears().await, last);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lost_its_memory_hears_again_what_is_repeated() {
    let a = start(1, QUIC, &[]).await;
    let mut b = start(2, QUIC, &[&a]).await;
    b.connects_to(&a).await;
    let signed = a.net.publish(digest(1)).await.unwrap();
    assert_eq!(b.hears().await, signed);
    b.net.hear_again().await.unwrap();
    assert_eq!(while_repeated(&a, &[digest(1)], b.hears()).await, signed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_find_the_event_queue_full_arrive_later() {
    let a = start(1, QUIC, &[]).await;
    let dir = TempDir::new().unwrap();
    let (net, events) = Net::start_with_queue(config(2, QUIC, &[&a], &dir), 1).await.unwrap();
    let mut b = Node { net, events, dir };
    b.connects_to(&a).await;
    let mut expected = Vec::new();
    for step in 1..=4 {
        expected.push(a.net.publish(digest(step)).await.unwrap());
    }
    let hears = async {
        let mut heard = Vec::new();
        while heard.len() < expected.len() {
            heard.push(b.hears().await);
        }
        heard
    };
    let mut heard = while_repeated(&a, &[1, 2, 3, 4].map(digest), hears).await;
    heard.sort_by_key(|signed| signed.message.round().step);
    assert_eq!(heard, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gossip_of_strangers_counts_once_they_are_members() {
    let a = start(1, QUIC, &[]).await;
    let mut b = start(2, QUIC, &[&a]).await;
    b.net.set_members(&[PeerKey([9; 32])]).await.unwrap();
    b.connects_to(&a).await;
    let signed = a.net.publish(digest(1)).await.unwrap();
    // What A says reaches C through the same connections at the same time.
    let mut c = start(3, QUIC, &[&a]).await;
    assert_eq!(c.hears().await, signed);
    b.net.set_members(&[a.key()]).await.unwrap();
    assert_eq!(while_repeated(&a, &[digest(1)], b.hears()).await, signed);
}

/// A peer that speaks gossip and sends what it likes.
pub(super) struct Liar {
    swarm: Swarm<Behaviour>,
    pub(super) signer: Signer,
}

impl Liar {
    pub(super) async fn meet(seed: u8, victim: &Node) -> Self {
        let secret = Secret::new([seed; 32]);
        let mut swarm = behaviour::build(keypair_of(&secret), &RUN, Role::default()).unwrap();
        swarm.dial(victim.net.presence().listening[0].parse::<libp2p::Multiaddr>().unwrap()).unwrap();
        let mut liar = Self { swarm, signer: Signer::new(&secret, Wire::new(RUN)) };
        let subscribed = |event: &SwarmEvent<BehaviourEvent>| {
            matches!(event, SwarmEvent::Behaviour(BehaviourEvent::Gossip(gossipsub::Event::Subscribed { .. })))
        };
        liar.until(subscribed).await;
        liar
    }

    pub(super) async fn until(&mut self, mut condition: impl FnMut(&SwarmEvent<BehaviourEvent>) -> bool) {
        let swarm = &mut self.swarm;
        in_time("an event of the liar", async { while !condition(&swarm.select_next_some().await) {} }).await;
    }

    pub(super) fn say(&mut self, bytes: Vec<u8>) {
        self.swarm.behaviour_mut().gossip.publish(topic_of(&RUN), bytes).unwrap();
    }

    fn envelope(&self, step: u32) -> Vec<u8> {
        Wire::new(RUN).encode_message(&self.signer.sign(digest(step)).unwrap()).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_foreign_and_oversized_messages_are_refused_and_their_sender_kept_out() {
    let mut a = start(1, QUIC, &[]).await;
    let mut c = start(3, QUIC, &[&a]).await;
    c.connects_to(&a).await;
    let mut liar = Liar::meet(66, &a).await;
    let liar_key = liar.signer.peer_key();

    let mut forged = liar.envelope(1);
    *forged.last_mut().unwrap() ^= 1;
    liar.say(forged);
    let (other_run, secret) = (Wire::new(Address([0x53; 32])), Secret::new([66; 32]));
    let foreign = Signer::new(&secret, other_run).sign(digest(2)).unwrap();
    liar.say(other_run.encode_message(&foreign).unwrap());
    liar.say(vec![1; ENVELOPE_BYTES_MAX + 1]);
    let stolen = Signer::new(&Secret::new([5; 32]), Wire::new(RUN)).sign(digest(3)).unwrap();
    liar.say(Wire::new(RUN).encode_message(&stolen).unwrap());
    // Another version is no lie.
    let mut newer = liar.envelope(4);
    newer[0] = 2;
    liar.say(newer);
    // So far the liar is suspicious, not convicted: what it says truly counts.
    liar.say(liar.envelope(5));
    let closed = |event: &SwarmEvent<BehaviourEvent>| matches!(event, SwarmEvent::ConnectionClosed { .. });
    let heard = async {
        let heard = (a.hears().await, c.hears().await);
        (heard, a, c)
    };
    let driving = async {
        loop {
            drop(liar.swarm.select_next_some().await);
        }
    };
    let ((at_a, at_c), mut a, mut c) = tokio::select! {
        heard = heard => heard,
        () = driving => unreachable!("it loops"),
    };
    for signed in [at_a, at_c] {
        assert_eq!((signed.from, signed.message), (liar_key, digest(5)));
    }

    liar.say(vec![1, 2, 3]);
    liar.until(closed).await;
    let blocked = a.next_of(|event| match event {
        NetEvent::Round(signed) => panic!("heard {signed:?}"),
        NetEvent::PeerBlocked(peer) => Some(peer),
        _ => None,
    });
    assert_eq!(blocked.await, liar_key);
    a.sees("the liar is gone", |presence| !presence.peers.contains(&liar_key)).await;
    let last = a.net.publish(digest(9)).await.unwrap();
    assert_eq!(c.hears().await, last, "nothing else got through to others");
}

/// What a trainer, a witness and a server of snapshots announce, with lengths.
pub(super) fn announcements(step: u32, payload_len: u32, blob_len: usize, index_len: usize) -> [RoundMessage; 3] {
    let (round, blob, address) = (RoundKey::new(1, step), BlobHash([5; 32]), Address([6; 32]));
    let (blob_len, index_len) = (u32::try_from(blob_len).unwrap(), u32::try_from(index_len).unwrap());
    let batch = BatchInterval::new(0, 3).unwrap();
    [
        RoundMessage::Result(ResultAnnounced { round, trainer: address, batch, payload: blob, payload_len }),
        RoundMessage::Manifest(ManifestAnnounced { round, witness: address, root: [7; 32], blob, blob_len }),
        RoundMessage::Snapshot(SnapshotAnnounced { round, digest: Digest([8; 32]), index: blob, index_len }),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_announces_lengths_that_cant_be_is_not_believed_and_kept_out() {
    let mut a = start_with(1, QUIC, &[], |config| config.payload_len = Some(1000)).await;
    let liar = start(2, QUIC, &[&a]).await;
    liar.connects_to(&a).await;
    a.connects_to(&liar).await;
    for message in announcements(1, 1000, MANIFEST_BYTES_MAX, INDEX_BYTES_MAX) {
        let signed = liar.net.publish(message).await.unwrap();
        assert_eq!(a.hears().await, signed);
    }
    let (manifest, index) = (MANIFEST_BYTES_MAX + 1, INDEX_BYTES_MAX + 1);
    let wrong = announcements(2, 1001, manifest, index).into_iter().chain(announcements(3, 999, manifest, index));
    for message in wrong {
        drop(liar.net.publish(message).await.unwrap());
    }
    let blocked = a.next_of(|event| match event {
        NetEvent::Round(signed) if signed.message.round().step.0 > 1 => panic!("heard {signed:?}"),
        NetEvent::PeerBlocked(peer) => Some(peer),
        _ => None,
    });
    assert_eq!(blocked.await, liar.key());
    a.sees("the liar is gone", |presence| !presence.peers.contains(&liar.key())).await;
}
