//! The published algorithm in f64, beside the codec, over several steps: Peng, Quesnelle, Kingma, "DeMo: Decoupled
//! Momentum Optimization" (2024), with the signs and the later subtraction of what was sent that DisTrO adds.

use super::transform::{reference_dct, reference_inverse_dct};
use super::*;
use crate::exact::apply_payloads;

const DECAY: f32 = 0.9;
const LR: f32 = 0.125;
const SENDERS: usize = 3;
const STEPS: usize = 5;

/// One tensor as the reference sees it: everything in f64, chunk by chunk.
struct Reference {
    geometry: Geometry,
    k: usize,
    one_bit: bool,
    /// By sender.
    momentum: Vec<Vec<f64>>,
    weights: Vec<f64>,
}

/// By chunk, what a sender chose: index and coefficient, indices ascending.
type Chosen = Vec<Vec<(usize, f64)>>;

impl Reference {
    /// Places of a chunk's elements in the tensor.
    fn places(&self, chunk: usize) -> Vec<usize> {
        let g = &self.geometry;
        let (top, left) = (chunk / g.chunks_per_row() * g.chunk_height(), chunk % g.chunks_per_row() * g.chunk_width());
        let place = |at: usize| (top + at / g.chunk_width()) * g.width() + left + at % g.chunk_width();
        (0..g.chunk_len()).map(place).collect()
    }

    /// `m ← decay · m + lr · g`, then the k largest coefficients of every chunk; what is sent leaves the momentum.
    fn send(&mut self, sender: usize, gradient: &[f32]) -> Chosen {
        let (h, w) = (self.geometry.chunk_height(), self.geometry.chunk_width());
        let momentum = &mut self.momentum[sender];
        momentum.iter_mut().zip(gradient).for_each(|(m, g)| *m = f64::from(DECAY) * *m + f64::from(LR) * f64::from(*g));
        let mut all = Vec::new();
        for chunk in 0..self.geometry.chunks() {
            let places = self.places(chunk);
            let elements: Vec<f64> = places.iter().map(|&place| self.momentum[sender][place]).collect();
            let coefficients = reference_dct(&elements, h, w);
            let mut order: Vec<usize> = (0..coefficients.len()).collect();
            order.sort_by(|&a, &b| coefficients[b].abs().total_cmp(&coefficients[a].abs()).then(a.cmp(&b)));
            order.truncate(self.k);
            order.sort_unstable();
            let mut sent = vec![0.0; h * w];
            order.iter().for_each(|&index| sent[index] = coefficients[index]);
            let estimate = reference_inverse_dct(&sent, h, w);
            places.iter().zip(estimate).for_each(|(&place, sent)| self.momentum[sender][place] -= sent);
            all.push(order.into_iter().map(|index| (index, coefficients[index])).collect());
        }
        all
    }

    /// What a peer makes of a coefficient.
    fn transmitted(&self, coefficient: f64) -> f64 {
        if self.one_bit {
            return if coefficient < 0.0 { -1.0 } else { 1.0 };
        }
        // To the nearest bf16; ties do not occur.
        let unit = 2.0_f64.powi(coefficient.abs().log2().floor() as i32 - 7);
        (coefficient / unit).round() * unit
    }

    /// Mean of the senders of each coefficient, inverse transform, sign, step. Returns, by element, the value whose sign
    /// was taken, in units of the chunk's largest coefficient.
    fn apply(&mut self, results: &[Chosen]) -> Vec<f64> {
        let (h, w) = (self.geometry.chunk_height(), self.geometry.chunk_width());
        let mut taken = vec![0.0; self.weights.len()];
        for chunk in 0..self.geometry.chunks() {
            let mut votes = vec![(0.0, 0.0); h * w];
            for &(index, coefficient) in results.iter().flat_map(|sender| &sender[chunk]) {
                votes[index] = (votes[index].0 + self.transmitted(coefficient), votes[index].1 + 1.0);
            }
            let mean: Vec<f64> = votes.iter().map(|(sum, count)| if *count > 0.0 { sum / count } else { 0.0 }).collect();
            let largest = mean.iter().fold(0.0_f64, |most, mean| most.max(mean.abs()));
            for (place, value) in self.places(chunk).into_iter().zip(reference_inverse_dct(&mean, h, w)) {
                taken[place] = value / largest;
                self.weights[place] -= f64::from(LR) * value.signum();
            }
        }
        taken
    }
}

/// One sender of ours.
struct Sender {
    momentum: Vec<f32>,
    sent: Option<Selection>,
}

impl Sender {
    fn send(&mut self, layout: &Layout, part: &Part, gradient: &[f32]) -> (Selection, Vec<u8>) {
        if let Some(sent) = self.sent.take() {
            layout.subtract(part, &sent, &mut self.momentum, Threads::ONE).unwrap();
        }
        self.momentum.iter_mut().zip(gradient).for_each(|(m, g)| *m = DECAY * *m + LR * g);
        let chosen = layout.compress(part, &self.momentum, Threads::ONE).unwrap();
        let bytes = layout.encode_part(part, &chosen).unwrap();
        self.sent = Some(chosen.clone());
        (chosen, layout.assemble(&[(part.clone(), bytes)]).unwrap())
    }
}

/// Runs both side by side and compares them after every step.
fn compare(shape: &[usize], chunk: usize, topk: usize, one_bit: bool) {
    let layout = Layout::new(&[spec("a", shape)], chunk, topk, one_bit).unwrap();
    let part = layout.whole(0).unwrap();
    let len = part.elements().len();
    let (geometry, k) = (*layout.parameters()[0].geometry(), layout.parameters()[0].k());
    // Weights on a grid that f32 and f64 both step along without rounding.
    let mut weights: Vec<f32> = noise(1, len).iter().map(|w| (w * 64.0).round() / 64.0).collect();
    let reference_weights = weights.iter().map(|&w| f64::from(w)).collect();
    let momentum = vec![vec![0.0; len]; SENDERS];
    let mut reference = Reference { geometry, k, one_bit, momentum, weights: reference_weights };
    let mut senders: Vec<_> = (0..SENDERS).map(|_| Sender { momentum: vec![0.0; len], sent: None }).collect();
    for step in 0..STEPS {
        let (mut results, mut payloads) = (Vec::new(), Vec::new());
        for (number, sender) in senders.iter_mut().enumerate() {
            let gradient = noise((100 + step * SENDERS + number) as u64, len);
            let expected = reference.send(number, &gradient);
            let (chosen, payload) = sender.send(&layout, &part, &gradient);
            let pairs = expected.iter().flatten();
            for ((&index, &value), &(expected_index, expected)) in chosen.indices.iter().zip(&chosen.values).zip(pairs) {
                assert_eq!(index as usize, expected_index, "step {step}, sender {number}");
                assert!((f64::from(value) - expected).abs() < 1e-5 * (1.0 + expected.abs()), "{value} {expected}");
            }
            let decoded = layout.validate(&payload).unwrap().decode(&part).unwrap();
            for (found, &(_, expected)) in decoded.values.iter().zip(expected.iter().flatten()) {
                let expected = reference.transmitted(expected);
                assert!((f64::from(*found) - expected).abs() <= 1e-2 * expected.abs() * f64::from(!one_bit));
            }
            results.push(expected);
            payloads.push(payload);
        }
        // Error feedback: what is left once the sent has left.
        for (sender, expected) in senders.iter().zip(&reference.momentum) {
            let mut left = sender.momentum.clone();
            layout.subtract(&part, sender.sent.as_ref().unwrap(), &mut left, Threads::ONE).unwrap();
            assert!(left.iter().zip(expected).all(|(left, expected)| (f64::from(*left) - expected).abs() < 1e-5));
        }
        let valid: Vec<_> = payloads.iter().map(|payload| layout.validate(payload).unwrap()).collect();
        let before = weights.clone();
        apply_payloads(&layout, &part, &valid, &mut weights, LR, Threads::ONE).unwrap();
        let taken = reference.apply(&results);
        let mut compared = 0;
        for (at, (&weight, &expected)) in weights.iter().zip(&reference.weights).enumerate() {
            // Near zero a sign is a matter of rounding (a bf16 more than a bit); everything else must agree.
            if taken[at].abs() > if one_bit { 1e-5 } else { 1e-2 } {
                assert_eq!(f64::from(weight), expected, "step {step}, element {at} from {}", before[at]);
                compared += 1;
            }
        }
        assert!(compared * 10 > len * 8, "{compared} of {len}");
        // What was a matter of rounding must not be carried on.
        reference.weights = weights.iter().map(|&w| f64::from(w)).collect();
    }
}

#[test]
fn several_steps_follow_the_published_algorithm_in_f64() {
    for one_bit in [true, false] {
        compare(&[64, 96], 32, 6, one_bit);
        compare(&[2, 35, 22], 16, 4, one_bit);
        compare(&[96], 64, 5, one_bit);
        compare(&[64, 64], 64, 8, one_bit);
    }
}
