//! Judging gossip: nothing is passed on or reported before it is decoded, its signature is verified and it is of this run.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use libp2p::PeerId;
use libp2p::gossipsub::{self, Message, MessageAcceptance, PublishError};
use psyche_messages::{RoundMessage, SignedRoundMessage};
use tokio::sync::mpsc::error::TrySendError;

use super::Driver;
use crate::behaviour::topic_of;
use crate::conduct::Offence;
use crate::handle::NetEvent;
use crate::identity::peer_id_of;
use crate::wire::{INDEX_BYTES_MAX, MANIFEST_BYTES_MAX, UPDATES_BYTES_MAX};

/// Messages that are remembered, so that repetitions are neither verified nor reported again.
const SEEN_MAX: usize = 4096;

/// Messages that an author may send in a burst, and each second after it. An honest one repeats at most 32 every 4 seconds,
/// and all that it keeps when somebody comes, once a second at most.
const BURST: f64 = 128.0;
const PER_SECOND: f64 = 32.0;

/// Authors whose rate is followed.
const AUTHORS_MAX: usize = 2048;

/// What to do with a message.
enum Verdict {
    /// Pass it on; report it, if it is new.
    Accept(Option<Box<SignedRoundMessage>>),
    /// Neither pass it on nor blame anybody.
    Ignore,
    /// No honest node passes it on.
    Reject,
    /// Its author alone is to blame: others may know less of the run.
    Blame(PeerId, Offence),
}

impl Driver {
    /// Sends an envelope to whoever is there.
    pub(super) fn publish(&mut self, envelope: Vec<u8>) {
        let topic = topic_of(self.wire.run_tag());
        match self.swarm.behaviour_mut().gossip.publish(topic, envelope) {
            // Whoever comes later hears it from the outbox, and its author repeats it.
            Ok(_) | Err(PublishError::NoPeersSubscribedToTopic | PublishError::AllQueuesFull(_)) => {}
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "message can't be published"),
        }
    }

    pub(super) fn on_gossip(&mut self, event: gossipsub::Event) {
        match event {
            gossipsub::Event::Message { propagation_source, message_id, message } => {
                let acceptance = match self.judge(&message) {
                    Verdict::Accept(new) => {
                        if let Some(signed) = new {
                            self.report(*signed, &message);
                        }
                        MessageAcceptance::Accept
                    }
                    Verdict::Ignore => MessageAcceptance::Ignore,
                    Verdict::Blame(author, offence) => {
                        self.note_offence(author, offence);
                        MessageAcceptance::Ignore
                    }
                    Verdict::Reject => {
                        self.note_offence(propagation_source, Offence::InvalidGossip);
                        MessageAcceptance::Reject
                    }
                };
                let gossip = &mut self.swarm.behaviour_mut().gossip;
                // False only if the message has left the cache meanwhile, which changes nothing here.
                let _cached = gossip.report_message_validation_result(&message_id, &propagation_source, acceptance);
            }
            gossipsub::Event::Subscribed { peer_id, .. } => {
                tracing::debug!(peer = %peer_id, "peer subscribed");
                self.outbox.repeat_all(Instant::now());
            }
            gossipsub::Event::Unsubscribed { .. } => {}
            gossipsub::Event::GossipsubNotSupported { peer_id } => {
                tracing::debug!(peer = %peer_id, "peer speaks no gossip");
            }
            gossipsub::Event::SlowPeer { peer_id, .. } => tracing::debug!(peer = %peer_id, "peer takes gossip slowly"),
        }
    }

    fn judge(&mut self, message: &Message) -> Verdict {
        // Strict validation has checked that there is a source and that it signed.
        let Some(source) = message.source else { return Verdict::Reject };
        if !self.rates.admit(source, Instant::now()) {
            return Verdict::Ignore;
        }
        if let Some(author) = self.seen.author_of(&message.data) {
            return if author == source { Verdict::Accept(None) } else { Verdict::Reject };
        }
        let signed = match self.wire.decode_message(&message.data) {
            Ok(signed) => signed,
            Err(error) if error.is_other_version() => return Verdict::Ignore,
            Err(error) => {
                tracing::debug!(peer = %source, error = &error as &dyn std::error::Error, "invalid gossip");
                return Verdict::Reject;
            }
        };
        if peer_id_of(&signed.from) != Some(source) {
            return Verdict::Reject;
        }
        // The roster here may lag behind: the author's repetitions count once it has caught up.
        if !self.members.is_empty() && !self.members.contains(&source) {
            return Verdict::Ignore;
        }
        if !self.is_of_possible_length(&signed.message) {
            return Verdict::Blame(source, Offence::WrongLength);
        }
        Verdict::Accept(Some(Box::new(signed)))
    }

    /// Whether what is announced can have the length that is said: before anybody asks for it.
    fn is_of_possible_length(&self, message: &RoundMessage) -> bool {
        match message {
            RoundMessage::Result(result) => self.payload_len.is_none_or(|len| result.payload_len == len),
            RoundMessage::Manifest(manifest) => manifest.blob_len as usize <= MANIFEST_BYTES_MAX,
            RoundMessage::Snapshot(snapshot) => snapshot.index_len as usize <= INDEX_BYTES_MAX,
            RoundMessage::Updates(updates) => updates.blob_len as usize <= UPDATES_BYTES_MAX,
            RoundMessage::Digest(_) | RoundMessage::Evidence(_) | RoundMessage::Skip(_) => true,
        }
    }

    /// Reports a new message. If the node does not keep up, it stays new, and the author's repetition is reported.
    fn report(&mut self, signed: SignedRoundMessage, message: &Message) {
        match self.events.try_send(NetEvent::Round(signed)) {
            Ok(()) => {
                if let Some(source) = message.source {
                    self.seen.insert(&message.data, source);
                }
            }
            Err(TrySendError::Full(_)) => tracing::warn!("event queue is full, gossip waits for its repetition"),
            // Nobody listens any more: the node is about to stop.
            Err(TrySendError::Closed(_)) => {}
        }
    }
}

/// Envelopes that were verified and reported, by hash, with their authors.
#[derive(Default)]
pub(super) struct Seen {
    authors: HashMap<[u8; 32], PeerId>,
    order: VecDeque<[u8; 32]>,
}

impl Seen {
    fn author_of(&self, envelope: &[u8]) -> Option<PeerId> {
        self.authors.get(blake3::hash(envelope).as_bytes()).copied()
    }

    fn insert(&mut self, envelope: &[u8], author: PeerId) {
        let hash = *blake3::hash(envelope).as_bytes();
        if self.authors.insert(hash, author).is_none() {
            self.order.push_back(hash);
            if self.order.len() > SEEN_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.authors.remove(&oldest);
            }
        }
    }
}

struct Bucket {
    tokens: f64,
    at: Instant,
}

/// How much each author may still say.
#[derive(Default)]
pub(super) struct Rates {
    buckets: HashMap<PeerId, Bucket>,
}

impl Rates {
    /// Whether another message of `author` is within bounds.
    fn admit(&mut self, author: PeerId, now: Instant) -> bool {
        if self.buckets.len() >= AUTHORS_MAX && !self.buckets.contains_key(&author) {
            return false;
        }
        let bucket = self.buckets.entry(author).or_insert(Bucket { tokens: BURST, at: now });
        let elapsed = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.tokens = elapsed.mul_add(PER_SECOND, bucket.tokens).min(BURST);
        bucket.at = now;
        let admitted = bucket.tokens >= 1.0;
        if admitted {
            bucket.tokens -= 1.0;
        }
        admitted
    }

    /// Drops the authors whose bucket is full again.
    pub(super) fn forget_idle(&mut self, now: Instant) {
        let full = Duration::from_secs_f64(BURST / PER_SECOND);
        self.buckets.retain(|_, bucket| now.saturating_duration_since(bucket.at) < full);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_author_may_send_a_burst_and_then_a_steady_rate() {
        let (mut rates, author, start) = (Rates::default(), PeerId::random(), Instant::now());
        let admitted = (0..1000).filter(|_| rates.admit(author, start)).count();
        assert_eq!(admitted, 128);
        let later = start + Duration::from_secs(1);
        assert_eq!((0..1000).filter(|_| rates.admit(author, later)).count(), 32);
        assert!(rates.admit(PeerId::random(), later), "others are not affected");
        rates.forget_idle(later + Duration::from_secs(60));
        assert!(rates.buckets.is_empty());
    }

    #[test]
    fn the_memory_of_messages_is_bounded_and_the_newest_stay() {
        let (mut seen, author) = (Seen::default(), PeerId::random());
        for number in 0..2 * SEEN_MAX {
            seen.insert(&number.to_le_bytes(), author);
        }
        assert_eq!((seen.authors.len(), seen.order.len()), (SEEN_MAX, SEEN_MAX));
        assert_eq!(seen.author_of(&0_usize.to_le_bytes()), None);
        assert_eq!(seen.author_of(&(2 * SEEN_MAX - 1).to_le_bytes()), Some(author));
    }
}
