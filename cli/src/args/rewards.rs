//! What has to do with rewards.

use clap::Args;

use super::values::{points, some_points};
use super::{JsonArgs, RunArgs, TreasuryArgs};
use crate::units::Tokens;

#[derive(Debug, Args)]
#[command(after_help = "\
Claims what was earned and not claimed yet, as far as the treasury reaches; called again, it claims nothing and says so.

Example:
  psyche-solana-client treasurer-claim-rewards --rpc <RPC> \\
    --run-id <RUN_ID> --wallet-private-key-path <JSON_PRIVATE_KEY_PATH>")]
pub(crate) struct ClaimArgs {
    #[command(flatten)]
    pub(crate) on: RunArgs,
    #[command(flatten)]
    pub(crate) treasury: TreasuryArgs,
    /// Claim at most this many points, which are base units of the reward token.
    #[arg(long, env = "MAX_CLAIMED_POINTS", value_name = "POINTS", value_parser = points, allow_hyphen_values = true)]
    pub(crate) max_claimed_points: Option<u64>,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Moves tokens from the wallet's token account to the run's treasury. A point is one base unit of the token: with 6 decimals, \
1 token is 1000000 points.

Example:
  psyche-solana-client treasurer-top-up-rewards --run-id my-run \\
    --collateral-amount 100 --wallet-private-key-path owner.json")]
pub(crate) struct TopUpArgs {
    #[command(flatten)]
    pub(crate) on: RunArgs,
    #[command(flatten)]
    pub(crate) treasury: TreasuryArgs,
    /// Amount in whole tokens, such as 100 or 0.5.
    #[arg(
        long,
        env = "COLLATERAL_AMOUNT",
        value_name = "TOKENS",
        required_unless_present = "points",
        allow_hyphen_values = true
    )]
    pub(crate) collateral_amount: Option<Tokens>,
    /// Amount in points, which are base units of the token.
    #[arg(long, alias = "amount", env = "COLLATERAL_POINTS", value_name = "POINTS", conflicts_with = "collateral_amount", value_parser = some_points, allow_hyphen_values = true)]
    pub(crate) points: Option<u64>,
}
