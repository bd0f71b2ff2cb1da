//! What a run's owner asks for.

use std::path::PathBuf;

use clap::Args;
use psyche_messages::Address;

use super::values::{address, points, switch};
use super::{JsonArgs, RunArgs, TreasuryArgs};
use crate::units::Tokens;

#[derive(Debug, Args)]
#[command(after_help = "\
The run is created paused; update-config and set-paused --resume come next.

Example:
  psyche-solana-client create-run --run-id my-run \\
    --treasurer-collateral-mint <MINT> \\
    --wallet-private-key-path owner.json")]
pub(crate) struct CreateRunArgs {
    #[command(flatten)]
    pub(crate) on: RunArgs,
    /// Version of the client that nodes must have; "test" takes any.
    #[arg(long, short = 'c', env = "RUN_CLIENT_VERSION", default_value = psyche_actors::CLIENT_VERSION, value_name = "VERSION")]
    pub(crate) client_version: String,
    /// Address that decides who may join; the owner where it is not given.
    #[arg(long, env = "JOIN_AUTHORITY", value_name = "ADDRESS", value_parser = address)]
    pub(crate) join_authority: Option<Address>,
    /// Token that rewards are paid in; with it the run gets a treasury, without it no rewards can ever be paid.
    #[arg(long, env = "TREASURER_COLLATERAL_MINT", value_name = "ADDRESS", value_parser = address)]
    pub(crate) treasurer_collateral_mint: Option<Address>,
    /// Index of the treasury; derived from the run's name where it is not given.
    #[arg(long, env = "TREASURER_INDEX", requires = "treasurer_collateral_mint", value_name = "N")]
    pub(crate) treasurer_index: Option<u64>,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
What is not given stays as it is. Configuration, model, progress and client version change only while the run is paused.

Example:
  psyche-solana-client update-config --run-id my-run \\
    --config-path run.toml --name \"My run\" \\
    --wallet-private-key-path owner.json")]
pub(crate) struct UpdateConfigArgs {
    #[command(flatten)]
    pub(crate) on: RunArgs,
    #[command(flatten)]
    pub(crate) treasury: TreasuryArgs,
    /// TOML file with [config] and [model].
    #[arg(long, env = "CONFIG_PATH", value_name = "FILE")]
    pub(crate) config_path: Option<PathBuf>,
    /// Continue from this step.
    #[arg(long, env = "RESTART_FROM_STEP", value_name = "STEP")]
    pub(crate) restart_from_step: Option<u32>,
    /// Take the model from its repository or bucket again, instead of from the members.
    #[arg(long, env = "SWITCH_TO_HUB", value_parser = switch())]
    pub(crate) switch_to_hub: bool,
    /// The run's title, at most 64 bytes.
    #[arg(long, env = "RUN_NAME")]
    pub(crate) name: Option<String>,
    /// A sentence about the run, at most 280 bytes.
    #[arg(long, env = "RUN_DESCRIPTION")]
    pub(crate) description: Option<String>,
    /// Number of the model's parameters, for display.
    #[arg(long, env = "NUM_PARAMETERS", value_name = "N")]
    pub(crate) num_parameters: Option<u64>,
    /// Size of the model's vocabulary, for display.
    #[arg(long, env = "VOCAB_SIZE", value_name = "N")]
    pub(crate) vocab_size: Option<u64>,
    /// Version of the client that nodes must have; "test" takes any.
    #[arg(long, env = "RUN_CLIENT_VERSION", value_name = "VERSION")]
    pub(crate) client_version: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
A run that trains pauses when its epoch ends.

Example:
  psyche-solana-client set-paused --run-id my-run --resume \\
    --wallet-private-key-path owner.json")]
pub(crate) struct SetPausedArgs {
    #[command(flatten)]
    pub(crate) on: RunArgs,
    #[command(flatten)]
    pub(crate) treasury: TreasuryArgs,
    /// Resume instead of pausing.
    #[arg(long, env = "PSYCHE_RESUME", value_parser = switch())]
    pub(crate) resume: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
A point is one base unit of the reward token: with 6 decimals, 1 token is 1000000 points. Amounts in tokens need a treasury, \
whose token says how many decimals there are.

Example:
  psyche-solana-client set-future-epoch-rates --run-id my-run \\
    --earning-rate-total-shared 2.5 --wallet-private-key-path owner.json
  psyche-solana-client set-future-epoch-rates --run-id my-run \\
    --earning-rate-points 2500000 --wallet-private-key-path owner.json")]
pub(crate) struct RatesArgs {
    #[command(flatten)]
    pub(crate) on: RunArgs,
    #[command(flatten)]
    pub(crate) treasury: TreasuryArgs,
    /// What an epoch pays, in whole tokens such as 2.5, shared by those who finish it.
    #[arg(long, env = "EARNING_RATE_TOTAL_SHARED", value_name = "TOKENS", allow_hyphen_values = true)]
    pub(crate) earning_rate_total_shared: Option<Tokens>,
    /// The same in points.
    #[arg(long, alias = "earning-rate", env = "EARNING_RATE_POINTS", value_name = "POINTS", conflicts_with = "earning_rate_total_shared", value_parser = points, allow_hyphen_values = true)]
    pub(crate) earning_rate_points: Option<u64>,
    /// What a client loses that is ejected for its absence, in whole tokens.
    #[arg(long, env = "SLASHING_RATE_PER_CLIENT", value_name = "TOKENS", allow_hyphen_values = true)]
    pub(crate) slashing_rate_per_client: Option<Tokens>,
    /// The same in points.
    #[arg(long, alias = "slashing-rate", env = "SLASHING_RATE_POINTS", value_name = "POINTS", conflicts_with = "slashing_rate_per_client", value_parser = points, allow_hyphen_values = true)]
    pub(crate) slashing_rate_points: Option<u64>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Only a run without a treasury can be closed: the treasurer program has no instruction for it.

Example:
  psyche-solana-client close-run --run-id my-run \\
    --wallet-private-key-path owner.json")]
pub(crate) struct CloseRunArgs {
    #[command(flatten)]
    pub(crate) on: RunArgs,
    /// Who gets the rent of the run's accounts; the owner where it is not given.
    #[arg(long, env = "SPILL", value_name = "ADDRESS", value_parser = address)]
    pub(crate) spill: Option<Address>,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  psyche-solana-client tick --run-id my-run --count 10 \\
    --wallet-private-key-path id.json")]
pub(crate) struct TickArgs {
    #[command(flatten)]
    pub(crate) on: RunArgs,
    /// Milliseconds from one tick to the next.
    #[arg(long, env = "MS_INTERVAL", default_value_t = 1000, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    pub(crate) ms_interval: u64,
    /// How often; until Ctrl-C where it is not given.
    #[arg(long, env = "TICK_COUNT", value_name = "N")]
    pub(crate) count: Option<u64>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  psyche-solana-client checkpoint --run-id my-run \\
    --repo some-org/some-model --wallet-private-key-path id.json")]
pub(crate) struct CheckpointArgs {
    #[command(flatten)]
    pub(crate) on: RunArgs,
    /// Repository on a model hub that holds the checkpoint, as owner/name.
    #[arg(long, env = "HUB_REPO", required_unless_present = "bucket", conflicts_with = "bucket")]
    pub(crate) repo: Option<String>,
    /// Branch, tag or commit of the repository.
    #[arg(long, env = "HUB_REVISION", requires = "repo")]
    pub(crate) revision: Option<String>,
    /// Storage bucket that holds the checkpoint.
    #[arg(long, env = "GCS_BUCKET")]
    pub(crate) bucket: Option<String>,
    /// Folder in the bucket.
    #[arg(long, env = "GCS_PREFIX", requires = "bucket")]
    pub(crate) prefix: Option<String>,
}
