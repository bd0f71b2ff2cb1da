//! When nobody has the right parameters any more.
//!
//! All nodes may die at once, or the only ones that could serve a round's payloads. Then no snapshot of the step before
//! the epoch will ever come, and the run would go on without training. Instead the epoch begins with the parameters that
//! most of its clients still hold: whoever holds them declares them to be the ones that the epoch starts from, and serves
//! them to the others. Only a node that is connected to all members but as many as may lie does so, so that a divided
//! network waits: members who hold newer parameters may be on its other side, clients of this epoch or of the next. Those
//! that are gone belong to neither. If nobody holds anything, the run's checkpoint is all there is.

use std::collections::BTreeMap;

use psyche_messages::events::{ModelSource, Phase};
use psyche_messages::{Digest, DigestAnnounced, NodeEvent, RoundKey, RoundMessage, Step};

use super::{Busy, Engine};

impl Engine {
    /// The time to wait for members' snapshots before the node falls back on what it has itself, in milliseconds.
    pub(super) fn snapshot_wait_ms(&self) -> u64 {
        self.config.patience.peers_ms.min(self.warmup_ms() / 4)
    }

    /// The time after which nobody will announce the right parameters any more, in milliseconds.
    pub(super) fn adoption_wait_ms(&self) -> u64 {
        self.config.patience.peers_ms.saturating_mul(2).min(self.warmup_ms() / 2)
    }

    /// Whether this node would know by now if any member held newer parameters: it has been connected to all members but as
    /// many as may lie for long enough, be Warmup as old as it may.
    pub(super) fn has_listened(&self) -> bool {
        let listened_ms = self.hearing_since_ms.map(|since_ms| self.now.mono_ms.saturating_sub(since_ms));
        listened_ms.is_some_and(|listened_ms| listened_ms >= self.adoption_wait_ms())
    }

    /// Notes since when so many are connected.
    pub(super) fn note_hearing(&mut self) {
        if self.hears_enough() {
            self.hearing_since_ms.get_or_insert(self.now.mono_ms);
        } else {
            self.hearing_since_ms = None;
        }
    }

    fn hears_enough(&self) -> bool {
        // Who joined too late for the epoch may hold as much as its clients. This node itself counts, too.
        let members = self.members.len().saturating_add(1);
        let heard = self.members.iter().filter(|peer| self.connected.contains(peer)).count().saturating_add(1);
        self.view.is_some() && heard.saturating_add(liars_among(members)) >= members
    }

    fn warmup_ms(&self) -> u64 {
        self.view.as_ref().map_or(0, |view| view.account.state.coordinator.config.warmup_time.saturating_mul(1_000))
    }

    /// How long the epoch's Warmup has lasted for this node, in milliseconds.
    pub(super) fn warmup_lasted_ms(&self) -> u64 {
        let Some(view) = self.view.as_ref().filter(|view| view.phase() == Phase::Warmup) else { return 0 };
        let chain_s = u64::try_from(self.now.chain.0.saturating_sub(view.phase_start().0)).unwrap_or(0);
        // A local chain's clock may run faster than the machine's.
        self.now.mono_ms.saturating_sub(view.since_ms).max(chain_s.saturating_mul(1_000))
    }

    /// Says what this node holds, and declares it right, if the epoch cannot begin otherwise.
    pub(super) fn drive_adoption(&mut self) {
        let Some(view) = &self.view else { return };
        let (Some(step), Some(digest)) = (self.model.step, self.model.digest) else { return };
        let target = Step(view.step().0.saturating_sub(1));
        let (epoch, began) = (view.epoch(), view.phase_start());
        let outdated = step < target && (self.locate_step(step.next()).is_none() || self.model.trouble.is_some());
        if view.phase() != Phase::Warmup || view.index_of(&self.me()).is_none() || !outdated || self.can_replay(step.next()) {
            return;
        }
        if matches!(self.busy, Some(Busy::Loading { .. } | Busy::Applying { .. })) {
            return;
        }
        if self.model.claimed_in != Some(began) {
            self.model.claimed_in = Some(began);
            let round = RoundKey { epoch, step };
            self.publish(RoundMessage::Digest(DigestAnnounced { round, results: 0, digest }));
        }
        if self.warmup_lasted_ms() >= self.adoption_wait_ms() && self.has_listened() && self.is_chosen(target, step, digest) {
            self.adopt(RoundKey { epoch, step: target }, digest);
        }
    }

    /// Whether none of the clients has anything newer to offer than `target`, and of what they hold
    /// this node's parameters are the most common; of equals the newest, then those of the earliest client.
    fn is_chosen(&self, target: Step, step: Step, digest: Digest) -> bool {
        let Some(view) = &self.view else { return false };
        let clients = view.client_peers();
        let mut groups: BTreeMap<(Step, Digest), Vec<usize>> = BTreeMap::new();
        for (index, peer) in clients.iter().enumerate() {
            let claim = if *peer == self.config.peer { Some((step, digest)) } else { self.digests.claim(peer) };
            if let Some(claim) = claim.filter(|(step, _)| *step <= target) {
                groups.entry(claim).or_default().push(index);
            }
        }
        // Whoever claims to hold the right ones has more time to offer them. Who holds older ones says nothing against them, so
        // that more claims than there may be liars are never passed over, however long it takes.
        let late = self.warmup_lasted_ms() >= self.adoption_wait_ms().saturating_mul(3) / 2;
        let right = groups.iter().filter(|((step, _), _)| *step == target).map(|(_, votes)| votes.len()).max().unwrap_or(0);
        if right > 0 && (!late || right > liars_among(clients.len())) {
            return false;
        }
        groups.retain(|(step, _), _| *step < target);
        let best = groups.iter().max_by_key(|((step, _), votes)| (votes.len(), *step, core::cmp::Reverse(votes.first())));
        best.is_some_and(|(claim, _)| *claim == (step, digest))
    }

    fn adopt(&mut self, round: RoundKey, digest: Digest) {
        let held = self.model.step.unwrap_or_default();
        self.model.hold(round, digest);
        self.resolution = None;
        self.digests.know(round.step, digest, self.now.mono_ms);
        self.warn(format!(
            "no client holds the parameters after step {}, so the epoch begins with those after step {held}",
            round.step
        ));
        self.report(NodeEvent::ModelReady { step: round.step, source: ModelSource::Disk, digest });
        self.publish(RoundMessage::Digest(DigestAnnounced { round, results: 0, digest }));
        self.take_snapshot(round);
    }
}

/// As many of so many members may lie without deciding anything.
const fn liars_among(members: usize) -> usize {
    members.saturating_sub(1) / 3
}
