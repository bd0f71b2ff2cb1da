//! Who misbehaved, and who is kept out for it. Pure: the caller brings the time, and closes and refuses connections.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Points at which a peer is kept out.
const POINTS_MAX: u32 = 10;

/// How long points count, and how long a peer is kept out.
const MEMORY: Duration = Duration::from_secs(300);

/// Most peers that are remembered; identities are cheap to make, so the longest known goes first.
const PEERS_MAX: usize = 1024;

/// What a peer did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offence {
    /// It passed on gossip that no honest node passes on.
    InvalidGossip,
    /// It announced a blob with a length that such a blob can't have.
    WrongLength,
    /// It served bytes that don't have the hash it was asked for.
    WrongBytes,
    /// It announced a blob as what it is not.
    Mislabelled,
    /// Its update log is false.
    FalseLog,
}

impl Offence {
    const fn points(self) -> u32 {
        match self {
            Self::InvalidGossip | Self::WrongLength | Self::Mislabelled => 2,
            Self::WrongBytes | Self::FalseLog => 5,
        }
    }
}

#[derive(Clone, Copy)]
struct Record {
    points: u32,
    last: Instant,
}

/// The demerits of peers of id type `P`.
pub(crate) struct Conduct<P> {
    records: HashMap<P, Record>,
}

impl<P> Default for Conduct<P> {
    fn default() -> Self {
        Self { records: HashMap::new() }
    }
}

impl<P: Copy + Eq + Hash> Conduct<P> {
    /// Notes an offence; returns whether the peer is to be kept out from now on.
    pub(crate) fn note(&mut self, peer: P, offence: Offence, now: Instant) -> bool {
        if self.records.len() >= PEERS_MAX && !self.records.contains_key(&peer) {
            let oldest = self.records.iter().min_by_key(|(_, record)| record.last).map(|(peer, _)| *peer);
            oldest.and_then(|oldest| self.records.remove(&oldest));
        }
        let record = self.records.entry(peer).or_insert(Record { points: 0, last: now });
        let before = record.points;
        record.points = record.points.saturating_add(offence.points());
        record.last = now;
        before < POINTS_MAX && record.points >= POINTS_MAX
    }

    /// The points of a peer.
    pub(crate) fn points(&self, peer: &P) -> u32 {
        self.records.get(peer).map_or(0, |record| record.points)
    }

    /// Forgets what is long past; returns whose slate is clean: those who were kept out may come back.
    pub(crate) fn forgive(&mut self, now: Instant) -> Vec<P> {
        let past = |record: &Record| now.saturating_duration_since(record.last) >= MEMORY;
        let back = self.records.iter().filter(|(_, record)| past(record));
        let back = back.map(|(peer, _)| *peer).collect();
        self.records.retain(|_, record| !past(record));
        back
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_kept_out_at_ten_points_and_come_back_after_five_minutes() {
        let (mut conduct, start) = (Conduct::default(), Instant::now());
        assert!(!conduct.note(1, Offence::WrongBytes, start));
        assert!(conduct.note(1, Offence::WrongBytes, start));
        assert!(!conduct.note(1, Offence::WrongBytes, start), "kept out already");
        assert!(!conduct.note(2, Offence::InvalidGossip, start));
        assert!(conduct.forgive(start + MEMORY / 2).is_empty());
        assert_eq!((conduct.points(&1), conduct.points(&2), conduct.points(&3)), (15, 2, 0));
        let mut clean = conduct.forgive(start + MEMORY);
        clean.sort_unstable();
        assert_eq!(clean, [1, 2]);
        assert!(!conduct.note(1, Offence::WrongBytes, start + MEMORY), "the slate is clean");
    }

    #[test]
    fn the_memory_is_bounded() {
        let (mut conduct, start) = (Conduct::default(), Instant::now());
        for peer in 0..2 * PEERS_MAX {
            conduct.note(peer, Offence::InvalidGossip, start);
        }
        assert_eq!(conduct.records.len(), PEERS_MAX);
    }
}
