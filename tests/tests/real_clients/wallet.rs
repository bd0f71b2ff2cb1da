//! Balance, airdrop, transfer, account subscription: what every wallet does.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::clients::Client;
use crate::support::{SOL, chain, ours};

const AIRDROP: u64 = 2 * SOL;
const TRANSFER: u64 = SOL * 3 / 4;
/// Of one signature.
const FEE: u64 = 5_000;
/// 2,000 compute units at a lamport each.
const PRIORITY_FEE: u64 = 2_000;

/// Lets `client` do all that a wallet does on a chain of its own, and holds what is alike in all clients to be right.
async fn use_wallet(client: Client, transfers: u64) -> Result<Value> {
    let chain = chain(&[]).await?;
    let job = json!({
        "scenario": "wallet", "rpc": chain.rpc_url(), "ws": chain.ws_url(), "airdrop": AIRDROP, "transfer": TRANSFER,
    });
    let report = client.start(&job).await?.done().await?;
    let is = |name: &str, expected: Value| {
        ensure!(report[name] == expected, "{client:?} sees {name} as {}, not as {expected}: {report}", report[name]);
        Ok(())
    };
    is("genesis", json!(ours(&chain)?.genesis_hash().await?))?;
    is("empty", json!(0))?;
    is("airdropped", json!(AIRDROP))?;
    is("change", json!(TRANSFER))?;
    is("sender", json!(AIRDROP - transfers * (TRANSFER + FEE)))?;
    is("receiver", json!(transfers * TRANSFER))?;
    is("history_matches", json!(true))?;
    is("notified_slot_is_that_of_the_change", json!(true))?;
    is("transaction", json!({ "fee": FEE, "error": null, "version": 0 }))?;
    ensure!(report["slots"][0].as_u64() < report["slots"][1].as_u64(), "slots follow each other: {report}");
    ensure!(report["refused"]["logs"] == true, "a refusal tells the program's words: {report}");
    chain.stop().await?;
    Ok(report)
}

/// What is `null` where all is well, but must be there.
fn none(report: &Value, names: &[&str]) -> Result<()> {
    for name in names {
        ensure!(report.get(name) == Some(&Value::Null), "{name} is not null: {report}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn web3_js_airdrops_transfers_and_watches_an_account() -> Result<()> {
    let report = use_wallet(Client::Web3, 2).await?;
    none(&report, &["airdrop_error", "logged", "simulated", "transfer_error"])?;
    ensure!(report["fee"] == FEE && report["second_change"] == 2 * TRANSFER, "{report}");
    ensure!(report["accounts"] == json!([2 * TRANSFER, null]), "{report}");
    let refused = report["refused"]["text"].as_str().unwrap_or_default();
    ensure!(refused.contains("custom program error: 0x1"), "{report}");
    ensure!(report["stale"]["text"].as_str().unwrap_or_default().contains("Blockhash not found"), "{report}");
    ensure!(report["failed"] == json!({ "InstructionError": [2, { "Custom": 1 }] }), "{report}");
    ensure!(report["failed_pays"] == FEE + PRIORITY_FEE && report["prices"] == json!([1_000_000]), "{report}");
    ensure!(report["again"] == "refused" && report["expired"] == "TransactionExpiredBlockheightExceededError", "{report}");
    let (roots, slots) = (&report["roots"], &report["slots"]);
    ensure!(roots[0].as_u64() < roots[1].as_u64() && roots[0].as_u64() < slots[0].as_u64(), "{report}");
    for name in ["status_slot_matches", "height_at_most_slot", "finalized_blockhash_is_valid"] {
        ensure!(report[name] == true, "{name}: {report}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn kit_airdrops_transfers_and_watches_an_account() -> Result<()> {
    let report = use_wallet(Client::Kit, 1).await?;
    ensure!(report["refused"]["custom"] == 1, "{report}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn solana_py_airdrops_transfers_and_watches_an_account() -> Result<()> {
    let report = use_wallet(Client::SolanaPy, 1).await?;
    none(&report, &["airdrop_error", "simulated", "transfer_error"])?;
    ensure!(report["fee"] == FEE && report["accounts"] == json!([TRANSFER, null]), "{report}");
    ensure!(report["refused"]["custom"] == 1, "{report}");
    ensure!(report["prioritization_fees"] == true && report["height_at_most_slot"] == true, "{report}");
    Ok(())
}
