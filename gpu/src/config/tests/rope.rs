//! Kinds of rotary embedding, as files spell them.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{json as file, refused_fields};
use crate::config::{Llama3, LlamaConfig, Rope, Yarn};

fn rope_of(change: &[(&str, Value)]) -> (f64, Rope) {
    let config = LlamaConfig::from_json(&file(change)).unwrap();
    (config.rope_theta, config.rope)
}

fn llama3() -> Value {
    json!({
        "rope_type": "llama3", "factor": 8, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    })
}

const LLAMA3: Rope =
    Rope::Llama3(Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_max_position_embeddings: 16 });

fn with(mut object: Value, changes: Value) -> Value {
    object.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    object
}

#[test]
fn both_places_and_both_spellings_are_understood() {
    let mut old = llama3();
    let kind = old.as_object_mut().unwrap().remove("rope_type").unwrap();
    let old = with(old, json!({ "type": kind }));
    assert_eq!(rope_of(&[("rope_scaling", llama3())]), (1e4, LLAMA3));
    assert_eq!(rope_of(&[("rope_scaling", old)]), (1e4, LLAMA3));
    // Inside, the base stands before the one outside.
    let new = with(llama3(), json!({ "rope_theta": 5e5, "partial_rotary_factor": 1.0 }));
    assert_eq!(rope_of(&[("rope_parameters", new.clone())]), (5e5, LLAMA3));
    assert_eq!(rope_of(&[("rope_parameters", new.clone()), ("rope_scaling", new)]), (5e5, LLAMA3));
    for nothing in [json!(null), json!({}), json!({ "rope_type": "default" }), json!({ "type": "default", "rope_theta": null })]
    {
        assert_eq!(rope_of(&[("rope_scaling", nothing.clone())]), (1e4, Rope::Default));
        assert_eq!(rope_of(&[("rope_parameters", nothing)]), (1e4, Rope::Default));
    }
}

#[test]
fn absent_fields_have_hugging_faces_defaults() {
    let expected = Yarn {
        factor: 4.0,
        attention_factor: 0.1 * 4.0_f64.ln() + 1.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
        original_max_position_embeddings: 64,
        truncate: true,
    };
    let yarn = |fields: Value| match rope_of(&[("rope_scaling", with(json!({ "type": "yarn" }), fields))]).1 {
        Rope::Yarn(yarn) => yarn,
        other => panic!("{other:?}"),
    };
    assert_eq!(yarn(json!({ "factor": 4 })), expected);
    assert_eq!(yarn(json!({ "factor": 4, "beta_fast": 0, "beta_slow": null, "mscale": 2.0 })), expected);
    assert_eq!(
        yarn(json!({ "original_max_position_embeddings": 16 })),
        Yarn { original_max_position_embeddings: 16, ..expected }
    );
    let scaled = yarn(json!({ "factor": 4, "mscale": 2.0, "mscale_all_dim": 0.5, "truncate": false, "beta_fast": 24 }));
    let attention_factor = (0.2 * 4.0_f64.ln() + 1.0) / (0.05 * 4.0_f64.ln() + 1.0);
    assert_eq!(scaled, Yarn { attention_factor, beta_fast: 24.0, truncate: false, ..expected });
    assert_eq!(yarn(json!({ "factor": 4, "attention_factor": 0.5 })).attention_factor, 0.5);
    assert_eq!(yarn(json!({ "factor": 1, "mscale": 3.0, "mscale_all_dim": 1.0 })).attention_factor, 1.0);
    let outside = rope_of(&[("rope_scaling", json!({ "type": "yarn" })), ("original_max_position_embeddings", 16.into())]).1;
    assert_eq!(outside, Rope::Yarn(Yarn { original_max_position_embeddings: 16, ..expected }));
}

#[test]
fn what_is_odd_or_unknown_is_refused_by_name_all_at_once() {
    let refused = |object: Value| refused_fields(&file(&[("rope_scaling", object)]));
    for kind in ["linear", "dynamic", "longrope", "su", "mrope", "LLAMA3"] {
        assert_eq!(refused(json!({ "rope_type": kind, "factor": 2 })), ["rope_scaling.rope_type"]);
        assert_eq!(refused(json!({ "type": kind })), ["rope_scaling.type"]);
    }
    let bad = json!({
        "rope_type": "llama3", "type": "yarn", "partial_rotary_factor": 0.5, "factor": 0.5, "low_freq_factor": 4,
        "high_freq_factor": 4, "original_max_position_embeddings": 0, "rope_theta": 1.0, "beta_fast": 32,
    });
    let expected = [
        "rope_scaling.type",
        "rope_scaling.partial_rotary_factor",
        "rope_scaling.beta_fast",
        "rope_scaling.factor",
        "rope_scaling.high_freq_factor",
        "rope_scaling.original_max_position_embeddings",
        "rope_theta",
    ];
    assert_eq!(refused(bad), expected);
    let missing = ["rope_scaling.factor", "rope_scaling.low_freq_factor", "rope_scaling.high_freq_factor"];
    assert_eq!(refused(json!({ "rope_type": "llama3" })), missing);
    let bad = json!({
        "rope_type": "yarn", "factor": -1, "attention_factor": "x", "beta_fast": 1, "beta_slow": 2, "mscale": -1,
        "truncate": 1, "original_max_position_embeddings": 16.5, "full_attention": {},
    });
    let expected = [
        "rope_scaling.full_attention",
        "rope_scaling.original_max_position_embeddings",
        "rope_scaling.factor",
        "rope_scaling.mscale",
        "rope_scaling.attention_factor",
        "rope_scaling.beta_fast",
        "rope_scaling.truncate",
    ];
    assert_eq!(refused(bad), expected);
    let two = file(&[("rope_scaling", llama3()), ("rope_parameters", json!({ "rope_type": "default" }))]);
    assert_eq!(refused_fields(&two), ["rope_parameters"]);
    assert_eq!(refused_fields(&file(&[("rope_parameters", json!([]))])), ["rope_parameters"]);
    let outside = file(&[("rope_scaling", llama3()), ("original_max_position_embeddings", 32.into())]);
    assert_eq!(refused_fields(&outside), ["rope_scaling.original_max_position_embeddings"]);
}

#[test]
fn llama3_slows_low_frequencies_and_leaves_high_ones_alone() {
    let rope = Rope::Llama3(Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 8192,
    });
    let (plain, slowed) = (Rope::Default.frequencies(5e5, 128), rope.frequencies(5e5, 128));
    let turns = |frequency: f64| 8192.0 * frequency / std::f64::consts::TAU;
    let mut kinds = [0; 3];
    for (plain, slowed) in plain.into_iter().zip(slowed) {
        let kind = [turns(plain) >= 4.0, turns(plain) <= 1.0, true].iter().position(|&holds| holds).unwrap();
        kinds[kind] += 1;
        match kind {
            0 => assert_eq!(slowed, plain),
            1 => assert_eq!(slowed, plain / 8.0),
            _ => assert!(plain / 8.0 < slowed && slowed < plain),
        }
    }
    assert!(kinds.iter().all(|&count| count > 0), "{kinds:?}");
}

proptest! {
    #[test]
    fn prop_a_written_rope_reads_back_equal(
        yarn in any::<bool>(),
        (factor, low, more) in (1.0..1e6_f64, 1e-3..1e3_f64, 1e-3..1e3_f64),
        (attention_factor, original) in (1e-3..1e3_f64, 1..1_usize << 20),
        truncate in any::<bool>(),
    ) {
        let fields = if yarn {
            json!({
                "rope_type": "yarn", "factor": factor, "attention_factor": attention_factor, "beta_fast": low + more,
                "beta_slow": low, "truncate": truncate, "original_max_position_embeddings": original,
            })
        } else {
            json!({
                "rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": low + more,
                "original_max_position_embeddings": original,
            })
        };
        let config = LlamaConfig::from_json(&file(&[("rope_parameters", fields)])).unwrap();
        prop_assert!(config.rope != Rope::Default);
        let written = serde_json::to_vec(&config).unwrap();
        prop_assert_eq!(&LlamaConfig::from_json(&written).unwrap(), &config);
        let frequencies = config.rope.frequencies(config.rope_theta, config.head_dim);
        prop_assert!(frequencies.iter().all(|frequency| (0.0..=1.0).contains(frequency)));
    }

    #[test]
    fn prop_no_value_of_a_rope_field_panics(
        field in "(rope_type|type|factor|low_freq_factor|beta_fast|mscale|attention_factor|original_max_position_embeddings)",
        value in prop_oneof![
            any::<i64>().prop_map(Value::from), any::<f64>().prop_map(Value::from), any::<bool>().prop_map(Value::from),
            "[a-z3]{0,8}".prop_map(Value::from), Just(json!([])), Just(json!({})),
        ],
        kind in "(llama3|yarn|default)",
    ) {
        let mut object = with(llama3(), json!({ "rope_type": kind }));
        object[&field] = value;
        if let Ok(config) = LlamaConfig::from_json(&file(&[("rope_scaling", object)])) {
            prop_assert!(config.rope.frequencies(config.rope_theta, config.head_dim).iter().all(|f| f.is_finite()));
        }
    }
}
