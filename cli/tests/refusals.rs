//! What people see who have something wrong: a message that says what to do, the right exit code, and no secret.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

mod support;

use std::process::{Output, Stdio};

use support::{LocalChain, command, text};

fn assert_refused(output: &Output, code: i32, parts: &[&str]) {
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{message}");
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in:\n{message}");
    }
}

#[test]
fn an_empty_configuration_is_refused_with_everything_that_is_missing() {
    let output = command().arg("check-config").output().unwrap();
    assert_refused(&output, 3, &["RUN_ID", "RPC", "WALLET_PRIVATE_KEY_PATH", "wallet new"]);
}

#[test]
fn every_violation_is_reported_at_once_and_no_value_is_shown() {
    let output = command()
        .args(["check-config", "--run-id", "demo"])
        .env("RPC", "ftp://user:hunter2@rpc.example/key")
        .env("RAW_WALLET_PRIVATE_KEY", "hunter2hunter2")
        .env("DATA_PARALLELISM", "zero")
        .env("MICRO_BATCH_SIZE", "0")
        .env("AUTHORIZER", "hunter2")
        .env("P2P_PORT", "70000")
        .env("BOOTSTRAP_PEERS", "hunter2:1")
        .output()
        .unwrap();
    let names = ["RPC:", "RAW_WALLET_PRIVATE_KEY:", "DATA_PARALLELISM:", "MICRO_BATCH_SIZE:", "AUTHORIZER:", "P2P_PORT:"];
    assert_refused(&output, 3, &names);
    assert_refused(&output, 3, &["BOOTSTRAP_PEERS:"]);
    assert!(!text(&output.stderr).contains("hunter2"), "{}", text(&output.stderr));
}

#[test]
fn an_unusable_key_file_is_refused_without_its_content() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key.json");
    std::fs::write(&key, "[1,2,3]").unwrap();
    let output = command().args(["wallet", "address", "--wallet-private-key-path"]).arg(&key).output().unwrap();
    assert_refused(&output, 3, &["wallet"]);
    assert!(!text(&output.stderr).contains("[1,2,3]"));
}

#[test]
fn who_reads_only_the_beginning_is_no_failure() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output =
        command().arg("print-all-help").stdout(writer).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
}

#[test]
fn an_unknown_option_is_a_usage_error() {
    let output = command().args(["train", "--no-such-option"]).output().unwrap();
    assert_refused(&output, 2, &["--no-such-option"]);
}

#[test]
fn no_chain_at_all_is_said_as_such() {
    // Port 9 is the discard service's, which nobody runs.
    let output = command()
        .args(["can-join", "--run-id", "demo", "--rpc", "http://127.0.0.1:9"])
        .args(["--pubkey", "4SHugWqSXwKE5fqDchkJcPEqnoZE22VYKtSTVm7axbT7"])
        .output()
        .unwrap();
    assert_refused(&output, 7, &["127.0.0.1:9"]);
}

#[test]
fn a_run_that_does_not_exist_and_a_wallet_without_funds_are_told_apart() {
    let chain = LocalChain::start();
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key.json");
    let made = command().args(["wallet", "new", "--out"]).arg(&key).output().unwrap();
    assert!(made.status.success(), "{}", text(&made.stderr));

    let unknown = command()
        .args(["train", "--run-id", "no-such-run", "--data-dir"])
        .arg(folder.path().join("data"))
        .env("WALLET_PRIVATE_KEY_PATH", &key)
        .envs(chain.variables())
        .output()
        .unwrap();
    assert_refused(&unknown, 4, &["no-such-run"]);

    let poor = command()
        .args(["create-run", "--run-id", "poor"])
        .env("WALLET_PRIVATE_KEY_PATH", &key)
        .envs(chain.variables())
        .output()
        .unwrap();
    assert_refused(&poor, 6, &["SOL"]);
}
