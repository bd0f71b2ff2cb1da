//! Whole steps against DisTrO's definition, written plainly in f64: look-ahead, clipping, error feedback, momentum, DCT,
//! selection, signs, weight decay, and the update.

use std::f64::consts::PI;

use super::stores::STORES;
use super::*;

const CHUNK: usize = 16;
const TOP: usize = 8;
const DECAY: f64 = 0.9;
const CLIP: f64 = 0.5;
const WEIGHT_DECAY: f64 = 0.1;

/// A coefficient, if it is sent.
type Sent = Option<f64>;

/// One parameter, with its state by the definition.
struct Parameter {
    height: usize,
    width: usize,
    weights: Vec<f64>,
    momentum: Vec<f64>,
    /// Unquantised coefficients of the last result, `[chunks, chunk length]`.
    sent: Option<Vec<Sent>>,
}

/// The largest divisor of `n` that is at most `CHUNK`.
fn edge(n: usize) -> usize {
    (1..=CHUNK.min(n)).rev().find(|edge| n.is_multiple_of(*edge)).unwrap()
}

/// Entry `u` of the orthonormal DCT-II of a unit impulse at `i`, of length `n`.
fn basis(n: usize, u: usize, i: usize) -> f64 {
    let scale = if u == 0 { (1.0 / n as f64).sqrt() } else { (2.0 / n as f64).sqrt() };
    scale * (PI * (2 * i + 1) as f64 * u as f64 / (2 * n) as f64).cos()
}

impl Parameter {
    fn edges(&self) -> (usize, usize) {
        (edge(self.height), edge(self.width))
    }

    /// Elements of chunk `chunk`, as places in the tensor.
    fn places(&self, chunk: usize) -> Vec<usize> {
        let (h, w) = self.edges();
        let across = self.width / w;
        let (top, left) = (chunk / across * h, chunk % across * w);
        (0..h * w).map(|at| (top + at / w) * self.width + left + at % w).collect()
    }

    fn chunks(&self) -> usize {
        let (h, w) = self.edges();
        self.height * self.width / (h * w)
    }

    /// The transform of each chunk of `values`, or its inverse from coefficients.
    fn transform(&self, values: &[f64], inverse: bool) -> Vec<f64> {
        let (h, w) = self.edges();
        let mut out = vec![0.0; values.len()];
        for chunk in 0..self.chunks() {
            let places = self.places(chunk);
            let of = |at: usize| if inverse { values[chunk * h * w + at] } else { values[places[at]] };
            let entry = |n, u, i| if inverse { basis(n, i, u) } else { basis(n, u, i) };
            // Along the rows first, then along the columns.
            let mut rows = vec![0.0; h * w];
            for (at, row) in rows.iter_mut().enumerate() {
                *row = (0..w).map(|j| of(at / w * w + j) * entry(w, at % w, j)).sum();
            }
            for at in 0..h * w {
                let sum = (0..h).map(|i| rows[i * w + at % w] * entry(h, at / w, i)).sum();
                out[if inverse { places[at] } else { chunk * h * w + at }] = sum;
            }
        }
        out
    }

    /// What was sent leaves the momentum, the gradient enters, the strongest coefficients are sent; among equals those
    /// of lower frequency.
    fn step(&mut self, gradient: &[f64], lr: f64) -> Vec<Sent> {
        if let Some(sent) = self.sent.take() {
            let sent = self.transform(&sent.into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>(), true);
            self.momentum.iter_mut().zip(sent).for_each(|(m, sent)| *m -= sent);
        }
        self.momentum.iter_mut().zip(gradient).for_each(|(m, g)| *m = DECAY * *m + lr * g);
        let coefficients = self.transform(&self.momentum, false);
        let mut sent: Vec<Sent> = coefficients.iter().copied().map(Some).collect();
        let len = coefficients.len() / self.chunks();
        for (chunk, sent) in coefficients.chunks(len).zip(sent.chunks_mut(len)) {
            let mut order: Vec<usize> = (0..len).collect();
            order.sort_by(|&a, &b| chunk[b].abs().total_cmp(&chunk[a].abs()));
            order[TOP.min(len)..].iter().for_each(|&weak| sent[weak] = None);
        }
        self.sent = Some(sent.clone());
        sent
    }

    /// Weight decay, then a step of `lr` against the sign of the inverse transform of the mean votes.
    fn apply(&mut self, results: &[Vec<Sent>], lr: f64) {
        let mean = |at: usize| {
            let vote = |sent: f64| if sent < 0.0 { -1.0 } else { 1.0 };
            let votes: Vec<f64> = results.iter().filter_map(|result| result[at]).map(vote).collect();
            votes.iter().sum::<f64>() / votes.len().max(1) as f64
        };
        let update = self.transform(&(0..self.weights.len()).map(mean).collect::<Vec<_>>(), true);
        for (weight, update) in self.weights.iter_mut().zip(update) {
            *weight *= 1.0 - lr * WEIGHT_DECAY;
            // What vanishes in exact arithmetic is a few roundings away from zero here.
            if update.abs() > 1e-9 {
                *weight -= lr * update.signum();
            }
        }
    }
}

fn settings() -> OptimizerConfig {
    OptimizerConfig {
        compression_decay: DECAY as f32,
        compression_chunk: CHUNK,
        compression_topk: TOP,
        quantize_1bit: true,
        clip_grad_norm: Some(CLIP as f32),
    }
}

/// The state of a node before its first step, from what one rank owns: everything.
fn start(rank: &Rank) -> Vec<Parameter> {
    let (codec, all) = (&rank.layout.codec, master(rank));
    let parameter = |piece: &crate::layout::Piece| {
        let shape = &codec.parameters()[piece.part.parameter()].spec().shape;
        let width = *shape.last().unwrap();
        let height = if shape.len() == 1 { 1 } else { shape[0] };
        let weights: Vec<f64> = all[piece.at.clone()].iter().map(|&w| f64::from(w)).collect();
        Parameter { height, width, momentum: vec![0.0; weights.len()], weights, sent: None }
    };
    rank.layout.pieces(0).iter().map(parameter).collect()
}

/// Checks a rank's momentum and payload against the definition's.
fn compare(rank: &Rank, payload: &[u8], expected: &[Parameter]) {
    let (valid, all) = (rank.layout.codec.validate(payload).unwrap(), momentum(rank));
    for (piece, parameter) in rank.layout.pieces(0).iter().zip(expected) {
        let momentum = &all[piece.at.clone()];
        let largest = parameter.momentum.iter().fold(0.0_f64, |most, m| most.max(m.abs()));
        for (found, expected) in momentum.iter().zip(&parameter.momentum) {
            assert!((f64::from(*found) - expected).abs() <= 1e-4 * largest, "momentum {found}, not {expected}");
        }
        let selection = valid.decode(&piece.part).unwrap();
        let coefficients = parameter.transform(&parameter.momentum, false);
        let len = coefficients.len() / parameter.chunks();
        let kept = selection.indices.len() / parameter.chunks();
        assert_eq!(kept, TOP.min(len));
        let chunks = coefficients.chunks(len).zip(parameter.sent.as_ref().unwrap().chunks(len));
        for (chunk, (coefficients, sent)) in chunks.enumerate() {
            let weakest = sent.iter().flatten().fold(f64::INFINITY, |least, sent| least.min(sent.abs()));
            for at in chunk * kept..(chunk + 1) * kept {
                let value = coefficients[selection.indices[at] as usize];
                // Where two are equal up to rounding, either may be sent.
                assert!(value.abs() >= weakest - 1e-5 * largest, "{value} was sent, and {weakest} was not");
                assert!(value.abs() < 1e-5 * largest || (value < 0.0) == (selection.values[at] < 0.0), "the sign of {value}");
            }
        }
    }
}

#[test]
fn steps_of_two_senders_agree_with_the_definition_in_f64_in_every_store() {
    for store in STORES {
        two_senders(store);
    }
}

fn two_senders(store: fn() -> Box<dyn Store>) {
    let config = tiny_config();
    let folder = weights_of(&config);
    let lr = 0.003_f32;
    crate::devices::init_threads(1);
    crate::testing::on_ranks((1, 1), |mesh| {
        let other = crate::mesh::mesh(mesh.topology(), std::time::Duration::from_secs(20)).remove(0);
        let mut ranks = [mesh, other]
            .map(|mesh| Rank::with_store(crate::testing::setup(mesh, (&config, settings()), folder.path()), store()).unwrap());
        let mut nodes = [start(&ranks[0]), start(&ranks[1])];
        for step in 0..4_u64 {
            let (mut payloads, mut chosen) = (Vec::<Arc<[u8]>>::new(), Vec::new());
            for (index, (rank, node)) in ranks.iter_mut().zip(&mut nodes).enumerate() {
                let ahead: Vec<f64> = (master(rank).iter().zip(&momentum(rank)))
                    .map(|(&w, &m)| f64::from(w) - f64::from(lr) * if m == 0.0 { 0.0 } else { f64::from(m.signum()) })
                    .collect();
                let trained = trained(rank.train(&plan(10 * step + index as u64, 2)).unwrap());
                let copies =
                    rank.model.parameters().iter().flat_map(|p| Vec::<f32>::try_from(p.detach().reshape([-1])).unwrap());
                assert!(copies.zip(&ahead).all(|(copy, ahead)| (f64::from(copy) - ahead).abs() < 1e-7), "no look-ahead");
                let scale = (CLIP / (trained.gradient_norm + 1e-6)).min(1.0);
                assert!(scale < 1.0, "nothing is clipped at {}", trained.gradient_norm);
                let gradient: Vec<f64> = rank.gradient().into_iter().map(|g| f64::from(g) * scale).collect();
                let mut from = 0;
                let sent: Vec<Vec<Sent>> = (node.iter_mut())
                    .map(|parameter| {
                        let own = &gradient[from..from + parameter.weights.len()];
                        from += own.len();
                        parameter.step(own, f64::from(lr))
                    })
                    .collect();
                let payload = trained.payload.unwrap();
                compare(rank, &payload, node);
                payloads.push(payload.into());
                chosen.push(sent);
            }
            let payloads = Arc::new(payloads);
            for (rank, node) in ranks.iter_mut().zip(&mut nodes) {
                let results = ApplyPlan { step, lr, weight_decay: WEIGHT_DECAY as f32, payloads: Arc::clone(&payloads) };
                rank.apply(&results).unwrap();
                for (index, parameter) in node.iter_mut().enumerate() {
                    parameter.apply(&chosen.iter().map(|sent| sent[index].clone()).collect::<Vec<_>>(), f64::from(lr));
                }
            }
            let master = master(&ranks[0]);
            let expected = nodes[0].iter().flat_map(|parameter| &parameter.weights);
            let apart = master.iter().zip(expected).filter(|(found, w)| (f64::from(**found) - **w).abs() > 1e-6).count();
            // Where the inverse transform all but vanishes, its sign is a matter of rounding.
            assert!(apart * 1000 < master.len(), "{apart} of {} weights moved otherwise after step {step}", master.len());
        }
    })
    .into_iter()
    .for_each(|outcome| outcome.unwrap());
}
