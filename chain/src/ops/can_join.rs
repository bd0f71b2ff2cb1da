//! Whether a wallet would get into a run, check by check. A node joins by the same rules.

use psyche_messages::{Address, Lamports, Phase, RunId};
use psyche_protocol::layout::MAX_CLIENTS;

use super::grants::candidates;
use crate::error::ChainError;
use crate::rpc::Rpc;
use crate::run::{CoordinatorView, RunInfo};

/// Less than this does not pay for an hour of transactions.
const BALANCE_MIN: Lamports = Lamports(5_000_000);

/// What is checked, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JoinQuestion {
    /// A run of this name exists.
    RunExists,
    /// There is a grant that could let the wallet in.
    GrantExists,
    /// A grant does let it in.
    GrantValid,
    /// The run's account is of a kind and version that this node knows.
    AccountReadable,
    /// The wallet is not a client of the present epoch already.
    NotInEpoch,
    /// The run is not finished.
    NotFinished,
    /// The roster has room, or the wallet is in it.
    RosterHasRoom,
    /// The run wants this node's version.
    ClientVersion,
    /// The wallet can pay for transactions.
    Balance,
}

/// How a check came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinAnswer {
    /// Fine; what was found, in words.
    Yes(String),
    /// In the way; why, and what to do, in words.
    No(String),
    /// Not in the way, but worth knowing.
    Warn(String),
}

/// A check and how it came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinCheck {
    /// What was checked.
    pub question: JoinQuestion,
    /// How it came out.
    pub answer: JoinAnswer,
}

/// Everything that was checked. Checks that need what an earlier one did not find are left out.
#[derive(Clone, Debug)]
pub struct JoinReport {
    /// The run, if it exists.
    pub run: Option<RunInfo>,
    /// Its state, if it can be read.
    pub view: Option<CoordinatorView>,
    /// The checks, in order.
    pub checks: Vec<JoinCheck>,
}

impl JoinReport {
    /// Whether nothing is in the way.
    #[must_use]
    pub fn can_join(&self) -> bool {
        self.obstacle().is_none()
    }

    /// The first thing that is in the way.
    #[must_use]
    pub fn obstacle(&self) -> Option<&JoinCheck> {
        self.checks.iter().find(|check| matches!(check.answer, JoinAnswer::No(_)))
    }

    fn note(&mut self, question: JoinQuestion, answer: JoinAnswer) {
        self.checks.push(JoinCheck { question, answer });
    }
}

/// Checks whether `user` would get into the run `run_id`: by `authorizer`'s grant if given, by everyone's, or by its own.
/// `client_version` is compared with the one that the run wants, if given.
///
/// # Errors
/// [`ChainError`] only where no endpoint answers; everything else is an answer.
pub async fn can_join(
    rpc: &Rpc,
    run_id: &RunId,
    user: Address,
    authorizer: Option<Address>,
    client_version: Option<&str>,
) -> Result<JoinReport, ChainError> {
    let mut report = JoinReport { run: None, view: None, checks: Vec::new() };
    let run = match rpc.run_info(run_id).await {
        Ok(run) => run,
        Err(error) if unanswered(&error) => return Err(error),
        Err(error) => {
            report.note(JoinQuestion::RunExists, JoinAnswer::No(format!("no run {:?}: failed to {error}", run_id.as_str())));
            return Ok(report);
        }
    };
    report.note(JoinQuestion::RunExists, JoinAnswer::Yes(format!("coordinator account {}", run.account)));
    check_grants(rpc, &mut report, &run, user, authorizer).await?;
    match rpc.coordinator(run.account).await {
        Ok(view) => {
            report.note(JoinQuestion::AccountReadable, JoinAnswer::Yes(format!("{} in epoch {}", view.phase(), view.epoch())));
            check_state(&mut report, &view, user, client_version);
            report.view = Some(view);
        }
        Err(error) if unanswered(&error) => return Err(error),
        Err(error) => report.note(JoinQuestion::AccountReadable, JoinAnswer::No(format!("failed to {error}"))),
    }
    report.run = Some(run);
    check_balance(rpc, &mut report, user).await?;
    Ok(report)
}

const fn unanswered(error: &ChainError) -> bool {
    error.moves_on() || matches!(error, ChainError::Refused { .. } | ChainError::Endpoint(_))
}

async fn check_grants(
    rpc: &Rpc,
    report: &mut JoinReport,
    run: &RunInfo,
    user: Address,
    authorizer: Option<Address>,
) -> Result<(), ChainError> {
    let grants = match candidates(rpc, run, user, authorizer).await {
        Ok(grants) => grants,
        Err(error) if unanswered(&error) => return Err(error),
        Err(error) => {
            report.note(JoinQuestion::GrantExists, JoinAnswer::No(format!("failed to {error}")));
            return Ok(());
        }
    };
    if grants.is_empty() {
        let hint = match authorizer {
            Some(authorizer) => format!("the run's join authority {} has granted nothing to {authorizer}", run.join_authority),
            None => format!("ask the run's join authority {} to authorize {user}", run.join_authority),
        };
        report.note(JoinQuestion::GrantExists, JoinAnswer::No(hint));
        return Ok(());
    }
    report.note(JoinQuestion::GrantExists, JoinAnswer::Yes(format!("{} found", grants.len())));
    let answer = match grants.iter().find(|grant| grant.lets_in(user)) {
        Some(grant) => JoinAnswer::Yes(format!("authorization {}", grant.address)),
        None if grants.iter().all(|grant| !grant.active) => JoinAnswer::No("it is not active".into()),
        None => JoinAnswer::No(format!("{user} is not among its delegates: the grantee must name it")),
    };
    report.note(JoinQuestion::GrantValid, answer);
    Ok(())
}

fn check_state(report: &mut JoinReport, view: &CoordinatorView, user: Address, client_version: Option<&str>) {
    let account = &view.account;
    let in_epoch = account.client_index(&user.0).is_some() && !matches!(view.phase(), Phase::Paused | Phase::Uninitialized);
    report.note(
        JoinQuestion::NotInEpoch,
        if in_epoch {
            JoinAnswer::No("a client with this key takes part in the present epoch already".into())
        } else {
            JoinAnswer::Yes("no client with this key takes part at present".into())
        },
    );
    report.note(
        JoinQuestion::NotFinished,
        match view.phase() {
            Phase::Finished => JoinAnswer::No("the run is finished".into()),
            Phase::Paused | Phase::Uninitialized => {
                JoinAnswer::Warn("the run is paused: joining waits for its resumption".into())
            }
            phase => JoinAnswer::Yes(format!("the run is in {phase}")),
        },
    );
    let roster = account.state.clients_state.clients.len();
    report.note(
        JoinQuestion::RosterHasRoom,
        if roster < MAX_CLIENTS || account.roster_client(&user.0).is_some() {
            JoinAnswer::Yes(format!("{roster} of {MAX_CLIENTS} places taken"))
        } else {
            JoinAnswer::No(format!("all {MAX_CLIENTS} places of the roster are taken for good"))
        },
    );
    let wanted = account.state.client_version.as_str();
    report.note(
        JoinQuestion::ClientVersion,
        match client_version {
            Some(version) if accepts_version(wanted, version) => JoinAnswer::Yes(format!("the run wants {wanted:?}")),
            Some(version) => JoinAnswer::No(format!("the run wants client version {wanted:?}, this is {version:?}")),
            None => JoinAnswer::Yes(format!("the run wants {wanted:?}; not compared")),
        },
    );
}

/// Whether a run that wants clients of the version `wanted` takes one of the version `ours`. Runs that want none, or "test",
/// take any.
#[must_use]
pub fn accepts_version(wanted: &str, ours: &str) -> bool {
    wanted.is_empty() || wanted == "test" || wanted == ours
}

async fn check_balance(rpc: &Rpc, report: &mut JoinReport, user: Address) -> Result<(), ChainError> {
    let balance = rpc.balance(user).await?;
    let found = format!("{} lamports", balance.0);
    let answer = match balance {
        Lamports(0) => JoinAnswer::No(format!("{user} holds nothing and can't pay for transactions")),
        few if few < BALANCE_MIN => JoinAnswer::Warn(format!("only {found}: this lasts for few transactions")),
        _ => JoinAnswer::Yes(found),
    };
    report.note(JoinQuestion::Balance, answer);
    Ok(())
}
