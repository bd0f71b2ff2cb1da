//! `localnet`: a local chain until the operator stops it.

use anyhow::Result;
use psyche_localnet::{Airdrop, Localnet, LocalnetConfig};

use crate::args::LocalnetArgs;
use crate::output;
use crate::programs;
use crate::signals::Stop;

/// What a wallet that is named with `--fund` gets.
const FUND_LAMPORTS: u64 = 100_000_000_000;

pub(crate) async fn run(args: LocalnetArgs) -> Result<()> {
    let config = LocalnetConfig {
        bind_host: args.bind.to_string(),
        rpc_port: args.rpc_port,
        ws_port: args.ws_port,
        slot_time_ms: args.slot_time_ms,
        chain_speed: args.chain_speed,
        ledger: args.ledger,
        programs: programs::bundled(),
        airdrops: args.fund.iter().map(|wallet| Airdrop { address: wallet.0, lamports: FUND_LAMPORTS }).collect(),
    };
    let mut chain = Localnet::start(config).await.map_err(crate::commands::failed_to)?;
    output::line(format_args!("RPC={}", chain.rpc_url()))?;
    output::line(format_args!("WS_RPC={}", chain.ws_url()))?;
    let mut stop = Stop::listen()?;
    output::note(format_args!("the chain runs; the lines above fit into a .env file; Ctrl-C stops it"));
    tokio::select! {
        ended = chain.wait_for_end() => ended.map_err(crate::commands::failed_to),
        signal = stop.requested() => {
            output::note(format_args!("{signal}: stopping the chain"));
            chain.stop().await.map_err(crate::commands::failed_to)
        }
    }
}
