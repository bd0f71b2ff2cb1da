//! A chain, a run on it, two providers in front of it, and a node's way to both.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use psyche_chain::ops::{self, NewRun, RunUpdate};
use psyche_chain::{EndpointPair, ProgramIds, Rpc, RpcConfig, RunInfo, Wallet, WatchConfig};
use psyche_localnet::{Airdrop, Localnet, LocalnetConfig, Program};
use psyche_messages::{Address, Backoff, RunId};
use psyche_protocol::layout::{Config, Progress};
use psyche_tests::tiny_model;

use crate::proxy::{Endpoint, Faults, History, Link, Recording};

const SOL: u64 = 1_000_000_000;
pub(crate) const EVERYONE: Address = Address([0; 32]);
pub(crate) const VERSION: &str = "1.2.3";

/// How fast the chain is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Chain milliseconds per slot.
    pub(crate) slot_ms: u64,
    /// Chain seconds per real second.
    pub(crate) speed: f64,
}

/// Slots of 100 ms, and 3 chain seconds per real one.
pub(crate) const STEADY: Pace = Pace { slot_ms: 300, speed: 3.0 };
/// As many chain seconds as a test can have: a minute takes ten seconds.
pub(crate) const FAST: Pace = Pace { slot_ms: 300, speed: 6.0 };
/// As many slots as a test can have: 150 of them take three seconds.
pub(crate) const MANY_SLOTS: Pace = Pace { slot_ms: 60, speed: 3.0 };

/// See the module.
pub(crate) struct Stage {
    pub(crate) chain: Localnet,
    pub(crate) pace: Pace,
    pub(crate) owner: Wallet,
    pub(crate) clients: Vec<Wallet>,
    pub(crate) run: RunInfo,
    /// Who lets everybody in.
    pub(crate) grant: Address,
    /// Past every fault.
    pub(crate) direct: Rpc,
    /// The providers, the preferred one first.
    pub(crate) endpoints: [Endpoint; 2],
    /// The node's way, through both providers.
    pub(crate) rpc: Rpc,
    pub(crate) history: Arc<History>,
}

impl Stage {
    /// A run of `clients` clients, which is ready and paused.
    pub(crate) async fn start(pace: Pace, clients: usize) -> Result<Self> {
        let owner = Wallet::new();
        let clients: Vec<Wallet> = (0..clients).map(|_| Wallet::new()).collect();
        let chain = chain(pace, std::iter::once(&owner).chain(&clients)).await?;
        let direct = client(vec![EndpointPair::parse(&chain.rpc_url(), &chain.ws_url())?])?;
        let run_id: RunId = "faults".parse()?;
        let new = NewRun { run_id: run_id.clone(), client_version: VERSION.into(), join_authority: None, treasury: None };
        let run = ops::create_run(&direct, &owner, &new).await?;
        let grant = ops::authorization_create(&direct, &owner, EVERYONE).await?;
        configure(&direct, &owner, &run_id, u16::try_from(clients.len())?).await?;
        let history = Arc::new(History::default());
        let (http, ws) = (chain.rpc_address(), chain.ws_address());
        let endpoints = [Endpoint::start(http, ws, &history).await?, Endpoint::start(http, ws, &history).await?];
        let rpc = client(vec![endpoints[0].pair()?, endpoints[1].pair()?])?;
        Ok(Self { chain, pace, owner, clients, run, grant, direct, endpoints, rpc, history })
    }

    /// The run begins to wait for its members.
    pub(crate) async fn resume(&self) -> Result<()> {
        ops::set_paused(&self.direct, &self.owner, &self.run.run_id, false).await?;
        Ok(())
    }

    /// Remembers the run's accounts, for providers that lag.
    pub(crate) fn record(&self) -> Recording {
        let clock: Address = "SysvarC1ock11111111111111111111111111111111".parse().unwrap();
        let mut accounts = vec![self.run.account, self.run.instance, self.grant, clock];
        accounts.extend(self.clients.iter().map(Wallet::address));
        self.history.record(self.chain.rpc_address(), &accounts, Duration::from_millis(60))
    }

    /// Both websockets behave like this from now on.
    pub(crate) async fn sockets(&self, link: Link) {
        for endpoint in &self.endpoints {
            endpoint.ws.be(Faults::link(link)).await;
        }
    }

    /// Both providers behave like this from now on.
    pub(crate) async fn all(&self, faults: Faults) {
        for endpoint in &self.endpoints {
            endpoint.be(faults.clone()).await;
        }
    }

    /// The chain's newest slot.
    pub(crate) async fn slot(&self) -> Result<u64> {
        Ok(self.direct.clock().await?.0.0)
    }

    /// Waits until so many chain seconds have passed.
    pub(crate) async fn pass(&self, seconds: u64) -> Result<()> {
        let end = self.slot().await? + seconds * 1_000 / self.pace.slot_ms;
        self.reach(end).await
    }

    /// Waits until the chain has come to `slot`.
    pub(crate) async fn reach(&self, slot: u64) -> Result<()> {
        while self.slot().await? < slot {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    pub(crate) async fn stop(self) -> Result<()> {
        Ok(self.chain.stop().await?)
    }
}

/// As long as a node's patience is in chain seconds by default, the chain's clock being fast.
pub(crate) fn watch_config(pace: Pace) -> WatchConfig {
    let default = WatchConfig::default();
    let fast = |duration: Duration| duration.div_f64(pace.speed);
    WatchConfig {
        silence: fast(default.silence),
        connect_timeout: fast(default.connect_timeout),
        poll: fast(default.poll),
        refresh: fast(default.refresh),
        read_gap: fast(default.read_gap),
        read_patience: fast(default.read_patience),
        // The local chain's server looks for news every 50 ms, however fast its clock is.
        hold: Duration::from_millis(400),
        backoff: Backoff::new(Duration::from_millis(80), Duration::from_secs(10), 200, 50).unwrap(),
        proven_after: fast(default.proven_after),
        ..default
    }
}

/// A client with short time-outs.
pub(crate) fn client(endpoints: Vec<EndpointPair>) -> Result<Rpc> {
    let mut config = RpcConfig::new(endpoints);
    config.connect_timeout = Duration::from_secs(1);
    config.request_timeout = Duration::from_secs(3);
    config.cooldown = Duration::from_millis(400);
    config.cooldown_max = Duration::from_secs(2);
    config.survey_every = Duration::from_millis(700);
    Ok(Rpc::new(config)?)
}

async fn chain(pace: Pace, wallets: impl Iterator<Item = &Wallet>) -> Result<Localnet> {
    let ids = ProgramIds::default();
    let mut programs = Vec::new();
    for (id, name) in [(ids.coordinator, "coordinator"), (ids.authorizer, "authorizer")] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../programs/elf").join(format!("{name}.so"));
        programs.push(Program { id: id.0, elf: std::fs::read(&path).with_context(|| format!("{}", path.display()))? });
    }
    let airdrops = wallets.map(|wallet| Airdrop { address: wallet.address().0, lamports: 100 * SOL }).collect();
    let Pace { slot_ms: slot_time_ms, speed: chain_speed } = pace;
    Ok(Localnet::start(LocalnetConfig { slot_time_ms, chain_speed, programs, airdrops, ..Default::default() }).await?)
}

/// Gives a paused run its rules: rounds of a few seconds, epochs of a few rounds, no end in sight.
pub(crate) async fn configure(rpc: &Rpc, owner: &Wallet, run_id: &RunId, clients: u16) -> Result<()> {
    let config = Config {
        warmup_time: 12,
        cooldown_time: 1,
        max_round_train_time: 12,
        round_witness_time: 1,
        global_batch_size_warmup_tokens: 0,
        epoch_time: 13,
        total_steps: 10_000,
        init_min_clients: clients,
        min_clients: clients,
        witness_nodes: clients,
        global_batch_size_start: 4,
        global_batch_size_end: 4,
        verification_percent: 0,
        waiting_for_members_extra_time: 1,
    };
    let (config, model, progress) = (Some(config), Some(tiny_model()), Some(Progress::new(0, 1, 0)));
    let update = RunUpdate { config, model, progress, ..RunUpdate::default() };
    ensure!(!ops::update_run(rpc, owner, run_id, &update).await?.is_empty());
    Ok(())
}
