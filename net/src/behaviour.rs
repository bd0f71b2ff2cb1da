//! The libp2p behaviours that make up a node, and their limits.

mod gathered;
mod gossip;
mod nat;
mod read_ahead;

use std::time::Duration;

use libp2p::allow_block_list::{self, AllowedPeers, BlockedPeers};
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::core::upgrade;
use libp2p::identity::Keypair;
use libp2p::kad::store::MemoryStore;
use libp2p::request_response::{self, ProtocolSupport};
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{StreamProtocol, Swarm, SwarmBuilder, autonat, dcutr, identify, kad, memory_connection_limits, ping, relay, tcp};
use psyche_messages::Address;

use crate::error::{NetError, boxed};
use crate::transfer::{self, PartCodec};

use gathered::Gathered;
pub(crate) use gossip::{Gossip, SCORE_PER_POINT, topic_of};
use nat::Probing;
use read_ahead::ReadAhead;

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

/// Both sides may dial at once, by QUIC and TCP, while a relayed connection is replaced and an address is tried.
const CONNECTIONS_PER_PEER_MAX: u32 = 6;

/// Part of the machine's memory that this process may hold while it still takes on connections. Training holds most of it
/// rightly; this is the last stop before the system ends processes.
const MEMORY_SHARE_MAX: f64 = 0.95;

/// Handshakes under way at a time, for each direction.
const PENDING_MAX: u32 = 128;

/// A connection over which nothing happens is kept this long; members are re-dialled anyway.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// Before the version, and before the number of the start, in what a node calls itself.
const PROGRAM: &str = "psyche-solana-client/";
const LIFE: &str = " life/";

/// What a node does for others, and whom it admits.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Role {
    /// Only members, bootstrap peers and relays may connect.
    pub(crate) members_only: bool,
    /// It passes traffic on between members who can't reach each other directly.
    pub(crate) serves_relay: bool,
}

/// Parts of the node's behaviour.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    pub(crate) limits: connection_limits::Behaviour,
    pub(crate) memory: memory_connection_limits::Behaviour,
    pub(crate) blocked: allow_block_list::Behaviour<BlockedPeers>,
    pub(crate) allowed: Toggle<allow_block_list::Behaviour<AllowedPeers>>,
    pub(crate) gossip: Gossip,
    pub(crate) blobs: request_response::Behaviour<PartCodec>,
    pub(crate) identify: identify::Behaviour,
    pub(crate) kad: kad::Behaviour<MemoryStore>,
    pub(crate) ping: ping::Behaviour,
    pub(crate) relayed: relay::client::Behaviour,
    pub(crate) relay: Toggle<relay::Behaviour>,
    pub(crate) punch: dcutr::Behaviour,
    pub(crate) probing: Probing,
    pub(crate) probed: autonat::v2::server::Behaviour,
}

/// A swarm for the run, not listening yet.
pub(crate) fn build(keypair: Keypair, run_tag: &Address, role: Role) -> Result<Swarm<Behaviour>, NetError> {
    let setup = |part| move |source: Box<dyn std::error::Error + Send + Sync>| NetError::Setup { part, source };
    let gossip = gossip::build(&keypair, run_tag)?;
    let kad = kademlia(&keypair, run_tag)?;
    let swarm = SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), ReadAhead::new, Gathered::default)
        .map_err(|error| setup("noise")(boxed(error)))?
        .with_quic()
        .with_dns()
        .map_err(|error| setup("the name resolver")(boxed(error)))?
        .with_relay_client(ReadAhead::new, Gathered::default)
        .map_err(|error| setup("noise for relayed connections")(boxed(error)))?
        .with_behaviour(|keypair, relayed| behaviour(keypair, role, relayed, gossip, kad))
        .map_err(|error| setup("the behaviour")(boxed(error)))?
        .with_swarm_config(|config| {
            // A stream for one protocol is used at once instead of after a round trip that could only confirm it.
            config.with_idle_connection_timeout(IDLE_TIMEOUT).with_substream_upgrade_protocol_override(upgrade::Version::V1Lazy)
        })
        .build();
    Ok(swarm)
}

fn behaviour(
    keypair: &Keypair,
    role: Role,
    relayed: relay::client::Behaviour,
    gossip: Gossip,
    kad: kad::Behaviour<MemoryStore>,
) -> Behaviour {
    let id = keypair.public().to_peer_id();
    let limits = ConnectionLimits::default()
        .with_max_pending_incoming(Some(PENDING_MAX))
        .with_max_pending_outgoing(Some(PENDING_MAX))
        .with_max_established(Some(CONNECTIONS_MAX))
        .with_max_established_incoming(Some(CONNECTIONS_MAX * 3 / 4))
        .with_max_established_per_peer(Some(CONNECTIONS_PER_PEER_MAX));
    let blobs =
        request_response::Config::default().with_request_timeout(REQUEST_TIMEOUT).with_max_concurrent_streams(BLOB_STREAMS_MAX);
    let agent = agent(rand::random());
    let identify = identify::Config::new("/psyche-solana-client/1".to_owned(), keypair.public())
        .with_agent_version(agent)
        .with_push_listen_addr_updates(true);
    Behaviour {
        limits: connection_limits::Behaviour::new(limits),
        memory: memory_connection_limits::Behaviour::with_max_percentage(MEMORY_SHARE_MAX),
        blocked: allow_block_list::Behaviour::default(),
        allowed: role.members_only.then(allow_block_list::Behaviour::default).into(),
        gossip,
        blobs: request_response::Behaviour::new([(transfer::PROTOCOL, ProtocolSupport::Full)], blobs),
        identify: identify::Behaviour::new(identify),
        kad,
        ping: ping::Behaviour::new(ping::Config::new().with_interval(PING_EVERY).with_timeout(PING_TIMEOUT)),
        relayed,
        relay: role.serves_relay.then(|| nat::relay(id)).into(),
        punch: dcutr::Behaviour::new(id),
        probing: Probing::default(),
        probed: autonat::v2::server::Behaviour::default(),
    }
}

/// What a node calls itself: program, version, and a number of its own for every time that it starts.
fn agent(life: u64) -> String {
    format!("{PROGRAM}{}{LIFE}{life:016x}", env!("CARGO_PKG_VERSION"))
}

/// The number of a start in what a peer calls itself, if it is of our kind.
pub(crate) fn life_of(agent: &str) -> Option<u64> {
    let (_, life) = agent.strip_prefix(PROGRAM)?.split_once(LIFE)?;
    u64::from_str_radix(life, 16).ok().filter(|_| life.len() == 16)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_start_is_found_in_what_a_node_calls_itself_and_nowhere_else() {
        for life in [0, 1, u64::MAX] {
            assert_eq!(life_of(&agent(life)), Some(life));
        }
        let odd = ["", "psyche-solana-client/0.1.0", "other/0.1.0 life/0000000000000001", "psyche-solana-client/0.1.0 life/1"];
        let long = format!("{PROGRAM}0.1.0{LIFE}{}", "0".repeat(1 << 16));
        assert!(odd.into_iter().chain([long.as_str()]).all(|agent| life_of(agent).is_none()));
    }
}
