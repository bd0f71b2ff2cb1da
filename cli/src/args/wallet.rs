//! What can be done with wallets and tokens.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use psyche_messages::Address;

use super::values::address;
use super::{ChainArgs, JsonArgs, WalletArgs};
use crate::units::{Sol, Tokens};

/// What can be done with wallets.
#[derive(Debug, Subcommand)]
pub(crate) enum WalletCommand {
    /// Make a wallet and write its private key to a new file that only its owner may read.
    New(NewWalletArgs),
    /// Print a wallet's address.
    Address(WalletAddressArgs),
    /// Print a wallet's balance in SOL, or of a token.
    Balance(BalanceArgs),
    /// Ask a test network's faucet for SOL.
    Airdrop(AirdropArgs),
    /// Make a token that a run can pay its rewards in.
    CreateToken(CreateTokenArgs),
    /// Make more of a token whose supply this wallet controls.
    MintTokens(MintTokensArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  psyche-solana-client wallet new --out id.json")]
pub(crate) struct NewWalletArgs {
    /// The file; it must not exist.
    #[arg(long, short, env = "WALLET_OUT", value_name = "FILE")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  psyche-solana-client wallet address --wallet-private-key-path id.json")]
pub(crate) struct WalletAddressArgs {
    #[command(flatten)]
    pub(crate) wallet: WalletArgs,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  psyche-solana-client wallet balance --rpc <RPC> --address <WALLET>
  psyche-solana-client wallet balance --rpc <RPC> --address <WALLET> \\
    --mint <MINT>")]
pub(crate) struct BalanceArgs {
    /// The wallet's address, where there is no key.
    #[arg(long, visible_aliases = ["pubkey", "user"], env = "ADDRESS", value_name = "ADDRESS", value_parser = address)]
    pub(crate) address: Option<Address>,
    /// Print how much of this token it holds, instead of SOL.
    #[arg(long, env = "MINT", value_name = "ADDRESS", value_parser = address)]
    pub(crate) mint: Option<Address>,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
    #[command(flatten)]
    pub(crate) chain: ChainArgs,
    #[command(flatten)]
    pub(crate) wallet: WalletArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Only test networks have a faucet.

Example:
  psyche-solana-client wallet airdrop --rpc <RPC> --sol 2 \\
    --wallet-private-key-path id.json")]
pub(crate) struct AirdropArgs {
    /// The wallet's address, where there is no key.
    #[arg(long, visible_aliases = ["pubkey", "user"], env = "ADDRESS", value_name = "ADDRESS", value_parser = address)]
    pub(crate) address: Option<Address>,
    /// Amount in SOL.
    #[arg(long, env = "AIRDROP_SOL", default_value = "1", allow_hyphen_values = true)]
    pub(crate) sol: Sol,
    #[command(flatten)]
    pub(crate) chain: ChainArgs,
    #[command(flatten)]
    pub(crate) wallet: WalletArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Prints the token's address, for create-run's --treasurer-collateral-mint. The wallet controls the supply and gets what is \
made.

Example:
  psyche-solana-client wallet create-token --decimals 6 --supply 1000000 \\
    --wallet-private-key-path owner.json")]
pub(crate) struct CreateTokenArgs {
    /// Decimals of an amount: with 6, one token is 1000000 base units, each of which pays one point.
    #[arg(long, env = "TOKEN_DECIMALS", default_value_t = 6, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=9))]
    pub(crate) decimals: u8,
    /// How much of it to make at once, in whole tokens.
    #[arg(long, env = "TOKEN_SUPPLY", default_value = "0", value_name = "TOKENS", allow_hyphen_values = true)]
    pub(crate) supply: Tokens,
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
  psyche-solana-client wallet mint-tokens --mint <MINT> --tokens 1000 \\
    --wallet-private-key-path owner.json")]
pub(crate) struct MintTokensArgs {
    /// The token.
    #[arg(long, env = "MINT", value_name = "ADDRESS", value_parser = address)]
    pub(crate) mint: Address,
    /// How much of it to make, in whole tokens.
    #[arg(long, env = "MINT_TOKENS", value_name = "TOKENS", allow_hyphen_values = true)]
    pub(crate) tokens: Tokens,
    /// Who gets it; the wallet where it is not given.
    #[arg(long, env = "MINT_TO", value_name = "ADDRESS", value_parser = address)]
    pub(crate) to: Option<Address>,
    #[command(flatten)]
    pub(crate) chain: ChainArgs,
    #[command(flatten)]
    pub(crate) wallet: WalletArgs,
}
