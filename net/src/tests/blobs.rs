//! Blobs between nodes.

use super::*;
use psyche_messages::BlobHash;

use crate::FetchError;

/// Bytes without repetition.
fn noise(len: usize, seed: u64) -> Vec<u8> {
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
    let mut wrong = bytes;
    *wrong.last_mut().unwrap() ^= 1;
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
    let error = b.net.fetch(hash, 1 << 40, &[a.key()], timeout).await.unwrap_err();
    assert!(matches!(error, FetchError::Timeout { asked: 1, refused: 0, .. }), "{error}");
    fetch(&b, hash, 1000, &[a.key()]).await.unwrap();
    let error = b.net.fetch(hash, 999, &[a.key()], timeout).await.unwrap_err();
    assert!(matches!(error, FetchError::Length { len: 999, actual: 1000, .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_blobs_and_blobs_of_one_range_arrive() {
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
async fn a_cancelled_fetch_leaves_no_bytes_and_no_claim_on_the_quota() {
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
