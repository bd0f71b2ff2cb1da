//! Reads, transactions and fail-over.

use std::time::Duration;

use anyhow::{Result, ensure};
use psyche_chain::instructions::system;
use psyche_chain::{ChainError, Compute, EndpointPair, Plan, Rpc, RpcConfig, Submitted, Wallet};
use psyche_messages::{Lamports, Retry};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::proxy::Proxy;
use crate::support::{SOL, chain, client, direct};

async fn transfer(rpc: &Rpc, from: &Wallet, to: &Wallet, lamports: u64) -> Result<Submitted, ChainError> {
    let instructions = [system::transfer(from.address(), to.address(), Lamports(lamports))];
    let compute = Compute::Simulated;
    let plan = Plan { purpose: "a transfer", payer: from, signers: &[], instructions: &instructions, compute };
    let before = rpc.balance(to.address()).await?;
    rpc.submit_until(&plan, || async { Ok(rpc.balance(to.address()).await? > before) }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn airdrops_and_transfers_arrive() -> Result<()> {
    let chain = chain(&[]).await?;
    let rpc = direct(&chain)?;
    let (from, to) = (Wallet::new(), Wallet::new());
    rpc.airdrop(from.address(), Lamports(5 * SOL)).await?;
    ensure!(rpc.balance(from.address()).await? == Lamports(5 * SOL));
    ensure!(rpc.account(to.address()).await?.is_none());
    let Submitted::Confirmed(confirmed) = transfer(&rpc, &from, &to, 2 * SOL).await? else {
        anyhow::bail!("nobody else can have done it");
    };
    ensure!(rpc.seen_slot() >= confirmed.slot);
    let account = rpc.account(to.address()).await?.unwrap();
    ensure!(account.lamports == Lamports(2 * SOL) && account.slot >= confirmed.slot && account.data.is_empty());
    let both = rpc.accounts(&[from.address(), Wallet::new().address(), to.address()]).await?;
    ensure!(both.iter().map(Option::is_some).collect::<Vec<_>>() == [true, false, true]);
    let records = rpc.signatures(to.address(), None, 10).await?;
    ensure!(records.len() == 1 && records[0].signature == confirmed.signature && records[0].succeeded);
    Ok(chain.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chain_tells_its_time_its_height_and_its_rent() -> Result<()> {
    let chain = chain(&[]).await?;
    let rpc = direct(&chain)?;
    let (slot, time) = rpc.clock().await?;
    ensure!(slot.0 > 0 && time.0 > 1_700_000_000);
    let later = crate::support::until("five chain seconds", async || {
        let now = rpc.clock().await?;
        Ok((now.1.0 >= time.0 + 5).then_some(now))
    });
    ensure!(later.await?.0 > slot);
    ensure!(rpc.block_height().await? > 0);
    ensure!(rpc.rent_minimum(119_160).await?.0.abs_diff(830_000_000) < 1_000_000);
    ensure!(rpc.genesis_hash().await?.len() >= 32);
    Ok(chain.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_endpoint_is_left_and_not_asked_again() -> Result<()> {
    let wallet = Wallet::new();
    let chain = chain(&[&wallet]).await?;
    let closed = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let pairs = [format!("http://{closed}"), chain.rpc_url()];
    let pairs: Result<Vec<_>, _> = pairs.iter().map(|rpc| EndpointPair::parse(rpc, "")).collect();
    let rpc = client(pairs?)?;
    ensure!(rpc.current() == 0);
    ensure!(rpc.balance(wallet.address()).await? == Lamports(100 * SOL));
    ensure!(rpc.current() == 1);
    transfer(&rpc, &wallet, &Wallet::new(), SOL).await?;
    ensure!(rpc.current() == 1);
    Ok(chain.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_endpoint_holds_nobody_up() -> Result<()> {
    let wallet = Wallet::new();
    let chain = chain(&[&wallet]).await?;
    let mut proxy = Proxy::start(chain.rpc_address()).await?;
    let mut config = RpcConfig::new(vec![EndpointPair::parse(&proxy.http(), "")?, EndpointPair::parse(&chain.rpc_url(), "")?]);
    // Far longer than the test may take: only asking the next endpoint as well can help.
    config.request_timeout = Duration::from_secs(600);
    config.call_timeout = Duration::from_secs(600);
    let rpc = Rpc::new(config)?;
    ensure!(rpc.balance(wallet.address()).await? == Lamports(100 * SOL));
    proxy.freeze().await;
    let within = Duration::from_secs(60);
    ensure!(tokio::time::timeout(within, rpc.balance(wallet.address())).await?? == Lamports(100 * SOL));
    ensure!(rpc.current() == 1);
    // Sending goes to both at once, and the frozen one holds nobody up.
    tokio::time::timeout(within, transfer(&rpc, &wallet, &Wallet::new(), SOL)).await??;
    Ok(chain.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_requests_at_one_endpoint_move_on_at_once() -> Result<()> {
    let wallet = Wallet::new();
    let chain = chain(&[&wallet]).await?;
    let busy = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/?api-key=SECRET", busy.local_addr()?);
    let server = tokio::spawn(async move {
        loop {
            let (mut stream, _) = busy.accept().await?;
            let mut request = [0; 4096];
            let _read = stream.read(&mut request).await?;
            let answer = "HTTP/1.1 429 Too Many Requests\r\nretry-after: 60\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            stream.write_all(answer.as_bytes()).await?;
        }
        #[expect(unreachable_code, reason = "names the error type")]
        std::io::Result::Ok(())
    });
    let only = client(vec![EndpointPair::parse(&url, "")?])?;
    let refused = only.balance(wallet.address()).await.unwrap_err();
    ensure!(matches!(refused, ChainError::Http { status: 429, .. }), "{refused}");
    ensure!(matches!(refused.retry(), Retry::After(_)) && !format!("{refused:?}").contains("SECRET"));
    let rpc = client(vec![EndpointPair::parse(&url, "")?, EndpointPair::parse(&chain.rpc_url(), "")?])?;
    ensure!(rpc.balance(wallet.address()).await? == Lamports(100 * SOL) && rpc.current() == 1);
    server.abort();
    Ok(chain.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_chain_is_an_error_without_the_key_in_the_url() -> Result<()> {
    let closed = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let rpc = client(vec![EndpointPair::parse(&format!("http://{closed}/v2/SECRET?api-key=SECRET"), "")?])?;
    let refused = rpc.clock().await.unwrap_err();
    ensure!(matches!(refused, ChainError::Unreachable { .. }));
    let debug = format!("{refused:?}");
    let text = format!("{:#} {debug}", anyhow::Error::from(refused));
    ensure!(text.contains("127.0.0.1") && !text.contains("SECRET"), "{text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_wallet_is_named_with_its_balance() -> Result<()> {
    let (empty, poor) = (Wallet::new(), Wallet::new());
    let chain = chain(&[]).await?;
    let rpc = direct(&chain)?;
    rpc.airdrop(poor.address(), Lamports(SOL)).await?;
    for (wallet, holds) in [(&empty, 0), (&poor, SOL)] {
        let refused = transfer(&rpc, wallet, &Wallet::new(), 7 * SOL).await.unwrap_err();
        let expected = (wallet.address(), Lamports(holds));
        ensure!(
            matches!(refused, ChainError::InsufficientFunds { address, balance, .. } if (address, balance) == expected),
            "{refused:?}"
        );
    }
    Ok(chain.stop().await?)
}
