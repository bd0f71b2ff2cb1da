//! `train` and `check-config`.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use psyche_actors::node::checks;
use psyche_actors::telemetry::{NodeReport, ServiceManager};
use psyche_actors::{ConfigError, Node, NodeBuilder, NodeConfig, NodeError, Outcome};
use psyche_chain::{Rpc, RpcConfig};
use psyche_gpu::devices::Machine;
use psyche_messages::Address;
use serde::Serialize;

use super::{chain_failed, chain_said};
use crate::args::{CheckArgs, TrainArgs};
use crate::doctor::choose::{Chosen, choose};
use crate::doctor::{Settings, node_exit, port, variables};
use crate::exit::{Exit, Failure};
use crate::signals::Stop;
use crate::tui::{LOG_FILE, Live, Look, Subject, clean};
use crate::{output, work};

/// How long a node that is stopped may take: SIGTERM ends the process within 20 s, whatever its devices compute.
const LEAVE_WITHIN: Duration = Duration::from_secs(17);

/// Trains, and shows a live view meanwhile if `live` says so.
pub(crate) async fn run(args: TrainArgs, live: bool) -> Result<()> {
    let Settings { mut config, run_named } = Settings::read(args).map_err(configuration_failed)?;
    port::refuse(&config)?;
    if !run_named {
        let chosen = work::resumable("looking for a run to join", choose_run(&config)).await?;
        output::note(format_args!("{}", chosen.said));
        config.run_id = chosen.run_id;
    }
    let manager = ServiceManager::from_environment().context("failed to talk to the service manager (NOTIFY_SOCKET)")?;
    let manager = manager.map(Arc::new);
    // Before the terminal is taken: no signal may end the process with it.
    let mut stop = Stop::listen()?;
    let mut screen = Shown { live: if live { Some(Live::open(false)?) } else { None }, last: None };
    loop {
        match take_part(config.clone(), manager.as_ref(), &mut stop, &mut screen).await? {
            // Every start looks at the run as it is now, and refuses what can't be trained.
            Err(error) if matches!(*error, NodeError::RunReplaced) => {
                tracing::warn!("the run was closed and created anew: starting over");
            }
            ended => {
                screen.close(&config.data_dir);
                if let Ok(Some(reason)) = &ended {
                    output::note(format_args!("the run is over for this node: {reason}"));
                }
                return ended.map(drop).map_err(|error| node_failed(&error));
            }
        }
    }
}

/// The only run that the wallet may join. What must hold for any run is refused by the node's own start.
async fn choose_run(config: &NodeConfig) -> Result<Chosen> {
    let mut chain = RpcConfig::new(config.endpoints.clone());
    chain.programs = config.programs;
    let rpc = Rpc::new(chain).map_err(chain_failed)?;
    checks::one_cluster(&rpc, config).await.map_err(|error| node_failed(&error))?;
    choose(&rpc, config).await
}

/// Tells the service manager, if there is one, that the process is there.
async fn starting(manager: Option<&Arc<ServiceManager>>) -> Infallible {
    match manager {
        Some(manager) => manager.starting().await,
        None => std::future::pending().await,
    }
}

/// The view, if there is one.
struct Shown {
    live: Option<Live>,
    /// What the node said of itself last.
    last: Option<NodeReport>,
}

impl Shown {
    /// Waits until somebody wants to leave: by what. Safe to cancel.
    async fn leave(&mut self, stop: &mut Stop, node: Option<&Node>) -> &'static str {
        match &mut self.live {
            Some(live) => {
                let look = || Look { subject: node.map(|node| Subject::Node(Box::new(node.status()))), ..Look::default() };
                live.show(stop, look).await
            }
            None => stop.requested().await,
        }
    }

    fn say(&mut self, text: String) {
        match &mut self.live {
            Some(live) => live.say(text),
            None => output::note(format_args!("{text}")),
        }
    }

    /// Gives the terminal back, with a word on what was seen on it.
    fn close(&mut self, data_dir: &Path) {
        // Dropped before anything is said: it holds stderr.
        let was_shown = self.live.take().is_some();
        if let (true, Some(last)) = (was_shown, &self.last) {
            let (run_id, NodeReport { steps_trained, earned, .. }) = (clean(&last.run_id), last);
            let step = last.step.map_or_else(String::new, |step| format!(" at step {step}"));
            let loss = last.loss.map_or_else(String::new, |loss| format!(", loss {loss:.4}"));
            let log = data_dir.join(LOG_FILE);
            output::note(format_args!("left {run_id}{step}: {steps_trained} batches trained{loss}, {earned} points earned"));
            output::note(format_args!("log      {}", log.display()));
        }
    }
}

/// Stops `node`, and waits for it unless somebody can't.
async fn leave(node: &Node, signal: &'static str, stop: &mut Stop, screen: &mut Shown) -> Outcome {
    screen.say(format!("{signal}: finishing the micro-batch, saving and leaving the peers; {signal} again exits at once"));
    let again = tokio::select! {
        stopped = tokio::time::timeout(LEAVE_WITHIN, node.stop(signal)) => return stopped.unwrap_or_else(|_elapsed| {
            // What a device computes can't always be interrupted, and whoever stops a container does not wait.
            screen.say("leaving before the devices are done: the next start goes on from what is saved".to_owned());
            Outcome::Stopped { reason: signal.to_owned() }
        }),
        again = screen.leave(stop, Some(node)) => again,
    };
    screen.live = None;
    output::note(format_args!("error: left by {again} before everything was saved"));
    // SAFETY: takes no pointers. Nothing else ends the process while its devices compute: libtorch's own clean-up would meet
    // threads that still use it.
    unsafe { libc::_exit(i32::from(Exit::Interrupted as u8)) }
}

/// Runs a node until the run is over for it, it can't go on, or somebody wants it to stop.
async fn take_part(
    config: NodeConfig,
    manager: Option<&Arc<ServiceManager>>,
    stop: &mut Stop,
    screen: &mut Shown,
) -> Result<Result<Option<String>, Arc<NodeError>>> {
    let data_dir = config.data_dir.clone();
    let started = tokio::select! {
        started = NodeBuilder::from(config).start() => started,
        never = starting(manager) => match never {},
        signal = screen.leave(stop, None) => {
            screen.live = None;
            output::note(format_args!("{signal}: stopped before the node was up"));
            return Ok(Ok(None));
        }
    };
    let node = match started {
        Ok(node) => node,
        Err(error) => return Ok(Err(Arc::new(error))),
    };
    if let Some(live) = &screen.live {
        live.keep_log_in(&data_dir);
    }
    tracing::info!(address = %node.address(), peer = %node.peer(), "the node is up");
    let telling = manager.map(|manager| tokio::spawn(node.tell(Arc::clone(manager))));
    let ended = tokio::select! {
        outcome = node.wait() => Ok(outcome),
        signal = screen.leave(stop, Some(&node)) => Err(signal),
    };
    if let Some(telling) = telling {
        telling.abort();
    }
    let outcome = match ended {
        Ok(outcome) => outcome,
        Err(signal) => {
            if let Some(manager) = manager {
                manager.stopping();
            }
            leave(&node, signal, stop, screen).await
        }
    };
    screen.last = Some(node.status());
    Ok(match outcome {
        Outcome::Finished { reason } => Ok(Some(reason)),
        Outcome::Stopped { .. } => Ok(None),
        Outcome::Failed(error) => Err(error),
    })
}

/// A configuration that can work, without anything secret.
#[derive(Serialize)]
struct Checked {
    run_id: String,
    wallet: Address,
    rpc: Vec<String>,
    device: String,
    data_parallelism: u16,
    tensor_parallelism: u16,
    micro_batch_size: u32,
    /// By rank.
    placement: Vec<String>,
    precision: String,
    activation_checkpointing: bool,
    skip_loss_spikes: bool,
    cuda: String,
    data_dir: PathBuf,
    checkpoint_dir: Option<PathBuf>,
    checkpoint_repo: Option<String>,
}

pub(crate) fn check(args: CheckArgs) -> Result<()> {
    let json = args.json.json;
    let config = configuration(args.train)?;
    let mesh = config.mesh;
    let machine = Machine::look();
    let placement = config.placement(&machine).map_err(|error| node_failed(&error.into()))?;
    let precision = placement.seats.first().map(|seat| config.compute.precision_on(seat));
    let checked = Checked {
        run_id: config.run_id.to_string(),
        wallet: config.wallet.address(),
        rpc: config.endpoints.iter().map(ToString::to_string).collect(),
        device: config.device.to_string(),
        data_parallelism: mesh.dp,
        tensor_parallelism: mesh.tp,
        micro_batch_size: mesh.micro_batch,
        precision: precision.map(|precision| precision.to_string()).unwrap_or_default(),
        activation_checkpointing: config.compute.checkpointing,
        skip_loss_spikes: config.compute.skips_spikes,
        placement: placement.seats.iter().map(ToString::to_string).collect(),
        cuda: machine.cuda.to_string(),
        data_dir: config.data_dir,
        checkpoint_dir: config.checkpoint_dir,
        checkpoint_repo: config.checkpoint_repo.map(|repo| repo.repo_id.as_str().to_owned()),
    };
    if json {
        return output::json(&checked);
    }
    output::line(format_args!("the configuration can work"))?;
    output::note(format_args!("run      {}", checked.run_id));
    output::note(format_args!("wallet   {}", checked.wallet));
    output::note(format_args!("rpc      {}", checked.rpc.join(", ")));
    output::note(format_args!(
        "devices  {} ({} × {} ranks, micro-batches of {}, {}): {placement}",
        checked.device, mesh.dp, mesh.tp, mesh.micro_batch, checked.precision
    ));
    output::note(format_args!("cuda     {}", checked.cuda));
    output::note(format_args!("data     {}", checked.data_dir.display()));
    if let Some(dir) = &checked.checkpoint_dir {
        let repo = checked.checkpoint_repo.as_deref().unwrap_or("nothing");
        output::note(format_args!("weights  {}; named on chain: {repo}", dir.display()));
    }
    for warning in &placement.warnings {
        output::note(format_args!("warning: {warning}"));
    }
    Ok(())
}

fn configuration(args: TrainArgs) -> Result<NodeConfig> {
    NodeConfig::from_variables(variables(args)).map_err(configuration_failed)
}

fn configuration_failed(error: ConfigError) -> anyhow::Error {
    Failure::new(Exit::Configuration, format!("failed to {error}")).into()
}

fn node_failed(error: &NodeError) -> anyhow::Error {
    let exit = match (node_exit(error), error) {
        (Some(exit), _) => exit,
        (None, NodeError::Chain(error)) => return chain_said(error),
        (None, _) => Exit::Failure,
    };
    Failure::new(exit, format!("failed to {}", psyche_actors::chain_of(error))).into()
}
