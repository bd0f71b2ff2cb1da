//! The node's own newest messages, kept to be said again when somebody comes: gossip reaches whoever is there, and peers come late
//! or were away. What is worth repeating to those who are there is decided by whoever said it.
//!
//! One message for each kind and round: those of the last rounds, the newest snapshot, and the newest page of the update log.
//! Pure: the caller brings the time and sends.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use psyche_messages::{RoundMessage, Step};

/// How many rounds behind the newest a message is still repeated.
const ROUNDS_KEPT: u32 = 3;

/// How often at most, however many peers appear.
const REPEAT_GAP: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Kind {
    Result,
    Manifest,
    Digest,
    Snapshot,
    Evidence,
    Skip,
    Updates,
}

const fn kind_of(message: &RoundMessage) -> Kind {
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

struct Kept {
    envelope: Vec<u8>,
    sent: Instant,
    /// When it is said again, if somebody has come since.
    due: Option<Instant>,
}

/// The messages. At most `6 * (ROUNDS_KEPT + 1) + 1` of them: steps count up by one, and older ones go.
#[derive(Default)]
pub(crate) struct Outbox {
    kept: BTreeMap<(Step, Kind), Kept>,
}

impl Outbox {
    /// Keeps `envelope`, which says `message` and was sent at `now`. Replaces an earlier one of its kind and round.
    pub(crate) fn keep(&mut self, message: &RoundMessage, envelope: Vec<u8>, now: Instant) {
        let step = message.round().step;
        self.kept.insert((step, kind_of(message)), Kept { envelope, sent: now, due: None });
        let newest = self.kept.keys().map(|(step, _)| *step).max().unwrap_or_default();
        let last = |wanted| self.kept.keys().filter(|(_, kind)| *kind == wanted).map(|(step, _)| *step).max();
        let (snapshot, updates) = (last(Kind::Snapshot), last(Kind::Updates));
        self.kept.retain(|(step, kind), _| match kind {
            Kind::Snapshot => Some(*step) == snapshot,
            Kind::Updates => Some(*step) == updates,
            _ => newest.since(*step) <= ROUNDS_KEPT,
        });
    }

    /// Somebody is there at `now` who may have heard nothing: makes everything due as soon as it may be repeated.
    pub(crate) fn repeat_all(&mut self, now: Instant) {
        for kept in self.kept.values_mut() {
            kept.due.get_or_insert(now.max(kept.sent + REPEAT_GAP));
        }
    }

    /// The envelopes to be sent at `now`, oldest round first.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let due = self.kept.values_mut().filter(|kept| kept.due.is_some_and(|due| due <= now));
        due.map(|kept| {
            (kept.sent, kept.due) = (now, None);
            kept.envelope.clone()
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use psyche_messages::{BlobHash, Digest, DigestAnnounced, RoundKey, SnapshotAnnounced};

    use super::*;

    fn digest(step: u32) -> RoundMessage {
        RoundMessage::Digest(DigestAnnounced { round: RoundKey::new(0, step), results: 1, digest: Digest([0; 32]) })
    }

    fn snapshot(step: u32) -> RoundMessage {
        let (digest, index) = (Digest([0; 32]), BlobHash([0; 32]));
        RoundMessage::Snapshot(SnapshotAnnounced { round: RoundKey::new(0, step), digest, index, index_len: 1 })
    }

    /// What newcomers hear who come at `now`.
    fn heard(outbox: &mut Outbox, now: Instant) -> Vec<Vec<u8>> {
        outbox.repeat_all(now);
        outbox.due(now + REPEAT_GAP)
    }

    #[test]
    fn newcomers_hear_the_messages_of_the_last_three_rounds() {
        let (mut outbox, start) = (Outbox::default(), Instant::now());
        outbox.keep(&digest(1), vec![1], start);
        assert!(outbox.due(start + 60 * REPEAT_GAP).is_empty(), "nobody has come");
        assert_eq!(heard(&mut outbox, start), [vec![1]]);
        assert!(outbox.due(start + 60 * REPEAT_GAP).is_empty(), "it was said");
        outbox.keep(&digest(4), vec![4], start);
        assert_eq!(heard(&mut outbox, start + 2 * REPEAT_GAP), [vec![1], vec![4]]);
        outbox.keep(&digest(5), vec![5], start);
        assert_eq!(heard(&mut outbox, start + 4 * REPEAT_GAP), [vec![4], vec![5]]);
    }

    #[test]
    fn a_new_peer_hears_everything_soon_and_a_crowd_of_them_hears_it_once() {
        let (mut outbox, start) = (Outbox::default(), Instant::now());
        outbox.keep(&digest(1), vec![1], start);
        outbox.repeat_all(start);
        assert!(outbox.due(start).is_empty(), "it was said just now");
        assert_eq!(outbox.due(start + REPEAT_GAP), [vec![1]]);
        let later = start + 2 * REPEAT_GAP;
        (0..100).for_each(|_| outbox.repeat_all(later));
        assert_eq!(outbox.due(later), [vec![1]]);
        outbox.repeat_all(later);
        assert!(outbox.due(later).is_empty());
    }

    #[test]
    fn a_later_message_of_the_same_kind_and_round_replaces_the_first() {
        let (mut outbox, start) = (Outbox::default(), Instant::now());
        outbox.keep(&digest(1), vec![1], start);
        outbox.keep(&digest(1), vec![2], start);
        outbox.keep(&snapshot(1), vec![3], start);
        assert_eq!(heard(&mut outbox, start), [vec![2], vec![3]]);
    }

    #[test]
    fn a_message_that_is_said_anew_while_it_is_due_is_not_said_twice() {
        let (mut outbox, start) = (Outbox::default(), Instant::now());
        outbox.keep(&digest(1), vec![1], start);
        outbox.repeat_all(start);
        outbox.keep(&digest(1), vec![1], start + REPEAT_GAP);
        assert!(outbox.due(start + 2 * REPEAT_GAP).is_empty());
    }

    #[test]
    fn newcomers_hear_of_the_newest_snapshot_however_old_it_is() {
        let (mut outbox, start) = (Outbox::default(), Instant::now());
        outbox.keep(&snapshot(1), vec![1], start);
        outbox.keep(&snapshot(2), vec![2], start);
        for step in 3..40 {
            outbox.keep(&digest(step), vec![9], start);
        }
        assert_eq!(heard(&mut outbox, start), [vec![2], vec![9], vec![9], vec![9], vec![9]]);
    }
}
