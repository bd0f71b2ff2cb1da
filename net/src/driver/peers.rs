//! Connections: who is there, who may be, who is dialled, and where peers are found.

use std::collections::HashSet;
use std::time::Instant;

use libp2p::core::ConnectedPoint;
use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError};
use libp2p::{Multiaddr, PeerId, identify, kad, ping};
use rand::Rng;

use super::Driver;
use crate::conduct::Offence;
use crate::handle::{NetEvent, Presence};
use crate::identity::peer_key_of_id;
use crate::transfer;

/// Addresses that are taken from one peer's word about itself, or from one answer about another.
const ADDRESSES_TAKEN: usize = 8;

/// Look-ups of addresses under way at a time.
const LOOKUPS_MAX: usize = 8;

impl Driver {
    pub(super) fn set_members(&mut self, members: Vec<PeerId>) {
        let own = *self.swarm.local_peer_id();
        self.members = members.into_iter().filter(|peer| *peer != own).collect();
        self.dialer.set_members(self.members.iter().copied(), Instant::now());
        for peer in self.connected.keys() {
            self.dialer.connected(peer, Instant::now());
        }
        self.allow_wanted_peers();
        self.report_presence();
    }

    /// Brings the allow-list, where there is one, in line with members and bootstrap peers; others' connections close.
    pub(super) fn allow_wanted_peers(&mut self) {
        let wanted: HashSet<PeerId> = self.dialer.bootstrap().chain(self.members.iter().copied()).collect();
        let Some(allowed) = self.swarm.behaviour_mut().allowed.as_mut() else { return };
        let unwanted: Vec<_> = allowed.allowed_peers().difference(&wanted).copied().collect();
        for peer in unwanted {
            allowed.disallow_peer(peer);
        }
        for peer in wanted {
            allowed.allow_peer(peer);
        }
    }

    pub(super) fn note_offence(&mut self, peer: PeerId, offence: Offence) {
        tracing::warn!(peer = %peer, offence = ?offence, "peer misbehaved");
        if self.conduct.note(peer, offence, Instant::now()) {
            self.swarm.behaviour_mut().blocked.block_peer(peer);
            if let Some(key) = peer_key_of_id(&peer) {
                self.notice(NetEvent::PeerBlocked(key));
            }
        }
    }

    pub(super) fn on_connected(&mut self, peer: PeerId, connection: ConnectionId, endpoint: &ConnectedPoint) {
        let Some(key) = peer_key_of_id(&peer) else {
            // A key of another type can't be in a roster.
            self.swarm.behaviour_mut().blocked.block_peer(peer);
            return;
        };
        self.local.insert(connection, is_loopback(endpoint.get_remote_address()));
        self.dialer.connected(&peer, Instant::now());
        if self.connected.insert(peer, key).is_none() {
            tracing::info!(peer = %key, "peer connected");
            self.report_presence();
            self.notice(NetEvent::PeerConnected(key));
        }
    }

    pub(super) fn on_closed(&mut self, peer: &PeerId, connection: &ConnectionId, remaining: u32) {
        self.local.remove(connection);
        if remaining > 0 {
            return;
        }
        self.dialer.disconnected(peer, Instant::now(), rand::rng().random());
        if let Some(key) = self.connected.remove(peer) {
            tracing::info!(peer = %key, "peer disconnected");
            self.report_presence();
            self.notice(NetEvent::PeerDisconnected(key));
        }
    }

    /// Closes a connection over which nothing comes back: TCP alone would not notice for a long time.
    pub(super) fn on_ping(&mut self, event: &ping::Event) {
        if let Err(ping::Failure::Timeout) = event.result {
            tracing::info!(peer = %event.peer, "peer does not answer, closing the connection");
            // False if it is closed already.
            let _open = self.swarm.close_connection(event.connection);
        }
    }

    pub(super) fn on_listening(&mut self, listener: &ListenerId, address: Multiaddr) {
        self.silent.remove(listener);
        if !self.listening.contains(&address) {
            self.listening.push(address.clone());
        }
        self.report_presence();
        let text = self.with_own_id(address);
        tracing::info!(address = text, "listening");
        self.notice(NetEvent::Listening(text));
    }

    /// Dials the peers that are due; those without a known address are looked up.
    pub(super) fn dial_due(&mut self, now: Instant) {
        let mut random = rand::rng();
        for (peer, addresses) in self.dialer.due(now, || random.random()) {
            let options = DialOpts::peer_id(peer)
                .condition(PeerCondition::DisconnectedAndNotDialing)
                .addresses(addresses)
                .extend_addresses_through_behaviour()
                .build();
            match self.swarm.dial(options) {
                Ok(()) | Err(DialError::DialPeerConditionFalse(_)) => {}
                Err(DialError::NoAddresses) => self.look_up(peer),
                Err(error) => {
                    tracing::debug!(peer = %peer, error = &error as &dyn std::error::Error, "dial failed");
                }
            }
        }
    }

    fn look_up(&mut self, peer: PeerId) {
        let kad = &mut self.swarm.behaviour_mut().kad;
        if !self.connected.is_empty() && kad.iter_queries().count() < LOOKUPS_MAX {
            tracing::debug!(peer = %peer, "looking up a member's address");
            kad.get_closest_peers(peer);
        }
    }

    pub(super) fn on_identify(&mut self, event: identify::Event) {
        let identify::Event::Received { peer_id, info, connection_id } = event else { return };
        let local = self.local.get(&connection_id).copied().unwrap_or(false);
        let speaks_kad = self.swarm.behaviour().kad.protocol_names().iter().any(|name| info.protocols.contains(name));
        if !info.protocols.contains(&transfer::PROTOCOL) {
            tracing::debug!(peer = %peer_id, agent = info.agent_version, "peer speaks no blobs");
        }
        for address in info.listen_addrs.into_iter().take(ADDRESSES_TAKEN) {
            // A loopback address means the peer's own machine, which is ours only if the connection is local.
            if (local || !is_loopback(&address)) && is_direct(&address) {
                if speaks_kad {
                    self.swarm.behaviour_mut().kad.add_address(&peer_id, address.clone());
                }
                self.heard(&peer_id, address);
            }
        }
    }

    pub(super) fn on_kad(&mut self, event: kad::Event) {
        match event {
            kad::Event::RoutingUpdated { peer, addresses, .. } => {
                for address in addresses.iter().take(ADDRESSES_TAKEN) {
                    self.heard(&peer, address.clone());
                }
            }
            kad::Event::OutboundQueryProgressed { result: kad::QueryResult::GetClosestPeers(result), .. } => {
                let found = match result {
                    Ok(found) => found.peers,
                    Err(kad::GetClosestPeersError::Timeout { peers, .. }) => peers,
                };
                for peer in found {
                    for address in peer.addrs.into_iter().take(ADDRESSES_TAKEN) {
                        self.heard(&peer.peer_id, address);
                    }
                }
            }
            _ => {}
        }
    }

    fn heard(&mut self, peer: &PeerId, mut address: Multiaddr) {
        if let Some(Protocol::P2p(_)) = address.iter().last() {
            address.pop();
        }
        if is_direct(&address) {
            self.dialer.heard(peer, address, Instant::now());
        }
    }

    pub(super) fn report_presence(&mut self) {
        let mut peers: Vec<_> = self.connected.values().copied().collect();
        let of_run = |peer: &PeerId| self.members.is_empty() || self.members.contains(peer);
        let mut members: Vec<_> = self.connected.iter().filter(|(peer, _)| of_run(peer)).map(|(_, key)| *key).collect();
        peers.sort_unstable();
        members.sort_unstable();
        let listening = self.listening.iter().map(|address| self.with_own_id(address.clone())).collect();
        let presence = Presence { peers, members, listening, ready: self.silent.is_empty() };
        self.presence.send_if_modified(|current| {
            let changed = *current != presence;
            *current = presence;
            changed
        });
    }

    fn with_own_id(&self, address: Multiaddr) -> String {
        address.with(Protocol::P2p(*self.swarm.local_peer_id())).to_string()
    }
}

fn is_loopback(address: &Multiaddr) -> bool {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => ip.is_loopback(),
        Some(Protocol::Ip6(ip)) => ip.is_loopback(),
        _ => false,
    }
}

/// Whether an address is one that can be dialled without a relay.
fn is_direct(address: &Multiaddr) -> bool {
    !address.is_empty() && !address.iter().any(|part| part == Protocol::P2pCircuit)
}
