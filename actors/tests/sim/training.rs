//! Training on small vectors: results are made by the real codec and applied by the real exact apply.
//!
//! `SIM_PARAMETERS=n` sets the size of the model.

use std::sync::LazyLock;

use psyche_gpu::codec::{Layout, Part, Threads};
use psyche_gpu::config::ParameterSpec;
use psyche_gpu::{digest, exact};
use psyche_messages::{Address, BlobHash, Digest, Manifest, RoundKey};
use psyche_net::Wire;

use super::checks::RUN_TAG;

/// Edge of a chunk, and coefficients that are sent of each.
const CHUNK: usize = 8;
const TOP_K: usize = 4;
const LEARNING_RATE: f32 = 0.01;

/// A matrix and a vector, about `SIM_PARAMETERS` elements together.
static LAYOUT: LazyLock<Layout> = LazyLock::new(|| {
    let size: usize = std::env::var("SIM_PARAMETERS").map_or(72, |text| text.parse().expect("a number"));
    let columns = size.div_ceil(9).max(1);
    let spec = |name: &str, shape: &[usize]| ParameterSpec { name: name.into(), shape: shape.to_vec() };
    Layout::new(&[spec("matrix", &[CHUNK, columns]), spec("vector", &[columns])], CHUNK, TOP_K, true).unwrap()
});

/// Length of every payload.
pub(crate) fn payload_len() -> u32 {
    LAYOUT.payload_len() as u32
}

fn wholes() -> impl Iterator<Item = Part> {
    (0..LAYOUT.parameters().len()).map(|index| LAYOUT.whole(index).unwrap())
}

/// Parameters.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SimModel {
    weights: Vec<Vec<f32>>,
    digest: Digest,
}

impl SimModel {
    pub(crate) fn initial() -> Self {
        let weights = wholes().map(|part| noise(b"initial", part.elements().len())).collect();
        let mut model = Self { weights, digest: Digest([0; 32]) };
        model.renew_digest();
        model
    }

    pub(crate) const fn digest(&self) -> Digest {
        self.digest
    }

    fn renew_digest(&mut self) {
        let blocks = |(part, rows): (Part, &Vec<f32>)| {
            let blocks = digest::block_digests(&LAYOUT, &part, rows, Threads::ONE).unwrap();
            (part, blocks)
        };
        let owned: Vec<_> = wholes().zip(&self.weights).map(blocks).collect();
        self.digest = Digest(digest::combine(&digest::parameter_digests(&LAYOUT, &owned).unwrap()));
    }

    /// Something breaks.
    pub(crate) fn flip(&mut self) {
        let weight = &mut self.weights[0][0];
        *weight = f32::from_bits(weight.to_bits() ^ 1 << 20);
        self.renew_digest();
    }

    /// One step against the votes.
    pub(crate) fn apply(&mut self, payloads: &[Vec<u8>]) {
        let valid: Vec<_> = payloads.iter().map(|payload| LAYOUT.validate(payload).unwrap()).collect();
        for (part, rows) in wholes().zip(&mut self.weights) {
            exact::apply_payloads(&LAYOUT, &part, &valid, rows, LEARNING_RATE, Threads::ONE).unwrap();
        }
        self.renew_digest();
    }
}

/// Reproducible values in (−1, 1).
fn noise(seed: &[u8], len: usize) -> Vec<f32> {
    let mut bytes = vec![0; 4 * len];
    blake3::Hasher::new().update(seed).finalize_xof().fill(&mut bytes);
    let value = |word: &[u8]| i32::from_le_bytes(word.try_into().unwrap()) as f32 / 2_147_483_648.0;
    bytes.chunks_exact(4).map(value).collect()
}

/// What `trainer` finds in `round` on these parameters.
pub(crate) fn train(model: &SimModel, round: RoundKey, trainer: &Address) -> Vec<u8> {
    let seed =
        |part: &Part| [&model.digest().0[..], &round.step.0.to_le_bytes(), &trainer.0, &[part.parameter() as u8]].concat();
    let encoded = wholes().map(|part| {
        let gradient = noise(&seed(&part), part.elements().len());
        let selection = LAYOUT.compress(&part, &gradient, Threads::ONE).unwrap();
        let bytes = LAYOUT.encode_part(&part, &selection).unwrap();
        (part, bytes)
    });
    LAYOUT.assemble(&encoded.collect::<Vec<_>>()).unwrap()
}

/// Bytes of the right length that no encoder writes.
pub(crate) fn garbage() -> Vec<u8> {
    vec![0xff; LAYOUT.payload_len()]
}

/// Whether these bytes are a payload.
pub(crate) fn is_payload(bytes: &[u8]) -> bool {
    LAYOUT.validate(bytes).is_ok()
}

/// What a node stores and serves.
#[derive(Clone, Debug)]
pub(crate) enum Blob {
    Payload(Vec<u8>),
    Manifest(Manifest),
    Snapshot(SimModel),
}

/// The bytes of a blob on the wire; snapshots are not counted, since their size is the model's.
pub(crate) fn blob_len(blob: &Blob) -> u64 {
    let bytes = match blob {
        Blob::Payload(payload) => payload.len(),
        Blob::Manifest(manifest) => Wire::new(RUN_TAG).encode_manifest(manifest).unwrap().len(),
        Blob::Snapshot(_) => 0,
    };
    bytes as u64
}

/// The name of a manifest's blob; any injective form will do.
pub(crate) fn manifest_blob(manifest: &Manifest) -> BlobHash {
    BlobHash::of(format!("{manifest:?}").as_bytes())
}
