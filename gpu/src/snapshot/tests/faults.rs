//! Disks that refuse, and files that are not what was saved.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::super::disk::Change;
use super::*;

/// Refuses one change, the `at`th; of a write it lets half through before.
struct Refusing {
    at: usize,
    error: i32,
    seen: AtomicUsize,
}

impl Watcher for Refusing {
    fn before(&self, change: &Change<'_>) -> io::Result<()> {
        if self.seen.fetch_add(1, Ordering::Relaxed) != self.at {
            return Ok(());
        }
        if let Change::Write(_, file, bytes) = change {
            io::Write::write_all(&mut &**file, &bytes[..bytes.len() / 2])?;
        }
        Err(io::Error::from_raw_os_error(self.error))
    }
}

fn refusing(at: usize, error: i32) -> Arc<Refusing> {
    Arc::new(Refusing { at, error, seen: AtomicUsize::new(0) })
}

fn newest_verified(store: &SnapshotStore) -> Stored {
    store.newest().unwrap().unwrap().verify(1).unwrap().stored().clone()
}

#[test]
fn whatever_the_disk_refuses_the_snapshot_from_before_stays_and_the_next_save_succeeds() {
    let states = states(3);
    let mut refused = 0;
    for at in 0.. {
        let out = quick_folder();
        open(out.path()).save(&states[0], &label(1)).unwrap();
        let watcher = refusing(at, libc::ENOSPC);
        let store = open_watched(out.path(), 1, watcher.clone()).unwrap();
        let saved = store.save(&states[1], &label(2));
        if watcher.seen.load(Ordering::Relaxed) <= at {
            saved.unwrap();
            break;
        }
        let newest = newest_verified(&store).manifest.round.step;
        match saved {
            Err(GpuError::Snapshot(SnapshotError::Disk { obstacle: Obstacle::DiskFull, path, .. })) => {
                assert!(path.starts_with(out.path()), "{}", path.display());
                refused += 1;
                let renamed = store.find(Step(2), None).unwrap().is_some();
                assert_eq!(newest, Step(if renamed { 2 } else { 1 }), "change {at}");
            }
            Err(other) => panic!("change {at}: {other}"),
            // Only what removes the old one may fail without consequence.
            Ok(_) => assert_eq!(newest, Step(2), "change {at}"),
        }
        assert!(folders_in(out.path()).iter().all(|name| !name.ends_with(PARTIAL_SUFFIX)), "change {at}");
        store.save(&states[2], &label(3)).unwrap();
        assert_eq!(newest_verified(&store).manifest.round.step, Step(3));
    }
    assert!(refused > 50, "{refused} changes were refused");
}

const PARTIAL_SUFFIX: &str = ".partial";

#[test]
fn errors_say_what_is_in_the_way_and_what_helps() {
    let cases = [
        (libc::ENOSPC, Obstacle::DiskFull),
        (libc::EDQUOT, Obstacle::DiskFull),
        (libc::EROFS, Obstacle::ReadOnly),
        (libc::EACCES, Obstacle::Denied),
        (libc::EIO, Obstacle::Other),
    ];
    let state = states(1).remove(0);
    for (error, expected) in cases {
        let out = tempfile::tempdir().unwrap();
        let store = open_watched(&out.path().join("new"), 1, refusing(0, error)).unwrap();
        let refused = store.save(&state, &label(1)).unwrap_err();
        let GpuError::Snapshot(SnapshotError::Disk { path, obstacle, .. }) = &refused else { panic!("{refused}") };
        assert_eq!((*obstacle, path.as_path()), (expected, out.path().join("new").as_path()));
        assert!(refused.to_string().contains(&expected.to_string()), "{refused}");
        assert!(matches!(refused.retry(), psyche_messages::Retry::After(_)));
    }
}

#[test]
fn a_file_where_the_folder_should_be_is_refused_by_name_and_stays() {
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("snapshots");
    fs::write(&file, "mine").unwrap();
    for root in [file.clone(), file.join("run")] {
        let refused = match SnapshotStore::open(settings(&root, 1)) {
            Ok(store) => store.save(&states(1)[0], &label(1)).map(drop).unwrap_err().to_string(),
            Err(error) => error.to_string(),
        };
        assert!(refused.contains("snapshots") && refused.contains("something else has this name"), "{refused}");
    }
    assert_eq!(fs::read(&file).unwrap(), b"mine");
}

#[test]
fn a_damaged_snapshot_is_refused_by_name_and_the_one_before_it_is_used() {
    let out = tempfile::tempdir().unwrap();
    let store = open(out.path());
    for (step, state) in (1..).zip(states(2)) {
        store.save(&state, &label(step)).unwrap();
    }
    let newest = store.newest().unwrap().unwrap();
    let name = folders_in(&newest.folder).into_iter().find(|name| name.starts_with("momentum-00001")).unwrap();
    let file = newest.folder.join(&name);
    let mut bytes = fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&file, bytes).unwrap();
    // Its lengths are right, so that it is listed until it is read.
    let refused = store.newest().unwrap().unwrap().verify(3).unwrap_err();
    assert!(refused.is_damage() && refused.to_string().contains(&name), "{refused}");
    store.put_aside(&newest).unwrap();
    assert_eq!(newest_verified(&store).manifest.round.step, Step(1));
    assert_eq!(newest_verified(&open(out.path())).manifest.round.step, Step(1));
    assert_eq!(folders_in(out.path()), ["000001-epoch-1-step-1", "000002-epoch-1-step-2.damaged"]);
}

#[test]
fn manifests_of_other_versions_are_no_damage() {
    let out = tempfile::tempdir().unwrap();
    let stored = open(out.path()).save(&states(1)[0], &label(1)).unwrap();
    fs::write(stored.folder.join(MANIFEST_FILE), r#"{"manifest":{"version":2,"more":[]},"blake3":"x"}"#).unwrap();
    let refused = Manifest::read(&stored.folder).unwrap_err();
    assert!(matches!(refused, SnapshotError::Foreign { .. }) && refused.to_string().contains("version 2"), "{refused}");
}

/// One thing that can happen to a stored file.
#[derive(Debug, Clone)]
enum Harm {
    Flip { at: usize, bit: u8 },
    Truncate { at: usize },
    Append { bytes: Vec<u8> },
    Remove,
}

fn harm() -> impl Strategy<Value = Harm> {
    prop_oneof![
        4 => (any::<usize>(), 0_u8..8).prop_map(|(at, bit)| Harm::Flip { at, bit }),
        3 => any::<usize>().prop_map(|at| Harm::Truncate { at }),
        1 => prop::collection::vec(any::<u8>(), 1..9).prop_map(|bytes| Harm::Append { bytes }),
        1 => Just(Harm::Remove),
    ]
}

impl Harm {
    fn inflict(&self, path: &Path, whole: &[u8]) {
        let mut bytes = whole.to_vec();
        match self {
            Self::Flip { at, bit } => bytes[at % whole.len()] ^= 1 << bit,
            Self::Truncate { at } => bytes.truncate(at % whole.len()),
            Self::Append { bytes: more } => bytes.extend(more),
            Self::Remove => return fs::remove_file(path).unwrap(),
        }
        fs::write(path, bytes).unwrap();
    }
}

#[test]
fn prop_no_harm_to_any_file_goes_unnoticed_or_unnamed() {
    let out = quick_folder();
    let store = open(out.path());
    let stored = store.save(&states(1)[0], &label(1)).unwrap();
    let names: Vec<_> = folders_in(&stored.folder);
    let whole: Vec<_> = names.iter().map(|name| fs::read(stored.folder.join(name)).unwrap()).collect();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(300));
    let outcome = runner.run(&(0..names.len(), harm()), |(which, harm)| {
        let path = stored.folder.join(&names[which]);
        harm.inflict(&path, &whole[which]);
        let read = Manifest::read(&stored.folder).and_then(|manifest| match manifest {
            Some(manifest) => Stored { folder: stored.folder.clone(), manifest: Arc::new(manifest) }.verify(1).map(drop),
            None => Err(SnapshotError::damaged(&path, "it is missing")),
        });
        let listed = store.list().unwrap().len();
        fs::write(&path, &whole[which]).unwrap();
        let refused = read.expect_err("harm goes unnoticed").to_string();
        prop_assert!(refused.contains(&names[which]), "{refused}");
        let same_length = matches!(harm, Harm::Flip { .. }) && names[which] != MANIFEST_FILE;
        prop_assert_eq!(listed, usize::from(same_length));
        Ok(())
    });
    outcome.unwrap();
    stored.verify(2).unwrap();
}
