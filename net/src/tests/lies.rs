//! What is said of blobs and is not so: who pays, and who does not wait for it.

use libp2p::swarm::SwarmEvent;
use psyche_messages::BlobHash;

use super::blobs::noise;
use super::gossip::{Liar, announcements};
use super::*;
use crate::wire::{INDEX_BYTES_MAX, MANIFEST_BYTES_MAX, Signer, Wire};
use crate::{FetchError, Lie};

/// Fetches what `a` has, of `len` bytes, while a fetch of the same name with another length waits for a liar.
async fn fetched_beside_a_lie(len: usize, said: u64) {
    let a = start(1, QUIC, &[]).await;
    let liar = start(9, QUIC, &[]).await;
    let b = start(2, QUIC, &[&a, &liar]).await;
    b.connects_to(&a).await;
    b.connects_to(&liar).await;
    let bytes = noise(len, 1);
    let hash = BlobHash::of(&bytes);
    let (lied, true_ones, both) = ([liar.key()], [a.key()], [liar.key(), a.key()]);
    let late = async {
        // The lie is on its way before the honest announcement comes.
        a.net.put(bytes.clone()).await.unwrap();
        b.net.fetch(hash, len as u64, &true_ones, DEADLINE).await
    };
    tokio::select! {
        biased;
        lie = b.net.fetch(hash, said, &lied, 2 * DEADLINE) => panic!("the lie came first: {lie:?}"),
        fetched = late => fetched.unwrap(),
    }
    assert!(b.net.get(hash).await.unwrap().unwrap() == bytes);
    // From now on it is certain that whoever says so lies, at once and for nothing.
    let error = b.net.fetch(hash, said, &both, DEADLINE).await.unwrap_err();
    assert!(matches!(error, FetchError::Length { actual, .. } if actual == len as u64), "{error}");
    assert_eq!(b.net.blobs().stored_bytes(), len as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_length_that_is_announced_first_does_not_hold_up_the_right_one() {
    fetched_beside_a_lie(1_000, 999).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_of_several_groups_that_is_announced_as_a_short_one_arrives_all_the_same() {
    fetched_beside_a_lie(700_000, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_blob_that_is_announced_as_a_long_one_arrives_all_the_same() {
    fetched_beside_a_lie(1_000, 700_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_passes_wrong_announcements_on_as_its_own_pays_and_their_author_does_not() {
    let mut a = start_with(1, QUIC, &[], |config| config.payload_len = Some(1000)).await;
    let author_secret = Secret::new([5; 32]);
    let author = start(5, QUIC, &[&a]).await;
    assert_eq!(author.key(), crate::peer_key_of(&author_secret));
    a.connects_to(&author).await;
    let mut liar = Liar::meet(66, &a).await;
    let liar_key = liar.signer.peer_key();
    let (manifest, index) = (MANIFEST_BYTES_MAX + 1, INDEX_BYTES_MAX + 1);
    // An announcement is signed by its author: under another name it is no announcement at all.
    for message in announcements(1, 999, manifest, index).into_iter().chain(announcements(2, 999, manifest, index)) {
        let signed = Signer::new(&author_secret, Wire::new(RUN)).sign(message).unwrap();
        liar.say(Wire::new(RUN).encode_message(&signed).unwrap());
    }
    liar.until(|event| matches!(event, SwarmEvent::ConnectionClosed { .. })).await;
    let blocked = a.next_of(|event| match event {
        NetEvent::Round(signed) => panic!("heard {signed:?}"),
        NetEvent::PeerBlocked(peer) => Some(peer),
        _ => None,
    });
    assert_eq!(blocked.await, liar_key);
    let signed = author.net.publish(digest(3)).await.unwrap();
    assert_eq!(a.hears().await, signed, "the author is in good standing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_found_out_by_the_node_is_kept_out_by_the_network() {
    for (lie, times) in [(Lie::FalseLog, 2), (Lie::Mislabelled, 5)] {
        let mut a = start(1, QUIC, &[]).await;
        let liar = start(2, QUIC, &[&a]).await;
        a.connects_to(&liar).await;
        for _ in 1..times {
            a.net.blame(liar.key(), lie).await.unwrap();
        }
        let signed = liar.net.publish(digest(1)).await.unwrap();
        let heard = a.next_of(|event| match event {
            NetEvent::PeerBlocked(peer) => panic!("{peer} is kept out too early"),
            NetEvent::Round(signed) => Some(signed),
            _ => None,
        });
        assert_eq!(heard.await, signed, "one lie less is not enough");
        a.net.blame(liar.key(), lie).await.unwrap();
        let blocked = a.next_of(|event| if let NetEvent::PeerBlocked(peer) = event { Some(peer) } else { None });
        assert_eq!(blocked.await, liar.key());
        a.sees("the liar is gone", |presence| presence.peers.is_empty()).await;
    }
}
