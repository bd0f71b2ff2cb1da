//! What many commands take.

use std::path::PathBuf;

use clap::Args;
use psyche_messages::{Address, RunId};

use super::values::{address, run_id, switch};

/// The heading over options about the chain.
pub(crate) const CHAIN: &str = "Chain";
/// The heading over options about who signs.
pub(crate) const WALLET: &str = "Wallet";

/// How a command reaches the chain.
#[derive(Debug, Args)]
pub(crate) struct ChainArgs {
    /// URL of a Solana RPC endpoint; RPC_2, RPC_3 and so on are used when it fails.
    #[arg(long, help_heading = CHAIN, env = "RPC", hide_env_values = true, value_name = "URL", default_value = "http://127.0.0.1:8899")]
    pub(crate) rpc: String,
    /// URL of its websocket; commands other than train do without, and take it so that one set of options fits all.
    #[arg(long, help_heading = CHAIN, env = "WS_RPC", hide_env_values = true, value_name = "URL")]
    pub(crate) ws_rpc: Option<String>,
    /// Another coordinator program than the default one.
    #[arg(long, help_heading = CHAIN, env = "COORDINATOR_PROGRAM_ID", value_name = "ADDRESS", value_parser = address)]
    pub(crate) coordinator_program_id: Option<Address>,
    /// Another authorizer program than the default one.
    #[arg(long, help_heading = CHAIN, env = "AUTHORIZER_PROGRAM_ID", value_name = "ADDRESS", value_parser = address)]
    pub(crate) authorizer_program_id: Option<Address>,
    /// Another treasurer program than the default one.
    #[arg(long, help_heading = CHAIN, env = "TREASURER_PROGRAM_ID", value_name = "ADDRESS", value_parser = address)]
    pub(crate) treasurer_program_id: Option<Address>,
}

/// Who signs and pays.
#[derive(Debug, Args)]
pub(crate) struct WalletArgs {
    /// File with the private key that signs and pays, as a JSON array that only its owner may read; the variable
    /// RAW_WALLET_PRIVATE_KEY holds the key itself instead, as a JSON array or base58.
    #[arg(long, help_heading = WALLET, env = "WALLET_PRIVATE_KEY_PATH", value_name = "FILE")]
    pub(crate) wallet_private_key_path: Option<PathBuf>,
}

/// A run, and who acts on it.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The run's name, at most 32 bytes.
    #[arg(long, short = 'r', env = "RUN_ID", value_parser = run_id)]
    pub(crate) run_id: RunId,
    #[command(flatten)]
    pub(crate) chain: ChainArgs,
    #[command(flatten)]
    pub(crate) wallet: WalletArgs,
}

/// Which treasury is meant.
#[derive(Debug, Args)]
pub(crate) struct TreasuryArgs {
    /// Index of the run's treasury. It is found without; where it is given and another treasury owns the run, the command
    /// refuses.
    #[arg(long, env = "TREASURER_INDEX", value_name = "N")]
    pub(crate) treasurer_index: Option<u64>,
}

/// How a result is printed.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct JsonArgs {
    /// Print the result as JSON on stdout, for scripts.
    #[arg(long, env = "PSYCHE_JSON", value_parser = switch())]
    pub(crate) json: bool,
}
