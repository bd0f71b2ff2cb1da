//! Whose request is served next: every peer has a short queue of its own, and queues take turns, so that nobody's appetite delays
//! the others. Pure.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Bounds of [`Turns`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Requests that wait, for each peer.
    pub(super) waiting_per_peer: usize,
    /// Requests in service, for each peer.
    pub(super) served_per_peer: usize,
    /// Requests in service.
    pub(super) served: usize,
}

struct Queue<T> {
    waiting: VecDeque<T>,
    served: usize,
}

/// Requests of type `T` by peers of id type `P`.
pub(super) struct Turns<P, T> {
    bounds: Bounds,
    queues: HashMap<P, Queue<T>>,
    /// Peers whose requests wait; the first one's turn is next.
    order: VecDeque<P>,
    served: usize,
}

impl<P: Copy + Eq + Hash, T> Turns<P, T> {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, queues: HashMap::new(), order: VecDeque::new(), served: 0 }
    }

    /// Queues a request of `peer`.
    ///
    /// # Errors
    /// The request, if too many of this peer wait.
    pub(super) fn push(&mut self, peer: P, request: T) -> Result<(), T> {
        let queue = self.queues.entry(peer).or_insert_with(|| Queue { waiting: VecDeque::new(), served: 0 });
        if queue.waiting.len() >= self.bounds.waiting_per_peer {
            return Err(request);
        }
        queue.waiting.push_back(request);
        if queue.waiting.len() == 1 {
            self.order.push_back(peer);
        }
        Ok(())
    }

    /// The next request to be served, if one may be; it counts until [`Turns::done`].
    pub(super) fn next(&mut self) -> Option<(P, T)> {
        if self.served >= self.bounds.served {
            return None;
        }
        for _ in 0..self.order.len() {
            let peer = self.order.pop_front()?;
            let Some(queue) = self.queues.get_mut(&peer) else { continue };
            if queue.served >= self.bounds.served_per_peer {
                self.order.push_back(peer);
                continue;
            }
            let request = queue.waiting.pop_front();
            if !queue.waiting.is_empty() {
                self.order.push_back(peer);
            }
            if let Some(request) = request {
                queue.served += 1;
                self.served += 1;
                return Some((peer, request));
            }
        }
        None
    }

    /// A request of `peer` is no longer in service.
    pub(super) fn done(&mut self, peer: &P) {
        if let Some(queue) = self.queues.get_mut(peer) {
            let before = queue.served;
            queue.served = before.saturating_sub(1);
            self.served -= before - queue.served;
            if queue.served == 0 && queue.waiting.is_empty() {
                self.queues.remove(peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds = Bounds { waiting_per_peer: 8, served_per_peer: 3, served: 4 };

    fn drain(turns: &mut Turns<u8, u32>) -> Vec<(u8, u32)> {
        std::iter::from_fn(|| turns.next()).collect()
    }

    #[test]
    fn a_peer_that_asks_for_much_does_not_delay_one_that_asks_for_little() {
        let mut turns = Turns::new(BOUNDS);
        (0..8).for_each(|number| turns.push(1, number).unwrap());
        assert_eq!(turns.push(1, 8), Err(8), "its queue is full");
        assert_eq!(drain(&mut turns), [(1, 0), (1, 1), (1, 2)], "a place is left for others");
        turns.push(2, 100).unwrap();
        turns.push(2, 101).unwrap();
        assert_eq!(drain(&mut turns), [(2, 100)]);
        turns.done(&1);
        assert_eq!(drain(&mut turns), [(1, 3)], "they take turns");
        turns.done(&1);
        assert_eq!(drain(&mut turns), [(2, 101)]);
    }

    #[test]
    fn who_never_finishes_holds_up_only_itself() {
        let mut turns = Turns::new(BOUNDS);
        (0..8).for_each(|number| turns.push(1, number).unwrap());
        assert_eq!(drain(&mut turns).len(), 3);
        for number in 0..100 {
            turns.push(2, number).unwrap();
            assert_eq!(drain(&mut turns), [(2, number)]);
            turns.done(&2);
        }
        assert_eq!(turns.queues.len(), 1, "peers without requests are forgotten");
    }

    proptest! {
        #[test]
        fn prop_bounds_hold_and_every_request_is_served_once(steps in prop::collection::vec((0_u8..4, 0_u8..3), 0..200)) {
            let mut turns = Turns::new(BOUNDS);
            let (mut pushed, mut got, mut busy) = (Vec::new(), Vec::new(), Vec::new());
            for (number, (peer, action)) in (0_u32..).zip(steps) {
                match action {
                    0 => if turns.push(peer, number).is_ok() { pushed.push((peer, number)) },
                    1 => if let Some((peer, number)) = turns.next() { got.push((peer, number)); busy.push(peer) },
                    _ => if let Some(place) = busy.iter().position(|other| *other == peer) {
                        busy.remove(place);
                        turns.done(&peer);
                    },
                }
                prop_assert!(busy.len() <= BOUNDS.served);
                prop_assert!((0..4).all(|peer| busy.iter().filter(|other| **other == peer).count() <= BOUNDS.served_per_peer));
                prop_assert_eq!(busy.len(), turns.served);
            }
            loop {
                got.extend(drain(&mut turns));
                let Some(peer) = busy.pop().or_else(|| (0..4).find(|peer| turns.queues.get(peer).is_some_and(|q| q.served > 0))) else { break };
                turns.done(&peer);
            }
            got.sort_unstable();
            pushed.sort_unstable();
            prop_assert_eq!(got, pushed);
        }
    }
}
