//! `testnet`: several nodes on a local chain, from nothing to claimed rewards.
//!
//! What is decided is decided in pure modules: [`plan`] (who starts with which variables), [`board`] (what nodes have told),
//! [`verdict`] (whether it was good). Around them, [`folder`], [`prepare`], [`fleet`], [`follow`] and [`network`] touch
//! files, chain and processes; [`progress`] and [`plot`] show it. When the nodes have stopped, [`reference`] and [`sample`]
//! compute what [`report`] holds beside the nodes' own words; where they have not come to an end, [`failed`] writes it.

mod args;
mod board;
mod failed;
mod fleet;
mod folder;
mod follow;
mod network;
mod plan;
mod plot;
mod prepare;
mod progress;
mod reference;
mod report;
mod sample;
mod verdict;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use psyche_chain::{Rpc, ops};
use psyche_messages::{Address, Step};

pub(crate) use args::TestnetArgs;
use board::NodeBoard;
use failed::Stage;
use fleet::Fleet;
use network::{Endpoint, Network};
use plan::Plan;
pub(crate) use prepare::TEXT;
use prepare::Wallets;
use progress::Progress;
use reference::Reference;
use report::{Costs, Facts};
use sample::Sample;
use verdict::{Account, Summary};

use crate::commands::{chain_failed, failed_to};
use crate::output;
use crate::signals::Stop;

/// How often it is told how far the computing for the report is.
const TELL_EVERY: Duration = Duration::from_secs(5);

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
    let mut stage = Stage::default();
    let outcome = tokio::select! {
        done = drive(&plan, &mut fleet, &mut progress, &mut stage) => done,
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
    let known = if outcome.is_err() { failed::ask(&stage).await } else { failed::Known::default() };
    // The results are in already; a chain that is slow to stop ends with the process.
    if let Some(chain) = stage.chain
        && let Err(error) = chain.stop().await
    {
        tracing::warn!(%error, "the local chain did not stop in order");
    }
    let done = match outcome {
        Ok(done) => done,
        Err(error) => {
            progress.say(&format!("logs and events are under {}", out.display()));
            match failed::write(&plan, &known, &format!("{error:#}"), started.elapsed()) {
                Ok(()) => progress.say(&format!("what happened until then is in {}", plan.report().display())),
                Err(error) => progress.say(&format!("there is no report: {error:#}")),
            }
            return Err(error);
        }
    };
    let mut summary = verdict::summarize(&plan.nodes, &done.boards, &done.accounts, started.elapsed());
    let extras = Extras::compute(&plan, &done.boards, args.no_reference, &mut progress, &mut stop).await?;
    summary.failure = extras.stopped.map(|signal| format!("stopped by {signal} while the report was computed"));
    write_report(&plan, &done, &extras, &mut summary)?;
    tell(&args, &plan, &done.boards, &summary)
}

/// What a run that came to its end leaves.
struct Done {
    boards: Vec<NodeBoard>,
    accounts: Vec<Account>,
    costs: Option<Costs>,
    endpoint: Endpoint,
}

/// What is computed for the report once the nodes have stopped, or why it is not there.
struct Extras {
    reference: Result<Reference, String>,
    sample: Result<Sample, String>,
    /// The signal that ended the computing early.
    stopped: Option<&'static str>,
}

impl Extras {
    /// Computes both on a thread of their own, so that Ctrl-C is heard.
    async fn compute(
        plan: &Plan,
        boards: &[NodeBoard],
        no_reference: bool,
        progress: &mut Progress<io::Stderr>,
        stop: &mut Stop,
    ) -> Result<Self> {
        let last = boards.iter().filter_map(|board| board.trained.last_key_value()).map(|(step, _)| *step).max();
        let Step(steps) = last.unwrap_or_default();
        progress.say("computing for the report: a sample of the model's text, and AdamW's curve (--no-reference: without)");
        let course = Arc::new(reference::Course::default());
        let mut work = tokio::task::spawn_blocking({
            let (plan, course) = (plan.clone(), Arc::clone(&course));
            move || {
                // Small operations: threads that wait for each other cost more than they bring, above all beside other work.
                psyche_gpu::devices::init_threads(1);
                let in_words = |error: anyhow::Error| format!("{error:#}");
                let sample = sample::write(&plan, &course.cancel).map_err(in_words);
                let reference = if no_reference {
                    Err("it was not wanted (--no-reference)".to_owned())
                } else {
                    reference::train(&plan, steps, &course).map_err(in_words)
                };
                Self { reference, sample, stopped: None }
            }
        });
        let mut look = tokio::time::interval(TELL_EVERY);
        look.reset();
        loop {
            tokio::select! {
                done = &mut work => break done.context("failed to compute what the report shows"),
                _ = look.tick() => {
                    progress.say(&format!("AdamW's curve: step {} of {steps}", course.step.load(Ordering::Relaxed)));
                }
                signal = stop.requested() => {
                    course.cancel.store(true, Ordering::Relaxed);
                    let extras = work.await.context("failed to compute what the report shows")?;
                    break Ok(Self { stopped: Some(signal), ..extras });
                }
            }
        }
    }
}

/// Writes the report, and names it in the summary.
fn write_report(plan: &Plan, done: &Done, extras: &Extras, summary: &mut Summary) -> Result<()> {
    let records = report::read(plan);
    let shortcomings = verdict::shortcomings(summary, &done.boards);
    summary.adamw_loss_last = extras.reference.as_ref().ok().and_then(|reference| {
        let losses: Vec<f64> = reference.losses.iter().map(|(_, loss)| *loss).collect();
        verdict::last_quarter(&losses)
    });
    summary.report = Some(plan.report().display().to_string());
    report::write(
        &plan.report(),
        &Facts {
            plan,
            summary,
            shortcomings: &shortcomings,
            records: &records,
            accounts: &done.accounts,
            costs: done.costs.as_ref(),
            endpoint: Some(&done.endpoint),
            parameters: report::parameters(plan)?,
            reference: extras.reference.as_ref().map_err(String::as_str),
            sample: extras.sample.as_ref().map_err(String::as_str),
        },
    )
}

/// Everything from the chain's start to the last claim.
async fn drive(plan: &Plan, fleet: &mut Fleet, progress: &mut Progress<io::Stderr>, stage: &mut Stage) -> Result<Done> {
    progress.say("starting a local chain; making tokens and initial weights");
    let Stage { chain: slot, wallets } = stage;
    let wallets = &*wallets.insert(Wallets::make(plan)?);
    let files = tokio::task::spawn_blocking({
        let plan = plan.clone();
        move || prepare::files(&plan)
    });
    let chain = slot.insert(prepare::chain(plan, wallets).await?);
    let endpoint = Endpoint { rpc: chain.rpc_url(), ws: chain.ws_url() };
    progress.say(&format!("the chain runs at {} and {}", endpoint.rpc, endpoint.ws));
    let rpc = prepare::connect(&endpoint)?;
    prepare::run(plan, &rpc, wallets).await?;
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
    let costs = match costs(&rpc, wallets).await {
        Ok(costs) => Some(costs),
        Err(error) => {
            tracing::warn!("what the run cost is not known: {error:#}");
            None
        }
    };
    Ok(Done { boards, accounts, costs, endpoint })
}

/// What everybody has less than at the start.
async fn costs(rpc: &Rpc, wallets: &Wallets) -> Result<Costs> {
    let spent = async |address: Address, had: u64| -> Result<u64> {
        Ok(had.saturating_sub(rpc.balance(address).await.map_err(chain_failed)?.0))
    };
    let mut nodes = Vec::new();
    for node in &wallets.nodes {
        nodes.push(spent(*node, prepare::NODE_LAMPORTS).await?);
    }
    let owner = spent(wallets.owner.address(), prepare::OWNER_LAMPORTS).await?;
    let operator = spent(wallets.operator.address(), prepare::NODE_LAMPORTS).await?;
    Ok(Costs { owner, operator, nodes })
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
fn tell(args: &TestnetArgs, plan: &Plan, boards: &[NodeBoard], summary: &Summary) -> Result<()> {
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
        output::line(format_args!("report   {}", plan.report().display()))?;
        output::line(format_args!("plot     {}", plan.plot().display()))?;
        output::line(format_args!("model    {}", plan.trained().display()))?;
        output::line(format_args!("logs     {}", plan.out.join("node-*/log.txt").display()))?;
    }
    let mut shortcomings = verdict::shortcomings(summary, boards);
    shortcomings.splice(0..0, summary.failure.clone());
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
