//! The running chain: one thread that owns the engine and its runtime, and a handle that starts and stops it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, Sender};
use solana_loader_v3_interface::get_program_data_address;
use solana_loader_v3_interface::state::UpgradeableLoaderState;
use solana_pubkey::Pubkey;
use surfpool_core::error::SurfpoolResult;
use surfpool_core::runloops::start_local_surfnet_runloop;
use surfpool_core::surfnet::GeyserEvent;
use surfpool_core::surfnet::locker::SurfnetSvmLocker;
use surfpool_core::surfnet::svm::{SurfnetSvm, SurfnetSvmConfig};
use surfpool_types::{BlockProductionMode, RpcConfig, SimnetCommand, SimnetConfig, SimnetEvent, SurfpoolConfig};
use tokio::sync::{mpsc, oneshot};

use crate::config::{Airdrop, LocalnetConfig, Program, free_listener, port_of};
use crate::error::LocalnetError;
use crate::front::{self, AccountSlots};

/// A loaded machine and a long ledger took 12 s once.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// The servers close within milliseconds; a ledger's last checkpoint may take a second.
const STOPPED_WITHIN: Duration = Duration::from_secs(15);
/// How often it is looked whether the ports are free.
const PORT_POLL: Duration = Duration::from_millis(10);
/// Requests that may wait for the engine; RPC threads wait when it is full.
const COMMANDS_MAX: usize = 1_024;
/// Where the ledger keeps the chain's clock, beside the engine's own "latest_slot".
const CLOCK_KEY: &str = "psyche_clock_ms";
/// Where the ledger keeps when the chain was founded, in nanoseconds of the machine's clock.
const FOUNDED_KEY: &str = "psyche_founded_ns";
/// Where the engine looks for the slot to go on from.
const SLOT_KEY: &str = "latest_slot";

/// A running local chain. Dropping it stops it without waiting.
#[derive(Debug)]
pub struct Localnet {
    rpc: SocketAddr,
    ws: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    ended: Option<oneshot::Receiver<Result<(), LocalnetError>>>,
}

impl Localnet {
    /// Starts a chain and waits until both of its servers answer.
    ///
    /// # Errors
    /// [`LocalnetError`] for a configuration that can't work, a taken port, an unreadable ledger, or a program that is no
    /// SBF ELF.
    pub async fn start(config: LocalnetConfig) -> Result<Self, LocalnetError> {
        let host = config.host()?;
        let real_slot_ms = config.real_slot_ms()?;
        if let Some(folder) = config.ledger.as_deref().and_then(Path::parent) {
            let refused = |source| LocalnetError::Ledger { path: folder.to_path_buf(), source };
            std::fs::create_dir_all(folder).map_err(refused)?;
        }
        let (rpc_listener, ws_listener) = config.listeners(host)?;
        let (rpc_port, ws_port) = (port_of(&rpc_listener)?, port_of(&ws_listener)?);
        // The engine binds by number, so its port is free again now; the websocket front keeps its own.
        drop(rpc_listener);
        let (stop, stopped) = oneshot::channel();
        let (ready, mut readiness) = mpsc::channel(2);
        let (end, ended) = oneshot::channel();
        let engine = Engine { config, host, rpc_port, ws_listener, real_slot_ms };
        let spawned = thread::Builder::new().name("localnet".into()).spawn(move || {
            let result = engine.run(stopped, &ready);
            if let Err(error) = &result {
                tracing::debug!(%error, "local chain ended");
            }
            // Nobody waits any more where the handle is gone.
            let _unheard = end.send(result);
        });
        spawned.map_err(|error| LocalnetError::Engine { reason: error.to_string() })?;
        let mut chain = Self {
            rpc: SocketAddr::new(reachable(host), rpc_port),
            ws: SocketAddr::new(reachable(host), ws_port),
            stop: Some(stop),
            ended: Some(ended),
        };
        match tokio::time::timeout(READY_WITHIN, readiness.recv()).await {
            Err(_elapsed) => Err(LocalnetError::NotReady { after: READY_WITHIN }),
            Ok(Some(())) => Ok(chain),
            // The engine ended before it was ready: its result says why.
            Ok(None) => match chain.wait_for_end().await {
                Ok(()) => Err(LocalnetError::Engine { reason: "it ended before it was ready".into() }),
                Err(error) => Err(error),
            },
        }
    }

    /// Where the JSON-RPC server answers, as an http URL.
    #[must_use]
    pub fn rpc_url(&self) -> String {
        format!("http://{}", self.rpc)
    }

    /// Where the WebSocket server answers, as a ws URL.
    #[must_use]
    pub fn ws_url(&self) -> String {
        format!("ws://{}", self.ws)
    }

    /// Where the JSON-RPC server listens.
    #[must_use]
    pub const fn rpc_address(&self) -> SocketAddr {
        self.rpc
    }

    /// Where the WebSocket server listens.
    #[must_use]
    pub const fn ws_address(&self) -> SocketAddr {
        self.ws
    }

    /// Waits until the chain ends by itself, which it does only when its engine fails.
    ///
    /// # Errors
    /// What the engine failed of.
    pub async fn wait_for_end(&mut self) -> Result<(), LocalnetError> {
        match self.ended.take() {
            None => Ok(()),
            Some(ended) => {
                ended.await.unwrap_or_else(|_gone| Err(LocalnetError::Engine { reason: "its thread panicked".into() }))
            }
        }
    }

    /// Stops the chain, writes its ledger, and waits until both ports are free.
    ///
    /// # Errors
    /// [`LocalnetError::NotStopped`] if it does not come down, or what the engine failed of.
    pub async fn stop(mut self) -> Result<(), LocalnetError> {
        let deadline = Instant::now() + STOPPED_WITHIN;
        self.signal_stop();
        let ended = tokio::time::timeout(STOPPED_WITHIN, self.wait_for_end()).await;
        ended.map_err(|_elapsed| LocalnetError::NotStopped { after: STOPPED_WITHIN })??;
        for address in [self.rpc, self.ws] {
            while TcpStream::connect(address).is_ok() {
                if Instant::now() > deadline {
                    return Err(LocalnetError::NotStopped { after: STOPPED_WITHIN });
                }
                tokio::time::sleep(PORT_POLL).await;
            }
        }
        Ok(())
    }

    fn signal_stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // An engine that has ended already no longer listens.
            let _unheard = stop.send(());
        }
    }
}

impl Drop for Localnet {
    fn drop(&mut self) {
        self.signal_stop();
    }
}

/// What the engine's thread needs.
struct Engine {
    config: LocalnetConfig,
    host: IpAddr,
    rpc_port: u16,
    ws_listener: TcpListener,
    real_slot_ms: u64,
}

impl Engine {
    fn run(self, stopped: oneshot::Receiver<()>, ready: &mpsc::Sender<()>) -> Result<(), LocalnetError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("localnet-worker")
            .enable_all()
            .build()
            .map_err(|error| LocalnetError::Engine { reason: error.to_string() })?;
        let result = runtime.block_on(self.serve(stopped, ready));
        runtime.shutdown_timeout(Duration::from_secs(1));
        result
    }

    async fn serve(self, stopped: oneshot::Receiver<()>, ready: &mpsc::Sender<()>) -> Result<(), LocalnetError> {
        let (svm, events, geyser) = self.open()?;
        let (slots, geyser) = AccountSlots::between(geyser);
        let slots = Arc::new(slots);
        front::keep_reading(Arc::clone(&slots))?;
        let locker = SurfnetSvmLocker::new(svm);
        let drained = spawn_drain(events, ready.clone())?;
        for program in &self.config.programs {
            place(&locker, program).await?;
        }
        for airdrop in &self.config.airdrops {
            fund(&locker, *airdrop).await?;
        }
        let (commands, command_queue) = crossbeam_channel::bounded(COMMANDS_MAX);
        let stopper = tokio::spawn(stop_on(stopped, locker.clone(), commands.clone()));
        let inner_ws_port = port_of(&free_listener(self.host)?)?;
        let surfpool = self.surfpool(inner_ws_port);
        let front = self.front(inner_ws_port, slots)?;
        let result = start_local_surfnet_runloop(locker, surfpool, commands, command_queue, geyser).await;
        front.abort();
        stopper.abort();
        drop(drained);
        result.map_err(|error| LocalnetError::Engine { reason: error.to_string() })
    }

    /// The engine's clock thread ticks by [`SimnetConfig::slot_time`], its chain clock advances by
    /// [`SurfnetSvmConfig::slot_time`] per tick: that they differ is what makes the chain's clock fast.
    fn surfpool(&self, ws_port: u16) -> SurfpoolConfig {
        SurfpoolConfig {
            simnets: vec![SimnetConfig {
                offline_mode: true,
                remote_rpc_url: None,
                slot_time: self.real_slot_ms,
                block_production_mode: BlockProductionMode::Clock,
                instruction_profiling_enabled: false,
                ..Default::default()
            }],
            rpc: RpcConfig { bind_host: bracketed(self.host), bind_port: self.rpc_port, ws_port, ..Default::default() },
            ..Default::default()
        }
    }

    /// Starts the websocket server that clients see, before the engine's on `inner_port`.
    fn front(self, inner_port: u16, slots: Arc<AccountSlots>) -> Result<tokio::task::JoinHandle<()>, LocalnetError> {
        let engine = |error: std::io::Error| LocalnetError::Engine { reason: error.to_string() };
        self.ws_listener.set_nonblocking(true).map_err(engine)?;
        let listener = tokio::net::TcpListener::from_std(self.ws_listener).map_err(engine)?;
        Ok(tokio::spawn(front::serve(listener, SocketAddr::new(reachable(self.host), inner_port), slots)))
    }

    fn open(&self) -> Result<(SurfnetSvm, Receiver<SimnetEvent>, Receiver<GeyserEvent>), LocalnetError> {
        let ledger = match &self.config.ledger {
            None => None,
            Some(path) => Some(path.to_str().ok_or_else(|| LocalnetError::Ledger {
                path: path.clone(),
                source: std::io::Error::new(std::io::ErrorKind::InvalidInput, "the path is not UTF-8"),
            })?),
        };
        let config = SurfnetSvmConfig {
            slot_time: self.config.slot_time_ms,
            instruction_profiling_enabled: false,
            ..Default::default()
        };
        let engine = |error: surfpool_core::error::SurfpoolError| LocalnetError::Engine { reason: error.to_string() };
        let (mut svm, events, geyser) = SurfnetSvm::new_with_db(ledger, config).map_err(engine)?;
        found(&mut svm)?;
        resume_clock(&mut svm)?;
        Ok((svm, events, geyser))
    }
}

/// Where one connects to what listens at `host`.
const fn reachable(host: IpAddr) -> IpAddr {
    if host.is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { host }
}

/// Brackets an IPv6 address, as the engine joins host and port with a colon.
fn bracketed(host: IpAddr) -> String {
    match host {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}

/// Gives each chain a genesis hash of its own, which a ledger keeps: the engine has one for all, and clients tell clusters
/// apart by it.
fn found(svm: &mut SurfnetSvm) -> Result<(), LocalnetError> {
    let engine = |error: surfpool_core::storage::StorageError| LocalnetError::Engine { reason: error.to_string() };
    let founded = match svm.slot_checkpoint.get(&FOUNDED_KEY.to_string()).map_err(engine)? {
        Some(founded) => founded,
        None => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let founded = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
            svm.slot_checkpoint.store(FOUNDED_KEY.to_string(), founded).map_err(engine)?;
            founded
        }
    };
    // Nothing but the hash depends on it.
    svm.genesis_config.creation_time = i64::try_from(founded).unwrap_or(i64::MAX);
    svm.cached_genesis_hash = Some(svm.genesis_config.hash());
    Ok(())
}

/// Lets the clock of a reopened ledger go on from where it was: the engine itself begins again at the machine's time, which
/// lies in the past of a chain whose clock ran fast, and programs would see time run backwards.
fn resume_clock(svm: &mut SurfnetSvm) -> Result<(), LocalnetError> {
    let engine = |error: surfpool_core::storage::StorageError| LocalnetError::Engine { reason: error.to_string() };
    let saved = svm.slot_checkpoint.get(&CLOCK_KEY.to_string()).map_err(engine)?;
    // After a crash the saved time is missing or old, but no program has seen a later one than the last block's.
    let blocks = svm.blocks.into_iter().map_err(engine)?;
    let last_block = blocks.map(|(_slot, block)| u64::try_from(block.block_time).unwrap_or(0).saturating_mul(1_000)).max();
    let Some(seen) = saved.max(last_block.map(|ms| ms.saturating_add(1_000))) else {
        return Ok(());
    };
    svm.updated_at = svm.updated_at.max(seen);
    let slots = svm.latest_epoch_info.absolute_slot.saturating_sub(svm.genesis_slot);
    svm.genesis_updated_at = svm.updated_at.saturating_sub(slots.saturating_mul(svm.slot_time));
    svm.reconstruct_sysvars();
    Ok(())
}

/// Waits for the word to stop, notes slot and clock in the ledger, and ends the engine's loop.
async fn stop_on(stopped: oneshot::Receiver<()>, locker: SurfnetSvmLocker, commands: Sender<SimnetCommand>) {
    // An error means that the handle is gone, which is a word to stop as well.
    let _word = stopped.await;
    {
        let mut svm = locker.0.write().await;
        let (slot, clock) = (svm.latest_epoch_info.absolute_slot, svm.updated_at);
        for (key, value) in [(SLOT_KEY, slot), (CLOCK_KEY, clock)] {
            if let Err(error) = svm.slot_checkpoint.store(key.to_string(), value) {
                tracing::warn!(%error, key, "ledger not updated at stop");
            }
        }
    }
    // The loop has ended already where nobody receives.
    let _heard = tokio::task::block_in_place(|| commands.send(SimnetCommand::Terminate(None)).is_ok());
}

/// Reads the engine's events for as long as there are any, says when the chain is up, and logs the rest.
fn spawn_drain(events: Receiver<SimnetEvent>, ready: mpsc::Sender<()>) -> Result<thread::JoinHandle<()>, LocalnetError> {
    let mut ready = Some(ready);
    let drain = move || {
        while let Ok(event) = events.recv() {
            match event {
                SimnetEvent::CoreStarted(_) => {
                    if let Some(ready) = ready.take() {
                        // The caller of start() may have given up.
                        let _unheard = ready.try_send(());
                    }
                }
                SimnetEvent::Aborted(reason) => tracing::warn!(reason, "local chain aborted"),
                SimnetEvent::ErrorLog(_, text) | SimnetEvent::WarnLog(_, text) => tracing::debug!(text, "local chain"),
                _ => {}
            }
        }
    };
    let thread = thread::Builder::new().name("localnet-events".into());
    thread.spawn(drain).map_err(|error| LocalnetError::Engine { reason: error.to_string() })
}

async fn place(locker: &SurfnetSvmLocker, program: &Program) -> Result<(), LocalnetError> {
    let id = Pubkey::new_from_array(program.id);
    let refused = |reason: String| LocalnetError::Program { program: id.to_string(), reason };
    if program.elf.get(..4) != Some(b"\x7fELF".as_slice()) {
        return Err(refused("it is not an ELF file".into()));
    }
    locker.write_program(id, None, 0, &program.elf, &None).await.map_err(|error| refused(error.to_string()))?;
    trim(locker, &id, program.elf.len()).await.map_err(|error| refused(error.to_string()))?;
    let account = locker.get_account(&None, &id, None).await.map_err(|error| refused(error.to_string()))?;
    let account = account.inner.map_account().map_err(|error| refused(error.to_string()))?;
    // Setting the account once more verifies the bytecode, which the engine's own write does without telling.
    let verified = locker.0.write().await.set_account(&id, account);
    verified.map_err(|error| refused(error.to_string()))
}

/// Cuts off what a longer program in the ledger left after the first `len` bytes.
async fn trim(locker: &SurfnetSvmLocker, id: &Pubkey, len: usize) -> SurfpoolResult<()> {
    let address = get_program_data_address(id);
    let mut data = locker.get_account(&None, &address, None).await?.inner.map_account()?;
    let wanted = UpgradeableLoaderState::size_of_programdata_metadata() + len;
    if data.data.len() > wanted {
        data.data.truncate(wanted);
        locker.0.write().await.set_account(&address, data)?;
    }
    Ok(())
}

async fn fund(locker: &SurfnetSvmLocker, airdrop: Airdrop) -> Result<(), LocalnetError> {
    let address = Pubkey::new_from_array(airdrop.address);
    let given = locker.0.write().await.airdrop(&address, airdrop.lamports);
    match given {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(LocalnetError::Airdrop { address: address.to_string(), lamports: airdrop.lamports }),
    }
}
