//! `status`.

use std::path::PathBuf;

use clap::Args;
use psyche_messages::RunId;

use super::values::run_id;
use super::{ChainArgs, JsonArgs};

#[derive(Debug, Args)]
#[command(after_help = "\
Without options it asks the node on this machine: at --node, otherwise at the address that the node noted in its data folder,
otherwise at 127.0.0.1:9464. With --run-id it asks the chain, with --replay it reads an event log.

Example:
  psyche-solana-client status --watch
  psyche-solana-client status --rpc <RPC> --run-id <RUN_ID> --json
  psyche-solana-client status --replay psyche-data")]
pub(crate) struct StatusArgs {
    /// Address of the node's health and metrics, as its METRICS_BIND names it.
    #[arg(long, env = "METRICS_BIND", value_name = "ADDRESS")]
    pub(crate) node: Option<String>,
    /// The node's data folder [default: ./psyche-data].
    #[arg(long, env = "DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// A run on chain, whoever takes part in it.
    #[arg(long, short = 'r', env = "STATUS_RUN_ID", value_parser = run_id, conflicts_with = "replay")]
    pub(crate) run_id: Option<RunId>,
    /// Walk through an event log from its oldest event on: a node's data folder, or a file of the log.
    #[arg(long, env = "STATUS_REPLAY", value_name = "PATH")]
    pub(crate) replay: Option<PathBuf>,
    /// Look again every two seconds, until Ctrl-C: a live view on a terminal, otherwise a line for each look.
    #[arg(long, env = "STATUS_WATCH", conflicts_with = "replay")]
    pub(crate) watch: bool,
    /// Fail unless the node is ready, for health checks of containers.
    #[arg(long, env = "STATUS_READY", conflicts_with_all = ["replay", "run_id", "watch"])]
    pub(crate) ready: bool,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
    #[command(flatten)]
    pub(crate) chain: ChainArgs,
}
