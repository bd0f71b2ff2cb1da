//! The simulation: virtual time, a chain that is the real state machine, a network that misbehaves, toy training.

pub(crate) mod chain;
pub(crate) mod checks;
pub(crate) mod faults;
pub(crate) mod node;
pub(crate) mod shell;
pub(crate) mod toy;
mod updates;
pub(crate) mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Whether one seed is looked at closely, so that everything is printed.
pub(crate) fn verbose() -> bool {
    std::env::var_os("SIM_SEED").is_some()
}

/// Runs `test` with the seeds 0 to `default`, or those that the environment asks for, and names the seed of a failure.
pub(crate) fn for_each_seed(default: u64, test: impl Fn(u64)) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let seeds: Vec<u64> = match number("SIM_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("SIM_SEEDS").unwrap_or(default)).collect(),
    };
    for seed in seeds {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| test(seed))) {
            eprintln!("the simulation failed; SIM_SEED={seed} reproduces it");
            resume_unwind(panic);
        }
    }
}
