//! A claimed reward, seen by clients that know SPL tokens but not us.

use anyhow::{Result, ensure};
use psyche_chain::{ProgramIds, Rpc, RunInfo, Wallet, addresses, ops};
use psyche_messages::{Address, Points};
use psyche_protocol::ids;
use psyche_protocol::layout::CoordinatorAccount;
use serde_json::{Value, json};

use crate::clients::{Client, start_all};
use crate::run::{DECIMALS, EARNED, SUPPLY, create, play};
use crate::support::{chain, ours};

/// Claimed first; the rest follows.
const FIRST_CLAIM: u64 = 234_567;

/// What a client reads of the run's account and of the reward must be what we read.
async fn expected(rpc: &Rpc, run: &RunInfo, mint: Address, owner: Address) -> Result<Vec<(&'static str, Value)>> {
    let account = rpc.account(run.account).await?.expect("the run is there");
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let slice = hex(&account.data[8..32]);
    let discriminator = hex(&CoordinatorAccount::DISCRIMINATOR);
    let program = ProgramIds::default().coordinator;
    ensure!(account.data.len() == CoordinatorAccount::SIZE);
    Ok(vec![
        ("seen", json!([FIRST_CLAIM, EARNED])),
        ("balance", json!(EARNED)),
        ("decimals", json!(DECIMALS)),
        ("mint_decimals", json!(DECIMALS)),
        ("supply", json!(SUPPLY)),
        ("parsed", json!([EARNED])),
        ("token", json!({ "amount": EARNED, "mint": mint.to_string(), "owner": owner.to_string() })),
        (
            "coordinator",
            json!({ "discriminator": discriminator, "bytes": CoordinatorAccount::SIZE, "owner": program.to_string() }),
        ),
        ("found", json!([{ "address": run.account.to_string(), "slice": slice }])),
        ("slice", json!(slice)),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claimed_reward_is_what_web3_js_kit_and_solders_find_in_the_token_account() -> Result<()> {
    let (owner, node) = (Wallet::new(), Wallet::new());
    let chain = chain(&[&owner, &node]).await?;
    let rpc = ours(&chain)?;
    let (run, mint) = create(&rpc, &owner).await?;
    play(&rpc, &owner, &node, &run).await?;
    let account = addresses::associated_token(node.address(), mint);
    ensure!(rpc.token_balance(account).await?.is_none(), "nothing was claimed so far");

    let job = json!({
        "scenario": "rewards", "rpc": chain.rpc_url(), "ws": chain.ws_url(), "claimed": EARNED,
        "program": rpc.programs().coordinator.to_string(), "coordinator": run.account.to_string(),
        "mint": mint.to_string(), "owner": node.address().to_string(),
        "token_program": Address(ids::TOKEN_PROGRAM).to_string(),
        "associated_token_program": Address(ids::ASSOCIATED_TOKEN_PROGRAM).to_string(),
    });
    let watching = start_all(&job).await?;
    let claimed = ops::claim_rewards(&rpc, &node, &run.run_id, Some(Points(FIRST_CLAIM))).await?;
    ensure!(claimed.amount == Points(FIRST_CLAIM), "{claimed:?}");
    let rest = ops::claim_rewards(&rpc, &node, &run.run_id, None).await?;
    ensure!(rest.claimed_in_all == Points(EARNED) && rest.left == Points(0), "{rest:?}");

    let expected = expected(&rpc, &run, mint, node.address()).await?;
    for (client, running) in Client::ALL.into_iter().zip(watching) {
        let report = running.done().await?;
        for (name, value) in &expected {
            // kit comes without decoders for accounts of the token program.
            let absent = client == Client::Kit && ["token", "mint_decimals"].contains(name);
            ensure!(absent || report[*name] == *value, "{client:?} sees {name} as {}, not as {value}", report[*name]);
        }
    }
    Ok(chain.stop().await?)
}
