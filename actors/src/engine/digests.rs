//! Digests that members announced, and the verdict over this node's own.

use std::collections::{BTreeMap, BTreeSet};

use psyche_messages::{Digest, PeerKey, Step};

/// How many steps back digests are kept.
const STEPS_KEPT: u32 = 8;
/// How many steps ahead of this node others may be.
const STEPS_AHEAD: u32 = 4;
/// Most peers remembered for one step: the members of two epochs.
const PEERS_MAX: usize = 512;

/// What the members' digests say about this node's parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Too few have reported yet.
    Open,
    /// This node is among the largest group.
    Sound,
    /// Another group is right.
    Diverged {
        /// That group's digest.
        right: Digest,
    },
}

/// How many of the members have this node's digest after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Agreement {
    members: usize,
    equal: usize,
    different: usize,
}

impl Agreement {
    /// Whether all of them have, this node among them or not.
    pub(super) const fn is_unanimous(self) -> bool {
        self.equal == self.members
    }

    /// Whether at least as many are known to have another one.
    pub(super) const fn is_doubtful(self) -> bool {
        self.different > 0 && self.different >= self.equal
    }
}

impl core::fmt::Display for Agreement {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} of {} members have, too, and {} have not", self.equal, self.members, self.different)
    }
}

/// Members with the same digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Group {
    digest: Digest,
    votes: usize,
    /// The earliest member's index.
    first: usize,
}

/// Who has which digest after a step, counted once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ballot {
    members: usize,
    /// This node's digest, and since when it has been known.
    mine: Option<(Digest, u64)>,
    /// The largest first, of equal ones that with the earliest member.
    groups: Vec<Group>,
}

impl Ballot {
    /// The digest that more than half of the members have, counting this node.
    pub(super) fn majority(&self) -> Option<Digest> {
        self.groups.first().filter(|group| group.votes * 2 > self.members).map(|group| group.digest)
    }

    /// Whether the two largest groups are equally large.
    pub(super) fn is_tied(&self) -> bool {
        matches!(self.groups.as_slice(), [first, second, ..] if first.votes == second.votes)
    }

    /// How many members have this node's digest, itself included.
    pub(super) fn agreement(&self) -> Agreement {
        let equal = self.agreeing();
        let reported: usize = self.groups.iter().map(|group| group.votes).sum();
        Agreement { members: self.members, equal, different: reported.saturating_sub(equal) }
    }

    fn agreeing(&self) -> usize {
        let mine = self.mine.map(|(digest, _)| digest);
        self.groups.iter().find(|group| Some(group.digest) == mine).map_or(0, |group| group.votes)
    }

    /// Whether this node's digest is the right one.
    ///
    /// More than half of the members decide at once. After `patience_ms` several members that agree outvote this node if
    /// they are more than those who agree with it. Equal groups are told apart only when every member has reported and that
    /// time is over, as others may still have a word: then the one with the earliest member is right. So a single member
    /// never overrules another one while a third could still speak.
    pub(super) fn verdict(&self, now_ms: u64, patience_ms: u64) -> Verdict {
        let (Some((mine, since_ms)), Some(largest)) = (self.mine, self.groups.first()) else { return Verdict::Open };
        let agreement = self.agreement();
        let patient = now_ms < since_ms.saturating_add(patience_ms);
        let complete = agreement.equal + agreement.different == self.members && !(patient && self.is_tied());
        let majority = self.majority().is_some();
        match largest.digest == mine {
            true if majority || complete => Verdict::Sound,
            false if majority || complete || (!patient && largest.votes > agreement.equal.max(1)) => {
                Verdict::Diverged { right: largest.digest }
            }
            _ => Verdict::Open,
        }
    }

    /// Whether the verdict is open, and its patience is not over.
    pub(super) fn is_open(&self, now_ms: u64, patience_ms: u64) -> bool {
        let fresh = self.mine.is_some_and(|(_, since_ms)| now_ms < since_ms.saturating_add(patience_ms));
        fresh && self.verdict(now_ms, patience_ms) == Verdict::Open
    }
}

/// Digests by step. Steps never repeat within a run.
#[derive(Debug, Default)]
pub(super) struct Digests {
    /// Grows with everything that a ballot depends on.
    revision: u64,
    heard: BTreeMap<Step, BTreeMap<PeerKey, Digest>>,
    mine: BTreeMap<Step, (Digest, u64)>,
    compared: BTreeSet<(Step, PeerKey, Digest)>,
    /// What may have to be compared: what came since comparisons were asked for.
    fresh: BTreeSet<(Step, PeerKey)>,
    /// What each peer said last that it holds, however old.
    claims: BTreeMap<PeerKey, (Step, Digest)>,
}

impl Digests {
    /// Notes a member's digest; a later one replaces an earlier one, as nodes heal. `around` is the step in work.
    pub(super) fn hear(&mut self, step: Step, peer: PeerKey, digest: Digest, around: Step) {
        if self.claims.len() < PEERS_MAX || self.claims.contains_key(&peer) {
            self.claims.insert(peer, (step, digest));
        }
        if step.0 > around.0.saturating_add(STEPS_AHEAD) || step.0.saturating_add(STEPS_KEPT) < around.0 {
            return;
        }
        let peers = self.heard.entry(step).or_default();
        let room = peers.len() < PEERS_MAX || peers.contains_key(&peer);
        if room && peers.insert(peer, digest) != Some(digest) {
            self.fresh.insert((step, peer));
            self.revision += 1;
        }
    }

    /// As long as this stays the same, so does every ballot among the same members.
    pub(super) const fn revision(&self) -> u64 {
        self.revision
    }

    /// How many digests are remembered.
    pub(super) fn len(&self) -> usize {
        let heard: usize = self.heard.values().map(BTreeMap::len).sum();
        heard + self.mine.len() + self.compared.len() + self.fresh.len() + self.claims.len()
    }

    /// Notes this node's own digest.
    pub(super) fn know(&mut self, step: Step, digest: Digest, now_ms: u64) {
        self.mine.insert(step, (digest, now_ms));
        self.revision += 1;
        self.fresh.extend(self.heard.get(&step).into_iter().flat_map(BTreeMap::keys).map(|peer| (step, *peer)));
        let oldest = step.0.saturating_sub(STEPS_KEPT);
        self.mine.retain(|step, _| step.0 >= oldest);
        self.heard.retain(|step, _| step.0 >= oldest);
        self.compared.retain(|(step, _, _)| step.0 >= oldest);
    }

    /// Comparisons that were not made before: step, peer, whether equal.
    pub(super) fn fresh_comparisons(&mut self) -> Vec<(Step, PeerKey, bool)> {
        let mut fresh = Vec::new();
        for (step, peer) in core::mem::take(&mut self.fresh) {
            // Where there is nothing to compare with, the peer's digest waits for this node's.
            let Some((mine, _)) = self.mine.get(&step) else { continue };
            let Some(digest) = self.heard.get(&step).and_then(|peers| peers.get(&peer)) else { continue };
            if self.compared.insert((step, peer, *digest)) {
                fresh.push((step, peer, digest == mine));
            }
        }
        fresh
    }

    /// Who of `members` has which digest after `step`.
    pub(super) fn ballot(&self, step: Step, members: &[PeerKey], me: &PeerKey) -> Ballot {
        let mine = self.mine.get(&step).copied();
        let heard = self.heard.get(&step);
        // There are hardly ever more than two.
        let mut groups: Vec<Group> = Vec::new();
        for (first, peer) in members.iter().enumerate() {
            let digest =
                if peer == me { mine.map(|(digest, _)| digest) } else { heard.and_then(|heard| heard.get(peer)).copied() };
            let Some(digest) = digest else { continue };
            match groups.iter_mut().find(|group| group.digest == digest) {
                Some(group) => group.votes += 1,
                None => groups.push(Group { digest, votes: 1, first }),
            }
        }
        groups.sort_by_key(|group| (core::cmp::Reverse(group.votes), group.first));
        Ballot { members: members.len(), mine, groups }
    }

    /// How many have this node's digest after `step`, itself included, if nobody told another one.
    pub(super) fn unanimous(&self, step: Step) -> Option<usize> {
        let (mine, _) = self.mine.get(&step)?;
        let heard = self.heard.get(&step);
        let agree = heard.is_none_or(|heard| heard.values().all(|digest| digest == mine));
        agree.then(|| 1 + heard.map_or(0, BTreeMap::len))
    }

    /// What a peer said last that it holds.
    pub(super) fn claim(&self, peer: &PeerKey) -> Option<(Step, Digest)> {
        self.claims.get(peer).copied()
    }

    /// Whether a peer told its digest after `step`.
    pub(super) fn is_told(&self, step: Step, peer: &PeerKey) -> bool {
        self.heard.get(&step).is_some_and(|peers| peers.contains_key(peer))
    }

    /// Whether any of `members` holds anything.
    pub(super) fn anyone_holds(&self, members: &[PeerKey]) -> bool {
        members.iter().any(|peer| self.claims.contains_key(peer))
    }

    /// Forgets a digest after `step` that is proven false.
    pub(super) fn discredit(&mut self, step: Step, digest: Digest) {
        if let Some(peers) = self.heard.get_mut(&step) {
            peers.retain(|_, heard| *heard != digest);
        }
        self.claims.retain(|_, claim| *claim != (step, digest));
        self.revision += 1;
    }

    /// Members that announced another digest than this node's after `step`.
    pub(super) fn dissenters(&self, step: Step, members: &[PeerKey]) -> usize {
        let Some((mine, _)) = self.mine.get(&step) else { return 0 };
        let Some(heard) = self.heard.get(&step) else { return 0 };
        members.iter().filter(|peer| heard.get(peer).is_some_and(|digest| digest != mine)).count()
    }

    /// The first of `members` that has this node's digest after `step`.
    pub(super) fn first_agreeing(&self, step: Step, members: &[PeerKey], me: &PeerKey) -> Option<PeerKey> {
        let (mine, _) = self.mine.get(&step)?;
        let heard = self.heard.get(&step);
        let agrees = |peer: &&PeerKey| *peer == me || heard.and_then(|heard| heard.get(*peer)) == Some(mine);
        members.iter().find(agrees).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIGHT: Digest = Digest([1; 32]);
    const WRONG: Digest = Digest([2; 32]);
    const STEP: Step = Step(5);

    fn peers(count: u8) -> Vec<PeerKey> {
        (0..count).map(|n| PeerKey([n; 32])).collect()
    }

    fn heard(mine: Digest, others: &[(u8, Digest)]) -> Digests {
        let mut digests = Digests::default();
        digests.know(STEP, mine, 0);
        for (peer, digest) in others {
            digests.hear(STEP, PeerKey([*peer; 32]), *digest, STEP);
        }
        digests
    }

    /// The verdict among the first so many peers.
    fn verdict(digests: &Digests, members: u8, me: u8, now_ms: u64) -> Verdict {
        digests.ballot(STEP, &peers(members), &PeerKey([me; 32])).verdict(now_ms, 100)
    }

    #[test]
    fn a_strict_majority_against_this_node_decides_at_once() {
        let digests = heard(WRONG, &[(1, RIGHT), (2, RIGHT)]);
        assert_eq!(verdict(&digests, 3, 0, 0), Verdict::Diverged { right: RIGHT });
        assert_eq!(verdict(&digests, 4, 0, 0), Verdict::Open);
        assert_eq!(verdict(&digests, 4, 0, 100), Verdict::Diverged { right: RIGHT });
    }

    #[test]
    fn one_member_does_not_overrule_another_while_a_third_is_silent() {
        let digests = heard(RIGHT, &[(0, WRONG)]);
        assert_eq!(verdict(&digests, 3, 2, 1_000_000), Verdict::Open);
    }

    #[test]
    fn agreement_counts_every_member_once() {
        let digests = heard(RIGHT, &[(1, RIGHT), (2, WRONG), (7, WRONG)]);
        let agreement = |digests: &Digests, members| digests.ballot(STEP, &peers(members), &PeerKey([0; 32])).agreement();
        assert_eq!(agreement(&digests, 4), Agreement { members: 4, equal: 2, different: 1 });
        assert!(!agreement(&digests, 4).is_unanimous() && !agreement(&digests, 4).is_doubtful());
        assert!(agreement(&digests, 2).is_unanimous());
        assert!(agreement(&heard(RIGHT, &[(1, WRONG)]), 3).is_doubtful());
    }

    #[test]
    fn a_discredited_digest_counts_no_more() {
        let mut digests = heard(RIGHT, &[(0, WRONG)]);
        assert_eq!(verdict(&digests, 2, 1, 100), Verdict::Diverged { right: WRONG });
        digests.discredit(STEP, WRONG);
        assert_eq!(verdict(&digests, 2, 1, 0), Verdict::Open);
    }

    #[test]
    fn of_two_that_disagree_the_earlier_member_is_right_unless_another_one_has_its_say() {
        let digests = heard(WRONG, &[(1, RIGHT)]);
        assert_eq!(verdict(&digests, 2, 0, 99), Verdict::Open);
        assert_eq!(verdict(&digests, 2, 0, 100), Verdict::Sound);
        let digests = heard(WRONG, &[(0, RIGHT)]);
        assert_eq!(verdict(&digests, 2, 1, 100), Verdict::Diverged { right: RIGHT });
    }

    #[test]
    fn a_minority_of_reports_decides_nothing() {
        let digests = heard(RIGHT, &[(0, WRONG)]);
        assert_eq!(verdict(&digests, 5, 4, 1_000_000), Verdict::Open);
    }

    #[test]
    fn digests_of_strangers_and_of_far_steps_do_not_count() {
        let mut digests = heard(RIGHT, &[(7, WRONG), (8, WRONG)]);
        assert_eq!(verdict(&digests, 2, 0, 1_000), Verdict::Open);
        digests.hear(Step(STEP.0 + STEPS_AHEAD + 1), PeerKey([1; 32]), WRONG, STEP);
        assert_eq!(digests.heard.len(), 1);
    }

    #[test]
    fn only_who_said_something_counts_as_unanimous_and_a_single_voice_is_enough_to_the_contrary() {
        let mut digests = heard(RIGHT, &[(1, RIGHT), (2, RIGHT)]);
        assert_eq!(digests.unanimous(STEP), Some(3));
        assert_eq!(digests.unanimous(Step(4)), None, "nothing is held");
        digests.hear(STEP, PeerKey([3; 32]), WRONG, STEP);
        assert_eq!(digests.unanimous(STEP), None);
    }

    #[test]
    fn the_revision_tells_whether_a_ballot_may_have_changed() {
        let mut digests = heard(RIGHT, &[(1, RIGHT)]);
        let revision = digests.revision();
        digests.hear(STEP, PeerKey([1; 32]), RIGHT, STEP);
        assert_eq!(digests.revision(), revision, "that was known");
        digests.hear(STEP, PeerKey([1; 32]), WRONG, STEP);
        assert!(digests.revision() > revision);
        let revision = digests.revision();
        digests.discredit(STEP, WRONG);
        assert!(digests.revision() > revision);
        let revision = digests.revision();
        digests.know(STEP, WRONG, 5);
        assert!(digests.revision() > revision);
    }

    #[test]
    fn each_comparison_is_reported_once_and_again_after_healing() {
        let mut digests = heard(RIGHT, &[(1, WRONG)]);
        assert_eq!(digests.fresh_comparisons(), [(STEP, PeerKey([1; 32]), false)]);
        assert_eq!(digests.fresh_comparisons(), []);
        digests.hear(STEP, PeerKey([1; 32]), RIGHT, STEP);
        assert_eq!(digests.fresh_comparisons(), [(STEP, PeerKey([1; 32]), true)]);
    }
}
