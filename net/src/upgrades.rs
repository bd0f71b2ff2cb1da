//! When to try once more to reach a peer directly that is reached only through a relay: routers are not equally lucky every time.
//! Pure: the caller brings the time, the randomness and the connections.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use libp2p::PeerId;
use psyche_messages::Backoff;

struct Try {
    attempt: u32,
    next: Instant,
    /// A new connection is being made, in place of those there are.
    under_way: bool,
}

/// The peers that are reached only through a relay.
pub(crate) struct Upgrades {
    tries: HashMap<PeerId, Try>,
    backoff: Backoff,
}

impl Upgrades {
    /// Tries by `backoff`, counted from the first relayed connection.
    pub(crate) fn new(backoff: Backoff) -> Self {
        Self { tries: HashMap::new(), backoff }
    }

    /// The peers of `relayed`, all that are reached only so, to whom a new relayed connection is to be made at `now`: each is
    /// another attempt at a direct one.
    pub(crate) fn due(&mut self, relayed: &HashSet<PeerId>, now: Instant, mut jitter: impl FnMut() -> u16) -> Vec<PeerId> {
        let backoff = self.backoff;
        self.tries.retain(|peer, _| relayed.contains(peer));
        for peer in relayed {
            let fresh = || Try { attempt: 0, next: now + backoff.delay(0, jitter()), under_way: false };
            self.tries.entry(*peer).or_insert_with(fresh);
        }
        let due = self.tries.iter_mut().filter(|(_, attempt)| attempt.next <= now);
        due.map(|(peer, attempt)| {
            attempt.attempt = attempt.attempt.saturating_add(1);
            attempt.next = now + backoff.delay(attempt.attempt, jitter());
            attempt.under_way = true;
            *peer
        })
        .collect()
    }

    /// Notes a new relayed connection to `peer`; whether it replaces those before it.
    pub(crate) fn replaces(&mut self, peer: &PeerId) -> bool {
        self.tries.get_mut(peer).is_some_and(|attempt| std::mem::take(&mut attempt.under_way))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use std::time::Duration;

    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn a_peer_that_stays_relayed_is_tried_with_growing_pauses_until_it_is_not() {
        let (peer, start) = (PeerId::random(), Instant::now());
        let mut upgrades = Upgrades::new(Backoff::new(S(4), S(16), 200, 0).unwrap());
        let relayed = HashSet::from([peer]);
        let tried: Vec<u64> = (0..50).filter(|s| !upgrades.due(&relayed, start + S(*s), || 0).is_empty()).collect();
        assert_eq!(tried, [4, 12, 28, 44]);
        assert!(upgrades.replaces(&peer));
        assert!(!upgrades.replaces(&peer), "once for each attempt");
        assert!(upgrades.due(&HashSet::new(), start + S(99), || 0).is_empty());
        assert!(upgrades.tries.is_empty(), "those with a direct connection are forgotten");
        assert!(upgrades.due(&relayed, start + S(100), || 0).is_empty(), "a new relayed connection has its own attempt");
    }
}
