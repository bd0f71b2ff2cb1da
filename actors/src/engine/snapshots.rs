//! Snapshots that members announced, and which of them to trust.

use std::collections::{BTreeMap, VecDeque};

use psyche_messages::{BlobHash, Digest, PeerKey, SnapshotAnnounced, Step};

use super::ledger::LEDGER_STEPS_MAX;

/// How many steps back announcements are kept: as far as update logs reach.
const STEPS_KEPT: u32 = LEDGER_STEPS_MAX as u32;
/// Most announcements kept of one peer: it serves two snapshots, and may be about to serve another.
const PER_PEER_MAX: usize = 3;
/// How many steps ahead of this node's view others may be.
const STEPS_AHEAD: u32 = 4;
/// Most peers remembered for one step: the members of two epochs.
const PEERS_MAX: usize = 512;

/// Most index blobs that are remembered as false.
const REFUSED_MAX: usize = 64;

/// After so many failed loads of one index, snapshots with other parameters are tried, too.
const FAILURES_MAX: usize = 3;

/// A snapshot on the node's own disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSnapshot {
    /// The last step that it contains.
    pub step: Step,
    /// The digest of its parameters.
    pub digest: Digest,
}

/// A snapshot to load, and who serves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    /// One announcement of it.
    pub announced: SnapshotAnnounced,
    /// Everyone who announced the same files.
    pub providers: Vec<PeerKey>,
}

#[derive(Debug, Default)]
struct Heard {
    first_ms: u64,
    by_peer: BTreeMap<PeerKey, SnapshotAnnounced>,
}

/// Announcements by step.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    heard: BTreeMap<Step, Heard>,
    /// Index blobs whose files turned out to be other parameters than announced.
    refused: VecDeque<BlobHash>,
    /// Index blobs whose load failed, once for each time.
    failed: VecDeque<BlobHash>,
}

impl Snapshots {
    /// Notes a member's announcement; a later one replaces an earlier one. `around` is the step in work.
    pub(super) fn hear(&mut self, peer: PeerKey, announced: SnapshotAnnounced, around: Step, now_ms: u64) {
        let step = announced.round.step;
        if step.0 > around.0.saturating_add(STEPS_AHEAD) || step.0.saturating_add(STEPS_KEPT) < around.0 {
            return;
        }
        if !self.heard.get(&step).is_some_and(|heard| heard.by_peer.contains_key(&peer)) {
            self.make_room_for(&peer);
        }
        let heard = self.heard.entry(step).or_insert_with(|| Heard { first_ms: now_ms, by_peer: BTreeMap::new() });
        if heard.by_peer.len() < PEERS_MAX || heard.by_peer.contains_key(&peer) {
            heard.by_peer.insert(peer, announced);
        }
    }

    /// Forgets the oldest announcement of a peer that has too many.
    fn make_room_for(&mut self, peer: &PeerKey) {
        let of_peer = |heard: &Heard| heard.by_peer.contains_key(peer);
        if self.heard.values().filter(|heard| of_peer(heard)).count() < PER_PEER_MAX {
            return;
        }
        if let Some(heard) = self.heard.values_mut().find(|heard| heard.by_peer.contains_key(peer)) {
            heard.by_peer.remove(peer);
        }
        self.heard.retain(|_, heard| !heard.by_peer.is_empty());
    }

    /// How many announcements are remembered.
    pub(super) fn len(&self) -> usize {
        let heard: usize = self.heard.values().map(|heard| heard.by_peer.len()).sum();
        heard + self.refused.len() + self.failed.len()
    }

    /// Forgets what lies too far back from the step in work.
    pub(super) fn forget(&mut self, around: Step) {
        self.heard.retain(|step, _| step.0.saturating_add(STEPS_KEPT) >= around.0);
    }

    /// Never offers a snapshot again that was not what its announcement said.
    pub(super) fn refuse(&mut self, index: BlobHash) {
        if self.refused.len() >= REFUSED_MAX {
            self.refused.pop_front();
        }
        self.refused.push_back(index);
    }

    /// Prefers other snapshots from now on to one that could not be loaded.
    pub(super) fn fail(&mut self, index: BlobHash) {
        if self.failed.len() >= REFUSED_MAX {
            self.failed.pop_front();
        }
        self.failed.push_back(index);
    }

    fn failures(&self, index: &BlobHash) -> usize {
        self.failed.iter().filter(|failed| *failed == index).count()
    }

    /// Steps with announcements, the newest first.
    pub(super) fn steps(&self) -> impl Iterator<Item = Step> + '_ {
        self.heard.keys().rev().copied()
    }

    /// The snapshot after `step` to load: with `right` known, one with that digest; otherwise the one that more than half
    /// of `members` announced, or once `patience_ms` have passed since the first announcement, the one that most did; of
    /// equals the one of the earliest member. Only members count.
    pub(super) fn choose(
        &self,
        step: Step,
        members: &[PeerKey],
        right: Option<Digest>,
        now_ms: u64,
        patience_ms: u64,
    ) -> Option<Offer> {
        let heard = self.heard.get(&step)?;
        let mut groups: BTreeMap<Digest, Vec<usize>> = BTreeMap::new();
        for (index, peer) in members.iter().enumerate() {
            if let Some(announced) = heard.by_peer.get(peer)
                && right.is_none_or(|right| right == announced.digest)
                && !self.refused.contains(&announced.index)
            {
                groups.entry(announced.digest).or_default().push(index);
            }
        }
        let failures = |at: &usize| {
            let announced = members.get(*at).and_then(|peer| heard.by_peer.get(peer));
            announced.map_or(0, |announced| self.failures(&announced.index))
        };
        let hopeless = |votes: &[usize]| votes.iter().all(|at| failures(at) >= FAILURES_MAX);
        let (digest, mut votes) =
            groups.into_iter().min_by_key(|(_, votes)| (hopeless(votes), usize::MAX - votes.len(), votes.first().copied()))?;
        let decided = right.is_some() || votes.len() * 2 > members.len();
        if !decided && now_ms < heard.first_ms.saturating_add(patience_ms) {
            return None;
        }
        votes.sort_by_key(|at| (failures(at), *at));
        let announcers: Vec<_> = votes.iter().filter_map(|index| members.get(*index)).collect();
        let announced = heard.by_peer.get(*announcers.first()?)?.clone();
        let same = |peer: &&&PeerKey| {
            heard.by_peer.get(**peer).is_some_and(|other| other.digest == digest && other.index == announced.index)
        };
        Some(Offer { providers: announcers.iter().filter(same).map(|peer| **peer).collect(), announced })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use psyche_messages::RoundKey;

    use super::*;

    fn announced(digest: u8) -> SnapshotAnnounced {
        SnapshotAnnounced {
            round: RoundKey::new(0, 6),
            digest: Digest([digest; 32]),
            index: BlobHash([digest; 32]),
            index_len: 10,
        }
    }

    fn peers(count: u8) -> Vec<PeerKey> {
        (0..count).map(|n| PeerKey([n; 32])).collect()
    }

    #[test]
    fn a_majority_is_believed_at_once_and_a_minority_after_a_while() {
        let mut snapshots = Snapshots::default();
        snapshots.hear(PeerKey([1; 32]), announced(1), Step(7), 50);
        assert_eq!(snapshots.choose(Step(6), &peers(3), None, 149, 100), None);
        assert_eq!(snapshots.choose(Step(6), &peers(3), None, 150, 100).unwrap().announced, announced(1));
        snapshots.hear(PeerKey([2; 32]), announced(1), Step(7), 60);
        let offer = snapshots.choose(Step(6), &peers(3), None, 60, 100).unwrap();
        assert_eq!(offer.providers, [PeerKey([1; 32]), PeerKey([2; 32])]);
    }

    #[test]
    fn the_largest_group_wins_then_the_earliest_member_and_strangers_never() {
        let mut snapshots = Snapshots::default();
        for (peer, digest) in [(0, 2), (1, 1), (2, 1), (8, 2), (9, 2)] {
            snapshots.hear(PeerKey([peer; 32]), announced(digest), Step(7), 0);
        }
        assert_eq!(snapshots.choose(Step(6), &peers(4), None, 500, 100).unwrap().announced, announced(1));
        assert_eq!(snapshots.choose(Step(6), &peers(2), None, 500, 100).unwrap().announced, announced(2));
    }

    #[test]
    fn a_known_digest_decides_alone() {
        let mut snapshots = Snapshots::default();
        snapshots.hear(PeerKey([3; 32]), announced(2), Step(7), 0);
        assert_eq!(snapshots.choose(Step(6), &peers(4), Some(Digest([1; 32])), 0, 100), None);
        assert_eq!(snapshots.choose(Step(6), &peers(4), Some(Digest([2; 32])), 0, 100).unwrap().announced, announced(2));
    }

    #[test]
    fn a_refused_snapshot_is_not_offered_again() {
        let mut snapshots = Snapshots::default();
        snapshots.hear(PeerKey([0; 32]), announced(2), Step(7), 0);
        snapshots.hear(PeerKey([1; 32]), announced(1), Step(7), 0);
        assert_eq!(snapshots.choose(Step(6), &peers(2), None, 500, 100).unwrap().announced, announced(2));
        snapshots.refuse(announced(2).index);
        assert_eq!(snapshots.choose(Step(6), &peers(2), None, 500, 100).unwrap().announced, announced(1));
    }

    #[test]
    fn after_a_failure_another_members_snapshot_of_the_same_parameters_is_tried() {
        let mut snapshots = Snapshots::default();
        for peer in 0..3 {
            let index = BlobHash([peer + 10; 32]);
            snapshots.hear(PeerKey([peer; 32]), SnapshotAnnounced { index, ..announced(1) }, Step(7), 0);
        }
        let mut tried = Vec::new();
        for _ in 0..4 {
            let index = snapshots.choose(Step(6), &peers(3), None, 0, 100).unwrap().announced.index;
            tried.push(index.0[0]);
            snapshots.fail(index);
        }
        assert_eq!(tried, [10, 11, 12, 10]);
    }

    #[test]
    fn other_parameters_are_tried_when_those_of_most_can_never_be_loaded() {
        let mut snapshots = Snapshots::default();
        for (peer, digest) in [(0, 2), (1, 2), (2, 1)] {
            snapshots.hear(PeerKey([peer; 32]), announced(digest), Step(7), 0);
        }
        for _ in 0..FAILURES_MAX {
            assert_eq!(snapshots.choose(Step(6), &peers(3), None, 500, 100).unwrap().announced, announced(2));
            snapshots.fail(announced(2).index);
        }
        assert_eq!(snapshots.choose(Step(6), &peers(3), None, 500, 100).unwrap().announced, announced(1));
    }

    #[test]
    fn of_one_peer_only_the_newest_snapshots_are_kept() {
        let mut snapshots = Snapshots::default();
        for step in 1..20 {
            let round = RoundKey::new(0, step);
            snapshots.hear(PeerKey([1; 32]), SnapshotAnnounced { round, ..announced(1) }, Step(20), 0);
        }
        assert_eq!(snapshots.steps().collect::<Vec<_>>(), [Step(19), Step(18), Step(17)]);
    }

    #[test]
    fn far_steps_are_not_kept() {
        let mut snapshots = Snapshots::default();
        snapshots.hear(PeerKey([1; 32]), announced(1), Step(1), 0);
        assert_eq!(snapshots.steps().count(), 0);
        snapshots.hear(PeerKey([1; 32]), announced(1), Step(7), 0);
        assert_eq!(snapshots.steps().collect::<Vec<_>>(), [Step(6)]);
        snapshots.forget(Step(7 + STEPS_KEPT));
        assert_eq!(snapshots.steps().count(), 0);
    }
}
