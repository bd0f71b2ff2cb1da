//! The port for peers, and whether they reach it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use psyche_actors::NodeConfig;
use psyche_messages::Address;
use psyche_net::{EventReceiver, Net, NetEvent, NetHandle};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::Line;
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
        Ok((handle, mut events)) => {
            let line = reached(&handle, &mut events, own).await;
            let _closed = timeout(CLOSE_WITHIN, handle.shutdown()).await;
            line
        }
    }
}

/// Waits until peers say whether they reach this node, or some time has passed.
async fn reached(handle: &NetHandle, events: &mut EventReceiver, own: &str) -> Line {
    let until = Instant::now() + REACHED_WITHIN;
    let mut answered = BTreeSet::new();
    loop {
        if let Some(external) = handle.presence().external.first() {
            let relayed = external.contains("/p2p-circuit");
            return if relayed {
                Line::fine("nat", format!("{own}; peers reach this node through a relay"))
            } else {
                Line::fine("nat", format!("{own}; peers reach this node from outside at {external}"))
            };
        }
        tokio::select! {
            event = events.recv() => match event {
                Some(NetEvent::PeerConnected(peer)) => _ = answered.insert(peer),
                Some(_) => {}
                None => break,
            },
            () = sleep(LOOK_EVERY) => {}
            () = sleep_until(until) => break,
        }
    }
    unreached(own, answered.len(), handle.presence().peers.len())
}

/// What can be said where nobody has reached this node: so many peers took its call, and so many still talk to it.
fn unreached(own: &str, answered: usize, connected: usize) -> Line {
    let within = REACHED_WITHIN.as_secs();
    let remedy = "forward P2P_PORT in the router and set P2P_EXTERNAL, or set P2P_RELAY";
    if connected > 0 {
        let words =
            format!("{own}; {connected} peers are connected, and none has reached this node from outside within {within} s");
        return Line::warning("nat", words, remedy);
    }
    if answered == 0 {
        let words = format!("{own}; no bootstrap peer or relay took a call within {within} s");
        return Line::warning("nat", words, "check BOOTSTRAP_PEERS and P2P_RELAY, and that TCP and UDP may leave this machine");
    }
    let words = format!(
        "{own}; unknown until a peer answers: {answered} took this node's call, so that it gets out, and hung up, as they do \
         before a wallet is a member of the run"
    );
    let mut line = Line::not_checked("nat", words);
    line.remedy =
        Some(format!("look again once the node is up (psyche-solana-client status); if it has no peers then, {remedy}"));
    line
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use super::*;
    use crate::doctor::Verdict;

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

    /// A node of the run with the account `run` that lets in only members, of whom there are none.
    async fn closed_peer(folder: &std::path::Path, run: Address) -> (NetHandle, EventReceiver, String) {
        let mut config = psyche_net::NetConfig::new(psyche_messages::Secret::new([7; 32]), run, folder.to_path_buf(), 0);
        config.listen = vec!["/ip4/127.0.0.1/udp/0/quic-v1".to_owned()];
        let (handle, events) = Net::start(config).await.unwrap();
        let mut presence = handle.watch_presence();
        let ready = presence.wait_for(|presence| presence.ready).await.unwrap().listening[0].clone();
        (handle, events, ready)
    }

    /// The configuration of a new wallet.
    fn config(folder: &std::path::Path, bootstrap: &str) -> NodeConfig {
        let (key, data) = (folder.join("id.json"), folder.join("data").display().to_string());
        psyche_chain::Wallet::new().save(&key).unwrap();
        let key = key.display().to_string();
        let variables = [
            ("RPC", "http://127.0.0.1:9"),
            ("RUN_ID", "run"),
            ("WALLET_PRIVATE_KEY_PATH", &key),
            ("P2P_BIND", "127.0.0.1"),
            ("BOOTSTRAP_PEERS", bootstrap),
            ("DATA_DIR", &data),
        ];
        NodeConfig::from_variables(variables.map(|(name, value)| (name.to_owned(), value.to_owned()))).unwrap()
    }

    #[tokio::test]
    async fn a_wallet_that_is_no_member_hears_what_is_known_and_that_the_rest_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let run = Address([3; 32]);
        let (peer, _events, at) = closed_peer(&folder.path().join("peer"), run).await;
        let config = config(folder.path(), &at);
        let line = nat(&config, Some(run)).await.remove(0);
        assert!(line.verdict == Verdict::NotChecked && line.exit_code == 0, "{line:?}");
        assert!(line.result.contains("unknown until a peer answers: 1 took this node's call"), "{line:?}");
        // The same address, at which nobody listens any more.
        peer.shutdown().await;
        let line = nat(&config, Some(run)).await.remove(0);
        assert!(line.verdict == Verdict::Warning && line.result.contains("took a call within"), "{line:?}");
        assert!(line.remedy.is_some_and(|remedy| remedy.contains("BOOTSTRAP_PEERS")));
    }
}
