//! The network between the hosts, decided: which frame is lost, which is dropped for want of room, and when each of the others
//! arrives. Pure: time comes in, frames come out ([`super::wire`] moves them).
//!
//! Every host has a port. Between two of them a frame takes [`Shape::delay_ns`], is lost with [`Shape::loss_per_million`], and
//! leaves at the rate of the receiver's downlink (uplinks are the kernel's `tbf`). A *near* port is a provider next door: what
//! goes to or comes from it passes at once.

use std::collections::VecDeque;

use super::seeded::Seeded;

#[cfg(test)]
mod tests;

/// Bytes of the header that starts every frame: receiver, sender, type.
const HEADER: usize = 14;
/// How long a downlink may be behind before it drops what comes.
const BACKLOG_NS_MAX: u64 = 100_000_000;
/// Most frames that wait for a near port, or by it.
const NEAR_MAX: usize = 4096;

/// What lies between two hosts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// From one host to the other, in nanoseconds: half of the round trip.
    pub(crate) delay_ns: u64,
    /// Frames lost of a million, in each direction.
    pub(crate) loss_per_million: u32,
    /// A host's downlink, in bits a second.
    pub(crate) rate_bits: u64,
}

/// What became of the frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Counts {
    /// Frames between two hosts that were handed over.
    pub(crate) carried: u64,
    /// Their bytes.
    pub(crate) carried_bytes: u64,
    /// Lost by chance.
    pub(crate) lost: u64,
    /// Dropped because a downlink was too far behind.
    pub(crate) overflowed: u64,
    /// Handed over to or from a near port.
    pub(crate) near: u64,
}

#[derive(Debug, Default)]
struct Port {
    near: bool,
    /// When the downlink has passed everything that was given to it.
    free_at_ns: u64,
    /// What is on its way, in order of arrival.
    far: VecDeque<(u64, Vec<u8>)>,
    at_once: VecDeque<Vec<u8>>,
}

/// The hosts' ports and what is on its way between them.
#[derive(Debug)]
pub(crate) struct Bridge {
    ports: Vec<Port>,
    shape: Shape,
    chance: Seeded,
    counts: Counts,
}

impl Bridge {
    /// A bridge with a port for each of `near`, told by whether it is one.
    pub(crate) fn new(near: &[bool], shape: Shape, seed: u64) -> Self {
        let ports = near.iter().map(|near| Port { near: *near, ..Port::default() }).collect();
        Self { ports, shape, chance: Seeded::new(seed), counts: Counts::default() }
    }

    pub(crate) const fn counts(&self) -> Counts {
        self.counts
    }

    /// The hardware address of the host at `port`; the last byte tells the port.
    pub(crate) fn address(port: u8) -> [u8; 6] {
        [2, 0, 0, 0, 0, port + 1]
    }

    /// Takes a frame that the host at `from` sends. One that is no frame, or is for nobody here, is nobody's.
    pub(crate) fn take(&mut self, now_ns: u64, from: usize, frame: &[u8]) {
        let Some(receiver) = frame.get(..6).filter(|_| frame.len() >= HEADER) else { return };
        // Broadcasts and multicasts have the lowest bit of the first byte set.
        let to_all = receiver[0] & 1 == 1;
        for port in 0..self.ports.len() {
            let addressed = u8::try_from(port).is_ok_and(|number| receiver == Self::address(number));
            if port != from && (to_all || addressed) {
                self.send(now_ns, from, port, frame);
            }
        }
    }

    fn send(&mut self, now_ns: u64, from: usize, to: usize, frame: &[u8]) {
        if self.ports[from].near || self.ports[to].near {
            let port = &mut self.ports[to];
            if port.at_once.len() < NEAR_MAX {
                port.at_once.push_back(frame.to_vec());
            } else {
                self.counts.overflowed += 1;
            }
            return;
        }
        if self.chance.below(1_000_000) < u64::from(self.shape.loss_per_million) {
            self.counts.lost += 1;
            return;
        }
        let port = &mut self.ports[to];
        let arrives_ns = now_ns + self.shape.delay_ns;
        let begins_ns = arrives_ns.max(port.free_at_ns);
        if begins_ns - arrives_ns > BACKLOG_NS_MAX {
            self.counts.overflowed += 1;
            return;
        }
        let takes_ns = frame.len() as u64 * 8 * 1_000_000_000 / self.shape.rate_bits;
        port.free_at_ns = begins_ns + takes_ns;
        port.far.push_back((port.free_at_ns, frame.to_vec()));
    }

    /// The next frame that has arrived by now, with the port that gets it.
    pub(crate) fn due(&mut self, now_ns: u64) -> Option<(usize, Vec<u8>)> {
        for (number, port) in self.ports.iter_mut().enumerate() {
            if let Some(frame) = port.at_once.pop_front() {
                self.counts.near += 1;
                return Some((number, frame));
            }
            if port.far.front().is_some_and(|(at, _)| *at <= now_ns)
                && let Some((_, frame)) = port.far.pop_front()
            {
                self.counts.carried += 1;
                self.counts.carried_bytes += frame.len() as u64;
                return Some((number, frame));
            }
        }
        None
    }

    /// When the next frame arrives.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        self.ports.iter().filter_map(|port| port.far.front().map(|(at, _)| *at)).min()
    }
}
