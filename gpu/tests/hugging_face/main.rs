//! Agreement with Hugging Face's transformers, which `scripts/setup-python.sh` fetches: the same weights give the same
//! logits, whoever wrote the files.
//!
//! "The same" means: no logit differs by more than [`TOLERANCE`] of the largest. Both sides compute in f32, each in its own
//! order; what they differ by is rounding, about 1e-6 here.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use psyche_gpu::init::init_model;
use psyche_gpu::precision::Precision;
use psyche_gpu::worker::{StepPlan, TrainOutcome};
use serde_json::{Value, json};
use support::{Model, distance, installed, lead, likeliest, logits, peer, spread, tokens};

/// Of the largest logit.
const TOLERANCE: f32 = 1e-4;

fn assert_same_logits(name: &str, ours: &[f32], theirs: &[f32], vocabulary: usize) {
    let distance = distance(ours, theirs);
    assert!(distance < TOLERANCE, "{name}: logits differ by {distance}");
    let scale = theirs.iter().fold(0.0_f32, |most, logit| most.max(logit.abs()));
    let positions = ours.chunks(vocabulary).zip(theirs.chunks(vocabulary));
    // A choice between logits that rounding can't tell apart is nobody's.
    let clear = positions.filter(|(_, theirs)| lead(theirs) > 2.0 * TOLERANCE * scale);
    let mut count = 0;
    for (ours, theirs) in clear {
        assert_eq!(likeliest(ours), likeliest(theirs), "{name}");
        count += 1;
    }
    assert!(count * vocabulary * 10 > ours.len() * 9, "{name}: only {count} positions have a clear choice");
}

#[test]
fn models_that_transformers_wrote_give_the_same_logits_here() {
    let folder = tempfile::tempdir().unwrap();
    peer([folder.path()], "make");
    let mut models: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    models.sort();
    assert_eq!(models.len(), 8);
    for path in models {
        let (name, model) = (path.file_name().unwrap().to_str().unwrap(), Model::open(&path));
        let (tokens, exact) = (tokens(&path), logits(&path, "logits.bin"));
        let ours = model.rank(Precision::F32).logits(0, &tokens).unwrap();
        assert_same_logits(name, &ours, &exact, model.config.vocab_size);
        // In bf16 both sides are as far from the exact logits.
        let ours = spread(&model.rank(Precision::Bf16).logits(0, &tokens).unwrap(), &exact);
        let theirs = spread(&logits(&path, "logits-bf16.bin"), &exact);
        assert!(ours < 1.25 * theirs, "{name}: in bf16 logits are off by {ours}, those of transformers by {theirs}");
    }
}

/// Configurations of models that are made here.
fn configurations() -> [(&'static str, Value); 3] {
    let with = |change: Value| {
        let mut config = json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 96,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 160,
            "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "initializer_range": 0.15, "tie_word_embeddings": false,
        });
        config.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        config
    };
    let llama3 = json!({
        "type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    });
    let yarn = json!({
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "mscale": 2.0, "mscale_all_dim": 0.5,
    });
    [
        ("default", with(json!({ "head_dim": 24, "rope_theta": 500.0 }))),
        ("llama3", with(json!({ "rope_scaling": llama3, "tie_word_embeddings": true, "rope_theta": 5e5 }))),
        ("yarn", with(json!({ "rope_scaling": yarn, "num_key_value_heads": 1 }))),
    ]
}

/// Samples of 96 inputs and a label, which go beyond the original context of the scaled kinds.
fn samples() -> Vec<Vec<u32>> {
    (0..2_u32)
        .map(|sample| (0..97).map(|position| (sample * 77 + position * position * 13 + position) % 160).collect())
        .collect()
}

/// Trains one step, applies its result and writes a snapshot to `folder`; returns the logits of the snapshot's weights.
fn train_and_save(model: &Model, folder: &Path, inputs: &[Vec<u32>]) -> Vec<f32> {
    let mut rank = model.rank(Precision::F32);
    let cancel = Arc::new(AtomicBool::new(false));
    let plan = StepPlan { step: 1, samples: Arc::new(samples()), lr: 0.01, lr_previous: 0.01, cancel };
    let TrainOutcome::Trained(trained) = rank.train(&plan).unwrap() else { panic!("the step was not trained") };
    let payloads = Arc::new(vec![Arc::from(trained.payload.unwrap())]);
    rank.apply(&psyche_gpu::worker::ApplyPlan { step: 1, lr: 0.01, weight_decay: 0.0, payloads }).unwrap();
    rank.snapshot(folder, 30_000).unwrap();
    rank.logits(1, inputs).unwrap()
}

#[test]
fn what_is_written_here_loads_in_transformers_with_the_same_logits() {
    let root = tempfile::tempdir().unwrap();
    let inputs: Vec<Vec<u32>> = samples().iter().map(|sample| sample[..96].to_vec()).collect();
    let mut written = Vec::new();
    for (name, config) in configurations() {
        let (initial, saved) = (root.path().join(name), root.path().join(format!("{name}-saved")));
        init_model(config.to_string().as_bytes(), 3, &initial).unwrap();
        let model = Model::open(&initial);
        let before = model.rank(Precision::F32).logits(0, &inputs).unwrap();
        let after = train_and_save(&model, &saved, &inputs);
        assert!(distance(&after, &before) > 0.01, "{name}: a step changes the logits");
        written.extend([(initial, before), (saved, after)]);
    }
    for (folder, _) in &written {
        std::fs::write(folder.join("tokens.json"), json!(inputs).to_string()).unwrap();
    }
    let reports: Vec<Value> = serde_json::from_str(&peer(written.iter().map(|(folder, _)| folder.as_path()), "load")).unwrap();
    for ((folder, ours), report) in written.iter().zip(&reports) {
        let name = folder.display().to_string();
        assert_eq!(report["odd"], json!({}), "{name}: missing, unexpected or mismatched tensors");
        assert_same_logits(&name, ours, &logits(folder, "logits.bin"), 160);
    }
    for pair in reports.chunks(2) {
        assert_eq!(pair[0]["rope"]["rope_type"], pair[1]["rope"]["rope_type"]);
        assert_eq!(pair[0]["rope"]["rope_theta"], pair[1]["rope"]["rope_theta"]);
    }
}

#[test]
fn a_real_model_says_the_same_here_as_in_transformers() {
    let installed = installed();
    let gguf = Path::new(&installed["SMOLLM2_GGUF"]);
    let model = gguf.with_file_name("smollm2-hf");
    let out = tempfile::tempdir().unwrap();
    let report: Value = serde_json::from_str(&peer([gguf, &model, out.path()], "smollm2")).unwrap();
    let model = Model::open(&model);
    let prompt = tokens(out.path());
    let mut rank = model.rank(Precision::F32);
    let ours = rank.logits(0, &prompt).unwrap();
    assert_same_logits("SmolLM2", &ours, &logits(out.path(), "logits.bin"), model.config.vocab_size);
    let expected: Vec<u32> = serde_json::from_value(report["output"].clone()).unwrap();
    let mut said = prompt[0].clone();
    while said.len() < expected.len() {
        let logits = rank.logits(0, &[said.clone()]).unwrap();
        said.push(likeliest(&logits[logits.len() - model.config.vocab_size..]) as u32);
    }
    assert_eq!(said, expected);
    assert!(report["text"].as_str().unwrap().starts_with("The capital of France is Paris"), "{report}");
}
