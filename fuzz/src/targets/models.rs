//! Payloads, and the configuration of a model, which a checkpoint or a peer's snapshot brings.

use std::sync::OnceLock;

use psyche_gpu::codec::{CodecError, Layout, Selection, Threads, ValidPayload};
use psyche_gpu::config::{LlamaConfig, ParameterSpec};

use super::{Target, Verdict, canonical};
use crate::allocation::within;

/// Chunk edge, top-k and form of values: both codes of index sets, both forms of values, all coefficients and one.
const SETTINGS: [(usize, usize, bool); 6] =
    [(16, 4, true), (16, 4, false), (32, 200, true), (8, 64, false), (64, 1, true), (5, 3, false)];

fn layouts() -> &'static [Layout] {
    static LAYOUTS: OnceLock<Vec<Layout>> = OnceLock::new();
    LAYOUTS.get_or_init(|| {
        let spec = |name: &str, shape: &[usize]| ParameterSpec { name: name.to_owned(), shape: shape.to_vec() };
        let specs = [spec("a", &[32, 16]), spec("b", &[15, 22]), spec("c", &[48])];
        let layout = |(chunk, topk, one_bit)| Layout::new(&specs, chunk, topk, one_bit);
        SETTINGS.into_iter().map(layout).collect::<Result<_, _>>().unwrap_or_else(|error| panic!("{error}"))
    })
}

/// The payload's layout, by the first byte of the input, and the payload.
fn split(bytes: &[u8]) -> Option<(&'static Layout, &[u8])> {
    let (which, payload) = bytes.split_first()?;
    Some((layouts().get(usize::from(*which) % SETTINGS.len())?, payload))
}

/// What trainers send. The first byte chooses one of six layouts.
pub(super) const PAYLOAD: Target = Target {
    name: "payload",
    length_max: 8 * 1024,
    tokens: &[],
    examples: || (0..SETTINGS.len()).filter_map(payload_of).collect(),
    repair: |bytes| {
        let wanted = split(bytes).map(|(layout, _)| (layout.payload_len(), SETTINGS[usize::from(bytes[0]) % SETTINGS.len()].2));
        if let Some((len, one_bit)) = wanted {
            bytes.resize(1 + len, 0);
            super::put(bytes, 1, &[if one_bit { 1 } else { 2 }]);
        }
    },
    check: check_payload,
};

/// Some coefficients as a payload.
fn payload_of(which: usize) -> Option<Vec<u8>> {
    let layout = layouts().get(which)?;
    let part = |index: usize| {
        let part = layout.whole(index)?;
        let rows: Vec<f32> = part.elements().map(|at| ((at * 7919 + which) % 101) as f32 - 50.0).collect();
        let selection = layout.compress(&part, &rows, Threads::ONE)?;
        let bytes = layout.encode_part(&part, &selection)?;
        Ok::<_, CodecError>((part, bytes))
    };
    let parts = (0..layout.parameters().len()).map(part).collect::<Result<Vec<_>, _>>().ok()?;
    Some([vec![which as u8], layout.assemble(&parts).ok()?].concat())
}

fn check_payload(bytes: &[u8]) -> Verdict {
    let Some((layout, payload)) = split(bytes) else { return Verdict::Refused("no layout".to_owned()) };
    let valid = within(16 * 1024, || layout.validate(payload));
    canonical(payload, valid, |valid| encoded_again(layout, valid))
}

fn encoded_again(layout: &Layout, valid: &ValidPayload<'_>) -> Result<Vec<u8>, CodecError> {
    let again = |index: usize| {
        let part = layout.whole(index)?;
        // Indices and values, six bytes for each.
        let selection: Selection = within(64 * 1024, || valid.decode(&part))?;
        let parameter = &layout.parameters()[index];
        let n = parameter.geometry().chunk_len();
        for indices in selection.indices.chunks(parameter.k()) {
            assert!(
                indices.is_sorted_by(|a, b| a < b)
                    && indices.iter().all(|&index| usize::try_from(index).is_ok_and(|index| index < n)),
                "indices"
            );
        }
        assert!(selection.values.iter().all(|value| value.is_finite()), "a value is not finite");
        Ok((part.clone(), layout.encode_part(&part, &selection)?))
    };
    let parts = (0..layout.parameters().len()).map(again).collect::<Result<Vec<_>, CodecError>>()?;
    layout.assemble(&parts)
}

/// A model's `config.json`.
pub(super) const CONFIG: Target = Target {
    name: "model_config",
    length_max: 4 * 1024,
    tokens: &[
        b"\"rope_scaling\":",
        b"{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,",
        b"\"original_max_position_embeddings\":8192}",
        b"{\"rope_type\":\"yarn\",\"factor\":4.0}",
        b"\"num_key_value_heads\":",
        b"\"head_dim\":",
        b"null",
        b"true",
        b"1e308",
        b"-1",
        b"18446744073709551615",
        b"1099511627776",
    ],
    examples: || vec![CONFIG_JSON.to_vec()],
    repair: |_| {},
    check: check_config,
};

const CONFIG_JSON: &[u8] = br#"{"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_act":"silu","hidden_size":64,"intermediate_size":128,"num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,"vocab_size":300,"max_position_embeddings":128,"rms_norm_eps":1e-05,"rope_theta":10000.0,"tie_word_embeddings":false,"torch_dtype":"float32"}"#;

fn check_config(bytes: &[u8]) -> Verdict {
    match within(64 * 1024 + 64 * bytes.len(), || LlamaConfig::from_json(bytes)) {
        Ok(config) => {
            // What follows from it stays within bounds: sizes, and a layout of any settings that the chain may name.
            let parameters = within(4 << 20, || config.parameters());
            let count: u64 = parameters.iter().map(|parameter| parameter.len() as u64).sum();
            assert!(count <= psyche_gpu::config::PARAMETERS_MAX, "{count} parameters");
            if parameters.len() < 64 {
                let layout = Layout::new(&parameters, 64, 8, true);
                assert!(layout.is_ok_and(|layout| layout.payload_len() > 0), "there is no layout for it");
            }
            Verdict::Accepted
        }
        Err(error) => Verdict::Refused(error.to_string()),
    }
}
