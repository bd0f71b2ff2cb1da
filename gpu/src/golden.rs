//! The committed vectors in `golden/update.json`: from momentum over payloads to weights and their digest, for ever.
//!
//! `PSYCHE_WRITE_GOLDEN=1 cargo test -p psyche-gpu golden` writes the file anew; see `golden/README.md`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

use serde::{Deserialize, Serialize};

use crate::codec::simd::Simd;
use crate::codec::{Layout, Part, Threads};
use crate::config::ParameterSpec;
use crate::digest;
use crate::exact::{Accumulator, apply_payloads};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/update.json");
const NAME: &str = "model.weight";

/// One update of one tensor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Case {
    pub(crate) shape: Vec<usize>,
    pub(crate) compression_chunk: usize,
    pub(crate) compression_topk: usize,
    pub(crate) quantize_1bit: bool,
    /// By sender, the seed of its momentum.
    pub(crate) momentum_seeds: Vec<u64>,
    pub(crate) weights_seed: u64,
    /// Bit patterns of f32: the learning rate, and the factor of the weight decay that is multiplied in before.
    pub(crate) lr_bits: u32,
    pub(crate) factor_bits: u32,
    /// By sender, its payload in hexadecimal digits.
    pub(crate) payloads: Vec<String>,
    /// BLAKE3 of the weights after the update, as f32 little-endian in tensor order.
    pub(crate) weights_blake3: String,
    /// The digest that nodes would gossip if this tensor were the whole model.
    pub(crate) model_digest: String,
}

/// Values in [−1, 1) with 24 bits each, from splitmix64 started at `seed`.
pub(crate) fn generated(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    };
    (0..len).map(|_| ((next() >> 40) as f32 - 8_388_608.0) / 8_388_608.0).collect()
}

impl Case {
    pub(crate) fn layout(&self) -> (Layout, Part) {
        let specs = [ParameterSpec { name: NAME.into(), shape: self.shape.clone() }];
        let layout = Layout::new(&specs, self.compression_chunk, self.compression_topk, self.quantize_1bit).unwrap();
        let part = layout.whole(0).unwrap();
        (layout, part)
    }

    pub(crate) fn payload_bytes(&self) -> Vec<Vec<u8>> {
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        self.payloads.iter().map(|hex| hex.as_bytes().chunks(2).map(byte).collect()).collect()
    }

    /// The weights before the exact update, but after the weight decay.
    fn decayed(&self, len: usize) -> Vec<f32> {
        let factor = f32::from_bits(self.factor_bits);
        generated(self.weights_seed, len).into_iter().map(|weight| weight * factor).collect()
    }

    fn payloads_of(&self, simd: Simd) -> Vec<String> {
        let (layout, part) = self.layout();
        let encode = |&seed: &u64| {
            let momentum = generated(seed, part.elements().len());
            let chosen = layout.compress_with(simd, &part, &momentum, Threads::ONE).unwrap();
            let payload = layout.assemble(&[(part.clone(), layout.encode_part(&part, &chosen).unwrap())]).unwrap();
            payload.iter().map(|byte| format!("{byte:02x}")).collect()
        };
        self.momentum_seeds.iter().map(encode).collect()
    }

    /// Digest of the weights, and of the model that they would be.
    pub(crate) fn digests(layout: &Layout, part: &Part, weights: &[f32], threads: Threads) -> (String, String) {
        let mut hasher = blake3::Hasher::new();
        weights.iter().for_each(|weight| _ = hasher.update(&weight.to_le_bytes()));
        let blocks = digest::block_digests(layout, part, weights, threads).unwrap();
        let parameters = digest::parameter_digests(layout, &[(part.clone(), blocks)]).unwrap();
        let model = blake3::Hash::from(digest::combine(&parameters));
        (hasher.finalize().to_hex().to_string(), model.to_hex().to_string())
    }

    fn expected(&self) -> (String, String) {
        (self.weights_blake3.clone(), self.model_digest.clone())
    }
}

/// The committed cases.
pub(crate) fn cases() -> Vec<Case> {
    let text = std::fs::read(FILE).expect("golden/update.json is there");
    serde_json::from_slice(&text).expect("golden/update.json is a list of cases")
}

fn made() -> Vec<Case> {
    let case = |number: usize, shape: &[usize], (chunk, topk): (usize, usize), quantize_1bit: bool, senders: u64| {
        let number = number as u64;
        let mut case = Case {
            shape: shape.to_vec(),
            compression_chunk: chunk,
            compression_topk: topk,
            quantize_1bit,
            momentum_seeds: (0..senders).map(|sender| 1000 * number + sender).collect(),
            weights_seed: 77 + number,
            lr_bits: 4e-4_f32.to_bits(),
            factor_bits: if number.is_multiple_of(2) { 1.0_f32 } else { 0.99996 }.to_bits(),
            payloads: Vec::new(),
            weights_blake3: String::new(),
            model_digest: String::new(),
        };
        case.payloads = case.payloads_of(Simd::best());
        let (layout, part) = case.layout();
        let mut weights = case.decayed(part.elements().len());
        let payloads = case.payload_bytes();
        let valid: Vec<_> = payloads.iter().map(|payload| layout.validate(payload).unwrap()).collect();
        apply_payloads(&layout, &part, &valid, &mut weights, f32::from_bits(case.lr_bits), Threads::ONE).unwrap();
        (case.weights_blake3, case.model_digest) = Case::digests(&layout, &part, &weights, Threads::ONE);
        case
    };
    vec![
        case(0, &[128, 192], (64, 8), true, 4),
        case(1, &[64, 128], (64, 8), false, 3),
        case(2, &[192], (64, 8), true, 2),
        case(3, &[131], (64, 4), true, 3),
        case(4, &[3, 35, 22], (16, 5), false, 3),
        case(5, &[86, 64], (64, 8), true, 5),
        case(6, &[256, 256], (256, 8), true, 7),
        case(7, &[64, 64], (64, 64), true, 1),
        case(8, &[8, 8], (8, 64), false, 2),
        case(9, &[24, 40], (12, 1), true, 16),
        case(10, &[300, 520], (1000, 8), true, 4),
        case(11, &[2, 514, 6], (65_535, 5), false, 3),
    ]
}

#[test]
fn golden_updates_are_the_committed_ones_with_every_instruction_set_and_number_of_threads() {
    if std::env::var_os("PSYCHE_WRITE_GOLDEN").is_some() {
        let text = serde_json::to_string_pretty(&made()).unwrap();
        // At once, as other tests may be reading it.
        let fresh = format!("{FILE}.tmp");
        std::fs::write(&fresh, text + "\n").unwrap();
        std::fs::rename(fresh, FILE).unwrap();
    }
    let cases = cases();
    assert_eq!(cases.len(), made().len());
    for case in cases {
        let (layout, part) = case.layout();
        let payloads = case.payload_bytes();
        let valid: Vec<_> = payloads.iter().map(|payload| layout.validate(payload).unwrap()).collect();
        let before = case.decayed(part.elements().len());
        let lr = f32::from_bits(case.lr_bits);
        for threads in (1..=8).map(Threads::new) {
            let mut weights = before.clone();
            apply_payloads(&layout, &part, &valid, &mut weights, lr, threads).unwrap();
            assert_eq!(Case::digests(&layout, &part, &weights, threads), case.expected(), "{:?}", case.shape);
        }
        let selections: Vec<_> = valid.iter().map(|payload| payload.decode(&part).unwrap()).collect();
        for simd in Simd::all() {
            assert_eq!(case.payloads_of(simd), case.payloads, "{simd:?} {:?}", case.shape);
            let mut accumulator = Accumulator::new(&layout, &part).unwrap().with(simd);
            selections.iter().for_each(|selection| accumulator.add(selection).unwrap());
            let mut weights = before.clone();
            accumulator.apply(&mut weights, lr, Threads::ONE).unwrap();
            assert_eq!(Case::digests(&layout, &part, &weights, Threads::ONE), case.expected(), "{simd:?}");
        }
    }
}
