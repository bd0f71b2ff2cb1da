//! Catching up by the update log, in simulation: joiners, standbys, restarted nodes, and logs that lie.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use psyche_messages::Step;

use super::faults::Faults;
use super::for_each_seed;
use super::world::World;

/// The steps after which a node loaded parameters.
fn loads(world: &World, node: usize) -> Vec<Step> {
    world.checks.loaded.iter().filter(|(who, _)| *who == node).map(|(_, step)| *step).collect()
}

#[test]
fn sim_who_starts_late_loads_once_and_replays_the_rest() {
    for_each_seed(8, |seed| {
        let mut world = World::new(seed, 4, Faults::NONE.with_late_start(35_000 + 3_000 * (seed % 8)));
        world.run();
        let loaded = loads(&world, 0);
        assert_eq!(loaded.len(), 1, "it should not have asked for newer and newer parameters: {loaded:?}");
        let replays = &world.checks.replays;
        if loaded[0].next() == Step(world.faults.steps) {
            return; // The run was over.
        }
        assert!(replays.iter().any(|(from, to)| *from == loaded[0].next() && to >= from), "{loaded:?} {replays:?}");
    });
}

#[test]
fn sim_who_starts_late_gets_there_whoever_vanishes_meanwhile() {
    for_each_seed(8, |seed| {
        let mut world = World::new(seed, 5, Faults::lossy(seed).with_late_start(35_000 + 2_000 * (seed % 8)).with_crash(seed));
        world.run();
    });
}

#[test]
fn sim_a_log_that_lies_costs_its_author_and_another_one_is_taken() {
    let served = AtomicU64::new(0);
    for_each_seed(8, |seed| {
        let mut world = World::new(seed, 4, Faults::NONE.with_late_start(40_000 + 2_000 * (seed % 8)).with_false_log());
        world.run();
        if world.checks.false_logs > 0 {
            assert!(world.checks.warned("is not used any more"), "nobody noticed");
            let liar = world.nodes.len() - 1;
            assert!(world.checks.blames.iter().any(|(_, other)| *other == liar), "the network was not told");
        }
        served.fetch_add(u64::from(world.checks.false_logs), Relaxed);
    });
    assert!(served.into_inner() > 0 || super::verbose(), "no false log was ever asked for");
}

#[test]
fn sim_a_node_that_dies_in_an_epoch_resumes_from_its_own_disk() {
    let resumed = AtomicU64::new(0);
    for_each_seed(8, |seed| {
        let mut faults = Faults::NONE.with_steps(40);
        faults.keeps_disk = true;
        faults.crash = Some((100_000 + 4_000 * (seed % 8), 4_000));
        let mut world = World::new(seed, 4, faults);
        world.run();
        resumed.fetch_add(world.checks.replays.len() as u64, Relaxed);
    });
    assert!(resumed.into_inner() > 0 || super::verbose(), "nobody replayed anything");
}

#[test]
fn sim_a_node_that_diverges_is_back_within_two_rounds() {
    let healed = AtomicU64::new(0);
    for_each_seed(8, |seed| {
        let mut faults = Faults::NONE.with_steps(40);
        faults.keeps_disk = true;
        faults.flip = Some(90_000 + 3_000 * (seed % 8));
        let mut world = World::new(seed, 4, faults);
        world.run();
        for (diverged, back) in &world.checks.healings {
            assert!(back.since(*diverged) <= 2, "wrong in round {diverged}, right again only in round {back}");
        }
        healed.fetch_add(world.checks.healings.len() as u64, Relaxed);
    });
    assert!(healed.load(Relaxed) > 0 || super::verbose(), "nobody ever differed");
}

#[test]
fn sim_weights_and_step_never_part_when_everyone_is_gone_and_comes_back() {
    for_each_seed(24, |seed| {
        // A round lasts three to four seconds, so that nodes die in every part of it.
        let mut faults = Faults::NONE.with_steps(40);
        faults.keeps_disk = true;
        faults.crash_of_all = Some((100_000 + 430 * (seed % 100), 1_000 + 800 * (seed % 5)));
        let mut world = World::new(seed, 3 + seed as usize % 3, faults);
        world.run();
        assert!(world.nodes.iter().all(|node| node.disk_at_death), "everyone had a snapshot");
        // Whatever anybody loaded was what belongs to that step, and what every node holds at the end is, too.
        assert!(!world.checks.warned("checkpoint is loaded"), "the run began again although snapshots were there");
        assert_eq!(world.checks.adoptions, 0, "older weights were given a newer step");
    });
}

#[test]
fn sim_what_lies_on_any_disk_is_not_lost_when_others_lose_theirs() {
    for_each_seed(24, |seed| {
        let nodes = 3 + seed as usize % 3;
        // Whoever declares older parameters right than any disk leads to fails at once.
        let mut world = World::new(seed, nodes, Faults::NONE.with_steps(40).with_disks_of_some(seed, nodes));
        world.run();
        let kept = (0..nodes).filter(|node| !world.faults.lost_disks.contains(node));
        if kept.into_iter().any(|node| world.nodes[node].disk_at_death) {
            assert!(!world.checks.warned("checkpoint is loaded"), "the run began again although a snapshot was there");
        }
    });
}
