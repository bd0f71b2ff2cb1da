//! The simulation: virtual time, a chain that is the real state machine, a network that misbehaves, training by the real codec.

pub(crate) mod chain;
pub(crate) mod checks;
pub(crate) mod costs;
pub(crate) mod faults;
pub(crate) mod node;
pub(crate) mod shell;
pub(crate) mod training;
mod updates;
pub(crate) mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Time between two reports of progress.
const PROGRESS: Duration = Duration::from_secs(5);
/// Of the seeds that the environment asks for, scenarios of one kind of fault take this part, if it is more
/// than usual, and the mixed one all.
const NAMED_PART: u64 = 10;

/// Whether one seed is looked at closely, so that everything is printed.
pub(crate) fn verbose() -> bool {
    std::env::var_os("SIM_SEED").is_some() && std::env::var_os("SIM_QUIET").is_none()
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Runs `test` with the seeds 0 to `default`, or as many as the environment asks for, on all cores, and says how to see a
/// failure again.
pub(crate) fn for_each_seed(default: u64, test: impl Fn(u64) + Sync) {
    run_seeds(number("SIM_SEEDS").map_or(default, |seeds| seeds.div_ceil(NAMED_PART).max(default)), test);
}

/// As [`for_each_seed`], for the scenario that takes every seed.
pub(crate) fn for_every_seed(default: u64, test: impl Fn(u64) + Sync) {
    run_seeds(number("SIM_SEEDS").unwrap_or(default), test);
}

fn run_seeds(count: u64, test: impl Fn(u64) + Sync) {
    let name = std::thread::current().name().unwrap_or("sim_").to_owned();
    if let Some(seed) = number("SIM_SEED") {
        return test(seed);
    }
    let first = number("SIM_FIRST").unwrap_or(0);
    let (next, failed) = (AtomicU64::new(first), AtomicU64::new(0));
    let (began, told) = (Instant::now(), Mutex::new(Instant::now()));
    let work = || loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= first + count || failed.load(Ordering::Relaxed) >= FAILURES_MAX {
            return;
        }
        if catch_unwind(AssertUnwindSafe(|| test(seed))).is_err() {
            failed.fetch_add(1, Ordering::Relaxed);
            eprintln!("the simulation failed; again: make sim SEED={seed} TEST={name}");
        }
        let mut told = told.lock().unwrap();
        if told.elapsed() > PROGRESS {
            *told = Instant::now();
            eprintln!("{name}: {} of {count} seeds after {} s", seed - first, began.elapsed().as_secs());
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let failed = failed.into_inner();
    assert_eq!(failed, 0, "{failed} seeds failed; the lines above tell how to see each again");
}

/// After so many failures no more seeds are begun.
const FAILURES_MAX: u64 = 5;
