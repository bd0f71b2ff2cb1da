//! The subcommands: each parses what it needs, calls the library that does it, and prints the result.

mod authorization;
mod can_join;
mod deploy;
mod init_model;
#[cfg(feature = "localnet")]
mod localnet;
mod owner;
mod rewards;
mod tokenize;
mod train;
mod wallet;

use anyhow::Result;
use psyche_actors::config::VARIABLES;
use psyche_chain::{ChainError, ProgramIds, Rpc, RpcConfig, Wallet};
use psyche_messages::Secret;

use crate::args::{ChainArgs, Command, RunArgs, TrainArgs, WalletArgs};
use crate::exit::{Exit, Failure};

/// Carries `command` out; `train` where there is none.
pub(crate) async fn run(command: Option<Command>) -> Result<()> {
    match command.unwrap_or_else(|| Command::Train(TrainArgs::default())) {
        Command::Train(args) => train::run(args).await,
        Command::CheckConfig(args) => train::check(args),
        Command::CanJoin(args) => can_join::run(args).await,
        Command::TreasurerClaimRewards(args) => rewards::claim(args).await,
        Command::TreasurerTopUpRewards(args) => rewards::top_up(args).await,
        Command::CreateRun(args) => owner::create(args).await,
        Command::UpdateConfig(args) => owner::update(args).await,
        Command::SetPaused(args) => owner::set_paused(args).await,
        Command::SetFutureEpochRates(args) => owner::set_rates(args).await,
        Command::JoinAuthorizationCreate(args) => authorization::create(args).await,
        Command::JoinAuthorizationDelegate(args) => authorization::delegate(args).await,
        Command::Wallet(command) => wallet::run(command).await,
        Command::Deploy(args) => deploy::run(args).await,
        Command::Tokenize(args) => tokenize::run(&args),
        Command::InitModel(args) => init_model::run(&args),
        #[cfg(feature = "localnet")]
        Command::Localnet(args) => localnet::run(args).await,
        #[cfg(feature = "localnet")]
        Command::Testnet(args) => crate::testnet::run(args).await,
    }
}

/// The help text of all variables.
pub(crate) fn variables_help() -> String {
    let lines = VARIABLES.iter().map(|variable| format!("  {:<28}{}\n", variable.name, variable.meaning));
    format!("Variables:\n{}", lines.collect::<String>())
}

/// Our errors complete "failed to …"; people read the whole sentence.
pub(crate) fn failed_to(error: impl std::error::Error + Send + Sync + 'static) -> anyhow::Error {
    let text = format!("failed to {error}");
    anyhow::Error::new(error).context(text)
}

/// As [`failed_to`], with the exit code that the chain's answer calls for.
pub(crate) fn chain_failed(error: ChainError) -> anyhow::Error {
    let (exit, advice) = match &error {
        ChainError::AccountMissing { .. } => (Exit::NoRun, "check --run-id, and which chain --rpc leads to"),
        ChainError::InsufficientFunds { .. } => (Exit::NoFunds, "send SOL to the wallet (on test networks: wallet airdrop)"),
        ChainError::Unreachable { .. } | ChainError::Timeout { .. } => {
            (Exit::Unreachable, "check --rpc or the variable RPC: it must be your Solana RPC provider's URL")
        }
        _ => return failed_to(error),
    };
    anyhow::Error::new(Failure::new(exit, format!("failed to {}; {advice}", psyche_actors::chain_of(&error))))
}

/// The chain that `args` and the variables `RPC_2`, `RPC_3` and so on name.
pub(crate) fn connect(args: &ChainArgs) -> Result<Rpc> {
    let environment =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let variables = environment.chain([("RPC".to_owned(), args.rpc.clone())]);
    let endpoints = psyche_actors::config::endpoints_from(variables)
        .map_err(|error| Failure::new(Exit::Configuration, format!("failed to {error}")))?;
    let mut config = RpcConfig::new(endpoints.pairs);
    config.programs = program_ids(args);
    Rpc::new(config).map_err(chain_failed)
}

fn program_ids(args: &ChainArgs) -> ProgramIds {
    let mut ids = ProgramIds::default();
    ids.coordinator = args.coordinator_program_id.unwrap_or(ids.coordinator);
    ids.authorizer = args.authorizer_program_id.unwrap_or(ids.authorizer);
    ids.treasurer = args.treasurer_program_id.unwrap_or(ids.treasurer);
    ids
}

/// The chain and the wallet of somebody who acts on a run.
pub(crate) fn act(args: &RunArgs) -> Result<(Rpc, Wallet)> {
    Ok((connect(&args.chain)?, wallet_of(&args.wallet)?))
}

/// The wallet that `args` or `RAW_WALLET_PRIVATE_KEY` name.
pub(crate) fn wallet_of(args: &WalletArgs) -> Result<Wallet> {
    find_wallet(args)?.ok_or_else(|| {
        let message = "no wallet: give --wallet-private-key-path, or set WALLET_PRIVATE_KEY_PATH or RAW_WALLET_PRIVATE_KEY";
        Failure::new(Exit::Configuration, message).into()
    })
}

/// As [`wallet_of`], where doing without is possible.
pub(crate) fn find_wallet(args: &WalletArgs) -> Result<Option<Wallet>> {
    // The reference client lets the raw key win over the variable with the path; a path on the command line is closer still.
    let from_option = std::env::args_os().any(|arg| arg.to_string_lossy().starts_with("--wallet-private-key-path"));
    if !from_option
        && let Ok(raw) = std::env::var("RAW_WALLET_PRIVATE_KEY").map(Secret::new)
        && !raw.expose().trim().is_empty()
    {
        let wallet = Wallet::from_text(raw.expose()).map_err(|error| {
            let problem = psyche_actors::chain_of(&error);
            Failure::new(Exit::Configuration, format!("RAW_WALLET_PRIVATE_KEY: failed to {problem}"))
        })?;
        return Ok(Some(wallet));
    }
    let Some(path) = &args.wallet_private_key_path else { return Ok(None) };
    let (wallet, warning) = Wallet::from_file(path).map_err(|error| {
        let problem = psyche_actors::chain_of(&error);
        Failure::new(Exit::Configuration, format!("the wallet file can't be used: failed to {problem}"))
    })?;
    if let Some(warning) = warning {
        crate::output::note(format_args!("warning: {warning}"));
    }
    Ok(Some(wallet))
}

/// Runs something that can be interrupted without harm, until Ctrl-C.
pub(crate) async fn until_interrupted<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        done = work => done,
        stop = crate::signals::stop_requested() => {
            let signal = stop?;
            Err(anyhow::anyhow!("stopped by {signal}; what was confirmed stays, and the same command goes on from there"))
        }
    }
}
