#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

use clap::{ArgAction, Command as Clap, CommandFactory as _, Parser as _};

use super::*;

/// Every command that does something, with its name.
fn leaves(command: &Clap, above: &str, found: &mut Vec<(String, Clap)>) {
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set() && inner.get_name() != "help") {
        let name = format!("{above}{}", inner.get_name());
        if inner.get_subcommands().next().is_none() {
            found.push((name.clone(), inner.clone()));
        }
        leaves(inner, &format!("{name} "), found);
    }
}

fn commands() -> Vec<(String, Clap)> {
    let mut found = Vec::new();
    leaves(&Cli::command(), "", &mut found);
    assert!(found.len() > 20, "the commands were not found");
    found
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_option_of_every_command_is_a_variable_too() {
    for (name, command) in commands() {
        for arg in command.get_arguments() {
            let help =
                matches!(arg.get_action(), ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version);
            assert!(help || arg.get_env().is_some(), "{name} {:?} reads no variable", arg.get_id());
        }
    }
}

#[test]
fn no_variable_of_an_option_means_two_things_in_one_command_and_none_holds_a_key() {
    for (name, command) in commands() {
        let mut variables: Vec<_> = command.get_arguments().filter_map(|arg| arg.get_env()).collect();
        let count = variables.len();
        variables.sort();
        variables.dedup();
        assert_eq!(variables.len(), count, "{name}");
        assert!(variables.iter().all(|variable| *variable != "RAW_WALLET_PRIVATE_KEY"), "{name} takes a key as an option");
    }
}

#[test]
fn every_command_shows_an_example_or_its_variables_and_every_option_explains_itself() {
    for (name, command) in commands() {
        let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(after.contains("Example:\n  ") || after.contains("Variables:\n"), "{name} shows no example");
        for arg in command.get_arguments() {
            assert!(arg.get_help().is_some(), "{name} {:?} has no help", arg.get_id());
        }
    }
}

#[test]
fn commands_that_read_print_json_where_asked() {
    let reads = [
        "can-join",
        "status",
        "check-config",
        "list-runs",
        "json-dump-run",
        "json-dump-user",
        "join-authorization-read",
        "wallet address",
        "wallet balance",
        "treasurer-claim-rewards",
    ];
    let commands = commands();
    for name in reads {
        let (_, command) = commands.iter().find(|(other, _)| other == name).unwrap();
        assert!(command.get_arguments().any(|arg| arg.get_long() == Some("json")), "{name}");
    }
}

#[test]
fn the_command_lines_that_operators_and_owners_know_are_understood() {
    let pubkey = "4SHugWqSXwKE5fqDchkJcPEqnoZE22VYKtSTVm7axbT7";
    let lines = [
        "can-join --run-id r --authorizer KEY --pubkey KEY",
        "can-join --rpc http://a --ws-rpc ws://a --run-id r --authorizer KEY --address KEY",
        "can-join --run-id r --wallet KEY",
        "can-join --run-id r --user KEY",
        "treasurer-claim-rewards --rpc http://a --run-id r --wallet-private-key-path id.json",
        "treasurer-claim-rewards --run-id r --treasurer-index 7 --max-claimed-points 5",
        "treasurer-top-up-rewards --run-id r --treasurer-index 7 --collateral-amount 10.5",
        "create-run -r r -c 1.2 --treasurer-index 7 --treasurer-collateral-mint KEY --join-authority KEY",
        "update-config -r r --config-path f --restart-from-step 5 --switch-to-hub --name n --description d --num-parameters 1 --vocab-size 2 --client-version v",
        "set-paused -r r --resume",
        "set-future-epoch-rates -r r --earning-rate-total-shared 2.5 --slashing-rate-per-client 0.1",
        "close-run -r r",
        "list-runs --rpc http://a --json",
        "json-dump-run -r r",
        "json-dump-user -r r --address KEY",
        "json-dump-user -r r --wallet KEY",
        "join-authorization-create --authorizer KEY",
        "join-authorization-create --permissionless",
        "join-authorization-read --join-authority KEY --authorizer KEY",
        "join-authorization-delegate --join-authority KEY --delegates-clear --delegates-added KEY KEY",
        "join-authorization-delegate --join-authority KEY --delegates-added KEY --delegates-added KEY",
        "join-authorization-delete --authorizer KEY",
        "tick -r r --ms-interval 500 --count 3",
        "checkpoint -r r --repo a/b",
        "wallet new --out f",
        "create-static-p2p-identity --save-path f",
        "show-static-p2p-identity --identity-secret-key-path f",
        "show-static-p2p-identity -r r --wallet-private-key-path id.json",
        "wallet balance --address KEY",
        "train",
        "",
    ];
    for line in lines {
        let line = line.replace("KEY", pubkey);
        let words = std::iter::once("psyche-solana-client").chain(line.split_whitespace());
        if let Err(error) = Cli::try_parse_from(words) {
            panic!("{line}: {error}");
        }
    }
}

#[test]
fn a_private_key_in_the_wrong_place_is_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("id.json");
    psyche_chain::Wallet::new().save(&path).unwrap();
    let key = std::fs::read_to_string(&path).unwrap();
    for words in [vec!["can-join", "--run-id", "r", "--pubkey", &key], vec![key.as_str()], vec!["train", &key]] {
        let error = Cli::try_parse_from(std::iter::once("psyche-solana-client").chain(words)).unwrap_err();
        let shown = crate::usage::without_keys(error).to_string();
        assert!(!shown.contains(&key[1..20]) && shown.contains("may be a private key"), "{shown}");
    }
}
