#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

use std::collections::BTreeSet;

use safetensors::SafeTensors;

use super::*;

const CONFIG: &str = r#"{"model_type":"llama","hidden_size":64,"intermediate_size":96,"num_hidden_layers":2,
"num_attention_heads":4,"num_key_value_heads":2,"vocab_size":256,"max_position_embeddings":128,"initializer_range":0.05}"#;

fn file_digest(path: &Path) -> String {
    blake3::hash(&std::fs::read(path).unwrap()).to_hex().to_string()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

#[test]
fn a_seed_gives_the_committed_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let report = init_model(CONFIG.as_bytes(), 7, folder.path()).unwrap();
    assert_eq!(report.parameters, LlamaConfig::from_json(CONFIG.as_bytes()).unwrap().parameter_count());
    assert_eq!(report.files, ["model.safetensors", "config.json"].map(|name| folder.path().join(name)));
    assert_eq!(std::fs::read(folder.path().join("config.json")).unwrap(), CONFIG.as_bytes());
    let golden = include_str!("../../tests/golden/init.txt").trim();
    assert_eq!(file_digest(&folder.path().join("model.safetensors")), golden);
}

#[test]
fn another_seed_gives_other_weights_and_norms_are_ones() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    for (seed, folder) in (1..).zip(&folders) {
        init_model(CONFIG.as_bytes(), seed, folder.path()).unwrap();
    }
    let bytes = folders.each_ref().map(|f| std::fs::read(f.path().join("model.safetensors")).unwrap());
    let [one, two] = bytes.each_ref().map(|b| SafeTensors::deserialize(b).unwrap());
    for (name, tensor) in one.iter() {
        let other = two.tensor(name).unwrap();
        let norm = name.contains("norm");
        assert_eq!(tensor.data() == other.data(), norm, "{name}");
        assert!(!norm || floats(tensor.data()).iter().all(|&value| value == 1.0), "{name}");
    }
}

#[test]
fn weights_have_the_configured_mean_and_deviation() {
    let spec = ParameterSpec { name: "w".into(), shape: vec![512, 512] };
    let weights = floats(&Initial { spec: &spec, seed: 3, deviation: 0.02, threads: Threads::ONE }.data());
    let count = weights.len() as f64;
    let mean = weights.iter().map(|&w| f64::from(w)).sum::<f64>() / count;
    let moment = |power| weights.iter().map(|&w| (f64::from(w) / 0.02).powi(power)).sum::<f64>() / count;
    assert!(mean.abs() < 4.0 * 0.02 / count.sqrt(), "{mean}");
    assert!((moment(2) - 1.0).abs() < 0.02, "{}", moment(2));
    // The kurtosis of a sum of twelve uniforms is 2.9.
    assert!((moment(4) - 2.9).abs() < 0.1, "{}", moment(4));
    let beyond_one = weights.iter().filter(|w| w.abs() > 0.02).count() as f64 / count;
    assert!((beyond_one - 0.3173).abs() < 0.01, "{beyond_one}");
}

#[test]
fn threads_do_not_change_the_weights() {
    let spec = ParameterSpec { name: "w".into(), shape: vec![37, 113] };
    let weights = |count| Initial { spec: &spec, seed: 3, deviation: 0.02, threads: Threads::new(count) }.data().into_owned();
    assert_eq!(weights(1), weights(2));
    assert_eq!(weights(1), weights(4));
}

#[test]
fn a_big_model_is_split_over_files_with_an_index() {
    let folder = tempfile::tempdir().unwrap();
    let report = init_sharded(CONFIG.as_bytes(), 7, folder.path(), 70_000).unwrap();
    let whole = tempfile::tempdir().unwrap();
    init_model(CONFIG.as_bytes(), 7, whole.path()).unwrap();
    let whole = std::fs::read(whole.path().join("model.safetensors")).unwrap();
    let whole = SafeTensors::deserialize(&whole).unwrap();
    let index = std::fs::read(folder.path().join("model.safetensors.index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    assert_eq!(index["metadata"]["total_size"].as_u64().unwrap(), 4 * report.parameters);
    let mut seen = BTreeSet::new();
    for (name, file) in index["weight_map"].as_object().unwrap() {
        let file = file.as_str().unwrap();
        let bytes = std::fs::read(folder.path().join(file)).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(tensors.tensor(name).unwrap(), whole.tensor(name).unwrap());
        seen.insert(file.to_owned());
    }
    assert_eq!(index["weight_map"].as_object().unwrap().len(), whole.len());
    assert!(seen.len() > 2);
    assert_eq!(report.files.len(), seen.len() + 2);
    assert!(report.files.iter().all(|file| file.exists()));
}

#[test]
fn an_existing_model_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    init_model(CONFIG.as_bytes(), 7, folder.path()).unwrap();
    let before = file_digest(&folder.path().join("model.safetensors"));
    let refused = init_model(CONFIG.as_bytes(), 8, folder.path());
    assert!(matches!(refused, Err(InitError::Exists { .. })));
    assert_eq!(file_digest(&folder.path().join("model.safetensors")), before);
}

#[test]
fn an_unusable_deviation_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for bad in ["0.0", "-1.0", "1e9"] {
        let config = CONFIG.replace("0.05", bad);
        let refused = init_model(config.as_bytes(), 7, folder.path());
        assert!(matches!(refused, Err(InitError::InitializerRange { .. })), "{bad}");
    }
}
