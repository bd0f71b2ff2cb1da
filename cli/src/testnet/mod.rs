//! `testnet`: several nodes on a local chain, from nothing to claimed rewards.
//!
//! What is decided is decided in pure modules: [`plan`] (who starts with which variables), [`board`] (what nodes have told),
//! [`verdict`] (whether it was good). Around them, [`folder`], [`prepare`], [`fleet`], [`follow`] and [`network`] touch
//! files, chain and processes; [`progress`] and [`plot`] show it.

mod args;
mod board;
mod fleet;
mod folder;
mod follow;
mod network;
mod plan;
mod plot;
mod prepare;
mod progress;
mod verdict;

use std::io;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, bail};
use psyche_chain::{Rpc, ops};
use psyche_localnet::Localnet;
use psyche_messages::Address;

pub(crate) use args::TestnetArgs;
use board::NodeBoard;
use fleet::Fleet;
use network::{Endpoint, Network};
use plan::Plan;
pub(crate) use prepare::TEXT;
use prepare::Wallets;
use progress::Progress;
use verdict::{Account, Summary};

use crate::commands::{chain_failed, failed_to};
use crate::output;
use crate::signals::Stop;

/// Runs a network to its end. Await it on the main thread: nodes live as long as the thread that starts them.
pub(crate) async fn run(args: TestnetArgs) -> Result<()> {
    let started = Instant::now();
    let mut stop = Stop::listen()?;
    let out = std::path::absolute(&args.out).with_context(|| format!("failed to find {}", args.out.display()))?;
    let plan = Plan::new(&args, &out)?;
    folder::prepare(&out)?;
    let program = std::env::current_exe().context("failed to find this program's own file")?;
    let mut fleet = Fleet::new(program, plan.nodes.len());
    let mut progress = Progress::stderr(started);
    let mut chain = None;
    let outcome = tokio::select! {
        done = drive(&plan, &mut fleet, &mut progress, &mut chain) => done,
        signal = stop.requested() => Err(anyhow!("stopped by {signal}")),
    };
    progress.clear();
    if fleet.any_running() {
        progress.say("stopping the nodes");
        let killed = fleet.stop().await;
        if killed > 0 {
            progress.say(&format!("{killed} of them had to be killed"));
        }
    }
    // The results are in already; a chain that is slow to stop ends with the process.
    if let Some(chain) = chain
        && let Err(error) = chain.stop().await
    {
        tracing::warn!(%error, "the local chain did not stop in order");
    }
    let (boards, accounts) = match outcome {
        Ok(done) => done,
        Err(error) => {
            progress.say(&format!("logs and events are under {}", out.display()));
            return Err(error);
        }
    };
    let summary = verdict::summarize(&plan.nodes, &boards, &accounts, started.elapsed());
    report(&args, &plan, &boards, &summary)
}

/// Everything from the chain's start to the last claim.
async fn drive(
    plan: &Plan,
    fleet: &mut Fleet,
    progress: &mut Progress<io::Stderr>,
    slot: &mut Option<Localnet>,
) -> Result<(Vec<NodeBoard>, Vec<Account>)> {
    progress.say("starting a local chain; making tokens and initial weights");
    let wallets = Wallets::make(plan)?;
    let files = tokio::task::spawn_blocking({
        let plan = plan.clone();
        move || prepare::files(&plan)
    });
    let chain = slot.insert(prepare::chain(plan, &wallets).await?);
    let endpoint = Endpoint { rpc: chain.rpc_url(), ws: chain.ws_url() };
    progress.say(&format!("the chain runs at {} and {}", endpoint.rpc, endpoint.ws));
    let rpc = prepare::connect(&endpoint)?;
    prepare::run(plan, &rpc, &wallets).await?;
    progress.say("the run is created, funded and resumed");
    files.await.context("failed to make tokens and weights")??;
    let operator = wallets.operator.address();
    let network = Network::new(plan, &endpoint, operator, fleet, progress);
    let boards = tokio::select! {
        boards = network.run() => boards?,
        ended = chain.wait_for_end() => {
            ended.map_err(failed_to)?;
            bail!("the local chain ended by itself");
        }
    };
    let accounts = accounts(&rpc, &wallets.nodes).await?;
    Ok((boards, accounts))
}

/// What the chain, and not the nodes, says of points and claims.
async fn accounts(rpc: &Rpc, nodes: &[Address]) -> Result<Vec<Account>> {
    let run = rpc.run_info(&prepare::run_id()?).await.map_err(chain_failed)?;
    let mut accounts = Vec::new();
    for node in nodes {
        let points = ops::points(rpc, &run, *node).await.map_err(chain_failed)?;
        accounts.push(Account { earned: points.earned, claimed: points.claimed });
    }
    Ok(accounts)
}

/// Writes plot and summary, prints the result, and fails if the run fell short.
fn report(args: &TestnetArgs, plan: &Plan, boards: &[NodeBoard], summary: &Summary) -> Result<()> {
    let json = serde_json::to_string(summary).context("failed to write the summary")?;
    std::fs::write(plan.summary(), format!("{json}\n"))
        .with_context(|| format!("failed to write {}", plan.summary().display()))?;
    let plotted = plot::write(&plan.plot(), boards);
    if args.json {
        output::line(format_args!("{json}"))?;
    } else {
        for line in verdict::lines(summary) {
            output::line(format_args!("{line}"))?;
        }
        output::line(format_args!("plot     {}", plan.plot().display()))?;
        output::line(format_args!("logs     {}", plan.out.join("node-*/log.txt").display()))?;
    }
    let shortcomings = verdict::shortcomings(summary, boards);
    if !shortcomings.is_empty() {
        bail!("{}; logs and events are under {}", shortcomings.join("; "), plan.out.display());
    }
    plotted?;
    if args.keep { Ok(()) } else { discard(plan) }
}

/// Removes what nodes only needed while they ran; their event logs stay.
fn discard(plan: &Plan) -> Result<()> {
    for node in &plan.nodes {
        let failed = || format!("failed to clear {}", node.data().display());
        for entry in std::fs::read_dir(node.data()).with_context(failed)? {
            let path = entry.with_context(failed)?.path();
            if path != node.events() {
                folder::remove(&path).with_context(failed)?;
            }
        }
    }
    Ok(())
}
