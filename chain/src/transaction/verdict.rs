//! What became of a transaction, from what each endpoint says. Pure.
//!
//! Saying that it landed ends the matter, whoever says so: at worst something is not sent again that should have been. Saying
//! that it never will is believed only where every endpoint that answers agrees, since only then may it be signed anew.

use psyche_messages::Slot;
use solana_transaction_error::TransactionError;

/// Blocks for which a blockhash is valid.
const HASH_BLOCKS: u64 = 150;

/// What one endpoint says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// The transaction is in a confirmed block.
    Landed { slot: Slot, error: Option<TransactionError> },
    /// It is not, though the endpoint knew the confirmed chain up to this height and slot before it looked.
    Absent { height: u64, slot: Slot },
    /// It is in a block that is not confirmed yet.
    Pending,
    /// Nothing.
    Silent,
}

/// What is concluded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It landed and succeeded.
    Confirmed(Slot),
    /// It landed and failed: it had no effect, and its fee is paid.
    Failed(Slot, TransactionError),
    /// It did not land and never will. What is read at this slot or later shows whether its effect is there.
    Expired(Slot),
    /// It may still land, or have landed.
    Open,
}

/// What follows from `seen` for a transaction that can land up to the block `last_valid`.
pub(super) fn verdict(seen: &[Seen], last_valid: u64) -> Verdict {
    let mut failed = None;
    for said in seen {
        match said {
            Seen::Landed { slot, error: None } => return Verdict::Confirmed(*slot),
            Seen::Landed { slot, error: Some(error) } => failed = Some(Verdict::Failed(*slot, error.clone())),
            Seen::Absent { .. } | Seen::Pending | Seen::Silent => {}
        }
    }
    if let Some(failed) = failed {
        return failed;
    }
    // An endpoint that has not even reached the blockhash can't know the transaction.
    let born = last_valid.saturating_sub(HASH_BLOCKS);
    let mut after: Option<Slot> = None;
    for said in seen {
        match said {
            Seen::Absent { height, .. } if *height < born => {}
            Seen::Pending => return Verdict::Open,
            Seen::Absent { height, .. } if *height <= last_valid => return Verdict::Open,
            Seen::Absent { slot, .. } => after = Some(after.map_or(*slot, |known| known.min(*slot))),
            Seen::Landed { .. } | Seen::Silent => {}
        }
    }
    after.map_or(Verdict::Open, Verdict::Expired)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LAST: u64 = 1_000;
    const GONE: Seen = Seen::Absent { height: LAST + 1, slot: Slot(50) };
    const WAITING: Seen = Seen::Absent { height: LAST, slot: Slot(40) };

    fn landed(error: Option<TransactionError>) -> Seen {
        Seen::Landed { slot: Slot(30), error }
    }

    #[test]
    fn one_endpoint_that_saw_it_land_is_enough() {
        assert_eq!(verdict(&[GONE, Seen::Silent, landed(None)], LAST), Verdict::Confirmed(Slot(30)));
        let failed = landed(Some(TransactionError::AccountInUse));
        assert_eq!(verdict(&[failed.clone(), landed(None)], LAST), Verdict::Confirmed(Slot(30)));
        assert_eq!(verdict(&[WAITING, failed], LAST), Verdict::Failed(Slot(30), TransactionError::AccountInUse));
    }

    #[test]
    fn one_endpoint_that_lags_or_lies_does_not_make_it_expire() {
        let liar = Seen::Absent { height: u64::MAX, slot: Slot(u64::MAX) };
        assert_eq!(verdict(&[liar.clone(), WAITING], LAST), Verdict::Open);
        assert_eq!(verdict(&[GONE, WAITING], LAST), Verdict::Open);
        assert_eq!(verdict(&[GONE, liar], LAST), Verdict::Expired(Slot(50)), "and the slot is the lowest that was told");
    }

    #[test]
    fn silence_expires_nothing() {
        assert_eq!(verdict(&[], LAST), Verdict::Open);
        assert_eq!(verdict(&[Seen::Silent, Seen::Silent], LAST), Verdict::Open);
        assert_eq!(verdict(&[Seen::Silent, GONE], LAST), Verdict::Expired(Slot(50)));
    }

    #[test]
    fn an_endpoint_older_than_the_blockhash_has_no_say() {
        let ancient = Seen::Absent { height: LAST - HASH_BLOCKS - 1, slot: Slot(1) };
        assert_eq!(verdict(&[ancient.clone(), GONE], LAST), Verdict::Expired(Slot(50)));
        assert_eq!(verdict(&[ancient], LAST), Verdict::Open);
    }

    fn any_seen() -> impl Strategy<Value = Seen> {
        prop_oneof![
            Just(Seen::Silent),
            Just(Seen::Pending),
            Just(landed(None)),
            Just(landed(Some(TransactionError::AccountInUse))),
            (0_u64..2 * LAST, 0_u64..100).prop_map(|(height, slot)| Seen::Absent { height, slot: Slot(slot) }),
        ]
    }

    proptest! {
        #[test]
        fn prop_nothing_expires_while_anybody_may_see_it_land(seen in proptest::collection::vec(any_seen(), 0..8)) {
            if let Verdict::Expired(slot) = verdict(&seen, LAST) {
                let too_early = LAST - HASH_BLOCKS..=LAST;
                for said in &seen {
                    match said {
                        Seen::Landed { .. } => prop_assert!(false, "it landed"),
                        Seen::Absent { height, .. } => prop_assert!(!too_early.contains(height)),
                        Seen::Pending => prop_assert!(false, "it is about to land"),
                        Seen::Silent => {}
                    }
                }
                let told = |said: &Seen| matches!(said, Seen::Absent { slot: told, .. } if *told == slot);
                prop_assert!(seen.iter().any(told));
            }
        }
    }
}
