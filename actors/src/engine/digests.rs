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

/// Digests by step. Steps never repeat within a run.
#[derive(Debug, Default)]
pub(super) struct Digests {
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
        if peers.len() < PEERS_MAX || peers.contains_key(&peer) {
            peers.insert(peer, digest);
            self.fresh.insert((step, peer));
        }
    }

    /// How many digests are remembered.
    pub(super) fn len(&self) -> usize {
        let heard: usize = self.heard.values().map(BTreeMap::len).sum();
        heard + self.mine.len() + self.compared.len() + self.fresh.len() + self.claims.len()
    }

    /// Notes this node's own digest.
    pub(super) fn know(&mut self, step: Step, digest: Digest, now_ms: u64) {
        self.mine.insert(step, (digest, now_ms));
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

    /// The digest that more than half of `members` have after `step`, counting this node.
    pub(super) fn majority(&self, step: Step, members: &[PeerKey], me: &PeerKey) -> Option<Digest> {
        let (digest, votes) = self.groups(step, members, me).into_iter().next()?;
        (votes.len() * 2 > members.len()).then_some(digest)
    }

    /// Whether this node's digest after `step` is the right one.
    ///
    /// More than half of `members` decide at once. After `patience_ms` several members that agree outvote this node if
    /// they are more than those who agree with it. Equal groups are told apart only when every member has reported and that
    /// time is over, as others may still have a word: then the one with the earliest member is right. So a single member never overrules another one while a third could
    /// still speak.
    pub(super) fn verdict(&self, step: Step, members: &[PeerKey], me: &PeerKey, now_ms: u64, patience_ms: u64) -> Verdict {
        let Some((mine, since_ms)) = self.mine.get(&step).copied() else { return Verdict::Open };
        let groups = self.groups(step, members, me);
        let reported: usize = groups.iter().map(|(_, votes)| votes.len()).sum();
        let Some((largest, votes)) = groups.first() else { return Verdict::Open };
        let agreeing = groups.iter().find(|(digest, _)| *digest == mine).map_or(0, |(_, votes)| votes.len());
        let patient = now_ms < since_ms.saturating_add(patience_ms);
        let tied = self.is_tied(step, members, me);
        let complete = reported == members.len() && !(tied && patient);
        let majority = votes.len() * 2 > members.len();
        match *largest == mine {
            true if majority || complete => Verdict::Sound,
            false if majority || complete || (!patient && votes.len() > agreeing.max(1)) => {
                Verdict::Diverged { right: *largest }
            }
            _ => Verdict::Open,
        }
    }

    /// What a peer said last that it holds.
    pub(super) fn claim(&self, peer: &PeerKey) -> Option<(Step, Digest)> {
        self.claims.get(peer).copied()
    }

    /// Whether the two largest groups of `members` after `step` are equally large.
    pub(super) fn is_tied(&self, step: Step, members: &[PeerKey], me: &PeerKey) -> bool {
        let groups = self.groups(step, members, me);
        groups.get(1).is_some_and(|(_, votes)| votes.len() == groups.first().map_or(0, |(_, most)| most.len()))
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
    }

    /// Whether the verdict after `step` is open, and its patience is not over.
    pub(super) fn is_open(&self, step: Step, members: &[PeerKey], me: &PeerKey, now_ms: u64, patience_ms: u64) -> bool {
        let fresh = self.mine.get(&step).is_some_and(|(_, since_ms)| now_ms < since_ms.saturating_add(patience_ms));
        fresh && self.verdict(step, members, me, now_ms, patience_ms) == Verdict::Open
    }

    /// How many of `members` have this node's digest after `step`, itself included.
    pub(super) fn agreement(&self, step: Step, members: &[PeerKey], me: &PeerKey) -> Agreement {
        let mine = self.mine.get(&step).map(|(digest, _)| *digest);
        let (mut equal, mut different) = (0, 0);
        for (digest, votes) in self.groups(step, members, me) {
            let side = if Some(digest) == mine { &mut equal } else { &mut different };
            *side += votes.len();
        }
        Agreement { members: members.len(), equal, different }
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

    /// Groups of member indices by digest, the largest first, of equal ones the one with the earliest member.
    fn groups(&self, step: Step, members: &[PeerKey], me: &PeerKey) -> Vec<(Digest, Vec<usize>)> {
        let mine = self.mine.get(&step).map(|(digest, _)| *digest);
        let heard = self.heard.get(&step);
        let mut groups: BTreeMap<Digest, Vec<usize>> = BTreeMap::new();
        for (index, peer) in members.iter().enumerate() {
            let digest = if peer == me { mine } else { heard.and_then(|heard| heard.get(peer)).copied() };
            if let Some(digest) = digest {
                groups.entry(digest).or_default().push(index);
            }
        }
        let mut groups: Vec<_> = groups.into_iter().collect();
        groups.sort_by_key(|(_, votes)| (usize::MAX - votes.len(), votes.first().copied()));
        groups
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

    #[test]
    fn a_strict_majority_against_this_node_decides_at_once() {
        let digests = heard(WRONG, &[(1, RIGHT), (2, RIGHT)]);
        let me = PeerKey([0; 32]);
        assert_eq!(digests.verdict(STEP, &peers(3), &me, 0, 100), Verdict::Diverged { right: RIGHT });
        assert_eq!(digests.verdict(STEP, &peers(4), &me, 0, 100), Verdict::Open);
        assert_eq!(digests.verdict(STEP, &peers(4), &me, 100, 100), Verdict::Diverged { right: RIGHT });
    }

    #[test]
    fn one_member_does_not_overrule_another_while_a_third_is_silent() {
        let digests = heard(RIGHT, &[(0, WRONG)]);
        assert_eq!(digests.verdict(STEP, &peers(3), &PeerKey([2; 32]), 1_000_000, 100), Verdict::Open);
    }

    #[test]
    fn agreement_counts_every_member_once() {
        let digests = heard(RIGHT, &[(1, RIGHT), (2, WRONG), (7, WRONG)]);
        let agreement = digests.agreement(STEP, &peers(4), &PeerKey([0; 32]));
        assert_eq!(agreement, Agreement { members: 4, equal: 2, different: 1 });
        assert!(!agreement.is_unanimous() && !agreement.is_doubtful());
        assert!(digests.agreement(STEP, &peers(2), &PeerKey([0; 32])).is_unanimous());
        assert!(heard(RIGHT, &[(1, WRONG)]).agreement(STEP, &peers(3), &PeerKey([0; 32])).is_doubtful());
    }

    #[test]
    fn a_discredited_digest_counts_no_more() {
        let mut digests = heard(RIGHT, &[(0, WRONG)]);
        let me = PeerKey([1; 32]);
        assert_eq!(digests.verdict(STEP, &peers(2), &me, 100, 100), Verdict::Diverged { right: WRONG });
        digests.discredit(STEP, WRONG);
        assert_eq!(digests.verdict(STEP, &peers(2), &me, 0, 100), Verdict::Open);
    }

    #[test]
    fn of_two_that_disagree_the_earlier_member_is_right_unless_another_one_has_its_say() {
        let digests = heard(WRONG, &[(1, RIGHT)]);
        assert_eq!(digests.verdict(STEP, &peers(2), &PeerKey([0; 32]), 99, 100), Verdict::Open);
        assert_eq!(digests.verdict(STEP, &peers(2), &PeerKey([0; 32]), 100, 100), Verdict::Sound);
        let digests = heard(WRONG, &[(0, RIGHT)]);
        assert_eq!(digests.verdict(STEP, &peers(2), &PeerKey([1; 32]), 100, 100), Verdict::Diverged { right: RIGHT });
    }

    #[test]
    fn a_minority_of_reports_decides_nothing() {
        let digests = heard(RIGHT, &[(0, WRONG)]);
        assert_eq!(digests.verdict(STEP, &peers(5), &PeerKey([4; 32]), 1_000_000, 100), Verdict::Open);
    }

    #[test]
    fn digests_of_strangers_and_of_far_steps_do_not_count() {
        let mut digests = heard(RIGHT, &[(7, WRONG), (8, WRONG)]);
        assert_eq!(digests.verdict(STEP, &peers(2), &PeerKey([0; 32]), 1_000, 100), Verdict::Open);
        digests.hear(Step(STEP.0 + STEPS_AHEAD + 1), PeerKey([1; 32]), WRONG, STEP);
        assert_eq!(digests.heard.len(), 1);
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
