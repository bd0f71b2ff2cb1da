#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

use std::collections::HashMap;

use super::*;
use crate::codec::Layout;
use crate::mesh::Topology;
use crate::testing::{config_with, on_ranks};

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

/// Each rank's loss; every parameter must have got a gradient.
fn by_libtorch(config: &LlamaConfig, layout: (usize, usize), samples: &[Vec<i64>]) -> Vec<f64> {
    crate::devices::init_threads(1);
    let results = on_ranks(layout, |rank| {
        let codec = Layout::new(&config.parameters(), 8, 4, true).unwrap();
        let nodes = NodeLayout::new(config, codec, Topology::new(layout.0, layout.1).unwrap()).unwrap();
        let region = Region::new(Box::new(rank.tensor_group()));
        let mut model = Llama::new(config, samples[0].len(), &nodes, region, Device::Cpu).unwrap();
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
        model.zero_gradients();
        let tokens = Tensor::from_slice2(samples);
        let length = samples[0].len() as i64 - 1;
        let loss = model.loss_sum(&tokens.narrow(1, 0, length), &tokens.narrow(1, 1, length)).unwrap();
        model.backward(&loss, 1.0).unwrap();
        assert!(model.gradients().unwrap().iter().all(Option::is_some));
        loss.double_value(&[])
    });
    results.into_iter().map(|result| result.unwrap()).collect()
}

#[test]
fn the_loss_is_that_of_the_plain_definition_alone_and_in_a_group() {
    let samples = [vec![3, 1, 4, 1, 5, 9, 2, 6], vec![127, 64, 63, 0, 1, 100, 31, 32]];
    for change in [
        serde_json::json!({ "tie_word_embeddings": true }),
        serde_json::json!({ "head_dim": 6, "rope_theta": 500.0 }),
        serde_json::json!({ "num_key_value_heads": 4 }),
    ] {
        let config = config_with(change);
        let plain = Plain::new(&config);
        let expected: f64 = samples.iter().map(|sample| plain.loss_sum(sample)).sum();
        for layout in [(1, 1), (1, 2)] {
            for loss in by_libtorch(&config, layout, &samples) {
                assert!((loss / expected - 1.0).abs() < 1e-5, "{layout:?}: {loss} instead of {expected}");
            }
        }
    }
}
