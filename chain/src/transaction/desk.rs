//! What all submissions of a process share, so that each need not ask anew: a recent blockhash, what recent transactions paid,
//! and which signatures were made.
//!
//! Freshness is counted in slots as far as anybody has seen them (a chain never has more blocks than slots), and in time
//! where nobody looks.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use psyche_messages::Slot;
use serde::Deserialize;
use serde_json::json;
use solana_client::rpc_request::RpcRequest;
use solana_hash::Hash;
use solana_signature::Signature;

use crate::error::ChainError;
use crate::rpc::Rpc;

/// Slots for which a blockhash is used: of its 150 blocks at least 130 are left to land in.
const HASH_SLOTS_MAX: u64 = 20;
/// Time for which a blockhash is used where no slot is seen to pass.
const HASH_AGE_MAX: Duration = Duration::from_secs(1);
/// Slots for which a price is used.
const FEE_SLOTS_MAX: u64 = 50;
/// Time for which a price is used.
const FEE_AGE_MAX: Duration = Duration::from_secs(10);
/// Prices that are kept; a node writes to a handful of accounts.
const FEES_MAX: usize = 64;
/// Signatures that are remembered; beyond it a new blockhash is asked for.
const SIGNATURES_KEPT_MAX: usize = 4_096;
/// How long a submission waits for recent fees; it goes on without them.
const FEE_PATIENCE: Duration = Duration::from_secs(2);
/// Where raising the price begins if nothing was paid before, in millionths of a lamport.
const RAISE_FROM: u64 = 1_000;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    /// Locked while it is asked for: of many submissions at once, one asks.
    hash: tokio::sync::Mutex<Option<Recent>>,
    fees: Mutex<HashMap<Vec<String>, Fee>>,
    made: Mutex<HashSet<Signature>>,
}

/// A blockhash to sign with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Recent {
    pub(super) hash: Hash,
    /// The last block in which a transaction with it can land.
    pub(super) last_valid_block_height: u64,
    /// The slot and the time at which it was the newest.
    slot: Slot,
    at: Instant,
}

impl Recent {
    fn is_fresh(&self, seen: Slot, now: Instant) -> bool {
        seen.0.saturating_sub(self.slot.0) <= HASH_SLOTS_MAX && now.saturating_duration_since(self.at) <= HASH_AGE_MAX
    }
}

#[derive(Clone, Copy, Debug)]
struct Fee {
    price: u64,
    slot: Slot,
    at: Instant,
}

impl Fee {
    fn is_fresh(&self, seen: Slot, now: Instant) -> bool {
        seen.0.saturating_sub(self.slot.0) <= FEE_SLOTS_MAX && now.saturating_duration_since(self.at) <= FEE_AGE_MAX
    }
}

impl Desk {
    /// Whether `signature` is made for the first time. Two transactions that say the same under the same blockhash have one
    /// signature, and the chain runs them once: a caller who wants both must make them differ.
    pub(super) fn is_new(&self, signature: Signature) -> bool {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if made.len() >= SIGNATURES_KEPT_MAX {
            made.clear();
        }
        made.insert(signature)
    }

    /// Forgets the blockhash: the next submission asks for another.
    pub(super) async fn forget_hash(&self) {
        *self.hash.lock().await = None;
    }

    fn fee(&self, accounts: &[String], seen: Slot, now: Instant) -> Option<u64> {
        let fees = self.fees.lock().unwrap_or_else(PoisonError::into_inner);
        fees.get(accounts).filter(|fee| fee.is_fresh(seen, now)).map(|fee| fee.price)
    }

    fn keep_fee(&self, accounts: Vec<String>, fee: Fee) {
        let mut fees = self.fees.lock().unwrap_or_else(PoisonError::into_inner);
        if fees.len() >= FEES_MAX {
            fees.clear();
        }
        fees.insert(accounts, fee);
    }
}

#[derive(Deserialize)]
struct Latest {
    blockhash: String,
    #[serde(rename = "lastValidBlockHeight")]
    last_valid_block_height: u64,
}

#[derive(Deserialize)]
struct Sample {
    #[serde(rename = "prioritizationFee")]
    fee: u64,
}

impl Rpc {
    /// A blockhash that is young enough to sign with.
    pub(super) async fn recent_blockhash(&self, purpose: &'static str) -> Result<Recent, ChainError> {
        let mut kept = self.desk().hash.lock().await;
        if let Some(recent) = kept.filter(|recent| recent.is_fresh(self.seen_slot(), Instant::now())) {
            return Ok(recent);
        }
        let (slot, latest): (_, Latest) = self.call_at(RpcRequest::GetLatestBlockhash, json!([self.read_config()])).await?;
        let no_hash = |_| ChainError::Build { purpose, reason: "the endpoint's blockhash is none" };
        let hash = latest.blockhash.parse().map_err(no_hash)?;
        let last_valid_block_height = latest.last_valid_block_height;
        let recent = Recent { hash, last_valid_block_height, slot, at: Instant::now() };
        *kept = Some(recent);
        Ok(recent)
    }

    /// What a compute unit should cost, in millionths of a lamport: what three quarters of the recent transactions on the
    /// same accounts paid at most, doubled with each attempt that expired, within the configured bounds. Without samples,
    /// the floor.
    pub(super) async fn compute_price(&self, accounts: Vec<String>, attempt: u32) -> u64 {
        let config = self.config();
        let kept = self.desk().fee(&accounts, self.seen_slot(), Instant::now());
        let recent = match kept {
            Some(price) => price,
            None => self.recent_fee(accounts).await,
        };
        bounded_price(recent, attempt, config.fee_floor_micro_lamports, config.fee_ceiling_micro_lamports)
    }

    async fn recent_fee(&self, accounts: Vec<String>) -> u64 {
        let ask = self.call::<Vec<Sample>>(RpcRequest::GetRecentPrioritizationFees, json!([accounts]));
        let Ok(Ok(samples)) = tokio::time::timeout(FEE_PATIENCE, ask).await else { return 0 };
        let mut fees: Vec<u64> = samples.into_iter().map(|sample| sample.fee).collect();
        fees.sort_unstable();
        let price = fees.get(fees.len() * 3 / 4).copied().unwrap_or(0);
        self.desk().keep_fee(accounts, Fee { price, slot: self.seen_slot(), at: Instant::now() });
        price
    }
}

/// The price of attempt `attempt`, counted from 1.
fn bounded_price(recent: u64, attempt: u32, floor: u64, cap: u64) -> u64 {
    let doublings = attempt.saturating_sub(1).min(32);
    let wanted = if doublings == 0 { recent } else { recent.max(floor).max(RAISE_FROM).saturating_mul(1 << doublings) };
    wanted.clamp(floor, cap.max(floor))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_blockhash_is_used_for_few_slots_and_a_short_time() {
        let now = Instant::now();
        let recent = Recent { hash: Hash::default(), last_valid_block_height: 150, slot: Slot(100), at: now };
        assert!(recent.is_fresh(Slot(100), now) && recent.is_fresh(Slot(120), now) && recent.is_fresh(Slot(7), now));
        assert!(!recent.is_fresh(Slot(121), now));
        assert!(!recent.is_fresh(Slot(100), now + HASH_AGE_MAX * 2));
    }

    #[test]
    fn a_signature_is_new_once() {
        let desk = Desk::default();
        let signatures = [Signature::from([1; 64]), Signature::from([2; 64])];
        assert!(desk.is_new(signatures[0]) && desk.is_new(signatures[1]) && !desk.is_new(signatures[0]));
    }

    #[test]
    fn prices_are_kept_per_set_of_accounts_and_in_bounded_number() {
        let (desk, now) = (Desk::default(), Instant::now());
        let fee = |price| Fee { price, slot: Slot(9), at: now };
        desk.keep_fee(vec!["a".into()], fee(5));
        assert_eq!(desk.fee(&["a".into()], Slot(9), now), Some(5));
        assert_eq!(desk.fee(&["b".into()], Slot(9), now), None);
        assert_eq!(desk.fee(&["a".into()], Slot(9 + FEE_SLOTS_MAX + 1), now), None);
        for n in 0..10 * FEES_MAX {
            desk.keep_fee(vec![n.to_string()], fee(1));
        }
        assert!(desk.fees.lock().unwrap_or_else(PoisonError::into_inner).len() <= FEES_MAX);
    }

    #[test]
    fn an_attempt_after_an_expiry_pays_more_up_to_the_cap() {
        assert_eq!([1, 2, 3].map(|attempt| bounded_price(0, attempt, 0, 5_000)), [0, 2_000, 4_000]);
        assert_eq!([1, 2, 3].map(|attempt| bounded_price(700, attempt, 800, 5_000)), [800, 2_000, 4_000]);
        assert_eq!(bounded_price(4_000, 2, 0, 5_000), 5_000);
        assert_eq!(bounded_price(9, 1, 10, 5), 10, "a cap below the floor gives the floor");
    }

    proptest! {
        #[test]
        fn prop_a_price_is_within_its_bounds(recent: u64, attempt: u32, floor in 0_u64..1 << 40, width in 0_u64..1 << 40) {
            let price = bounded_price(recent, attempt, floor, floor + width);
            prop_assert!((floor..=floor + width).contains(&price));
        }
    }
}
