#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

mod faults;
mod kills;
mod power;

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use psyche_messages::{Address, RoundKey, Step};

use super::disk::{Disk, Watcher};
use super::*;
use crate::optimizer::OptimizerConfig;
use crate::testing::{config_with, on_loaded_ranks, one_bit, plan, tiny_config, weights_of};
use crate::worker::{ApplyPlan, TrainOutcome};

const RUN: Address = Address([7; 32]);

/// A folder for the many saves of a sweep: in memory where the system offers that, since nobody cuts the power here.
fn quick_folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir()).unwrap()
}

fn settings(root: &Path, keep: usize) -> StoreSettings {
    let keep = NonZeroUsize::new(keep).unwrap();
    StoreSettings { root: root.to_owned(), run: RUN, keep, file_bytes_max: 20_000, source: None }
}

fn open(root: &Path) -> SnapshotStore {
    SnapshotStore::open(settings(root, 2)).unwrap()
}

/// A store whose changes `watcher` sees, with writes of at most 4 KiB.
fn open_watched(root: &Path, keep: usize, watcher: Arc<dyn Watcher>) -> Result<SnapshotStore, SnapshotError> {
    SnapshotStore::open_on(settings(root, keep), Disk::watched(watcher, 4096))
}

fn label(step: u32) -> SnapshotLabel {
    SnapshotLabel { round: RoundKey::new(1, step), look_ahead_lr: 0.003 }
}

/// The tiny model's state after each of the first `count` steps of one node with one device.
fn states(count: u64) -> Vec<Captured> {
    let config = tiny_config();
    let weights = weights_of(&config);
    let all = on_loaded_ranks((1, 1), (&config, one_bit()), weights.path(), 2, |rank| {
        let state = |step| {
            let TrainOutcome::Trained(trained) = rank.train(&plan(step, 2)).unwrap() else { panic!("it must train") };
            let payloads = Arc::new(vec![Arc::from(trained.payload.unwrap())]);
            rank.apply(&ApplyPlan { step, lr: 0.003, weight_decay: 0.0, payloads }).unwrap();
            rank.capture().unwrap().unwrap()
        };
        (0..count).map(state).collect::<Vec<_>>()
    });
    all.into_iter().next().unwrap()
}

fn folders_in(root: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn momentum_of(rank: &mut Rank) -> Vec<f32> {
    rank.state().2.momentum().to_host().unwrap().into_owned()
}

#[test]
fn a_snapshot_loads_on_any_other_layout_with_the_same_digest() {
    for tied in [false, true] {
        let config = config_with(serde_json::json!({ "tie_word_embeddings": tied }));
        let weights = weights_of(&config);
        let out = tempfile::tempdir().unwrap();
        let settings = (&config, one_bit());
        // One file, several files over the ranks, one file per tensor.
        for (name, layout, bytes) in [("one", (2, 2), 1 << 30), ("some", (2, 1), 20_000), ("many", (1, 2), 1)] {
            let folder = out.path().join(name);
            let before = on_loaded_ranks(layout, settings, weights.path(), 1, |rank| {
                let plan = ApplyPlan { step: 0, lr: 0.5, weight_decay: 0.3, payloads: Default::default() };
                rank.apply(&plan).unwrap();
                rank.snapshot(&folder, bytes).unwrap();
                rank.digest().unwrap()
            });
            assert_eq!(folder.join("model.safetensors").exists(), name == "one");
            let text = fs::read(folder.join("config.json")).unwrap();
            assert_eq!(LlamaConfig::from_json(&text).unwrap(), config);
            for other in [(1, 1), (3, 1), (1, 2)] {
                let after = on_loaded_ranks(other, settings, &folder, 1, |rank| rank.digest().unwrap());
                assert!(after.iter().all(|digest| *digest == before[0]), "{name} on {other:?}");
            }
        }
    }
}

#[test]
fn a_restarted_node_goes_on_exactly_where_it_was() {
    let config = tiny_config();
    let weights = weights_of(&config);
    let out = tempfile::tempdir().unwrap();
    let store = open(out.path());
    let setup = (&config, one_bit());
    let uninterrupted = on_loaded_ranks((1, 1), setup, weights.path(), 2, |rank| {
        store.save(&rank.capture().unwrap().unwrap(), &label(0)).unwrap();
        rank.train(&plan(0, 2)).unwrap();
        rank.train(&plan(1, 2)).unwrap();
        rank.apply(&ApplyPlan { step: 0, lr: 0.5, weight_decay: 0.3, payloads: Default::default() }).unwrap();
        store.save(&rank.capture().unwrap().unwrap(), &label(2)).unwrap();
        (rank.train(&plan(2, 2)).unwrap(), rank.digest().unwrap())
    });
    let (next, digest) = &uninterrupted[0];
    let resumed = |layout, step: u32| {
        let stored = store.find(Step(step), None).unwrap().unwrap();
        let verified = stored.verify(2).unwrap();
        let ranks = on_loaded_ranks(layout, setup, weights.path(), 2, |rank| {
            rank.resume(&verified).unwrap();
            (rank.train(&plan(2, 2)).unwrap(), rank.digest().unwrap())
        });
        ranks.into_iter().next().unwrap()
    };
    assert_eq!(resumed((1, 1), 2), (next.clone(), *digest));
    assert_ne!(resumed((1, 1), 0).0, *next, "without the momentum it would be another step");
    let (TrainOutcome::Trained(alone), (TrainOutcome::Trained(split), split_digest)) = (next, resumed((2, 2), 2)) else {
        panic!("both must have trained")
    };
    assert_eq!(split_digest, *digest);
    assert!((alone.loss / split.loss - 1.0).abs() < 1e-5);
}

#[test]
fn what_one_layout_saves_another_saves_again_with_the_same_bits() {
    let config = tiny_config();
    let weights = weights_of(&config);
    let out = tempfile::tempdir().unwrap();
    let store = open(out.path());
    let setup = (&config, one_bit());
    let save_after = |layout, step, from: Option<&Verified>| {
        on_loaded_ranks(layout, setup, weights.path(), 2, |rank| {
            match from {
                Some(verified) => rank.resume(verified).unwrap(),
                None => drop(rank.train(&plan(0, 3)).unwrap()),
            }
            rank.capture().unwrap().map(|captured| store.save(&captured, &label(step)).unwrap())
        })
    };
    let first = save_after((2, 1), 1, None).remove(0).unwrap();
    let verified = first.verify(1).unwrap();
    for (step, layout) in [(2, (1, 1)), (3, (2, 2)), (4, (3, 1))] {
        let again = save_after(layout, step, Some(&verified)).remove(0).unwrap();
        assert_eq!(again.manifest.files, first.manifest.files, "{layout:?}");
        assert_eq!(again.manifest.digest, first.manifest.digest, "{layout:?}");
        // The store keeps two; the first is wanted on.
        assert_eq!(folders_in(out.path()).len(), 2);
        fs::remove_dir_all(&again.folder).unwrap();
    }
}

#[test]
fn weights_of_another_digest_and_half_a_folder_leave_every_rank_as_it_was() {
    let config = tiny_config();
    let weights = weights_of(&config);
    let (other, half) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    crate::init::init_model(&serde_json::to_vec(&config).unwrap(), 8, other.path()).unwrap();
    // Its embedding, which the first ranks own, can be read; the last tensors can't.
    let file = fs::read(other.path().join("model.safetensors")).unwrap();
    let mut spoilt = file.clone();
    let last = spoilt.len() - 4;
    spoilt[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(half.path().join("model.safetensors"), spoilt).unwrap();
    on_loaded_ranks((2, 1), (&config, one_bit()), weights.path(), 1, |rank| {
        rank.train(&plan(0, 2)).unwrap();
        let (digest, momentum) = (rank.digest().unwrap(), momentum_of(rank));
        let refused = rank.load(other.path(), Some(Digest(digest))).unwrap_err();
        assert!(matches!(refused, GpuError::Snapshot(SnapshotError::Refuted { .. })), "{refused}");
        let refused = rank.load(half.path(), None).unwrap_err();
        assert!(matches!(refused, GpuError::Weights { .. } | GpuError::Files { .. }), "{refused}");
        assert_eq!(rank.digest().unwrap(), digest);
        assert!(momentum_of(rank) == momentum);
        rank.train(&plan(1, 2)).unwrap();
        let loaded = rank.load(other.path(), None).unwrap();
        assert_ne!(loaded.0, digest);
        assert_eq!(rank.digest().unwrap(), loaded.0);
        assert!(momentum_of(rank).iter().all(|momentum| *momentum == 0.0));
    });
}

#[test]
fn snapshots_of_other_runs_settings_and_networks_are_not_resumed() {
    let config = tiny_config();
    let weights = weights_of(&config);
    let out = tempfile::tempdir().unwrap();
    open(out.path()).save(&states(1)[0], &label(1)).unwrap();
    let other_run = StoreSettings { run: Address([8; 32]), ..settings(out.path(), 2) };
    assert!(SnapshotStore::open(other_run).unwrap().newest().unwrap().is_none());
    let verified = open(out.path()).newest().unwrap().unwrap().verify(1).unwrap();
    let other_chunk = OptimizerConfig { compression_chunk: 8, ..one_bit() };
    let other_network = config_with(serde_json::json!({ "rms_norm_eps": 1e-6 }));
    for setup in [(&config, other_chunk), (&other_network, one_bit())] {
        on_loaded_ranks((1, 1), setup, weights.path(), 1, |rank| {
            let before = rank.digest().unwrap();
            let refused = rank.resume(&verified).unwrap_err();
            assert!(matches!(refused, GpuError::Snapshot(SnapshotError::Foreign { .. })), "{refused}");
            assert_eq!(rank.digest().unwrap(), before);
        });
    }
}

#[test]
fn a_folder_that_exists_is_not_overwritten_and_the_node_goes_on() {
    let config = tiny_config();
    let weights = weights_of(&config);
    on_loaded_ranks((2, 1), (&config, one_bit()), weights.path(), 1, |rank| {
        let error = rank.snapshot(weights.path(), 1 << 30).unwrap_err();
        assert!(matches!(error, GpuError::Snapshot(_) | GpuError::Files { rank: 0 }), "{error:?}");
        rank.train(&plan(0, 2)).unwrap();
    });
}

#[test]
fn a_tokenizer_whose_folder_is_gone_comes_from_the_snapshot_before() {
    let source = tempfile::tempdir().unwrap();
    fs::write(source.path().join("tokenizer.json"), "{}").unwrap();
    let out = tempfile::tempdir().unwrap();
    let settings = StoreSettings { source: Some(source.path().to_owned()), ..settings(out.path(), 1) };
    let store = SnapshotStore::open(settings.clone()).unwrap();
    store.save(&states(1)[0], &label(1)).unwrap();
    drop(source);
    for step in [2, 3] {
        let stored = store.save(&states(1)[0], &label(step)).unwrap();
        assert_eq!(fs::read(stored.folder.join("tokenizer.json")).unwrap(), b"{}", "step {step}");
    }
    let half = out.path().join("000009-epoch-0-step-9.partial");
    fs::create_dir(&half).unwrap();
    let newest = SnapshotStore::look(settings.clone()).newest().unwrap().unwrap();
    assert_eq!((newest.manifest.round.step.0, half.is_dir()), (3, true), "whoever looks removes nothing");
    drop(SnapshotStore::open(settings).unwrap());
    assert!(!half.is_dir());
}

#[test]
fn what_hugging_face_wants_is_there_and_the_index_adds_up() {
    let source = tempfile::tempdir().unwrap();
    fs::write(source.path().join("tokenizer.json"), "{}").unwrap();
    fs::write(source.path().join("secrets.json"), "no").unwrap();
    let out = tempfile::tempdir().unwrap();
    let settings = StoreSettings { source: Some(source.path().to_owned()), ..settings(out.path(), 1) };
    let stored = SnapshotStore::open(settings).unwrap().save(&states(1)[0], &label(1)).unwrap();
    let index = fs::read(stored.folder.join("model.safetensors.index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    let elements: usize = tiny_config().parameters().iter().map(|parameter| parameter.len()).sum();
    assert_eq!(index["metadata"]["total_size"], elements * 4);
    let mut tensors = 0;
    for file in fs::read_dir(&stored.folder).unwrap().map(|entry| entry.unwrap().path()) {
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        if name.starts_with("model-") {
            // The format's own library reads them, and finds what Hugging Face's loaders ask for.
            let bytes = fs::read(&file).unwrap();
            let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
            assert_eq!(metadata.metadata().as_ref().unwrap()["format"], "pt");
            let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            assert!(file.len() == 1 || bytes.len() < 21_000);
            assert!(file.names().iter().all(|tensor| index["weight_map"][tensor] == name.as_str()));
            tensors += file.len();
        }
        assert_eq!(is_model_file(&name), name == "config.json" || name.starts_with("model"), "{name}");
        assert_ne!(name, "secrets.json");
    }
    assert_eq!(tensors, tiny_config().parameters().len());
    assert_eq!(fs::read(stored.folder.join("tokenizer.json")).unwrap(), b"{}");
    assert!(stored.manifest.has("tokenizer.json") && stored.manifest.has("config.json"));
}

#[test]
fn the_newest_stay_and_the_newest_is_the_one_saved_last_whatever_its_step() {
    let out = tempfile::tempdir().unwrap();
    let root: PathBuf = out.path().join("made/on/demand");
    let store = open(&root);
    assert!(store.newest().unwrap().is_none());
    let state = states(1).remove(0);
    for step in [8, 9, 3] {
        store.save(&state, &label(step)).unwrap();
    }
    assert_eq!(folders_in(&root), ["000002-epoch-1-step-9", "000003-epoch-1-step-3"]);
    assert_eq!(store.newest().unwrap().unwrap().manifest.round.step, Step(3));
    assert!(store.find(Step(8), None).unwrap().is_none());
    let digest = store.newest().unwrap().unwrap().manifest.digest;
    assert!(store.find(Step(9), Some(digest)).unwrap().is_some());
    assert!(store.find(Step(9), Some(Digest([0; 32]))).unwrap().is_none());
    // The same round again is another snapshot; the one before it goes only when that is there.
    store.save(&state, &label(3)).unwrap();
    assert_eq!(folders_in(&root), ["000003-epoch-1-step-3", "000004-epoch-1-step-3"]);
}

#[test]
fn a_start_removes_what_crashes_left_and_nothing_of_others() {
    let out = tempfile::tempdir().unwrap();
    let left = ["000007-epoch-1-step-2.partial", "000003-epoch-0-step-1.gone"];
    let kept = ["000002-epoch-1-step-1.damaged", "000007-epoch-1-step-2.backup", "7-epoch-1-step-2.partial", "mine.partial"];
    for name in left.iter().chain(&kept) {
        fs::create_dir(out.path().join(name)).unwrap();
        fs::write(out.path().join(name).join("model.safetensors"), "half").unwrap();
    }
    let store = open(out.path());
    assert_eq!(folders_in(out.path()), kept);
    let saved = store.save(&states(1)[0], &label(5)).unwrap();
    assert!(saved.folder.ends_with("000003-epoch-1-step-5"));
}
