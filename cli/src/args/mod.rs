//! The command line. Every option is a variable too, every default is shown, and every command shows an example.

mod common;
mod grants;
mod identity;
mod node;
mod owner;
mod rewards;
mod runs;
mod status;
#[cfg(test)]
mod tests;
mod tools;
mod values;
mod wallet;

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

pub(crate) use common::{CHAIN, ChainArgs, JsonArgs, RunArgs, TreasuryArgs, WALLET, WalletArgs};
pub(crate) use grants::{AuthorizeArgs, DelegateArgs, GrantArgs, ReadGrantArgs};
pub(crate) use identity::{CreateIdentityArgs, ShowIdentityArgs};
pub(crate) use node::{CanJoinArgs, CheckArgs, DevicesArgs, DoctorArgs, TrainArgs};
pub(crate) use owner::{CheckpointArgs, CloseRunArgs, CreateRunArgs, RatesArgs, SetPausedArgs, TickArgs, UpdateConfigArgs};
pub(crate) use rewards::{ClaimArgs, TopUpArgs};
pub(crate) use runs::{DumpRunArgs, DumpUserArgs, ListRunsArgs};
pub(crate) use status::StatusArgs;
pub(crate) use tools::{DeployArgs, GenerateArgs, InitModelArgs, TokenizeArgs};
#[cfg(feature = "localnet")]
pub(crate) use tools::{LocalnetArgs, LocalnetEndpointArgs};
pub(crate) use wallet::{AirdropArgs, BalanceArgs, CreateTokenArgs, MintTokensArgs, NewWalletArgs, WalletCommand};

#[cfg(feature = "localnet")]
use crate::compare::CompareArgs;
#[cfg(feature = "localnet")]
use crate::testnet::TestnetArgs;

/// The last lines of `--help`.
pub(crate) fn after_help() -> String {
    let codes = crate::exit::CODES.iter().map(|code| format!("  {:>3}  {}\n", code.number, code.meaning));
    format!(
        "Exit codes:\n{}\nEvery option is a variable too, in the environment or in the file given with --env-file: the \
         environment wins over the file, and an option wins over both. The wallet's private key is never an option: it is \
         read from a file, or from the variable RAW_WALLET_PRIVATE_KEY.\n\nResults go to stdout, everything else to stderr.",
        codes.collect::<String>()
    )
}

/// Joins a decentralised training run with this machine's devices, and everything around it.
#[derive(Debug, Parser)]
#[command(name = "psyche-solana-client", version, after_help = after_help(), max_term_width = 110)]
pub(crate) struct Cli {
    /// File with variables, one NAME=value a line, for those that the environment does not set.
    #[arg(long, global = true, env = "PSYCHE_ENV_FILE", value_name = "FILE")]
    pub(crate) env_file: Option<PathBuf>,
    /// How a node shows itself: `tui` is a live view of the terminal, the others are how logs are written to stderr
    /// [default: tui for a node, or a watched one, on a terminal, plain elsewhere].
    #[arg(long, global = true, env = "LOGS", value_enum)]
    pub(crate) logs: Option<Logs>,
    /// What to do; `train` where nothing is named.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Logs {
    /// Lines for people.
    #[value(alias = "console")]
    Plain,
    /// One JSON object a line.
    Json,
    /// A live view instead of lines, for a node or `status --watch` on a terminal; `plain` elsewhere.
    #[value(alias = "tui-and-console")]
    Tui,
    /// Nothing.
    None,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Join a run and train (also what happens without a subcommand).
    Train(TrainArgs),
    /// Show how a running node, or a run on chain, fares; or walk through an event log.
    Status(StatusArgs),
    /// Check that the configuration can work, without doing anything.
    CheckConfig(CheckArgs),
    /// Check everything before joining: configuration, chain, wallet, run, devices, disk, network.
    Doctor(DoctorArgs),
    /// List what this machine can train on: its CPU and its CUDA devices.
    Devices(DevicesArgs),
    /// Check whether a wallet would get into a run, and why not.
    CanJoin(CanJoinArgs),
    /// List the runs of a coordinator program.
    ListRuns(ListRunsArgs),
    /// Print everything about a run as JSON.
    JsonDumpRun(DumpRunArgs),
    /// Print everything about a wallet in a run as JSON.
    JsonDumpUser(DumpUserArgs),
    /// Claim the rewards that a wallet has earned in a run.
    TreasurerClaimRewards(ClaimArgs),
    /// Add reward tokens to a run's treasury.
    TreasurerTopUpRewards(TopUpArgs),
    /// Create a run (owner).
    CreateRun(CreateRunArgs),
    /// Change a run's configuration, model or description (owner, while the run is paused).
    UpdateConfig(UpdateConfigArgs),
    /// Pause a run, or resume it with --resume (owner).
    SetPaused(SetPausedArgs),
    /// Set what an epoch pays, and what absence costs, from the next epoch on (owner).
    SetFutureEpochRates(RatesArgs),
    /// Close a run for good and get its rent back (owner, while the run is paused or finished).
    CloseRun(CloseRunArgs),
    /// Let a wallet, or everybody, join the runs of this join authority.
    JoinAuthorizationCreate(AuthorizeArgs),
    /// Print an authorization.
    JoinAuthorizationRead(ReadGrantArgs),
    /// Let further wallets join under an authorization that this wallet was granted.
    JoinAuthorizationDelegate(DelegateArgs),
    /// Take an authorization back.
    JoinAuthorizationDelete(GrantArgs),
    /// Move a run on where its time has come, again and again; nodes do it by themselves.
    Tick(TickArgs),
    /// Name the place of a run's newest checkpoint (a member of the epoch).
    Checkpoint(CheckpointArgs),
    /// Make and look at wallets and reward tokens.
    #[command(subcommand)]
    Wallet(WalletCommand),
    /// Make a key by which peers know a node, whatever its wallet and run are.
    #[command(name = "create-static-p2p-identity")]
    CreateIdentity(CreateIdentityArgs),
    /// Print the peer id by which peers know a node.
    #[command(name = "show-static-p2p-identity")]
    ShowIdentity(ShowIdentityArgs),
    /// Put the programs on a chain, under ids of one's own.
    Deploy(DeployArgs),
    /// Train a tokenizer on text and write its tokens.
    Tokenize(TokenizeArgs),
    /// Write a model's initial weights: the same bits on every machine.
    InitModel(InitModelArgs),
    /// Let a model write: text that goes on from a prompt.
    Generate(GenerateArgs),
    /// Start a local Solana chain with the programs in place.
    #[cfg(feature = "localnet")]
    Localnet(LocalnetArgs),
    /// Serve a local chain at one more endpoint, which can be stopped to see fail-over.
    #[cfg(feature = "localnet")]
    LocalnetEndpoint(LocalnetEndpointArgs),
    /// Run several nodes on a local chain, from nothing to claimed rewards.
    #[cfg(feature = "localnet")]
    Testnet(TestnetArgs),
    /// Compare DisTrO with AdamW on this machine alone: no chain, no network.
    #[cfg(feature = "localnet")]
    CompareOptimizers(CompareArgs),
    /// Print the help of all commands as Markdown: docs/CLI.md.
    #[command(hide = true)]
    PrintAllHelp,
}
