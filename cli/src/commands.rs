//! The subcommands: each parses what it needs, calls the library that does it, and prints the result.

mod authorization;
mod can_join;
mod checkpoint;
mod deploy;
mod devices;
mod doctor;
mod generate;
mod help;
mod identity;
mod init_model;
#[cfg(feature = "localnet")]
mod localnet;
#[cfg(feature = "localnet")]
mod localnet_endpoint;
mod owner;
mod rewards;
mod runs;
mod status;
mod tokenize;
mod train;
mod update;
mod wallet;

use anyhow::Result;
use psyche_actors::config::{Unset, VARIABLES};
use psyche_chain::{ProgramIds, Rpc, RpcConfig, Wallet, addresses};
use psyche_messages::{Address, RunId, Secret};

use crate::args::{ChainArgs, Command, RunArgs, TrainArgs, TreasuryArgs, WalletArgs};
pub(crate) use can_join::exit as join_exit;

pub(crate) use crate::exit::{Exit, Failure, chain_failed, chain_said, failed_to};
use crate::work;

/// Carries `command` out; `train` where there is none.
pub(crate) async fn run(command: Option<Command>, live: bool) -> Result<()> {
    match command.unwrap_or_else(|| Command::Train(TrainArgs::default())) {
        Command::Train(args) => train::run(args, live).await,
        Command::Status(args) => status::run(args, live).await,
        Command::CheckConfig(args) => train::check(args),
        Command::Doctor(args) => doctor::run(args).await,
        Command::Devices(args) => devices::run(args.json),
        Command::CanJoin(args) => can_join::run(args).await,
        Command::ListRuns(args) => runs::list(args).await,
        Command::JsonDumpRun(args) => runs::dump_run(args).await,
        Command::JsonDumpUser(args) => runs::dump_user(args).await,
        Command::TreasurerClaimRewards(args) => rewards::claim(args).await,
        Command::TreasurerTopUpRewards(args) => rewards::top_up(args).await,
        Command::CreateRun(args) => owner::create(args).await,
        Command::UpdateConfig(args) => update::run(args).await,
        Command::SetPaused(args) => owner::set_paused(args).await,
        Command::SetFutureEpochRates(args) => owner::set_rates(args).await,
        Command::CloseRun(args) => owner::close(args).await,
        Command::JoinAuthorizationCreate(args) => authorization::create(args).await,
        Command::JoinAuthorizationRead(args) => authorization::read(args).await,
        Command::JoinAuthorizationDelegate(args) => authorization::delegate(args).await,
        Command::JoinAuthorizationDelete(args) => authorization::delete(args).await,
        Command::Tick(args) => owner::tick(args).await,
        Command::Checkpoint(args) => checkpoint::run(args).await,
        Command::Wallet(command) => wallet::run(command).await,
        Command::CreateIdentity(args) => identity::create(&args),
        Command::ShowIdentity(args) => identity::show(&args),
        Command::Deploy(args) => deploy::run(args).await,
        Command::Tokenize(args) => tokenize::run(&args),
        Command::InitModel(args) => init_model::run(&args),
        Command::Generate(args) => generate::run(&args),
        Command::PrintAllHelp => help::run(),
        #[cfg(feature = "localnet")]
        Command::Localnet(args) => localnet::run(args).await,
        #[cfg(feature = "localnet")]
        Command::LocalnetEndpoint(args) => localnet_endpoint::run(args).await,
        #[cfg(feature = "localnet")]
        Command::CompareOptimizers(args) => crate::compare::run(&args),
        #[cfg(feature = "localnet")]
        Command::Testnet(args) => crate::testnet::run(args).await,
    }
}

/// The help text of all variables.
pub(crate) fn variables_help() -> String {
    let lines = VARIABLES.iter().map(|variable| {
        let unset = match variable.unset {
            Unset::Is(value) | Unset::Means(value) => format!(" (default: {value})"),
            Unset::Nothing => String::new(),
        };
        format!("  {:<28}{}{unset}\n", variable.name, variable.meaning)
    });
    format!("Variables:\n{}", lines.collect::<String>())
}

/// The chain that `args` and the variables `RPC_2`, `RPC_3` and so on name.
pub(crate) async fn connect(args: &ChainArgs) -> Result<Rpc> {
    let environment =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let websocket = args.ws_rpc.iter().map(|url| ("WS_RPC".to_owned(), url.clone()));
    let variables: Vec<_> = environment.chain([("RPC".to_owned(), args.rpc.clone())]).chain(websocket).collect();
    let refused = |error| Failure::new(Exit::Configuration, format!("failed to {error}"));
    let fees = psyche_actors::config::fees_from(variables.iter().cloned()).map_err(refused)?;
    let endpoints = psyche_actors::config::endpoints_from(variables).map_err(refused)?;
    let mut config = RpcConfig::new(endpoints.pairs);
    config.programs = program_ids(args);
    config.fee_floor_micro_lamports = fees.floor_micro_lamports;
    config.fee_ceiling_micro_lamports = fees.cap_micro_lamports;
    let several = config.endpoints.len() > 1;
    let rpc = Rpc::new(config).map_err(chain_failed)?;
    if several {
        // What one network says must not be acted upon in another.
        work::resumable("asking the endpoints for their networks", async { rpc.check_clusters().await.map_err(chain_failed) })
            .await?;
    }
    Ok(rpc)
}

fn program_ids(args: &ChainArgs) -> ProgramIds {
    let mut ids = ProgramIds::default();
    ids.coordinator = args.coordinator_program_id.unwrap_or(ids.coordinator);
    ids.authorizer = args.authorizer_program_id.unwrap_or(ids.authorizer);
    ids.treasurer = args.treasurer_program_id.unwrap_or(ids.treasurer);
    ids
}

/// The chain and the wallet of somebody who acts on a run.
pub(crate) async fn act(args: &RunArgs) -> Result<(Rpc, Wallet)> {
    // A wallet that can't be used is told before anybody is asked anything.
    let wallet = wallet_of(&args.wallet)?;
    Ok((connect(&args.chain).await?, wallet))
}

/// The wallet that `args` or `RAW_WALLET_PRIVATE_KEY` name.
pub(crate) fn wallet_of(args: &WalletArgs) -> Result<Wallet> {
    find_wallet(args)?.ok_or_else(|| {
        let message = "no wallet: give --wallet-private-key-path, or set WALLET_PRIVATE_KEY_PATH or RAW_WALLET_PRIVATE_KEY \
                       (`wallet new` makes a key file)";
        Failure::new(Exit::Configuration, message).into()
    })
}

/// Whether the command line itself names a key file. Operators know the raw key to win over the variable with the path; a path
/// on the command line is closer still.
pub(crate) fn names_wallet_file() -> bool {
    std::env::args_os().any(|arg| arg.to_string_lossy().starts_with("--wallet-private-key-path"))
}

/// As [`wallet_of`], where doing without is possible.
pub(crate) fn find_wallet(args: &WalletArgs) -> Result<Option<Wallet>> {
    if !names_wallet_file()
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
    let wallet = Wallet::from_file(path).map_err(|error| {
        let problem = psyche_actors::chain_of(&error);
        Failure::new(Exit::Configuration, format!("the wallet file can't be used: failed to {problem}"))
    })?;
    Ok(Some(wallet))
}

/// The address that was given, or that of the wallet.
pub(crate) fn address_of(address: Option<Address>, wallet: &WalletArgs) -> Result<Address> {
    match address {
        Some(address) => Ok(address),
        None => match find_wallet(wallet)? {
            Some(wallet) => Ok(wallet.address()),
            None => {
                let message = "no wallet is named: give --address or --wallet-private-key-path, or set ADDRESS, \
                               WALLET_PRIVATE_KEY_PATH or RAW_WALLET_PRIVATE_KEY";
                Err(Failure::new(Exit::Configuration, message).into())
            }
        },
    }
}

/// Refuses where `args` names another treasury than the one that owns the run.
pub(crate) async fn check_treasury(rpc: &Rpc, run_id: &RunId, args: &TreasuryArgs) -> Result<()> {
    let Some(index) = args.treasurer_index else { return Ok(()) };
    let run = rpc.run_info(run_id).await.map_err(chain_failed)?;
    let named = addresses::treasury_run(rpc.programs(), index);
    if named == run.main_authority {
        return Ok(());
    }
    let owner = run.main_authority;
    let message =
        format!("the run {run_id} belongs to {owner}, not to treasury {index} ({named}); leave --treasurer-index out");
    Err(Failure::new(Exit::Refused, message).into())
}
