//! Peers that stop in the middle of a transfer. Nothing here measures time: what proves that nobody waited for them is that
//! their requests are still open when the blob has arrived.

use futures::StreamExt;
use libp2p::Swarm;
use libp2p::request_response::{self, ResponseChannel};
use libp2p::swarm::SwarmEvent;
use psyche_messages::BlobHash;
use tokio::sync::{mpsc, oneshot};

use super::blobs::noise;
use super::*;
use crate::behaviour::{self, Behaviour, BehaviourEvent, Role};
use crate::blobs::{GROUP_BYTES, Tree};
use crate::fetch::FETCHES_MAX;
use crate::identity::keypair_of;
use crate::transfer::{Part, PartResponse};

const GROUP: usize = GROUP_BYTES as usize;

/// A peer that serves the leaves and the first `serves` groups it is asked for, and then takes every request and says nothing.
struct Staller {
    key: PeerKey,
    /// A word for every request that stays without an answer.
    stalled: mpsc::Receiver<()>,
    /// Asks how many of them are still open.
    count: oneshot::Sender<oneshot::Sender<usize>>,
}

fn staller(victim: &Node, bytes: &[u8], serves: usize) -> Staller {
    let secret = Secret::new([66; 32]);
    let mut swarm = behaviour::build(keypair_of(&secret), &RUN, Role::default()).unwrap();
    swarm.dial(victim.net.presence().listening[0].parse::<libp2p::Multiaddr>().unwrap()).unwrap();
    let (say, stalled) = mpsc::channel(64);
    let (count, asked) = oneshot::channel();
    drop(tokio::spawn(stall(swarm, bytes.to_vec(), serves, say, asked)));
    Staller { key: crate::peer_key_of(&secret), stalled, count }
}

async fn stall(
    mut swarm: Swarm<Behaviour>,
    bytes: Vec<u8>,
    mut serves: usize,
    say: mpsc::Sender<()>,
    mut asked: oneshot::Receiver<oneshot::Sender<usize>>,
) {
    let (hash, tree) = Tree::of(&bytes);
    let mut open: Vec<ResponseChannel<PartResponse>> = Vec::new();
    loop {
        let event = tokio::select! {
            Ok(reply) = &mut asked => {
                // Whoever asked may have gone.
                let _told = reply.send(open.iter().filter(|channel| channel.is_open()).count());
                return;
            }
            event = swarm.select_next_some() => event,
        };
        let SwarmEvent::Behaviour(BehaviourEvent::Blobs(request_response::Event::Message { message, .. })) = event else {
            continue;
        };
        let request_response::Message::Request { request, channel, .. } = message else { continue };
        assert_eq!(request.hash(), hash);
        let response = match request.part() {
            Part::Leaves(first) => Some(PartResponse::Bytes(tree.leaves_from(first, usize::MAX))),
            Part::Group(group) | Part::GroupFromYou(group) if serves > 0 => {
                serves -= 1;
                bytes.chunks(GROUP).nth(group as usize).map(|bytes| PartResponse::Bytes(bytes.to_vec()))
            }
            Part::Group(_) | Part::GroupFromYou(_) => None,
        };
        match response {
            Some(response) => drop(swarm.behaviour_mut().blobs.send_response(channel, response)),
            None => {
                open.push(channel);
                // One word is enough.
                let _said = say.try_send(());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blobs_that_are_announced_and_never_served_keep_no_other_waiting() {
    let a = start(1, QUIC, &[]).await;
    let b = start(2, QUIC, &[&a]).await;
    b.connects_to(&a).await;
    // Of one group, and of several, whose tree comes first: more than there are places for.
    let withheld: Vec<_> =
        (0..2 * FETCHES_MAX as u64).map(|seed| noise([GROUP / 2, 2 * GROUP][seed as usize % 2], seed)).collect();
    let fetches = withheld.iter().map(|bytes| {
        let (net, author, hash, len) = (b.net.clone(), a.key(), BlobHash::of(bytes), bytes.len() as u64);
        tokio::spawn(async move { net.fetch(hash, len, &[author], 10 * DEADLINE).await })
    });
    let fetches: Vec<_> = fetches.collect();
    for len in [GROUP / 2, 2 * GROUP] {
        let bytes = noise(len, 99);
        let hash = a.net.put(bytes.clone()).await.unwrap();
        b.net.fetch(hash, len as u64, &[a.key()], DEADLINE).await.unwrap();
        assert!(b.net.get(hash).await.unwrap().unwrap() == bytes);
    }
    assert!(fetches.iter().all(|fetch| !fetch.is_finished()), "all the others wait for theirs");
    // And they get it when it comes.
    a.net.put(withheld[0].clone()).await.unwrap();
    let first = fetches.into_iter().next().unwrap();
    in_time("what was withheld", first).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_blob_is_not_held_up_by_a_peer_that_takes_the_request_and_says_nothing() {
    let a = start(1, QUIC, &[]).await;
    let b = start(2, QUIC, &[&a]).await;
    b.connects_to(&a).await;
    let bytes = noise(GROUP / 2, 1);
    let hash = a.net.put(bytes.clone()).await.unwrap();
    let mut staller = staller(&b, &bytes, 0);
    b.sees("the peer that will stall", |presence| presence.peers.contains(&staller.key)).await;
    let fetching = tokio::spawn({
        // The author is offered only once the other one was asked.
        let (net, providers) = (b.net.clone(), [staller.key]);
        async move { net.fetch(hash, bytes.len() as u64, &providers, DEADLINE).await }
    });
    in_time("the stall", staller.stalled.recv()).await.unwrap();
    b.net.set_members(&[a.key()]).await.unwrap();
    fetching.await.unwrap().unwrap();
    let (reply, open) = oneshot::channel();
    staller.count.send(reply).unwrap();
    assert!(open.await.unwrap() > 0, "the blob is here, and the stalled request was neither answered nor given up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_stops_in_the_middle_of_a_transfer_is_not_waited_for() {
    let a = start(1, QUIC, &[]).await;
    let b = start(2, QUIC, &[&a]).await;
    b.connects_to(&a).await;
    let bytes = noise(24 * GROUP, 1);
    let (hash, len) = (BlobHash::of(&bytes), bytes.len() as u64);
    let mut staller = staller(&b, &bytes, 4);
    b.sees("the peer that will stall", |presence| presence.peers.contains(&staller.key)).await;
    let fetching = tokio::spawn({
        let (net, providers) = (b.net.clone(), [staller.key, a.key()]);
        async move { net.fetch(hash, len, &providers, DEADLINE).await }
    });
    // Only now is there anybody else who has it, so that the staller is in the middle of the transfer for certain.
    in_time("the stall", staller.stalled.recv()).await.unwrap();
    a.net.put(bytes.clone()).await.unwrap();
    fetching.await.unwrap().unwrap();
    assert!(b.net.presence().peers.contains(&staller.key), "slow is no offence");
    let (reply, open) = oneshot::channel();
    staller.count.send(reply).unwrap();
    assert!(open.await.unwrap() > 0, "the blob is here, and the stalled requests were neither answered nor given up");
    assert!(b.net.get(hash).await.unwrap().unwrap() == bytes);
}
