#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

use std::collections::HashMap;

use super::*;
use crate::codec::Layout;
use crate::mesh::MeshRank;
use crate::testing::{config_with, on_ranks, tiny_config};

type Matrix = Vec<Vec<f64>>;

fn element(parameter: usize, index: usize) -> f64 {
    ((index * 37 + parameter * 101) % 211) as f64 / 211.0 - 0.5
}

/// The model as its definition reads, in f64 and without any library.
struct Plain {
    config: LlamaConfig,
    weights: HashMap<String, Matrix>,
}

impl Plain {
    fn new(config: &LlamaConfig) -> Self {
        let weights = config.parameters().into_iter().enumerate().map(|(number, spec)| {
            let width = *spec.shape.last().unwrap();
            let elements: Vec<f64> = (0..spec.len()).map(|index| element(number, index)).collect();
            (spec.name, elements.chunks(width).map(<[f64]>::to_vec).collect())
        });
        Self { config: config.clone(), weights: weights.collect() }
    }

    fn linear(&self, input: &Matrix, name: &str) -> Matrix {
        let dot = |row: &[f64], weight: &Vec<f64>| row.iter().zip(weight).map(|(a, b)| a * b).sum();
        input.iter().map(|row| self.weights[name].iter().map(|weight| dot(row, weight)).collect()).collect()
    }

    fn norm(&self, input: &Matrix, name: &str) -> Matrix {
        let weight = &self.weights[name][0];
        let scaled = |row: &Vec<f64>| {
            let mean = row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64;
            let scale = 1.0 / (mean + self.config.rms_norm_eps).sqrt();
            row.iter().zip(weight).map(|(x, w)| x * scale * w).collect()
        };
        input.iter().map(scaled).collect()
    }

    fn head(&self, projected: &Matrix, head: usize, rotate: bool) -> Matrix {
        let width = self.config.head_dim;
        let one = |(position, row): (usize, &Vec<f64>)| {
            let x = &row[head * width..(head + 1) * width];
            let turn = |i: usize| {
                let pair = i % (width / 2);
                let angle = position as f64 * self.config.rope_theta.powf(-2.0 * pair as f64 / width as f64);
                let other = if i < width / 2 { -x[i + width / 2] } else { x[i - width / 2] };
                x[i] * angle.cos() + other * angle.sin()
            };
            if rotate { (0..width).map(turn).collect() } else { x.to_vec() }
        };
        projected.iter().enumerate().map(one).collect()
    }

    fn attention(&self, input: &Matrix, prefix: &str) -> Matrix {
        let project = |name: &str| self.linear(input, &format!("{prefix}.self_attn.{name}.weight"));
        let (query, key, value) = (project("q_proj"), project("k_proj"), project("v_proj"));
        let group = self.config.num_attention_heads / self.config.num_key_value_heads;
        let mut mixed = vec![Vec::new(); input.len()];
        for head in 0..self.config.num_attention_heads {
            let query = self.head(&query, head, true);
            let (key, value) = (self.head(&key, head / group, true), self.head(&value, head / group, false));
            for (position, query) in query.iter().enumerate() {
                let dot = |key: &Vec<f64>| query.iter().zip(key).map(|(a, b)| a * b).sum::<f64>();
                let weights: Vec<f64> =
                    key[..=position].iter().map(|key| (dot(key) / (query.len() as f64).sqrt()).exp()).collect();
                let total: f64 = weights.iter().sum();
                for feature in 0..query.len() {
                    let sum: f64 = weights.iter().zip(&value).map(|(weight, value)| weight * value[feature]).sum();
                    mixed[position].push(sum / total);
                }
            }
        }
        self.linear(&mixed, &format!("{prefix}.self_attn.o_proj.weight"))
    }

    fn feed_forward(&self, input: &Matrix, prefix: &str) -> Matrix {
        let project = |name: &str| self.linear(input, &format!("{prefix}.mlp.{name}.weight"));
        let gated = project("gate_proj")
            .into_iter()
            .zip(project("up_proj"))
            .map(|(gate, up)| gate.iter().zip(up).map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up).collect());
        self.linear(&gated.collect(), &format!("{prefix}.mlp.down_proj.weight"))
    }

    fn loss_sum(&self, sample: &[i64]) -> f64 {
        let (inputs, labels) = (&sample[..sample.len() - 1], &sample[1..]);
        let embedding = &self.weights["model.embed_tokens.weight"];
        let mut hidden: Matrix = inputs.iter().map(|&token| embedding[token as usize].clone()).collect();
        let add = |to: &mut Matrix, from: Matrix| {
            to.iter_mut().zip(from).for_each(|(to, from)| to.iter_mut().zip(from).for_each(|(to, from)| *to += from));
        };
        for number in 0..self.config.num_hidden_layers {
            let prefix = format!("model.layers.{number}");
            let input = self.norm(&hidden, &format!("{prefix}.input_layernorm.weight"));
            add(&mut hidden, self.attention(&input, &prefix));
            let input = self.norm(&hidden, &format!("{prefix}.post_attention_layernorm.weight"));
            add(&mut hidden, self.feed_forward(&input, &prefix));
        }
        let head = if self.config.tie_word_embeddings { "model.embed_tokens.weight" } else { "lm_head.weight" };
        let logits = self.linear(&self.norm(&hidden, "model.norm.weight"), head);
        let one =
            |(logits, &label): (&Vec<f64>, &i64)| logits.iter().map(|x| x.exp()).sum::<f64>().ln() - logits[label as usize];
        logits.iter().zip(labels).map(one).sum()
    }
}

const F32: (Precision, bool) = (Precision::F32, false);

/// One rank's loss, and its shard of each parameter's gradient.
struct Outcome {
    loss: f64,
    gradients: Vec<Tensor>,
}

/// This rank's model with the weights of [`element`].
fn model_of(config: &LlamaConfig, rank: &MeshRank, options: ModelOptions) -> (NodeLayout, Llama) {
    let codec = Layout::new(&config.parameters(), 8, 4, true).unwrap();
    let nodes = NodeLayout::new(config, codec, rank.topology()).unwrap();
    let region = Region::new(Box::new(rank.tensor_group()));
    let model = Llama::new(config, options, &nodes, region, Device::Cpu).unwrap();
    for (number, parameter) in model.parameters().iter().enumerate() {
        let spec = nodes.codec.parameters()[number].spec();
        let elements: Vec<f32> = (0..spec.len()).map(|index| element(number, index) as f32).collect();
        let shape: Vec<i64> = spec.shape.iter().map(|&n| n as i64).collect();
        let mut whole = Tensor::from_slice(&elements).reshape(shape);
        for (dimension, &size) in parameter.size().iter().enumerate() {
            if size < whole.size()[dimension] {
                whole = whole.narrow(dimension as i64, size * rank.tensor_index() as i64, size);
            }
        }
        tch::no_grad(|| parameter.shallow_clone().copy_(&whole));
    }
    (nodes, model)
}

/// Each rank's outcome of `batches` backward passes; every parameter must have got a gradient.
fn by_libtorch(
    config: &LlamaConfig,
    layout: (usize, usize),
    (precision, checkpointing): (Precision, bool),
    batches: &[&[Vec<i64>]],
) -> Vec<Outcome> {
    crate::devices::init_threads(1);
    let results = on_ranks(layout, |rank| {
        let length = batches[0][0].len() as i64 - 1;
        let options = ModelOptions { sequence_len: length as usize, precision, checkpointing };
        let (_, model) = model_of(config, &rank, options);
        model.zero_gradients().unwrap();
        assert!(model.gradients().unwrap().iter().all(Option::is_none));
        let mut total = 0.0;
        for samples in batches {
            let tokens = Tensor::from_slice2(samples);
            let mut loss = model.loss_sum(&tokens.narrow(1, 0, length), &tokens.narrow(1, 1, length)).unwrap();
            model.backward(&mut loss, 1.0).unwrap();
            total += loss.value().unwrap();
        }
        let gradients: Vec<Tensor> = model.gradients().unwrap().into_iter().map(Option::unwrap).collect();
        assert!(gradients.iter().all(|gradient| gradient.kind() == Kind::Float));
        assert!(model.parameters().iter().all(|parameter| !parameter.grad().defined()));
        Outcome { loss: total, gradients }
    });
    results.into_iter().map(|result| result.unwrap()).collect()
}

/// Length of the difference of two sets of tensors, relative to that of the second.
fn distance(a: &[Tensor], b: &[Tensor]) -> f64 {
    let square = |tensor: Tensor| tensor.to_kind(Kind::Double).square().sum(Kind::Double).double_value(&[]);
    let difference: f64 = a.iter().zip(b).map(|(a, b)| square(a - b)).sum();
    (difference / b.iter().map(|b| square(b.shallow_clone())).sum::<f64>()).sqrt()
}

fn samples() -> [Vec<i64>; 2] {
    [vec![3, 1, 4, 1, 5, 9, 2, 6], vec![127, 64, 63, 0, 1, 100, 31, 32]]
}

#[test]
fn the_loss_is_that_of_the_plain_definition_alone_and_in_a_group() {
    let samples = samples();
    for change in [
        serde_json::json!({ "tie_word_embeddings": true }),
        serde_json::json!({ "head_dim": 6, "rope_theta": 500.0 }),
        serde_json::json!({ "num_key_value_heads": 4 }),
    ] {
        let config = config_with(change);
        let plain = Plain::new(&config);
        let expected: f64 = samples.iter().map(|sample| plain.loss_sum(sample)).sum();
        for layout in [(1, 1), (1, 2)] {
            for Outcome { loss, .. } in by_libtorch(&config, layout, F32, &[&samples]) {
                assert!((loss / expected - 1.0).abs() < 1e-5, "{layout:?}: {loss} instead of {expected}");
            }
        }
    }
}

#[test]
fn recomputed_layers_give_the_same_bits_alone_and_in_a_group() {
    let samples = samples();
    for tied in [false, true] {
        let config = config_with(serde_json::json!({ "tie_word_embeddings": tied, "num_hidden_layers": 3 }));
        for precision in [Precision::F32, Precision::Bf16] {
            for layout in [(1, 1), (1, 2)] {
                let batches: [&[Vec<i64>]; 2] = [&samples[..1], &samples[1..]];
                let kept = by_libtorch(&config, layout, (precision, false), &batches);
                let again = by_libtorch(&config, layout, (precision, true), &batches);
                for (kept, again) in kept.iter().zip(&again) {
                    assert_eq!(kept.loss, again.loss, "{layout:?} {precision}");
                    assert!(kept.gradients.iter().zip(&again.gradients).all(|(a, b)| a.equal(b)), "{layout:?} {precision}");
                }
            }
        }
    }
}

#[test]
fn bf16_agrees_with_f32_within_its_rounding() {
    let samples = samples();
    for tied in [false, true] {
        let config = config_with(serde_json::json!({ "tie_word_embeddings": tied }));
        for layout in [(1, 1), (1, 2)] {
            let exact = by_libtorch(&config, layout, F32, &[&samples]);
            let rounded = by_libtorch(&config, layout, (Precision::Bf16, false), &[&samples]);
            for (exact, rounded) in exact.iter().zip(&rounded) {
                assert!((rounded.loss / exact.loss - 1.0).abs() < 0.02, "{} instead of {}", rounded.loss, exact.loss);
                let distance = distance(&rounded.gradients, &exact.gradients);
                assert!(distance < 0.05, "{layout:?}: {distance}");
            }
        }
    }
}

#[test]
fn gradients_of_many_bf16_micro_batches_add_up_in_f32() {
    let config = tiny_config();
    let samples = samples();
    let batches = vec![&samples[..]; 300];
    let one = by_libtorch(&config, (1, 1), (Precision::Bf16, false), &batches[..1]);
    let many = by_libtorch(&config, (1, 1), (Precision::Bf16, false), &batches);
    // In bf16 a sum stands still once it is 256 times what is added.
    let expected: Vec<Tensor> = one[0].gradients.iter().map(|gradient| gradient * 300.0).collect();
    let distance = distance(&many[0].gradients, &expected);
    assert!(distance < 1e-5, "{distance}");
}

#[test]
fn logits_give_the_loss() {
    let samples = samples();
    for precision in [Precision::F32, Precision::Bf16] {
        let results = on_ranks((1, 2), |rank| {
            let (_, model) = model_of(&tiny_config(), &rank, ModelOptions { sequence_len: 7, precision, checkpointing: true });
            let tokens = Tensor::from_slice2(&samples);
            let (inputs, labels) = (tokens.narrow(1, 0, 7), tokens.narrow(1, 1, 7));
            let loss = model.loss_sum(&inputs, &labels).unwrap().value().unwrap();
            (loss, model.logits(&inputs).unwrap())
        });
        let ranks: Vec<(f64, Tensor)> = results.into_iter().map(|result| result.unwrap()).collect();
        assert_eq!(ranks[0].1.size(), [2, 7, 64]);
        let logits = Tensor::cat(&[&ranks[0].1, &ranks[1].1], -1).view([-1, 128]);
        let labels = Tensor::from_slice2(&samples).narrow(1, 1, 7).reshape([-1]);
        let expected = logits.cross_entropy_for_logits(&labels).double_value(&[]) * 14.0;
        assert!((ranks[0].0 / expected - 1.0).abs() < 1e-5, "{} instead of {expected}", ranks[0].0);
    }
}

/// Most bytes that are live in a step beside the model and its gradients.
fn peak(config: &LlamaConfig, precision: Precision, checkpointing: bool) -> i64 {
    crate::devices::init_threads(1);
    let peaks = on_ranks((1, 1), |rank| {
        let (_, model) = model_of(config, &rank, ModelOptions { sequence_len: 32, precision, checkpointing });
        let tokens = Tensor::randint(128, [4, 33], (Kind::Int64, Device::Cpu));
        let step = || {
            let mut loss = model.loss_sum(&tokens.narrow(1, 0, 32), &tokens.narrow(1, 1, 32)).unwrap();
            model.backward(&mut loss, 1.0).unwrap();
        };
        // After this the gradients are there, and count no more.
        step();
        let meter = shim::Meter::start().unwrap();
        step();
        let (live, peak) = meter.read();
        assert_eq!(live, 0, "a step leaves nothing behind");
        peak
    });
    peaks.into_iter().map(|peak| peak.unwrap()).sum()
}

#[test]
fn recomputation_keeps_one_layers_activations_instead_of_all() {
    let config = |layers: usize| config_with(serde_json::json!({ "num_hidden_layers": layers }));
    for precision in [Precision::F32, Precision::Bf16] {
        let by_layers = |checkpointing| [4, 12].map(|layers| peak(&config(layers), precision, checkpointing));
        let ([few, many], [few_again, many_again]) = (by_layers(false), by_layers(true));
        assert!(few_again < few && many_again * 3 < many, "{precision}: {many_again} bytes instead of {many}");
        // What a further layer costs is its input: [4, 32, 32].
        let input = 4 * 32 * 32 * precision.bytes() as i64;
        assert_eq!((many_again - few_again) / 8, input, "{precision}");
        assert!((many - few) / 8 > 6 * input, "{precision}: {} bytes per layer", (many - few) / 8);
    }
}

#[test]
fn parameters_stand_in_the_same_order_in_every_layout() {
    let config = tiny_config();
    let names: Vec<String> = config.parameters().into_iter().map(|spec| spec.name).collect();
    for layout in [(1, 1), (2, 1), (1, 2), (2, 2), (3, 1)] {
        let options = ModelOptions { sequence_len: 4, precision: Precision::F32, checkpointing: false };
        for outcome in on_ranks(layout, |rank| {
            let (nodes, model) = model_of(&config, &rank, options);
            let shapes = model.parameters().iter().map(Tensor::size).collect::<Vec<_>>();
            let expected = (0..names.len()).map(|parameter| nodes.shard_shape(parameter, rank.tensor_index()));
            assert_eq!(shapes, expected.collect::<Vec<_>>());
            // Pieces strung together in the order of the ranks are the parameters in theirs.
            let pieces = (0..nodes.topology.ranks()).flat_map(|rank| nodes.pieces(rank).to_vec());
            let mut walked: Vec<usize> = pieces.map(|piece| piece.part.parameter()).collect();
            assert!(walked.is_sorted());
            walked.dedup();
            walked.into_iter().map(|parameter| nodes.codec.parameters()[parameter].spec().name.clone()).collect::<Vec<_>>()
        }) {
            assert_eq!(outcome.unwrap(), names, "{layout:?}");
        }
    }
}
