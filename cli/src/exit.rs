//! Exit codes, and how a failure becomes one.

use std::fmt;
use std::process::ExitCode;

use psyche_chain::{ChainError, FrameworkRefusal, ProgramRefusal};
use psyche_protocol::books::AuthorizerError;
use psyche_protocol::machine::CoordinatorError;

/// What the process's exit code means; documented in `--help`, docs/CLI.md and docs/OPERATORS.md from [`CODES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Something failed; the message says what.
    Failure = 1,
    /// The configuration cannot work; every violation is listed.
    Configuration = 3,
    /// The run does not exist.
    NoRun = 4,
    /// The wallet may not join the run.
    NotAuthorized = 5,
    /// The wallet has too little to pay for what it is to do.
    NoFunds = 6,
    /// No RPC endpoint answers, or no node.
    Unreachable = 7,
    /// An account is of another version or kind than this program knows.
    OtherLayout = 8,
    /// A client with this key takes part already.
    Member = 9,
    /// The run wants another version of the client.
    OtherVersion = 10,
    /// The run is finished.
    Finished = 11,
    /// The run is paused, or was never started.
    Paused = 12,
    /// The run's roster is full.
    RosterFull = 13,
    /// The run has as many clients as its global batch has samples.
    BatchFull = 14,
    /// The run's state or a program does not allow it.
    Refused = 15,
    /// The model does not fit into the devices.
    TooLarge = 16,
    /// The data folder can't be used.
    Disk = 17,
    /// The port for peers can't be listened on.
    Port = 18,
    /// Stopped by Ctrl-C or SIGTERM before it was done.
    Interrupted = 130,
}

/// An exit code as people read it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Code {
    /// The number.
    pub(crate) number: u8,
    /// What it means.
    pub(crate) meaning: &'static str,
}

const fn code(exit: Exit, meaning: &'static str) -> Code {
    Code { number: exit as u8, meaning }
}

/// All of them.
pub(crate) const CODES: &[Code] = &[
    Code { number: 0, meaning: "done; for can-join and doctor: nothing is in the way of joining" },
    code(Exit::Failure, "failed, for the reason given"),
    Code { number: 2, meaning: "wrong usage" },
    code(Exit::Configuration, "unusable configuration, key or file; or endpoints of different networks"),
    code(Exit::NoRun, "there is no such run, or none that this wallet may join"),
    code(Exit::NotAuthorized, "the wallet is not authorized to join"),
    code(Exit::NoFunds, "too few funds for transaction fees"),
    code(Exit::Unreachable, "no RPC endpoint answers; for status: no node does"),
    code(Exit::OtherLayout, "an account is of another version or kind than this program knows"),
    code(Exit::Member, "a client with this key takes part in the present epoch already"),
    code(Exit::OtherVersion, "the run wants another version of the client"),
    code(Exit::Finished, "the run is finished"),
    code(Exit::Paused, "the run is paused, or was never started"),
    code(Exit::RosterFull, "the run's roster is full"),
    code(Exit::BatchFull, "the run has as many clients as its global batch has samples"),
    code(Exit::Refused, "the run's state or a program does not allow it, for the reason given"),
    code(Exit::TooLarge, "the model can't be split over the devices, or does not fit into them"),
    code(Exit::Disk, "the data folder can't be used, or another node uses it"),
    code(Exit::Port, "the port for peers can't be listened on"),
    code(Exit::Interrupted, "stopped by Ctrl-C or SIGTERM before it was done"),
];

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A failure that has an exit code of its own.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The code.
    pub(crate) exit: Exit,
    /// What happened, and what to do next.
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Our errors complete "failed to …"; people read the whole sentence.
pub(crate) fn failed_to(error: impl std::error::Error + Send + Sync + 'static) -> anyhow::Error {
    let text = format!("failed to {error}");
    anyhow::Error::new(error).context(text)
}

/// What the chain's answer means for the process, in one sentence with its remedy.
pub(crate) fn chain_failed(error: ChainError) -> anyhow::Error {
    chain_said(&error)
}

/// As [`chain_failed`], of an error that is somebody else's.
pub(crate) fn chain_said(error: &ChainError) -> anyhow::Error {
    let (exit, remedy) = verdict(error);
    let problem = psyche_actors::chain_of(error);
    let remedy = if remedy.is_empty() { String::new() } else { format!("; {remedy}") };
    anyhow::Error::new(Failure::new(exit, format!("failed to {problem}{remedy}")))
}

/// The exit code, and what helps, where the error itself does not say it.
fn verdict(error: &ChainError) -> (Exit, &'static str) {
    let endpoint = "check --rpc or the variable RPC (http://127.0.0.1:8899 is asked where neither is given), or name another \
                    provider as RPC_2";
    match error {
        ChainError::AccountMissing { what: "run" | "coordinator account", .. } => {
            (Exit::NoRun, "check --run-id, and of which network --rpc is")
        }
        ChainError::AccountMissing { what: "authorization", .. } => {
            (Exit::NotAuthorized, "the join authority makes one with join-authorization-create")
        }
        ChainError::AccountMissing { .. } => (Exit::Refused, "check the address, and of which network --rpc is"),
        ChainError::AccountOwner { .. } | ChainError::AccountMalformed { .. } | ChainError::AccountLayout { .. } => (
            Exit::OtherLayout,
            "it needs another version of this program, or other programs (COORDINATOR_PROGRAM_ID, AUTHORIZER_PROGRAM_ID, \
             TREASURER_PROGRAM_ID)",
        ),
        ChainError::InsufficientFunds { .. } => (Exit::NoFunds, "send SOL to the wallet (on test networks: wallet airdrop)"),
        ChainError::Http { status: 429, .. } => {
            (Exit::Unreachable, "the provider takes no more requests for now: wait, or name another one as RPC_2")
        }
        ChainError::WrongCluster { .. } => {
            (Exit::Configuration, "take the endpoint of the other network out of RPC, RPC_2 and so on")
        }
        ChainError::Unreachable { .. }
        | ChainError::NoneHealthy { .. }
        | ChainError::Timeout { .. }
        | ChainError::Http { .. }
        | ChainError::Malformed { .. }
        | ChainError::Unfit { .. }
        | ChainError::Behind { .. } => (Exit::Unreachable, endpoint),
        ChainError::Endpoint(_) | ChainError::Wallet(_) => (Exit::Configuration, ""),
        ChainError::Expired { .. } => (Exit::Failure, "nothing happened; try again"),
        ChainError::Unsettled { .. } => (Exit::Failure, "look before trying again: json-dump-run or wallet balance tells"),
        ChainError::Program { refusal, .. } => (Exit::Refused, refusal_remedy(refusal)),
        ChainError::Transaction { .. }
        | ChainError::NotPossible { .. }
        | ChainError::Obstructed { .. }
        | ChainError::Refused { .. } => (Exit::Refused, ""),
        _ => (Exit::Failure, ""),
    }
}

/// What helps against a program's refusal, where its sentence does not say it and a command of ours does.
const fn refusal_remedy(refusal: &ProgramRefusal) -> &'static str {
    use {AuthorizerError as A, CoordinatorError as C, FrameworkRefusal as F, ProgramRefusal as P};
    match refusal {
        P::Coordinator(C::ConfigSanityCheckFailed | C::ModelSanityCheckFailed) => "set it with update-config --config-path",
        P::Coordinator(C::ProgressSanityCheckFailed) => "set the step with update-config --restart-from-step",
        P::Coordinator(C::UpdateConfigNotHalted | C::CloseCoordinatorNotHalted) => {
            "set-paused pauses it, at the end of an epoch that is training"
        }
        P::Coordinator(C::StepsDone) => "total_steps is in the file of update-config --config-path",
        P::Coordinator(C::Halted) => "set-paused --resume starts it, unless it is finished",
        P::Coordinator(C::CannotResume) => "list-runs shows what it is doing",
        P::Coordinator(C::ClientsFull | C::MoreClientsThanBatches) => "wait for a later epoch, or ask the run's owner for room",
        P::Coordinator(C::SignerNotAClient) => "train joins it",
        P::Coordinator(C::NoActiveRound | C::InvalidRunState) => "list-runs shows its phase; try again in the next one",
        P::Framework(F::ConstraintRaw | F::ConstraintHasOne | F::ConstraintSigner) => {
            "check that --wallet-private-key-path is the wallet that may do this"
        }
        P::Framework(F::AccountNotInitialized) => "can-join says what is missing",
        P::Authorizer(A::TooManyDelegates) => "join-authorization-delegate --delegates-clear makes room",
        P::Authorizer(A::AuthorizationClosingConditionsNotReachedYet) => {
            "wait, or have the grantee clear them with join-authorization-delegate --delegates-clear"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use super::*;

    #[test]
    fn exit_codes_are_distinct_and_all_documented_for_operators() {
        let guide = include_str!("../../docs/OPERATORS.md");
        for (index, code) in CODES.iter().enumerate() {
            assert!(CODES[..index].iter().all(|other| other.number != code.number), "{code:?}");
            let row = format!("| {} |", code.number);
            assert!(guide.lines().any(|line| line.starts_with(&row)), "docs/OPERATORS.md has no row {row}");
        }
    }

    #[test]
    fn a_refusals_remedy_names_commands_that_there_are() {
        use clap::CommandFactory as _;
        let program = crate::args::Cli::command();
        let framework = FrameworkRefusal::ALL.iter().copied().map(ProgramRefusal::Framework);
        let coordinator = CoordinatorError::ALL.iter().copied().map(ProgramRefusal::Coordinator);
        let authorizer = AuthorizerError::ALL.iter().copied().map(ProgramRefusal::Authorizer);
        let mut named = 0;
        for refusal in framework.chain(coordinator).chain(authorizer) {
            let remedy = refusal_remedy(&refusal);
            let command = |word: &&str| word.contains('-') && !word.starts_with('-');
            for word in remedy.split([' ', ',', ';']).filter(command) {
                assert!(program.find_subcommand(word).is_some(), "{refusal:?}: {remedy}");
                named += 1;
            }
        }
        assert!(named > 10, "{named}");
    }

    #[test]
    fn what_is_missing_is_told_apart() {
        let address = psyche_messages::Address([7; 32]);
        let missing = |what| verdict(&ChainError::AccountMissing { what, address }).0;
        assert_eq!(missing("run"), Exit::NoRun);
        assert_eq!(missing("authorization"), Exit::NotAuthorized);
        assert_eq!(missing("token"), Exit::Refused);
    }
}
