//! The relays that this node is reached through: at which of them to ask for a reservation, and when. Pure: the caller brings the
//! time, the randomness and the listeners.

use std::collections::BTreeMap;
use std::time::Instant;

use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use psyche_messages::Backoff;

struct Relay {
    addresses: Vec<Multiaddr>,
    /// The listener behind a reservation, or behind a request for one.
    listener: Option<ListenerId>,
    attempt: u32,
    next: Instant,
}

/// The configured relays.
pub(crate) struct Relays {
    relays: BTreeMap<PeerId, Relay>,
    backoff: Backoff,
}

impl Relays {
    /// Wants a reservation at each of `relays`; retries by `backoff`.
    pub(crate) fn new(relays: Vec<(PeerId, Multiaddr)>, backoff: Backoff, now: Instant) -> Self {
        let mut all: BTreeMap<PeerId, Relay> = BTreeMap::new();
        for (peer, address) in relays {
            let relay = all.entry(peer).or_insert(Relay { addresses: Vec::new(), listener: None, attempt: 0, next: now });
            relay.addresses.push(address);
        }
        Self { relays: all, backoff }
    }

    /// The relays at which a reservation is to be asked for at `now`, with the address to listen on. Those without a connection
    /// wait for it; each is due again after its backoff, unless a listener is noted.
    pub(crate) fn due(
        &mut self,
        now: Instant,
        connected: impl Fn(&PeerId) -> bool,
        mut jitter: impl FnMut() -> u16,
    ) -> Vec<(PeerId, Multiaddr)> {
        let backoff = self.backoff;
        let due =
            self.relays.iter_mut().filter(|(peer, relay)| relay.listener.is_none() && relay.next <= now && connected(peer));
        due.filter_map(|(peer, relay)| {
            relay.next = now + backoff.delay(relay.attempt, jitter());
            relay.attempt = relay.attempt.saturating_add(1);
            Some((*peer, circuit(relay.addresses.first()?, peer)))
        })
        .collect()
    }

    /// Notes the listener that asks for a reservation at `peer`.
    pub(crate) fn asked(&mut self, peer: &PeerId, listener: ListenerId) {
        if let Some(relay) = self.relays.get_mut(peer) {
            relay.listener = Some(listener);
        }
    }

    /// Notes that `peer` has granted a reservation.
    pub(crate) fn granted(&mut self, peer: &PeerId) {
        if let Some(relay) = self.relays.get_mut(peer) {
            relay.attempt = 0;
        }
    }

    /// Notes that a listener is gone; whether it was one of a relay.
    pub(crate) fn closed(&mut self, listener: &ListenerId) -> bool {
        let closed = self.relays.values_mut().find(|relay| relay.listener == Some(*listener));
        closed.map(|relay| relay.listener = None).is_some()
    }

    /// Addresses by which `peer` may be reached through the relays, if it has reservations there.
    pub(crate) fn circuits_to(&self, peer: &PeerId) -> Vec<Multiaddr> {
        let others = self.relays.iter().filter(|(relay, _)| *relay != peer);
        others.filter_map(|(id, relay)| Some(circuit(relay.addresses.first()?, id).with(Protocol::P2p(*peer)))).collect()
    }
}

fn circuit(address: &Multiaddr, relay: &PeerId) -> Multiaddr {
    address.clone().with(Protocol::P2p(*relay)).with(Protocol::P2pCircuit)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use std::time::Duration;

    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn relays(peers: &[PeerId], now: Instant) -> Relays {
        let address: Multiaddr = "/ip4/203.0.113.1/tcp/4".parse().unwrap();
        let relays = peers.iter().map(|peer| (*peer, address.clone())).collect();
        Relays::new(relays, Backoff::new(S(1), S(8), 200, 0).unwrap(), now)
    }

    #[test]
    fn a_reservation_is_asked_for_once_the_relay_is_connected_and_again_when_it_is_lost() {
        let (relay, start) = (PeerId::random(), Instant::now());
        let mut relays = relays(&[relay], start);
        assert!(relays.due(start, |_| false, || 0).is_empty());
        let due = relays.due(start, |_| true, || 0);
        assert_eq!(due, [(relay, format!("/ip4/203.0.113.1/tcp/4/p2p/{relay}/p2p-circuit").parse().unwrap())]);
        let listener = ListenerId::next();
        relays.asked(&relay, listener);
        assert!(relays.due(start + S(60), |_| true, || 0).is_empty());
        assert!(!relays.closed(&ListenerId::next()));
        assert!(relays.closed(&listener));
        assert_eq!(relays.due(start + S(61), |_| true, || 0).len(), 1);
    }

    #[test]
    fn a_relay_that_refuses_is_asked_with_growing_pauses_until_it_grants() {
        let (relay, start) = (PeerId::random(), Instant::now());
        let mut relays = relays(&[relay], start);
        let asked = |relays: &mut Relays, from: u64, until: u64| -> Vec<u64> {
            (from..until).filter(|second| !relays.due(start + S(*second), |_| true, || 0).is_empty()).collect()
        };
        assert_eq!(asked(&mut relays, 0, 16), [0, 1, 3, 7, 15]);
        relays.granted(&relay);
        assert_eq!(asked(&mut relays, 23, 26), [23, 24]);
    }

    #[test]
    fn members_are_reached_through_every_relay_but_themselves() {
        let [first, second] = [PeerId::random(), PeerId::random()];
        let relays = relays(&[first, second], Instant::now());
        let expected = format!("/ip4/203.0.113.1/tcp/4/p2p/{second}/p2p-circuit/p2p/{first}").parse::<Multiaddr>().unwrap();
        assert_eq!(relays.circuits_to(&first), [expected]);
        assert_eq!(relays.circuits_to(&PeerId::random()).len(), 2);
    }
}
