//! Authorizer and treasurer as bytecode against their native state machines: random instructions, right ones and wrong
//! ones, of right and wrong people, must give the same codes, account bytes, lamports and tokens after every single one,
//! and what must always hold is checked there, too.
//!
//! `PSYCHE_PROGRAMS_SEED=n` takes other sequences; a failure prints the shortest sequence that shows it.

mod grants;
mod payments;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

/// Sequences for a test.
const CASES: u32 = 200;

/// Runs `test` on sequences from `strategy`: the same ones each time, unless the environment asks for others.
fn check<S: Strategy>(strategy: &S, test: impl Fn(S::Value)) {
    let mut seed = [0x5a; 32];
    if let Ok(given) = std::env::var("PSYCHE_PROGRAMS_SEED") {
        seed[..8].copy_from_slice(&given.parse::<u64>().unwrap().to_le_bytes());
    }
    let config = Config { cases: CASES, failure_persistence: None, max_shrink_iters: 400, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let outcome = runner.run(strategy, |value| {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(value))).map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            TestCaseError::fail(text)
        })
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}
