//! `status`: how a node on this machine fares, how a run on chain does, or what an event log tells.

mod node;
mod replay;

use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::Result;
use psyche_chain::{Rpc, about, epoch_left};
use psyche_messages::{Address, Epoch, Phase, RunId, Slot, Step};
use serde::Serialize;
use tokio::time::MissedTickBehavior;

use super::{chain_failed, connect};
use crate::args::StatusArgs;
use crate::output;
use crate::signals::Stop;

/// Time between two looks of `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);
/// Puts the cursor into the first corner of an empty screen.
const CLEAR: &str = "\u{1b}[2J\u{1b}[H";

/// Who is asked.
enum Source {
    Node(String),
    Chain(Box<Rpc>, RunId),
}

impl Source {
    /// The answer as a page for people, or an object for scripts.
    async fn look(&self, as_json: bool) -> Result<String> {
        match self {
            Self::Node(address) => {
                let report = node::ask(address).await?;
                if as_json { json(&report) } else { Ok(node::page(&report)) }
            }
            Self::Chain(rpc, run_id) => {
                let status = chain_status(rpc, run_id).await?;
                if as_json { json(&status) } else { Ok(status.page()) }
            }
        }
    }
}

pub(crate) async fn run(args: StatusArgs) -> Result<()> {
    let as_json = args.json.json;
    if let Some(path) = &args.replay {
        return replay::run(path, as_json);
    }
    let source = match args.run_id {
        Some(run_id) => Source::Chain(Box::new(connect(&args.chain).await?), run_id),
        None => Source::Node(node::address(args.node.as_deref(), args.data_dir.as_deref())?),
    };
    if let (Source::Node(address), true) = (&source, args.ready) {
        return node::check_ready(address).await;
    }
    if !args.watch {
        output::text(&source.look(as_json).await?)?;
        return Ok(());
    }
    watch(&source, as_json).await
}

/// Looks until somebody has seen enough. The first look must succeed; what fails later may come back.
async fn watch(source: &Source, as_json: bool) -> Result<()> {
    let mut stop = Stop::listen()?;
    let clears = !as_json && std::io::stdout().is_terminal();
    let mut ticks = tokio::time::interval(WATCH_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = false;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stop.requested() => return Ok(()),
        }
        let looked = tokio::select! {
            looked = source.look(as_json) => looked,
            _ = stop.requested() => return Ok(()),
        };
        match looked {
            Ok(page) if clears => output::text(&format!("{CLEAR}{page}"))?,
            Ok(page) => output::text(&page)?,
            Err(error) if seen => output::note(format_args!("{error:#}")),
            Err(error) => return Err(error),
        }
        seen = true;
    }
}

/// One object in one line, so that a watch is a stream of lines.
fn json(value: &impl Serialize) -> Result<String> {
    Ok(serde_json::to_string(value)? + "\n")
}

/// Where a run stands, as the chain says.
#[derive(Debug, Serialize)]
struct ChainStatus {
    run_id: RunId,
    account: Address,
    slot: Slot,
    phase: Phase,
    /// The chain's clock when the phase began.
    since: i64,
    /// Seconds until the epoch's time is up.
    epoch_left_s: Option<u64>,
    epoch: Epoch,
    step: Step,
    total_steps: u32,
    clients: usize,
    pending: usize,
    client_version: String,
}

async fn chain_status(rpc: &Rpc, run_id: &RunId) -> Result<ChainStatus> {
    let (info, view) = rpc.fetch_run(run_id).await.map_err(chain_failed)?;
    let coordinator = &view.account.state.coordinator;
    let (_slot, now) = rpc.clock().await.map_err(chain_failed)?;
    Ok(ChainStatus {
        run_id: run_id.clone(),
        account: info.account,
        slot: view.slot,
        phase: view.phase(),
        since: i64::try_from(coordinator.run_state_start_unix_timestamp).unwrap_or(i64::MAX),
        epoch_left_s: epoch_left(&view.account, now),
        epoch: Epoch(coordinator.progress.epoch),
        step: Step(coordinator.progress.step),
        total_steps: coordinator.config.total_steps,
        clients: view.account.clients().len(),
        pending: view.account.state.clients_state.pending().count(),
        client_version: printable(view.account.state.client_version.as_str()),
    })
}

impl ChainStatus {
    fn page(&self) -> String {
        let Self { run_id, phase, epoch, step, total_steps, clients, pending, slot, client_version, account, .. } = self;
        let run_id = printable(run_id.as_str());
        let left = self.epoch_left_s.map_or_else(String::new, |left| format!(", for about {}", about(left)));
        format!(
            "run      {run_id} ({account})\nphase    {phase}\nepoch    {epoch}{left}\nstep     {step} of {total_steps}\n\
             clients  {clients} in the epoch, {pending} wait for the next one\nversion  {client_version}\nslot     {slot}\n"
        )
    }
}

/// What strangers wrote, without what a terminal would obey.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
