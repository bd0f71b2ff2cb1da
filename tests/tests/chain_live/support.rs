//! A chain with the programs on it, wallets with funds, waiting for predicates.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use psyche_chain::{EndpointPair, ProgramIds, Rpc, RpcConfig, Wallet};
use psyche_localnet::{Airdrop, Localnet, LocalnetConfig, Program};

pub(crate) const SOL: u64 = 1_000_000_000;
const DEADLINE: Duration = Duration::from_secs(30);

/// A committed program.
pub(crate) fn elf(name: &str) -> Result<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../programs/elf").join(format!("{name}.so"));
    std::fs::read(&path).with_context(|| format!("{}", path.display()))
}

/// A chain whose clock runs ten times as fast as ours, with all programs, on which `wallets` hold 100 SOL each.
pub(crate) async fn chain(wallets: &[&Wallet]) -> Result<Localnet> {
    let ids = ProgramIds::default();
    let program = |id: psyche_messages::Address, name| Ok(Program { id: id.0, elf: elf(name)? });
    let programs: Result<Vec<_>> =
        [(ids.coordinator, "coordinator"), (ids.authorizer, "authorizer"), (ids.treasurer, "treasurer")]
            .into_iter()
            .map(|(id, name)| program(id, name))
            .collect();
    let airdrops = wallets.iter().map(|wallet| Airdrop { address: wallet.address().0, lamports: 100 * SOL }).collect();
    let config = LocalnetConfig { chain_speed: 10.0, programs: programs?, airdrops, ..Default::default() };
    Ok(Localnet::start(config).await?)
}

/// A client with short time-outs.
pub(crate) fn client(endpoints: Vec<EndpointPair>) -> Result<Rpc> {
    let mut config = RpcConfig::new(endpoints);
    config.request_timeout = Duration::from_secs(5);
    Ok(Rpc::new(config)?)
}

/// A client of `chain` alone.
pub(crate) fn direct(chain: &Localnet) -> Result<Rpc> {
    client(vec![EndpointPair::parse(&chain.rpc_url(), &chain.ws_url())?])
}

/// Polls until `predicate` gives something.
pub(crate) async fn until<T, F: Future<Output = Result<Option<T>>>>(what: &str, mut predicate: impl FnMut() -> F) -> Result<T> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = predicate().await? {
            return Ok(value);
        }
        ensure!(Instant::now() < deadline, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
