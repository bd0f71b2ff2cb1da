//! `list-runs`, `json-dump-run`, `json-dump-user`.

use anyhow::Result;
use psyche_chain::ops::{self, RunFilter, RunSummary};

use super::{address_of, chain_failed, check_treasury, connect};
use crate::args::{DumpRunArgs, DumpUserArgs, ListRunsArgs};
use crate::{output, work};

pub(crate) async fn list(args: ListRunsArgs) -> Result<()> {
    let rpc = connect(&args.chain).await?;
    let filter = RunFilter {
        phase: args.state.map(Into::into),
        main_authority: args.main_authority,
        join_authority: args.join_authority,
    };
    let found = ops::list_runs(&rpc, &filter);
    let runs = work::resumable("asking for the runs", async { found.await.map_err(chain_failed) }).await?;
    if args.json.json {
        return output::json(&runs);
    }
    if runs.is_empty() {
        output::note(format_args!("no run matches"));
        return Ok(());
    }
    output::line(format_args!(
        "{:<32}  {:<17}  {:>5}  {:>15}  {:>7}  {:<14}  name",
        "run", "state", "epoch", "step", "clients", "version"
    ))?;
    for run in &runs {
        show(run)?;
    }
    Ok(())
}

fn show(run: &RunSummary) -> Result<()> {
    let steps = format!("{}/{}", run.step, run.total_steps);
    let (phase, version, name) = (run.phase.to_string(), printable(&run.client_version), printable(&run.name));
    output::line(format_args!(
        "{:<32}  {phase:<17}  {:>5}  {steps:>15}  {:>7}  {version:<14}  {name}",
        printable(run.run_id.as_str()),
        run.epoch.to_string(),
        run.clients,
    ))?;
    Ok(())
}

/// What strangers wrote, without what a terminal would obey.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

pub(crate) async fn dump_run(args: DumpRunArgs) -> Result<()> {
    let rpc = connect(&args.chain).await?;
    let dump = work::resumable("reading the run", async {
        check_treasury(&rpc, &args.run_id, &args.treasury).await?;
        ops::dump_run(&rpc, &args.run_id).await.map_err(chain_failed)
    });
    output::json(&dump.await?)
}

pub(crate) async fn dump_user(args: DumpUserArgs) -> Result<()> {
    let address = address_of(args.address, &args.wallet)?;
    let rpc = connect(&args.chain).await?;
    let dump = work::resumable("reading the run", async {
        check_treasury(&rpc, &args.run_id, &args.treasury).await?;
        ops::dump_user(&rpc, &args.run_id, address, args.authorizer).await.map_err(chain_failed)
    });
    output::json(&dump.await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_strangers_named_their_run_moves_no_cursor() {
        assert_eq!(printable("a\u{1b}[2Jb\nc"), "a?[2Jb?c");
    }
}
