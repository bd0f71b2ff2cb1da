//! Steps that are given up: cancelled, not finite, spikes.

use std::ops::Range;

use super::*;

#[test]
fn a_cancelled_step_changes_nothing_on_any_rank() {
    let config = tiny_config();
    let folder = weights_of(&config);
    on_loaded_ranks((2, 2), (&config, one_bit()), folder.path(), 1, |rank| {
        rank.train(&plan(0, 4)).unwrap();
        let before = (momentum(rank), rank.digest().unwrap());
        let mut cancelled = plan(1, 4);
        // Only one rank sees the token in time.
        cancelled.cancel = Arc::new(AtomicBool::new(rank.mesh.rank() == 3));
        assert_eq!(rank.train(&cancelled).unwrap(), TrainOutcome::Cancelled);
        assert!((momentum(rank), rank.digest().unwrap()) == before);
        trained(rank.train(&plan(1, 4)).unwrap());
    });
}

#[test]
fn a_loss_that_is_not_finite_skips_the_step_and_spares_the_momentum() {
    let config = tiny_config();
    let folder = weights_of(&config);
    on_loaded_ranks((2, 1), (&config, one_bit()), folder.path(), 1, |rank| {
        rank.train(&plan(0, 2)).unwrap();
        let before = momentum(rank);
        let sound = master(rank);
        if rank.mesh.rank() == 1 {
            rank.optimizer.edit_master(|weights| weights.fill(f32::NAN));
        }
        let outcome = rank.train(&plan(1, 2)).unwrap();
        assert_eq!(outcome, TrainOutcome::Skipped { reason: SkipReason::LossNotFinite });
        assert!(momentum(rank) == before);
        rank.optimizer.edit_master(|weights| weights.copy_from_slice(&sound));
        trained(rank.train(&plan(1, 2)).unwrap());
    });
}

#[test]
fn a_step_can_be_cancelled_before_each_micro_batch_and_not_after_the_last() {
    let config = tiny_config();
    let folder = weights_of(&config);
    let expected = on_loaded_ranks((1, 1), (&config, one_bit()), folder.path(), 1, |rank| {
        [0, 1].map(|step| trained(rank.train(&plan(step, 4)).unwrap()))
    });
    for layout in [(1, 1), (1, 2)] {
        on_loaded_ranks(layout, (&config, one_bit()), folder.path(), 1, |rank| {
            let first = trained(rank.train(&plan(0, 4)).unwrap());
            let before = momentum(rank);
            for done in 0..4 {
                let doomed = plan(1, 4);
                doomed.cancel.store(done == 0, std::sync::atomic::Ordering::Relaxed);
                let cancel = Arc::clone(&doomed.cancel);
                rank.after_micro_batch = Some(Box::new(move |index| {
                    if index + 1 == done {
                        cancel.store(true, std::sync::atomic::Ordering::Relaxed);
                    }
                }));
                assert_eq!(rank.train(&doomed).unwrap(), TrainOutcome::Cancelled, "{layout:?} after {done}");
                assert!(momentum(rank) == before);
            }
            let late = plan(1, 4);
            let cancel = Arc::clone(&late.cancel);
            rank.after_micro_batch =
                Some(Box::new(move |index| cancel.store(index == 3, std::sync::atomic::Ordering::Relaxed)));
            let second = trained(rank.train(&late).unwrap());
            if layout == (1, 1) {
                assert!([first, second] == expected[0], "cancelled attempts left something behind");
            }
        });
    }
}

/// Where the parameters whose names end so lie in the buffers of a rank that owns the whole model.
fn places(rank: &Rank, suffix: &str) -> Vec<Range<usize>> {
    let named = |parameter: usize| rank.layout.codec.parameters()[parameter].spec().name.ends_with(suffix);
    let pieces = rank.layout.pieces(0).iter().filter(|piece| named(piece.part.parameter()));
    pieces.map(|piece| piece.at.clone()).collect()
}

#[test]
fn a_gradient_that_is_too_large_skips_the_step_although_its_loss_is_finite() {
    let config = tiny_config();
    let folder = weights_of(&config);
    on_loaded_ranks((1, 1), (&config, one_bit()), folder.path(), 2, |rank| {
        rank.train(&plan(0, 2)).unwrap();
        let (before, sound) = (momentum(rank), master(rank));
        // What is projected up hugely and down to nothing does not reach the loss, but the gradient.
        for (suffix, factor) in [("up_proj.weight", 1e36), ("down_proj.weight", 0.0)] {
            for place in places(rank, suffix) {
                rank.optimizer.edit_master(|weights| weights[place].iter_mut().for_each(|weight| *weight *= factor));
            }
        }
        let ahead = StepPlan { lr_previous: 0.0, ..plan(1, 2) };
        assert_eq!(rank.train(&ahead).unwrap(), TrainOutcome::Skipped { reason: SkipReason::GradientNotFinite });
        assert!(momentum(rank) == before);
        rank.optimizer.edit_master(|weights| weights.copy_from_slice(&sound));
        trained(rank.train(&plan(1, 2)).unwrap());
    });
}

#[test]
fn a_loss_spike_skips_the_step_on_every_rank_until_it_is_the_new_normal() {
    let config = tiny_config();
    let folder = weights_of(&config);
    let rule = SpikeRule::default();
    for (layout, rule) in [((1, 1), Some(rule)), ((2, 2), Some(rule)), ((1, 1), None)] {
        let change = |setup: &mut RankSetup| setup.spikes = rule;
        crate::testing::on_changed_ranks(layout, (&config, one_bit()), folder.path(), change, |rank| {
            for step in 0..ACCEPTED_MIN as u64 {
                trained(rank.train(&plan(step, 2)).unwrap());
            }
            let (before, sent) = (momentum(rank), rank.optimizer.sent().unwrap());
            // Every node of a run may be led astray by its peers at once.
            rank.optimizer.edit_master(|weights| weights.iter_mut().for_each(|weight| *weight *= 60.0));
            let Some(rule) = rule else {
                trained(rank.train(&plan(20, 2)).unwrap());
                return;
            };
            for step in 20..20 + rule.in_a_row as u64 {
                let outcome = rank.train(&plan(step, 2)).unwrap();
                let TrainOutcome::Skipped { reason: SkipReason::LossSpike { loss, limit } } = outcome else {
                    panic!("expected a spike, got {outcome:?}")
                };
                assert!(loss > limit && limit > 4.0, "{loss} against {limit}");
            }
            assert!(momentum(rank) == before && rank.optimizer.sent().unwrap() == sent);
            assert!(trained(rank.train(&plan(30, 2)).unwrap()).loss > 20.0);
        });
    }
}
