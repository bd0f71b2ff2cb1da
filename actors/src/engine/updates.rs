//! The members' update logs: who can tell what was applied since, and who lied about it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use psyche_messages::{AppliedStep, Digest, PeerKey, Step, UpdatesAnnounced};

/// How many steps ahead of this node's view a log may reach.
const STEPS_AHEAD: u32 = 4;
/// Most peers whose logs are remembered: the members of two epochs.
const PEERS_MAX: usize = 512;
/// How long a log that could not be had or did not fit is left alone.
const PAUSE_MS: u64 = 3_000;

/// A log that is being applied.
#[derive(Debug)]
pub(super) struct Replay {
    /// Whose it is.
    pub author: PeerKey,
    /// The first step that was to be applied from it.
    pub from: Step,
    /// What is left to be applied, in order; `None` while it is fetched.
    pub steps: Option<VecDeque<AppliedStep>>,
    /// Since when the replay waits for what it needs next: the log, or the payloads of the first step.
    pub since_ms: u64,
}

/// What is known of the update logs.
#[derive(Debug, Default)]
pub(super) struct Updates {
    heard: BTreeMap<PeerKey, UpdatesAnnounced>,
    /// Authors whose log was false, at most as many as can be heard.
    refused: BTreeSet<PeerKey>,
    /// Authors that are left alone until this time.
    paused: BTreeMap<PeerKey, u64>,
    /// What the logs say that this node's parameters ought to be, where they say something else.
    disputes: BTreeMap<PeerKey, Digest>,
    /// The steps of this node's own log.
    pub own: Option<(Step, Step)>,
    /// The log that is being applied.
    pub replay: Option<Replay>,
    /// The last replay: author, first and last step.
    pub last: Option<(PeerKey, Step, Step)>,
    /// What is being applied, without its digest afterwards.
    pub pending: Option<AppliedStep>,
}

impl Updates {
    /// Nothing but this node's own log, if it has one: its first and last step.
    pub(super) fn with_own(own: Option<(Step, Step)>) -> Self {
        Self { own, ..Self::default() }
    }

    /// Notes how far a member's log reaches. `around` is the step in work.
    pub(super) fn hear(&mut self, peer: PeerKey, announced: UpdatesAnnounced, around: Step) {
        let sound = announced.first <= announced.round.step && announced.round.step.0 <= around.0.saturating_add(STEPS_AHEAD);
        if sound && (self.heard.len() < PEERS_MAX || self.heard.contains_key(&peer)) {
            self.heard.insert(peer, announced);
        }
    }

    /// What a member announced last.
    pub(super) fn of(&self, peer: &PeerKey) -> Option<&UpdatesAnnounced> {
        self.heard.get(peer)
    }

    /// Never uses a member's log again: it was false.
    pub(super) fn refuse(&mut self, author: PeerKey) {
        if self.refused.len() < PEERS_MAX {
            self.refused.insert(author);
        }
        self.heard.remove(&author);
    }

    /// Whether a member's log was false.
    pub(super) fn is_refused(&self, author: &PeerKey) -> bool {
        self.refused.contains(author)
    }

    /// Leaves a member's log alone for a while.
    pub(super) fn pause(&mut self, author: PeerKey, now_ms: u64) {
        self.paused.retain(|_, until_ms| *until_ms > now_ms);
        if self.paused.len() < PEERS_MAX {
            self.paused.insert(author, now_ms.saturating_add(PAUSE_MS));
        }
    }

    /// Notes that a member's log says that this node's parameters ought to be others: those, if more than half of `members`
    /// say so.
    pub(super) fn dispute(&mut self, author: PeerKey, right: Digest, members: &[PeerKey]) -> Option<Digest> {
        if self.disputes.len() < PEERS_MAX {
            self.disputes.insert(author, right);
        }
        let votes = members.iter().filter(|member| self.disputes.get(member) == Some(&right)).count();
        (votes * 2 > members.len()).then_some(right)
    }

    /// The parameters were replaced: nothing that was under way goes on.
    pub(super) fn forget_replay(&mut self) {
        self.replay = None;
        self.last = None;
        self.pending = None;
        self.settle();
    }

    /// The parameters are other ones now: what logs said about those before does not matter any more.
    pub(super) fn settle(&mut self) {
        self.disputes.clear();
    }

    /// Whose log to apply `step` from: this node's own, or that which most `members` agree with where it ends; of equals the
    /// one that reaches farthest, then that of the earliest member.
    pub(super) fn choose(&self, step: Step, members: &[PeerKey], me: &PeerKey, now_ms: u64) -> Option<PeerKey> {
        let usable = |author: &PeerKey| {
            !self.refused.contains(author) && self.paused.get(author).is_none_or(|until_ms| now_ms >= *until_ms)
        };
        if self.own.is_some_and(|(first, last)| first <= step && step <= last) && usable(me) {
            return Some(*me);
        }
        let votes = |head: &UpdatesAnnounced| {
            let agrees = |member: &&PeerKey| {
                self.heard.get(member).is_some_and(|other| other.round.step == head.round.step && other.digest == head.digest)
            };
            members.iter().filter(agrees).count()
        };
        let candidates = members.iter().enumerate().filter(|(_, member)| *member != me && usable(member));
        let covering = candidates.filter_map(|(at, member)| {
            let head = self.heard.get(member).filter(|head| head.covers(step))?;
            Some(((votes(head), head.round.step, core::cmp::Reverse(at)), *member))
        });
        covering.max_by_key(|(rank, _)| *rank).map(|(_, member)| member)
    }
}

#[cfg(test)]
mod tests {
    use psyche_messages::{BlobHash, RoundKey};

    use super::*;

    const ME: PeerKey = PeerKey([99; 32]);

    fn head(first: u32, last: u32, digest: u8) -> UpdatesAnnounced {
        UpdatesAnnounced {
            round: RoundKey::new(0, last),
            first: Step(first),
            digest: Digest([digest; 32]),
            blob: BlobHash([digest; 32]),
            blob_len: 9,
        }
    }

    fn peers(count: u8) -> Vec<PeerKey> {
        (0..count).map(|n| PeerKey([n; 32])).collect()
    }

    #[test]
    fn the_log_that_most_agree_with_is_chosen_then_another_one() {
        let mut updates = Updates::default();
        for (peer, digest) in [(0, 8), (1, 7), (2, 7)] {
            updates.hear(PeerKey([peer; 32]), head(3, 9, digest), Step(11));
        }
        let chosen = |updates: &Updates, step, now_ms| updates.choose(Step(step), &peers(3), &ME, now_ms).map(|peer| peer.0[0]);
        assert_eq!(chosen(&updates, 5, 0), Some(1));
        assert_eq!(chosen(&updates, 2, 0), None, "no log reaches back that far");
        assert_eq!(chosen(&updates, 10, 0), None);
        updates.pause(PeerKey([1; 32]), 0);
        assert_eq!(chosen(&updates, 5, 0), Some(2));
        assert_eq!(chosen(&updates, 5, PAUSE_MS), Some(1));
        updates.refuse(PeerKey([1; 32]));
        updates.refuse(PeerKey([2; 32]));
        assert_eq!(chosen(&updates, 5, PAUSE_MS), Some(0));
        updates.hear(PeerKey([1; 32]), head(3, 9, 7), Step(11));
        assert_eq!(chosen(&updates, 5, PAUSE_MS), Some(0), "whoever lied is not believed again");
    }

    #[test]
    fn the_own_log_comes_first_and_strangers_never() {
        let mut updates = Updates { own: Some((Step(3), Step(6))), ..Updates::default() };
        updates.hear(PeerKey([7; 32]), head(3, 9, 7), Step(11));
        assert_eq!(updates.choose(Step(5), &peers(3), &ME, 0), Some(ME));
        assert_eq!(updates.choose(Step(7), &peers(3), &ME, 0), None);
    }

    #[test]
    fn logs_of_the_future_and_logs_that_end_before_they_begin_are_not_heard() {
        let mut updates = Updates::default();
        updates.hear(PeerKey([0; 32]), head(3, 16, 7), Step(11));
        updates.hear(PeerKey([1; 32]), head(10, 9, 7), Step(11));
        assert!(updates.of(&PeerKey([0; 32])).is_none() && updates.of(&PeerKey([1; 32])).is_none());
    }

    #[test]
    fn parameters_are_in_dispute_when_most_logs_say_so() {
        let mut updates = Updates::default();
        let right = Digest([7; 32]);
        assert_eq!(updates.dispute(PeerKey([0; 32]), right, &peers(3)), None);
        assert_eq!(updates.dispute(PeerKey([8; 32]), right, &peers(3)), None, "a stranger has no say");
        assert_eq!(updates.dispute(PeerKey([1; 32]), right, &peers(3)), Some(right));
        updates.settle();
        assert_eq!(updates.dispute(PeerKey([1; 32]), right, &peers(3)), None);
    }
}
