//! What nodes bear, with real ones on a local chain: the demonstrations of `make demo`, each of which checks what it shows.
#![cfg(feature = "localnet")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may unwrap")]

#[path = "../examples/demo/acts.rs"]
mod acts;
#[path = "../examples/demo/journal.rs"]
mod journal;
#[path = "../examples/demo/play.rs"]
mod play;
#[path = "../examples/demo/stage.rs"]
mod stage;

use std::io::Write;
use std::path::Path;

type Act = fn(&Path, &Path, &mut dyn Write) -> anyhow::Result<()>;

/// Plays an act, and shows its transcript if anything else happens than must.
fn shown(act: Act) {
    let folder = tempfile::tempdir().unwrap();
    let mut transcript = Vec::new();
    let played = act(Path::new(env!("CARGO_BIN_EXE_psyche-solana-client")), folder.path(), &mut transcript);
    if let Err(error) = played {
        panic!("{error:#}\n{}", String::from_utf8_lossy(&transcript));
    }
}

#[test]
fn who_comes_late_replays_the_update_log_and_who_is_killed_comes_back_with_the_same_parameters() {
    shown(acts::late_and_killed);
}

#[test]
fn a_replica_whose_parameters_are_altered_while_it_runs_is_back_within_two_rounds() {
    shown(acts::altered);
}

#[test]
fn who_signs_what_it_did_not_train_is_in_no_step_and_loses_its_place() {
    shown(acts::liar);
}
