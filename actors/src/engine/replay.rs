//! Catching up: applies what the members' update logs say was applied, exactly, and checks the digest after every step.
//!
//! Used for steps whose round this node did not see, or cannot apply by itself. A log is signed by its author and proves
//! itself: it begins with the digest that this node has, and each step must end with the digest that it names. Where a log
//! ends, the members' digests judge it. A log that is found false is never used again, nor is its author believed.

use std::collections::VecDeque;

use psyche_messages::events::Phase;
use psyche_messages::{
    AppliedStep, Digest, DigestAnnounced, NodeEvent, PeerKey, ResultAnnounced, RoundKey, RoundMessage, Step, UpdatesAnnounced,
};

use super::api::{Effect, FetchFault, Lie, LoadFrom, StepSchedule};
use super::ledger::LEDGER_STEPS_MAX;
use super::model::Trouble;
use super::updates::Replay;
use super::{Busy, Engine};

/// Steps whose payloads are fetched ahead.
const STEPS_AHEAD: usize = 8;
/// An answer that takes longer is taken for lost.
const ANSWER_MS: u64 = 60_000;
/// How far behind the step in work a digest is still of use to others.
const DIGEST_STEPS: u32 = 8;
/// Most bytes of payloads that are kept for those who replay.
const PAYLOAD_BYTES_MAX: u64 = 4 << 30;

impl Engine {
    /// Whether a log tells what was applied in `step`, so that no newer snapshot is needed.
    pub(super) fn can_replay(&self, step: Step) -> bool {
        let Some(view) = &self.view else { return false };
        let at_work = self.updates.replay.as_ref().is_some_and(|replay| match &replay.steps {
            None => replay.from == step,
            Some(steps) => steps.front().is_some_and(|next| next.round.step == step),
        });
        step < view.step() && (at_work || self.log_author(step).is_some())
    }

    fn log_author(&self, step: Step) -> Option<PeerKey> {
        let view = self.view.as_ref()?;
        let members = self.snapshot_authorities(view.client_peers());
        self.updates.choose(step, &members, &self.config.peer, self.now.mono_ms)
    }

    /// Whether this node saw the round `step`, and finds out by itself what to apply. What it applied once before, or cannot
    /// find out in time, it takes from a log.
    fn is_seen(&self, step: Step) -> bool {
        let stalled = matches!(self.model.trouble, Some(Trouble::Stalled { round }) if round.step == step);
        let applied_before = self.updates.own.is_some_and(|(first, last)| first <= step && step <= last);
        let facts = self.locate_step(step).and_then(|(at, height)| self.logs.get(at)?.facts_at(height));
        let late = self.waited_ms(step) >= self.config.patience.manifest_ms.saturating_mul(2);
        facts.is_some() && !stalled && !applied_before && !late
    }

    /// Goes on with applying `step` from a log; false if that is not needed, or no log tells of it.
    pub(super) fn drive_replay(&mut self, step: Step) -> bool {
        let Some(view) = &self.view else { return false };
        if step >= view.step() || matches!(view.phase(), Phase::Uninitialized) {
            return false;
        }
        let now_ms = self.now.mono_ms;
        match &self.updates.replay {
            Some(Replay { steps: None, since_ms, author, .. }) => {
                if now_ms >= since_ms.saturating_add(ANSWER_MS) {
                    let author = *author;
                    self.leave_log(author);
                }
                return !self.is_seen(step);
            }
            Some(Replay { steps: Some(steps), .. }) if steps.front().is_some_and(|next| next.round.step == step) => {
                return self.replay_next();
            }
            Some(_) => self.end_replay(),
            None => {}
        }
        if self.is_seen(step) {
            return false;
        }
        let Some(author) = self.log_author(step) else { return false };
        let head = self.updates.of(&author).map(|head| (head.blob, head.blob_len));
        self.updates.replay = Some(Replay { author, from: step, steps: None, since_ms: now_ms });
        self.out.push(Effect::FetchUpdates { author, head, from: step });
        true
    }

    /// Applies the next step of the log, if its payloads are here, and fetches those of the steps after it.
    fn replay_next(&mut self) -> bool {
        let Some(Replay { author, steps: Some(steps), since_ms, .. }) = &self.updates.replay else { return false };
        let (author, since_ms) = (*author, *since_ms);
        let Some(next) = steps.front().cloned() else { return false };
        let ahead: Vec<ResultAnnounced> = steps.iter().take(STEPS_AHEAD).flat_map(|step| step.results.clone()).collect();
        for result in ahead {
            if !self.fetches.is_here(&result.payload) {
                self.want_payload(&result, &[author]);
            }
        }
        if next.results.iter().any(|result| self.fetches.is_malformed(&result.payload)) {
            self.blame(author, "it names a payload that is malformed");
            return true;
        }
        let absent = next.results.iter().filter(|result| !self.fetches.is_here(&result.payload)).count();
        if absent == 0 {
            self.start_applying(next.round, next.results, StepSchedule { cold_start: next.cold_start });
        } else if self.now.mono_ms >= since_ms.saturating_add(self.config.patience.apply_ms) {
            self.leave_log(author);
            if self.model.trouble.is_none() {
                self.stall(next.round, &format!("{absent} of the payloads that its log names are missing"));
            }
            return false;
        }
        true
    }

    pub(super) fn on_updates_fetched(&mut self, author: PeerKey, outcome: Result<Vec<AppliedStep>, FetchFault>) {
        let awaited = self.updates.replay.as_ref().filter(|replay| replay.author == author && replay.steps.is_none());
        let Some(from) = awaited.map(|replay| replay.from) else { return };
        let steps = match outcome {
            Ok(steps) => steps,
            Err(FetchFault::Unavailable) => return self.leave_log(author),
            Err(FetchFault::Malformed) => return self.blame(author, "it is malformed"),
        };
        let payload_len = self.config.payload_len;
        let sound = steps.len() <= LEDGER_STEPS_MAX
            && steps.windows(2).all(|pair| pair[1].follows(&pair[0]))
            && steps.iter().all(|step| step.is_sound() && step.results.iter().all(|result| result.payload_len == payload_len));
        if !sound {
            return self.blame(author, "its steps do not follow each other");
        }
        let steps: VecDeque<_> = steps.into_iter().skip_while(|step| step.round.step < from).collect();
        let next = self.model.step.map(Step::next);
        let (Some(first), Some(digest)) = (steps.front(), self.model.digest) else { return self.leave_log(author) };
        if Some(first.round.step) != next {
            return self.leave_log(author);
        }
        let before = first.before;
        if before != digest {
            return self.dispute(author, before);
        }
        if let Some(replay) = &mut self.updates.replay {
            replay.steps = Some(steps);
            replay.since_ms = self.now.mono_ms;
        }
    }

    /// A log goes on from other parameters than this node's; if most do, this node's are wrong.
    fn dispute(&mut self, author: PeerKey, before: Digest) {
        self.leave_log(author);
        if author == self.config.peer {
            self.updates.own = None;
            return;
        }
        let (Some(view), Some(step)) = (&self.view, self.model.step) else { return };
        let members = view.client_peers();
        if let Some(right) = self.updates.dispute(author, before, &members) {
            self.model.trouble = Some(Trouble::Diverged { step, right });
            self.warn(format!("the parameters after step {step} are not those that most members' update logs go on from"));
        }
    }

    /// Uses another log for now.
    pub(super) fn leave_log(&mut self, author: PeerKey) {
        self.end_replay();
        self.updates.pause(author, self.now.mono_ms);
    }

    /// Never uses a log again that is false.
    fn blame(&mut self, author: PeerKey, why: &str) {
        self.end_replay();
        if author == self.config.peer {
            self.updates.own = None;
            self.warn(format!("this node's own update log is of no use: {why}"));
        } else {
            self.updates.refuse(author);
            self.warn(format!("the update log of {author} is not used any more: {why}"));
            self.out.push(Effect::Blame { peer: author, lie: Lie::FalseLog });
        }
    }

    /// Says what was replayed.
    pub(super) fn end_replay(&mut self) {
        let Some(replay) = self.updates.replay.take() else { return };
        let (from, Some(to)) = (replay.from, self.model.step) else { return };
        if replay.steps.is_some() && to >= from {
            self.updates.last = Some((replay.author, from, to));
            self.report(NodeEvent::UpdatesReplayed { from, to, peer: replay.author });
        }
    }

    /// Has these results applied next.
    pub(super) fn start_applying(&mut self, round: RoundKey, results: Vec<ResultAnnounced>, schedule: StepSchedule) {
        self.busy = Some(Busy::Applying { round, results: u16::try_from(results.len()).unwrap_or(u16::MAX) });
        self.updates.pending = self.model.digest.map(|before| AppliedStep {
            round,
            cold_start: schedule.cold_start,
            results: results.clone(),
            before,
            after: before,
        });
        self.out.push(Effect::Apply { round, results, schedule });
    }

    /// Writes what was applied into this node's log, and compares it with the log that it came from: false if they differ,
    /// so that the parameters are wrong.
    pub(super) fn log_applied(&mut self, round: RoundKey, digest: Digest) -> bool {
        let pending = self.updates.pending.take().filter(|pending| pending.round == round);
        let next = self.updates.replay.as_mut().and_then(|replay| {
            let steps = replay.steps.as_mut()?;
            let next = steps.pop_front_if(|next| next.round == round)?;
            replay.since_ms = self.now.mono_ms;
            Some((replay.author, next.after))
        });
        if let Some((author, after)) = next
            && after != digest
        {
            self.blame(author, &format!("after step {} it names another digest than its results lead to", round.step));
            return false;
        }
        if let Some(pending) = pending {
            self.out.push(Effect::LogUpdate(AppliedStep { after: digest, ..pending }));
        }
        true
    }

    /// Ends the replay when its log is applied to the end.
    pub(super) fn note_replayed(&mut self) {
        let done = |replay: &Replay| replay.steps.as_ref().is_some_and(VecDeque::is_empty);
        if self.updates.replay.as_ref().is_some_and(done) {
            self.end_replay();
        }
    }

    /// The parameters after `step` are wrong: so is the log that led there.
    pub(super) fn blame_last_log(&mut self, step: Step) {
        let led_here = |(_, from, to): &(PeerKey, Step, Step)| *from <= step && step <= *to;
        if let Some((author, ..)) = self.updates.last.take_if(|last| led_here(last)) {
            self.blame(author, "it led to other parameters than those of most members");
        }
    }

    /// Tells others the digest after a round, unless it lies so far back that nobody compares it.
    pub(super) fn tell_digest(&mut self, round: RoundKey, results: u16, digest: Digest) {
        let around = self.view.as_ref().map(|view| view.step()).unwrap_or_default();
        if around.since(round.step) <= DIGEST_STEPS {
            self.publish(RoundMessage::Digest(DigestAnnounced { round, results, digest }));
        }
    }

    /// Older parameters from which a log leads to the right ones: the own snapshot, or the newest one that members serve;
    /// before the first epoch's end, the run's checkpoint. For a node without parameters, with wrong ones, or with ones from
    /// which nothing leads on.
    pub(super) fn source_to_replay(&mut self) -> Option<(Step, LoadFrom, Option<Digest>)> {
        let view = self.view.as_ref()?;
        let me = self.me();
        if view.index_of(&me).is_none() && !view.is_pending(&me) {
            return None;
        }
        let target = Step(view.step().0.saturating_sub(1));
        let held = self.model.step;
        let suits = |step: Step| match (&self.model.trouble, held) {
            (_, None) => true,
            // Wrong parameters are not known to have been right before the epoch.
            (Some(Trouble::Diverged { step: wrong, .. }), _) => step < *wrong,
            (Some(Trouble::Stalled { round }), _) => step >= round.step,
            (None, Some(held)) => step > held && !self.is_seen(held.next()) && !self.can_replay(held.next()),
        };
        let leads_on = |step: Step| step < target && suits(step) && self.log_author(step.next()).is_some();
        if let Some(disk) = self.config.disk
            && !self.model.disk_tried
            && leads_on(disk.step)
        {
            self.model.disk_tried = true;
            return Some((disk.step, LoadFrom::Disk, Some(disk.digest)));
        }
        let steps: Vec<_> = self.snapshots.steps().filter(|step| leads_on(*step)).collect();
        let offered = steps.into_iter().find_map(|step| self.peers_source(step, None));
        let first = || (leads_on(Step(0)) && self.checkpoint_is_external()).then_some((Step(0), LoadFrom::Checkpoint, None));
        offered.or_else(first)
    }

    pub(super) fn on_updates_logged(&mut self, announced: UpdatesAnnounced) {
        let (first, last) = (announced.first, announced.round.step);
        self.updates.own = Some((first, last));
        if !matches!(self.model.trouble, Some(Trouble::Diverged { .. })) {
            self.publish(RoundMessage::Updates(announced));
        }
    }

    /// The first step that must stay in logs, with its payloads: from the older of the two newest snapshots on, within
    /// bounds.
    pub(super) fn updates_kept_from(&self) -> Step {
        let Some(view) = &self.view else { return Step(0) };
        let results = view.account.clients().len().max(1) as u64;
        let step_bytes = u64::from(self.config.payload_len.max(1)).saturating_mul(results);
        let steps = (PAYLOAD_BYTES_MAX / step_bytes).clamp(8, LEDGER_STEPS_MAX as u64);
        let oldest = view.step().0.saturating_sub(u32::try_from(steps).unwrap_or(u32::MAX));
        let disk = self.config.disk.map(|disk| disk.step);
        let snapshot = self.model.kept.front().copied().or(disk).map(Step::next).unwrap_or_default();
        Step(snapshot.0.max(oldest))
    }
}
