//! The task that owns the swarm: it carries out commands, judges gossip, serves blobs, and keeps connections up.

mod gossip;
mod peers;
mod serving;
mod turns;
mod uploads;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use libp2p::core::transport::ListenerId;
use libp2p::request_response::{self, OutboundRequestId};
use libp2p::swarm::{ConnectionId, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, dcutr};
use psyche_messages::{Backoff, PeerKey};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;

use crate::behaviour::{Behaviour, BehaviourEvent};
use crate::blobs::BlobStore;
use crate::conduct::{Conduct, Offence};
use crate::dialer::Dialer;
use crate::handle::{Command, NetEvent, Presence};
use crate::outbox::Outbox;
use crate::relays::Relays;
use crate::traffic::Traffic;
use crate::transfer::{PartRequest, PartResponse};
use crate::upgrades::Upgrades;
use crate::wire::Wire;
use gossip::{Rates, Seen};
use peers::Link;
use serving::{Answer, SERVED_MAX, Serving};

/// How often dials and repeated messages are looked at.
const TICK: Duration = Duration::from_millis(250);

/// How often unclaimed blobs are dropped.
const COLLECT_EVERY: Duration = Duration::from_secs(30);

/// Parts asked for at a time: more than all transfers together ask for.
const REQUESTS_MAX: usize = 256;

/// Changes of peers that wait while the event queue is full; the oldest go first.
const NOTICES_MAX: usize = 256;

/// How long a shutdown waits for connections to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Where a node starts from.
pub(crate) struct Start {
    pub(crate) bootstrap: Vec<(PeerId, Multiaddr)>,
    pub(crate) relays: Vec<(PeerId, Multiaddr)>,
    /// The listeners that were configured.
    pub(crate) listeners: Vec<ListenerId>,
    /// What counts the blobs' bytes.
    pub(crate) traffic: Arc<Traffic>,
    /// See [`crate::NetConfig::payload_len`].
    pub(crate) payload_len: Option<u32>,
}

/// The task's state.
pub(crate) struct Driver {
    swarm: Swarm<Behaviour>,
    wire: Wire,
    payload_len: Option<u32>,
    blobs: BlobStore,
    events: mpsc::Sender<NetEvent>,
    notices: VecDeque<NetEvent>,
    presence: watch::Sender<Presence>,
    /// Listeners that have not reported an address yet.
    silent: HashSet<ListenerId>,
    listening: Vec<Multiaddr>,
    members: HashSet<PeerId>,
    connected: HashMap<PeerId, PeerKey>,
    /// Open connections.
    links: HashMap<ConnectionId, Link>,
    dialer: Dialer,
    relays: Relays,
    upgrades: Upgrades,
    conduct: Conduct<PeerId>,
    outbox: Outbox,
    seen: Seen,
    rates: Rates,
    requests: HashMap<OutboundRequestId, oneshot::Sender<Option<PartResponse>>>,
    serving: Serving,
    answers: mpsc::Sender<Answer>,
    answer_receiver: mpsc::Receiver<Answer>,
    traffic: Arc<Traffic>,
    collected: Instant,
}

impl Driver {
    /// A driver of a swarm that has begun to listen.
    pub(crate) fn new(
        swarm: Swarm<Behaviour>,
        wire: Wire,
        blobs: BlobStore,
        start: Start,
        events: mpsc::Sender<NetEvent>,
        presence: watch::Sender<Presence>,
    ) -> Self {
        let (answers, answer_receiver) = mpsc::channel(SERVED_MAX);
        let now = Instant::now();
        let wanted = start.bootstrap.into_iter().chain(start.relays.iter().cloned()).collect();
        let mut driver = Self {
            swarm,
            wire,
            payload_len: start.payload_len,
            blobs,
            events,
            notices: VecDeque::new(),
            presence,
            silent: start.listeners.into_iter().collect(),
            listening: Vec::new(),
            members: HashSet::new(),
            connected: HashMap::new(),
            links: HashMap::new(),
            dialer: Dialer::new(wanted, redial_backoff(), now),
            relays: Relays::new(start.relays, redial_backoff(), now),
            upgrades: Upgrades::new(upgrade_backoff()),
            conduct: Conduct::default(),
            outbox: Outbox::default(),
            seen: Seen::default(),
            rates: Rates::default(),
            requests: HashMap::new(),
            serving: Serving::default(),
            answers,
            answer_receiver,
            traffic: start.traffic,
            collected: now,
        };
        driver.allow_wanted_peers();
        driver
    }

    /// Runs until a shutdown is asked for or every handle is gone.
    pub(crate) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let done = loop {
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_swarm(event),
                command = commands.recv() => match command {
                    Some(Command::Shutdown(done)) => break Some(done),
                    Some(command) => self.on_command(command),
                    None => break None,
                },
                Some(answer) = self.answer_receiver.recv() => self.on_answer(answer),
                _ = tick.tick() => self.on_tick(),
            }
            self.flush_notices();
        };
        self.close().await;
        if let Some(done) = done {
            // The one who asked may have stopped waiting.
            let _gone = done.send(());
        }
    }

    async fn close(&mut self) {
        for peer in self.connected.keys().copied().collect::<Vec<_>>() {
            // An error says that it is gone already.
            let _gone = self.swarm.disconnect_peer_id(peer);
        }
        let closing = async {
            while self.swarm.connected_peers().next().is_some() {
                let _event = self.swarm.next().await;
            }
        };
        // Connections that don't close in time end with the swarm.
        let _elapsed = tokio::time::timeout(CLOSE_TIMEOUT, closing).await;
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Publish { message, envelope } => {
                self.publish(envelope.clone());
                self.outbox.keep(&message, envelope, Instant::now());
            }
            Command::Request { peer, request, reply } => self.request(&peer, request, reply),
            Command::SetMembers(members) => self.set_members(members),
            Command::HearAgain => self.seen = Seen::default(),
            Command::Offence(peer, offence) => self.note_offence(peer, offence),
            Command::Shutdown(done) => drop(done),
        }
    }

    fn on_swarm(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Gossip(event)) => self.on_gossip(event),
            SwarmEvent::Behaviour(BehaviourEvent::Blobs(event)) => self.on_blobs(event),
            SwarmEvent::Behaviour(BehaviourEvent::Identify(event)) => self.on_identify(event),
            SwarmEvent::Behaviour(BehaviourEvent::Kad(event)) => self.on_kad(event),
            SwarmEvent::Behaviour(BehaviourEvent::Ping(event)) => self.on_ping(&event),
            SwarmEvent::Behaviour(BehaviourEvent::Relayed(event)) => self.on_relayed(&event),
            SwarmEvent::Behaviour(BehaviourEvent::Relay(event)) => tracing::debug!(event = ?event, "as a relay"),
            SwarmEvent::Behaviour(BehaviourEvent::Punch(event)) => log_punch(&event),
            SwarmEvent::ExternalAddrConfirmed { address } => {
                tracing::info!(address = %address, "reachable");
                self.report_presence();
            }
            SwarmEvent::ExternalAddrExpired { .. } => self.report_presence(),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.on_connected(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, num_established, .. } => {
                self.on_closed(&peer_id, &connection_id, num_established);
            }
            SwarmEvent::NewListenAddr { listener_id, address } => self.on_listening(&listener_id, address),
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.listening.retain(|known| *known != address);
                self.report_presence();
            }
            SwarmEvent::ListenerError { error, .. } => {
                tracing::warn!(error = &error as &dyn std::error::Error, "listener reports an error");
            }
            SwarmEvent::ListenerClosed { listener_id, addresses, reason } => {
                self.on_listener_closed(listener_id, &addresses, reason);
            }
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), error, .. } => {
                tracing::debug!(peer = %peer, error = &error as &dyn std::error::Error, "dial failed");
            }
            SwarmEvent::IncomingConnectionError { error, .. } => {
                tracing::debug!(error = &error as &dyn std::error::Error, "incoming connection refused");
            }
            _ => {}
        }
    }

    fn on_tick(&mut self) {
        let now = Instant::now();
        for envelope in self.outbox.due(now) {
            self.publish(envelope);
        }
        self.dial_due(now);
        self.reserve_due(now);
        self.upgrade_due(now);
        self.close_retired(now);
        for peer in self.conduct.forgive(now) {
            self.swarm.behaviour_mut().blocked.unblock_peer(peer);
            self.swarm.behaviour_mut().gossip.set_application_score(&peer, 0.0);
        }
        self.rates.forget_idle(now);
        self.forget_served(now);
        if now.saturating_duration_since(self.collected) >= COLLECT_EVERY {
            self.collected = now;
            let blobs = self.blobs.clone();
            drop(tokio::task::spawn_blocking(move || blobs.collect_garbage()));
        }
    }

    fn request(&mut self, peer: &PeerId, request: PartRequest, reply: oneshot::Sender<Option<PartResponse>>) {
        // Callers that were cancelled have dropped their end.
        self.requests.retain(|_, reply| !reply.is_closed());
        if self.requests.len() >= REQUESTS_MAX {
            // The asker, if still there, tries another source.
            let _gone = reply.send(None);
            return;
        }
        let id = self.swarm.behaviour_mut().blobs.send_request(peer, request);
        self.requests.insert(id, reply);
    }

    fn on_blobs(&mut self, event: request_response::Event<PartRequest, PartResponse>) {
        use request_response::{Event, Message};
        match event {
            Event::Message { peer, message: Message::Request { request_id, request, channel }, .. } => {
                self.serve(request_id, peer, request, channel);
            }
            Event::Message { message: Message::Response { request_id, response }, .. } => {
                self.answer(&request_id, Some(response));
            }
            Event::OutboundFailure { request_id, error, peer, .. } => {
                tracing::debug!(peer = %peer, error = &error as &dyn std::error::Error, "blob request failed");
                if matches!(&error, request_response::OutboundFailure::Io(cause) if cause.kind() == std::io::ErrorKind::InvalidData)
                {
                    // More than was asked for, or no response at all.
                    self.note_offence(peer, Offence::WrongBytes);
                }
                self.answer(&request_id, None);
            }
            Event::InboundFailure { request_id, .. } | Event::ResponseSent { request_id, .. } => {
                self.served(request_id);
            }
        }
    }

    fn answer(&mut self, request: &OutboundRequestId, response: Option<PartResponse>) {
        if let Some(reply) = self.requests.remove(request) {
            // The asker may have been cancelled.
            let _gone = reply.send(response);
        }
    }

    /// Queues an event that is not gossip.
    fn notice(&mut self, event: NetEvent) {
        if self.notices.len() >= NOTICES_MAX {
            self.notices.pop_front();
        }
        self.notices.push_back(event);
        self.flush_notices();
    }

    fn flush_notices(&mut self) {
        while !self.notices.is_empty()
            && let Ok(permit) = self.events.try_reserve()
            && let Some(event) = self.notices.pop_front()
        {
            permit.send(event);
        }
    }
}

fn log_punch(event: &dcutr::Event) {
    match &event.result {
        Ok(_) => tracing::info!(peer = %event.remote_peer_id, "relayed connection upgraded to a direct one"),
        Err(error) => {
            let error = error as &dyn std::error::Error;
            tracing::info!(peer = %event.remote_peer_id, error, "relayed connection can't be upgraded so far, it stays");
        }
    }
}

/// Four seconds, doubling to five minutes: attempts cost a few packets, and a router that refused may be replaced.
fn upgrade_backoff() -> Backoff {
    #[expect(clippy::expect_used, reason = "the schedule is constant and valid, which every start checks")]
    Backoff::new(Duration::from_secs(4), Duration::from_secs(300), 200, 30).expect("the schedule is valid")
}

/// Half a second, doubling to 15 seconds: a local network forms at once, an absent peer costs little.
fn redial_backoff() -> Backoff {
    #[expect(clippy::expect_used, reason = "the schedule is constant and valid, which every start checks")]
    Backoff::new(Duration::from_millis(500), Duration::from_secs(15), 200, 30).expect("the schedule is valid")
}
