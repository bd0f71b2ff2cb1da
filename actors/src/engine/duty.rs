//! One transaction that this node owes the chain: sent once, repeated after failures, given up when refused.

use super::api::{SendId, SendOutcome};

/// A transaction whose outcome takes longer is taken for failed.
const OUTCOME_MS: u64 = 60_000;
/// First pause after a failure, doubled each time up to [`PAUSE_MS_MAX`].
const PAUSE_MS: u64 = 500;
/// Longest pause after a failure.
const PAUSE_MS_MAX: u64 = 8_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DutyState {
    /// Not sent, or failed: to be sent from this time on.
    Due { at_ms: u64 },
    /// Sent, outcome open.
    Sent { id: SendId, at_ms: u64 },
    /// Confirmed, or refused for good.
    Settled { confirmed: bool, at_ms: u64 },
}

/// The duty named by `K`; another name is another duty and starts anew.
#[derive(Clone, Debug)]
pub(super) struct Duty<K> {
    key: Option<K>,
    state: DutyState,
    failures: u32,
}

impl<K> Default for Duty<K> {
    fn default() -> Self {
        Self { key: None, state: DutyState::Due { at_ms: 0 }, failures: 0 }
    }
}

impl<K: PartialEq> Duty<K> {
    /// Whether the transaction `key` is to be sent now.
    pub(super) fn due(&mut self, key: K, now_ms: u64) -> bool {
        if self.key.as_ref() != Some(&key) {
            *self = Self { key: Some(key), state: DutyState::Due { at_ms: now_ms }, failures: 0 };
        }
        if matches!(self.state, DutyState::Sent { at_ms, .. } if now_ms >= at_ms.saturating_add(OUTCOME_MS)) {
            self.fail(now_ms);
        }
        matches!(self.state, DutyState::Due { at_ms } if now_ms >= at_ms)
    }

    /// Whether a transaction of this duty, whatever its name, is on its way.
    pub(super) fn in_flight(&self, now_ms: u64) -> bool {
        matches!(self.state, DutyState::Sent { at_ms, .. } if now_ms < at_ms.saturating_add(OUTCOME_MS))
    }

    /// Whether `key` was confirmed, or else refused, and when.
    pub(super) fn settled_at(&self, key: &K) -> Option<(bool, u64)> {
        match self.state {
            DutyState::Settled { confirmed, at_ms } if self.key.as_ref() == Some(key) => Some((confirmed, at_ms)),
            _ => None,
        }
    }

    /// Notes that it was sent under `id`.
    pub(super) const fn sent(&mut self, id: SendId, now_ms: u64) {
        self.state = DutyState::Sent { id, at_ms: now_ms };
    }

    /// Lets it be sent again although it was settled.
    pub(super) const fn reopen(&mut self, now_ms: u64) {
        self.state = DutyState::Due { at_ms: now_ms };
    }

    /// Notes an outcome; false if `id` is not this duty's.
    pub(super) fn settle(&mut self, id: SendId, outcome: SendOutcome, now_ms: u64) -> bool {
        if !matches!(self.state, DutyState::Sent { id: sent, .. } if sent == id) {
            return false;
        }
        match outcome {
            SendOutcome::Confirmed => self.state = DutyState::Settled { confirmed: true, at_ms: now_ms },
            SendOutcome::Refused => self.state = DutyState::Settled { confirmed: false, at_ms: now_ms },
            SendOutcome::Failed => self.fail(now_ms),
        }
        true
    }

    fn fail(&mut self, now_ms: u64) {
        let pause = PAUSE_MS.saturating_mul(1 << self.failures.min(8)).min(PAUSE_MS_MAX);
        self.failures = self.failures.saturating_add(1);
        self.state = DutyState::Due { at_ms: now_ms.saturating_add(pause) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_transaction_is_due_again_after_a_growing_pause() {
        let mut duty = Duty::default();
        let mut now_ms = 0;
        for (attempt, pause) in [500, 1_000, 2_000, 4_000, 8_000, 8_000].into_iter().enumerate() {
            let id = SendId(attempt as u64);
            assert!(duty.due("join", now_ms));
            duty.sent(id, now_ms);
            assert!(!duty.due("join", now_ms) && duty.in_flight(now_ms));
            assert!(duty.settle(id, SendOutcome::Failed, now_ms));
            assert!(!duty.due("join", now_ms + pause - 1));
            now_ms += pause;
        }
    }

    #[test]
    fn a_settled_transaction_is_not_sent_again_under_the_same_name() {
        let mut duty = Duty::default();
        assert!(duty.due(1, 0));
        duty.sent(SendId(1), 0);
        assert!(!duty.settle(SendId(2), SendOutcome::Confirmed, 5));
        assert!(duty.settle(SendId(1), SendOutcome::Refused, 5));
        assert!(!duty.due(1, 1_000_000));
        assert_eq!(duty.settled_at(&1), Some((false, 5)));
        assert!(duty.due(2, 1_000_000));
    }

    #[test]
    fn an_outcome_that_never_comes_counts_as_a_failure() {
        let mut duty = Duty::default();
        assert!(duty.due((), 0));
        duty.sent(SendId(1), 0);
        assert!(!duty.due((), OUTCOME_MS));
        assert!(duty.due((), OUTCOME_MS + PAUSE_MS));
    }
}
