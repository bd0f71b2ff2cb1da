//! Whole runs of several engines against the real state machine, under one seeded scheduler with virtual time.
//!
//! `make sim SEEDS=n` runs n seeds of the mixed scenario and a tenth of that of the others; a failure prints the command that
//! shows exactly that seed again, event by event.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may unwrap")]
#![allow(clippy::print_stderr, clippy::print_stdout, reason = "a single seed prints its story, and costs are a table")]

mod sim;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use psyche_messages::RoundKey;
use sim::costs::Costs;
use sim::faults::Faults;
use sim::world::World;
use sim::{for_each_seed, for_every_seed};

#[test]
fn sim_without_faults_every_batch_of_every_witnessable_round_is_applied() {
    for_each_seed(6, |seed| {
        let mut world = World::new(seed, 3 + seed as usize % 3, Faults::NONE);
        world.run();
        let rounds = world.chain.rounds();
        for (at, round) in rounds.iter().enumerate() {
            let last = rounds.get(at + 1).is_none_or(|next| next.epoch != round.epoch);
            let expected = if last { 0 } else { world.chain.clients(*round) };
            assert_eq!(world.checks.applied_results(*round), Some(expected), "round {round}");
        }
        let points: Vec<(u64, u64)> = (0..world.nodes.len()).map(|node| world.chain.points(node)).collect();
        assert!(points.iter().any(|(earned, _)| *earned > 0), "{points:?}");
        assert!(points.iter().all(|(_, slashed)| *slashed == 0), "honest and well connected, but slashed: {points:?}");
    });
}

#[test]
fn sim_nodes_train_on_while_the_chain_closes_the_round() {
    let (waited, all_trained) = (AtomicU64::new(0), AtomicU64::new(0));
    for_each_seed(6, |seed| {
        let mut world = World::new(seed, 4, Faults { sample_ms: Some(4_000), ..Faults::NONE });
        world.run();
        let trained = &world.checks.trained;
        for (node, round, began_ms, ended_ms) in trained {
            let last = trained.iter().filter(|(_, other, ..)| other == round).all(|(.., other_ms)| other_ms <= ended_ms);
            let next = RoundKey { epoch: round.epoch, step: round.step.next() };
            let next = trained.iter().find(|(who, other, ..)| (who, *other) == (node, next));
            // What a report and RoundWitness take is learnt in a run's first rounds.
            if let Some((.., next_ms, _)) = next.filter(|_| last && round.step.0 > 3) {
                waited.fetch_add(next_ms - ended_ms, Relaxed);
                all_trained.fetch_add(ended_ms - began_ms, Relaxed);
            }
        }
    });
    let (waited_ms, trained_ms) = (waited.into_inner(), all_trained.into_inner());
    assert!(trained_ms > 0, "no round followed another");
    // The slowest waits for nobody but the chain, which needs three seconds a round; its batches take eight to twelve.
    let fine = waited_ms * 10 < trained_ms || sim::verbose();
    assert!(fine, "the slowest waited {waited_ms} ms between {trained_ms} ms of training");
}

#[test]
fn sim_a_run_survives_lost_late_and_repeated_messages_and_states() {
    for_each_seed(8, |seed| World::new(seed, 3 + seed as usize % 3, Faults::lossy(seed)).run());
}

#[test]
fn sim_a_run_survives_a_node_that_dies_and_comes_back_without_memory() {
    for_each_seed(8, |seed| World::new(seed, 3 + seed as usize % 3, Faults::lossy(seed).with_crash(seed)).run());
}

#[test]
fn sim_a_run_survives_a_partition() {
    for_each_seed(8, |seed| World::new(seed, 4 + seed as usize % 2, Faults::lossy(seed).with_partition(seed)).run());
}

#[test]
fn sim_a_run_survives_a_pause() {
    for_each_seed(6, |seed| World::new(seed, 3 + seed as usize % 3, Faults::lossy(seed).with_pause(seed)).run());
}

#[test]
fn sim_a_run_begins_again_from_its_checkpoint_when_everyone_loses_everything() {
    for_each_seed(6, |seed| World::new(seed, 3 + seed as usize % 3, Faults::lossy(seed).with_crash_of_all(seed)).run());
}

#[test]
fn sim_a_run_goes_on_from_the_nodes_disks_when_all_of_them_restart() {
    for_each_seed(6, |seed| {
        let mut world = World::new(seed, 3 + seed as usize % 3, Faults::lossy(seed).with_restart_of_all(seed));
        world.run();
        let disks = world.nodes.iter().filter(|node| node.disk_at_death).count();
        assert!(disks == 0 || !world.checks.warned("checkpoint is loaded"), "{disks} nodes had snapshots");
    });
}

#[test]
fn sim_a_node_whose_parameters_break_notices_and_heals() {
    for_each_seed(8, |seed| {
        let mut world = World::new(seed, 3 + seed as usize % 3, Faults::lossy(seed).with_flip(seed));
        world.run();
        // While it replays a log, what differs is the log's digest.
        let noticed = world.checks.differences > 0 || world.checks.warned("names another digest");
        assert!(world.faults.flip.is_some() || noticed, "nobody noticed");
    });
}

#[test]
fn sim_honest_nodes_agree_whatever_a_liar_says() {
    for_each_seed(20, |seed| World::new(seed, 4 + seed as usize / 10 % 2, Faults::lossy(seed).with_lie(seed)).run());
}

/// What each node lost in points.
fn slashed(world: &World) -> Vec<u64> {
    (0..world.nodes.len()).map(|node| world.chain.points(node).1).collect()
}

#[test]
fn sim_a_slanderer_has_nobody_slashed() {
    for_each_seed(6, |seed| {
        let mut world = World::new(seed, 4 + seed as usize % 2, Faults::NONE.with_slander());
        world.run();
        assert!(slashed(&world).iter().all(|points| *points == 0), "{:?}", slashed(&world));
    });
}

#[test]
fn sim_who_announces_a_manifest_as_its_payload_pays_and_holds_nobody_up() {
    let blames = AtomicU64::new(0);
    for_each_seed(6, |seed| {
        let mut world = World::new(seed, 4 + seed as usize % 2, Faults::lossy(seed).with_mislabelled_manifests());
        world.run();
        // Whoever is blamed is the liar: any other blame fails at once.
        blames.fetch_add(world.checks.blames.len() as u64, Relaxed);
    });
    assert!(blames.into_inner() > 0 || sim::verbose(), "nobody was ever blamed");
}

#[test]
fn sim_witnesses_from_the_history_are_those_of_the_round_whatever_step_they_name() {
    let (rebuilt, misclaimed) = (AtomicU64::new(0), AtomicU64::new(0));
    for_each_seed(10, |seed| {
        // The list that is found must be the one that the chain had: any other one fails at once.
        let mut world = World::new(seed, 4 + seed as usize % 2, Faults::lossy(seed).with_outages(seed, 4).with_false_steps());
        world.run();
        rebuilt.fetch_add(u64::from(world.checks.rebuilt), Relaxed);
        misclaimed.fetch_add(u64::from(world.checks.misclaimed), Relaxed);
    });
    let (rebuilt, misclaimed) = (rebuilt.into_inner(), misclaimed.into_inner());
    assert!((rebuilt > 0 && misclaimed > 0) || sim::verbose(), "{rebuilt} lists were rebuilt, {misclaimed} of them misclaimed");
}

#[test]
fn sim_who_has_no_result_now_and_then_and_says_so_stays_in_the_run() {
    let total = AtomicU64::new(0);
    for_each_seed(6, |seed| {
        let mut world = World::new(seed, 3 + seed as usize % 3, Faults::NONE.with_skips(5));
        world.run();
        total.fetch_add(u64::from(world.checks.skips), Relaxed);
        assert!(slashed(&world).iter().all(|points| *points == 0), "{:?}", slashed(&world));
        assert!(!world.checks.warned("dropped from the epoch"), "an excused trainer was dropped");
    });
    assert!(total.into_inner() > 0 || sim::verbose(), "nothing was ever skipped");
}

#[test]
fn sim_who_is_away_for_rounds_is_slashed_and_nobody_else() {
    let total = AtomicU64::new(0);
    for_each_seed(6, |seed| {
        let mut world = World::new(seed, 4, Faults::NONE.with_long_crash(40_000 + 2_000 * seed));
        world.run();
        let lost = slashed(&world);
        assert!(lost.iter().filter(|points| **points > 0).count() <= 1, "{lost:?}");
        total.fetch_add(lost.iter().sum::<u64>(), Relaxed);
    });
    assert!(total.into_inner() > 0 || sim::verbose(), "nobody was ever found absent");
}

#[test]
fn sim_without_the_history_of_transactions_whoever_missed_witnesses_heals() {
    for_each_seed(8, |seed| {
        let mut world = World::new(seed, 3 + seed as usize % 3, Faults::lossy(seed).without_history());
        world.run();
    });
}

#[test]
fn sim_whatever_goes_wrong_together_nothing_is_lost_and_the_run_ends() {
    for_every_seed(200, |seed| mixed(seed).run());
}

fn mixed(seed: u64) -> World {
    let nodes = 4 + seed as usize % 3;
    World::new(seed, nodes, Faults::mixed(seed, nodes))
}

#[test]
fn sim_a_run_goes_on_while_nodes_lose_sight_of_the_chain() {
    for_each_seed(8, |seed| World::new(seed, 4, Faults::lossy(seed).with_outages(seed, 4)).run());
}

#[test]
fn sim_a_run_goes_on_while_members_come_and_go() {
    for_each_seed(8, |seed| World::new(seed, 6, Faults::lossy(seed).with_churn(seed, 6)).run());
}

#[test]
fn sim_a_slow_node_does_not_hold_up_the_others() {
    for_each_seed(8, |seed| World::new(seed, 4, Faults::lossy(seed).with_slow_node(seed, 4)).run());
}

#[test]
fn sim_a_seed_happens_again_exactly() {
    for seed in 0..4 {
        let traces = [(); 2].map(|()| {
            let mut world = mixed(seed);
            world.run();
            world.trace()
        });
        assert_eq!(traces[0], traces[1], "seed {seed}");
        assert_ne!(traces[0], 0);
    }
}

/// `SIM_COST=4,16,256` prints what a node's round costs with so many nodes (`make bench BENCH=rounds`).
#[test]
fn sim_what_a_node_says_in_a_round_does_not_grow_with_the_nodes() {
    let asked = std::env::var("SIM_COST").ok();
    let counts: Vec<usize> =
        asked.as_deref().unwrap_or("3,9").split(',').map(|count| count.trim().parse().expect("a number")).collect();
    for nodes in counts {
        let mut world = World::new(1, nodes, Faults { steps: 8, ..Faults::NONE });
        world.costs = Some(Costs::default());
        world.run();
        let (rounds, costs) = (world.chain.rounds().len(), world.costs.unwrap_or_default());
        let row = costs.row(nodes, rounds);
        let [said, heard, _, fetched, _, sent, ..] = row;
        if asked.is_some() {
            let cells: Vec<_> = row.iter().map(|cell| format!("{cell:.2}")).collect();
            println!("cost {nodes} {rounds} {}", cells.join(" "));
        }
        assert!(said <= 16.0 && sent <= 8.0, "{nodes} nodes: {row:?}");
        // From each of the others: what it says; its result, and manifests where they are in doubt.
        assert!(heard <= 16.0 * nodes as f64 && fetched <= 3.0 * nodes as f64, "{nodes} nodes: {row:?}");
    }
}
