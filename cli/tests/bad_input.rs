//! Bad input of every kind: one sentence that says what is wrong and what helps, the documented exit code, nothing on stdout,
//! and no key anywhere.
#![cfg(feature = "localnet")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

mod support;

use std::process::Output;

use psyche_chain::{ProgramIds, addresses};
use psyche_messages::Address;
use support::{Folder, RUN_TOML, Scene, command, other_network, text};

/// A chain with a few runs.
fn scene() -> Scene {
    let scene = Scene::with_run("here");
    for run in ["broken", "foreign"] {
        scene.good(&format!("create-run --run-id {run} {OWNER}"));
    }
    scene.good(&format!("join-authorization-create --permissionless {OWNER}"));
    scene
}

/// That `output` is a refusal with `code`: one sentence on stderr with all of `parts`, and nothing on stdout.
fn assert_refused(what: &str, output: &Output, code: i32, parts: &[&str]) {
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{what}\n{out}{err}");
    for part in parts {
        assert!(err.contains(part), "{what}: {part:?} is not in:\n{err}");
    }
    let sentences: Vec<_> = err.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(sentences.len(), 1, "{what}\n{err}");
    // The parser of the command line adds its usage below.
    if code != 2 {
        // Several violations of a configuration stand below, one a line.
        let last = err.lines().rfind(|line| !line.starts_with("  "));
        assert_eq!(last, Some(sentences[0]), "{what}: the sentence is the last line\n{err}");
        assert!(out.is_empty(), "{what}\n{out}");
    }
    assert!(!err.contains("0x") && !err.contains("Some("), "{what}: a sentence, not a dump\n{err}");
}

const OWNER: &str = "--wallet-private-key-path owner.json";
const POOR: &str = "--wallet-private-key-path poor.json";
const NOBODY: &str = "4SHugWqSXwKE5fqDchkJcPEqnoZE22VYKtSTVm7axbT7";

#[test]
fn what_cannot_be_meant_is_refused_as_wrong_usage_in_words() {
    let long = "r".repeat(33);
    let cases: [(String, &[&str]); 12] = [
        (format!("can-join --run-id {long} --pubkey {NOBODY}"), &["1 to 32 bytes", "33 bytes"]),
        ("can-join --run-id here --pubkey nonsense".into(), &["32 bytes in base58"]),
        ("treasurer-top-up-rewards --run-id here --points -5".into(), &["points", "from 0"]),
        ("treasurer-top-up-rewards --run-id here --points 0".into(), &["at least 1 point"]),
        ("treasurer-top-up-rewards --run-id here --collateral-amount -0.5".into(), &["whole tokens from 0"]),
        ("treasurer-top-up-rewards --run-id here".into(), &["--collateral-amount"]),
        ("set-future-epoch-rates --run-id here --earning-rate-points 99999999999999999999".into(), &["from 0"]),
        ("wallet airdrop --sol -1".into(), &["SOL"]),
        ("tick --run-id here --ms-interval 0".into(), &["1..=3600000"]),
        ("join-authorization-create".into(), &["--authorizer", "--permissionless"]),
        ("no-such-command".into(), &["no-such-command"]),
        ("set-paused".into(), &["--run-id"]),
    ];
    for (line, parts) in &cases {
        assert_refused(line, &command().args(line.split_whitespace()).output().unwrap(), 2, parts);
    }
}

#[test]
fn keys_and_files_that_cannot_be_used_are_refused_before_anybody_is_asked() {
    let folder = Folder::new();
    folder.run("wallet new --out owner.json");
    folder.write("open.json", &std::fs::read_to_string(folder.path("owner.json")).unwrap(), 0o644);
    folder.write("half.json", "[1,2,3]", 0o600);
    folder.write("no-toml.toml", "[config\n", 0o600);
    folder.write("typo.toml", &RUN_TOML.replace("cooldown_time", "cooldown_tiem"), 0o600);
    folder.write("less.toml", &RUN_TOML.replace("total_steps = 5\n", ""), 0o600);
    folder.write("range.toml", &RUN_TOML.replacen("min_clients = 1", "min_clients = 70000", 1), 0o600);
    folder.write("rules.toml", &RUN_TOML.replace("witness_nodes = 0", "witness_nodes = 9"), 0o600);
    let update = |file: &str| format!("update-config --run-id here --config-path {file} {OWNER}");
    let cases: Vec<(String, i32, Vec<&str>)> = vec![
        // Keys.
        ("set-paused --run-id here".into(), 3, vec!["no wallet", "wallet new"]),
        ("set-paused --run-id here --wallet-private-key-path open.json".into(), 3, vec!["mode 0644", "chmod 600 open.json"]),
        ("wallet address --wallet-private-key-path half.json".into(), 3, vec!["64 numbers"]),
        ("wallet address --wallet-private-key-path nowhere.json".into(), 3, vec!["nowhere.json"]),
        ("wallet new --out owner.json".into(), 3, vec!["owner.json", "does not exist"]),
        ("can-join --run-id here".into(), 3, vec!["--address", "RAW_WALLET_PRIVATE_KEY"]),
        // Files.
        (update("no-toml.toml"), 3, vec!["no-toml.toml, line 1, column 8"]),
        (update("typo.toml"), 3, vec!["typo.toml, line 3, column 1", "cooldown_tiem"]),
        (update("less.toml"), 3, vec!["less.toml, line 1, column 1", "total_steps"]),
        (update("range.toml"), 3, vec!["range.toml, line 7, column 15", "70000", "from 0 to 65535"]),
        (update("rules.toml"), 3, vec!["rules.toml, line 9, column 17", "witness_nodes must not exceed"]),
        (update("nowhere.toml"), 3, vec!["nowhere.toml"]),
    ];
    for (line, code, parts) in &cases {
        assert_refused(line, &folder.run(line), *code, parts);
    }
}

#[test]
fn a_model_that_cannot_write_is_refused_with_the_file_that_is_missing_or_wrong() {
    let folder = Folder::new();
    let config = r#"{"model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 300, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 16, "tie_word_embeddings": false}"#;
    folder.write("small.json", config, 0o600);
    folder.write("tiny.json", &config.replace("300", "64"), 0o600);
    folder.write("text.txt", "In the beginning was the Word, and the Word was with God.\n", 0o600);
    folder.write("no.json", "{}", 0o600);
    for line in [
        "init-model --config small.json --seed 1 --out small",
        "init-model --config tiny.json --seed 1 --out tiny",
        "tokenize --text text.txt --vocab-size 280 --out tokens",
    ] {
        assert!(folder.run(line).status.success(), "{line}");
    }
    let cases: [(&str, i32, &[&str]); 7] = [
        ("generate --checkpoint nowhere", 3, &["nowhere holds no model", "config.json"]),
        ("generate --checkpoint small", 3, &["no tokenizer at small/tokenizer.json", "--tokenizer"]),
        ("generate --checkpoint small --tokenizer no.json", 3, &["no.json", "load the tokenizer"]),
        ("generate --checkpoint tiny --tokenizer tokens/tokenizer.json", 3, &["the model 64", "do not belong together"]),
        ("generate --checkpoint small --temperature 11", 2, &["a number from 0 to 10"]),
        ("generate --checkpoint small --tokens 0", 2, &["1..=4096"]),
        ("generate --prompt x", 2, &["--checkpoint"]),
    ];
    for (line, code, parts) in cases {
        assert_refused(line, &folder.run(line), code, parts);
    }
    std::fs::write(folder.path("small/model.safetensors"), "cut").unwrap();
    let line = "generate --checkpoint small --tokenizer tokens/tokenizer.json";
    assert_refused(line, &folder.run(line), 3, &["the model can't be used", "model.safetensors"]);
}

#[test]
fn what_the_chain_does_not_have_or_allow_has_its_sentence_remedy_and_exit_code() {
    let scene = scene();
    let owner = scene.address("owner");
    let cases: Vec<(String, i32, Vec<&str>)> = vec![
        // Runs and those who may change them.
        (format!("update-config --run-id here {OWNER}"), 15, vec!["nothing is to be changed"]),
        (format!("update-config --run-id here --name {} {OWNER}", "n".repeat(65)), 3, vec!["64 bytes"]),
        (format!("set-paused --run-id nowhere {OWNER}"), 4, vec!["run", "--run-id"]),
        (format!("can-join --run-id nowhere --pubkey {NOBODY} --json"), 4, vec!["nowhere", "RPC endpoint"]),
        ("json-dump-run --run-id here --treasurer-index 5".into(), 15, vec!["--treasurer-index"]),
        ("json-dump-run --run-id nowhere".into(), 4, vec!["--run-id"]),
        (format!("json-dump-user --run-id nowhere --address {NOBODY}"), 4, vec!["--run-id"]),
        (format!("tick --run-id nowhere --count 1 {OWNER}"), 4, vec!["--run-id"]),
        (format!("create-run --run-id here {OWNER}"), 15, vec!["exists"]),
        (format!("set-paused --run-id here --resume {POOR}"), 15, vec!["belongs to"]),
        (format!("close-run --run-id here {POOR}"), 15, vec!["belongs to"]),
        (format!("create-run --run-id new {POOR}"), 6, vec!["SOL"]),
        (format!("set-paused --run-id here --treasurer-index 5 {OWNER}"), 15, vec!["--treasurer-index"]),
        // Authorizations.
        (format!("join-authorization-read --join-authority {NOBODY} --permissionless"), 5, vec!["join-authorization-create"]),
        (
            format!("join-authorization-delegate --join-authority {owner} --delegates-added {NOBODY} {OWNER}"),
            5,
            vec!["join-authorization-create"],
        ),
        (format!("join-authorization-delegate --join-authority {owner} {OWNER}"), 3, vec!["--delegates-added"]),
        // Rewards and tokens.
        (format!("treasurer-claim-rewards --run-id here {OWNER}"), 15, vec!["treasury"]),
        (format!("treasurer-top-up-rewards --run-id here --points 5 {OWNER}"), 15, vec!["treasury"]),
        (format!("set-future-epoch-rates --run-id here --earning-rate-total-shared 1 {OWNER}"), 15, vec!["treasury", "points"]),
        (format!("set-future-epoch-rates --run-id here {OWNER}"), 3, vec!["--earning-rate-total-shared"]),
        (format!("wallet balance --address {NOBODY} --mint {NOBODY}"), 15, vec!["token"]),
        (format!("wallet create-token --decimals 2 --supply 0.001 {OWNER}"), 3, vec!["2 decimals"]),
        // Endpoints.
        (format!("can-join --run-id here --pubkey {NOBODY} --rpc ftp://host"), 3, vec!["RPC", "http"]),
        (format!("can-join --run-id here --pubkey {NOBODY} --rpc http://127.0.0.1:9"), 7, vec!["127.0.0.1:9", "RPC"]),
    ];
    for (line, code, parts) in &cases {
        let output = scene.run(line);
        let json = line.ends_with("--json");
        let output = if json { Output { stdout: Vec::new(), ..output } } else { output };
        assert_refused(line, &output, *code, parts);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_of_another_version_or_kind_are_said_to_be_that() {
    let scene = scene();
    let (rpc, programs) = (scene.rpc(), ProgramIds::default());
    let run = rpc.run_info(&"broken".parse().unwrap()).await.unwrap();
    let mut account = rpc.account(run.account).await.unwrap().unwrap().data;
    account[8] = 2;
    scene.set_account(run.account, programs.coordinator, &account);
    let foreign = rpc.run_info(&"foreign".parse().unwrap()).await.unwrap();
    scene.set_account(foreign.account, Address([0; 32]), &[]);
    scene.set_account(addresses::instance(&programs, &"garbage".parse().unwrap()), programs.coordinator, &[7; 173]);
    for run in ["broken", "foreign", "garbage"] {
        for line in [format!("json-dump-run --run-id {run}"), format!("set-paused --run-id {run} {OWNER}")] {
            let output = scene.run(&line);
            if line.starts_with("json") {
                assert_refused(&line, &output, 8, &["another version of this program"]);
            }
        }
        let output = scene.run(&format!("can-join --run-id {run} --pubkey {NOBODY}"));
        assert_eq!(output.status.code(), Some(8), "{run}: {}", text(&output.stderr));
        assert!(text(&output.stdout).contains("✗ account"), "{run}: {}", text(&output.stdout));
    }
    // Another program's accounts are of another kind too, or not there at all.
    let other = scene.run_with("json-dump-run --run-id here", &[("COORDINATOR_PROGRAM_ID", NOBODY)]);
    assert!(other.status.success(), "the default program by its name: {}", text(&other.stderr));
    let stranger = programs.treasurer.to_string();
    let other = scene.run_with("json-dump-run --run-id here", &[("COORDINATOR_PROGRAM_ID", &stranger)]);
    assert_refused("another program", &other, 4, &["--run-id"]);
}

#[test]
fn endpoints_of_different_networks_are_not_mixed() {
    let scene = Scene::empty();
    let (ours, other) = (scene.chain.rpc().to_owned(), other_network());
    for line in [format!("wallet balance --address {NOBODY}"), format!("json-dump-user --run-id here --address {NOBODY}")] {
        let output = scene.run_with(&line, &[("RPC", &ours), ("RPC_2", &other)]);
        assert_refused(&line, &output, 3, &["different clusters", "RPC_2", other.strip_prefix("http://").unwrap()]);
    }
}

#[test]
fn empty_and_quoted_variables_are_what_they_were_meant_to_be() {
    let scene = Scene::empty();
    let rpc = format!("\"{}\"", scene.chain.rpc());
    let address = format!(" '{NOBODY}' ");
    let variables =
        [("RPC", rpc.as_str()), ("ADDRESS", &address), ("AUTHORIZER", ""), ("RPC_2", "\"\""), ("PSYCHE_JSON", "yes")];
    let output = scene.run_with("wallet balance", &variables);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let balance: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(balance["address"], NOBODY);
    let wrong = scene.run_with("wallet balance", &[("ADDRESS", NOBODY), ("PSYCHE_JSON", "perhaps")]);
    assert_refused("a switch that is neither on nor off", &wrong, 2, &["--json"]);
}

#[test]
fn everything_that_can_be_an_option_can_come_from_a_file_of_variables() {
    let scene = scene();
    let file = format!("RUN_ID=here\nADDRESS={NOBODY}\nRPC='{}'\n", scene.chain.rpc());
    scene.write("some.env", &file, 0o600);
    let mut command = command();
    let output = command.current_dir(scene.path("")).args(["can-join", "--env-file", "some.env"]).output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(12), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("open to everybody"), "{}", text(&output.stdout));
}
