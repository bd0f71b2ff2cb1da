//! What stands before a node starts: hosts on the bridge, the chain and its providers, wallets, and a run that anybody may join.
//! All of it by the commands that an owner types.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use super::bridge::{Bridge, Counts, Shape};
use super::hosts::Host;
use super::providers::{CHAIN_PORTS, Providers};
use super::scenario::{RUN_ID, Scenario, VOCABULARY};
use super::wire::Wire;

/// The port on which every node listens for peers, on its own host.
const P2P_PORT: u16 = 4001;
/// What is trained on.
const TEXT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../data/text/kjv.txt");

/// Everything around the nodes. Dropping it ends the chain.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) folder: PathBuf,
    /// The chain's host, then one for each node.
    pub(crate) hosts: Vec<Host>,
    pub(crate) providers: Providers,
    program: PathBuf,
    chain: Child,
    wire: Option<Wire>,
    peers: Vec<String>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.chain.kill());
        drop(self.chain.wait());
    }
}

impl Stage {
    /// Builds it in `folder`, which must be empty or not there.
    ///
    /// # Errors
    /// If a part of it can't be made.
    pub(crate) fn new(scenario: &Scenario, program: &Path, folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("failed to create {}", folder.display()))?;
        let shape = scenario.shape;
        let rate = |port| (port > 0).then_some(shape.rate_bits);
        let hosts: Vec<Host> = (0..=scenario.nodes).map(|port| Host::new(port, rate(port))).collect::<Result<_>>()?;
        let wire = wire(&hosts, shape, scenario.seed)?;
        let chain = start_chain(&hosts[0], program, scenario.chain_speed)?;
        let providers = Providers::start(&hosts[0])?;
        let (program, folder) = (program.to_owned(), folder.to_owned());
        let mut stage = Self { folder, hosts, providers, program, chain, wire: Some(wire), peers: Vec::new() };
        stage.prepare(scenario)?;
        Ok(stage)
    }

    /// Ends the bridge and tells what it carried.
    pub(crate) fn end(mut self) -> Result<Counts> {
        self.wire.take().context("the bridge has ended already")?.end()
    }

    pub(crate) fn node_folder(&self, node: usize) -> PathBuf {
        self.folder.join(format!("node-{}", node + 1))
    }

    /// The command that starts `node` on its host.
    pub(crate) fn train(&self, node: usize) -> Command {
        let folder = self.node_folder(node);
        let mut command = clean(&self.program);
        command.arg("train").envs(self.providers.variables()).current_dir(&folder);
        let others = self.peers.iter().enumerate().filter(|(other, _)| *other != node);
        let bootstrap: Vec<_> = others.map(|(_, address)| address.as_str()).collect();
        let path = |path: PathBuf| path.into_os_string();
        let listen = self.hosts[node + 1].ip.to_string();
        command
            .env("RUN_ID", RUN_ID)
            .env("WALLET_PRIVATE_KEY_PATH", path(folder.join("wallet.json")))
            .env("DEVICE", "cpu:1")
            .env("OMP_NUM_THREADS", "1")
            .env("MICRO_BATCH_SIZE", "4")
            .env("P2P_BIND", listen)
            .env("P2P_PORT", P2P_PORT.to_string())
            .env("BOOTSTRAP_PEERS", bootstrap.join(","))
            .env("DATA_DIR", path(folder.join("data")))
            .env("DATA_PATH", path(self.folder.join("tokens/tokens.bin")))
            .env("MODELS_DIR", &self.folder);
        self.hosts[node + 1].bind(&mut command);
        command
    }

    /// Runs a command line beside the chain and returns what it prints.
    fn good(&self, line: &str) -> Result<String> {
        let mut command = clean(&self.program);
        command.args(line.split_whitespace()).current_dir(&self.folder);
        let [rpc, ws] = CHAIN_PORTS;
        command.env("RPC", format!("http://127.0.0.1:{rpc}")).env("WS_RPC", format!("ws://127.0.0.1:{ws}"));
        command.env("RUN_ID", RUN_ID);
        self.hosts[0].bind(&mut command);
        let output = command.output().with_context(|| format!("failed to run {}", self.program.display()))?;
        ensure!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn prepare(&mut self, scenario: &Scenario) -> Result<()> {
        let write = |name: &str, text: &str| {
            let path = self.folder.join(name);
            std::fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))
        };
        write("config.json", &scenario.model_config())?;
        write("run.toml", &scenario.run_config())?;
        self.good(&format!("tokenize --text {TEXT} --vocab-size {VOCABULARY} --out tokens"))?;
        self.good("init-model --config config.json --seed 1 --out model")?;
        let mut wallets = vec!["owner.json".to_owned()];
        for node in 1..=scenario.nodes {
            std::fs::create_dir_all(self.folder.join(format!("node-{node}/data")))?;
            wallets.push(format!("node-{node}/wallet.json"));
        }
        let mut peers = Vec::new();
        for (wallet, host) in wallets.iter().zip(&self.hosts) {
            self.good(&format!("wallet new --out {wallet}"))?;
            self.good(&format!("wallet airdrop --sol 20 --wallet-private-key-path {wallet}"))?;
            let peer = self.good(&format!("show-static-p2p-identity --wallet-private-key-path {wallet}"))?;
            peers.push(format!("/ip4/{}/udp/{P2P_PORT}/quic-v1/p2p/{peer}", host.ip));
        }
        self.peers = peers.split_off(1);
        for line in [
            "join-authorization-create --permissionless",
            "create-run",
            "update-config --config-path run.toml",
            "set-paused --resume",
        ] {
            self.good(&format!("{line} --wallet-private-key-path owner.json"))?;
        }
        Ok(())
    }
}

fn wire(hosts: &[Host], shape: Shape, seed: u64) -> Result<Wire> {
    let near: Vec<bool> = (0..hosts.len()).map(|port| port == 0).collect();
    let taps = hosts.iter().map(|host| host.tap.try_clone()).collect::<Result<_, _>>()?;
    Wire::start(taps, Bridge::new(&near, shape, seed))
}

fn start_chain(host: &Host, program: &Path, speed: f64) -> Result<Child> {
    let [rpc, ws] = CHAIN_PORTS.map(|port| port.to_string());
    let mut command = clean(program);
    command.args(["localnet", "--rpc-port", &rpc, "--ws-port", &ws, "--chain-speed", &speed.to_string()]);
    host.bind(&mut command);
    let mut chain = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().context("failed to start the chain")?;
    let lines = chain.stdout.take().map(BufReader::new).into_iter().flat_map(BufRead::lines);
    let told = lines.take(2).filter(|line| line.as_ref().is_ok_and(|line| line.contains("RPC="))).count();
    if told < 2 {
        drop(chain.kill());
        bail!("the local chain did not start: {:?}", chain.wait());
    }
    Ok(chain)
}

/// `program`, without this process's variables but those that every program needs.
fn clean(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("OMP_WAIT_POLICY", "passive").stdin(Stdio::null());
    for name in ["PATH", "HOME", "LD_LIBRARY_PATH", "TMPDIR", "RUST_LOG", "RUST_BACKTRACE"] {
        command.envs(std::env::var_os(name).map(|value| (name, value)));
    }
    command
}
