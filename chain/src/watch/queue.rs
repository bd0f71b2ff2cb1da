//! The bounded queue between a watch and its consumer.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use super::merge::Kind;
use super::{WatchEvent, Watched};
use crate::error::ChainError;

struct Entry<T> {
    event: WatchEvent<T>,
    keep: bool,
}

#[derive(Debug)]
struct Inner<T> {
    state: Mutex<State<T>>,
    filled: Notify,
    updates_max: usize,
    changes_max: usize,
}

#[derive(Debug)]
struct State<T> {
    entries: VecDeque<Entry<T>>,
    skipped: u64,
    missed: u64,
}

impl<T> std::fmt::Debug for Entry<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").field("keep", &self.keep).finish_non_exhaustive()
    }
}

/// The watch's end.
pub(super) struct Queue<T>(Arc<Inner<T>>);

/// The consumer's end.
#[derive(Debug)]
pub(super) struct Receiver<T>(Arc<Inner<T>>);

/// A queue of at most `updates` states that may be skipped and `changes` that may not (at least 1 of each).
pub(super) fn bounded<T>(updates: usize, changes: usize) -> (Queue<T>, Receiver<T>) {
    let state = Mutex::new(State { entries: VecDeque::new(), skipped: 0, missed: 0 });
    let inner = Inner { state, filled: Notify::new(), updates_max: updates.max(1), changes_max: changes.max(1) };
    let inner = Arc::new(inner);
    (Queue(Arc::clone(&inner)), Receiver(inner))
}

impl<T: Watched> Queue<T> {
    /// Appends a state. Too many that may be skipped push out the oldest of them, never one that may not.
    pub(super) fn push(&self, state: T, kind: Kind) {
        let keep = kind != Kind::Update;
        let event = if kind == Kind::Anew { WatchEvent::Anew(state) } else { WatchEvent::Changed(state) };
        self.append(Entry { event, keep });
    }

    /// Appends a loss.
    pub(super) fn lose(&self, error: ChainError) {
        self.append(Entry { event: WatchEvent::Lost(error), keep: true });
    }

    fn append(&self, entry: Entry<T>) {
        {
            let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
            let keep = entry.keep;
            let max = if keep { self.0.changes_max } else { self.0.updates_max };
            if state.entries.iter().filter(|entry| entry.keep == keep).count() >= max {
                if let Some(oldest) = state.entries.iter().position(|entry| entry.keep == keep) {
                    drop(state.entries.remove(oldest));
                }
                if keep {
                    state.missed += 1;
                } else {
                    state.skipped += 1;
                }
            }
            state.entries.push_back(entry);
        }
        self.0.filled.notify_one();
    }
}

impl<T> Receiver<T> {
    /// The next event. Safe to cancel.
    pub(super) async fn recv(&mut self) -> WatchEvent<T> {
        loop {
            if let Some(entry) = self.0.state.lock().unwrap_or_else(PoisonError::into_inner).entries.pop_front() {
                return entry.event;
            }
            self.0.filled.notified().await;
        }
    }

    pub(super) fn skipped(&self) -> u64 {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).skipped
    }

    pub(super) fn missed(&self) -> u64 {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).missed
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, reason = "tests may panic")]

    use proptest::prelude::*;
    use psyche_messages::Slot;

    use super::*;

    #[derive(Clone)]
    struct Number(u64);

    impl Watched for Number {
        fn nonce(&self) -> u64 {
            self.0
        }

        fn is_phase_change(&self, _previous: &Self) -> bool {
            false
        }

        fn at_slot(&mut self, _slot: Slot) {}
    }

    /// Everything that waits. No entry is there that recv() would have to wait for.
    fn drain(receiver: &Receiver<Number>) -> Vec<u64> {
        let entries = std::mem::take(&mut receiver.0.state.lock().unwrap_or_else(PoisonError::into_inner).entries);
        let number = |entry: Entry<Number>| match entry.event {
            WatchEvent::Changed(Number(number)) | WatchEvent::Anew(Number(number)) => number,
            WatchEvent::Lost(error) => panic!("{error}"),
        };
        entries.into_iter().map(number).collect()
    }

    #[tokio::test]
    async fn a_slow_consumer_finds_every_phase_change_and_the_newest_state() {
        let (queue, mut receiver) = bounded(1, 8);
        for (number, kind) in [
            (1, Kind::PhaseChange),
            (2, Kind::Update),
            (3, Kind::Update),
            (4, Kind::PhaseChange),
            (5, Kind::Update),
            (6, Kind::Update),
        ] {
            queue.push(Number(number), kind);
        }
        let WatchEvent::Changed(Number(first)) = receiver.recv().await else { panic!("the first is a state") };
        assert_eq!((first, drain(&receiver)), (1, vec![4, 6]));
        assert_eq!((receiver.skipped(), receiver.missed()), (3, 0));
    }

    #[test]
    fn the_bound_on_phase_changes_is_counted_when_it_is_passed() {
        let (queue, receiver) = bounded(1, 2);
        for number in 1..=4 {
            queue.push(Number(number), Kind::PhaseChange);
        }
        assert_eq!((drain(&receiver), receiver.missed()), (vec![3, 4], 2));
    }

    proptest! {
        #[test]
        fn prop_no_flood_of_states_pushes_out_a_phase_change(kinds in proptest::collection::vec(any::<bool>(), 1..200)) {
            let (queue, receiver) = bounded(4, 200);
            for (number, is_change) in kinds.iter().enumerate() {
                queue.push(Number(number as u64), if *is_change { Kind::PhaseChange } else { Kind::Update });
            }
            let left = drain(&receiver);
            prop_assert!(left.is_sorted() && left.last() == Some(&(kinds.len() as u64 - 1)));
            for (number, _) in kinds.iter().enumerate().filter(|(_, is_change)| **is_change) {
                prop_assert!(left.contains(&(number as u64)));
            }
            prop_assert!(left.len() <= 4 + kinds.iter().filter(|is_change| **is_change).count());
            prop_assert_eq!(receiver.missed(), 0);
        }
    }
}
