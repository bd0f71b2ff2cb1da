//! Which run a node joins whose operator named none: the only one that its wallet may join.

use anyhow::Result;
use psyche_actors::{CLIENT_VERSION, NodeConfig};
use psyche_chain::Rpc;
use psyche_chain::ops::{self, JoinAnswer, JoinQuestion, JoinReport, RunFilter, RunSummary, accepts_version};
use psyche_messages::{Phase, RunId};
use tokio::task::JoinSet;

use crate::commands::{chain_failed, join_exit};
use crate::exit::{Exit, Failure};

/// Runs that are looked at closely, since each costs some requests.
const LOOKED_AT_MAX: usize = 64;
/// How many of them at a time.
const AT_ONCE: usize = 8;
/// Runs that a message names.
const NAMED_MAX: usize = 20;

/// The run that is joined.
#[derive(Clone, Debug)]
pub(crate) struct Chosen {
    pub(crate) run_id: RunId,
    /// That it was chosen, for people.
    pub(crate) said: String,
}

/// Why a run is none to join.
struct Unfit {
    run: String,
    exit: Exit,
    why: String,
}

/// The only run that the wallet of `config` may join.
///
/// # Errors
/// A [`Failure`] that names the runs, if there are several, and why each of them is none, if there is none.
pub(crate) async fn choose(rpc: &Rpc, config: &NodeConfig) -> Result<Chosen> {
    let runs = ops::list_runs(rpc, &RunFilter::default()).await.map_err(chain_failed)?;
    let (mut unfit, mut open) = (Vec::new(), Vec::new());
    for run in runs {
        match closed(&run) {
            Some(why) => unfit.push(why),
            None => open.push(run),
        }
    }
    let unseen = open.len().saturating_sub(LOOKED_AT_MAX);
    let mut fit = Vec::new();
    for some in open.get(..LOOKED_AT_MAX).unwrap_or(&open).chunks(AT_ONCE) {
        let mut tasks = JoinSet::new();
        for run in some {
            let (rpc, run) = (rpc.clone(), run.clone());
            let (wallet, authorizer) = (config.wallet.address(), config.authorizer);
            drop(tasks.spawn(async move {
                let report = ops::can_join(&rpc, &run.run_id, wallet, authorizer, Some(CLIENT_VERSION)).await;
                (run, report)
            }));
        }
        for (run, report) in tasks.join_all().await {
            match obstacle(&run, &report.map_err(chain_failed)?) {
                Some(why) => unfit.push(why),
                None => fit.push(run),
            }
        }
    }
    decide(config, fit, unfit, unseen)
}

/// What the run's summary says against it.
fn closed(run: &RunSummary) -> Option<Unfit> {
    let unfit = |exit, why: String| Some(Unfit { run: run.run_id.to_string(), exit, why });
    if run.phase == Phase::Finished {
        return unfit(Exit::Finished, "the run is finished".to_owned());
    }
    if !accepts_version(&run.client_version, CLIENT_VERSION) {
        return unfit(
            Exit::OtherVersion,
            format!("it wants client version {:?}, this is {CLIENT_VERSION:?}", run.client_version),
        );
    }
    None
}

/// What keeps the wallet from joining. A node that starts again may be a member still: that is none.
fn obstacle(run: &RunSummary, report: &JoinReport) -> Option<Unfit> {
    let check = report.obstacle().filter(|check| check.question != JoinQuestion::NotMember)?;
    let (JoinAnswer::Yes(why) | JoinAnswer::No(why) | JoinAnswer::Warn(why)) = &check.answer;
    Some(Unfit { run: run.run_id.to_string(), exit: join_exit(check.question), why: why.clone() })
}

fn decide(config: &NodeConfig, mut fit: Vec<RunSummary>, unfit: Vec<Unfit>, unseen: usize) -> Result<Chosen> {
    fit.sort_by(|a, b| a.run_id.cmp(&b.run_id));
    let wallet = config.wallet.address();
    let more = if unseen == 0 { String::new() } else { format!("\n  and {unseen} more runs, which were not looked at") };
    match fit.as_slice() {
        [only] if unseen == 0 => {
            let run = &only.run_id;
            let said = format!("RUN_ID is not set: {run} is the only run that {wallet} may join ({})", only.phase);
            Ok(Chosen { run_id: run.clone(), said })
        }
        [] => {
            let first = unfit.first().map(|unfit| unfit.exit);
            let exit = first.filter(|first| unfit.iter().all(|unfit| unfit.exit == *first)).unwrap_or(Exit::NoRun);
            let why = listed(unfit.iter().map(|unfit| format!("{}: {}", unfit.run, unfit.why)));
            let message = format!("RUN_ID is not set, and there is no run that {wallet} may join{why}{more}");
            Err(Failure::new(exit, message).into())
        }
        several => {
            let runs = several.iter().map(|run| {
                let steps = format!("step {} of {}", run.step, run.total_steps);
                format!("RUN_ID={} ({}, {steps}, {} clients)", run.run_id, run.phase, run.clients)
            });
            let message = format!("RUN_ID is not set, and {wallet} may join several runs; set one of{}{more}", listed(runs));
            Err(Failure::new(Exit::Configuration, message).into())
        }
    }
}

/// The entries, each on a line, without what a terminal would obey.
fn listed(entries: impl ExactSizeIterator<Item = String>) -> String {
    let left = entries.len().saturating_sub(NAMED_MAX);
    let clean = |entry: String| entry.chars().map(|c| if c.is_control() { '?' } else { c }).collect::<String>();
    let mut text: String = entries.take(NAMED_MAX).map(|entry| format!("\n  {}", clean(entry))).collect();
    if text.is_empty() {
        text = ": there is none at all".to_owned();
    }
    if left > 0 {
        text += &format!("\n  and {left} more");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_runs_is_bounded_and_moves_no_cursor() {
        let text = listed((0..25).map(|n| format!("run{n}\u{1b}[2J")));
        assert_eq!(text.lines().count(), 1 + NAMED_MAX + 1, "{text}");
        assert!(text.ends_with("and 5 more") && !text.contains('\u{1b}'), "{text}");
    }
}
