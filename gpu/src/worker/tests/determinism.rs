//! The same seed and layout give the same bits.

use super::*;

/// Payloads and digests of some steps of a node that applies its own results.
fn run(layout: (usize, usize), precision: Precision, checkpointing: bool) -> Vec<(Vec<u8>, [u8; 32])> {
    let config = tiny_config();
    let folder = weights_of(&config);
    let change = |setup: &mut RankSetup| {
        (setup.micro_batch_size, setup.precision, setup.checkpointing) = (2, precision, checkpointing);
    };
    let ranks = crate::testing::on_changed_ranks(layout, (&config, one_bit()), folder.path(), change, |rank| {
        let step = |step| {
            let trained = trained(rank.train(&plan(step, 5)).unwrap());
            let payload = rank.mesh.exchange(&trained.payload, |all| all[0].clone()).unwrap().unwrap();
            let payloads = Arc::new(vec![payload.clone().into()]);
            rank.apply(&ApplyPlan { step, lr: 0.003, weight_decay: 0.1, payloads }).unwrap();
            (payload, rank.digest().unwrap())
        };
        (0..3).map(step).collect::<Vec<_>>()
    });
    ranks.into_iter().next().unwrap()
}

#[test]
fn two_runs_of_a_layout_give_the_same_payloads_and_digests_in_every_precision() {
    for layout in [(1, 1), (2, 1), (1, 2), (2, 2)] {
        for precision in [Precision::F32, Precision::Bf16] {
            let first = run(layout, precision, false);
            assert!(first == run(layout, precision, false), "{layout:?} in {precision}");
            assert!(first.windows(2).all(|steps| steps[0].1 != steps[1].1));
        }
    }
    assert!(run((2, 2), Precision::F32, true) == run((2, 2), Precision::F32, true));
}
