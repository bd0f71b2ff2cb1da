//! The network against its peers, each in the same run: blobs against iroh-blobs, gossip against gossipsub as it comes, and an
//! averaging round for `averaging.py` to hold against hivemind. `net/bench/bench.sh` starts it; figures stand in
//! docs/BENCHMARKS.md.

mod averaging;
mod blobs;
mod contest;
mod gossip;
mod iroh_node;
mod our_node;
mod process;
mod rig;
#[path = "../../../gpu/bench/stats.rs"]
mod stats;
#[path = "../../../gpu/bench/table.rs"]
mod table;
mod usage;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// The network held against its peers.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// A blob to one receiver and to eight, against iroh-blobs.
    Blobs(blobs::Options),
    /// Messages to 32 peers, against gossipsub's defaults.
    Gossip(gossip::Options),
    /// Averaging rounds of four peers; prints JSON for averaging.py.
    Averaging(averaging::Options),
    /// A node of one of the above, driven by lines on its input.
    #[command(hide = true)]
    Node(process::NodeOptions),
}

fn main() -> Result<()> {
    match Arguments::parse().what {
        What::Blobs(options) => blobs::run(&options),
        What::Gossip(options) => gossip::run(&options),
        What::Averaging(options) => averaging::run(&options),
        What::Node(options) => process::node(&options),
    }
}
