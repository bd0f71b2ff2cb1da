//! What was said to a run in past transactions, for a node that missed the account's states in between.

use psyche_messages::{Address, Slot};
use serde::Deserialize;
use serde_json::{Value, json};
use solana_client::rpc_request::RpcRequest;

use crate::Signature;
use crate::error::ChainError;
use crate::rpc::{Rpc, SignatureRecord};
use crate::run::RunInfo;

/// Signatures of one page.
const PAGE: usize = 200;
/// Longest instruction that a transaction can carry.
const DATA_LEN_MAX: usize = 1_232;

/// An instruction of the coordinator program that succeeded on a run, called by a transaction directly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoordinatorCall {
    /// The transaction.
    pub signature: Signature,
    /// The slot that holds it.
    pub slot: Slot,
    /// Who signed as the instruction's user.
    pub user: Address,
    /// Discriminator and arguments (`psyche_protocol::instruction`).
    pub data: Vec<u8>,
}

#[derive(Deserialize)]
struct Fetched {
    transaction: FetchedTransaction,
}

#[derive(Deserialize)]
struct FetchedTransaction {
    message: FetchedMessage,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FetchedMessage {
    account_keys: Vec<String>,
    instructions: Vec<FetchedInstruction>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FetchedInstruction {
    program_id_index: usize,
    accounts: Vec<usize>,
    data: String,
}

/// Everything that was said to `run` after slot `since`, the oldest first: at most the newest `transactions_max`
/// transactions.
///
/// # Errors
/// [`ChainError`] where no endpoint answers or none keeps the history.
pub async fn calls_since(
    rpc: &Rpc,
    run: &RunInfo,
    since: Slot,
    transactions_max: usize,
) -> Result<Vec<CoordinatorCall>, ChainError> {
    let mut records: Vec<SignatureRecord> = Vec::new();
    loop {
        let wanted = PAGE.min(transactions_max.saturating_sub(records.len()));
        if wanted == 0 {
            break;
        }
        let page = rpc.signatures(run.account, records.last().map(|record| record.signature), wanted).await?;
        let (full, before) = (page.len() == wanted, records.len());
        records.extend(page.into_iter().take_while(|record| record.slot > since));
        if !full || records.len() < before + wanted {
            break;
        }
    }
    let mut calls = Vec::new();
    for record in records.iter().rev().filter(|record| record.succeeded) {
        calls.extend(calls_of(rpc, run, record).await?);
    }
    Ok(calls)
}

async fn calls_of(rpc: &Rpc, run: &RunInfo, record: &SignatureRecord) -> Result<Vec<CoordinatorCall>, ChainError> {
    let config = json!({"encoding": "json", "commitment": "confirmed", "maxSupportedTransactionVersion": 0});
    let params = json!([record.signature.to_string(), config]);
    let fetched: Value = rpc.call(RpcRequest::GetTransaction, params).await?;
    // A node that keeps no history answers null.
    let fetched: Option<Fetched> = serde_json::from_value(fetched).ok();
    let Some(Fetched { transaction: FetchedTransaction { message } }) = fetched else {
        return Err(rpc.malformed(RpcRequest::GetTransaction));
    };
    let key = |index: usize| message.account_keys.get(index)?.parse::<Address>().ok();
    let call = |instruction: &FetchedInstruction| {
        let program = key(instruction.program_id_index)?;
        let touches_run = instruction.accounts.iter().any(|index| key(*index) == Some(run.account));
        let user = key(*instruction.accounts.first()?)?;
        if program != rpc.programs().coordinator || !touches_run || instruction.data.len() > 2 * DATA_LEN_MAX {
            return None;
        }
        let data = bs58::decode(&instruction.data).into_vec().ok()?;
        Some(CoordinatorCall { signature: record.signature, slot: record.slot, user, data })
    };
    Ok(message.instructions.iter().filter_map(call).collect())
}
