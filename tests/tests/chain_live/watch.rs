//! Following an account while websockets fail.

use std::time::Duration;

use anyhow::{Result, ensure};
use psyche_chain::instructions::system;
use psyche_chain::watch::{Watch, WatchConfig, WatchEvent, Watched, watch_account};
use psyche_chain::{AccountRead, ChainError, Compute, EndpointPair, Plan, Rpc, Wallet};
use psyche_localnet::Localnet;
use psyche_messages::{Backoff, Lamports, Slot};

use crate::proxy::Proxy;
use crate::support::{SOL, chain, client, direct, until};

/// An account whose balance only grows, so that it counts its own changes.
#[derive(Clone, Debug, PartialEq)]
struct Savings {
    lamports: u64,
    slot: Slot,
}

impl Watched for Savings {
    fn nonce(&self) -> u64 {
        self.lamports
    }

    fn is_phase_change(&self, _previous: &Self) -> bool {
        false
    }

    fn at_slot(&mut self, slot: Slot) {
        self.slot = slot;
    }
}

fn decode(read: AccountRead) -> Result<Savings, ChainError> {
    Ok(Savings { lamports: read.lamports.0, slot: read.slot })
}

fn config() -> WatchConfig {
    let ms = Duration::from_millis;
    WatchConfig {
        silence: ms(800),
        poll: ms(100),
        refresh: Duration::from_secs(600),
        backoff: Backoff::new(ms(50), ms(200), 200, 50).unwrap(),
        proven_after: ms(500),
        ..Default::default()
    }
}

struct Fixture {
    chain: Localnet,
    /// Pays past every proxy.
    rpc: Rpc,
    payer: Wallet,
    saver: Wallet,
}

impl Fixture {
    async fn start() -> Result<Self> {
        let (payer, saver) = (Wallet::new(), Wallet::new());
        let chain = chain(&[&payer, &saver]).await?;
        let rpc = direct(&chain)?;
        Ok(Self { chain, rpc, payer, saver })
    }

    async fn save(&self) -> Result<()> {
        let instructions = [system::transfer(self.payer.address(), self.saver.address(), Lamports(SOL))];
        let (payer, compute) = (&self.payer, Compute::Limit(10_000));
        let plan = Plan { purpose: "saving", payer, signers: &[], instructions: &instructions, compute };
        self.rpc.submit(&plan).await?;
        Ok(())
    }

    fn watch(&self, rpc: &Rpc) -> Watch<Savings> {
        watch_account(rpc, self.saver.address(), decode, config())
    }
}

async fn next(watch: &mut Watch<Savings>) -> Result<Savings> {
    match tokio::time::timeout(Duration::from_secs(20), watch.recv()).await? {
        WatchEvent::Changed(savings) => Ok(savings),
        WatchEvent::Anew(savings) => anyhow::bail!("nobody created the account anew: {savings:?}"),
        WatchEvent::Lost(error) => Err(error.into()),
    }
}

async fn connected(watch: &Watch<Savings>, count: usize) -> Result<()> {
    until("the websockets' connection", async || Ok((watch.connected() == count).then_some(()))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_arrives_once_and_in_order_over_two_websockets() -> Result<()> {
    let fixture = Fixture::start().await?;
    let pair = EndpointPair::parse(&fixture.chain.rpc_url(), &fixture.chain.ws_url())?;
    let mut watch = fixture.watch(&client(vec![pair.clone(), pair])?);
    connected(&watch, 2).await?;
    let mut last = next(&mut watch).await?;
    ensure!(last.lamports == 100 * SOL);
    for saved in 1..=5 {
        fixture.save().await?;
        let savings = next(&mut watch).await?;
        ensure!(savings.lamports == (100 + saved) * SOL && savings.slot >= last.slot, "{last:?} {savings:?}");
        last = savings;
    }
    ensure!(watch.dropped() == 0);
    Ok(fixture.chain.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_websocket_costs_no_change_and_is_used_again_when_it_is_back() -> Result<()> {
    let fixture = Fixture::start().await?;
    let mut proxy = Proxy::start(fixture.chain.ws_address()).await?;
    let mut watch = fixture.watch(&client(vec![EndpointPair::parse(&fixture.chain.rpc_url(), &proxy.ws())?])?);
    ensure!(next(&mut watch).await?.lamports == 100 * SOL);
    connected(&watch, 1).await?;
    proxy.down().await;
    connected(&watch, 0).await?;
    fixture.save().await?;
    ensure!(next(&mut watch).await?.lamports == 101 * SOL, "polling takes over");
    proxy.up().await;
    connected(&watch, 1).await?;
    fixture.save().await?;
    ensure!(next(&mut watch).await?.lamports == 102 * SOL);
    Ok(fixture.chain.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_websocket_is_found_out_and_its_gap_closed() -> Result<()> {
    let fixture = Fixture::start().await?;
    let mut proxy = Proxy::start(fixture.chain.ws_address()).await?;
    let mut watch = fixture.watch(&client(vec![EndpointPair::parse(&fixture.chain.rpc_url(), &proxy.ws())?])?);
    ensure!(next(&mut watch).await?.lamports == 100 * SOL);
    connected(&watch, 1).await?;
    // The connection stays open, no byte flows, and the slow timer is ten minutes away: only the watchdog can tell.
    proxy.freeze().await;
    fixture.save().await?;
    ensure!(next(&mut watch).await?.lamports == 101 * SOL);
    connected(&watch, 0).await?;
    proxy.up().await;
    connected(&watch, 1).await?;
    fixture.save().await?;
    ensure!(next(&mut watch).await?.lamports == 102 * SOL);
    Ok(fixture.chain.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_account_is_reported_once_and_seen_when_it_comes() -> Result<()> {
    let fixture = Fixture::start().await?;
    let late = Wallet::new();
    let mut watch = watch_account(&fixture.rpc, late.address(), decode, config());
    let event = tokio::time::timeout(Duration::from_secs(20), watch.recv()).await?;
    ensure!(matches!(event, WatchEvent::Lost(ChainError::AccountMissing { .. })), "{event:?}");
    connected(&watch, 1).await?;
    fixture.rpc.airdrop(late.address(), Lamports(3 * SOL)).await?;
    ensure!(next(&mut watch).await?.lamports == 3 * SOL);
    Ok(fixture.chain.stop().await?)
}
