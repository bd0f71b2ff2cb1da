//! Messages that came too early, and this node's own ones that are worth repeating.

use std::collections::{BTreeMap, VecDeque};

use psyche_messages::{PeerKey, RoundKey, RoundMessage, SignedRoundMessage, Step};

/// Most messages kept for rounds that this node has not seen yet.
const EARLY_MAX: usize = 2_048;
/// Most of them from one peer: a result and a manifest for some rounds.
const EARLY_PER_PEER_MAX: usize = 8;
/// Most of this node's own messages that are repeated.
const OUTBOX_MAX: usize = 32;
/// Longest time between two repetitions, and shortest, however many peers come.
const REPEAT_MS_MAX: u64 = 30_000;
const REPEAT_MS_MIN: u64 = 1_000;

/// Messages for rounds that the chain has not shown yet: peers may see it earlier.
#[derive(Debug, Default)]
pub(super) struct Early {
    queue: VecDeque<SignedRoundMessage>,
    per_peer: BTreeMap<PeerKey, usize>,
}

impl Early {
    /// Keeps a message of a peer in the roster. Where there is no room it is lost; its author repeats it.
    pub(super) fn keep(&mut self, signed: SignedRoundMessage) {
        let count = self.per_peer.entry(signed.from).or_default();
        if *count < EARLY_PER_PEER_MAX && self.queue.len() < EARLY_MAX {
            *count += 1;
            self.queue.push_back(signed);
        } else if *count == 0 {
            self.per_peer.remove(&signed.from);
        }
    }

    /// Everything kept, in the order of arrival.
    pub(super) fn take(&mut self) -> VecDeque<SignedRoundMessage> {
        self.per_peer.clear();
        core::mem::take(&mut self.queue)
    }

    /// How many messages are kept.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether nothing is kept.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

/// The kind of a message; of each kind and round only the newest is of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Result,
    Manifest,
    Digest,
    Snapshot,
    Evidence,
    Skip,
    Updates,
}

const fn kind(message: &RoundMessage) -> Kind {
    match message {
        RoundMessage::Result(_) => Kind::Result,
        RoundMessage::Manifest(_) => Kind::Manifest,
        RoundMessage::Digest(_) => Kind::Digest,
        RoundMessage::Snapshot(_) => Kind::Snapshot,
        RoundMessage::Evidence(_) => Kind::Evidence,
        RoundMessage::Skip(_) => Kind::Skip,
        RoundMessage::Updates(_) => Kind::Updates,
    }
}

/// A message, and when it was said first, last, and will be again.
#[derive(Debug)]
struct Own {
    message: RoundMessage,
    first_ms: u64,
    last_ms: u64,
    next_ms: u64,
}

/// This node's own messages, each with the time of its next repetition.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    own: BTreeMap<(RoundKey, Kind), Own>,
}

impl Outbox {
    /// Adds a message that is published at `now_ms`; it comes again after `pause_ms`.
    pub(super) fn add(&mut self, message: RoundMessage, now_ms: u64, pause_ms: u64) {
        let (round, kind) = (message.round(), kind(&message));
        if kind == Kind::Updates {
            // There is one log, and it only grows.
            self.own.retain(|(_, other), _| *other != kind);
        }
        let next_ms = now_ms.saturating_add(pause_ms);
        self.own.insert((round, kind), Own { message, first_ms: now_ms, last_ms: now_ms, next_ms });
        while self.own.len() > OUTBOX_MAX {
            self.own.pop_first();
        }
    }

    /// Messages whose time has come, at most `most` of them. Each comes again after `pause_ms`, or half of its age if that is
    /// longer: who is there has most likely heard what is old, and who comes hears all of it at once.
    pub(super) fn due(&mut self, now_ms: u64, pause_ms: u64, most: usize) -> Vec<RoundMessage> {
        let due = self.own.values_mut().filter(|own| now_ms >= own.next_ms).take(most);
        due.map(|own| {
            let pause_ms = pause_ms.max((now_ms.saturating_sub(own.first_ms) / 2).min(REPEAT_MS_MAX));
            (own.last_ms, own.next_ms) = (now_ms, now_ms.saturating_add(pause_ms));
            own.message.clone()
        })
        .collect()
    }

    /// Makes everything due as soon as it may be repeated: a peer came that has heard none of it.
    pub(super) fn hurry(&mut self, now_ms: u64) {
        for own in self.own.values_mut() {
            own.next_ms = own.next_ms.min(now_ms.max(own.last_ms.saturating_add(REPEAT_MS_MIN)));
        }
    }

    /// How many messages are repeated.
    pub(super) fn len(&self) -> usize {
        self.own.len()
    }

    /// Forgets messages that nobody needs any more: announcements of rounds before `results_from`, and digests and
    /// snapshots of steps before `state_from`.
    pub(super) fn forget(&mut self, results_from: Step, state_from: Step) {
        // Whoever comes late needs the newest snapshot and the log since, however old they are.
        let snapshot = self.own.keys().filter(|(_, kind)| *kind == Kind::Snapshot).map(|(round, _)| *round).max();
        self.own.retain(|(round, kind), _| match kind {
            Kind::Updates => true,
            Kind::Snapshot if Some(*round) == snapshot => true,
            Kind::Result | Kind::Manifest | Kind::Evidence | Kind::Skip => round.step >= results_from,
            Kind::Digest | Kind::Snapshot => round.step >= state_from,
        });
    }
}

#[cfg(test)]
mod tests {
    use psyche_messages::{Digest, DigestAnnounced};

    use super::*;

    fn digest(step: u32, byte: u8) -> RoundMessage {
        RoundMessage::Digest(DigestAnnounced { round: RoundKey::new(0, step), results: 0, digest: Digest([byte; 32]) })
    }

    fn signed(from: u8, step: u32) -> SignedRoundMessage {
        SignedRoundMessage { from: PeerKey([from; 32]), message: digest(step, 0), signature: [0; 64] }
    }

    #[test]
    fn one_peer_cannot_fill_the_room_for_early_messages() {
        let mut early = Early::default();
        for step in 0..100 {
            early.keep(signed(1, step));
        }
        early.keep(signed(2, 1));
        let kept = early.take();
        assert_eq!(kept.len(), EARLY_PER_PEER_MAX + 1);
        assert!(early.is_empty());
        early.keep(signed(1, 1));
        assert_eq!(early.take().len(), 1);
    }

    #[test]
    fn the_newest_message_of_a_kind_and_round_is_repeated_until_it_is_forgotten() {
        let mut outbox = Outbox::default();
        outbox.add(digest(4, 1), 0, 100);
        outbox.add(digest(4, 2), 0, 100);
        assert!(outbox.due(99, 100, 9).is_empty());
        assert_eq!(outbox.due(100, 100, 9), [digest(4, 2)]);
        assert!(outbox.due(199, 100, 9).is_empty());
        outbox.forget(Step(9), Step(4));
        assert_eq!(outbox.due(200, 100, 9).len(), 1);
        outbox.forget(Step(9), Step(5));
        assert!(outbox.due(100_000, 100, 9).is_empty());
    }

    #[test]
    fn repetitions_become_rarer_with_age_and_never_end() {
        let mut outbox = Outbox::default();
        outbox.add(digest(4, 1), 0, 4_000);
        let said: Vec<_> = (0..=200).filter(|second| !outbox.due(second * 1_000, 4_000, 9).is_empty()).collect();
        assert_eq!(said, [4, 8, 12, 18, 27, 41, 62, 92, 122, 152, 182]);
    }

    #[test]
    fn who_comes_hears_everything_at_once_and_a_crowd_hears_it_together() {
        let mut outbox = Outbox::default();
        outbox.add(digest(4, 1), 0, 4_000);
        (100..900).for_each(|now_ms| outbox.hurry(now_ms));
        assert!(outbox.due(999, 4_000, 9).is_empty(), "it was said less than a second ago");
        assert_eq!(outbox.due(1_000, 4_000, 9), [digest(4, 1)]);
        outbox.hurry(50_000);
        assert_eq!(outbox.due(50_000, 4_000, 9), [digest(4, 1)]);
        assert!(outbox.due(50_000, 4_000, 9).is_empty());
    }
}
