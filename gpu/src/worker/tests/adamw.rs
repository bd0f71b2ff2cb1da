//! AdamW against its definition.

use super::*;
use crate::testing::{on_ranks, setup};

const CONFIG: AdamWConfig = AdamWConfig { betas: (0.9, 0.95), weight_decay: 0.1, epsilon: 1e-8 };

/// The weights as the passes use them, in canonical order.
fn weights(trainer: &AdamWTrainer) -> Vec<f32> {
    let flat = |tensor: &tch::Tensor| Vec::<f32>::try_from(tensor.detach().reshape([-1])).unwrap();
    trainer.rank.model.parameters().iter().flat_map(flat).collect()
}

#[test]
fn steps_agree_with_the_definition_in_f64() {
    let config = tiny_config();
    let folder = weights_of(&config);
    crate::devices::init_threads(1);
    on_ranks((1, 1), |mesh| {
        let clipped = OptimizerConfig { clip_grad_norm: Some(0.5), ..one_bit() };
        let mut trainer = AdamWTrainer::new(setup(mesh, (&config, clipped), folder.path()), CONFIG).unwrap();
        let mut expected: Vec<f64> = weights(&trainer).into_iter().map(f64::from).collect();
        let (mut mean, mut variance) = (vec![0.0; expected.len()], vec![0.0; expected.len()]);
        for step in 0..3 {
            let plan = plan(step, 2);
            let trained = trained(trainer.train(&plan).unwrap());
            assert!(trained.payload.is_none() && trained.gradient_norm > 0.5);
            // After a step the scratch buffer holds the gradient as it was before clipping.
            let scale = 0.5 / trained.gradient_norm;
            let gradient = trainer.rank.gradient().into_iter().map(|g| f64::from(g) * scale);
            let (lr, time) = (f64::from(plan.lr), step as i32 + 1);
            for (((weight, mean), variance), g) in expected.iter_mut().zip(&mut mean).zip(&mut variance).zip(gradient) {
                *mean = 0.9 * *mean + 0.1 * g;
                *variance = 0.95 * *variance + 0.05 * g * g;
                let (mean, variance) = (*mean / (1.0 - 0.9_f64.powi(time)), *variance / (1.0 - 0.95_f64.powi(time)));
                *weight -= lr * 0.1 * *weight + lr * mean / (variance.sqrt() + 1e-8);
            }
            for (index, (found, expected)) in weights(&trainer).into_iter().zip(&expected).enumerate() {
                assert!((f64::from(found) - expected).abs() < 2e-5, "weight {index}: {found}, not {expected}");
            }
        }
    })
    .into_iter()
    .for_each(|rank| rank.unwrap());
}

#[test]
fn adamw_lowers_the_loss_and_takes_one_device_only() {
    let config = tiny_config();
    let folder = weights_of(&config);
    crate::devices::init_threads(1);
    let outcomes = on_ranks((1, 1), |mesh| {
        let mut trainer = AdamWTrainer::new(setup(mesh, (&config, one_bit()), folder.path()), AdamWConfig::default()).unwrap();
        let samples = plan(0, 6).samples;
        let before = trainer.evaluate(0, &samples).unwrap();
        for step in 0..20 {
            trained(trainer.train(&plan(step, 6)).unwrap());
        }
        (before, trainer.evaluate(20, &samples).unwrap())
    });
    let (before, after) = *outcomes[0].as_ref().unwrap();
    assert!(after < 0.8 * before, "loss went from {before} to {after}");
    let refused = on_ranks((2, 1), |mesh| {
        AdamWTrainer::new(setup(mesh, (&config, one_bit()), folder.path()), CONFIG).err().map(|error| error.to_string())
    });
    assert!(
        refused.iter().all(|error| error.as_ref().is_ok_and(|error| error.as_ref().is_some_and(|e| e.contains("1 device"))))
    );
}
