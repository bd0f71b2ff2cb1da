//! The key by which peers know a node.

use std::path::PathBuf;

use clap::Args;
use psyche_messages::RunId;

use super::values::run_id;
use super::{JsonArgs, WalletArgs};

#[derive(Debug, Args)]
#[command(after_help = "\
Prints the peer id. Give the file to a node with IDENTITY_SECRET_KEY_PATH.

Example:
  psyche-solana-client create-static-p2p-identity --save-path identity.key")]
pub(crate) struct CreateIdentityArgs {
    /// The file; it must not exist.
    #[arg(long, visible_alias = "out", env = "IDENTITY_OUT", value_name = "FILE")]
    pub(crate) save_path: PathBuf,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Prints the peer id that ends the node's multiaddresses, as BOOTSTRAP_PEERS and P2P_RELAY want them.

Example:
  psyche-solana-client show-static-p2p-identity --identity-secret-key-path identity.key
  psyche-solana-client show-static-p2p-identity --run-id <RUN_ID> \\
    --wallet-private-key-path id.json")]
pub(crate) struct ShowIdentityArgs {
    /// File with the key; read from RAW_IDENTITY_SECRET_KEY where it is not given.
    #[arg(long, env = "IDENTITY_SECRET_KEY_PATH", value_name = "FILE")]
    pub(crate) identity_secret_key_path: Option<PathBuf>,
    /// The run, where the key is derived from the wallet and the run.
    #[arg(long, short = 'r', env = "RUN_ID", value_parser = run_id)]
    pub(crate) run_id: Option<RunId>,
    #[command(flatten)]
    pub(crate) wallet: WalletArgs,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
}
