//! One life cycle for every transaction.
//!
//! Build, simulate (which refuses early and measures the compute units), price, sign; send the same bytes to every healthy
//! endpoint, again and again; ask for the outcome until it is confirmed or until the chain has passed the last block in which
//! the transaction could land. Only then may it be signed anew ([`Rpc::submit_until`]), and only if its effect is still
//! absent: nothing ever runs twice.
//!
//! - `desk`: what submissions share: blockhash, fees, signatures made.
//! - `message`: from instructions to signed bytes.
//! - `carry`: one signed transaction, sent until it is settled. `verdict`: what follows from what endpoints say.
//! - `explain`: refusals, attributed to the program that refused.

mod carry;
mod desk;
mod explain;
mod message;
mod verdict;

#[cfg(test)]
pub(crate) mod tests;

use std::time::Duration;

use psyche_messages::{Address, Retry, Slot};
use serde_json::json;
use solana_client::rpc_request::RpcRequest;
use solana_client::rpc_response::{Response, RpcSimulateTransactionResult};
use solana_instruction::Instruction;
use solana_signature::Signature;
use tokio::time::Instant;

use crate::error::ChainError;
use crate::rpc::Rpc;
use crate::wallet::Wallet;
use carry::Carrier;
pub(crate) use desk::Desk;
use explain::Subject;

/// Compute units that a simulation may take: the chain's limit for a transaction.
const COMPUTE_UNITS_MAX: u32 = 1_400_000;
/// Units added to what a simulation took, since the state may differ when the transaction runs: a join that found nothing to
/// move may be the one that begins the epoch. Twice what the dearest move of a run takes (docs/PROGRAMS.md).
const COMPUTE_MARGIN: u64 = 120_000;
/// How often a transaction is signed at most.
const SIGNATURES_MAX: u32 = 5;
/// How often something that is in the way for a moment is waited for, and how long each time.
const MOMENTS_MAX: u32 = 4;
const MOMENT: Duration = Duration::from_millis(300);

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

/// How a submission with a known effect ended well: with a confirmation, or with the effect of the last signature that expired.
enum End {
    Confirmed(Confirmed),
    Done(Signature),
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

impl Rpc {
    /// Brings a transaction onto the chain, signing it once.
    ///
    /// # Errors
    /// [`ChainError::Program`], [`ChainError::InsufficientFunds`] or [`ChainError::Transaction`] when it is refused,
    /// [`ChainError::Expired`] when it did not and never will land, [`ChainError::Unsettled`] when that could not be found
    /// out in time, or why no endpoint took it.
    pub async fn submit(&self, plan: &Plan<'_>) -> Result<Confirmed, ChainError> {
        let deadline = Instant::now() + self.config().transaction_deadline;
        self.attempt(plan, 1, deadline).await
    }

    /// As [`Rpc::submit`], but `already_done` says whether the effect is there: a refusal is none where it is, and after an
    /// expiry the transaction is signed anew where it is not. The number of signatures is bounded, and so is the time.
    ///
    /// # Errors
    /// As [`Rpc::submit`], and what `already_done` fails with.
    pub async fn submit_until<F, Fut>(&self, plan: &Plan<'_>, already_done: F) -> Result<Submitted, ChainError>
    where
        F: Fn() -> Fut + Send,
        Fut: Future<Output = Result<bool, ChainError>> + Send,
    {
        match self.see_through(plan, &already_done).await {
            Ok(End::Confirmed(confirmed)) => Ok(Submitted::Confirmed(confirmed)),
            Ok(End::Done(_)) => Ok(Submitted::AlreadyDone),
            Err(error @ ChainError::Program { .. }) => match already_done().await {
                Ok(true) => Ok(Submitted::AlreadyDone),
                _ => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// As [`Rpc::submit_until`] for somebody who wants a signature: what was done before anything was signed is refused as
    /// the program refuses it.
    ///
    /// # Errors
    /// As [`Rpc::submit_until`].
    pub async fn submit_to<F, Fut>(&self, plan: &Plan<'_>, already_done: F) -> Result<Confirmed, ChainError>
    where
        F: Fn() -> Fut + Send,
        Fut: Future<Output = Result<bool, ChainError>> + Send,
    {
        Ok(match self.see_through(plan, &already_done).await? {
            End::Confirmed(confirmed) => confirmed,
            // Its confirmation was lost; what can be read now holds its effect.
            End::Done(signature) => Confirmed { signature, slot: self.seen_slot() },
        })
    }

    async fn see_through<F, Fut>(&self, plan: &Plan<'_>, already_done: &F) -> Result<End, ChainError>
    where
        F: Fn() -> Fut + Send,
        Fut: Future<Output = Result<bool, ChainError>> + Send,
    {
        let deadline = Instant::now() + self.config().transaction_deadline;
        let mut expired = None;
        for attempt in 1..=SIGNATURES_MAX {
            let error = match (self.attempt(plan, attempt, deadline).await, expired) {
                (Ok(confirmed), _) => return Ok(End::Confirmed(confirmed)),
                // What was done by an earlier signature is refused a second time, with whatever code: the state tells.
                (Err(error @ ChainError::Program { .. }), Some(signature)) => {
                    return if already_done().await? { Ok(End::Done(signature)) } else { Err(error) };
                }
                (Err(error), _) => error,
            };
            let ChainError::Expired { signature, .. } = error else { return Err(error) };
            tracing::debug!(purpose = plan.purpose, %signature, attempt, "transaction expired");
            // No older signature can land any more: whether the effect is there now is so for good.
            if already_done().await? {
                return Ok(End::Done(signature));
            }
            if attempt == SIGNATURES_MAX || Instant::now() >= deadline {
                return Err(error);
            }
            expired = Some(signature);
        }
        Err(ChainError::Build { purpose: plan.purpose, reason: "it was never tried" })
    }

    /// One signature, seen through.
    async fn attempt(&self, plan: &Plan<'_>, attempt: u32, deadline: Instant) -> Result<Confirmed, ChainError> {
        let (limit, price) = tokio::join!(self.compute_limit(plan), self.compute_price(message::writable(plan), attempt));
        let (limit, preflight) = (limit?, matches!(plan.compute, Compute::Limit(_)));
        // Asked for last, so that all of its time is left.
        let recent = self.recent_blockhash(plan.purpose).await?;
        let mut signed = message::sign(plan, recent.hash, limit, price)?;
        for other in 1..=message::VARIANTS_MAX {
            if self.desk().is_new(signed.signature) {
                break;
            }
            signed = message::sign(plan, recent.hash, message::variant(limit, other), price)?;
        }
        let carried = Carrier::new(self, plan, &signed, recent.last_valid_block_height).carry(preflight, deadline).await;
        match &carried {
            Ok(confirmed) => self.note_slot(confirmed.slot),
            Err(ChainError::Expired { .. }) => self.desk().forget_hash().await,
            Err(_) => {}
        }
        carried
    }

    async fn compute_limit(&self, plan: &Plan<'_>) -> Result<u32, ChainError> {
        if let Compute::Limit(limit) = plan.compute {
            return Ok(limit);
        }
        let mut moments = 0;
        let units = loop {
            let simulated = self.rehearse(plan.purpose, plan.payer.address(), plan.instructions).await?;
            match simulated {
                Ok(units) => break units,
                // The account is locked, the block is full: what a chain says of the moment and not of the transaction.
                Err(refusal) if refusal.retry() != Retry::Never && moments < MOMENTS_MAX => {
                    moments += 1;
                    tokio::time::sleep(MOMENT * moments).await;
                }
                Err(refusal) => return Err(refusal),
            }
        };
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
        let params = json!([message::unsigned(purpose, instructions, payer, COMPUTE_UNITS_MAX)?, config]);
        let answer: Response<RpcSimulateTransactionResult> = self.call(RpcRequest::SimulateTransaction, params).await?;
        // The answer's slot may be one that is not confirmed, which no confirmed read may be asked for.
        let Some(refusal) = answer.value.err else {
            return Ok(Ok(answer.value.units_consumed.unwrap_or_else(|| COMPUTE_UNITS_MAX.into())));
        };
        let subject = Subject { purpose, payer, instructions };
        Ok(Err(self.explain(subject, refusal.into(), &answer.value.logs.unwrap_or_default()).await))
    }
}
