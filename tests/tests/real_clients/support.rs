//! A chain with the programs on it.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use psyche_chain::{EndpointPair, ProgramIds, Rpc, RpcConfig, Wallet};
use psyche_localnet::{Airdrop, Localnet, LocalnetConfig, Program};

pub(crate) const SOL: u64 = 1_000_000_000;
const DEADLINE: Duration = Duration::from_secs(60);

fn program(id: psyche_messages::Address, name: &str) -> Result<Program> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../programs/elf").join(format!("{name}.so"));
    Ok(Program { id: id.0, elf: std::fs::read(&path).with_context(|| path.display().to_string())? })
}

/// A chain with slots of a tenth of a second and all programs, on which `wallets` hold 100 SOL each. Its blockhashes live
/// long enough for a process that starts slowly on a busy machine.
pub(crate) async fn chain(wallets: &[&Wallet]) -> Result<Localnet> {
    let ids = ProgramIds::default();
    let programs = vec![
        program(ids.coordinator, "coordinator")?,
        program(ids.authorizer, "authorizer")?,
        program(ids.treasurer, "treasurer")?,
    ];
    let airdrops = wallets.iter().map(|wallet| Airdrop { address: wallet.address().0, lamports: 100 * SOL }).collect();
    Ok(Localnet::start(LocalnetConfig { chain_speed: 4.0, programs, airdrops, ..Default::default() }).await?)
}

/// Our own client of `chain`.
pub(crate) fn ours(chain: &Localnet) -> Result<Rpc> {
    Ok(Rpc::new(RpcConfig::new(vec![EndpointPair::parse(&chain.rpc_url(), &chain.ws_url())?]))?)
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
