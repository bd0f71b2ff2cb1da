//! Blobs between nodes.

use futures::StreamExt;
use libp2p::swarm::SwarmEvent;
use libp2p::{Swarm, request_response};
use psyche_messages::BlobHash;

use super::*;
use crate::behaviour::{self, Behaviour, BehaviourEvent, Role};
use crate::blobs::{GROUP_BYTES, Transfer, Tree};
use crate::identity::keypair_of;
use crate::transfer::PartResponse;
use crate::{BlobError, FetchError};

/// Bytes without repetition.
pub(super) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

async fn fetch(node: &Node, hash: BlobHash, len: usize, providers: &[PeerKey]) -> Result<(), FetchError> {
    node.net.fetch(hash, len as u64, providers, DEADLINE).await
}

async fn five_megabytes_arrive_although_the_first_provider_is_dead_by(listen: &str) {
    let dead = start(9, listen, &[]).await;
    let a = start(1, listen, &[]).await;
    let b = start(2, listen, &[&a, &dead]).await;
    b.connects_to(&a).await;
    b.connects_to(&dead).await;
    let bytes = noise(5_000_000, 1);
    let hash = a.net.put(bytes.clone()).await.unwrap();
    dead.net.put(bytes.clone()).await.unwrap();
    dead.net.shutdown().await;
    fetch(&b, hash, bytes.len(), &[dead.key(), a.key()]).await.unwrap();
    assert!(b.net.get(hash).await.unwrap().unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_megabytes_arrive_although_the_first_provider_is_dead_by_quic() {
    five_megabytes_arrive_although_the_first_provider_is_dead_by(QUIC).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_megabytes_arrive_although_the_first_provider_is_dead_by_tcp() {
    five_megabytes_arrive_although_the_first_provider_is_dead_by(TCP).await;
}

/// Makes `liar` serve other bytes in place of `bytes`: the file changes after the store has verified it.
async fn lie_about(liar: &Node, bytes: Vec<u8>) -> BlobHash {
    let hash = liar.net.put(bytes.clone()).await.unwrap();
    let wrong: Vec<u8> = bytes.iter().map(|byte| byte ^ 1).collect();
    std::fs::write(liar.dir.path().join(hash.to_string()), wrong).unwrap();
    hash
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_liar_without_company_is_asked_once_and_leaves_nothing_behind() {
    let liar = start(9, QUIC, &[]).await;
    let b = start(2, QUIC, &[&liar]).await;
    b.connects_to(&liar).await;
    let hash = lie_about(&liar, noise(700_000, 1)).await;
    let timeout = Duration::from_secs(1);
    let error = b.net.fetch(hash, 700_000, &[liar.key()], timeout).await.unwrap_err();
    assert!(matches!(error, FetchError::Timeout { asked: 1, refused: 1, .. }), "{error}");
    let error = b.net.fetch(hash, 700_000, &[liar.key()], timeout).await.unwrap_err();
    assert!(matches!(error, FetchError::Timeout { asked: 0, refused: 0, .. }), "{error}");
    assert_eq!(b.net.blobs().stored_bytes(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_serves_wrong_bytes_is_passed_over_and_in_the_end_kept_out() {
    let liar = start(9, QUIC, &[]).await;
    let a = start(1, QUIC, &[]).await;
    let mut b = start(2, QUIC, &[&a, &liar]).await;
    b.connects_to(&a).await;
    b.connects_to(&liar).await;
    let mut hashes = Vec::new();
    for seed in 0..2 {
        hashes.push(a.net.put(noise(700_000, seed)).await.unwrap());
        lie_about(&liar, noise(700_000, seed)).await;
    }
    for hash in &hashes {
        fetch(&b, *hash, 700_000, &[liar.key(), a.key()]).await.unwrap();
    }
    assert!(b.net.get(hashes[0]).await.unwrap().unwrap() == noise(700_000, 0));
    let blocked = b.next_of(|event| match event {
        NetEvent::PeerBlocked(peer) => Some(peer),
        _ => None,
    });
    assert_eq!(blocked.await, liar.key());
    b.sees("the liar is gone", |presence| presence.peers == [a.key()]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_waits_for_a_blob_and_for_its_provider_to_appear() {
    let a = start(1, QUIC, &[]).await;
    let b = start(2, QUIC, &[&a]).await;
    b.connects_to(&a).await;
    let bytes = noise(300_000, 1);
    let hash = BlobHash::of(&bytes);
    let waiting = tokio::spawn({
        let net = b.net.clone();
        async move { net.fetch(hash, 300_000, &[], DEADLINE).await }
    });
    a.net.put(bytes.clone()).await.unwrap();
    waiting.await.unwrap().unwrap();

    // From B by way of nobody's hint, while two ask for it at once.
    let c = start(3, QUIC, &[&b]).await;
    let (first, second) = tokio::join!(fetch(&c, hash, 300_000, &[]), fetch(&c, hash, 300_000, &[]));
    first.unwrap();
    second.unwrap();
    assert_eq!(c.net.blobs().stored_bytes(), 300_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_length_is_noticed_before_anything_is_fetched() {
    let a = start(1, QUIC, &[]).await;
    let b = start(2, QUIC, &[&a]).await;
    b.connects_to(&a).await;
    let hash = a.net.put(noise(1000, 1)).await.unwrap();
    let timeout = Duration::from_secs(1);
    let error = b.net.fetch(hash, 999, &[a.key()], timeout).await.unwrap_err();
    assert!(matches!(error, FetchError::Timeout { asked: 1, refused: 0, .. }), "{error}");
    // What can't fit is not even asked for.
    let error = b.net.fetch(hash, 1 << 40, &[a.key()], timeout).await.unwrap_err();
    assert!(matches!(error, FetchError::Store { source: BlobError::Full { .. }, .. }), "{error}");
    fetch(&b, hash, 1000, &[a.key()]).await.unwrap();
    let error = b.net.fetch(hash, 999, &[a.key()], timeout).await.unwrap_err();
    assert!(matches!(error, FetchError::Length { len: 999, actual: 1000, .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_blobs_and_blobs_of_one_group_arrive() {
    let a = start(1, QUIC, &[]).await;
    let b = start(2, QUIC, &[&a]).await;
    b.connects_to(&a).await;
    for len in [0, 1, 262_143, 262_144, 262_145] {
        let bytes = noise(len, 3);
        let hash = a.net.put(bytes.clone()).await.unwrap();
        fetch(&b, hash, len, &[a.key()]).await.unwrap();
        assert!(b.net.get(hash).await.unwrap().unwrap() == bytes, "{len}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_fetch_leaves_no_blob_and_its_claim_on_the_quota_is_its_own() {
    let a = start(1, QUIC, &[]).await;
    let b = start_with(2, QUIC, &[&a], |config| config.blob_bytes_max = 6_000_000).await;
    b.connects_to(&a).await;
    let bytes = noise(5_000_000, 1);
    let hash = a.net.put(bytes).await.unwrap();
    for _ in 0..20 {
        let cancelled = b.net.fetch(hash, 5_000_000, &[a.key()], Duration::from_millis(5)).await;
        assert!(matches!(cancelled, Err(FetchError::Timeout { .. }) | Ok(())), "{cancelled:?}");
    }
    fetch(&b, hash, 5_000_000, &[a.key()]).await.unwrap();
    assert_eq!(b.net.blobs().stored_bytes(), 5_000_000);
}

const GROUP: usize = GROUP_BYTES as usize;

/// Gives `node` some groups of a blob, as if it had fetched them; it keeps them while the transfer lives.
fn partly(node: &Node, bytes: &[u8], groups: impl IntoIterator<Item = u32>) -> Transfer {
    let (hash, tree) = Tree::of(bytes);
    let transfer = Transfer::begin(node.net.blobs(), hash, tree).unwrap();
    for group in groups {
        assert!(transfer.write(group, bytes.chunks(GROUP).nth(group as usize).unwrap()).unwrap());
    }
    transfer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_is_put_together_from_peers_of_whom_none_has_all_of_it() {
    let a = start(1, QUIC, &[]).await;
    let b = start(2, QUIC, &[]).await;
    let c = start(3, QUIC, &[&a, &b]).await;
    c.connects_to(&a).await;
    c.connects_to(&b).await;
    let bytes = noise(20 * GROUP + 5, 1);
    let _even = partly(&a, &bytes, (0..=20).filter(|group| group % 2 == 0));
    let _odd = partly(&b, &bytes, (0..=20).filter(|group| group % 2 == 1));
    fetch(&c, BlobHash::of(&bytes), bytes.len(), &[a.key()]).await.unwrap();
    assert!(c.net.get(BlobHash::of(&bytes)).await.unwrap().unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_transfer_is_resumed_after_a_restart_with_what_is_missing_only() {
    let a = start(1, QUIC, &[]).await;
    let b = start(2, QUIC, &[&a]).await;
    b.connects_to(&a).await;
    let bytes = noise(20 * GROUP, 1);
    let (hash, len) = (BlobHash::of(&bytes), bytes.len() as u64);
    let half = partly(&a, &bytes, 0..12);
    let fetching = tokio::spawn({
        let (net, provider) = (b.net.clone(), a.key());
        async move { net.fetch(hash, len, &[provider], DEADLINE).await }
    });
    let store = b.net.blobs().clone();
    let all_there_is = async {
        while store.progress(&hash) != Some(12 * GROUP as u64) {
            tokio::task::yield_now().await;
        }
    };
    in_time("the half that there is", all_there_is).await;
    fetching.abort();
    drop(fetching.await);
    b.net.shutdown().await;
    let Node { net, events, dir } = b;
    drop((net, events, store));
    drop(half);

    let (net, events) = Net::start(config(2, QUIC, &[&a], &dir)).await.unwrap();
    let b = Node { net, events, dir };
    b.connects_to(&a).await;
    a.net.put(bytes.clone()).await.unwrap();
    fetch(&b, hash, bytes.len(), &[a.key()]).await.unwrap();
    assert!(b.net.get(hash).await.unwrap().unwrap() == bytes);
    assert_eq!(b.net.blob_traffic().received_bytes, 8 * GROUP as u64);
}

/// What the author of a blob of `len` bytes sends until eight peers have it, who all learn of it at once.
async fn sent_by_the_author_of(len: usize) -> u64 {
    let author = start(1, QUIC, &[]).await;
    let mut peers = Vec::new();
    for seed in 2..10 {
        peers.push(start(seed, QUIC, &[&author]).await);
    }
    let everybody: Vec<_> = peers.iter().chain([&author]).map(Node::key).collect();
    for node in peers.iter().chain([&author]) {
        node.net.set_members(&everybody).await.unwrap();
    }
    for node in peers.iter().chain([&author]) {
        node.sees("everybody", |presence| presence.members.len() == 8).await;
    }
    let bytes = noise(len, 1);
    let hash = author.net.put(bytes).await.unwrap();
    // Nine nodes at work beside each other on a busy machine take their time.
    let fetches = peers.iter().map(|peer| peer.net.fetch(hash, len as u64, &everybody[8..], 3 * DEADLINE));
    for fetched in futures::future::join_all(fetches).await {
        fetched.unwrap();
    }
    author.net.blob_traffic().sent_bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payload_spreads_to_eight_peers_while_its_author_uploads_it_a_few_times() {
    let len = 8 * GROUP;
    let sent = sent_by_the_author_of(len).await;
    assert!(sent >= len as u64 && sent <= 5 * len as u64, "{sent} of {len}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_payload_spreads_in_the_same_way() {
    let sent = sent_by_the_author_of(100_000).await;
    assert!((100_000..=400_000).contains(&sent), "{sent}");
}

/// A peer that answers the first question for a part with more bytes than were asked for, and every later one with what is no
/// answer at all.
async fn serve_too_much(mut swarm: Swarm<Behaviour>) {
    let mut first = true;
    loop {
        let SwarmEvent::Behaviour(BehaviourEvent::Blobs(request_response::Event::Message { message, .. })) =
            swarm.select_next_some().await
        else {
            continue;
        };
        if let request_response::Message::Request { channel, .. } = message {
            let crowd = PartResponse::Elsewhere(vec![[7; 32]; 1000]);
            let response = if first { PartResponse::Bytes(vec![0; GROUP]) } else { crowd };
            first = false;
            drop(swarm.behaviour_mut().blobs.send_response(channel, response));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_sends_more_than_the_announced_length_is_kept_out_and_has_cost_nothing() {
    let mut b = start(2, QUIC, &[]).await;
    let secret = Secret::new([66; 32]);
    let liar = crate::peer_key_of(&secret);
    let mut swarm = behaviour::build(keypair_of(&secret), &RUN, Role::default()).unwrap();
    swarm.dial(b.net.presence().listening[0].parse::<libp2p::Multiaddr>().unwrap()).unwrap();
    let lying = tokio::spawn(serve_too_much(swarm));
    b.sees("the liar", |presence| presence.peers == [liar]).await;
    let timeout = Duration::from_millis(500);
    for seed in [1, 2] {
        let hash = BlobHash::of(&noise(1000, seed));
        let error = b.net.fetch(hash, 1000, &[liar], timeout).await.unwrap_err();
        assert!(matches!(error, FetchError::Timeout { .. }), "{error}");
    }
    let blocked = b.next_of(|event| match event {
        NetEvent::PeerBlocked(peer) => Some(peer),
        _ => None,
    });
    assert_eq!(blocked.await, liar);
    b.sees("the liar is gone", |presence| presence.peers.is_empty()).await;
    assert_eq!(b.net.blobs().stored_bytes(), 0);
    assert_eq!(std::fs::read_dir(b.dir.path().join("partial")).unwrap().count(), 0);
    lying.abort();
}
