//! Every obstacle that `can-join` knows, on a real chain, with its line and its exit code.
#![cfg(feature = "localnet")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

mod support;

use std::process::Output;

use psyche_chain::{ProgramIds, RunInfo, Wallet};
use psyche_messages::Address;
use psyche_protocol::layout::{CoordinatorAccount, EpochClient, MAX_CLIENTS, NodeIdentity, RosterClient, RunState};
use serde_json::Value;
use support::{Scene, text};

/// A client that nobody else is.
fn stranger(n: usize) -> NodeIdentity {
    let mut key = [0x55; 32];
    key[..8].copy_from_slice(&(n as u64).to_le_bytes());
    NodeIdentity { signer: key, p2p_identity: key }
}

/// A run that everybody may join, whose account can be changed at will.
struct Run {
    scene: Scene,
    info: RunInfo,
    fresh: Vec<u8>,
    joiner: Address,
}

impl Run {
    async fn start() -> Self {
        let scene = Scene::with_run("open");
        scene.good("join-authorization-create --permissionless --wallet-private-key-path owner.json");
        scene.good("set-paused --run-id open --resume --wallet-private-key-path owner.json");
        let joiner = scene.wallet("joiner", "1");
        let rpc = scene.rpc();
        let info = rpc.run_info(&"open".parse().unwrap()).await.unwrap();
        let fresh = rpc.account(info.account).await.unwrap().unwrap().data;
        Self { scene, info, fresh, joiner }
    }

    /// Makes the run's account what it was at first, with `change`.
    fn set(&self, change: impl FnOnce(&mut CoordinatorAccount)) {
        let mut account = CoordinatorAccount::load_boxed(&self.fresh).unwrap();
        change(&mut account);
        self.scene.set_account(self.info.account, ProgramIds::default().coordinator, account.as_bytes());
    }

    fn ask(&self, wallet: Address, options: &str) -> Output {
        self.scene.run(&format!("can-join --run-id open --pubkey {wallet} {options}"))
    }

    /// Asks for people and for scripts; both answers must name `check` as the obstacle with `code`.
    fn assert_obstacle(&self, wallet: Address, code: i32, check: &str, words: &str) {
        let (people, scripts) = (self.ask(wallet, ""), self.ask(wallet, "--json"));
        let (out, err) = (text(&people.stdout), text(&people.stderr));
        assert_eq!(people.status.code(), Some(code), "{check}\n{out}{err}");
        assert!(err.contains(words), "{words}: {err}");
        let crosses = out.lines().filter(|line| line.starts_with('✗')).count();
        assert_eq!(crosses, 1, "{out}");
        let answer: Value = serde_json::from_slice(&scripts.stdout).unwrap();
        assert_eq!((&answer["can_join"], &answer["exit_code"]), (&false.into(), &code.into()), "{answer}");
        let refused = answer["checks"].as_array().unwrap().iter().find(|line| line["verdict"] == "no").unwrap();
        assert_eq!((&refused["check"], &refused["exit_code"]), (&check.into(), &code.into()), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_obstacle_has_a_line_and_an_exit_code_of_its_own() {
    let run = Run::start().await;
    let joiner = run.joiner;
    let good = run.ask(joiner, "");
    assert_eq!(good.status.code(), Some(0), "{}{}", text(&good.stdout), text(&good.stderr));
    assert!(text(&good.stdout).lines().all(|line| line.starts_with('✓')), "{}", text(&good.stdout));

    run.assert_obstacle(run.scene.address("poor"), 6, "balance", "SOL to pay fees; send it some");
    run.set(|account| {
        account.state.coordinator.run_state = RunState::RoundTrain.number();
        let member = NodeIdentity { signer: joiner.0, p2p_identity: joiner.0 };
        assert!(account.state.coordinator.epoch_state.clients.push(&EpochClient::new(member)));
    });
    run.assert_obstacle(joiner, 9, "not_member", "a key of its own for each node");
    run.set(|account| assert!(account.state.client_version.set("9.9.9")));
    run.assert_obstacle(joiner, 10, "client_version", "9.9.9");
    run.set(|account| account.state.coordinator.run_state = RunState::Finished.number());
    run.assert_obstacle(joiner, 11, "not_finished", "finished");
    run.set(|account| account.state.coordinator.run_state = RunState::Paused.number());
    run.assert_obstacle(joiner, 12, "not_paused", "paused");
    run.set(|account| {
        account.state.coordinator.config.global_batch_size_end = 1_000;
        for n in 0..MAX_CLIENTS {
            let mut client = RosterClient::new(stranger(n), account.state.clients_state.next_active);
            client.earned = 1;
            assert!(account.state.clients_state.clients.push(&client));
        }
    });
    run.assert_obstacle(joiner, 13, "roster_has_room", "the chain would refuse");
    run.set(|account| {
        account.state.coordinator.config.global_batch_size_end = 2;
        for n in 0..2 {
            let client = RosterClient::new(stranger(n), account.state.clients_state.next_active);
            assert!(account.state.clients_state.clients.push(&client));
        }
    });
    run.assert_obstacle(joiner, 14, "batch_has_room", "the chain would refuse");

    // What only the chain itself knows: an account that another program owns can't pay fees.
    run.set(|_| ());
    run.scene.set_account(joiner, ProgramIds::default().treasurer, &[]);
    run.assert_obstacle(joiner, 15, "chain_accepts", "the chain would refuse");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_said_whose_grant_lets_a_wallet_in_and_whom_to_ask_otherwise() {
    let scene = Scene::with_run("closed");
    scene.good("set-paused --run-id closed --resume --wallet-private-key-path owner.json");
    let (master, node) = (scene.wallet("master", "1"), scene.wallet("node", "1"));
    let owner = scene.address("owner");
    let ask = |wallet: Address, options: &str| {
        let output = scene.run(&format!("can-join --run-id closed --pubkey {wallet} --json {options}"));
        (output.status.code().unwrap(), serde_json::from_slice::<Value>(&output.stdout).unwrap(), text(&output.stderr))
    };
    let (code, answer, told) = ask(node, "");
    assert!(code == 5 && told.contains(&format!("join authority {owner}")), "{told}");
    assert_eq!(answer["granted_by"], Value::Null);

    scene.good(&format!("join-authorization-create --authorizer {master} --wallet-private-key-path owner.json"));
    assert_eq!(ask(master, "").1["granted_by"], "wallet");
    let (code, _, told) = ask(node, &format!("--authorizer {master}"));
    assert!(code == 5 && told.contains("join-authorization-delegate"), "{told}");
    let delegate = format!("join-authorization-delegate --join-authority {owner} --delegates-added {node}");
    scene.good(&format!("{delegate} --wallet-private-key-path master.json"));
    let (code, answer, _) = ask(node, &format!("--authorizer {master}"));
    assert_eq!((code, &answer["granted_by"], &answer["authorizer"]), (0, &"delegate".into(), &master.to_string().into()));

    let read = format!("join-authorization-read --join-authority {owner} --authorizer {master} --json");
    let read: Value = serde_json::from_str(&scene.good(&read)).unwrap();
    assert_eq!((&read["active"], &read["delegates"]), (&true.into(), &serde_json::json!([node.to_string()])));
    let delete = format!("join-authorization-delete --authorizer {master} --wallet-private-key-path owner.json");
    let deleted = scene.run(&delete);
    assert!(text(&deleted.stderr).contains("lets nobody in any more"), "{}", text(&deleted.stderr));
    let (code, _, told) = ask(node, &format!("--authorizer {master}"));
    assert!(code == 5 && told.contains("is not active"), "{told}");

    scene.good("join-authorization-create --permissionless --wallet-private-key-path owner.json");
    let (code, answer, _) = ask(Wallet::new().address(), "");
    assert_eq!((code, &answer["granted_by"]), (6, &"everyone".into()), "open, and only funds are missing");
}
