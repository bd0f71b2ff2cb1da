//! What a node needs to know to take part in a run's network.

use std::path::PathBuf;
use std::time::Duration;

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use psyche_messages::{Address, Secret};

use crate::error::NetError;
use crate::identity::peer_key_of_id;
use crate::scope::is_relayed;

/// Most bootstrap addresses.
const BOOTSTRAP_MAX: usize = 64;

/// Most addresses of relays: a member behind NAT is dialled through each of them.
pub const RELAYS_MAX: usize = 8;

/// Configuration of the network; [`NetConfig::new`] fills in what has a default.
#[derive(Clone, Debug)]
pub struct NetConfig {
    /// Seed of the ed25519 key whose public half the roster on chain holds.
    pub identity_seed: Secret<[u8; 32]>,
    /// The run: its coordinator account. Nodes of different runs never mix.
    pub run_tag: Address,
    /// Multiaddresses to listen on; port 0 lets the system choose.
    pub listen: Vec<String>,
    /// Multiaddresses under which others reach this node although it can't see them itself (behind NAT).
    pub external: Vec<String>,
    /// Multiaddresses of peers to start from, each ending in `/p2p/` and the peer's id. Any member can serve as one.
    pub bootstrap: Vec<String>,
    /// Multiaddresses of relays through which this node is reached, and reaches others, where NAT is in the way; each ends in
    /// `/p2p/` and the relay's id. They stay connected whether they are members or not.
    pub relays: Vec<String>,
    /// Whether this node is such a relay for the members of the run. It must be reachable itself, by a confirmed address or one
    /// of [`NetConfig::external`].
    pub serves_relay: bool,
    /// Directory of the blob store; it belongs to this node alone.
    pub blob_dir: PathBuf,
    /// Quota of the blob store in bytes.
    pub blob_bytes_max: u64,
    /// How long an unclaimed blob stays after its last use.
    pub blob_ttl: Duration,
    /// Length of every payload in bytes, which follows from model and optimiser: whoever announces one of another length has
    /// misbehaved. Not checked where it is not known.
    pub payload_len: Option<u32>,
    /// Whether connections of peers other than members and bootstrap peers are refused.
    pub members_only: bool,
}

impl NetConfig {
    /// The configuration of a node of run `run_tag` that listens on all interfaces by QUIC and TCP at `port` (0: the system
    /// chooses), refuses strangers, and keeps up to 16 GiB of blobs in `blob_dir`, unclaimed ones for an hour.
    #[must_use]
    pub fn new(identity_seed: Secret<[u8; 32]>, run_tag: Address, blob_dir: PathBuf, port: u16) -> Self {
        Self {
            identity_seed,
            run_tag,
            listen: vec![format!("/ip4/0.0.0.0/udp/{port}/quic-v1"), format!("/ip4/0.0.0.0/tcp/{port}")],
            external: Vec::new(),
            bootstrap: Vec::new(),
            relays: Vec::new(),
            serves_relay: false,
            blob_dir,
            blob_bytes_max: 16 << 30,
            blob_ttl: Duration::from_secs(3600),
            payload_len: None,
            members_only: true,
        }
    }

    /// Whether `address` is a multiaddress that ends in `/p2p/` and an ed25519 peer's id, for checks before a start.
    ///
    /// # Errors
    /// [`NetError::Address`] or [`NetError::BootstrapPeer`] if not.
    pub fn check_bootstrap(address: &str) -> Result<(), NetError> {
        parse_bootstrap(address).map(|_| ())
    }

    /// Whether `address` is one of a relay, for checks before a start.
    ///
    /// # Errors
    /// As [`NetConfig::check_bootstrap`]; also if the address leads through another relay.
    pub fn check_relay(address: &str) -> Result<(), NetError> {
        parse_relay(address).map(|_| ())
    }

    /// Whether `address` is a multiaddress under which a node may be reached, for checks before a start.
    ///
    /// # Errors
    /// [`NetError::Address`] if not.
    pub fn check_external(address: &str) -> Result<(), NetError> {
        parse_address(address).map(|_| ())
    }

    pub(crate) fn parse(&self) -> Result<Addresses, NetError> {
        if self.listen.is_empty() {
            return Err(NetError::NoListenAddress);
        }
        for (what, count) in [
            ("listen addresses", self.listen.len()),
            ("external addresses", self.external.len()),
            ("bootstrap addresses", self.bootstrap.len()),
            ("relay addresses", self.relays.len()),
        ] {
            let count_max = if what == "relay addresses" { RELAYS_MAX } else { BOOTSTRAP_MAX };
            if count > count_max {
                return Err(NetError::TooMany { what, count, count_max });
            }
        }
        Ok(Addresses {
            listen: self.listen.iter().map(|text| parse_address(text)).collect::<Result<_, _>>()?,
            external: self.external.iter().map(|text| parse_address(text)).collect::<Result<_, _>>()?,
            bootstrap: self.bootstrap.iter().map(|text| parse_bootstrap(text)).collect::<Result<_, _>>()?,
            relays: self.relays.iter().map(|text| parse_relay(text)).collect::<Result<_, _>>()?,
        })
    }
}

/// The configured addresses, parsed.
pub(crate) struct Addresses {
    pub(crate) listen: Vec<Multiaddr>,
    pub(crate) external: Vec<Multiaddr>,
    pub(crate) bootstrap: Vec<(PeerId, Multiaddr)>,
    pub(crate) relays: Vec<(PeerId, Multiaddr)>,
}

fn parse_address(text: &str) -> Result<Multiaddr, NetError> {
    text.parse().map_err(|source| NetError::Address { address: text.to_owned(), source })
}

fn parse_bootstrap(text: &str) -> Result<(PeerId, Multiaddr), NetError> {
    let mut address = parse_address(text)?;
    match address.pop() {
        Some(Protocol::P2p(peer)) if !address.is_empty() && peer_key_of_id(&peer).is_some() => Ok((peer, address)),
        _ => Err(NetError::BootstrapPeer { address: text.to_owned() }),
    }
}

fn parse_relay(text: &str) -> Result<(PeerId, Multiaddr), NetError> {
    let (peer, address) = parse_bootstrap(text)?;
    if is_relayed(&address) {
        return Err(NetError::BootstrapPeer { address: text.to_owned() });
    }
    Ok((peer, address))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use super::*;
    use crate::identity::{peer_id_of, peer_key_of};

    #[test]
    fn bootstrap_addresses_must_name_an_ed25519_peer() {
        let id = peer_id_of(&peer_key_of(&Secret::new([1; 32]))).unwrap();
        assert!(NetConfig::check_bootstrap(&format!("/ip4/10.0.0.1/udp/4001/quic-v1/p2p/{id}")).is_ok());
        assert!(NetConfig::check_bootstrap(&format!("/dns4/boot.example/tcp/4001/p2p/{id}")).is_ok());
        for bad in ["/ip4/10.0.0.1/tcp/4001".to_owned(), format!("/p2p/{id}"), String::new()] {
            assert!(matches!(NetConfig::check_bootstrap(&bad), Err(NetError::BootstrapPeer { .. })), "{bad}");
        }
        let behind = format!("/ip4/10.0.0.1/tcp/4001/p2p/{id}/p2p-circuit/p2p/{id}");
        assert!(NetConfig::check_bootstrap(&behind).is_ok());
        assert!(matches!(NetConfig::check_relay(&behind), Err(NetError::BootstrapPeer { .. })));
        assert!(NetConfig::check_relay(&format!("/ip4/10.0.0.1/tcp/4001/p2p/{id}")).is_ok());
        assert!(matches!(NetConfig::check_bootstrap("boot.example:4001"), Err(NetError::Address { .. })));
        let random = format!("/ip4/10.0.0.1/tcp/4001/p2p/{}", PeerId::random());
        assert!(matches!(NetConfig::check_bootstrap(&random), Err(NetError::BootstrapPeer { .. })));
    }
}
