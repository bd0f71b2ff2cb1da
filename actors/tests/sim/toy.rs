//! Training without tensors: a result is a few signed votes for places of a small vector.

use psyche_messages::{Address, BlobHash, Digest, Manifest, RoundKey};

/// Places of the vector.
const PLACES: usize = 32;
/// Votes of one result.
const VOTES: usize = 4;
/// Length of every payload.
pub(crate) const PAYLOAD_LEN: u32 = 2 * VOTES as u32;

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ToyModel {
    weights: [i32; PLACES],
}

impl ToyModel {
    pub(crate) const fn initial() -> Self {
        Self { weights: [0; PLACES] }
    }

    pub(crate) fn digest(&self) -> Digest {
        let mut hasher = blake3::Hasher::new();
        for weight in self.weights {
            hasher.update(&weight.to_le_bytes());
        }
        Digest(*hasher.finalize().as_bytes())
    }

    /// Something breaks.
    pub(crate) fn flip(&mut self) {
        self.weights[0] ^= 1 << 20;
    }

    /// Every place moves by one against the majority of the votes for it.
    pub(crate) fn apply(&mut self, payloads: &[Vec<u8>]) {
        let mut votes = [0_i32; PLACES];
        for payload in payloads {
            for vote in payload.chunks_exact(2) {
                votes[usize::from(vote[0])] += if vote[1] == 0 { 1 } else { -1 };
            }
        }
        for (weight, votes) in self.weights.iter_mut().zip(votes) {
            *weight -= votes.signum();
        }
    }
}

/// What `trainer` finds in `round` on these parameters.
pub(crate) fn train(model: &ToyModel, round: RoundKey, trainer: &Address) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&model.digest().0).update(&round.step.0.to_le_bytes()).update(&trainer.0);
    let bytes = *hasher.finalize().as_bytes();
    bytes[..2 * VOTES].chunks_exact(2).flat_map(|pair| [pair[0] % PLACES as u8, pair[1] % 2]).collect()
}

/// What a node stores and serves.
#[derive(Clone, Debug)]
pub(crate) enum Blob {
    Payload(Vec<u8>),
    Manifest(Manifest),
    Snapshot(ToyModel),
}

/// The name of a manifest's blob; any injective form will do.
pub(crate) fn manifest_blob(manifest: &Manifest) -> BlobHash {
    BlobHash::of(format!("{manifest:?}").as_bytes())
}
