#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

use super::*;
use crate::testing::{config_with, on_loaded_ranks, one_bit, plan, tiny_config, weights_of};
use crate::worker::{ApplyPlan, TrainOutcome};

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
            let text = std::fs::read(folder.join("config.json")).unwrap();
            assert_eq!(crate::config::LlamaConfig::from_json(&text).unwrap(), config);
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
    let (with_result, fresh) = (out.path().join("state"), out.path().join("fresh"));
    let settings = (&config, one_bit());
    let uninterrupted = on_loaded_ranks((1, 1), settings, weights.path(), 2, |rank| {
        rank.save_optimizer(&fresh, 1 << 30).unwrap();
        rank.train(&plan(0, 2)).unwrap();
        rank.train(&plan(1, 2)).unwrap();
        rank.save_optimizer(&with_result, 5_000).unwrap();
        rank.train(&plan(2, 2)).unwrap()
    });
    let resumed = |layout, folder: &Path, steps: std::ops::Range<u64>| {
        let ranks = on_loaded_ranks(layout, settings, weights.path(), 2, |rank| {
            rank.load_optimizer(folder).unwrap();
            steps.clone().map(|step| rank.train(&plan(step, 2)).unwrap()).last().unwrap()
        });
        ranks.into_iter().next().unwrap()
    };
    assert_eq!(resumed((1, 1), &with_result, 2..3), uninterrupted[0]);
    assert_eq!(resumed((1, 1), &fresh, 0..3), uninterrupted[0]);
    let (TrainOutcome::Trained(alone), TrainOutcome::Trained(split)) = (&uninterrupted[0], resumed((2, 2), &with_result, 2..3))
    else {
        panic!("both must have trained")
    };
    assert!((alone.loss / split.loss - 1.0).abs() < 1e-5);
}

#[test]
fn a_folder_that_exists_is_not_overwritten_and_the_node_goes_on() {
    let config = tiny_config();
    let weights = weights_of(&config);
    on_loaded_ranks((2, 1), (&config, one_bit()), weights.path(), 1, |rank| {
        let error = rank.snapshot(weights.path(), 1 << 30).unwrap_err();
        assert!(matches!(error, GpuError::Io { .. } | GpuError::Files { rank: 0 }), "{error:?}");
        assert!(rank.load_optimizer(weights.path()).is_err());
        rank.train(&plan(0, 2)).unwrap();
    });
}
