//! A testnet that does not come to its end: its report and summary say what happened, and hold all that is known till then.

use std::time::Duration;

use anyhow::{Context as _, Result};
use psyche_localnet::Localnet;

use super::network::Endpoint;
use super::plan::Plan;
use super::prepare::{self, Wallets};
use super::report::{self, Costs, Facts};
use super::verdict::{self, Account};
use super::{accounts, costs, plot};

/// How long the chain is asked what the nodes have earned so far.
const ASKED_FOR: Duration = Duration::from_secs(5);

/// What a testnet has made so far; whoever fails in the middle leaves it here.
#[derive(Default)]
pub(super) struct Stage {
    pub(super) chain: Option<Localnet>,
    pub(super) wallets: Option<Wallets>,
}

impl Stage {
    fn endpoint(&self) -> Option<Endpoint> {
        self.chain.as_ref().map(|chain| Endpoint { rpc: chain.rpc_url(), ws: chain.ws_url() })
    }
}

/// What the chain says of a run that did not come to its end; empty where it could not be asked.
#[derive(Default)]
pub(super) struct Known {
    endpoint: Option<Endpoint>,
    accounts: Vec<Account>,
    costs: Option<Costs>,
}

/// Asks the chain, while it still runs, what everybody has earned and paid.
pub(super) async fn ask(stage: &Stage) -> Known {
    let mut known = Known { endpoint: stage.endpoint(), ..Known::default() };
    let (Some(endpoint), Some(wallets)) = (&known.endpoint, &stage.wallets) else { return known };
    let asked = tokio::time::timeout(ASKED_FOR, async {
        let rpc = prepare::connect(endpoint)?;
        anyhow::Ok((accounts(&rpc, &wallets.nodes).await?, costs(&rpc, wallets).await?))
    });
    match asked.await {
        Ok(Ok((accounts, costs))) => (known.accounts, known.costs) = (accounts, Some(costs)),
        Ok(Err(error)) => tracing::warn!("what the nodes earned is not known: {error:#}"),
        Err(_) => tracing::warn!("what the nodes earned is not known: the chain does not answer"),
    }
    known
}

/// Writes the report, the plot and the summary of a run that failed because of `what`.
///
/// # Errors
/// If they can't be written.
pub(super) fn write(plan: &Plan, known: &Known, what: &str, wall: Duration) -> Result<()> {
    let records = report::read(plan);
    let boards: Vec<_> = records.iter().map(|record| record.board.clone()).collect();
    // Where the chain could not be asked, what the nodes themselves have told.
    let told = || boards.iter().map(|board| Account { earned: board.earned, claimed: board.claimed }).collect();
    let of_summary: Vec<Account> = if known.accounts.is_empty() { told() } else { known.accounts.clone() };
    let mut summary = verdict::summarize(&plan.nodes, &boards, &of_summary, wall);
    let shortcomings = verdict::shortcomings(&summary, &boards);
    summary.failure = Some(what.to_owned());
    summary.report = Some(plan.report().display().to_string());
    let reason = "the run did not come to its end";
    report::write(
        &plan.report(),
        &Facts {
            plan,
            summary: &summary,
            shortcomings: &shortcomings,
            records: &records,
            accounts: &known.accounts,
            costs: known.costs.as_ref(),
            endpoint: known.endpoint.as_ref(),
            parameters: report::parameters(plan)?,
            reference: Err(reason),
            sample: Err(reason),
        },
    )?;
    // Whoever stops a run before its first step has no curve.
    if boards.iter().any(|board| !board.trained.is_empty()) {
        plot::write(&plan.plot(), &boards)?;
    }
    let json = serde_json::to_string(&summary).context("failed to write the summary")?;
    std::fs::write(plan.summary(), format!("{json}\n")).with_context(|| format!("failed to write {}", plan.summary().display()))
}
