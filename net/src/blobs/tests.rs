#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

const TTL: Duration = Duration::from_secs(3600);

fn store(bytes_max: u64) -> (TempDir, BlobStore) {
    let dir = TempDir::new().unwrap();
    let store = BlobStore::open(dir.path(), bytes_max, TTL).unwrap();
    (dir, store)
}

fn files_in(dir: &Path) -> usize {
    let files = |path: &Path| fs::read_dir(path).unwrap().filter(|file| file.as_ref().unwrap().path().is_file()).count();
    files(dir) + files(&dir.join(incoming::PARTIAL_DIR))
}

/// Reserved bytes, stored bytes, files.
fn books(store: &BlobStore, dir: &Path) -> (u64, u64, usize) {
    let reserved = store.lock().reserved;
    (reserved, store.stored_bytes(), files_in(dir))
}

#[test]
fn blobs_come_back_by_their_hash_also_after_a_restart() {
    let (dir, store) = store(1000);
    let hash = store.put(b"some bytes").unwrap();
    assert_eq!(hash, BlobHash::of(b"some bytes"));
    assert_eq!(store.put(b"some bytes").unwrap(), hash);
    assert_eq!((store.stored_bytes(), store.len_of(&hash)), (10, Some(10)));
    drop(store);
    let store = BlobStore::open(dir.path(), 1000, TTL).unwrap();
    assert_eq!(store.get(&hash).unwrap().as_deref(), Some(b"some bytes".as_slice()));
    assert_eq!(fs::read(store.path_of(&hash).unwrap()).unwrap(), b"some bytes");
    assert_eq!(store.get(&BlobHash([0; 32])).unwrap(), None);
    assert!(matches!(store.path_of(&BlobHash([0; 32])), Err(BlobError::Missing { .. })));
}

#[test]
fn files_are_copied_in_and_empty_blobs_exist() {
    let (dir, store) = store(1 << 20);
    let source = dir.path().join("source");
    let bytes = vec![5; COPY_BYTES * 2 + 1];
    fs::write(&source, &bytes).unwrap();
    assert_eq!(store.put_file(&source).unwrap(), (BlobHash::of(&bytes), bytes.len() as u64));
    assert_eq!(store.get(&BlobHash::of(&bytes)).unwrap(), Some(bytes));
    let empty = store.put(&[]).unwrap();
    assert_eq!(store.get(&empty).unwrap(), Some(Vec::new()));
    assert!(matches!(store.put_file(&dir.path().join("absent")), Err(BlobError::Io { .. })));
}

#[test]
fn damaged_blobs_are_dropped_instead_of_handed_out() {
    for use_it in [
        (|store, hash| assert_eq!(store.get(hash).unwrap(), None)) as fn(&BlobStore, &BlobHash),
        |store, hash| assert!(store.path_of(hash).is_err()),
        |store, hash| assert_eq!(store.read_range(hash, 5, Range { offset: 0, len: 5 }).unwrap(), None),
    ] {
        let (dir, first) = store(1000);
        let hash = first.put(b"bytes").unwrap();
        fs::write(dir.path().join(hash.to_string()), b"bites").unwrap();
        // A start forgets which blobs were verified.
        let store = BlobStore::open(dir.path(), 1000, TTL).unwrap();
        use_it(&store, &hash);
        assert!(!store.contains(&hash));
        assert_eq!((store.stored_bytes(), files_in(dir.path())), (0, 0));
    }
}

#[test]
fn ranges_are_read_only_within_a_blob_of_the_named_length() {
    let (_dir, store) = store(1000);
    let hash = store.put(b"0123456789").unwrap();
    let read = |total, offset, len| store.read_range(&hash, total, Range { offset, len }).unwrap();
    assert_eq!(read(10, 3, 4).as_deref(), Some(b"3456".as_slice()));
    assert_eq!(read(10, 10, 0).as_deref(), Some(b"".as_slice()));
    assert_eq!(read(11, 3, 4), None);
    assert_eq!(read(10, 7, 4), None);
    assert_eq!(read(10, u64::MAX, 4), None);
}

#[test]
fn rounds_keep_their_blobs_until_they_have_passed() {
    let (dir, store) = store(1000);
    let [early, late, both, free] = [b"early", b"late!", b"both!", b"free!"].map(|bytes| store.put(bytes).unwrap());
    assert!(store.tag(&early, RoundKey::new(1, 5)));
    assert!(store.tag(&late, RoundKey::new(2, 6)));
    assert!(store.tag(&both, RoundKey::new(2, 6)));
    assert!(store.tag(&both, RoundKey::new(1, 5)), "the later tag stays");
    assert!(!store.tag(&BlobHash([0; 32]), RoundKey::new(1, 5)));
    assert!(store.pin(&early));
    assert_eq!(store.retain_rounds_from(RoundKey::new(2, 6)), 0, "pinned");
    store.unpin(&early);
    assert_eq!(store.retain_rounds_from(RoundKey::new(2, 6)), 1);
    assert!(!store.contains(&early));
    assert!([late, both, free].iter().all(|hash| store.contains(hash)));
    assert_eq!((store.stored_bytes(), files_in(dir.path())), (15, 3));
}

#[test]
fn a_full_store_drops_the_longest_unused_unclaimed_blob_first() {
    let (_dir, store) = store(30);
    let [tagged, old, used] = [b"0123456789", b"123456789a", b"23456789ab"].map(|bytes| store.put(bytes).unwrap());
    store.tag(&tagged, RoundKey::new(0, 1));
    let now = SystemTime::now();
    for (hash, age_s) in [(&tagged, 30), (&old, 20), (&used, 10)] {
        store.lock().entries.get_mut(hash).unwrap().touched = now - Duration::from_secs(age_s);
    }
    let new = store.put(b"3456789abc").unwrap();
    assert!(!store.contains(&old));
    assert!([tagged, used, new].iter().all(|hash| store.contains(hash)));
    assert!(matches!(store.put(&[1; 21]), Err(BlobError::Full { free: 0, .. })));
    assert!(store.contains(&used), "nothing is dropped for a blob that does not fit anyway");
    store.put(&[1; 20]).unwrap();
    assert_eq!(store.stored_bytes(), 30);
}

#[test]
fn unclaimed_blobs_go_when_their_time_is_over() {
    let (dir, store) = store(1000);
    let [old, tagged, pinned, fresh] = [b"old!!", b"tag!!", b"pin!!", b"fresh"].map(|bytes| store.put(bytes).unwrap());
    store.tag(&tagged, RoundKey::new(0, 1));
    store.pin(&pinned);
    for hash in [&old, &tagged, &pinned] {
        store.lock().entries.get_mut(hash).unwrap().touched = SystemTime::now() - TTL - Duration::from_secs(1);
    }
    assert_eq!(store.collect_garbage(), 1);
    assert!(!store.contains(&old));
    assert!([tagged, pinned, fresh].iter().all(|hash| store.contains(hash)));
    assert_eq!(files_in(dir.path()), 3);
}

#[test]
fn an_unfinished_or_wrong_transfer_leaves_nothing_behind() {
    let (dir, store) = store(10);
    let hash = BlobHash::of(b"0123456789");
    let mut dropped = store.receive(hash, 10).unwrap();
    dropped.write(b"01234").unwrap();
    assert!(matches!(store.receive(hash, 1), Err(BlobError::Full { .. })), "its room is reserved");
    drop(dropped);
    let mut short = store.receive(hash, 10).unwrap();
    short.write(b"01234").unwrap();
    assert!(matches!(short.finish(), Err(BlobError::Wrong { .. })));
    let mut wrong = store.receive(hash, 10).unwrap();
    wrong.write(b"012345678x").unwrap();
    assert!(matches!(wrong.finish(), Err(BlobError::Wrong { .. })));
    let mut long = store.receive(hash, 10).unwrap();
    assert!(matches!(long.write(b"0123456789a"), Err(BlobError::Wrong { .. })));
    drop(long);
    assert_eq!(books(&store, dir.path()), (0, 0, 0));
    let mut right = store.receive(hash, 10).unwrap();
    right.write(b"01234").unwrap();
    right.write(b"56789").unwrap();
    right.finish().unwrap();
    assert_eq!(books(&store, dir.path()), (0, 10, 1));
}

#[test]
fn a_start_clears_partial_files_and_leaves_strange_ones_alone() {
    let (dir, first) = store(1000);
    let unfinished = first.receive(BlobHash([1; 32]), 5).unwrap();
    fs::write(dir.path().join("README"), b"not a blob").unwrap();
    let store = BlobStore::open(dir.path(), 1000, TTL).unwrap();
    assert_eq!((store.stored_bytes(), files_in(dir.path())), (0, 1));
    drop(unfinished);
}

#[derive(Clone, Debug)]
enum Action {
    Put(u8, usize),
    Tag(u8, usize, u32),
    Pin(u8, usize),
    Unpin(u8, usize),
    Retain(u32),
    Collect,
}

fn action() -> impl Strategy<Value = Action> {
    let blob = (0_u8..4, 0_usize..40);
    prop_oneof![
        blob.clone().prop_map(|(fill, len)| Action::Put(fill, len)),
        (blob.clone(), 0_u32..5).prop_map(|((fill, len), step)| Action::Tag(fill, len, step)),
        blob.clone().prop_map(|(fill, len)| Action::Pin(fill, len)),
        blob.prop_map(|(fill, len)| Action::Unpin(fill, len)),
        (0_u32..5).prop_map(Action::Retain),
        Just(Action::Collect),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn prop_the_quota_holds_and_the_books_are_right(actions in prop::collection::vec(action(), 1..40)) {
        let (dir, store) = store(100);
        let hash_of = |fill, len| BlobHash::of(&vec![fill; len]);
        for action in actions {
            match action {
                Action::Put(fill, len) => match store.put(&vec![fill; len]) {
                    Ok(hash) => prop_assert_eq!(store.get(&hash).unwrap(), Some(vec![fill; len])),
                    Err(error) => prop_assert!(matches!(error, BlobError::Full { .. }), "{}", error),
                },
                Action::Tag(fill, len, step) => drop(store.tag(&hash_of(fill, len), RoundKey::new(0, step))),
                Action::Pin(fill, len) => drop(store.pin(&hash_of(fill, len))),
                Action::Unpin(fill, len) => store.unpin(&hash_of(fill, len)),
                Action::Retain(step) => drop(store.retain_rounds_from(RoundKey::new(0, step))),
                Action::Collect => drop(store.collect_garbage()),
            }
            let index = store.lock();
            prop_assert_eq!(index.stored, index.entries.values().map(|entry| entry.len).sum::<u64>());
            prop_assert!(index.stored <= 100 && index.reserved == 0);
            prop_assert_eq!(index.entries.len(), files_in(dir.path()));
        }
    }
}
