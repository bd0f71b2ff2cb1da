//! The bounded queue between a watch and its consumer.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

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
    capacity: usize,
}

#[derive(Debug)]
struct State<T> {
    entries: VecDeque<Entry<T>>,
    dropped: u64,
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

/// A queue of at most `capacity` events (at least 2: a phase change and the newest state).
pub(super) fn bounded<T>(capacity: usize) -> (Queue<T>, Receiver<T>) {
    let state = Mutex::new(State { entries: VecDeque::new(), dropped: 0 });
    let inner = Arc::new(Inner { state, filled: Notify::new(), capacity: capacity.max(2) });
    (Queue(Arc::clone(&inner)), Receiver(inner))
}

impl<T: Watched> Queue<T> {
    /// Appends a state. A full queue forgets its oldest entry that is no phase change, or its oldest one if all are.
    pub(super) fn push(&self, (state, phase_change): (T, bool)) {
        self.append(Entry { event: WatchEvent::Changed(state), keep: phase_change });
    }

    /// Appends a loss.
    pub(super) fn lose(&self, error: ChainError) {
        self.append(Entry { event: WatchEvent::Lost(error), keep: true });
    }

    fn append(&self, entry: Entry<T>) {
        {
            let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.entries.len() >= self.0.capacity {
                let oldest = state.entries.iter().position(|entry| !entry.keep).unwrap_or(0);
                drop(state.entries.remove(oldest));
                state.dropped += 1;
            }
            state.entries.push_back(entry);
        }
        self.0.filled.notify_one();
    }
}

impl<T> Receiver<T> {
    pub(super) async fn recv(&mut self) -> WatchEvent<T> {
        loop {
            if let Some(entry) = self.0.state.lock().unwrap_or_else(PoisonError::into_inner).entries.pop_front() {
                return entry.event;
            }
            self.0.filled.notified().await;
        }
    }

    pub(super) fn dropped(&self) -> u64 {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).dropped
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, reason = "tests may panic")]

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

    async fn drain(queue: &Queue<Number>, receiver: &mut Receiver<Number>) -> Vec<u64> {
        let count = queue.0.state.lock().unwrap_or_else(PoisonError::into_inner).entries.len();
        let mut numbers = Vec::new();
        for _ in 0..count {
            match receiver.recv().await {
                WatchEvent::Changed(Number(number)) => numbers.push(number),
                WatchEvent::Lost(error) => panic!("{error}"),
            }
        }
        numbers
    }

    #[tokio::test]
    async fn a_full_queue_keeps_phase_changes_and_the_newest_state() {
        let (queue, mut receiver) = bounded(3);
        for (number, phase_change) in [(1, true), (2, false), (3, false), (4, true), (5, false), (6, false)] {
            queue.push((Number(number), phase_change));
        }
        assert_eq!(drain(&queue, &mut receiver).await, [1, 4, 6]);
        assert_eq!(receiver.dropped(), 3);
    }

    #[tokio::test]
    async fn with_phase_changes_only_the_oldest_goes() {
        let (queue, mut receiver) = bounded(2);
        for number in 1..=4 {
            queue.push((Number(number), true));
        }
        assert_eq!(drain(&queue, &mut receiver).await, [3, 4]);
    }
}
