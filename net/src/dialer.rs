//! Whom to dial when, and where: bootstrap peers and members that are not connected, with backoff. Pure: the caller brings the
//! time, the randomness and the connections.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use libp2p::{Multiaddr, PeerId};
use psyche_messages::Backoff;

/// A connection that lasts this long proves itself: the next loss starts the schedule anew.
const PROVEN_AFTER: Duration = Duration::from_secs(10);

/// Most dials that one call starts.
const DIALS_MAX: usize = 16;

/// Most addresses kept for a peer; the newest go first.
const ADDRESSES_MAX: usize = 8;

struct Target {
    attempt: u32,
    next: Instant,
    /// Since when it is connected.
    connected: Option<Instant>,
    /// Addresses from the configuration, which never age.
    fixed: Vec<Multiaddr>,
    /// Addresses heard of, newest first.
    heard: Vec<Multiaddr>,
    bootstrap: bool,
    member: bool,
}

/// The peers that this node wants to be connected to.
pub(crate) struct Dialer {
    targets: HashMap<PeerId, Target>,
    backoff: Backoff,
}

impl Dialer {
    /// Wants connections to `bootstrap`; retries by `backoff`.
    pub(crate) fn new(bootstrap: Vec<(PeerId, Multiaddr)>, backoff: Backoff, now: Instant) -> Self {
        let mut dialer = Self { targets: HashMap::new(), backoff };
        for (peer, address) in bootstrap {
            let target = dialer.target(peer, now);
            target.bootstrap = true;
            target.fixed.push(address);
        }
        dialer
    }

    fn target(&mut self, peer: PeerId, now: Instant) -> &mut Target {
        self.targets.entry(peer).or_insert_with(|| Target {
            attempt: 0,
            next: now,
            connected: None,
            fixed: Vec::new(),
            heard: Vec::new(),
            bootstrap: false,
            member: false,
        })
    }

    /// Wants connections to exactly these members, beside the bootstrap peers.
    pub(crate) fn set_members(&mut self, members: impl IntoIterator<Item = PeerId>, now: Instant) {
        self.targets.values_mut().for_each(|target| target.member = false);
        for peer in members {
            self.target(peer, now).member = true;
        }
        self.targets.retain(|_, target| target.member || target.bootstrap);
    }

    /// Notes an address at which `peer` may be reached; peers that nobody wants are not kept. The first address of a peer makes
    /// it due at once.
    pub(crate) fn heard(&mut self, peer: &PeerId, address: Multiaddr, now: Instant) {
        if let Some(target) = self.targets.get_mut(peer) {
            if target.fixed.is_empty() && target.heard.is_empty() {
                target.next = target.next.min(now);
            }
            target.heard.retain(|known| *known != address);
            target.heard.insert(0, address);
            target.heard.truncate(ADDRESSES_MAX);
        }
    }

    /// Notes that `peer` is connected.
    pub(crate) fn connected(&mut self, peer: &PeerId, now: Instant) {
        if let Some(target) = self.targets.get_mut(peer) {
            target.connected.get_or_insert(now);
        }
    }

    /// Notes that the last connection to `peer` is gone.
    pub(crate) fn disconnected(&mut self, peer: &PeerId, now: Instant, jitter: u16) {
        let backoff = self.backoff;
        if let Some(target) = self.targets.get_mut(peer)
            && let Some(since) = target.connected.take()
        {
            if now.saturating_duration_since(since) >= PROVEN_AFTER {
                target.attempt = 0;
            }
            target.next = now + backoff.delay(target.attempt, jitter);
        }
    }

    /// The peers to dial at `now`, with all their known addresses (none: look them up) and the number of attempts before; each
    /// is due again after its backoff.
    pub(crate) fn due(&mut self, now: Instant, mut jitter: impl FnMut() -> u16) -> Vec<(PeerId, Vec<Multiaddr>, u32)> {
        let backoff = self.backoff;
        let due = self.targets.iter_mut().filter(|(_, target)| target.connected.is_none() && target.next <= now);
        due.take(DIALS_MAX)
            .map(|(peer, target)| {
                let attempt = target.attempt;
                target.next = now + backoff.delay(attempt, jitter());
                target.attempt = attempt.saturating_add(1);
                (*peer, target.fixed.iter().chain(&target.heard).cloned().collect(), attempt)
            })
            .collect()
    }

    /// The bootstrap peers.
    pub(crate) fn bootstrap(&self) -> impl Iterator<Item = PeerId> {
        self.targets.iter().filter(|(_, target)| target.bootstrap).map(|(peer, _)| *peer)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn dialer(bootstrap: Vec<(PeerId, Multiaddr)>, now: Instant) -> Dialer {
        Dialer::new(bootstrap, Backoff::new(S(1), S(8), 200, 0).unwrap(), now)
    }

    fn address(port: u16) -> Multiaddr {
        format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap()
    }

    #[test]
    fn absent_peers_are_dialled_with_growing_pauses() {
        let (peer, start) = (PeerId::random(), Instant::now());
        let mut dialer = dialer(vec![(peer, address(1))], start);
        let mut dialled = Vec::new();
        for second in 0..25 {
            let due = dialer.due(start + S(second), || 0);
            if !due.is_empty() {
                assert_eq!(due, [(peer, vec![address(1)], u32::try_from(dialled.len()).unwrap())]);
                dialled.push(second);
            }
        }
        assert_eq!(dialled, [0, 1, 3, 7, 15, 23]);
    }

    #[test]
    fn only_a_connection_that_lasted_resets_the_pauses() {
        let (peer, start) = (PeerId::random(), Instant::now());
        let mut dialer = dialer(vec![(peer, address(1))], start);
        assert_eq!(dialer.due(start, || 0).len(), 1);
        assert_eq!(dialer.due(start + S(1), || 0).len(), 1);
        dialer.connected(&peer, start + S(1));
        assert!(dialer.due(start + S(60), || 0).is_empty());
        dialer.disconnected(&peer, start + S(2), 0);
        assert!(dialer.due(start + S(5), || 0).is_empty(), "it lasted a second");
        assert_eq!(dialer.due(start + S(6), || 0).len(), 1);
        dialer.connected(&peer, start + S(6));
        dialer.disconnected(&peer, start + S(60), 0);
        assert_eq!(dialer.due(start + S(61), || 0).len(), 1);
    }

    #[test]
    fn members_come_and_go_and_bootstrap_peers_stay() {
        let (boot, member, stranger, start) = (PeerId::random(), PeerId::random(), PeerId::random(), Instant::now());
        let mut dialer = dialer(vec![(boot, address(1))], start);
        dialer.set_members([member, boot], start);
        dialer.heard(&stranger, address(9), start);
        dialer.heard(&member, address(2), start);
        dialer.heard(&member, address(3), start);
        dialer.heard(&member, address(2), start);
        dialer.heard(&boot, address(4), start);
        let due: HashMap<_, _> = dialer.due(start, || 0).into_iter().map(|(peer, addresses, _)| (peer, addresses)).collect();
        assert_eq!(due, HashMap::from([(boot, vec![address(1), address(4)]), (member, vec![address(2), address(3)])]));
        dialer.set_members([], start);
        let due = dialer.due(start + S(9), || 0);
        assert_eq!(due.iter().map(|(peer, ..)| *peer).collect::<Vec<_>>(), [boot]);
    }

    #[test]
    fn addresses_of_a_peer_are_bounded_and_the_newest_stay() {
        let (peer, start) = (PeerId::random(), Instant::now());
        let mut dialer = dialer(vec![], start);
        dialer.set_members([peer], start);
        (0..100).for_each(|port| dialer.heard(&peer, address(port), start));
        let (_, addresses, _) = dialer.due(start, || 0).remove(0);
        assert_eq!(addresses.len(), ADDRESSES_MAX);
        assert_eq!(addresses[0], address(99));
    }
}
