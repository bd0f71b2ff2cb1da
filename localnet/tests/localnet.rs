//! The local chain, seen through the unmodified Solana clients.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use psyche_localnet::{Airdrop, Localnet, LocalnetConfig, LocalnetError, Program};
use solana_account_decoder_client_types::UiAccountEncoding;
use solana_client::nonblocking::rpc_client::RpcClient;
use solana_client::rpc_client::GetConfirmedSignaturesForAddress2Config;
use solana_commitment_config::CommitmentConfig;
use solana_instruction::Instruction;
use solana_keypair::Keypair;
use solana_message::Message;
use solana_pubkey::Pubkey;
use solana_pubsub_client::nonblocking::pubsub_client::PubsubClient;
use solana_rpc_client_api::config::{RpcAccountInfoConfig, RpcProgramAccountsConfig};
use solana_rpc_client_api::response::RpcSignatureResult;
use solana_signer::Signer;
use solana_transaction::Transaction;
use surfpool_core::surfnet::noop_program::NOOP_PROGRAM_ELF;

const SOL: u64 = 1_000_000_000;
const SYSTEM_PROGRAM: Pubkey = Pubkey::new_from_array([0; 32]);
const DEADLINE: Duration = Duration::from_secs(20);

fn quick() -> LocalnetConfig {
    LocalnetConfig { slot_time_ms: 400, chain_speed: 10.0, ..Default::default() }
}

fn client(chain: &Localnet) -> RpcClient {
    RpcClient::new_with_commitment(chain.rpc_url(), CommitmentConfig::confirmed())
}

/// Polls until `predicate` holds.
async fn until<T, F: Future<Output = Result<Option<T>>>>(what: &str, mut predicate: impl FnMut() -> F) -> Result<T> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = predicate().await? {
            return Ok(value);
        }
        ensure!(Instant::now() < deadline, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn signed(rpc: &RpcClient, payer: &Keypair, instruction: Instruction) -> Result<Transaction> {
    let blockhash = rpc.get_latest_blockhash().await?;
    Ok(Transaction::new(&[payer], Message::new(&[instruction], Some(&payer.pubkey())), blockhash))
}

/// The slot in which it was processed.
async fn send(rpc: &RpcClient, payer: &Keypair, instruction: Instruction) -> Result<u64> {
    let signature = rpc.send_and_confirm_transaction(&signed(rpc, payer, instruction).await?).await?;
    let statuses = rpc.get_signature_statuses(&[signature]).await?.value;
    Ok(statuses.into_iter().flatten().next().context("no status")?.slot)
}

/// The next item of a stream that has one.
async fn next<T>(stream: &mut (impl futures::Stream<Item = T> + Unpin)) -> Result<T> {
    tokio::time::timeout(DEADLINE, stream.next()).await?.context("stream ended")
}

async fn chain_time(rpc: &RpcClient) -> Result<(u64, i64)> {
    let account = rpc.get_account(&solana_clock::sysvar::ID).await?;
    let at = |from: usize| -> [u8; 8] { account.data[from..from + 8].try_into().unwrap() };
    Ok((u64::from_le_bytes(at(0)), i64::from_le_bytes(at(32))))
}

#[tokio::test(flavor = "multi_thread")]
async fn unmodified_clients_airdrop_transfer_and_subscribe() -> Result<()> {
    let chain = Localnet::start(quick()).await?;
    let rpc = client(&chain);
    let (from, to) = (Keypair::new(), Keypair::new().pubkey());
    rpc.request_airdrop(&from.pubkey(), 2 * SOL).await?;
    until("the airdrop", async || Ok((rpc.get_balance(&from.pubkey()).await? == 2 * SOL).then_some(()))).await?;

    let pubsub = PubsubClient::new(chain.ws_url()).await?;
    let config = RpcAccountInfoConfig { encoding: Some(UiAccountEncoding::Base64Zstd), ..Default::default() };
    let (mut updates, unsubscribe) = pubsub.account_subscribe(&to, Some(config)).await?;
    let (mut slots, unsubscribe_slots) = pubsub.slot_subscribe().await?;
    slots.next().await.context("no slot")?;
    for sent in 1..=3 {
        let quarter = solana_system_interface::instruction::transfer(&from.pubkey(), &to, SOL / 4);
        let slot = send(&rpc, &from, quarter).await?;
        ensure!(rpc.get_balance(&to).await? == sent * SOL / 4);
        let update = next(&mut updates).await?;
        ensure!(update.value.lamports == sent * SOL / 4);
        ensure!(update.context.slot == slot, "notified for slot {}, changed in {slot}", update.context.slot);
    }
    drop((updates, slots));
    unsubscribe().await;
    unsubscribe_slots().await;
    pubsub.shutdown().await?;
    Ok(chain.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn unmodified_clients_follow_signatures_programs_and_roots() -> Result<()> {
    let chain = Localnet::start(quick()).await?;
    let rpc = client(&chain);
    let (from, to) = (Keypair::new(), Keypair::new().pubkey());
    let airdrop = rpc.request_airdrop(&from.pubkey(), 2 * SOL).await?;
    until("the airdrop", async || Ok(rpc.confirm_transaction(&airdrop).await?.then_some(()))).await?;

    let pubsub = PubsubClient::new(chain.ws_url()).await?;
    let (mut roots, unsubscribe_roots) = pubsub.root_subscribe().await?;
    let account_config = RpcAccountInfoConfig { encoding: Some(UiAccountEncoding::Base64), ..Default::default() };
    let config = RpcProgramAccountsConfig { account_config, ..Default::default() };
    let (mut owned, unsubscribe_owned) = pubsub.program_subscribe(&SYSTEM_PROGRAM, Some(config)).await?;
    let transfer = |lamports| solana_system_interface::instruction::transfer(&from.pubkey(), &to, lamports);
    let transaction = signed(&rpc, &from, transfer(SOL)).await?;
    let signature = transaction.signatures[0];
    let (mut confirmed, unsubscribe_signature) = pubsub.signature_subscribe(&signature, None).await?;
    ensure!(rpc.send_transaction(&transaction).await? == signature);
    let RpcSignatureResult::ProcessedSignature(result) = next(&mut confirmed).await?.value else {
        anyhow::bail!("received is not what was asked for");
    };
    ensure!(result.err.is_none());
    let slot = rpc.get_signature_statuses(&[signature]).await?.value[0].as_ref().context("no status")?.slot;
    loop {
        let update = next(&mut owned).await?;
        if update.value.pubkey == to.to_string() {
            ensure!(update.context.slot == slot, "notified for slot {}, changed in {slot}", update.context.slot);
            break;
        }
    }
    let first = next(&mut roots).await?;
    let second = next(&mut roots).await?;
    ensure!(first < second && second < rpc.get_slot().await?, "roots {first}, {second}");
    drop((roots, owned, confirmed));
    unsubscribe_roots().await;
    unsubscribe_owned().await;
    unsubscribe_signature().await;
    pubsub.shutdown().await?;
    Ok(chain.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn history_heights_and_fees_are_told_as_a_validator_tells_them() -> Result<()> {
    let from = Keypair::new();
    let airdrops = vec![Airdrop { address: from.pubkey().to_bytes(), lamports: SOL }];
    let chain = Localnet::start(LocalnetConfig { airdrops, ..quick() }).await?;
    let rpc = client(&chain);
    let height = rpc.get_block_height().await?;
    ensure!(height <= rpc.get_slot().await?);
    until("another block", async || Ok((rpc.get_block_height().await? > height).then_some(()))).await?;
    let finalized = rpc.get_slot_with_commitment(CommitmentConfig::finalized()).await?;
    ensure!(finalized < rpc.get_slot_with_commitment(CommitmentConfig::processed()).await?);

    let to = Keypair::new().pubkey();
    for lamports in 1..=3 {
        send(&rpc, &from, solana_system_interface::instruction::transfer(&from.pubkey(), &to, SOL / 100 + lamports)).await?;
    }
    let history = rpc.get_signatures_for_address(&to).await?;
    ensure!(history.len() == 3 && history.is_sorted_by(|a, b| a.slot >= b.slot) && history.iter().all(|it| it.err.is_none()));
    let until_oldest = history[2].signature.parse()?;
    let config = GetConfirmedSignaturesForAddress2Config { until: Some(until_oldest), limit: Some(1), ..Default::default() };
    let newest = rpc.get_signatures_for_address_with_config(&to, config).await?;
    ensure!(newest.len() == 1 && newest[0].signature == history[0].signature);
    let before = GetConfirmedSignaturesForAddress2Config { before: Some(history[1].signature.parse()?), ..Default::default() };
    let older = rpc.get_signatures_for_address_with_config(&to, before).await?;
    ensure!(older.len() == 1 && older[0].signature == history[2].signature);
    let fees = rpc.get_recent_prioritization_fees(&[from.pubkey()]).await?;
    ensure!(fees.iter().all(|fee| fee.prioritization_fee == 0), "nobody paid for priority: {fees:?}");
    Ok(chain.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chain_clock_runs_as_fast_as_asked() -> Result<()> {
    let chain = Localnet::start(LocalnetConfig { slot_time_ms: 1_000, chain_speed: 20.0, ..Default::default() }).await?;
    let rpc = client(&chain);
    let ((slot, begin), started) = (chain_time(&rpc).await?, Instant::now());
    let now = until("40 chain seconds", async || {
        let now = chain_time(&rpc).await?;
        Ok((now.1 >= begin + 40).then_some(now))
    });
    let (last, end) = now.await?;
    let speed = (end - begin) as f64 / started.elapsed().as_secs_f64();
    ensure!(speed > 5.0, "chain seconds per real second: {speed}");
    ensure!((last - slot).abs_diff(40) <= 5, "one slot a chain second, saw {} slots", last - slot);
    Ok(chain.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_outlives_the_chain_and_its_clock_never_runs_backwards() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let address = Keypair::new().pubkey();
    let airdrops = vec![Airdrop { address: address.to_bytes(), lamports: 3 * SOL }];
    let config = LocalnetConfig { ledger: Some(folder.path().join("deep").join("chain.db")), ..quick() };
    let chain = Localnet::start(LocalnetConfig { airdrops, chain_speed: 40.0, ..config.clone() }).await?;
    let rpc = client(&chain);
    ensure!(rpc.get_balance(&address).await? == 3 * SOL);
    let begin = chain_time(&rpc).await?;
    let before = until("20 chain seconds", async || {
        let now = chain_time(&rpc).await?;
        Ok((now.1 >= begin.1 + 20).then_some(now))
    });
    let before = before.await?;
    let genesis = rpc.get_genesis_hash().await?;
    chain.stop().await?;

    let chain = Localnet::start(config).await?;
    let rpc = client(&chain);
    ensure!(rpc.get_balance(&address).await? == 3 * SOL);
    let after = chain_time(&rpc).await?;
    ensure!(after.0 >= before.0 && after.1 >= before.1, "the chain went from {before:?} to {after:?}");
    ensure!(after.1 - before.1 < 30, "the chain jumped from {before:?} to {after:?}");
    ensure!(rpc.get_genesis_hash().await? == genesis, "it is another chain now");
    let other = Localnet::start(quick()).await?;
    ensure!(client(&other).get_genesis_hash().await? != genesis, "two chains are one");
    other.stop().await?;
    Ok(chain.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn placed_programs_are_executable_and_run() -> Result<()> {
    let (id, payer) = (Keypair::new().pubkey(), Keypair::new());
    let chain = Localnet::start(LocalnetConfig {
        programs: vec![Program { id: id.to_bytes(), elf: NOOP_PROGRAM_ELF.to_vec() }],
        airdrops: vec![Airdrop { address: payer.pubkey().to_bytes(), lamports: SOL }],
        ..quick()
    });
    let chain = chain.await?;
    let rpc = client(&chain);
    let account = rpc.get_account(&id).await?;
    ensure!(account.executable && account.owner.to_string() == "BPFLoaderUpgradeab1e11111111111111111111111");
    send(&rpc, &payer, Instruction { program_id: id, accounts: vec![], data: vec![] }).await?;
    Ok(chain.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_in_the_ledger_is_replaced_whole() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let id = Keypair::new().pubkey();
    let with = |elf| LocalnetConfig {
        ledger: Some(folder.path().join("chain.db")),
        programs: vec![Program { id: id.to_bytes(), elf }],
        ..quick()
    };
    let longer = [NOOP_PROGRAM_ELF, &[7; 99]].concat();
    Localnet::start(with(longer)).await?.stop().await?;
    let chain = Localnet::start(with(NOOP_PROGRAM_ELF.to_vec())).await?;
    let data = client(&chain).get_account(&solana_loader_v3_interface::get_program_data_address(&id)).await?.data;
    ensure!(data.ends_with(NOOP_PROGRAM_ELF), "{} bytes", data.len());
    Ok(chain.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_program_are_refused_by_name() {
    for elf in [b"no elf".to_vec(), b"\x7fELF but nothing after it".to_vec()] {
        let config = LocalnetConfig { programs: vec![Program { id: [7; 32], elf }], ..quick() };
        let refused = Localnet::start(config).await.unwrap_err();
        assert!(matches!(refused, LocalnetError::Program { .. }), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_chain_frees_its_ports() -> Result<()> {
    let chain = Localnet::start(quick()).await?;
    let (rpc, ws) = (chain.rpc_address(), chain.ws_address());
    drop(chain);
    until("both ports free", async || {
        Ok((std::net::TcpListener::bind(rpc).is_ok() && std::net::TcpListener::bind(ws).is_ok()).then_some(()))
    })
    .await
}
