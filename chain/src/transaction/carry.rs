//! Carries one signed transaction to its end: the same bytes go to every healthy endpoint, again and again, and every one of
//! them is asked what became of it. Sending and asking go on beside each other, so an endpoint that hangs holds nobody up.

use std::pin::pin;
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use psyche_messages::Slot;
use serde::Deserialize;
use serde_json::json;
use solana_client::client_error::ClientError;
use solana_client::rpc_request::RpcRequest;
use solana_client::rpc_response::Response;
use solana_commitment_config::CommitmentConfig;
use solana_transaction_error::TransactionError;
use solana_transaction_status_client_types::TransactionStatus;
use tokio::time::Instant;

use super::explain::Subject;
use super::message::Signed;
use super::verdict::{Seen, Verdict, verdict};
use super::{Confirmed, Plan};
use crate::error::ChainError;
use crate::rpc::Rpc;

/// Pauses between two looks at the outcome, in milliseconds; the last one repeats.
const POLL_MS: [u64; 6] = [50, 80, 120, 200, 300, 400];
/// Every so many looks, every endpoint is asked, and not only the one that answers best.
const LOOKS_PER_VOTE: u32 = 4;
/// How long an endpoint may think about its vote.
const VOTE_PATIENCE: Duration = Duration::from_secs(2);
/// How often the same bytes are sent again.
const REBROADCAST: Duration = Duration::from_secs(2);
/// How often, and after which pause, the log of a failed transaction is looked for.
const LOG_LOOKS: u32 = 3;
const LOG_PAUSE: Duration = Duration::from_millis(300);

/// What carries a transaction until it is settled.
pub(super) struct Carrier<'a> {
    rpc: &'a Rpc,
    plan: &'a Plan<'a>,
    signed: &'a Signed,
    /// The last block in which it can land.
    last_valid: u64,
    round: FirstRound,
    sends: FuturesUnordered<BoxFuture<'a, (usize, Result<String, ClientError>)>>,
}

impl<'a> Carrier<'a> {
    pub(super) fn new(rpc: &'a Rpc, plan: &'a Plan<'a>, signed: &'a Signed, last_valid: u64) -> Self {
        Self { rpc, plan, signed, last_valid, round: FirstRound::default(), sends: FuturesUnordered::new() }
    }

    /// Sends until the outcome is known.
    ///
    /// # Errors
    /// A refusal; [`ChainError::Expired`] where it never will land; [`ChainError::Unsettled`] where `deadline` comes first; why
    /// no endpoint took it where that is certain.
    pub(super) async fn carry(mut self, preflight: bool, deadline: Instant) -> Result<Confirmed, ChainError> {
        let (plan, signature) = (self.plan, self.signed.signature);
        self.send(preflight);
        let mut sent_at = Instant::now();
        let mut pauses = POLL_MS.iter().map(|ms| Duration::from_millis(*ms));
        let mut pause = Duration::ZERO;
        for look in 1_u32.. {
            pause = pauses.next().unwrap_or(pause);
            self.beside(tokio::time::sleep(pause)).await?;
            let said = if look.is_multiple_of(LOOKS_PER_VOTE) { self.votes().await? } else { vec![self.glance().await?] };
            match verdict(&said, self.last_valid) {
                Verdict::Confirmed(slot) => return Ok(Confirmed { signature, slot }),
                Verdict::Failed(slot, error) => {
                    self.rpc.note_slot(slot);
                    return Err(self.failed(error).await);
                }
                Verdict::Expired(slot) => {
                    // What is read from now on shows whether it landed after all.
                    self.rpc.note_slot(slot);
                    return Err(ChainError::Expired { purpose: plan.purpose, signature });
                }
                Verdict::Open => {}
            }
            if Instant::now() >= deadline {
                break;
            }
            if sent_at.elapsed() >= REBROADCAST && self.sends.is_empty() {
                sent_at = Instant::now();
                self.send(false);
            }
        }
        Err(ChainError::Unsettled { purpose: plan.purpose, signature })
    }

    fn send(&mut self, preflight: bool) {
        let (rpc, signed) = (self.rpc, self.signed);
        self.sends.extend(rpc.healthy_endpoints().into_iter().map(|index| send_to(rpc, index, signed, preflight).boxed()));
    }

    /// Waits for `work` and drives the sendings meanwhile.
    async fn beside<F: Future>(&mut self, work: F) -> Result<F::Output, ChainError> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                Some((index, result)) = self.sends.next() => {
                    self.round.note(self.rpc, index, result);
                    if self.sends.is_empty() {
                        self.round.verdict(self.rpc, self.plan).await?;
                    }
                }
                output = &mut work => return Ok(output),
            }
        }
    }

    /// What the endpoint that answers best knows.
    async fn glance(&mut self) -> Result<Seen, ChainError> {
        let (rpc, signature) = (self.rpc, self.signed.signature);
        let found = self.beside(rpc.confirmation(&signature, false)).await?;
        Ok(match found {
            Ok(Some((slot, error))) => Seen::Landed { slot, error },
            Ok(None) | Err(_) => Seen::Silent,
        })
    }

    /// What every healthy endpoint knows.
    async fn votes(&mut self) -> Result<Vec<Seen>, ChainError> {
        let (rpc, signed) = (self.rpc, self.signed);
        let vote = |index| async move {
            let vote = tokio::time::timeout(VOTE_PATIENCE, vote_of(rpc, index, signed)).await;
            vote.unwrap_or(None).unwrap_or(Seen::Silent)
        };
        self.beside(join_all(rpc.healthy_endpoints().into_iter().map(vote))).await
    }

    /// A transaction that landed without effect; its log tells which program refused. Takes itself whole, as the sendings
    /// can't be shared between threads, and whoever waits for a transaction may do so on any.
    async fn failed(self, error: TransactionError) -> ChainError {
        let logs = match &error {
            TransactionError::InstructionError(..) => logs_of(self.rpc, self.signed).await,
            _ => Vec::new(),
        };
        self.rpc.explain(Subject::from(self.plan), error, &logs).await
    }
}

async fn send_to(rpc: &Rpc, index: usize, signed: &Signed, preflight: bool) -> (usize, Result<String, ClientError>) {
    let config = json!({
        "encoding": "base64", "skipPreflight": !preflight, "preflightCommitment": "confirmed", "maxRetries": 0,
    });
    let params = json!([signed.base64, config]);
    (index, rpc.send_at(index, RpcRequest::SendTransaction, params).await)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EpochInfo {
    absolute_slot: u64,
    block_height: u64,
}

/// What the endpoint `index` says, its height before its knowledge of the transaction: what it does not know then is in no
/// block up to that height.
async fn vote_of(rpc: &Rpc, index: usize, signed: &Signed) -> Option<Seen> {
    let confirmed = json!([{"commitment": "confirmed"}]);
    let info: EpochInfo = rpc.send_at(index, RpcRequest::GetEpochInfo, confirmed).await.ok()?;
    let params = json!([[signed.signature.to_string()], {"searchTransactionHistory": true}]);
    let statuses: Response<Vec<Option<TransactionStatus>>> =
        rpc.send_at(index, RpcRequest::GetSignatureStatuses, params).await.ok()?;
    let status = statuses.value.into_iter().next()?;
    Some(match status {
        Some(status) if status.satisfies_commitment(CommitmentConfig::confirmed()) => {
            Seen::Landed { slot: Slot(status.slot), error: status.err }
        }
        // In a block that is not confirmed yet, which it may become.
        Some(_) => Seen::Pending,
        None => Seen::Absent { height: info.block_height, slot: Slot(info.absolute_slot) },
    })
}

/// The log of a transaction that failed, from whoever keeps it; empty where nobody does.
async fn logs_of(rpc: &Rpc, signed: &Signed) -> Vec<String> {
    #[derive(Deserialize)]
    struct Fetched {
        meta: Option<Meta>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Meta {
        log_messages: Option<Vec<String>>,
    }
    let config = json!({"encoding": "json", "commitment": "confirmed", "maxSupportedTransactionVersion": 0});
    let params = json!([signed.signature.to_string(), config]);
    for _ in 0..LOG_LOOKS {
        for index in rpc.healthy_endpoints() {
            let asked = rpc.send_at::<Option<Fetched>>(index, RpcRequest::GetTransaction, params.clone());
            if let Ok(Ok(Some(Fetched { meta: Some(Meta { log_messages: Some(logs) }) }))) =
                tokio::time::timeout(VOTE_PATIENCE, asked).await
            {
                return logs;
            }
        }
        tokio::time::sleep(LOG_PAUSE).await;
    }
    Vec::new()
}

/// How the first sending went: whether anybody took the transaction, or may have.
#[derive(Default)]
struct FirstRound {
    over: bool,
    maybe_taken: bool,
    refusal: Option<TransactionError>,
    failure: Option<ChainError>,
}

impl FirstRound {
    fn note(&mut self, rpc: &Rpc, index: usize, result: Result<String, ClientError>) {
        if self.over {
            return;
        }
        match result {
            Ok(_signature) => self.maybe_taken = true,
            Err(error) => match error.get_transaction_error() {
                Some(TransactionError::AlreadyProcessed) => self.maybe_taken = true,
                // The endpoint lags behind the one that gave the blockhash; it will know it at the next sending.
                Some(TransactionError::BlockhashNotFound) => self.maybe_taken = true,
                Some(refusal) => self.refusal = Some(refusal),
                None => {
                    let Some(endpoint) = rpc.endpoints().get(index) else { return };
                    let failure = rpc.classify(error, endpoint, RpcRequest::SendTransaction);
                    self.maybe_taken |= !surely_not_taken(&failure);
                    self.failure = Some(failure);
                }
            },
        }
    }

    /// After everybody's answer: an error if nobody can have taken the transaction.
    async fn verdict(&mut self, rpc: &Rpc, plan: &Plan<'_>) -> Result<(), ChainError> {
        if self.over || self.maybe_taken {
            self.over = true;
            return Ok(());
        }
        match (self.refusal.take(), self.failure.take()) {
            (Some(refusal), _) => Err(rpc.explain(Subject::from(plan), refusal, &[]).await),
            (None, Some(failure)) => Err(failure),
            (None, None) => Ok(()),
        }
    }
}

/// Whether a request that failed so has certainly not been acted upon. A connection that breaks, an answer that does not come
/// or can't be read, a gateway that gives up: all of them may have passed the transaction on.
fn surely_not_taken(failure: &ChainError) -> bool {
    match failure {
        ChainError::Unreachable { source, .. } => source.is_connect(),
        ChainError::Http { status, .. } => (400..500).contains(status),
        // The node is unhealthy, or does not know the method: it says so before it looks at the request.
        ChainError::Unfit { code, .. } => matches!(code, -32_005 | -32_601),
        ChainError::Behind { .. } | ChainError::Refused { .. } => true,
        _ => false,
    }
}
