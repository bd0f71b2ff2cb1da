//! The life of a permissioned run as a shell script: every command that its owner and a member type, with its exit code.
#![cfg(feature = "localnet")]
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod support;

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use support::{isolated, text};

/// A loaded machine may take several times as long as an idle one.
const ENDS_WITHIN: Duration = Duration::from_secs(300);

#[tokio::test]
async fn a_permissioned_run_lives_from_its_creation_to_its_last_claim_in_a_shell() {
    let binary = Path::new(env!("CARGO_BIN_EXE_psyche-solana-client"));
    let path = format!("{}:{}", binary.parent().unwrap().display(), std::env::var("PATH").unwrap_or_default());
    let mut script = isolated(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/permissioned_run.sh"));
    script.env("PATH", path).stdin(Stdio::null());
    let ended = tokio::time::timeout(ENDS_WITHIN, tokio::process::Command::from(script).kill_on_drop(true).output());
    let output = ended.await.unwrap().unwrap();
    let (transcript, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{transcript}\n{errors}");

    let mut rest = transcript.as_str();
    // In this order, each after the one before.
    let told = [
        "is authorized; ask the run's join authority",
        "[exit code 5]",
        "may join every run whose join authority is",
        "is no delegate of",
        "[exit code 5]",
        "1 wallet is named",
        "as a delegate of",
        "the chain accepts the join",
        "Can join run night-school",
        "(1 token of",
        "joined the next epoch",
        "trained a batch",
        "[exit code 11]",
        "this wallet is no client of the run's epoch",
        "[exit code 15]",
        "names this checkpoint now",
        "names this checkpoint already",
        "the treasury is underfunded: it paid the 1000000 points that it held, and 1500000 remain unpaid",
        "claimed 1500000 points: everything that was earned",
        "nothing to claim",
        "2.5 tokens (2500000 base units)",
    ];
    for words in told {
        let (_, after) = rest.split_once(words).unwrap_or_else(|| panic!("{words:?} does not follow in:\n{transcript}"));
        rest = after;
    }
}
