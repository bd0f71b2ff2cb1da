//! The libp2p behaviours that make up a node, and their limits.

use std::collections::HashSet;
use std::time::Duration;

use libp2p::allow_block_list::{self, AllowedPeers, BlockedPeers};
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::gossipsub::{
    self, IdentTopic, IdentityTransform, MessageAuthenticity, ValidationMode, WhitelistSubscriptionFilter,
};
use libp2p::identity::Keypair;
use libp2p::kad::store::MemoryStore;
use libp2p::request_response::{self, ProtocolSupport};
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{StreamProtocol, Swarm, SwarmBuilder, identify, kad, noise, ping, tcp, yamux};
use psyche_messages::Address;

use crate::error::{NetError, boxed};
use crate::transfer::{self, RangeCodec};
use crate::wire::ENVELOPE_BYTES_MAX;

/// Room that gossip's own fields (source, key, signature, topic) take beside an envelope.
const GOSSIP_FRAME_BYTES: usize = 1024;

/// What gossip may have buffered of a stream.
const GOSSIP_BUFFER_BYTES: usize = 64 * 1024;

/// A range request that takes longer counts as failed. All transfers together have 8 MiB under way, which half a megabyte a
/// second brings in time.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// How often connections are tried, and how long an answer may take.
const PING_EVERY: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Streams of the blob protocol at a time on a connection, in both directions.
const BLOB_STREAMS_MAX: usize = 128;

/// Connections in all: every member of a full epoch, and strangers that knock.
const CONNECTIONS_MAX: u32 = 512;

/// Both sides may dial at once, by QUIC and TCP.
const CONNECTIONS_PER_PEER_MAX: u32 = 4;

/// Handshakes under way at a time, for each direction.
const PENDING_MAX: u32 = 128;

/// A connection over which nothing happens is kept this long; members are re-dialled anyway.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// Gossip in which peers can subscribe to the run's topic only.
pub(crate) type Gossip = gossipsub::Behaviour<IdentityTransform, WhitelistSubscriptionFilter>;

/// Parts of the node's behaviour.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    pub(crate) limits: connection_limits::Behaviour,
    pub(crate) blocked: allow_block_list::Behaviour<BlockedPeers>,
    pub(crate) allowed: Toggle<allow_block_list::Behaviour<AllowedPeers>>,
    pub(crate) gossip: Gossip,
    pub(crate) blobs: request_response::Behaviour<RangeCodec>,
    pub(crate) identify: identify::Behaviour,
    pub(crate) kad: kad::Behaviour<MemoryStore>,
    pub(crate) ping: ping::Behaviour,
}

/// The topic of a run.
pub(crate) fn topic_of(run_tag: &Address) -> IdentTopic {
    IdentTopic::new(format!("psyche-solana-client/round/1/{run_tag}"))
}

/// A swarm for the run, not listening yet.
pub(crate) fn build(keypair: Keypair, run_tag: &Address, members_only: bool) -> Result<Swarm<Behaviour>, NetError> {
    let setup = |part| move |source: Box<dyn std::error::Error + Send + Sync>| NetError::Setup { part, source };
    let behaviour = behaviour(&keypair, run_tag, members_only)?;
    let swarm = SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
        .map_err(|error| setup("noise")(boxed(error)))?
        .with_quic()
        .with_dns()
        .map_err(|error| setup("the name resolver")(boxed(error)))?
        .with_behaviour(|_| behaviour)
        .map_err(|error| setup("the behaviour")(boxed(error)))?
        .with_swarm_config(|config| config.with_idle_connection_timeout(IDLE_TIMEOUT))
        .build();
    Ok(swarm)
}

fn behaviour(keypair: &Keypair, run_tag: &Address, members_only: bool) -> Result<Behaviour, NetError> {
    let limits = ConnectionLimits::default()
        .with_max_pending_incoming(Some(PENDING_MAX))
        .with_max_pending_outgoing(Some(PENDING_MAX))
        .with_max_established(Some(CONNECTIONS_MAX))
        .with_max_established_incoming(Some(CONNECTIONS_MAX * 3 / 4))
        .with_max_established_per_peer(Some(CONNECTIONS_PER_PEER_MAX));
    let blobs =
        request_response::Config::default().with_request_timeout(REQUEST_TIMEOUT).with_max_concurrent_streams(BLOB_STREAMS_MAX);
    let agent = concat!("psyche-solana-client/", env!("CARGO_PKG_VERSION")).to_owned();
    let identify = identify::Config::new("/psyche-solana-client/1".to_owned(), keypair.public())
        .with_agent_version(agent)
        .with_push_listen_addr_updates(true);
    Ok(Behaviour {
        limits: connection_limits::Behaviour::new(limits),
        blocked: allow_block_list::Behaviour::default(),
        allowed: members_only.then(allow_block_list::Behaviour::default).into(),
        gossip: gossip(keypair, run_tag)?,
        blobs: request_response::Behaviour::new([(transfer::PROTOCOL, ProtocolSupport::Full)], blobs),
        identify: identify::Behaviour::new(identify),
        kad: kademlia(keypair, run_tag)?,
        ping: ping::Behaviour::new(ping::Config::new().with_interval(PING_EVERY).with_timeout(PING_TIMEOUT)),
    })
}

fn gossip(keypair: &Keypair, run_tag: &Address) -> Result<Gossip, NetError> {
    let setup = |source| NetError::Setup { part: "gossip", source };
    let topic = topic_of(run_tag);
    let config = gossipsub::ConfigBuilder::default()
        .validation_mode(ValidationMode::Strict)
        .validate_messages()
        // The bound for a message is set by topic. The general one must stay far above it: gossipsub compares it with all that
        // is buffered, and drops the stream when several honest messages arrive in one piece.
        .max_transmit_size(GOSSIP_BUFFER_BYTES)
        .max_transmit_size_for_topic(ENVELOPE_BYTES_MAX + GOSSIP_FRAME_BYTES, topic.hash())
        .heartbeat_initial_delay(Duration::from_millis(100))
        .heartbeat_interval(Duration::from_millis(500))
        .flood_publish(true)
        // Bounds on what one peer makes this node remember or send.
        .max_publish_messages(256)
        .max_control_messages_sent(1024)
        .connection_handler_queue_len(1024)
        .build()
        .map_err(|error| setup(boxed(error)))?;
    let filter = WhitelistSubscriptionFilter(HashSet::from([topic.hash()]));
    let authenticity = MessageAuthenticity::Signed(keypair.clone());
    let mut gossip = Gossip::new_with_subscription_filter(authenticity, config, filter).map_err(|error| setup(boxed(error)))?;
    gossip.subscribe(&topic).map_err(|error| setup(boxed(error)))?;
    Ok(gossip)
}

fn kademlia(keypair: &Keypair, run_tag: &Address) -> Result<kad::Behaviour<MemoryStore>, NetError> {
    let protocol = StreamProtocol::try_from_owned(format!("/psyche-solana-client/kad/1/{run_tag}"))
        .map_err(|error| NetError::Setup { part: "discovery", source: boxed(error) })?;
    let mut config = kad::Config::new(protocol);
    // Only peers' addresses are looked up; nobody stores records here.
    config.set_record_filtering(kad::StoreInserts::FilterBoth);
    config.set_query_timeout(Duration::from_secs(20));
    config.set_periodic_bootstrap_interval(Some(Duration::from_secs(60)));
    let id = keypair.public().to_peer_id();
    let mut kad = kad::Behaviour::with_config(id, MemoryStore::new(id), config);
    // Every node answers, also behind addresses that nobody has confirmed.
    kad.set_mode(Some(kad::Mode::Server));
    Ok(kad)
}
