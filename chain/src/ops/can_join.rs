//! Whether a wallet would get into a run, check by check. A node joins by the same rules.

#[cfg(test)]
mod tests;

use psyche_messages::{Address, ChainTime, Lamports, Phase, RunId};
use psyche_protocol::layout::{ClientState, MAX_CLIENTS};
use serde::Serialize;

use super::grants::{EVERYONE, Grant, candidates};
use super::simulate::{JoinSimulation, simulate_join};
use crate::error::ChainError;
use crate::program_error::ProgramName;
use crate::rpc::Rpc;
use crate::run::{CoordinatorView, RunInfo, about, epoch_left};

/// Less than this does not pay for an hour of transactions.
const BALANCE_COMFORTABLE: Lamports = Lamports(5_000_000);
/// What a transaction with one signature costs at least.
const FEE_MIN: u64 = 5_000;

/// What is checked, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum JoinQuestion {
    /// A run of this name exists.
    RunExists,
    /// The run's account is of a kind and version that this node knows.
    AccountReadable,
    /// A grant lets the wallet in.
    Authorized,
    /// The run wants this node's version.
    ClientVersion,
    /// The run is not finished.
    NotFinished,
    /// The run is not paused.
    NotPaused,
    /// The wallet does not take part in the present epoch already.
    NotMember,
    /// The roster has room, or the wallet is in it.
    RosterHasRoom,
    /// The global batch has a sample for one more client.
    BatchHasRoom,
    /// The wallet can pay for transactions.
    Balance,
    /// The chain, asked to simulate the join, accepts it.
    ChainAccepts,
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

/// Whose grant lets a wallet in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GrantedBy {
    /// The run is open to everybody.
    Everyone,
    /// The wallet's own grant.
    Wallet,
    /// A grant whose grantee named the wallet as its delegate.
    Delegate,
}

/// Everything that was checked. Checks that need what an earlier one did not find are left out.
#[derive(Clone, Debug)]
pub struct JoinReport {
    /// The run, if it exists.
    pub run: Option<RunInfo>,
    /// Its state, if it can be read.
    pub view: Option<CoordinatorView>,
    /// The grant that lets the wallet in, and what kind it is.
    pub grant: Option<(GrantedBy, Grant)>,
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

    /// Gives the check that the chain's refusal is about the chain's answer.
    fn amend(&mut self, refusal: &ChainError) {
        let cause = std::error::Error::source(refusal).map(|source| format!(": {source}")).unwrap_or_default();
        let words = format!("the chain would refuse: failed to {refusal}{cause}");
        let question = refused_question(refusal);
        match self.checks.iter_mut().find(|check| check.question == question) {
            Some(check) => check.answer = JoinAnswer::No(words),
            None => self.note(question, JoinAnswer::No(words)),
        }
    }
}

/// Checks whether `user` would get into the run `run_id`: by `authorizer`'s grant if given, by everyone's, or by its own.
/// `client_version` is compared with the one that the run wants, if given. Where nothing that can be read is in the way, the
/// chain is asked to simulate the join: that is the last word.
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
    let mut report = JoinReport { run: None, view: None, grant: None, checks: Vec::new() };
    let run = match rpc.run_info(run_id).await {
        Ok(run) => run,
        Err(error) => {
            let (question, words) = match answered(error)? {
                ChainError::AccountMissing { .. } => (
                    JoinQuestion::RunExists,
                    format!("there is no run {:?}: check its name, and which network the RPC endpoint is of", run_id.as_str()),
                ),
                error => (JoinQuestion::AccountReadable, other_layout(&error)),
            };
            report.note(question, JoinAnswer::No(words));
            return Ok(report);
        }
    };
    report.note(JoinQuestion::RunExists, JoinAnswer::Yes(format!("coordinator account {}", run.account)));
    match rpc.coordinator(run.account).await {
        Ok(view) => {
            let found = format!("version {}, nonce {}, slot {}", view.account.version, view.nonce(), view.slot);
            report.note(JoinQuestion::AccountReadable, JoinAnswer::Yes(found));
            report.view = Some(view);
        }
        Err(error) => report.note(JoinQuestion::AccountReadable, JoinAnswer::No(other_layout(&answered(error)?))),
    }
    check_grants(rpc, &mut report, &run, user, authorizer).await?;
    if let Some(view) = report.view.clone() {
        check_version(&mut report, &view, client_version);
        let now = rpc.clock().await.map(|(_slot, time)| time);
        check_state(&mut report, &view, user, now.ok());
    }
    check_balance(rpc, &mut report, user).await?;
    if let (true, Some(authorization)) = (report.can_join(), report.grant.as_ref().map(|(_, grant)| grant.address)) {
        match simulate_join(rpc, &run, user, authorization, None).await? {
            JoinSimulation::Accepted { units } => {
                let words = format!("the chain accepts the join ({units} compute units)");
                report.note(JoinQuestion::ChainAccepts, JoinAnswer::Yes(words));
            }
            JoinSimulation::Refused(error) => report.amend(&error),
        }
    }
    report.run = Some(run);
    Ok(report)
}

/// What the chain's refusal is about.
fn refused_question(refusal: &ChainError) -> JoinQuestion {
    match refusal.program_code(ProgramName::Coordinator) {
        // Anchor's codes for a missing authorization, and for one that does not hold.
        Some(2003 | 3012) => JoinQuestion::Authorized,
        Some(6003) => JoinQuestion::RosterHasRoom,
        Some(6022) => JoinQuestion::BatchHasRoom,
        _ if matches!(refusal, ChainError::InsufficientFunds { .. }) => JoinQuestion::Balance,
        _ => JoinQuestion::ChainAccepts,
    }
}

/// Passes on errors that say nothing about the run.
fn answered(error: ChainError) -> Result<ChainError, ChainError> {
    match error {
        ChainError::AccountMissing { .. }
        | ChainError::AccountOwner { .. }
        | ChainError::AccountMalformed { .. }
        | ChainError::AccountLayout { .. } => Ok(error),
        unanswered => Err(unanswered),
    }
}

fn other_layout(error: &ChainError) -> String {
    let cause = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    format!("failed to {error}{cause}; the run needs another version of this program, or the programs' ids are not its own")
}

async fn check_grants(
    rpc: &Rpc,
    report: &mut JoinReport,
    run: &RunInfo,
    user: Address,
    authorizer: Option<Address>,
) -> Result<(), ChainError> {
    let answer = match candidates(rpc, run, user, authorizer).await {
        Ok(grants) => {
            let (answer, by) = judge_grants(&grants, run, user, authorizer);
            report.grant = by;
            answer
        }
        Err(error) => JoinAnswer::No(other_layout(&answered(error)?)),
    };
    report.note(JoinQuestion::Authorized, answer);
    Ok(())
}

/// Which of `grants` lets `user` in, in the order in which a node tries them, or why none does.
fn judge_grants(
    grants: &[Grant],
    run: &RunInfo,
    user: Address,
    authorizer: Option<Address>,
) -> (JoinAnswer, Option<(GrantedBy, Grant)>) {
    let Some(grant) = grants.iter().find(|grant| grant.lets_in(user)) else {
        return (JoinAnswer::No(why_not(grants, run, user, authorizer)), None);
    };
    let (by, words) = match grant.grantee {
        EVERYONE => (GrantedBy::Everyone, format!("the run is open to everybody (authorization {})", grant.address)),
        own if own == user => (GrantedBy::Wallet, format!("the wallet itself is authorized ({})", grant.address)),
        grantee => (GrantedBy::Delegate, format!("as a delegate of {grantee} (authorization {})", grant.address)),
    };
    let answer = match authorizer {
        Some(given) if given != grant.grantee => {
            JoinAnswer::Warn(format!("{words}; not by the given authorizer: {}", why_not(grants, run, user, authorizer)))
        }
        _ => JoinAnswer::Yes(words),
    };
    (answer, Some((by, grant.clone())))
}

/// Why the given authorizer, or nobody at all, lets `user` in.
fn why_not(grants: &[Grant], run: &RunInfo, user: Address, authorizer: Option<Address>) -> String {
    let authority = run.join_authority;
    let Some(given) = authorizer else {
        return match grants.first() {
            Some(grant) => format!("the authorization {} is not active; ask the join authority {authority}", grant.address),
            None => format!(
                "neither everybody nor {user} is authorized; ask the run's join authority {authority}, or name the authorizer \
                 that made the wallet its delegate"
            ),
        };
    };
    match grants.iter().find(|grant| grant.grantee == given) {
        None => format!("the run's join authority {authority} has granted nothing to {given}"),
        Some(grant) if !grant.active => {
            format!("the authorization of {given} is not active; ask the join authority {authority}")
        }
        Some(_) => format!("{user} is no delegate of {given}, which has to name it with join-authorization-delegate"),
    }
}

fn check_version(report: &mut JoinReport, view: &CoordinatorView, client_version: Option<&str>) {
    let wanted = view.account.state.client_version.as_str();
    let answer = match client_version {
        Some(version) if accepts_version(wanted, version) => JoinAnswer::Yes(format!("the run wants {wanted:?}")),
        Some(version) => {
            JoinAnswer::No(format!("the run wants client version {wanted:?}, this is {version:?}; install that one"))
        }
        None => JoinAnswer::Yes(format!("the run wants {wanted:?}; not compared")),
    };
    report.note(JoinQuestion::ClientVersion, answer);
}

/// What the account says beside grants and version. Whether full lists take one more, the program decides, which may have
/// places to give away: the simulation shows it.
fn check_state(report: &mut JoinReport, view: &CoordinatorView, user: Address, now: Option<ChainTime>) {
    let (phase, state) = (view.phase(), &view.account.state);
    let epoch = view.epoch();
    report.note(
        JoinQuestion::NotFinished,
        match phase {
            Phase::Finished => JoinAnswer::No(format!("the run finished after step {}; nobody trains any more", view.step())),
            _ => JoinAnswer::Yes(format!("step {} of {}", view.step(), state.coordinator.config.total_steps)),
        },
    );
    report.note(
        JoinQuestion::NotPaused,
        match phase {
            Phase::Uninitialized => {
                JoinAnswer::No("the run has never been started; its owner has to configure and resume it".into())
            }
            Phase::Paused => JoinAnswer::No("the run is paused; join when its owner has resumed it".into()),
            Phase::Finished => JoinAnswer::Yes("the run is not paused".into()),
            _ if state.coordinator.pending_pause == 1 => {
                JoinAnswer::Warn(format!("epoch {epoch} is in {phase}; the run pauses when it ends"))
            }
            Phase::WaitingForMembers => JoinAnswer::Yes(format!("the run waits for the members of epoch {epoch}")),
            _ => {
                let left = now.and_then(|now| epoch_left(&view.account, now));
                let left = left.map_or_else(String::new, |left| format!(", and goes on for about {}", about(left)));
                JoinAnswer::Yes(format!("epoch {epoch} is in {phase}{left}; who joins now takes part from the next one on"))
            }
        },
    );
    report.note(JoinQuestion::NotMember, membership(view, user));
    let roster = &state.clients_state.clients;
    let known = view.account.roster_client(&user.0).is_some();
    let places = format!("{} of {MAX_CLIENTS} places are taken", roster.len());
    report.note(
        JoinQuestion::RosterHasRoom,
        if known {
            JoinAnswer::Yes(format!("the wallet has a place; {places}"))
        } else if roster.len() < MAX_CLIENTS {
            JoinAnswer::Yes(places)
        } else {
            JoinAnswer::Warn(format!("{places}; only one that was given up can be had"))
        },
    );
    let (batch, pending) = (usize::from(state.coordinator.config.global_batch_size_end), state.clients_state.pending().count());
    let figures = format!("{pending} clients have joined the next epoch, of at most {batch} samples a step");
    report.note(
        JoinQuestion::BatchHasRoom,
        if known || pending.max(roster.len()) < batch { JoinAnswer::Yes(figures) } else { JoinAnswer::Warn(figures) },
    );
}

/// Whether a client with this key is at work now: a second node with the same key would get in its way.
fn membership(view: &CoordinatorView, user: Address) -> JoinAnswer {
    let epoch = view.epoch();
    let training = matches!(view.phase(), Phase::Warmup | Phase::RoundTrain | Phase::RoundWitness | Phase::Cooldown);
    let client = view.account.client_index(&user.0).filter(|_| training);
    let client = client.and_then(|index| view.account.clients().get(index));
    match client.map(psyche_protocol::layout::EpochClient::client_state) {
        Some(ClientState::Healthy) => JoinAnswer::No(format!(
            "a client with this key takes part in epoch {epoch} already; use a key of its own for each node"
        )),
        Some(state) => {
            JoinAnswer::Warn(format!("the client with this key is out of epoch {epoch} ({state:?}); it may join the next one"))
        }
        None if view.phase() == Phase::WaitingForMembers && view.account.is_pending(&user.0) => {
            JoinAnswer::Warn(format!("a client with this key has joined epoch {epoch} already; joining again changes nothing"))
        }
        None => JoinAnswer::Yes("no client with this key takes part".into()),
    }
}

/// Whether a run that wants clients of the version `wanted` takes one of the version `ours`. Runs that want none, or "test",
/// take any.
#[must_use]
pub fn accepts_version(wanted: &str, ours: &str) -> bool {
    wanted.is_empty() || wanted == "test" || wanted == ours
}

async fn check_balance(rpc: &Rpc, report: &mut JoinReport, user: Address) -> Result<(), ChainError> {
    // Who pays must keep what makes an account exempt from rent.
    let kept = rpc.rent_minimum(0).await?;
    report.note(JoinQuestion::Balance, judge_balance(rpc.balance(user).await?, kept, user));
    Ok(())
}

fn judge_balance(balance: Lamports, kept: Lamports, user: Address) -> JoinAnswer {
    let needed = Lamports(kept.0.saturating_add(FEE_MIN));
    let found = format!("{} SOL", balance.in_sol());
    let needed_sol = needed.in_sol();
    if balance < needed {
        JoinAnswer::No(format!("{user} holds {found}, and needs at least {needed_sol} SOL to pay fees; send it some"))
    } else if balance < BALANCE_COMFORTABLE {
        JoinAnswer::Warn(format!("only {found}: this lasts for few transactions"))
    } else {
        JoinAnswer::Yes(found)
    }
}
