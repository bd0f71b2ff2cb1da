//! The short run: every corpus, and some thousand mutations of it from a fixed seed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may unwrap")]

use psyche_fuzz::{Budget, TARGETS, campaign, folder, read};

const RUNS: u64 = 2_000;

/// Runs the target `name` from a seed that never changes, so that a failure comes again.
fn short_run_of(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let corpus = read(&folder(name)).unwrap();
    assert!(!corpus.is_empty(), "{name} has a committed corpus");
    let report = campaign(target, &corpus, Budget { runs: RUNS, time: None, seed: 1 });
    if let Some(finding) = report.finding {
        panic!("{name}: {} by {:02x?}", finding.what, finding.input);
    }
    let examples = (target.examples)().len() as u64;
    assert_eq!(report.runs, corpus.len() as u64 + examples + RUNS);
    // Both sides of the decoder are reached by what was not written by hand.
    let (runs, accepted) = (report.runs, report.accepted);
    assert!(accepted > examples && accepted < runs, "{accepted} of {runs} accepted");
}

macro_rules! short_runs {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            short_run_of(stringify!($name));
        })*

        #[test]
        fn every_target_has_its_short_run() {
            assert_eq!(TARGETS.map(|target| target.name), [$(stringify!($name)),*]);
        }
    };
}

short_runs! {
    announcement manifest update_log blob_request blob_response snapshot_index payload model_config coordinator_account borsh_account
    instruction
}

#[test]
fn every_example_is_accepted() {
    for target in TARGETS {
        for example in (target.examples)() {
            assert_eq!((target.check)(&example), psyche_fuzz::Verdict::Accepted, "{}: {example:02x?}", target.name);
        }
    }
}
