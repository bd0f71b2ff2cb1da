//! Starts everything, in the order of dependence.

use std::fs::{File, TryLockError};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, Context};
use psyche_chain::{Rpc, RpcConfig, RunInfo, Wallet, WatchConfig};
use psyche_data::TokenSource;
use psyche_gpu::devices::Placement;
use psyche_gpu::snapshot::{SnapshotStore, StoreSettings};
use psyche_messages::{Address, Backoff, ChainTime, ManifestAnnounced, NodeEvent, PeerKey, RunId, Secret, Step};
use psyche_net::{EventReceiver, NetConfig, NetHandle};
use psyche_protocol::layout::CoordinatorAccount;
use tokio::sync::{Mutex, mpsc};

use super::thread::{Keep, NetRuntime, Threads};
use super::{Actors, Drill, End, NodeError, checks};
use crate::config::NodeConfig;
use crate::engine::{Engine, EngineConfig, Patience};
use crate::event_log::{EVENT_LOG_FILE, EventLog};
use crate::gossip::{GossipLinks, GradientGossip};
use crate::rewards::{RewardsActor, RewardsLinks};
use crate::rpc::{ActionContext, RpcSupervisor};
use crate::run::{
    self, CheckpointFolder, DeviceParts, DeviceQueue, Links, ManifestShelf, PlanError, RunActor, RunLink, RunPlan, UpdateLog,
};
use crate::supervisor::{GaveUp, RestartPolicy, Supervised};
use crate::telemetry::{self, Pulse, Sources};
use crate::trainer::{DeviceMesh, DeviceSettings, TrainerWorker};
use crate::watcher::{CoordinatorWatcher, WatcherLinks};

/// What the peer key is derived for; changes the key of every node if it changes.
const PEER_KEY_DOMAIN: &str = "psyche-solana-client peer identity v1";

/// Largest file of a snapshot, in bytes: what a joiner fetches from one peer at a time. The same on every node, so that all
/// of them serve the same files.
const SNAPSHOT_FILE_BYTES_MAX: u64 = 256 << 20;

/// Restarts of one actor within ten minutes that are not yet a reason to give up.
const RESTARTS_MAX: usize = 5;

const RESTART_BACKOFF: Backoff = match Backoff::new(Duration::from_millis(500), Duration::from_secs(30), 200, 25) {
    Ok(backoff) => backoff,
    Err(_) => panic!("a constant schedule must be valid"),
};

const POLICY: RestartPolicy =
    RestartPolicy { restarts_max: RESTARTS_MAX, window: Duration::from_secs(600), backoff: RESTART_BACKOFF };

/// What a started node shows its host.
pub(super) struct Shared {
    pub(super) run_id: RunId,
    pub(super) address: Address,
    pub(super) peer: PeerKey,
    pub(super) events: EventLog,
    pub(super) actors: Actors,
    pub(super) sources: Sources,
    pub(super) http: Option<SocketAddr>,
}

/// What is known before any actor runs.
struct Ground {
    rpc: Rpc,
    info: RunInfo,
    chain: ChainTime,
    plan: Arc<RunPlan>,
    net: NetHandle,
    net_events: Arc<Mutex<EventReceiver>>,
    events: EventLog,
    snapshots: Arc<SnapshotStore>,
    updates: Arc<Mutex<UpdateLog>>,
    own_updates: Option<(Step, Step)>,
    manifests: Arc<Mutex<ManifestShelf>>,
    own_manifests: Vec<ManifestAnnounced>,
    placement: Placement,
}

/// Starts a node in the current actix system.
pub(super) async fn start(
    config: NodeConfig,
    drill: Option<Drill>,
    threads: &Threads,
    runtime: &NetRuntime,
) -> Result<(Shared, Keep), NodeError> {
    let (fatal_sender, fatal) = mpsc::channel(1);
    let (finished_sender, finished) = mpsc::channel(1);
    // First of all: nobody is asked for anything by a node that has no devices, and CUDA must come before any tensor.
    let (machine, placement) = checks::devices(&config)?;
    let listener = telemetry::listen(config.metrics).map_err(NodeError::Metrics)?;
    let (events, lock) = prepare_folder(&config)?;
    let rpc = rpc_of(&config)?;
    checks::one_cluster(&rpc, &config).await?;
    let (info, view) = checks::run_of(&rpc, &config).await?;
    checks::may_take_part(&rpc, &config, &info, &view).await?;
    let plan = Arc::new(plan_of(&config, &view.account, info.account)?);
    checks::model_fits(&config, &plan, &machine, &placement)?;
    let tokens = TokenSource::open(&plan.token_source())?;
    let (_slot, chain) = rpc.clock().await?;
    let mut net = net_config(&config, info.account);
    net.payload_len = Some(payload_len(&plan));
    let (net, net_events) = runtime.start(net).await?;
    let snapshots = Arc::new(snapshots_of(&config, &info, &plan)?);
    let updates = config.data_dir.join("updates").join(info.account.to_string());
    let updates = UpdateLog::open(updates, net.clone()).await?;
    let manifests = config.data_dir.join("manifests").join(info.account.to_string());
    let manifests = ManifestShelf::open(&manifests, &config.wallet.address())?;
    let (own_manifests, manifests) = (manifests.kept(), Arc::new(Mutex::new(manifests)));
    let (own_updates, updates) = (updates.range(), Arc::new(Mutex::new(updates)));
    let net_events = Arc::new(Mutex::new(net_events));
    let ground = Ground {
        rpc,
        info,
        chain,
        plan,
        net,
        net_events,
        events,
        snapshots,
        updates,
        own_updates,
        manifests,
        own_manifests,
        placement,
    };
    let seats = ground.placement.seats.clone();
    let crew = Crew { config: &config, ground: &ground, drill, threads, fatal: fatal_sender };
    let (actors, devices, pulse) = crew.start(tokens, finished_sender)?;
    ground.events.report(NodeEvent::Started {
        address: config.wallet.address(),
        peer: ground.net.peer_key(),
        listen: ground.net.presence().listening,
        dp: config.mesh.dp,
        tp: config.mesh.tp,
    });
    let (address, peer) = (config.wallet.address(), ground.net.peer_key());
    let keep = Keep { finished, fatal, devices, net: ground.net.clone(), events: ground.events.clone(), lock };
    let sources = Sources {
        run_id: config.run_id.clone(),
        address,
        tally: ground.events.tally(),
        rpc: ground.rpc,
        net: ground.net,
        pulse,
        vitals: Arc::clone(&actors.vitals),
        since: Instant::now(),
    };
    let http = telemetry::start(&threads.arbiter()?, listener, config.otlp, seats, sources.clone(), &config.data_dir);
    Ok((Shared { run_id: config.run_id, address, peer, events: ground.events, actors, sources, http }, keep))
}

fn rpc_of(config: &NodeConfig) -> Result<Rpc, NodeError> {
    let mut rpc = RpcConfig::new(config.endpoints.clone());
    rpc.programs = config.programs;
    rpc.fee_floor_micro_lamports = config.fees.floor_micro_lamports;
    rpc.fee_ceiling_micro_lamports = config.fees.cap_micro_lamports;
    Ok(Rpc::new(rpc)?)
}

/// The run's snapshots: a folder that served another run before keeps that run's to itself.
fn snapshots_of(config: &NodeConfig, info: &RunInfo, plan: &RunPlan) -> Result<SnapshotStore, NodeError> {
    let source = Some(plan.checkpoint.clone());
    Ok(SnapshotStore::open(StoreSettings { source, ..snapshot_settings(config, info.account) })?)
}

fn snapshot_settings(config: &NodeConfig, run: Address) -> StoreSettings {
    StoreSettings {
        root: config.data_dir.join("snapshots").join(run.to_string()),
        run,
        keep: config.snapshots_kept,
        file_bytes_max: SNAPSHOT_FILE_BYTES_MAX,
        source: None,
    }
}

/// What the run `run` with the account `account` trains, as far as this machine knows: from the checkpoint that it names, or
/// from this node's own newest snapshot.
///
/// # Errors
/// [`PlanError`].
pub fn plan_of(config: &NodeConfig, account: &CoordinatorAccount, run: Address) -> Result<RunPlan, PlanError> {
    let newest = || SnapshotStore::look(snapshot_settings(config, run)).newest().ok().flatten().map(|stored| stored.folder);
    RunPlan::of(account, &config.models_dir, config.data_path.as_deref(), newest)
}

/// Makes the data folder this node's alone; the lock goes with the file that is returned.
fn prepare_folder(config: &NodeConfig) -> Result<(EventLog, File), NodeError> {
    let path = || config.data_dir.display().to_string();
    let refused = |source| NodeError::Folder { path: path(), source };
    std::fs::create_dir_all(&config.data_dir).map_err(refused)?;
    let lock = File::create(config.data_dir.join("lock")).map_err(refused)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(NodeError::FolderInUse { path: path() }),
        Err(TryLockError::Error(source)) => return Err(refused(source)),
    }
    let events = EventLog::open(Some(&config.data_dir.join(EVENT_LOG_FILE))).map_err(refused)?;
    Ok((events, lock))
}

/// Seed of the key by which peers of run `run_id` know a node with this wallet, where the operator gives it no other.
#[must_use]
pub fn peer_seed(wallet: &Wallet, run_id: &RunId) -> Secret<[u8; 32]> {
    wallet.derive_seed(PEER_KEY_DOMAIN, run_id)
}

/// How a node with this configuration takes part in the network of the run with the coordinator account `run`.
#[must_use]
pub fn net_config(config: &NodeConfig, run: Address) -> NetConfig {
    let seed = config.identity.clone().unwrap_or_else(|| peer_seed(&config.wallet, &config.run_id));
    let port = config.p2p.port;
    let mut net = NetConfig::new(seed, run, config.data_dir.join("blobs"), port);
    let host = match config.p2p.bind {
        std::net::IpAddr::V4(ip) => format!("/ip4/{ip}"),
        std::net::IpAddr::V6(ip) => format!("/ip6/{ip}"),
    };
    net.listen = vec![format!("{host}/udp/{port}/quic-v1"), format!("{host}/tcp/{port}")];
    net.bootstrap.clone_from(&config.p2p.bootstrap);
    net.relays.clone_from(&config.p2p.relays);
    net.external.clone_from(&config.p2p.external);
    net.serves_relay = config.p2p.serves_relay;
    net
}

/// The one length of every payload of the run.
fn payload_len(plan: &RunPlan) -> u32 {
    u32::try_from(plan.layout.payload_len()).unwrap_or(u32::MAX)
}

/// What actors are started with.
struct Crew<'a> {
    config: &'a NodeConfig,
    ground: &'a Ground,
    drill: Option<Drill>,
    threads: &'a Threads,
    fatal: mpsc::Sender<GaveUp>,
}

impl Crew<'_> {
    /// An actor on a thread of its own, made anew by `make` as often as its budget allows.
    fn one<A, M>(&self, name: &'static str, make: M) -> Result<Supervised<A>, NodeError>
    where
        A: Actor<Context = Context<A>>,
        M: Fn() -> A + Clone + Send + Sync + 'static,
    {
        let arbiter = self.threads.arbiter()?;
        let factory = move || {
            let make = make.clone();
            A::start_in_arbiter(&arbiter, move |_| make())
        };
        Ok(Supervised::start(name, POLICY, factory, self.fatal.clone()))
    }

    fn start(&self, tokens: TokenSource, finished: mpsc::Sender<End>) -> Result<(Actors, DeviceQueue, Pulse), NodeError> {
        let Self { config, ground, .. } = self;
        let (bind_run, run_link) = RunLink::unbound();
        let rpc = self.rpc()?;
        let gossip = self.gossip(&run_link)?;
        let rewards = self.rewards()?;
        let workers = self.workers()?;
        let trainers = workers.clone().into();
        let mut vitals: Vec<_> = workers.iter().map(Supervised::vitals).collect();
        vitals.extend([rpc.vitals(), gossip.vitals(), rewards.vitals()]);
        let settings = DeviceSettings { shape: config.mesh, placement: ground.placement.clone(), compute: config.compute };
        let devices = DeviceQueue::start(DeviceParts {
            mesh: DeviceMesh::new(workers, settings),
            plan: Arc::clone(&ground.plan),
            data: tokens,
            gossip: gossip.clone(),
            snapshots: Arc::clone(&ground.snapshots),
            run: run_link.clone(),
        });
        let mut pulse = vec![Pulse::of(&rpc), Pulse::of(&gossip), Pulse::of(&rewards)];
        let checkpoints = config.checkpoint_dir.clone().unwrap_or_else(|| config.data_dir.join("checkpoints"));
        let links = Links {
            rpc: rpc.clone(),
            rewards: rewards.clone(),
            gossip,
            devices: devices.clone(),
            net: ground.net.clone(),
            checkpoints: CheckpointFolder::new(
                // A folder that serves several runs keeps each one's to itself.
                checkpoints.join(ground.info.account.to_string()),
                config.snapshots_kept,
                Arc::clone(&ground.snapshots),
            ),
            updates: Arc::clone(&ground.updates),
            manifests: Arc::clone(&ground.manifests),
            plan: Arc::clone(&ground.plan),
            events: ground.events.clone(),
            finished,
        };
        let run = self.run(links)?;
        bind_run.send_replace(Some(run.clone()));
        let watcher = self.watcher(&run_link, &rewards)?;
        vitals.extend([run.vitals(), watcher.vitals()]);
        pulse.extend([Pulse::of(&run), Pulse::of(&watcher)]);
        Ok((Actors { run, rewards, rpc, watcher, trainers, vitals: vitals.into() }, devices, Pulse::new(pulse)))
    }

    fn rpc(&self) -> Result<Supervised<RpcSupervisor>, NodeError> {
        let context = ActionContext::new(self.config, &self.ground.info, self.ground.net.peer_key());
        let (rpc, events) = (self.ground.rpc.clone(), self.ground.events.clone());
        self.one("rpc", move || RpcSupervisor::new(rpc.clone(), context.clone(), events.clone()))
    }

    fn gossip(&self, run: &RunLink) -> Result<Supervised<GradientGossip>, NodeError> {
        let (net, events) = (self.ground.net.clone(), Arc::clone(&self.ground.net_events));
        let links = GossipLinks { net, events, run: run.clone(), drill: self.drill.clone() };
        self.one("gossip", move || GradientGossip::new(links.clone()))
    }

    fn rewards(&self) -> Result<Supervised<RewardsActor>, NodeError> {
        let links = RewardsLinks {
            rpc: self.ground.rpc.clone(),
            wallet: self.config.wallet.clone(),
            run: self.ground.info.clone(),
            policy: self.config.claim,
            events: self.ground.events.clone(),
        };
        self.one("rewards", move || RewardsActor::new(links.clone()))
    }

    fn workers(&self) -> Result<Vec<Supervised<TrainerWorker>>, NodeError> {
        let ranks = usize::from(self.config.mesh.dp) * usize::from(self.config.mesh.tp);
        let worker = |_| {
            let arbiter = self.threads.arbiter()?;
            Ok(Supervised::start("trainer", POLICY, move || TrainerWorker::start(&arbiter), self.fatal.clone()))
        };
        (0..ranks).map(worker).collect()
    }

    fn run(&self, links: Links) -> Result<Supervised<RunActor>, NodeError> {
        let Self { config, ground, .. } = self;
        // As far as the manifest tells; its files are verified when they are loaded.
        let disk = ground.snapshots.newest().unwrap_or_else(|error| {
            tracing::warn!(actor = "node", error = %crate::chain_of(&error), "the snapshots on disk can't be read");
            None
        });
        let engine = EngineConfig {
            me: config.wallet.address(),
            peer: ground.net.peer_key(),
            run_tag: ground.info.account,
            payload_len: payload_len(&ground.plan),
            manifest_len_max: u32::try_from(psyche_net::wire::MANIFEST_BYTES_MAX).unwrap_or(u32::MAX),
            index_len_max: u32::try_from(psyche_net::wire::INDEX_BYTES_MAX).unwrap_or(u32::MAX),
            disk: disk.as_ref().map(run::on_disk),
            keeps_checkpoints: config.checkpoint_dir.is_some(),
            checkpoint_repo: config.checkpoint_repo,
            updates: ground.own_updates,
            manifests: ground.own_manifests.clone(),
            updates_len_max: u32::try_from(psyche_net::wire::UPDATES_BYTES_MAX).unwrap_or(u32::MAX),
            patience: Patience::default(),
        };
        let chain = ground.chain;
        self.one("run", move || RunActor::new(Engine::new(engine.clone()), links.clone(), chain))
    }

    fn watcher(&self, run: &RunLink, rewards: &Supervised<RewardsActor>) -> Result<Supervised<CoordinatorWatcher>, NodeError> {
        let links = WatcherLinks {
            rpc: self.ground.rpc.clone(),
            info: self.ground.info.clone(),
            watch: WatchConfig::default(),
            run: run.clone(),
            rewards: rewards.clone(),
            events: self.ground.events.clone(),
        };
        self.one("watcher", move || CoordinatorWatcher::new(links.clone()))
    }
}
