//! Whose parameters are right: loading, comparing digests, healing, snapshots.
//!
//! Parameters are *current* when they contain exactly the steps that the run has behind it. A node whose parameters are
//! not, or differ from what most members have, says so, stops training, and goes on from a snapshot that members agree
//! on. A node that only lacks something to apply goes on by itself should that arrive after all.

use std::collections::{BTreeSet, VecDeque};

use psyche_messages::events::{ModelSource, Phase};
use psyche_messages::{BlobHash, ChainTime, Digest, Epoch, NodeEvent, PeerKey, RoundKey, Step};
use psyche_protocol::model::Checkpoint;

use super::api::{Effect, LoadFrom};
use super::digests::{Ballot, Verdict};
use super::snapshots::DiskSnapshot;
use super::{Busy, Engine};

/// First pause after a failed load, doubled each time up to [`PAUSE_MS_MAX`].
const PAUSE_MS: u64 = 1_000;
/// Longest pause after a failed load.
const PAUSE_MS_MAX: u64 = 15_000;
/// How many rounds lie at least between two snapshots that are taken to heal others.
const HEAL_EVERY_STEPS: u32 = 8;
/// How far behind the round in work a snapshot may be, so that the rounds since can still be applied.
const CATCH_UP_STEPS: u32 = 5;

/// What is wrong with the parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// They are right, but the next round cannot be applied.
    Stalled {
        /// That round.
        round: RoundKey,
    },
    /// They differ from what most members have.
    Diverged {
        /// The step after which they were compared.
        step: Step,
        /// What most members have.
        right: Digest,
    },
}

/// What this node knows of its parameters.
#[derive(Debug, Default)]
pub(super) struct Model {
    /// The last step that they contain; `None` without parameters.
    pub step: Option<Step>,
    pub digest: Option<Digest>,
    pub trouble: Option<Trouble>,
    /// The step after which more than half of those who counted had this node's digest, and that digest. Who joins and leaves
    /// later changes who counts, but nothing of what was right.
    settled: Option<(Step, Digest)>,
    /// The step whose digests were judged last, and what was known of digests then; `None` where anything else that counts
    /// may have changed since.
    pub judged_by: Option<(Step, u64)>,
    /// The cold-start epoch in which the momentum was forgotten.
    pub momentum_reset_in: Option<Epoch>,
    /// The step whose snapshot is being taken, and how often that was tried.
    pub(super) snapshot_tries: Option<(Step, u32)>,
    /// The step whose snapshot this node serves.
    pub served: Option<Step>,
    /// The steps of the snapshots from which others may go on, oldest first.
    pub kept: VecDeque<Step>,
    /// The Warmup in which this node said what outdated parameters it holds, by its beginning.
    pub claimed_in: Option<ChainTime>,
    failures: u32,
    retry_ms: u64,
    pub(super) disk_tried: bool,
}

impl Model {
    /// The parameters contain `round` now, and have this digest.
    pub(super) fn hold(&mut self, round: RoundKey, digest: Digest) {
        self.step = Some(round.step);
        self.digest = Some(digest);
        self.trouble = None;
    }

    /// The parameters are no longer to be trusted at all.
    pub(super) fn lose(&mut self) {
        self.step = None;
        self.digest = None;
        self.trouble = None;
    }
}

impl Engine {
    /// Notes that a round cannot be applied.
    pub(super) fn stall(&mut self, round: RoundKey, reason: &str) {
        if self.model.trouble.is_none() {
            self.model.trouble = Some(Trouble::Stalled { round });
            self.warn(format!("round {round} cannot be applied, so this node waits for a snapshot: {reason}"));
        }
    }

    /// Whether the parameters are right and belong to the epoch whose first step is `start`.
    pub(super) fn is_sound_since(&self, start: Step) -> bool {
        self.model.trouble.is_none() && self.model.step.is_some_and(|step| step.next() >= start)
    }

    /// Reports comparisons and draws the conclusion for this node's own parameters.
    pub(super) fn drive_digests(&mut self) {
        for (step, peer, equal) in self.digests.fresh_comparisons() {
            self.report(NodeEvent::DigestCompared { step, peer, equal });
        }
        let Some(step) = self.model.step else { return };
        if matches!(self.busy, Some(Busy::Loading { .. } | Busy::Applying { .. })) {
            return;
        }
        // Most of what is heard says nothing of digests, and counting takes time for each member.
        let facts = Some((step, self.digests.revision()));
        if core::mem::replace(&mut self.model.judged_by, facts) == facts || self.nothing_is_disputed(step) {
            return;
        }
        let judges = self.judges(step);
        let ballot = self.digests.ballot(step, &judges, &self.config.peer);
        match ballot.verdict(self.now.mono_ms, self.config.patience.digest_ms) {
            Verdict::Open => {}
            Verdict::Sound => {
                if matches!(self.model.trouble, Some(Trouble::Diverged { .. })) {
                    self.model.trouble = None;
                }
                let majority = ballot.majority();
                if majority.is_some() && majority == self.model.digest {
                    self.model.settled = majority.map(|digest| (step, digest));
                }
                self.serve_dissenters(step, &judges);
            }
            Verdict::Diverged { right } if self.is_settled(step) && ballot.majority() != Some(right) => {}
            Verdict::Diverged { right } => {
                let trouble = Trouble::Diverged { step, right };
                if self.model.trouble.as_ref() != Some(&trouble) {
                    self.model.trouble = Some(trouble);
                    self.blame_last_log(step);
                    self.warn(format!(
                        "the parameters after step {step} differ from those of most members ({}); this node heals itself",
                        right.short()
                    ));
                }
            }
        }
    }

    /// Whether nobody said anything else after `step` than this node holds, and counting decides nothing: so many said so
    /// before that it was settled, or so few that it cannot be.
    fn nothing_is_disputed(&self, step: Step) -> bool {
        let Some(equal) = self.digests.unanimous(step).filter(|_| self.model.trouble.is_none()) else { return false };
        let clients = self.view.as_ref().map_or(0, |view| view.account.clients().len());
        self.is_settled(step) || equal.saturating_mul(2) <= clients
    }

    /// Who has which digest after `step`, of those who count.
    fn ballot(&self, step: Step) -> Ballot {
        self.digests.ballot(step, &self.judges(step), &self.config.peer)
    }

    /// Whether more than half of those who counted after `step` had what this node has. No smaller group overrules that.
    fn is_settled(&self, step: Step) -> bool {
        self.model.digest.is_some_and(|digest| self.model.settled == Some((step, digest)))
    }

    /// Whether the parameters after `step` should be compared with the members' before anything is built on them.
    pub(super) fn awaits_comparison(&self, step: Step) -> bool {
        let (now_ms, patience_ms) = (self.now.mono_ms, self.config.patience.digest_ms);
        self.view.is_some() && self.ballot(step).is_open(now_ms, patience_ms)
    }

    /// Whose digests after `step` count: the clients', and what those said who were clients in that round and have been dropped
    /// since. They applied the same, and where few are left each of them counts. Where they are tied, those who joined for the
    /// next epoch and have applied the step from a log have a word, too.
    fn judges(&self, step: Step) -> Vec<PeerKey> {
        let Some(view) = &self.view else { return Vec::new() };
        let mut judges = view.client_peers();
        let facts = self.locate_step(step).and_then(|(at, height)| self.logs.get(at)?.facts_at(height));
        let then = facts.into_iter().flat_map(|facts| &facts.members).map(|member| member.peer);
        // Mostly they are the same.
        if !then.clone().eq(judges.iter().copied()) {
            self.call(step, &mut judges, then);
        }
        if self.digests.ballot(step, &judges, &self.config.peer).is_tied() {
            self.call(step, &mut judges, view.pending().into_iter().map(|member| member.peer));
        }
        judges
    }

    /// Adds those of `peers` that told their digest after `step`.
    fn call(&self, step: Step, judges: &mut Vec<PeerKey>, peers: impl Iterator<Item = PeerKey>) {
        let mut called: BTreeSet<_> = judges.iter().copied().collect();
        for peer in peers {
            let spoke = peer == self.config.peer || self.digests.is_told(step, &peer);
            if spoke && called.insert(peer) {
                judges.push(peer);
            }
        }
    }

    /// Takes a snapshot in the middle of an epoch for members whose parameters are wrong, if this node is the first of
    /// those who are right.
    fn serve_dissenters(&mut self, step: Step, members: &[PeerKey]) {
        let Some(view) = &self.view else { return };
        let first = self.digests.first_agreeing(step, members, &self.config.peer) == Some(self.config.peer);
        let recent = self.model.snapshot_tries.is_some_and(|(last, _)| step.since(last) < HEAL_EVERY_STEPS);
        if !view.in_round() || !first || recent || self.digests.dissenters(step, members) == 0 {
            return;
        }
        let Some((at, height)) = self.locate_step(step) else { return };
        let Some(round) = self.logs.get(at).map(|log| log.round(height)) else { return };
        self.take_snapshot(round);
    }

    /// Starts to load parameters, if this node lacks the right ones and knows where to get them.
    pub(super) fn drive_loading(&mut self) {
        let Some(view) = &self.view else { return };
        if self.busy.is_some() || self.now.mono_ms < self.model.retry_ms {
            return;
        }
        let target = Step(view.step().0.saturating_sub(1));
        let choice = match view.phase() {
            Phase::Uninitialized | Phase::Paused => None,
            Phase::RoundTrain | Phase::RoundWitness if self.model.step.is_none() => {
                self.source_at_start().or_else(|| self.source_to_replay())
            }
            Phase::RoundTrain | Phase::RoundWitness => self.source_in_round().or_else(|| self.source_to_replay()),
            Phase::WaitingForMembers | Phase::Warmup | Phase::Cooldown | Phase::Finished => {
                if self.needs_load(target) {
                    self.source_between_rounds(target).or_else(|| self.source_to_replay())
                } else {
                    None
                }
            }
        };
        if let Some((step, from, right)) = choice {
            let index = if let LoadFrom::Peers { index, .. } = &from { Some(*index) } else { None };
            self.busy = Some(Busy::Loading { step, right, index });
            self.out.push(Effect::LoadModel { step, from });
        }
    }

    /// Whether parameters after `target` must come from elsewhere: there are none, or wrong ones, and nothing that is
    /// left to apply leads there.
    fn needs_load(&self, target: Step) -> bool {
        let Some(view) = &self.view else { return false };
        let me = self.me();
        let belongs = view.index_of(&me).is_some() || view.is_pending(&me);
        match (self.model.step, &self.model.trouble) {
            // Who comes when all is over has something to do only with what others may lack.
            (None, _) => belongs && (view.phase() != Phase::Finished || self.disk_leads_to(target)),
            (Some(_), Some(_)) => true,
            (Some(step), None) => {
                belongs && step != target && self.locate_step(step.next()).is_none() && !self.can_replay(step.next())
            }
        }
    }

    /// Whether this node's own snapshot or update log reaches `target`.
    fn disk_leads_to(&self, target: Step) -> bool {
        self.config.disk.is_some_and(|disk| disk.step == target) || self.updates.own.is_some_and(|(_, last)| last >= target)
    }

    fn source_between_rounds(&mut self, target: Step) -> Option<(Step, LoadFrom, Option<Digest>)> {
        let diverged = match &self.model.trouble {
            Some(Trouble::Diverged { step, right }) if *step == target => Some(*right),
            _ => None,
        };
        if let Some(source) = self.peers_source(target, diverged) {
            return Some(source);
        }
        if diverged.is_some() {
            return None;
        }
        // Parameters from before are worth keeping, those from after it are not: the owner went back.
        if self.model.step.is_some_and(|step| step <= target) {
            return None;
        }
        if target == Step(0) {
            return Some((target, LoadFrom::Checkpoint, None));
        }
        let lasted_ms = self.warmup_lasted_ms();
        if let Some(disk) = self.config.disk
            && !self.model.disk_tried
            && (disk.step == target || disk.step < target && lasted_ms >= self.snapshot_wait_ms())
        {
            self.model.disk_tried = true;
            return Some((disk.step, LoadFrom::Disk, Some(disk.digest)));
        }
        let clients = self.view.as_ref()?.client_peers();
        let in_vain = lasted_ms >= self.adoption_wait_ms() && self.has_listened() && !self.digests.anyone_holds(&clients);
        if lasted_ms > 0 && in_vain && self.checkpoint_is_external() {
            self.warn(format!("no member holds parameters after step {target}; the run's checkpoint is loaded instead"));
            return Some((target, LoadFrom::Checkpoint, None));
        }
        None
    }

    /// Whether the account names weights outside the run, rather than its members.
    pub(super) fn checkpoint_is_external(&self) -> bool {
        let checkpoint = self.view.as_ref().and_then(|view| view.account.state.coordinator.model.checkpoint.get());
        matches!(checkpoint, Some(Checkpoint::Hub(_) | Checkpoint::Gcs(_) | Checkpoint::Dummy(_)))
    }

    /// In the first rounds of an epoch, a client whose load failed tries again: it can still catch up.
    fn source_at_start(&mut self) -> Option<(Step, LoadFrom, Option<Digest>)> {
        let view = self.view.as_ref()?;
        view.index_of(&self.me())?;
        let log = self.logs.back().filter(|log| log.is_shown(&view.account) && log.head <= CATCH_UP_STEPS)?;
        log.facts_at(0)?;
        let target = Step(log.start_step.0.saturating_sub(1));
        self.source_between_rounds(target)
    }

    /// In the middle of an epoch, a client in trouble goes on from any snapshot from which it can catch up.
    fn source_in_round(&self) -> Option<(Step, LoadFrom, Option<Digest>)> {
        let view = self.view.as_ref()?;
        let trouble = self.model.trouble.as_ref()?;
        view.index_of(&self.me())?;
        let steps: Vec<_> = self.snapshots.steps().collect();
        steps.into_iter().find_map(|step| {
            let (_, height) = self.locate_step(step.next())?;
            let known = self.locate_step(step.next()).and_then(|(at, _)| self.logs.get(at)?.facts_at(height)).is_some();
            if !known || view.step().since(step) > CATCH_UP_STEPS {
                return None;
            }
            let better = match trouble {
                Trouble::Stalled { round } => step >= round.step,
                Trouble::Diverged { .. } => true,
            };
            let right = self.ballot(step).majority()?;
            better.then(|| self.peers_source(step, Some(right))).flatten()
        })
    }

    pub(super) fn peers_source(&self, step: Step, right: Option<Digest>) -> Option<(Step, LoadFrom, Option<Digest>)> {
        let view = self.view.as_ref()?;
        let members = self.snapshot_authorities(view.client_peers());
        let now_ms = self.now.mono_ms;
        let offer = self.snapshots.choose(step, &members, right, now_ms, self.config.patience.snapshot_ms)?;
        if self.model.step == Some(step) && self.model.digest == Some(offer.announced.digest) {
            return None;
        }
        let digest = offer.announced.digest;
        let (index, len) = (offer.announced.index, offer.announced.index_len);
        Some((step, LoadFrom::Peers { index, len, digest, providers: offer.providers }, Some(digest)))
    }

    /// Whose snapshots count: the clients of the last epoch that this node saw, and those of the account's. A newcomer
    /// among the latter has nothing of its own to announce.
    pub(super) fn snapshot_authorities(&self, clients: Vec<PeerKey>) -> Vec<PeerKey> {
        let mut authorities = clients;
        if let Some(facts) = self.logs.back().and_then(|log| log.newest_facts()) {
            for member in &facts.members {
                if !authorities.contains(&member.peer) {
                    authorities.push(member.peer);
                }
            }
        }
        // Where snapshots differ, one stands against another: whoever's log turned out false is believed last.
        authorities.sort_by_key(|peer| self.updates.is_refused(peer));
        authorities
    }

    pub(super) fn on_model_loaded(&mut self, step: Step, digest: Digest, source: ModelSource) {
        let Some(Busy::Loading { step: loading, right, index }) = self.busy else { return };
        if loading != step {
            return;
        }
        self.busy = None;
        if right.is_some_and(|right| right != digest) {
            self.model.lose();
            self.refuse_load(step, right, index);
            return;
        }
        self.model.failures = 0;
        // A snapshot of this step that was taken before may hold what has just been replaced.
        self.model.snapshot_tries = None;
        self.model.served = None;
        let epoch = self.view.as_ref().map(super::view::View::epoch).unwrap_or_default();
        let round = RoundKey { epoch, step };
        self.model.hold(round, digest);
        self.updates.forget_replay();
        self.resolution = None;
        self.digests.know(step, digest, self.now.mono_ms);
        self.report(NodeEvent::ModelReady { step, source, digest });
        self.tell_digest(round, 0, digest);
    }

    pub(super) fn on_model_refuted(&mut self, step: Step) {
        let Some(Busy::Loading { step: loading, right, index }) = self.busy else { return };
        if loading == step {
            self.busy = None;
            self.refuse_load(step, right, index);
        }
    }

    /// Never loads again what was not what it was announced to be.
    fn refuse_load(&mut self, step: Step, right: Option<Digest>, index: Option<BlobHash>) {
        self.back_off();
        if let (Some(index), Some(right)) = (index, right) {
            self.snapshots.refuse(index);
            self.digests.discredit(step, right);
        }
        self.warn(format!("the parameters loaded after step {step} are not the ones that were announced"));
    }

    pub(super) fn on_disk_snapshot_changed(&mut self, disk: Option<DiskSnapshot>) {
        if self.config.disk != disk {
            self.config.disk = disk;
            self.model.disk_tried = false;
        }
    }

    pub(super) fn on_model_load_failed(&mut self, reason: &str) {
        let Some(Busy::Loading { index, .. }) = self.busy else { return };
        self.busy = None;
        if let Some(index) = index {
            self.snapshots.fail(index);
        }
        self.back_off();
        self.warn(format!("the parameters could not be loaded: {reason}"));
    }

    fn back_off(&mut self) {
        let pause = PAUSE_MS.saturating_mul(1 << self.model.failures.min(8)).min(PAUSE_MS_MAX);
        self.model.failures = self.model.failures.saturating_add(1);
        self.model.retry_ms = self.now.mono_ms.saturating_add(pause);
    }
}
