//! Where an address leads, and to whom it is of use: nobody needs the private addresses of another site.

use std::net::{Ipv4Addr, Ipv6Addr};

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

/// How far an address reaches, the narrowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    /// The machine itself.
    Machine,
    /// A site: private, link-local and carriers' networks.
    Site,
    /// Everywhere; also names, and whatever is reached through a relay.
    World,
}

impl Scope {
    /// How far `address` reaches.
    pub(crate) fn of(address: &Multiaddr) -> Self {
        match address.iter().next() {
            Some(Protocol::Ip4(ip)) => of_ip4(ip),
            Some(Protocol::Ip6(ip)) => of_ip6(ip),
            _ => Self::World,
        }
    }

    /// Whether `address` may lead to its owner from here, when it was told over a connection of this scope: a private address is
    /// of use only to those who share the network.
    pub(crate) fn admits(self, address: &Multiaddr) -> bool {
        !is_unspecified(address) && Self::of(address) >= self
    }
}

/// Whether an address leads through a relay.
pub(crate) fn is_relayed(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::P2pCircuit)
}

fn of_ip4(ip: Ipv4Addr) -> Scope {
    let [first, second, ..] = ip.octets();
    // 100.64.0.0/10 is what carriers number their customers' routers with (RFC 6598).
    let carrier = first == 100 && second & 0xc0 == 64;
    if ip.is_loopback() {
        Scope::Machine
    } else if ip.is_private() || ip.is_link_local() || carrier {
        Scope::Site
    } else {
        Scope::World
    }
}

fn of_ip6(ip: Ipv6Addr) -> Scope {
    if let Some(ip) = ip.to_ipv4_mapped() {
        of_ip4(ip)
    } else if ip.is_loopback() {
        Scope::Machine
    } else if ip.is_unique_local() || ip.is_unicast_link_local() {
        Scope::Site
    } else {
        Scope::World
    }
}

fn is_unspecified(address: &Multiaddr) -> bool {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => ip.is_unspecified(),
        Some(Protocol::Ip6(ip)) => ip.is_unspecified(),
        None => true,
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use super::*;

    #[test]
    fn addresses_reach_as_far_as_their_networks() {
        for (text, scope) in [
            ("/ip4/127.0.0.1/tcp/1", Scope::Machine),
            ("/ip6/::1/udp/1/quic-v1", Scope::Machine),
            ("/ip4/10.1.2.3/tcp/1", Scope::Site),
            ("/ip4/172.31.0.1/tcp/1", Scope::Site),
            ("/ip4/192.168.0.1/tcp/1", Scope::Site),
            ("/ip4/169.254.0.1/tcp/1", Scope::Site),
            ("/ip4/100.64.0.1/tcp/1", Scope::Site),
            ("/ip4/100.128.0.1/tcp/1", Scope::World),
            ("/ip6/fd00::1/tcp/1", Scope::Site),
            ("/ip6/fe80::1/tcp/1", Scope::Site),
            ("/ip6/::ffff:10.0.0.1/tcp/1", Scope::Site),
            ("/ip6/2a01::1/tcp/1", Scope::World),
            ("/ip4/203.0.113.1/tcp/1", Scope::World),
            ("/dns4/node.example/tcp/1", Scope::World),
        ] {
            assert_eq!(Scope::of(&text.parse().unwrap()), scope, "{text}");
        }
    }

    #[test]
    fn private_addresses_are_of_use_only_to_those_who_share_the_network() {
        let [machine, site, world, nowhere] =
            ["/ip4/127.0.0.1/tcp/1", "/ip4/10.0.0.1/tcp/1", "/ip4/203.0.113.1/tcp/1", "/ip4/0.0.0.0/tcp/1"]
                .map(|text| text.parse::<Multiaddr>().unwrap());
        let told = |over: Scope| [&machine, &site, &world, &nowhere].map(|address| over.admits(address));
        assert_eq!(told(Scope::Machine), [true, true, true, false]);
        assert_eq!(told(Scope::Site), [false, true, true, false]);
        assert_eq!(told(Scope::World), [false, false, true, false]);
        assert!(!Scope::Machine.admits(&Multiaddr::empty()));
    }
}
