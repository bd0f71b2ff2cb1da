//! A node at work whose run is made anew under its feet, and then wants another client.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

mod support;

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use psyche_chain::ops::{self, NewRun, RunUpdate};
use psyche_chain::{EndpointPair, Rpc, RpcConfig, RunInfo, Wallet};
use psyche_messages::{Address, Lamports, RunId};
use support::training::{MODEL, TEXT, run_toml};
use support::{LocalChain, command, text};

const RUN: &str = "leaving";
const KEY: &str = "key-of-the-provider";
const EVERYONE: Address = Address([0; 32]);

struct Scene {
    chain: LocalChain,
    folder: tempfile::TempDir,
    rpc: Rpc,
    owner: Wallet,
    run_id: RunId,
}

impl Scene {
    async fn new() -> Self {
        let (chain, folder) = (LocalChain::start(), tempfile::tempdir().unwrap());
        let [(_, rpc), (_, ws)] = chain.variables();
        let rpc = Rpc::new(RpcConfig::new(vec![EndpointPair::parse(rpc, ws).unwrap()])).unwrap();
        let scene = Self { chain, folder, rpc, owner: Wallet::new(), run_id: RUN.parse().unwrap() };
        scene.rpc.airdrop(scene.owner.address(), Lamports(20_000_000_000)).await.unwrap();
        let write = |name: &str, content: &str| std::fs::write(scene.path(name), content).unwrap();
        write("text.txt", &TEXT.repeat(80));
        write("config.json", MODEL);
        // It waits for a second client.
        write("run.toml", &run_toml(&[("min_clients", "2"), ("init_min_clients", "2")]));
        scene.run("tokenize --text text.txt --vocab-size 300 --out tokens");
        scene.run("init-model --config config.json --seed 7 --out model");
        ops::authorization_create(&scene.rpc, &scene.owner, EVERYONE).await.unwrap();
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs a command line in the folder, as the owner.
    fn run(&self, line: &str) {
        let key = self.owner_key();
        let mut words = command();
        words.current_dir(self.folder.path()).args(line.split_whitespace()).env("RAW_WALLET_PRIVATE_KEY", key);
        let output = words.output().unwrap();
        assert!(output.status.success(), "{line}: {}", text(&output.stderr));
    }

    fn owner_key(&self) -> String {
        let path = self.path("owner.json");
        if !path.exists() {
            self.owner.save(&path).unwrap();
        }
        std::fs::read_to_string(path).unwrap()
    }

    /// A run of this name with rules, which waits for members.
    async fn create(&self) -> RunInfo {
        let client_version = psyche_actors::CLIENT_VERSION.to_owned();
        let new = NewRun { run_id: self.run_id.clone(), client_version, join_authority: None, treasury: None };
        let run = ops::create_run(&self.rpc, &self.owner, &new).await.unwrap();
        let url = self.chain.variables()[0].1;
        self.run(&format!("update-config --rpc {url} --run-id {RUN} --config-path run.toml"));
        ops::set_paused(&self.rpc, &self.owner, &self.run_id, false).await.unwrap();
        run
    }

    async fn pause(&self) {
        ops::set_paused(&self.rpc, &self.owner, &self.run_id, true).await.unwrap();
    }

    /// Waits until `who` has joined the run in `account`.
    async fn joined(&self, account: Address, who: Address) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.rpc.coordinator(account).await.unwrap().account.is_pending(&who.0) {
            assert!(Instant::now() < deadline, "{who} does not join");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_follows_its_run_to_another_account_and_exits_with_code_ten_for_another_version() {
    let scene = Scene::new().await;
    let first = scene.create().await;
    let operator = Wallet::new();
    operator.save(&scene.path("operator.json")).unwrap();
    scene.rpc.airdrop(operator.address(), Lamports(5_000_000_000)).await.unwrap();
    let mut train = command();
    train.current_dir(scene.folder.path()).arg("train");
    // Keys as providers put them into their URLs, and an operator who wants to see everything.
    let [(_, rpc), (_, ws)] = scene.chain.variables();
    train.env("RPC", format!("{rpc}/{KEY}?api-key={KEY}")).env("WS_RPC", format!("{ws}/{KEY}?api-key={KEY}"));
    let verbose =
        ["psyche_chain", "solana_pubsub_client", "solana_rpc_client", "tungstenite", "reqwest", "hyper", "hyper_util"];
    train.env("RUST_LOG", format!("info,{}", verbose.map(|name| format!("{name}=trace")).join(",")));
    let log = scene.path("node.log");
    train.env("RUN_ID", RUN).env("WALLET_PRIVATE_KEY_PATH", "operator.json").env("DATA_PATH", "tokens/tokens.bin");
    train.env("P2P_BIND", "127.0.0.1").stdout(Stdio::null());
    train.stderr(std::fs::File::create(&log).unwrap());
    let mut node = tokio::process::Command::from(train).kill_on_drop(true).spawn().unwrap();
    scene.joined(first.account, operator.address()).await;

    scene.pause().await;
    ops::close_run(&scene.rpc, &scene.owner, &scene.run_id, None).await.unwrap();
    let second = scene.create().await;
    assert_ne!(second.account, first.account);
    scene.joined(second.account, operator.address()).await;

    scene.pause().await;
    let update = RunUpdate { client_version: Some("9.9.9".into()), ..RunUpdate::default() };
    ops::update_run(&scene.rpc, &scene.owner, &scene.run_id, &update).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(60), node.wait()).await;
    let ended = ended.expect("the node leaves").unwrap();
    let log = std::fs::read_to_string(log).unwrap();
    assert_eq!(ended.code(), Some(10), "{log}");
    let leak = log.lines().find(|line| line.contains(KEY));
    assert_eq!(leak, None, "of a URL only the host is shown");
    assert!(log.contains("127.0.0.1"), "{log}");
    assert!(log.contains("wants client version \"9.9.9\"") && log.contains("closed and created anew"), "{log}");
}
