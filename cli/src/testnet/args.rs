//! What `testnet` can be told.

use std::path::PathBuf;

use clap::Args;

/// Most nodes: they share one machine.
pub(crate) const NODES_MAX: u16 = 16;
/// Most devices of a node.
pub(crate) const DEVICES_MAX: u16 = 16;
/// Most steps of a run.
const STEPS_MAX: i64 = 100_000;

/// How the local network is started.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Example:
  psyche-solana-client testnet --nodes 4 --devices 2 --steps 80")]
pub(crate) struct TestnetArgs {
    /// Nodes; from three on, the last one joins late, if there are at least 40 steps.
    #[arg(long, env = "TESTNET_NODES", default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(NODES_MAX)))]
    pub(crate) nodes: u16,
    /// Devices of each node (threads on this machine's CPU).
    #[arg(long, env = "TESTNET_DEVICES", default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(DEVICES_MAX)))]
    pub(crate) devices: u16,
    /// Steps that the run trains.
    #[arg(long, env = "TESTNET_STEPS", default_value_t = 40, value_name = "N", value_parser = clap::value_parser!(u32).range(4..=STEPS_MAX))]
    pub(crate) steps: u32,
    /// Devices that every node splits its batch over; without --dp and --tp nodes differ.
    #[arg(long, env = "TESTNET_DP", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(DEVICES_MAX)))]
    pub(crate) dp: Option<u16>,
    /// Devices that every node splits the model over.
    #[arg(long, env = "TESTNET_TP", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(DEVICES_MAX)))]
    pub(crate) tp: Option<u16>,
    /// Print the summary as one JSON object on stdout.
    #[arg(long, env = "TESTNET_JSON", value_parser = clap::builder::BoolishValueParser::new())]
    pub(crate) json: bool,
    /// Folder for wallets, logs, the report, the plot, the trained model and the summary; what an earlier testnet left there is removed.
    #[arg(long, env = "TESTNET_OUT", default_value = "testnet-out", value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// How many seconds the chain's clock advances in a real second.
    #[arg(long, env = "TESTNET_CHAIN_SPEED", default_value_t = 8.0, value_name = "X", value_parser = chain_speed)]
    pub(crate) chain_speed: f64,
    /// Leave the AdamW curve out of the report: it trains the same model again, alone, for at most a minute.
    #[arg(long, env = "TESTNET_NO_REFERENCE", value_parser = clap::builder::BoolishValueParser::new())]
    pub(crate) no_reference: bool,
    /// Keep the nodes' snapshots and blobs; wallets, logs and events, the report and the trained model are always kept.
    #[arg(long, env = "TESTNET_KEEP", value_parser = clap::builder::BoolishValueParser::new())]
    pub(crate) keep: bool,
}

/// The chain's slots last 400 ms on its own clock, and it can't make real ones much shorter than 10 ms.
fn chain_speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(speed) if (0.1..=40.0).contains(&speed) => Ok(speed),
        _ => Err("a number from 0.1 to 40 is accepted".to_owned()),
    }
}
