//! The port for peers, and whether they reach it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use psyche_actors::NodeConfig;
use psyche_messages::Address;
use psyche_net::{Net, NetHandle};
use tokio::time::{Instant, sleep, timeout};

use super::{Line, Verdict};
use crate::exit::{Exit, Failure};

/// How long peers have to say whether they reach this node.
const REACHED_WITHIN: Duration = Duration::from_secs(6);
/// How often it is looked whether they have.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long the network may take to close.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);
/// Where packets to the world leave from tells which address is ours; none is sent. Reserved for documentation (RFC 5737).
const WORLD: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);

/// Whether the port can be listened on, by TCP and UDP.
pub(super) fn check(config: &NodeConfig) -> Line {
    let at = SocketAddr::new(config.p2p.bind, config.p2p.port);
    let tried = TcpListener::bind(at).map_err(|error| ("TCP", error)).map(drop);
    match tried.and_then(|()| UdpSocket::bind(at).map_err(|error| ("UDP", error)).map(drop)) {
        Ok(()) if config.p2p.port == 0 => {
            Line::fine("port", format!("any free port of {} will do (P2P_PORT is not set)", config.p2p.bind))
        }
        Ok(()) => Line::fine("port", format!("{at} is free, for TCP and UDP")),
        Err((kind, error)) => Line::failed(
            "port",
            Exit::Port,
            format!("failed to listen on {at} for peers by {kind}: {error}"),
            "set P2P_PORT to a free port and P2P_BIND to an address of this machine",
        ),
    }
}

/// As `train` says it, before it does anything else.
///
/// # Errors
/// A [`Failure`] if the port can't be listened on.
pub(crate) fn refuse(config: &NodeConfig) -> Result<(), Failure> {
    let line = check(config);
    match line.exit {
        Some(exit) => Err(Failure::new(exit, line.sentence())),
        None => Ok(()),
    }
}

/// Whether peers reach this node, as far as that can be known: without `run` nobody is asked.
pub(super) async fn nat(config: &NodeConfig, run: Option<Address>) -> Vec<Line> {
    if !config.p2p.external.is_empty() {
        let words = format!("peers are told {} (P2P_EXTERNAL)", config.p2p.external.join(", "));
        return vec![Line::fine("nat", words)];
    }
    let own = own_address(config.p2p.bind);
    if let Some(own) = own.filter(|own| is_public(*own)) {
        let words = format!("{own} is a public address: there is no NAT, only a firewall could keep peers out");
        return vec![Line::fine("nat", words)];
    }
    let own = own.map_or_else(
        || "this machine has no address that leads outside".to_owned(),
        |own| format!("{own} is no public address"),
    );
    let asks = !config.p2p.bootstrap.is_empty() || !config.p2p.relays.is_empty();
    let why = match run {
        _ if !asks => "there is nobody to ask: neither BOOTSTRAP_PEERS nor P2P_RELAY is set",
        None => "the run, the data folder or the port can't be used",
        Some(run) => return vec![ask_peers(config, run, &own).await],
    };
    let mut line = Line::not_checked("nat", format!("{own}; not checked: whether peers reach it from outside, since {why}"));
    line.remedy = Some("set P2P_EXTERNAL where a router forwards the port, or P2P_RELAY where none does".to_owned());
    vec![line]
}

/// Where packets to the world leave from; the address to listen on, where one is set.
fn own_address(bind: IpAddr) -> Option<IpAddr> {
    if !bind.is_unspecified() {
        return Some(bind);
    }
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(WORLD).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

/// Whether an address is one of the world's.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let carrier = a == 100 && (64..128).contains(&b);
            let special = ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_unspecified();
            !(special || carrier || ip.is_documentation() || ip.is_multicast() || ip.is_broadcast())
        }
        IpAddr::V6(ip) => ip.segments()[0] & 0xe000 == 0x2000,
    }
}

/// Joins the network for a moment: peers that this node reaches try to dial it back.
async fn ask_peers(config: &NodeConfig, run: Address, own: &str) -> Line {
    let mut net = psyche_actors::node::net_config(config, run);
    // Nothing of it is needed again: it goes with `folder`.
    let folder = match tempfile::tempdir() {
        Ok(folder) => folder,
        Err(error) => {
            return Line::not_checked("nat", format!("{own}; not checked: failed to make a temporary folder: {error}"));
        }
    };
    net.blob_dir = folder.path().to_path_buf();
    let started = Net::start(net).await;
    match started {
        Err(error) => {
            let words = format!("{own}; not checked: failed to {}", psyche_actors::chain_of(&error));
            Line::not_checked("nat", words)
        }
        Ok((handle, events)) => {
            let line = reached(&handle, own).await;
            let _closed = timeout(CLOSE_WITHIN, handle.shutdown()).await;
            drop(events);
            line
        }
    }
}

async fn reached(handle: &NetHandle, own: &str) -> Line {
    let until = Instant::now() + REACHED_WITHIN;
    let mut most = 0;
    while Instant::now() < until {
        let presence = handle.presence();
        most = most.max(presence.peers.len());
        if let Some(external) = presence.external.first() {
            let relayed = external.contains("/p2p-circuit");
            return if relayed {
                Line::fine("nat", format!("{own}; peers reach this node through a relay"))
            } else {
                Line::fine("nat", format!("{own}; peers reach this node from outside at {external}"))
            };
        }
        sleep(LOOK_EVERY).await;
    }
    let remedy = "forward P2P_PORT in the router and set P2P_EXTERNAL, or set P2P_RELAY";
    if most > 0 {
        let words = format!("{own}; {most} peers are connected, and none has reached this node from outside within 6 s");
        return Line::warning("nat", words, remedy);
    }
    let mut line = Line::not_checked(
        "nat",
        format!(
            "{own}; not checked: no bootstrap peer or relay talked to this node within 6 s, as they do once it is a member"
        ),
    );
    line.remedy = Some(remedy.to_owned());
    debug_assert!(line.verdict == Verdict::NotChecked);
    line
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use super::*;

    #[test]
    fn private_shared_and_local_addresses_are_not_public() {
        for text in
            ["10.0.0.1", "100.64.0.1", "127.0.0.1", "169.254.1.1", "192.168.1.1", "203.0.113.7", "::1", "fd00::1", "fe80::1"]
        {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
        for text in ["1.1.1.1", "100.128.0.1", "2606:4700::1111"] {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
    }
}
