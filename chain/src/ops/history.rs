//! What was said to a run in past transactions, for a node that missed the account's states in between.

use std::collections::HashSet;
use std::time::Duration;

use futures::future::join_all;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use psyche_messages::{Address, Slot};
use serde::Deserialize;
use serde_json::{Value, json};
use solana_client::rpc_request::RpcRequest;

use crate::Signature;
use crate::error::ChainError;
use crate::rpc::{Rpc, SignatureRecord};
use crate::run::RunInfo;

/// Most transactions that [`calls_between`] goes back.
pub const SIGNATURES_MAX: usize = 2_000;
/// Signatures of one page.
const PAGE: usize = 200;
/// How long an endpoint may think that is asked besides.
const PATIENCE: Duration = Duration::from_secs(5);
/// Transactions that are fetched at once.
const FETCHES: usize = 8;
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
/// transactions. Endpoints keep histories of different lengths, so every healthy one is asked what it has, and each
/// transaction is fetched from whoever has it.
///
/// # Errors
/// [`ChainError`] where no endpoint answers; [`ChainError::HistoryMissing`] for a transaction that nobody keeps.
pub async fn calls_since(
    rpc: &Rpc,
    run: &RunInfo,
    since: Slot,
    transactions_max: usize,
) -> Result<Vec<CoordinatorCall>, ChainError> {
    calls_in(rpc, run, &records(rpc, run.account, since, transactions_max).await?).await
}

/// Everything that was said to `run` after slot `after` and up to slot `until`, the oldest first; `None` if that is more than
/// `transactions_max` transactions, or lies more than [`SIGNATURES_MAX`] back.
///
/// # Errors
/// As [`calls_since`].
pub async fn calls_between(
    rpc: &Rpc,
    run: &RunInfo,
    after: Slot,
    until: Slot,
    transactions_max: usize,
) -> Result<Option<Vec<CoordinatorCall>>, ChainError> {
    let mut records = records(rpc, run.account, after, SIGNATURES_MAX).await?;
    let cut = records.len() >= SIGNATURES_MAX;
    records.retain(|record| record.slot <= until && record.succeeded);
    if cut || records.len() > transactions_max {
        return Ok(None);
    }
    calls_in(rpc, run, &records).await.map(Some)
}

/// What succeeded of these transactions, which are sorted the newest first.
async fn calls_in(rpc: &Rpc, run: &RunInfo, records: &[SignatureRecord]) -> Result<Vec<CoordinatorCall>, ChainError> {
    let fetches = records.iter().rev().filter(|record| record.succeeded).map(|record| calls_of(rpc, run, record));
    let calls: Vec<Vec<CoordinatorCall>> = stream::iter(fetches).buffered(FETCHES).try_collect().await?;
    Ok(calls.into_iter().flatten().collect())
}

/// The transactions that touched `account` after `since`, the newest first, as far as any endpoint knows them.
async fn records(rpc: &Rpc, account: Address, since: Slot, max: usize) -> Result<Vec<SignatureRecord>, ChainError> {
    // From the endpoint that answers best, in a state as new as any that was seen.
    let best = pages(async |before, wanted| rpc.signatures(account, before, wanted).await, since, max).await;
    // Known only now: a client's first call finds out who is there.
    let every = rpc.healthy_endpoints();
    let others = every
        .iter()
        .filter(|_| every.len() > 1)
        .map(|index| pages(async move |before, wanted| signatures_at(rpc, *index, account, before, wanted).await, since, max));
    let others = join_all(others).await;
    // What the others have forgotten, or can't tell now, is no loss as long as anybody knows it.
    let mut known: Vec<Vec<SignatureRecord>> = others.into_iter().filter_map(Result::ok).collect();
    match best {
        Ok(records) => known.push(records),
        Err(error) if known.is_empty() => return Err(error),
        Err(_silent) => {}
    }
    // Within a slot, the order of the longest list stands.
    known.sort_by_key(|records| std::cmp::Reverse(records.len()));
    let mut seen = HashSet::new();
    let mut all: Vec<SignatureRecord> = known.into_iter().flatten().filter(|record| seen.insert(record.signature)).collect();
    all.sort_by_key(|record| std::cmp::Reverse(record.slot));
    all.truncate(max);
    Ok(all)
}

/// Everything after `since`, page by page: at most `max`.
async fn pages(
    page: impl AsyncFn(Option<Signature>, usize) -> Result<Vec<SignatureRecord>, ChainError>,
    since: Slot,
    max: usize,
) -> Result<Vec<SignatureRecord>, ChainError> {
    let mut records: Vec<SignatureRecord> = Vec::new();
    while records.len() < max {
        let (wanted, len) = (PAGE.min(max - records.len()), records.len());
        let found = page(records.last().map(|record| record.signature), wanted).await?;
        let full = found.len() >= wanted;
        records.extend(found.into_iter().take(wanted).take_while(|record| record.slot > since));
        if !full || records.len() < len + wanted {
            break;
        }
    }
    Ok(records)
}

/// What the endpoint `index` alone knows of the transactions that touched `account`.
async fn signatures_at(
    rpc: &Rpc,
    index: usize,
    account: Address,
    before: Option<Signature>,
    limit: usize,
) -> Result<Vec<SignatureRecord>, ChainError> {
    #[derive(Deserialize)]
    struct Record {
        signature: String,
        slot: u64,
        err: Option<Value>,
    }
    let before = before.map(|signature| signature.to_string());
    let params = json!([account.to_string(), {"commitment": "confirmed", "limit": limit, "before": before}]);
    let method = RpcRequest::GetSignaturesForAddress;
    let refused = |error| rpc.endpoints().get(index).map(|endpoint| rpc.classify(error, endpoint, method));
    let asked = tokio::time::timeout(PATIENCE, rpc.send_at::<Vec<Record>>(index, method, params)).await;
    let records = match asked {
        Ok(Ok(records)) => records,
        Ok(Err(error)) => return Err(refused(error).unwrap_or_else(|| rpc.malformed(method))),
        Err(_elapsed) => return Err(rpc.malformed(method)),
    };
    let read = |record: Record| {
        let signature = record.signature.parse().map_err(|_none| rpc.malformed(method))?;
        Ok(SignatureRecord { signature, slot: Slot(record.slot), succeeded: record.err.is_none() })
    };
    records.into_iter().map(read).collect()
}

async fn calls_of(rpc: &Rpc, run: &RunInfo, record: &SignatureRecord) -> Result<Vec<CoordinatorCall>, ChainError> {
    let message = fetched(rpc, record).await?.transaction.message;
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

/// A transaction, from the first endpoint that has it.
async fn fetched(rpc: &Rpc, record: &SignatureRecord) -> Result<Fetched, ChainError> {
    let config = json!({"encoding": "json", "commitment": "confirmed", "maxSupportedTransactionVersion": 0});
    let params = json!([record.signature.to_string(), config]);
    let mut endpoints = rpc.healthy_endpoints();
    // The one that answers best first.
    endpoints.sort_by_key(|index| *index != rpc.current());
    for index in endpoints {
        let asked = rpc.send_at::<Option<Fetched>>(index, RpcRequest::GetTransaction, params.clone());
        // A node that keeps no history answers null.
        if let Ok(Ok(Some(fetched))) = tokio::time::timeout(PATIENCE, asked).await {
            return Ok(fetched);
        }
    }
    Err(ChainError::HistoryMissing { signature: record.signature })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use psyche_protocol::instruction::{Args as _, TickArgs};

    use super::*;
    use crate::transaction::tests::fake::{Chain, Manner, Past};

    fn run() -> RunInfo {
        let at = |n| Address([n; 32]);
        RunInfo {
            run_id: "run".parse().unwrap(),
            instance: at(1),
            account: at(2),
            main_authority: at(3),
            join_authority: at(4),
        }
    }

    fn past(rpc: &Rpc, number: u8) -> Past {
        let keys = [Address([9; 32]), run().account, rpc.programs().coordinator].map(|key| key.to_string());
        let data = bs58::encode(TickArgs.to_vec().unwrap()).into_string();
        let instruction = json!({"programIdIndex": 2, "accounts": [0, 1], "data": data});
        let message = json!({"accountKeys": keys, "instructions": [instruction]});
        Past { signature: Signature::from([number; 64]).to_string(), slot: u64::from(number), message }
    }

    async fn told(kept: [(u8, u8); 2]) -> Result<Vec<u64>, ChainError> {
        let keeps = |(from, to)| Manner { keeps: Some(from..to), ..Manner::default() };
        let (chain, rpc) = Chain::new(kept.map(keeps).to_vec());
        chain.ledger().past = (1..=6).map(|number| past(&rpc, number)).collect();
        let calls = calls_since(&rpc, &run(), Slot(1), 100).await?;
        Ok(calls.into_iter().map(|call| call.slot.0).collect())
    }

    #[tokio::test]
    async fn an_endpoint_without_history_is_no_hindrance() {
        assert_eq!(told([(0, 0), (0, 9)]).await.unwrap(), [2, 3, 4, 5, 6]);
        assert_eq!(told([(0, 9), (0, 0)]).await.unwrap(), [2, 3, 4, 5, 6]);
    }

    #[tokio::test]
    async fn what_each_endpoint_has_forgotten_comes_from_another() {
        assert_eq!(told([(0, 5), (4, 9)]).await.unwrap(), [2, 3, 4, 5, 6]);
    }

    #[tokio::test]
    async fn only_the_newest_are_fetched() {
        let (chain, rpc) = Chain::new(vec![Manner::default()]);
        chain.ledger().past = (1..=6).map(|number| past(&rpc, number)).collect();
        let calls = calls_since(&rpc, &run(), Slot(0), 2).await.unwrap();
        assert_eq!(calls.iter().map(|call| call.slot.0).collect::<Vec<_>>(), [5, 6]);
        assert_eq!(chain.ledger().count("getTransaction"), 2);
    }

    #[tokio::test]
    async fn only_what_lies_between_two_states_is_fetched() {
        let (chain, rpc) = Chain::new(vec![Manner::default()]);
        chain.ledger().past = (1..=6).map(|number| past(&rpc, number)).collect();
        let calls = calls_between(&rpc, &run(), Slot(2), Slot(4), 2).await.unwrap().unwrap();
        assert_eq!(calls.iter().map(|call| call.slot.0).collect::<Vec<_>>(), [3, 4]);
        assert_eq!(chain.ledger().count("getTransaction"), 2);
        assert_eq!(calls_between(&rpc, &run(), Slot(1), Slot(4), 2).await.unwrap(), None, "more than allowed");
        assert_eq!(chain.ledger().count("getTransaction"), 2);
    }

    #[tokio::test]
    async fn a_transaction_that_nobody_keeps_is_named() {
        let (chain, rpc) = Chain::new(vec![Manner::default()]);
        chain.ledger().past = vec![past(&rpc, 3)];
        chain.ledger().past[0].message = serde_json::Value::Null;
        let missing = calls_since(&rpc, &run(), Slot(0), 9).await.unwrap_err();
        assert!(matches!(missing, ChainError::HistoryMissing { .. }), "{missing}");
    }
}
