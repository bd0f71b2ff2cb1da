//! `can-join`: every reason why a wallet may or may not join a run.

use anyhow::Result;
use psyche_actors::CLIENT_VERSION;
use psyche_chain::ops::{self, JoinAnswer, JoinCheck, JoinQuestion};

use super::{chain_failed, connect, wallet_of};
use crate::args::CanJoinArgs;
use crate::exit::{Exit, Failure};
use crate::output;

pub(crate) async fn run(args: CanJoinArgs) -> Result<()> {
    let pubkey = match args.pubkey {
        Some(pubkey) => pubkey,
        None => wallet_of(&args.wallet)?.address(),
    };
    let rpc = connect(&args.chain)?;
    let report =
        ops::can_join(&rpc, &args.run_id, pubkey, args.authorizer, Some(CLIENT_VERSION)).await.map_err(chain_failed)?;
    for check in &report.checks {
        let (mark, words) = match &check.answer {
            JoinAnswer::Yes(words) => ("✓", words),
            JoinAnswer::No(words) => ("✗", words),
            JoinAnswer::Warn(words) => ("!", words),
        };
        output::line(format_args!("{mark} {:<22} {words}", name(check.question)))?;
    }
    // The question is whether the run lets the wallet in; funds can still be sent.
    let refused = |check: &&JoinCheck| matches!(check.answer, JoinAnswer::No(_));
    let Some(obstacle) = report.checks.iter().filter(refused).find(|check| check.question != JoinQuestion::Balance) else {
        let condition = if report.can_join() { "" } else { ", once the wallet holds some SOL" };
        output::line(format_args!("✓ Can join run {}{condition}", args.run_id))?;
        return Ok(());
    };
    let exit = match obstacle.question {
        JoinQuestion::RunExists | JoinQuestion::AccountReadable => Exit::NoRun,
        JoinQuestion::GrantExists | JoinQuestion::GrantValid => Exit::NotAuthorized,
        JoinQuestion::ClientVersion => Exit::OtherVersion,
        JoinQuestion::Balance | JoinQuestion::NotInEpoch | JoinQuestion::NotFinished | JoinQuestion::RosterHasRoom => {
            Exit::Failure
        }
    };
    let words = match &obstacle.answer {
        JoinAnswer::Yes(words) | JoinAnswer::No(words) | JoinAnswer::Warn(words) => words,
    };
    Err(Failure::new(exit, format!("{pubkey} can't join run {}: {words}", args.run_id)).into())
}

const fn name(question: JoinQuestion) -> &'static str {
    match question {
        JoinQuestion::RunExists => "run",
        JoinQuestion::GrantExists => "authorization",
        JoinQuestion::GrantValid => "authorization valid",
        JoinQuestion::AccountReadable => "coordinator",
        JoinQuestion::NotInEpoch => "not in the epoch yet",
        JoinQuestion::NotFinished => "not finished",
        JoinQuestion::RosterHasRoom => "room",
        JoinQuestion::ClientVersion => "client version",
        JoinQuestion::Balance => "balance",
    }
}
