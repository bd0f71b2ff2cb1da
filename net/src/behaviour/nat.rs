//! Getting through NAT: what a relay grants, and which of its own addresses a node lets others try.

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::task::{Context, Poll};
use std::time::Duration;

use libp2p::autonat::v2::client;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, relay};

use crate::scope::is_relayed;

/// Members behind NAT that one relay keeps reachable. Only members, bootstrap peers and relays can connect at all.
const RESERVATIONS_MAX: usize = 256;

/// Pairs of members between whom one relay passes traffic on at a time. Most upgrade to a direct connection within seconds.
const CIRCUITS_MAX: usize = 512;

/// Of these, those that one member opened.
const CIRCUITS_PER_PEER_MAX: usize = 64;

/// What one circuit may carry: gossip for long, and the results of some rounds for those who can't be upgraded.
const CIRCUIT_BYTES_MAX: u64 = 512 << 20;
const CIRCUIT_DURATION_MAX: Duration = Duration::from_secs(1800);

/// Requests of one member: so many at once, and one more for each interval.
const REQUESTS_BURST: NonZeroU32 = NonZeroU32::new(64).unwrap();
const REQUEST_INTERVAL: Duration = Duration::from_secs(2);

/// Addresses of this node that are tried in its lifetime. Peers name them, so they are not to be believed without bound.
const CANDIDATES_MAX: usize = 64;

/// A relay for members.
pub(super) fn relay(id: PeerId) -> relay::Behaviour {
    // The library's own limits by address of origin would count everybody behind one NAT as one.
    let config = relay::Config {
        max_reservations: RESERVATIONS_MAX,
        max_reservations_per_peer: 2,
        reservation_rate_limiters: Vec::new(),
        max_circuits: CIRCUITS_MAX,
        max_circuits_per_peer: CIRCUITS_PER_PEER_MAX,
        max_circuit_duration: CIRCUIT_DURATION_MAX,
        max_circuit_bytes: CIRCUIT_BYTES_MAX,
        circuit_src_rate_limiters: Vec::new(),
        ..relay::Config::default()
    };
    let config = config
        .reservation_rate_per_peer(REQUESTS_BURST, REQUEST_INTERVAL)
        .circuit_src_per_peer(REQUESTS_BURST, REQUEST_INTERVAL);
    relay::Behaviour::new(id, config)
}

/// Has peers try the addresses under which others have seen this node; what they reach becomes an external address. A wrapper
/// that bounds how many candidates peers make it remember.
#[derive(Default)]
pub(crate) struct Probing {
    inner: client::Behaviour,
    candidates: HashSet<Multiaddr>,
}

impl Probing {
    /// Whether `address` may be tried.
    fn admits(&mut self, address: &Multiaddr) -> bool {
        if is_relayed(address) {
            return false;
        }
        if self.candidates.len() >= CANDIDATES_MAX && !self.candidates.contains(address) {
            return false;
        }
        self.candidates.insert(address.clone());
        true
    }
}

impl NetworkBehaviour for Probing {
    type ConnectionHandler = <client::Behaviour as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = client::Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_outbound_connection(connection, peer, address, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        if let FromSwarm::NewExternalAddrCandidate(candidate) = &event
            && !self.admits(candidate.addr)
        {
            return;
        }
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        self.inner.on_connection_handler_event(peer, connection, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.inner.poll(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use super::*;

    #[test]
    fn addresses_that_peers_make_up_are_remembered_up_to_a_bound() {
        let mut probing = Probing::default();
        let address = |number: u16| format!("/ip4/203.0.113.7/tcp/{number}").parse::<Multiaddr>().unwrap();
        let admitted = (0..1000).filter(|number| probing.admits(&address(*number))).count();
        assert_eq!((admitted, probing.candidates.len()), (CANDIDATES_MAX, CANDIDATES_MAX));
        assert!(probing.admits(&address(0)), "known ones count further");
        let relayed = format!("/ip4/203.0.113.7/tcp/1/p2p/{}/p2p-circuit", PeerId::random()).parse().unwrap();
        assert!(!Probing::default().admits(&relayed));
    }
}
