//! One life cycle for every transaction.
//!
//! Build, simulate (which refuses early and measures the compute units), price, sign; send the same bytes to every endpoint,
//! again and again; ask for the outcome until it is confirmed or until the chain has passed the last block in which the
//! transaction could land. Only then may it be signed anew ([`Rpc::submit_until`]), and only if its effect is still absent:
//! nothing ever runs twice.

mod desk;
mod explain;
mod message;

#[cfg(test)]
mod tests;

use std::pin::pin;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use psyche_messages::{Address, Slot};
use serde::Deserialize;
use serde_json::json;
use solana_client::client_error::ClientError;
use solana_client::rpc_request::RpcRequest;
use solana_client::rpc_response::{Response, RpcSimulateTransactionResult};
use solana_hash::Hash;
use solana_instruction::Instruction;
use solana_signature::Signature;
use solana_transaction_error::TransactionError;

use crate::error::ChainError;
use crate::rpc::Rpc;
use crate::wallet::Wallet;
pub(crate) use desk::Desk;
use message::Signed;

/// Compute units that a simulation may take: the chain's limit for a transaction.
const COMPUTE_UNITS_MAX: u32 = 1_400_000;
/// Units added to what a simulation took, since the state may differ when the transaction runs.
const COMPUTE_MARGIN: u64 = 20_000;
/// Pauses between two looks at the outcome, in milliseconds; the last one repeats.
const POLL_MS: [u64; 6] = [50, 80, 120, 200, 300, 400];
/// How often the same bytes are sent again.
const REBROADCAST: Duration = Duration::from_secs(2);
/// How often it is looked whether the transaction can still land.
const EXPIRY_CHECK: Duration = Duration::from_millis(800);
/// How often a transaction is signed anew at most.
const SIGNATURES_MAX: u32 = 5;

/// How many compute units a transaction may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compute {
    /// As many as a simulation took, and half as many again.
    Simulated,
    /// So many; nothing is simulated, so refusals show only once the transaction has run and cost its fee.
    Limit(u32),
}

/// What a transaction does and who signs it.
#[derive(Clone, Debug)]
pub struct Plan<'a> {
    /// What it is for, in words that complete "failed to run …".
    pub purpose: &'static str,
    /// Who pays.
    pub payer: &'a Wallet,
    /// Who signs besides.
    pub signers: &'a [&'a Wallet],
    /// What it does.
    pub instructions: &'a [Instruction],
    /// What it may take.
    pub compute: Compute,
}

/// A transaction that is part of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confirmed {
    /// Its signature.
    pub signature: Signature,
    /// The slot that holds it.
    pub slot: Slot,
}

/// How [`Rpc::submit_until`] ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// A transaction of ours did it.
    Confirmed(Confirmed),
    /// It was done already when the transaction would have been signed anew.
    AlreadyDone,
}

impl Submitted {
    /// The transaction of ours that did it.
    #[must_use]
    pub const fn signature(&self) -> Option<Signature> {
        match self {
            Self::Confirmed(confirmed) => Some(confirmed.signature),
            Self::AlreadyDone => None,
        }
    }
}

#[derive(Deserialize)]
struct LatestBlockhash {
    blockhash: String,
    #[serde(rename = "lastValidBlockHeight")]
    last_valid_block_height: u64,
}

impl Rpc {
    /// Brings a transaction onto the chain, signing it once.
    ///
    /// # Errors
    /// [`ChainError::Program`], [`ChainError::InsufficientFunds`] or [`ChainError::Transaction`] when it is refused,
    /// [`ChainError::Expired`] when it did not and never will land, or why no endpoint took it.
    pub async fn submit(&self, plan: &Plan<'_>) -> Result<Confirmed, ChainError> {
        let latest = RpcRequest::GetLatestBlockhash;
        let (_slot, latest): (_, LatestBlockhash) = self.call_at(latest, json!([self.read_config()])).await?;
        let no_hash = |_| ChainError::Build { purpose: plan.purpose, reason: "the endpoint's blockhash is none" };
        let blockhash: Hash = latest.blockhash.parse().map_err(no_hash)?;
        let limit = match plan.compute {
            Compute::Limit(limit) => limit,
            Compute::Simulated => self.simulate(plan, blockhash).await?,
        };
        let price = self.compute_price(plan).await;
        let signed = message::sign(plan, blockhash, limit, price)?;
        let preflight = matches!(plan.compute, Compute::Limit(_));
        let confirmed = self.broadcast(plan, &signed, latest.last_valid_block_height, preflight).await?;
        self.note_slot(confirmed.slot);
        Ok(confirmed)
    }

    /// As [`Rpc::submit`], but signs anew after an expiry as long as `already_done` says that the effect is absent.
    ///
    /// # Errors
    /// As [`Rpc::submit`], and what `already_done` fails with.
    pub async fn submit_until<F, Fut>(&self, plan: &Plan<'_>, already_done: F) -> Result<Submitted, ChainError>
    where
        F: Fn() -> Fut + Send,
        Fut: Future<Output = Result<bool, ChainError>> + Send,
    {
        let mut attempt = 1;
        loop {
            match self.submit(plan).await {
                Ok(confirmed) => return Ok(Submitted::Confirmed(confirmed)),
                Err(ChainError::Expired { signature, .. }) if attempt < SIGNATURES_MAX => {
                    tracing::debug!(purpose = plan.purpose, %signature, attempt, "transaction expired");
                }
                Err(error) => return Err(error),
            }
            if already_done().await? {
                return Ok(Submitted::AlreadyDone);
            }
            attempt += 1;
        }
    }

    /// Runs the transaction without effect; returns the compute limit to use.
    async fn simulate(&self, plan: &Plan<'_>, blockhash: Hash) -> Result<u32, ChainError> {
        let signed = message::sign(plan, blockhash, COMPUTE_UNITS_MAX, 0)?;
        let config = json!({
            "sigVerify": false, "commitment": "confirmed", "encoding": "base64", "minContextSlot": self.seen_slot().0,
        });
        let params = json!([signed.base64, config]);
        let answer: Response<RpcSimulateTransactionResult> = self.call(RpcRequest::SimulateTransaction, params).await?;
        self.note_slot(Slot(answer.context.slot));
        if let Some(refusal) = answer.value.err {
            let logs = answer.value.logs.unwrap_or_default();
            return Err(self.explain(plan.into(), refusal.into(), &logs).await);
        }
        let units = answer.value.units_consumed.unwrap_or_else(|| COMPUTE_UNITS_MAX.into());
        let limit = units.saturating_add(units / 2).saturating_add(COMPUTE_MARGIN);
        Ok(u32::try_from(limit).unwrap_or(COMPUTE_UNITS_MAX).min(COMPUTE_UNITS_MAX))
    }

    /// Asks the chain what would come of `instructions` if `payer` signed and paid for them, without anybody's key: the
    /// compute units that they would take, or why they would be refused.
    ///
    /// # Errors
    /// [`ChainError`] where no endpoint answers.
    pub async fn rehearse(
        &self,
        purpose: &'static str,
        payer: Address,
        instructions: &[Instruction],
    ) -> Result<Result<u64, ChainError>, ChainError> {
        let config = json!({
            "sigVerify": false, "replaceRecentBlockhash": true, "commitment": "confirmed", "encoding": "base64",
            "minContextSlot": self.seen_slot().0,
        });
        let params = json!([message::unsigned(instructions, payer, COMPUTE_UNITS_MAX), config]);
        let answer: Response<RpcSimulateTransactionResult> = self.call(RpcRequest::SimulateTransaction, params).await?;
        self.note_slot(Slot(answer.context.slot));
        let Some(refusal) = answer.value.err else { return Ok(Ok(answer.value.units_consumed.unwrap_or_default())) };
        let subject = explain::Subject { purpose, payer, instructions };
        Ok(Err(self.explain(subject, refusal.into(), &answer.value.logs.unwrap_or_default()).await))
    }

    /// What a compute unit should cost, in millionths of a lamport: what three quarters of the recent transactions on the
    /// same accounts paid at most, within the configured bounds. Without samples, the floor.
    async fn compute_price(&self, plan: &Plan<'_>) -> u64 {
        #[derive(Deserialize)]
        struct Sample {
            #[serde(rename = "prioritizationFee")]
            fee: u64,
        }
        let config = self.config();
        let writable = message::writable(plan);
        let samples: Result<Vec<Sample>, _> = self.call(RpcRequest::GetRecentPrioritizationFees, json!([writable])).await;
        let mut fees: Vec<u64> = samples.unwrap_or_default().into_iter().map(|sample| sample.fee).collect();
        fees.sort_unstable();
        let fee = fees.get(fees.len() * 3 / 4).copied().unwrap_or(0);
        fee.clamp(config.fee_floor_micro_lamports, config.fee_ceiling_micro_lamports.max(config.fee_floor_micro_lamports))
    }

    /// Sends the bytes to every endpoint until the outcome is known. Sending goes on beside everything else, so an endpoint
    /// that hangs holds nobody up.
    async fn broadcast(
        &self,
        plan: &Plan<'_>,
        signed: &Signed,
        last_valid_block_height: u64,
        preflight: bool,
    ) -> Result<Confirmed, ChainError> {
        let mut sending = Sending { rpc: self, plan, round: FirstRound::default(), sends: FuturesUnordered::new() };
        sending.sends.extend((0..self.endpoints().len()).map(|index| self.send_to(index, signed, preflight).boxed()));
        let (mut sent_at, mut checked_at) = (Instant::now(), Instant::now());
        let mut pauses = POLL_MS.iter().map(|ms| Duration::from_millis(*ms));
        let mut pause = Duration::ZERO;
        loop {
            pause = pauses.next().unwrap_or(pause);
            sending.beside(tokio::time::sleep(pause)).await?;
            if let Ok(Some(outcome)) = sending.beside(self.confirmation(&signed.signature, false)).await? {
                return self.outcome(plan, signed, outcome).await;
            }
            if checked_at.elapsed() >= EXPIRY_CHECK {
                checked_at = Instant::now();
                // A height that can't be read now is read at the next check.
                if sending.beside(self.block_height()).await?.is_ok_and(|height| height > last_valid_block_height) {
                    let outcome = self.confirmation(&signed.signature, true).await?;
                    let expired = ChainError::Expired { purpose: plan.purpose, signature: signed.signature };
                    return self.outcome(plan, signed, outcome.ok_or(expired)?).await;
                }
            }
            if sent_at.elapsed() >= REBROADCAST && sending.sends.is_empty() {
                sent_at = Instant::now();
                let again = (0..self.endpoints().len()).map(|index| self.send_to(index, signed, false).boxed());
                sending.sends.extend(again);
            }
        }
    }

    async fn outcome(
        &self,
        plan: &Plan<'_>,
        signed: &Signed,
        (slot, error): (Slot, Option<TransactionError>),
    ) -> Result<Confirmed, ChainError> {
        match error {
            None => Ok(Confirmed { signature: signed.signature, slot }),
            Some(error) => Err(self.explain(plan.into(), error, &[]).await),
        }
    }

    async fn send_to(&self, index: usize, signed: &Signed, preflight: bool) -> (usize, Result<String, ClientError>) {
        let config = json!({
            "encoding": "base64", "skipPreflight": !preflight, "preflightCommitment": "confirmed", "maxRetries": 0,
        });
        let params = json!([signed.base64, config]);
        match self.endpoints().get(index) {
            Some(endpoint) => (index, endpoint.client.send(RpcRequest::SendTransaction, params).await),
            None => (index, Ok(String::new())),
        }
    }
}

/// The sendings under way.
struct Sending<'a> {
    rpc: &'a Rpc,
    plan: &'a Plan<'a>,
    round: FirstRound,
    sends: FuturesUnordered<BoxFuture<'a, (usize, Result<String, ClientError>)>>,
}

impl Sending<'_> {
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
                    // A request whose answer did not come in time may have arrived.
                    self.maybe_taken |= matches!(failure, ChainError::Timeout { .. });
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
            (Some(refusal), _) => Err(rpc.explain(plan.into(), refusal, &[]).await),
            (None, Some(failure)) => Err(failure),
            (None, None) => Ok(()),
        }
    }
}
