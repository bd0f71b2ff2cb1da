//! Any chunk edge, any top-k, any tensor shape: from momentum to weights and back.

use proptest::prelude::*;

use super::*;
use crate::config::LlamaConfig;
use crate::exact::apply_payloads;

/// Everything that happens to one result, checked on the way.
fn round_trip(shape: &[usize], chunk: usize, topk: usize, one_bit: bool, seed: u64) {
    let layout = Layout::new(&[spec("a", shape)], chunk, topk, one_bit).unwrap();
    let part = layout.whole(0).unwrap();
    let (geometry, k) = (*layout.parameters()[0].geometry(), layout.parameters()[0].k());
    assert_eq!(k, topk.min(geometry.chunk_len()));
    assert!(geometry.chunk_height() <= chunk && geometry.chunk_width() <= chunk);
    let momentum = noise(seed, part.elements().len());
    let chosen = layout.compress(&part, &momentum, Threads::new(2)).unwrap();
    let payload = layout.assemble(&[(part.clone(), layout.encode_part(&part, &chosen).unwrap())]).unwrap();
    assert_eq!(payload.len(), layout.payload_len());
    let valid = layout.validate(&payload).unwrap();
    let received = valid.decode(&part).unwrap();
    assert_eq!(received.indices, chosen.indices);
    let mut weights = vec![1.0; momentum.len()];
    apply_payloads(&layout, &part, &[valid], &mut weights, 0.25, Threads::new(2)).unwrap();
    assert!(weights.iter().all(|weight| [0.75, 1.0, 1.25].contains(weight)));
    if k == geometry.chunk_len() {
        // Everything is sent: nothing is left of the momentum, and in f32 every weight moves against it.
        let mut left = momentum.clone();
        layout.subtract(&part, &chosen, &mut left, Threads::ONE).unwrap();
        assert!(left.iter().all(|left| left.abs() < 1e-4), "{shape:?}");
    }
}

#[test]
fn odd_prime_and_huge_dimensions_go_all_the_way() {
    for one_bit in [true, false] {
        for (shape, chunk, topk) in [
            (&[70_001][..], 64, 8),
            (&[65_537, 2], 64, 8),
            (&[2, 131_072], 64, 8),
            (&[66_000], 250, 3),
            (&[1], 64, 8),
            (&[1, 1, 1], 1, 1),
            (&[256, 256], 256, 8),
            (&[251], 256, 300),
            (&[37, 61], 64, 5000),
            (&[2, 3, 4, 5], 3, 2),
            // Indices beyond u16, the largest edge, one beyond it, primes, sizes that only one edge divides.
            (&[300, 500], 512, 9),
            (&[65_535], 65_535, 8),
            (&[65_536], 65_535, 8),
            (&[1021, 2], 65_535, 5),
            (&[2, 600, 70], 601, 2000),
            (&[257, 3], 300, 771),
        ] {
            round_trip(shape, chunk, topk, one_bit, 7);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn prop_any_edge_top_k_and_shape_goes_all_the_way(
        shape in prop::collection::vec(1..48_usize, 1..4),
        chunk in 1..=MAX_CHUNK,
        topk in prop_oneof![1..10_usize, 1..70_000_usize],
        one_bit: bool,
        seed: u64,
    ) {
        round_trip(&shape, chunk, topk, one_bit, seed);
    }

    #[test]
    fn prop_large_chunks_go_all_the_way(
        height in 1..20_usize,
        width in 257..1500_usize,
        standing: bool,
        chunk in 257..=MAX_CHUNK,
        topk in 1..12_usize,
        one_bit: bool,
        seed: u64,
    ) {
        let shape = if standing { [width, height] } else { [height, width] };
        round_trip(&shape, chunk, topk, one_bit, seed);
    }
}

/// Bytes per 4,096 parameters of whole models at the settings that runs use.
#[test]
fn whole_models_take_at_most_eleven_and_a_half_bytes_per_4096_parameters() {
    let model = |hidden: usize, ff: usize, layers: usize, heads: (usize, usize), vocab: usize| {
        let json = format!(
            r#"{{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": {hidden},
                "intermediate_size": {ff}, "num_hidden_layers": {layers}, "num_attention_heads": {},
                "num_key_value_heads": {}, "vocab_size": {vocab}, "max_position_embeddings": 2048,
                "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "hidden_act": "silu", "tie_word_embeddings": true}}"#,
            heads.0, heads.1
        );
        LlamaConfig::from_json(json.as_bytes()).unwrap()
    };
    // Llama 3.2 1B, Llama 2 7B, and a small one with the same proportions.
    for config in
        [model(2048, 8192, 16, (32, 8), 128_256), model(4096, 11_008, 32, (32, 32), 32_000), model(512, 1408, 4, (8, 4), 4096)]
    {
        let layout = Layout::new(&config.parameters(), 64, 8, true).unwrap();
        let per_chunk = (layout.payload_len() as f64) / (config.parameter_count() as f64 / 4096.0);
        assert!(per_chunk <= 11.5, "{per_chunk} bytes, {} parameters", config.parameter_count());
        let matrices: Vec<_> = layout.parameters().iter().filter(|p| p.geometry().chunk_len() == 4096).collect();
        let bytes: usize = matrices.iter().map(|p| p.payload().len()).sum();
        let chunks: usize = matrices.iter().map(|p| p.geometry().chunks()).sum();
        assert!(bytes as f64 / chunks as f64 <= 11.25, "{bytes} bytes, {chunks} chunks");
    }
}
