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
    let is_spare = |path: &Path| path.file_name().unwrap().to_string_lossy().starts_with("spare.");
    let is_counted = |path: &Path| path.is_file() && !path.ends_with("claims") && !is_spare(path);
    let files = |path: &Path| fs::read_dir(path).unwrap().filter(|file| is_counted(&file.as_ref().unwrap().path())).count();
    files(dir) + files(&dir.join(PARTIAL_DIR))
}

const GROUP: usize = GROUP_BYTES as usize;

/// Bytes without repetition, and their name.
fn noise(len: usize, seed: u64) -> (BlobHash, Vec<u8>) {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    (BlobHash::of(&bytes), bytes)
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
        |store, hash| assert!(matches!(store.read_group(hash, 5, 0).unwrap(), Found::Nothing)),
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
fn groups_are_read_only_of_a_blob_of_the_named_length() {
    let (_dir, store) = store(10 << 20);
    let (hash, bytes) = noise(GROUP + 10, 1);
    store.put(&bytes).unwrap();
    let read = |total: usize, group| match store.read_group(&hash, total as u64, group).unwrap() {
        Found::Bytes(bytes) => Some(bytes),
        _ => None,
    };
    assert_eq!(read(GROUP + 10, 0).as_deref(), Some(&bytes[..GROUP]));
    assert_eq!(read(GROUP + 10, 1).as_deref(), Some(&bytes[GROUP..]));
    assert_eq!(read(GROUP + 10, 2), None);
    assert_eq!(read(GROUP + 11, 0), None);
    assert_eq!(read(GROUP + 10, u32::MAX), None);
    let leaves = |total: usize, first| store.read_leaves(&hash, total as u64, first, 100).unwrap();
    assert_eq!(leaves(GROUP + 10, 0), Some(Tree::of(&bytes).1.leaves_from(0, 2)));
    assert_eq!(leaves(GROUP + 10, 2), Some(Vec::new()));
    assert_eq!(leaves(GROUP, 0), None);
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

/// Spares on disk, bytes of them, and how many were used so far.
fn spares(store: &BlobStore, dir: &Path) -> (usize, u64, usize) {
    let names = fs::read_dir(dir.join(PARTIAL_DIR)).unwrap().map(|file| file.unwrap().file_name());
    let count = names.filter(|name| name.to_string_lossy().starts_with("spare.")).count();
    let index = store.lock();
    (count, index.spares.bytes(), index.spares.taken)
}

#[test]
fn payloads_of_a_new_round_are_written_over_those_of_a_past_one() {
    let (dir, store) = store(64 << 20);
    for round in 0..4_u32 {
        let (own, bytes) = noise(3 * GROUP + 5, u64::from(round));
        assert_eq!(store.put(&bytes).unwrap(), own);
        let (theirs, other) = noise(3 * GROUP + 5, 100 + u64::from(round));
        let transfer = transfer_of(&store, &other, &[0, 1, 2, 3]);
        transfer.finish().unwrap();
        drop(transfer);
        assert_eq!((store.get(&own).unwrap(), store.get(&theirs).unwrap()), (Some(bytes), Some(other)));
        for blob in [own, theirs] {
            assert!(store.tag(&blob, RoundKey::new(0, round)));
        }
        assert_eq!(store.retain_rounds_from(RoundKey::new(0, round)), if round == 0 { 0 } else { 2 });
    }
    // Files of rounds 0 and 1 became those of 2 and 3, and those of round 2 wait.
    assert_eq!(spares(&store, dir.path()), (2, 2 * (3 * GROUP as u64 + 5), 4));
    assert_eq!(files_in(dir.path()), 2);
    drop(store);
    let store = BlobStore::open(dir.path(), 64 << 20, TTL).unwrap();
    assert_eq!(spares(&store, dir.path()), (0, 0, 0), "a start removes them");
}

#[test]
fn a_longer_file_is_cut_and_a_shorter_one_is_left() {
    let (dir, store) = store(64 << 20);
    let (first, bytes) = noise(2 * GROUP, 1);
    store.put(&bytes).unwrap();
    assert!(store.tag(&first, RoundKey::new(0, 0)));
    store.retain_rounds_from(RoundKey::new(0, 1));
    let (longer, bytes) = noise(2 * GROUP + 1, 2);
    store.put(&bytes).unwrap();
    assert_eq!((store.get(&longer).unwrap(), spares(&store, dir.path()).2), (Some(bytes), 0));
    let (shorter, bytes) = noise(GROUP + 1, 3);
    store.put(&bytes).unwrap();
    assert_eq!((store.get(&shorter).unwrap(), spares(&store, dir.path()).2), (Some(bytes), 1));
}

#[test]
fn spares_never_take_room_that_blobs_need_and_are_few() {
    let quota = 8 * GROUP as u64;
    let (dir, store) = store(quota);
    let put = |len: usize, seed: u64, round: u32| {
        let (hash, bytes) = noise(len, seed);
        store.put(&bytes).unwrap();
        store.tag(&hash, RoundKey::new(0, round));
    };
    (0..3).for_each(|seed| put(2 * GROUP, seed, 0));
    store.retain_rounds_from(RoundKey::new(0, 1));
    assert_eq!(spares(&store, dir.path()).1, 6 * GROUP as u64);
    put(5 * GROUP, 9, 1);
    let (_, bytes, _) = spares(&store, dir.path());
    assert!(bytes + store.stored_bytes() <= quota, "{bytes}");
    for seed in 0..200 {
        put(GROUP, 100 + seed, 2);
        store.retain_rounds_from(RoundKey::new(0, 3));
        let (count, bytes, _) = spares(&store, dir.path());
        assert!(count <= 64 && bytes + store.stored_bytes() <= quota);
    }
}

#[test]
fn a_file_that_somebody_may_still_write_or_has_linked_is_not_used_again() {
    let (dir, store) = store(64 << 20);
    let (fetched, bytes) = noise(2 * GROUP, 1);
    let transfer = transfer_of(&store, &bytes, &[0, 1]);
    transfer.finish().unwrap();
    store.tag(&fetched, RoundKey::new(0, 0));
    let (linked, bytes) = noise(2 * GROUP, 2);
    store.put(&bytes).unwrap();
    fs::hard_link(store.path_of(&linked).unwrap(), dir.path().join("elsewhere")).unwrap();
    store.tag(&linked, RoundKey::new(0, 0));
    assert_eq!(store.retain_rounds_from(RoundKey::new(0, 1)), 2);
    assert_eq!(spares(&store, dir.path()), (0, 0, 0));
    assert_eq!(fs::read(dir.path().join("elsewhere")).unwrap(), bytes);
    drop(transfer);
}

#[test]
fn what_was_read_of_a_blob_that_was_dropped_meanwhile_is_not_taken_for_it() {
    let (_dir, store) = store(64 << 20);
    let (hash, bytes) = noise(2 * GROUP, 1);
    store.put(&bytes).unwrap();
    let tree = store.tree_of(&hash, 2 * GROUP as u64).unwrap().unwrap();
    assert!(store.lock().holds(&hash, &tree));
    store.tag(&hash, RoundKey::new(0, 0));
    store.retain_rounds_from(RoundKey::new(0, 1));
    assert!(!store.lock().holds(&hash, &tree));
    store.put(&bytes).unwrap();
    assert!(!store.lock().holds(&hash, &tree), "it came back in another file");
}

/// A transfer of the blob with these groups there.
fn transfer_of(store: &BlobStore, bytes: &[u8], groups: &[u32]) -> Transfer {
    let (hash, tree) = Tree::of(bytes);
    let transfer = Transfer::begin(store, hash, tree).unwrap();
    groups.iter().for_each(|group| assert!(transfer.write(*group, group_of(bytes, *group)).unwrap()));
    transfer
}

fn group_of(bytes: &[u8], group: u32) -> &[u8] {
    bytes.chunks(GROUP).nth(group as usize).unwrap()
}

#[test]
fn a_transfer_keeps_only_groups_that_verify_and_becomes_a_blob_when_all_are_there() {
    let (dir, store) = store(10 << 20);
    let (hash, bytes) = noise(3 * GROUP, 1);
    let transfer = transfer_of(&store, &bytes, &[2, 0]);
    assert!(!transfer.write(1, group_of(&bytes, 0)).unwrap(), "another group");
    assert!(!transfer.write(3, group_of(&bytes, 0)).unwrap(), "no such group");
    assert!(matches!(transfer.finish(), Err(BlobError::Wrong { .. })));
    assert!(!store.contains(&hash));
    assert_eq!(store.progress(&hash), Some(2 * GROUP as u64));
    // What is here is handed on at once.
    assert!(
        matches!(store.read_group(&hash, 3 * GROUP as u64, 2).unwrap(), Found::Bytes(group) if group == group_of(&bytes, 2))
    );
    let Found::Part(have) = store.read_group(&hash, 3 * GROUP as u64, 1).unwrap() else { panic!("it is not here") };
    assert_eq!((have.contains(0), have.contains(1), have.contains(2)), (true, false, true));
    assert!(matches!(store.read_group(&hash, 3 * GROUP as u64 - 1, 2).unwrap(), Found::Nothing));
    assert!(transfer.write(1, group_of(&bytes, 1)).unwrap());
    transfer.finish().unwrap();
    drop(transfer);
    assert_eq!(store.get(&hash).unwrap(), Some(bytes));
    assert_eq!(books(&store, dir.path()), (0, 3 * GROUP as u64, 1));
}

#[test]
fn a_transfer_goes_on_after_a_restart_with_what_verifies() {
    let (dir, first) = store(10 << 20);
    let (hash, bytes) = noise(4 * GROUP, 1);
    drop(transfer_of(&first, &bytes, &[0, 1, 3]));
    drop(first);
    // One of the groups is damaged meanwhile.
    let path = dir.path().join(PARTIAL_DIR).join(hash.to_string());
    let mut damaged = fs::read(&path).unwrap();
    damaged[GROUP] ^= 1;
    fs::write(&path, damaged).unwrap();
    let store = BlobStore::open(dir.path(), 10 << 20, TTL).unwrap();
    assert!(matches!(store.read_group(&hash, 4 * GROUP as u64, 0).unwrap(), Found::Nothing), "nobody has verified it yet");
    let transfer = Transfer::resume(&store, hash, 4 * GROUP as u64).unwrap().unwrap();
    let have = transfer.have();
    assert_eq!([0, 1, 2, 3].map(|group| have.contains(group)), [true, false, false, true]);
    for group in [1, 2] {
        assert!(transfer.write(group, group_of(&bytes, group)).unwrap());
    }
    transfer.finish().unwrap();
    assert_eq!(store.get(&hash).unwrap(), Some(bytes));
    drop(transfer);
    assert_eq!(books(&store, dir.path()), (0, 4 * GROUP as u64, 1));
}

#[test]
fn an_unfinished_transfer_is_of_no_use_for_another_length_and_leaves_nothing_where_it_got_nothing() {
    let (dir, store) = store(10 << 20);
    let (hash, bytes) = noise(2 * GROUP, 1);
    drop(transfer_of(&store, &bytes, &[]));
    assert_eq!(books(&store, dir.path()), (0, 0, 0));
    drop(transfer_of(&store, &bytes, &[1]));
    assert_eq!(books(&store, dir.path()), (2 * GROUP as u64, 0, 2));
    for other in [2 * GROUP as u64 + 1, 5] {
        assert!(Transfer::resume(&store, hash, other).unwrap().is_none());
    }
    // Who says that the blob is a short one begins beside what is here, and takes nothing with it.
    let lie = Transfer::begin(&store, hash, Tree::single(&hash, 5).unwrap()).unwrap();
    assert!(!lie.write(0, b"wrong").unwrap());
    drop(lie);
    assert_eq!(books(&store, dir.path()), (2 * GROUP as u64, 0, 2), "what is here stays for the right length");
    assert!(Transfer::resume(&store, hash, 2 * GROUP as u64).unwrap().unwrap().have().contains(1));
    // One group is there or not.
    drop(transfer_of(&store, b"short", &[]));
    assert_eq!(books(&store, dir.path()), (2 * GROUP as u64, 0, 2));
}

#[test]
fn unfinished_blobs_make_room_for_others_and_go_when_their_time_is_over() {
    let (dir, store) = store(3 * GROUP as u64);
    let (_, bytes) = noise(2 * GROUP, 1);
    let working = transfer_of(&store, &bytes, &[1]);
    assert!(matches!(store.put(&vec![1; 2 * GROUP]), Err(BlobError::Full { .. })), "its room is set aside");
    drop(working);
    store.put(&vec![1; 2 * GROUP]).unwrap();
    assert_eq!(books(&store, dir.path()), (0, 2 * GROUP as u64, 1));
    drop(store);
    let store = BlobStore::open(dir.path(), 6 * GROUP as u64, TTL).unwrap();
    let (hash, _) = noise(2 * GROUP, 1);
    drop(transfer_of(&store, &bytes, &[1]));
    store.lock().partials.get_mut(&(hash, 2 * GROUP as u64)).unwrap().touched =
        SystemTime::now() - TTL - Duration::from_secs(1);
    assert_eq!(store.collect_garbage(), 0);
    assert_eq!(books(&store, dir.path()), (0, 2 * GROUP as u64, 1));
}

#[test]
fn a_start_removes_what_is_of_no_use_and_leaves_strange_files_alone() {
    let (dir, first) = store(10 << 20);
    drop(first);
    let partial = dir.path().join(PARTIAL_DIR);
    let name = BlobHash([1; 32]).to_string();
    for (file, content) in [("put.7", b"copy".to_vec()), (&name, vec![1; 9]), (&format!("{name}.tree"), vec![0xff; 50])] {
        fs::write(partial.join(file), content).unwrap();
    }
    fs::write(partial.join(format!("{}.tree", BlobHash([2; 32]))), u64::MAX.to_le_bytes()).unwrap();
    fs::write(dir.path().join("README"), b"not a blob").unwrap();
    let store = BlobStore::open(dir.path(), 10 << 20, TTL).unwrap();
    assert_eq!(books(&store, dir.path()), (0, 0, 1));
}

#[test]
fn claims_of_rounds_survive_a_restart() {
    let (dir, first) = store(1000);
    let [early, late, free] = [b"early", b"late!", b"free!"].map(|bytes| first.put(bytes).unwrap());
    first.tag(&early, RoundKey::new(1, 5));
    first.tag(&late, RoundKey::new(1, 5));
    first.tag(&late, RoundKey::new(2, 6));
    drop(first);
    let store = BlobStore::open(dir.path(), 15, TTL).unwrap();
    assert!(store.put(b"other").is_ok(), "the unclaimed one makes room");
    assert!(!store.contains(&free) && store.contains(&early));
    assert_eq!(store.retain_rounds_from(RoundKey::new(2, 6)), 1);
    assert!(store.contains(&late) && !store.contains(&early));
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
