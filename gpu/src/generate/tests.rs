#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

use tempfile::TempDir;

use super::*;
use crate::init::init_model;

const CONFIG: &str = r#"{"model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 96, "rms_norm_eps": 1e-5,
    "max_position_embeddings": 16, "tie_word_embeddings": false, "initializer_range": 0.5}"#;
const PROMPT: [u32; 3] = [5, 60, 2];

fn model() -> (TempDir, Generator) {
    let folder = tempfile::tempdir().unwrap();
    init_model(CONFIG.as_bytes(), 3, &folder.path().join("model")).unwrap();
    let generator = Generator::open(&folder.path().join("model")).unwrap();
    (folder, generator)
}

const fn drawn(temperature: f32, seed: u64) -> Sampling {
    Sampling { temperature, top_k: None, seed }
}

fn tokens(model: &Generator, sampling: Sampling) -> Vec<u32> {
    model.generate(&PROMPT, 30, sampling, None, &mut || true).unwrap()
}

#[test]
fn greedy_tokens_are_the_largest_logits_of_the_whole_forward_pass() {
    let (_folder, generator) = model();
    let mut all = PROMPT.to_vec();
    all.extend(tokens(&generator, drawn(0.0, 1)));
    for end in PROMPT.len()..all.len() {
        let seen = &all[end.saturating_sub(16)..end];
        let inputs: Vec<i64> = seen.iter().map(|&token| i64::from(token)).collect();
        let logits = generator.model.logits(&Tensor::from_slice(&inputs).view([1, -1])).unwrap();
        let best = logits.select(1, -1).argmax(-1, false).int64_value(&[0]);
        assert_eq!(best, i64::from(all[end]), "token {end}");
    }
}

#[test]
fn a_seed_draws_the_same_tokens_every_time_and_another_seed_others() {
    let (_folder, model) = model();
    assert_eq!(tokens(&model, drawn(1.0, 7)), tokens(&model, drawn(1.0, 7)));
    assert_ne!(tokens(&model, drawn(1.0, 7)), tokens(&model, drawn(1.0, 8)));
    assert_eq!(tokens(&model, drawn(0.0, 7)), tokens(&model, drawn(0.0, 8)), "nothing is drawn");
    let only_one = Sampling { top_k: Some(1), ..drawn(3.0, 7) };
    assert_eq!(tokens(&model, only_one), tokens(&model, drawn(0.0, 1)));
}

#[test]
fn the_logits_are_those_that_the_trainer_s_rank_computes() {
    let (folder, model) = model();
    let theirs = crate::testing::on_loaded_ranks(
        (1, 1),
        (model.config(), crate::testing::one_bit()),
        &folder.path().join("model"),
        1,
        |rank| rank.logits(0, &[PROMPT.to_vec()]).unwrap(),
    );
    let last = theirs[0].len() - model.config().vocab_size;
    assert_eq!(theirs[0][last..], model.next_logits(&PROMPT).unwrap());
}

#[test]
fn draws_follow_the_softmax_of_the_logits() {
    let mut dice = ChaCha8Rng::seed_from_u64(5);
    let logits = [1.0_f32.ln(), 2.0_f32.ln(), 5.0_f32.ln()];
    let mut counts = [0_u32; 3];
    for _ in 0..8000 {
        counts[choose(&logits, drawn(1.0, 0), &mut dice) as usize] += 1;
    }
    for (count, share) in counts.into_iter().zip([1000.0, 2000.0, 5000.0]) {
        assert!((f64::from(count) - share).abs() < 200.0, "{counts:?}");
    }
    let two = Sampling { top_k: Some(2), ..drawn(1.0, 0) };
    assert!((0..200).all(|_| choose(&logits, two, &mut dice) != 0), "the third is never drawn");
}

#[test]
fn it_ends_at_the_end_and_where_it_is_told_to() {
    let (_folder, model) = model();
    let all = tokens(&model, drawn(0.0, 1));
    let until = all.iter().position(|token| *token == all[4]).unwrap() + 1;
    let ended = model.generate(&PROMPT, 30, drawn(0.0, 1), Some(all[4]), &mut || true).unwrap();
    assert_eq!(ended, all[..until]);
    let mut left = 3;
    let mut going = || {
        left -= 1;
        left >= 0
    };
    assert_eq!(model.generate(&PROMPT, 30, drawn(0.0, 1), None, &mut going).unwrap(), all[..3]);
}

#[test]
fn what_cannot_be_continued_is_refused_in_words() {
    let (folder, model) = model();
    let refused = |prompt: &[u32], temperature| {
        model.generate(prompt, 4, drawn(temperature, 1), None, &mut || true).unwrap_err().to_string()
    };
    assert!(refused(&[], 1.0).contains("no token"));
    assert!(refused(&[96], 1.0).contains("token 96 is outside"));
    assert!(refused(&PROMPT, -1.0).contains("temperature -1"));
    assert!(refused(&PROMPT, f32::NAN).contains("temperature NaN"));
    let missing = Generator::open(folder.path()).err().unwrap().to_string();
    assert!(missing.contains("config.json"), "{missing}");
    std::fs::remove_file(folder.path().join("model/model.safetensors")).unwrap();
    let missing = Generator::open(&folder.path().join("model")).err().unwrap().to_string();
    assert!(missing.contains("model.safetensors"), "{missing}");
}
