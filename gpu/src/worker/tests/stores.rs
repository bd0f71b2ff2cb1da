//! The optimiser's state in the host's memory and in tensors: the same bits.

use tch::Device;

use super::*;
use crate::optimizer::{HostStore, TensorStore};
use crate::testing::{on_ranks, setup};

/// Each store that needs no GPU.
pub(super) const STORES: [fn() -> Box<dyn Store>; 2] = [
    || Box::new(HostStore { threads: Threads::ONE }),
    || Box::new(TensorStore { device: Device::Cpu, host: HostStore { threads: Threads::ONE } }),
];

/// What can be seen of a rank after some steps.
type Shown = (Vec<Option<Vec<u8>>>, [u8; 32], Vec<f32>, Vec<f32>, Option<Vec<crate::codec::Selection>>);

fn run(layout: (usize, usize), quantize_1bit: bool, store: fn() -> Box<dyn Store>) -> Vec<Shown> {
    let config = tiny_config();
    let folder = weights_of(&config);
    crate::devices::init_threads(1);
    let optimizer = OptimizerConfig { quantize_1bit, clip_grad_norm: Some(1.0), ..one_bit() };
    let ranks = on_ranks(layout, |mesh| {
        let mut rank = Rank::with_store(setup(mesh, (&config, optimizer), folder.path()), store()).unwrap();
        let mut payloads = Vec::new();
        for step in 0..3 {
            let trained = trained(rank.train(&plan(step, 4)).unwrap());
            let whole = rank.mesh.exchange(&trained.payload, |all| all[0].clone()).unwrap().unwrap();
            let results = Arc::new(vec![whole.into()]);
            rank.apply(&ApplyPlan { step, lr: 0.003, weight_decay: 0.1, payloads: results }).unwrap();
            payloads.push(trained.payload);
        }
        let digest = rank.digest().unwrap();
        let sent = rank.optimizer.sent().unwrap();
        let (momentum, master) = (momentum(&rank), master(&rank));
        rank.reset_momentum().unwrap();
        assert!(super::momentum(&rank).iter().all(|m| *m == 0.0) && rank.optimizer.sent().unwrap().is_none());
        rank.optimizer.replace(master.clone(), momentum.clone(), sent.clone()).unwrap();
        assert!(super::momentum(&rank) == momentum && rank.optimizer.sent().unwrap() == sent);
        (payloads, digest, momentum, master, sent)
    });
    ranks.into_iter().map(|rank| rank.unwrap()).collect()
}

#[test]
fn every_store_gives_the_same_payloads_momentum_weights_and_digests() {
    for (layout, quantize_1bit) in [((1, 1), true), ((1, 1), false), ((2, 1), true), ((2, 2), true)] {
        let [host, tensors] = STORES.map(|store| run(layout, quantize_1bit, store));
        assert!(host == tensors, "{layout:?}");
    }
}

#[test]
fn weights_on_a_cuda_device_end_with_the_same_bits() {
    if !tch::Cuda::is_available() {
        eprintln!("no CUDA device here");
        return;
    }
    let config = tiny_config();
    let folder = weights_of(&config);
    let on = |device: Device, work: &(dyn Fn(&mut Rank) -> Vec<u8> + Sync)| {
        let change = |setup: &mut RankSetup| setup.device = device;
        crate::testing::on_changed_ranks((1, 1), (&config, one_bit()), folder.path(), change, work).remove(0)
    };
    let train = |rank: &mut Rank| trained(rank.train(&plan(0, 4)).unwrap()).payload.unwrap();
    let payloads = Arc::new([Device::Cpu, Device::Cuda(0)].map(|device| Arc::from(on(device, &train))).to_vec());
    let apply = |rank: &mut Rank| {
        rank.apply(&ApplyPlan { step: 1, lr: 0.01, weight_decay: 0.1, payloads: Arc::clone(&payloads) }).unwrap();
        rank.digest().unwrap().to_vec()
    };
    assert_eq!(on(Device::Cpu, &apply), on(Device::Cuda(0), &apply));
}
