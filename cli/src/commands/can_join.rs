//! `can-join`: every reason why a wallet may or may not join a run.

use anyhow::Result;
use psyche_actors::CLIENT_VERSION;
use psyche_chain::ops::{self, GrantedBy, JoinAnswer, JoinCheck, JoinQuestion, JoinReport};
use psyche_messages::{Address, Epoch, Phase, RunId, Step};
use serde::Serialize;

use super::{address_of, chain_failed, connect};
use crate::args::CanJoinArgs;
use crate::exit::{Exit, Failure};
use crate::{output, work};

pub(crate) async fn run(args: CanJoinArgs) -> Result<()> {
    let wallet = address_of(args.pubkey, &args.wallet)?;
    let rpc = connect(&args.chain).await?;
    let asked = ops::can_join(&rpc, &args.run_id, wallet, args.authorizer, Some(CLIENT_VERSION));
    let report = work::resumable("asking the chain", async { asked.await.map_err(chain_failed) }).await?;
    let answer = Answer::new(&args.run_id, wallet, &report);
    if args.json.json {
        output::json(&answer)?;
    } else {
        for check in &answer.checks {
            output::line(format_args!("{} {:<16} {}", check.verdict.mark(), check.name, check.detail))?;
        }
        if answer.can_join {
            output::line(format_args!("✓ Can join run {}", args.run_id))?;
        }
    }
    match report.obstacle() {
        None => Ok(()),
        Some(obstacle) => {
            let words = words(&obstacle.answer);
            Err(Failure::new(exit(obstacle.question), format!("{wallet} can't join run {}: {words}", args.run_id)).into())
        }
    }
}

/// The report as scripts read it.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    run_id: &'a RunId,
    wallet: Address,
    can_join: bool,
    /// What the process exits with.
    exit_code: u8,
    /// What the run is doing, where that is known.
    state: Option<State>,
    /// Whose grant lets the wallet in, if any does.
    granted_by: Option<GrantedBy>,
    /// The grant's account.
    authorization: Option<Address>,
    /// Whom the grant was given to; the system program stands for everybody.
    authorizer: Option<Address>,
    checks: Vec<Check<'a>>,
}

#[derive(Debug, Serialize)]
struct State {
    phase: Phase,
    epoch: Epoch,
    step: Step,
}

#[derive(Debug, Serialize)]
struct Check<'a> {
    check: JoinQuestion,
    #[serde(skip)]
    name: &'static str,
    verdict: Verdict,
    /// What the process would exit with if this were the first obstacle.
    exit_code: u8,
    detail: &'a str,
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Yes,
    No,
    Warning,
}

impl Verdict {
    const fn mark(self) -> &'static str {
        match self {
            Self::Yes => "✓",
            Self::No => "✗",
            Self::Warning => "!",
        }
    }
}

impl<'a> Answer<'a> {
    fn new(run_id: &'a RunId, wallet: Address, report: &'a JoinReport) -> Self {
        let grant = report.grant.as_ref();
        Self {
            run_id,
            wallet,
            can_join: report.can_join(),
            exit_code: report.obstacle().map_or(0, |obstacle| exit(obstacle.question) as u8),
            state: report.view.as_ref().map(|view| State { phase: view.phase(), epoch: view.epoch(), step: view.step() }),
            granted_by: grant.map(|(by, _)| *by),
            authorization: grant.map(|(_, grant)| grant.address),
            authorizer: grant.map(|(_, grant)| grant.grantee),
            checks: report.checks.iter().map(Check::new).collect(),
        }
    }
}

impl<'a> Check<'a> {
    fn new(check: &'a JoinCheck) -> Self {
        let verdict = match check.answer {
            JoinAnswer::Yes(_) => Verdict::Yes,
            JoinAnswer::No(_) => Verdict::No,
            JoinAnswer::Warn(_) => Verdict::Warning,
        };
        let exit_code = if matches!(verdict, Verdict::No) { exit(check.question) as u8 } else { 0 };
        Self { check: check.question, name: name(check.question), verdict, exit_code, detail: words(&check.answer) }
    }
}

fn words(answer: &JoinAnswer) -> &str {
    match answer {
        JoinAnswer::Yes(words) | JoinAnswer::No(words) | JoinAnswer::Warn(words) => words,
    }
}

pub(crate) const fn exit(question: JoinQuestion) -> Exit {
    match question {
        JoinQuestion::RunExists => Exit::NoRun,
        JoinQuestion::AccountReadable => Exit::OtherLayout,
        JoinQuestion::Authorized => Exit::NotAuthorized,
        JoinQuestion::ClientVersion => Exit::OtherVersion,
        JoinQuestion::NotFinished => Exit::Finished,
        JoinQuestion::NotPaused => Exit::Paused,
        JoinQuestion::NotMember => Exit::Member,
        JoinQuestion::RosterHasRoom => Exit::RosterFull,
        JoinQuestion::BatchHasRoom => Exit::BatchFull,
        JoinQuestion::Balance => Exit::NoFunds,
        JoinQuestion::ChainAccepts => Exit::Refused,
    }
}

const fn name(question: JoinQuestion) -> &'static str {
    match question {
        JoinQuestion::RunExists => "run",
        JoinQuestion::AccountReadable => "account",
        JoinQuestion::Authorized => "authorization",
        JoinQuestion::ClientVersion => "client version",
        JoinQuestion::NotFinished => "not finished",
        JoinQuestion::NotPaused => "not paused",
        JoinQuestion::NotMember => "not in the epoch",
        JoinQuestion::RosterHasRoom => "roster",
        JoinQuestion::BatchHasRoom => "batch",
        JoinQuestion::Balance => "balance",
        JoinQuestion::ChainAccepts => "simulated join",
    }
}
