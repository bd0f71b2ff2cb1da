//! Holds a state back for a moment where others may be on their way that belong before it. Pure: the caller brings the clock.
//!
//! Endpoints are not equally fast, and reads overtake notifications. A state that is two or more changes ahead and in
//! another phase may have left a whole phase behind that is about to arrive; once the later one is delivered, the earlier
//! one can't be any more. What does not come in time was never told to anybody, and the wait is over.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// States that wait at most; a full room lets everybody through.
const HELD_MAX: usize = 64;

/// The states that wait, by nonce.
pub(super) struct Order<T> {
    held: BTreeMap<u64, T>,
    until: Option<Instant>,
    hold: Duration,
}

impl<T> Order<T> {
    pub(super) const fn new(hold: Duration) -> Self {
        Self { held: BTreeMap::new(), until: None, hold }
    }

    /// Keeps `state`; gives it back where there is no room.
    pub(super) fn keep(&mut self, nonce: u64, state: T, now: Instant) -> Option<T> {
        if self.held.len() >= HELD_MAX && !self.held.contains_key(&nonce) {
            return Some(state);
        }
        self.until.get_or_insert(now + self.hold);
        self.held.insert(nonce, state);
        None
    }

    /// The first state that waits, if nothing can come before it any more: `leaps` says that something might.
    pub(super) fn next(&mut self, leaps: impl Fn(&T) -> bool, now: Instant) -> Option<T> {
        let over = self.until.is_some_and(|until| until <= now);
        let first = self.held.first_entry().filter(|first| over || !leaps(first.get()))?;
        let state = first.remove();
        if self.held.is_empty() {
            self.until = None;
        }
        Some(state)
    }

    /// When the wait is over, if anybody waits.
    pub(super) const fn until(&self) -> Option<Instant> {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLD: Duration = Duration::from_millis(100);

    #[test]
    fn what_leaps_ahead_waits_for_what_belongs_before_it() {
        let (mut order, now) = (Order::new(HOLD), Instant::now());
        assert_eq!(order.keep(7, 'c', now), None);
        assert_eq!(order.keep(6, 'b', now), None);
        assert_eq!(order.next(|_| true, now), None);
        assert_eq!(order.next(|_| false, now), Some('b'), "in order, as soon as nothing is missing");
        assert_eq!(order.next(|_| false, now), Some('c'));
        assert_eq!((order.next(|_| false, now), order.until()), (None, None));
    }

    #[test]
    fn what_does_not_come_is_not_waited_for_any_longer() {
        let (mut order, now) = (Order::new(HOLD), Instant::now());
        assert_eq!(order.keep(7, 'c', now), None);
        assert_eq!(order.keep(9, 'e', now + HOLD / 2), None);
        assert_eq!(order.until(), Some(now + HOLD));
        assert_eq!(order.next(|_| true, now + HOLD), Some('c'));
        assert_eq!(order.next(|_| true, now + HOLD), Some('e'), "the room is emptied at once");
        assert_eq!(order.until(), None);
    }

    #[test]
    fn a_full_room_holds_nobody_up() {
        let (mut order, now) = (Order::new(HOLD), Instant::now());
        for nonce in 0..HELD_MAX as u64 {
            assert_eq!(order.keep(nonce, nonce, now), None);
        }
        assert_eq!(order.keep(1_000, 1_000, now), Some(1_000));
        assert_eq!(order.keep(3, 3, now), None, "a repetition takes no room");
    }
}
