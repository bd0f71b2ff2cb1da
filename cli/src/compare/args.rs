//! What `compare-optimizers` is asked for.

use std::path::PathBuf;

use clap::Args;

/// What is compared, and for how long.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
No chain and no network: everything happens in this process, on one CPU
device. Several rates make a sweep; the best one of each optimizer is what
a fair comparison takes.

Example:
  psyche-solana-client compare-optimizers --steps 200 --seeds 1 \\
    --adamw-lr 1e-3,2e-3,4e-3")]
pub(crate) struct CompareArgs {
    /// Folder for the figures: losses.csv, table.md, convergence.svg.
    #[arg(long, env = "COMPARE_OUT", default_value = "compare-out", value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Steps of each run.
    #[arg(long, env = "COMPARE_STEPS", default_value_t = 200, value_parser = clap::value_parser!(u32).range(2..=1_000_000), value_name = "N")]
    pub(crate) steps: u32,
    /// Runs of each contestant, from different initial weights and over different samples.
    #[arg(long, env = "COMPARE_SEEDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100), value_name = "N")]
    pub(crate) seeds: u64,
    /// Samples of a step, divisible by every number of senders.
    #[arg(long, env = "COMPARE_BATCH", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024), value_name = "N")]
    pub(crate) batch: u16,
    /// Learning rates of AdamW.
    #[arg(long, env = "COMPARE_ADAMW_LR", default_value = "2e-3", value_delimiter = ',', num_args = 0.., value_name = "RATE")]
    pub(crate) adamw_lr: Vec<f32>,
    /// Learning rates of DisTrO.
    #[arg(long, env = "COMPARE_DISTRO_LR", default_value = "2.8e-3", value_delimiter = ',', num_args = 0.., value_name = "RATE")]
    pub(crate) distro_lr: Vec<f32>,
    /// Numbers of senders that DisTrO is run with.
    #[arg(long, env = "COMPARE_SENDERS", default_value = "1,4", value_delimiter = ',', value_name = "N")]
    pub(crate) senders: Vec<u16>,
    /// Largest edge of DisTrO's chunks.
    #[arg(long, env = "COMPARE_CHUNK", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..), value_name = "N")]
    pub(crate) chunk: u16,
    /// Share of DisTrO's momentum that survives a step.
    #[arg(long, env = "COMPARE_DECAY", default_value_t = 0.98, value_name = "SHARE")]
    pub(crate) decay: f32,
    /// Coefficients that DisTrO sends for each chunk.
    #[arg(long, env = "COMPARE_TOPK", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=4096), value_name = "N")]
    pub(crate) topk: u16,
    /// Steps that are trained between a result and its application: one on the network.
    #[arg(long, env = "COMPARE_DELAY", default_value_t = 1, value_parser = clap::value_parser!(u16).range(0..=8), value_name = "N")]
    pub(crate) delay: u16,
}
