//! One sequence out of many sources. Pure.
//!
//! A state is newer if its nonce is higher, whatever slot came with it: some servers stamp notifications with an old slot.
//! The same nonce with other bytes counts only from a later slot (one instruction does not advance the nonce). A lower
//! nonce is believed only from a read that was begun after the last delivery and comes from a later slot: then the account
//! was created anew, or the chain took a fork back.

use psyche_messages::Slot;
use sha2::{Digest as _, Sha256};

use super::Watched;
use crate::rpc::AccountRead;

/// What one source saw.
pub(super) struct Observation {
    /// The account, or that there is none.
    pub(super) account: Option<AccountRead>,
    /// For a read: how many states were delivered when it began. `None` for a notification.
    pub(super) read_after: Option<usize>,
}

/// Tells equal bytes from others.
pub(super) fn digest(account: &AccountRead) -> [u8; 32] {
    Sha256::digest(&account.data).into()
}

struct Last<T> {
    state: T,
    slot: Slot,
    digest: [u8; 32],
}

/// Remembers the newest state.
pub(super) struct Merger<T> {
    last: Option<Last<T>>,
    delivered: usize,
    lost: bool,
}

impl<T> Default for Merger<T> {
    fn default() -> Self {
        Self { last: None, delivered: 0, lost: false }
    }
}

impl<T: Watched> Merger<T> {
    /// The state to deliver and whether it is a phase change, if it is news.
    pub(super) fn offer(&mut self, mut state: T, slot: Slot, digest: [u8; 32], read_after: Option<usize>) -> Option<(T, bool)> {
        let mut phase_change = true;
        let mut at = slot;
        if let Some(last) = &mut self.last {
            let (nonce, known) = (state.nonce(), last.state.nonce());
            let news = match nonce.cmp(&known) {
                std::cmp::Ordering::Greater => true,
                std::cmp::Ordering::Equal => slot > last.slot && digest != last.digest,
                std::cmp::Ordering::Less => slot > last.slot && read_after == Some(self.delivered),
            };
            at = slot.max(last.slot);
            if !news {
                // The same state, seen later: what is older than this can't be news either.
                if nonce == known {
                    last.slot = at;
                    self.lost &= digest != last.digest;
                }
                return None;
            }
            // A step back is never skipped.
            phase_change = nonce < known || state.is_phase_change(&last.state);
        }
        state.at_slot(at);
        self.last = Some(Last { state: state.clone(), slot: at, digest });
        self.delivered += 1;
        self.lost = false;
        Some((state, phase_change))
    }

    /// Notes that the account can't be read; true the first time.
    pub(super) fn lose(&mut self) -> bool {
        !std::mem::replace(&mut self.lost, true)
    }

    /// How many states were delivered.
    pub(super) const fn delivered(&self) -> usize {
        self.delivered
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct State {
        nonce: u64,
        phase: u8,
        slot: Slot,
    }

    impl Watched for State {
        fn nonce(&self) -> u64 {
            self.nonce
        }

        fn is_phase_change(&self, previous: &Self) -> bool {
            self.phase != previous.phase
        }

        fn at_slot(&mut self, slot: Slot) {
            self.slot = slot;
        }
    }

    fn offer(merger: &mut Merger<State>, nonce: u64, slot: u64, read_after: Option<usize>) -> Option<(u64, bool)> {
        let state = State { nonce, phase: u8::try_from(nonce / 10).unwrap(), slot: Slot(0) };
        let digest = [u8::try_from(nonce).unwrap(); 32];
        merger.offer(state, Slot(slot), digest, read_after).map(|(state, phase)| (state.slot.0, phase))
    }

    #[test]
    fn duplicates_and_older_states_are_no_news() {
        let mut merger = Merger::default();
        assert_eq!(offer(&mut merger, 5, 100, None), Some((100, true)));
        assert_eq!(offer(&mut merger, 5, 101, None), None);
        assert_eq!(offer(&mut merger, 4, 99, Some(1)), None);
        assert_eq!(offer(&mut merger, 4, 105, None), None, "a notification never goes back");
        assert_eq!(offer(&mut merger, 6, 102, None), Some((102, false)));
        assert_eq!(offer(&mut merger, 10, 103, None), Some((103, true)));
    }

    #[test]
    fn a_higher_nonce_is_news_even_with_an_old_slot() {
        let mut merger = Merger::default();
        offer(&mut merger, 5, 100, Some(0)).unwrap();
        assert_eq!(offer(&mut merger, 6, 40, None), Some((100, false)), "the slot never goes back");
    }

    #[test]
    fn an_account_made_anew_is_believed_from_a_fresh_read_only() {
        let mut merger = Merger::default();
        offer(&mut merger, 5, 100, None).unwrap();
        offer(&mut merger, 6, 40, None).unwrap();
        assert_eq!(offer(&mut merger, 5, 110, Some(1)), None, "this read began before nonce 6 was seen");
        assert_eq!(offer(&mut merger, 0, 111, Some(2)), Some((111, true)));
    }

    #[test]
    fn other_bytes_under_the_same_nonce_are_news_from_a_later_slot() {
        let mut merger = Merger::default();
        offer(&mut merger, 5, 100, None).unwrap();
        let same_nonce = || State { nonce: 5, phase: 0, slot: Slot(0) };
        assert!(merger.offer(same_nonce(), Slot(100), [9; 32], None).is_none());
        assert!(merger.offer(same_nonce(), Slot(101), [9; 32], None).is_some());
        assert!(merger.offer(same_nonce(), Slot(100), [5; 32], Some(2)).is_none(), "the old bytes do not come back");
    }

    #[test]
    fn a_loss_is_reported_once_until_the_account_is_back() {
        let mut merger = Merger::default();
        offer(&mut merger, 5, 100, None).unwrap();
        assert!(merger.lose());
        assert!(!merger.lose());
        assert_eq!(offer(&mut merger, 5, 101, Some(1)), None);
        assert!(merger.lose(), "it was readable in between");
    }

    proptest! {
        #[test]
        fn prop_notifications_in_any_order_give_a_rising_sequence(
            seen in proptest::collection::vec((0_u64..50, 0_u64..1_000), 1..100)
        ) {
            let mut merger = Merger::default();
            let mut last = None;
            for (nonce, slot) in &seen {
                if let Some((at, _)) = offer(&mut merger, *nonce, *slot, None) {
                    if let Some((last_nonce, last_slot)) = last {
                        prop_assert!(*nonce > last_nonce && at >= last_slot);
                    }
                    last = Some((*nonce, at));
                }
            }
            prop_assert_eq!(last.unwrap().0, seen.iter().map(|(nonce, _)| *nonce).max().unwrap());
        }
    }
}
