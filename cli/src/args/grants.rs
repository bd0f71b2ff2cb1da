//! Who may join.

use clap::Args;
use psyche_messages::Address;
use psyche_protocol::ids;

use super::values::{address, switch};
use super::{ChainArgs, JsonArgs, WalletArgs};

/// Who is granted an authorization.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct GranteeArgs {
    /// The wallet that is granted it; it may join, and may name delegates that join in its place.
    #[arg(long, env = "AUTHORIZER", value_name = "ADDRESS", value_parser = address)]
    pub(crate) authorizer: Option<Address>,
    /// Everybody.
    #[arg(long, env = "PERMISSIONLESS", value_parser = switch())]
    pub(crate) permissionless: bool,
}

impl GranteeArgs {
    /// The grantee; the system program stands for everybody.
    pub(crate) fn grantee(&self) -> Address {
        self.authorizer.unwrap_or(Address(ids::SYSTEM_PROGRAM))
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
An authorization holds for every run whose join authority this wallet is.

Example:
  psyche-solana-client join-authorization-create --authorizer <WALLET> \\
    --wallet-private-key-path owner.json
  psyche-solana-client join-authorization-create --permissionless \\
    --wallet-private-key-path owner.json")]
pub(crate) struct AuthorizeArgs {
    #[command(flatten)]
    pub(crate) to: GranteeArgs,
    #[command(flatten)]
    pub(crate) chain: ChainArgs,
    #[command(flatten)]
    pub(crate) wallet: WalletArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Takes the authorization back at once. Its account is closed too where the program allows it: without delegates, or 30 days \
after the last change.

Example:
  psyche-solana-client join-authorization-delete --authorizer <WALLET> \\
    --wallet-private-key-path owner.json")]
pub(crate) struct GrantArgs {
    #[command(flatten)]
    pub(crate) to: GranteeArgs,
    #[command(flatten)]
    pub(crate) chain: ChainArgs,
    #[command(flatten)]
    pub(crate) wallet: WalletArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  psyche-solana-client join-authorization-read --join-authority <ADDRESS> \\
    --authorizer <WALLET> --json")]
pub(crate) struct ReadGrantArgs {
    /// The join authority that granted it; the wallet where it is not given.
    #[arg(long, env = "JOIN_AUTHORITY", value_name = "ADDRESS", value_parser = address)]
    pub(crate) join_authority: Option<Address>,
    #[command(flatten)]
    pub(crate) to: GranteeArgs,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
    #[command(flatten)]
    pub(crate) chain: ChainArgs,
    #[command(flatten)]
    pub(crate) wallet: WalletArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  psyche-solana-client join-authorization-delegate \\
    --join-authority <ADDRESS> --delegates-added <NODE>,<NODE> \\
    --wallet-private-key-path id.json")]
pub(crate) struct DelegateArgs {
    /// The join authority that granted the authorization.
    #[arg(long, env = "JOIN_AUTHORITY", value_name = "ADDRESS", value_parser = address)]
    pub(crate) join_authority: Address,
    /// Remove the delegates that are there.
    #[arg(long, env = "DELEGATES_CLEAR", value_parser = switch())]
    pub(crate) delegates_clear: bool,
    /// Wallets to add, separated by commas or blanks.
    #[arg(long, env = "DELEGATES_ADDED", num_args = 0.., value_delimiter = ',', value_name = "ADDRESS", value_parser = address)]
    pub(crate) delegates_added: Vec<Address>,
    #[command(flatten)]
    pub(crate) chain: ChainArgs,
    #[command(flatten)]
    pub(crate) wallet: WalletArgs,
}
