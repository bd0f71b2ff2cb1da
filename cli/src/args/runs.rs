//! What only reads: runs and those who take part in them.

use clap::{Args, ValueEnum};
use psyche_messages::{Address, Phase, RunId};

use super::values::{address, run_id};
use super::{ChainArgs, JsonArgs, TreasuryArgs, WalletArgs};

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  psyche-solana-client list-runs --rpc <RPC> --state waiting-for-members")]
pub(crate) struct ListRunsArgs {
    /// Only runs in this state.
    #[arg(long, env = "RUN_STATE", value_enum)]
    pub(crate) state: Option<RunState>,
    /// Only runs of this join authority.
    #[arg(long, env = "JOIN_AUTHORITY", value_name = "ADDRESS", value_parser = address)]
    pub(crate) join_authority: Option<Address>,
    /// Only runs that this wallet or treasury owns.
    #[arg(long, env = "MAIN_AUTHORITY", value_name = "ADDRESS", value_parser = address)]
    pub(crate) main_authority: Option<Address>,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
    #[command(flatten)]
    pub(crate) chain: ChainArgs,
}

/// What a run may be doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RunState {
    /// Never started.
    Uninitialized,
    /// Waiting until enough clients have joined.
    WaitingForMembers,
    /// Clients load the model.
    Warmup,
    /// Clients train.
    RoundTrain,
    /// Late witnesses are collected.
    RoundWitness,
    /// An epoch ends.
    Cooldown,
    /// All steps are trained.
    Finished,
    /// The owner paused it.
    Paused,
}

impl From<RunState> for Phase {
    fn from(state: RunState) -> Self {
        match state {
            RunState::Uninitialized => Self::Uninitialized,
            RunState::WaitingForMembers => Self::WaitingForMembers,
            RunState::Warmup => Self::Warmup,
            RunState::RoundTrain => Self::RoundTrain,
            RunState::RoundWitness => Self::RoundWitness,
            RunState::Cooldown => Self::Cooldown,
            RunState::Finished => Self::Finished,
            RunState::Paused => Self::Paused,
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  psyche-solana-client json-dump-run --rpc <RPC> --run-id <RUN_ID>")]
pub(crate) struct DumpRunArgs {
    /// The run's name.
    #[arg(long, short = 'r', env = "RUN_ID", value_parser = run_id)]
    pub(crate) run_id: RunId,
    #[command(flatten)]
    pub(crate) treasury: TreasuryArgs,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
    #[command(flatten)]
    pub(crate) chain: ChainArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  psyche-solana-client json-dump-user --rpc <RPC> --run-id <RUN_ID> \\
    --address <WALLET>")]
pub(crate) struct DumpUserArgs {
    /// The run's name.
    #[arg(long, short = 'r', env = "RUN_ID", value_parser = run_id)]
    pub(crate) run_id: RunId,
    #[command(flatten)]
    pub(crate) treasury: TreasuryArgs,
    /// The wallet's address; read from RAW_WALLET_PRIVATE_KEY or the key file where it is not given.
    #[arg(long, visible_aliases = ["pubkey", "wallet", "user"], env = "ADDRESS", value_name = "ADDRESS", value_parser = address)]
    pub(crate) address: Option<Address>,
    /// An address that may have made the wallet its delegate, for the grant by which it may join.
    #[arg(long, env = "AUTHORIZER", value_name = "ADDRESS", value_parser = address)]
    pub(crate) authorizer: Option<Address>,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
    #[command(flatten)]
    pub(crate) chain: ChainArgs,
    #[command(flatten)]
    pub(crate) wallet: WalletArgs,
}
