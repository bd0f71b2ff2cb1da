//! The run: whether it exists and what it is doing, and whether the wallet gets in.

use psyche_actors::node::checks::BALANCE_MIN;
use psyche_actors::{CLIENT_VERSION, NodeConfig, NodeError};
use psyche_chain::ops::{self, JoinAnswer, JoinCheck, JoinQuestion, JoinReport};
use psyche_chain::{ChainError, Rpc};
use psyche_messages::{Lamports, RunId};

use super::{Found, Line, choose, impatient, refused};
use crate::commands::join_exit;
use crate::exit::{Exit, Failure};

type Result = (Vec<Line>, (Option<RunId>, Option<Found>));

/// Everything that `can-join` asks; where no run is named, the one that would be taken.
pub(super) async fn check(config: &NodeConfig, run_named: bool) -> Result {
    let rpc = match impatient(config, config.endpoints.clone()) {
        Ok(rpc) => rpc,
        Err(error) => return (vec![unknown(&error)], (None, None)),
    };
    // That one is of another network is told with the endpoints; here it must only be known before anything is believed.
    let _told = rpc.check_clusters().await;
    let mut lines = Vec::new();
    let run_id = if run_named {
        config.run_id.clone()
    } else {
        match choose::choose(&rpc, config).await {
            Ok(chosen) => {
                lines.push(Line::fine("run", chosen.said));
                chosen.run_id
            }
            Err(error) => {
                let exit = error.downcast_ref::<Failure>().map_or(Exit::Failure, |failure| failure.exit);
                lines.push(match exit {
                    // The endpoints' own lines say it.
                    Exit::Unreachable => Line::unknown("run", exit, format!("not checked: {error}")),
                    exit => Line::refused("run", exit, &error.to_string()),
                });
                lines.extend(balance(&rpc, config, None).await);
                return (lines, (None, None));
            }
        }
    };
    let wallet = config.wallet.address();
    let asked = ops::can_join(&rpc, &run_id, wallet, config.authorizer, Some(CLIENT_VERSION)).await;
    let report = match asked {
        Ok(report) => report,
        Err(error) => {
            lines.push(unknown(&error));
            return (lines, (Some(run_id), None));
        }
    };
    let others = report.checks.iter().filter(|check| check.question != JoinQuestion::Balance);
    lines.extend(others.map(|check| line(config, &run_id, &report, check)));
    let balance_check = report.checks.iter().find(|check| check.question == JoinQuestion::Balance);
    lines.extend(balance(&rpc, config, balance_check).await);
    let found = report.run.zip(report.view).map(|(run, view)| Found { run, view });
    (lines, (Some(run_id), found))
}

fn unknown(error: &ChainError) -> Line {
    Line::unknown("run", Exit::Unreachable, format!("not checked: failed to {}", psyche_actors::chain_of(error)))
}

/// A check of `can-join`'s; what a node refuses at its start is said in the node's words.
fn line(config: &NodeConfig, run_id: &RunId, report: &JoinReport, check: &JoinCheck) -> Line {
    let name = name(check.question);
    let words = match &check.answer {
        JoinAnswer::Yes(words) => return Line::fine(name, words),
        JoinAnswer::Warn(words) => return Line::warning(name, words, "the chain decides when the node joins"),
        JoinAnswer::No(words) => words,
    };
    let wallet = config.wallet.address();
    let error = match (check.question, &report.run, &report.view) {
        (JoinQuestion::RunExists, ..) => {
            Some(NodeError::NoRun { run_id: run_id.clone(), program: config.programs.coordinator })
        }
        (JoinQuestion::Authorized, Some(run), _) => {
            Some(NodeError::NotAuthorized { wallet, join_authority: run.join_authority })
        }
        (JoinQuestion::ClientVersion, _, Some(view)) => {
            let wanted = view.account.state.client_version.as_str().to_owned();
            Some(NodeError::OtherVersion { wanted, ours: CLIENT_VERSION })
        }
        _ => None,
    };
    match error {
        Some(error) => refused(name, &error),
        None => Line::refused(name, join_exit(check.question), words),
    }
}

/// What the wallet holds, judged as a node does; `check` is what `can-join` makes of it.
async fn balance(rpc: &Rpc, config: &NodeConfig, check: Option<&JoinCheck>) -> Option<Line> {
    let wallet = config.wallet.address();
    match (rpc.balance(wallet).await, check.map(|check| &check.answer)) {
        (Err(error), _) => Some(Line::not_checked("balance", format!("not checked: failed to {error}"))),
        (Ok(Lamports(balance)), _) if balance < BALANCE_MIN => {
            Some(refused("balance", &NodeError::NoFunds { wallet, balance }))
        }
        (Ok(_), Some(JoinAnswer::Yes(words))) => Some(Line::fine("balance", words)),
        (Ok(_), Some(JoinAnswer::Warn(words))) => {
            Some(Line::warning("balance", words, "send it some SOL: about 0.1 lasts for days"))
        }
        (Ok(_), Some(JoinAnswer::No(words))) => Some(Line::refused("balance", Exit::NoFunds, words)),
        (Ok(Lamports(balance)), None) => Some(Line::fine("balance", format!("the wallet holds {balance} lamports"))),
    }
}

const fn name(question: JoinQuestion) -> &'static str {
    match question {
        JoinQuestion::RunExists => "run",
        JoinQuestion::AccountReadable => "account",
        JoinQuestion::Authorized => "authorization",
        JoinQuestion::ClientVersion => "version",
        JoinQuestion::NotFinished => "finished",
        JoinQuestion::NotPaused => "phase",
        JoinQuestion::NotMember => "member",
        JoinQuestion::RosterHasRoom => "roster",
        JoinQuestion::BatchHasRoom => "batch",
        JoinQuestion::Balance => "balance",
        JoinQuestion::ChainAccepts => "simulation",
    }
}
