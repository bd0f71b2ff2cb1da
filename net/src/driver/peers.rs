//! Connections: who is there, who may be, who is dialled, and where peers are found.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use libp2p::core::ConnectedPoint;
use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError};
use libp2p::{Multiaddr, PeerId, identify, kad, ping, relay};
use rand::Rng;

use super::Driver;
use crate::behaviour::{SCORE_PER_POINT, life_of};
use crate::conduct::Offence;
use crate::handle::{NetEvent, Presence};
use crate::identity::peer_key_of_id;
use crate::scope::{Scope, is_relayed};
use crate::transfer;

/// Addresses that are taken from one peer's word about itself, or from one answer about another.
const ADDRESSES_TAKEN: usize = 8;

/// Look-ups of addresses under way at a time.
const LOOKUPS_MAX: usize = 8;

/// For so long connections through a relay are kept beside a direct one to the same peer.
const RELAYED_KEPT: Duration = Duration::from_secs(2);

/// An open connection.
pub(super) struct Link {
    peer: PeerId,
    /// How near the other end is.
    scope: Scope,
    relayed: bool,
    /// When it is closed, as there is a direct connection to the peer now.
    closes: Option<Instant>,
    /// Which start of the peer's process it belongs to, once the peer has said so.
    life: Option<u64>,
}

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
        let convicted = self.conduct.note(peer, offence, Instant::now());
        let score = SCORE_PER_POINT * f64::from(self.conduct.points(&peer));
        // False if it is gone already.
        let _scored = self.swarm.behaviour_mut().gossip.set_application_score(&peer, score);
        if convicted {
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
        let relayed = endpoint.is_relayed();
        let scope = if relayed { Scope::World } else { Scope::of(endpoint.get_remote_address()) };
        if relayed && self.upgrades.replaces(&peer) {
            // Another attempt at a direct connection begins; what was there before it is not needed for that.
            self.close_relayed(&peer);
        }
        self.links.insert(connection, Link { peer, scope, relayed, closes: None, life: None });
        self.dialer.connected(&peer, Instant::now());
        let first = self.connected.insert(peer, key).is_none();
        let upgraded = !relayed && self.retire_relayed(&peer, Instant::now());
        self.report_presence();
        if first {
            tracing::info!(peer = %key, relayed, "peer connected");
            self.notice(NetEvent::PeerConnected(key));
        }
        if upgraded {
            self.notice(NetEvent::PeerUpgraded(key));
        }
    }

    /// Has connections to `peer` that lead through a relay closed soon, since there is a direct one now; whether there were any.
    /// Not at once: the peer may see the end of those before it sees the direct one, and would be without any.
    fn retire_relayed(&mut self, peer: &PeerId, now: Instant) -> bool {
        let relayed = self.links.values_mut().filter(|link| link.relayed && link.peer == *peer && link.closes.is_none());
        relayed.map(|link| link.closes = Some(now + RELAYED_KEPT)).count() > 0
    }

    /// Closes what was to be closed by now.
    pub(super) fn close_retired(&mut self, now: Instant) {
        let due = self.links.iter().filter(|(_, link)| link.closes.is_some_and(|closes| closes <= now));
        let due: Vec<_> = due.map(|(connection, _)| *connection).collect();
        for connection in due {
            // False if it is closed already.
            let _open = self.swarm.close_connection(connection);
        }
    }

    fn close_relayed(&mut self, peer: &PeerId) {
        let relayed = self.links.iter().filter(|(_, link)| link.relayed && link.peer == *peer);
        let relayed: Vec<_> = relayed.map(|(connection, _)| *connection).collect();
        for connection in relayed {
            // False if it is closed already.
            let _open = self.swarm.close_connection(connection);
        }
    }

    pub(super) fn on_closed(&mut self, peer: &PeerId, connection: &ConnectionId, remaining: u32) {
        self.links.remove(connection);
        if remaining > 0 {
            self.report_presence();
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
        for (peer, mut addresses, attempt) in self.dialer.due(now, || random.random()) {
            if addresses.is_empty() {
                self.look_up(peer);
            }
            // The straight way first: a relay carries what it must, not what it can.
            if addresses.is_empty() || attempt > 0 {
                addresses.extend(self.relays.circuits_to(&peer));
            }
            let options = DialOpts::peer_id(peer)
                .condition(PeerCondition::DisconnectedAndNotDialing)
                .addresses(addresses)
                .extend_addresses_through_behaviour()
                .build();
            match self.swarm.dial(options) {
                Ok(()) | Err(DialError::DialPeerConditionFalse(_) | DialError::NoAddresses) => {}
                Err(error) => {
                    tracing::debug!(peer = %peer, error = &error as &dyn std::error::Error, "dial failed");
                }
            }
        }
    }

    /// Asks connected relays for reservations that are missing.
    pub(super) fn reserve_due(&mut self, now: Instant) {
        let mut random = rand::rng();
        let links = &self.links;
        let connected = |peer: &PeerId| links.values().any(|link| link.peer == *peer && !link.relayed);
        for (relay, address) in self.relays.due(now, connected, || random.random()) {
            match self.swarm.listen_on(address) {
                Ok(listener) => self.relays.asked(&relay, listener),
                Err(error) => {
                    tracing::warn!(peer = %relay, error = &error as &dyn std::error::Error, "relay can't be listened at");
                }
            }
        }
    }

    /// Connects anew, through relays, to members that are reached only so: with every such connection both sides try to get a
    /// direct one. Of two, the one with the lower name does it.
    pub(super) fn upgrade_due(&mut self, now: Instant) {
        let direct: HashSet<_> = self.links.values().filter(|link| !link.relayed).map(|link| link.peer).collect();
        let own = *self.swarm.local_peer_id();
        let relayed: HashSet<_> =
            self.connected.keys().filter(|peer| own < **peer && !direct.contains(*peer)).copied().collect();
        let mut random = rand::rng();
        for peer in self.upgrades.due(&relayed, now, || random.random()) {
            let circuits = self.relays.circuits_to(&peer);
            let options = DialOpts::peer_id(peer).condition(PeerCondition::Always).addresses(circuits).build();
            if let Err(error) = self.swarm.dial(options) {
                tracing::debug!(peer = %peer, error = &error as &dyn std::error::Error, "no other way to a relayed peer");
            }
        }
    }

    pub(super) fn on_relayed(&mut self, event: &relay::client::Event) {
        if let relay::client::Event::ReservationReqAccepted { relay_peer_id, renewal: false, .. } = event {
            tracing::info!(peer = %relay_peer_id, "reachable through a relay");
            self.relays.granted(relay_peer_id);
        }
    }

    pub(super) fn on_listener_closed(&mut self, listener: ListenerId, addresses: &[Multiaddr], reason: std::io::Result<()>) {
        self.listening.retain(|known| !addresses.contains(known));
        self.report_presence();
        let at_relay = self.relays.closed(&listener);
        let Err(error) = reason else { return };
        let error = &error as &dyn std::error::Error;
        if at_relay {
            tracing::info!(error, "reservation at a relay is lost or refused, it is asked for again");
        } else {
            tracing::error!(error, addresses = ?addresses, "listener closed");
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
        let scope = self.links.get(&connection_id).map_or(Scope::World, |link| link.scope);
        if let Some(life) = life_of(&info.agent_version) {
            self.note_life(&peer_id, &connection_id, life);
        }
        let speaks_kad = self.swarm.behaviour().kad.protocol_names().iter().any(|name| info.protocols.contains(name));
        if !info.protocols.contains(&transfer::PROTOCOL) {
            tracing::debug!(peer = %peer_id, agent = info.agent_version, "peer speaks no blobs");
        }
        for address in info.listen_addrs.into_iter().filter(|address| scope.admits(address)).take(ADDRESSES_TAKEN) {
            if speaks_kad && !is_relayed(&address) {
                self.learn(&peer_id, address.clone());
            }
            self.heard(&peer_id, address);
        }
    }

    /// Begins anew with a peer whose process died and came back before this node had noticed. Connections to a dead process look
    /// alive until they time out, and whatever keeps state by peer (gossip has told its subscriptions, to the dead one) would go on
    /// as if nothing had been: the peer would hear nothing from here for good.
    fn note_life(&mut self, peer: &PeerId, connection: &ConnectionId, life: u64) {
        if let Some(link) = self.links.get_mut(connection) {
            link.life = Some(life);
        }
        let dead = |link: &Link| link.peer == *peer && link.life.is_some_and(|other| other != life);
        if self.links.values().any(dead) {
            tracing::info!(peer = %peer, "peer has started anew, all connections to it begin again");
            // An error if there is none any more.
            let _connected = self.swarm.disconnect_peer_id(*peer);
        }
    }

    /// Adds an address to what this node tells others about `peer`, in place of an older one where there are many.
    fn learn(&mut self, peer: &PeerId, address: Multiaddr) {
        let kad = &mut self.swarm.behaviour_mut().kad;
        let known: Vec<Multiaddr> = kad
            .kbucket(*peer)
            .and_then(|bucket| {
                let mut entries = bucket.iter().filter(|entry| entry.node.key.preimage() == peer);
                entries.next().map(|entry| entry.node.value.iter().cloned().collect())
            })
            .unwrap_or_default();
        let full = known.len() >= ADDRESSES_TAKEN;
        if full
            && !known.iter().any(|old| bare(old.clone()) == address)
            && let Some(oldest) = known.first()
        {
            kad.remove_address(peer, oldest);
        }
        kad.add_address(peer, address);
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

    fn heard(&mut self, peer: &PeerId, address: Multiaddr) {
        // What a third party says about private networks can only be true of the networks that this node is in.
        let nearest = self.links.values().map(|link| link.scope).min().unwrap_or(Scope::World);
        let address = bare(address);
        if nearest.admits(&address) && !address.is_empty() {
            let address = if is_relayed(&address) { address.with(Protocol::P2p(*peer)) } else { address };
            self.dialer.heard(peer, address, Instant::now());
        }
    }

    pub(super) fn report_presence(&mut self) {
        let mut peers: Vec<_> = self.connected.values().copied().collect();
        let of_run = |peer: &PeerId| self.members.is_empty() || self.members.contains(peer);
        let mut members: Vec<_> = self.connected.iter().filter(|(peer, _)| of_run(peer)).map(|(_, key)| *key).collect();
        peers.sort_unstable();
        members.sort_unstable();
        let direct: HashSet<_> = self.links.values().filter(|link| !link.relayed).map(|link| link.peer).collect();
        let mut relayed: Vec<_> =
            self.connected.iter().filter(|(peer, _)| !direct.contains(*peer)).map(|(_, key)| *key).collect();
        relayed.sort_unstable();
        let listening = self.listening.iter().map(|address| self.with_own_id(address.clone())).collect();
        let external = self.swarm.external_addresses().map(|address| self.with_own_id(address.clone())).collect();
        let presence = Presence { peers, members, relayed, listening, external, ready: self.silent.is_empty() };
        self.presence.send_if_modified(|current| {
            let changed = *current != presence;
            *current = presence;
            changed
        });
    }

    fn with_own_id(&self, address: Multiaddr) -> String {
        // Fails only for an address of another peer, which is none of this node.
        address.with_p2p(*self.swarm.local_peer_id()).unwrap_or_else(|other| other).to_string()
    }
}

/// An address without the name of the peer at its end.
fn bare(mut address: Multiaddr) -> Multiaddr {
    if let Some(Protocol::P2p(_)) = address.iter().last() {
        address.pop();
    }
    address
}
