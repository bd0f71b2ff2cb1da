#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

use super::*;

mod rope;

fn json(change: &[(&str, serde_json::Value)]) -> Vec<u8> {
    let mut value = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": 32,
        "intermediate_size": 48, "num_hidden_layers": 11, "num_attention_heads": 4, "num_key_value_heads": 2,
        "vocab_size": 128, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 64,
        "tie_word_embeddings": false, "torch_dtype": "float32", "bos_token_id": 1, "use_cache": true,
    });
    for (key, new) in change {
        value[*key] = new.clone();
    }
    serde_json::to_vec(&value).unwrap()
}

fn refused_fields(text: &[u8]) -> Vec<String> {
    match LlamaConfig::from_json(text).unwrap_err() {
        ConfigError::Unsupported { violations } => violations.iter().map(|v| v.field.to_string()).collect(),
        other => panic!("expected refused fields, got {other:?}"),
    }
}

#[test]
fn parameters_are_sorted_by_name_and_add_up_to_the_count() {
    for tied in [false, true] {
        let config = LlamaConfig::from_json(&json(&[("tie_word_embeddings", tied.into())])).unwrap();
        let parameters = config.parameters();
        assert_eq!(parameters.len(), 11 * 9 + 2 + usize::from(!tied));
        assert!(parameters.windows(2).all(|pair| pair[0].name < pair[1].name));
        let total: usize = parameters.iter().map(ParameterSpec::len).sum();
        assert_eq!(total as u64, config.parameter_count());
    }
}

#[test]
fn grouped_query_shapes_follow_the_key_value_heads() {
    let parameters = LlamaConfig::from_json(&json(&[])).unwrap().parameters();
    let shape = |name: &str| parameters.iter().find(|p| p.name == name).unwrap().shape.clone();
    assert_eq!(shape("model.layers.10.self_attn.q_proj.weight"), [32, 32]);
    assert_eq!(shape("model.layers.10.self_attn.k_proj.weight"), [16, 32]);
    assert_eq!(shape("model.layers.10.mlp.down_proj.weight"), [32, 48]);
}

#[test]
fn a_written_config_reads_back_equal() {
    let config = LlamaConfig::from_json(&json(&[("tie_word_embeddings", true.into())])).unwrap();
    let text = serde_json::to_vec(&config).unwrap();
    assert_eq!(LlamaConfig::from_json(&text).unwrap(), config);
}

#[test]
fn every_unsupported_field_is_named_at_once() {
    let text = json(&[
        ("architectures", serde_json::json!(["LlamaForSequenceClassification"])),
        ("auto_map", serde_json::json!({"AutoModel": "code.py"})),
        ("rope_scaling", serde_json::json!({"rope_type": "longrope"})),
        ("attention_bias", true.into()),
        ("hidden_act", "gelu".into()),
        ("num_key_value_heads", 3.into()),
        ("torch_dtype", "int8".into()),
    ]);
    let fields = refused_fields(&text);
    let expected = [
        "hidden_act",
        "attention_bias",
        "architectures",
        "auto_map",
        "torch_dtype",
        "rope_scaling.rope_type",
        "num_key_value_heads",
    ];
    assert_eq!(fields, expected);
}

#[test]
fn absurd_sizes_are_refused_without_overflow() {
    let huge = u64::MAX;
    let fields = refused_fields(&json(&[("hidden_size", huge.into()), ("vocab_size", 0.into())]));
    assert!(fields.iter().any(|field| field == "hidden_size") && fields.iter().any(|field| field == "vocab_size"));
    assert_eq!(refused_fields(&json(&[("num_attention_heads", 0.into())]))[0], "num_attention_heads");
    let large = [("hidden_size", (1 << 24).into()), ("head_dim", 128.into()), ("intermediate_size", (1 << 24).into())];
    assert_eq!(refused_fields(&json(&large)), ["num_hidden_layers"]);
}

#[test]
fn oversized_and_malformed_files_are_refused() {
    let error = LlamaConfig::from_json(&vec![b' '; CONFIG_BYTES_MAX + 1]).unwrap_err();
    assert!(matches!(error, ConfigError::TooLarge { .. }));
    assert!(matches!(LlamaConfig::from_json(b"{}").unwrap_err(), ConfigError::Parse(_)));
}
