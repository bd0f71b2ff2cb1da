//! Which results count, and when they are applied.
//!
//! Round r is decided when its witnesses, those of round r + 1, are final. Candidates come from the witnesses' manifests,
//! votes from their blooms on chain. A manifest that cannot be had is no obstacle while fewer of them are missing than a
//! result needs votes: what won is then listed in another one, too.

use std::sync::Arc;

use psyche_messages::{Digest, NodeEvent, ResultAnnounced, RoundKey, Step};
use psyche_protocol::layout::Witness;
use psyche_protocol::select::EMPTY_ROOT;

use super::api::{Effect, Fetching};
use super::epoch::{Outlook, RoundFacts};
use super::history::Gap;
use super::model::Trouble;
use super::tally::winners;
use super::{Busy, Engine};

/// How often what this node accepted itself is compared with the witnesses' roots.
const GUESS_MS: u64 = 200;

/// How often payloads that are not here are asked for once more: from whoever has come since.
const WANT_MS: u64 = 200;

/// First pause after the history did not tell, doubled each time up to [`REBUILD_PAUSE_MS_MAX`].
const REBUILD_PAUSE_MS: u64 = 500;
/// Longest such pause.
const REBUILD_PAUSE_MS_MAX: u64 = 4_000;

/// The round that is being decided.
#[derive(Debug)]
pub(super) struct Resolution {
    /// The round whose results are to be applied.
    round: RoundKey,
    /// Since when.
    since_ms: u64,
    /// How often the shell was asked to rebuild the witnesses, since when, and when it is next.
    rebuild: Option<Rebuild>,
    /// When what this node accepted itself was last compared with the witnesses' roots.
    guess_ms: Option<u64>,
    /// The winners, once they are certain.
    winners: Option<Arc<[ResultAnnounced]>>,
    /// When payloads were last asked for.
    wanted_ms: Option<u64>,
}

/// Questions to the history.
#[derive(Clone, Copy, Debug)]
struct Rebuild {
    since_ms: u64,
    asked: u32,
    /// When the next one is due; `None` while an answer is awaited.
    due_ms: Option<u64>,
}

/// What stands between a decided round and its application.
enum Obstacle {
    /// Something is on its way.
    Waiting,
    /// It does not come.
    Hopeless(String),
}

impl Engine {
    /// Applies the next round, if it is decided and everything for it is here.
    pub(super) fn drive_applying(&mut self) {
        if self.busy.is_some() || matches!(self.model.trouble, Some(Trouble::Diverged { .. })) {
            return;
        }
        let Some(step) = self.model.step.map(Step::next) else { return };
        if self.drive_replay(step) {
            return;
        }
        let Some((at, height)) = self.locate_step(step) else { return };
        let Some(log) = self.logs.get(at) else { return };
        let round = log.round(height);
        match log.outlook(height) {
            Outlook::Open => {}
            Outlook::Unwitnessed => self.apply(at, round, Vec::new()),
            Outlook::Witnessed(witnesses) => {
                let witnesses = witnesses.to_vec();
                self.begin_resolution(round);
                match self.resolve(at, height, &witnesses) {
                    Ok(results) => self.apply(at, round, results),
                    Err(Obstacle::Waiting) => {}
                    Err(Obstacle::Hopeless(reason)) => self.stall(round, &reason),
                }
            }
            Outlook::Uncertain { round: witnessed_in, known, gap } => {
                let (anything_known, gap) = (known.is_some(), gap.cloned());
                self.begin_resolution(round);
                self.drive_rebuild(at, round, witnessed_in, gap, anything_known);
            }
        }
    }

    fn begin_resolution(&mut self, round: RoundKey) {
        if self.resolution.as_ref().is_none_or(|resolution| resolution.round != round) {
            let since_ms = self.now.mono_ms;
            self.resolution =
                Some(Resolution { round, since_ms, rebuild: None, guess_ms: None, winners: None, wanted_ms: None });
        }
    }

    /// For how long the round `step` has been decided but not applied.
    pub(super) fn waited_ms(&self, step: Step) -> u64 {
        let resolution = self.resolution.as_ref().filter(|resolution| resolution.round.step == step);
        resolution.map_or(0, |resolution| self.now.mono_ms.saturating_sub(resolution.since_ms))
    }

    /// Asks for the witnesses that the account no longer shows, with growing pauses while the history does not tell; in the
    /// end goes by what is known. If that is wrong, the members' digests say so.
    fn drive_rebuild(
        &mut self,
        at: usize,
        round: RoundKey,
        witnessed_in: RoundKey,
        gap: Option<Arc<Gap>>,
        anything_known: bool,
    ) {
        let now_ms = self.now.mono_ms;
        let Some(resolution) = &mut self.resolution else { return };
        let fresh = Rebuild { since_ms: now_ms, asked: 0, due_ms: Some(now_ms) };
        let rebuild = resolution.rebuild.get_or_insert(fresh);
        let over = now_ms >= rebuild.since_ms.saturating_add(self.config.patience.rebuild_ms);
        match gap {
            Some(gap) if !over => {
                if rebuild.due_ms.is_some_and(|due_ms| now_ms >= due_ms) {
                    rebuild.due_ms = None;
                    rebuild.asked = rebuild.asked.saturating_add(1);
                    self.out.push(Effect::RebuildWitnesses { round: witnessed_in, gap });
                }
            }
            // Where no two states enclose what is missing, no history can tell. This node was away for longer than a round, and who
            // was not can say what to apply.
            None => self.give_up_rebuild(at, round, witnessed_in, 0, false),
            Some(_) => {
                let asked = rebuild.asked;
                self.give_up_rebuild(at, round, witnessed_in, asked, anything_known);
            }
        }
    }

    fn give_up_rebuild(&mut self, at: usize, round: RoundKey, witnessed_in: RoundKey, asked: u32, anything_known: bool) {
        let asked = format!("the history was asked {asked} times and does not tell");
        if anything_known {
            if let Some(log) = self.logs.get_mut(at) {
                log.accept_known(witnessed_in);
            }
            self.warn(format!(
                "not all witnesses of round {witnessed_in} may be known, {asked}: those that are count, and digests will tell"
            ));
        } else {
            self.stall(round, &format!("its witnesses are not known, {asked}; a member's update log will do, too"));
        }
    }

    pub(super) fn on_witnesses_rebuilt(&mut self, witnessed_in: RoundKey, witnesses: Option<Vec<Witness>>) {
        let Some((at, height)) = self.locate(witnessed_in) else { return };
        let Some(before) = height.checked_sub(1) else { return };
        let Some(log) = self.logs.get_mut(at) else { return };
        if !matches!(log.outlook(before), Outlook::Uncertain { .. }) {
            return;
        }
        // The program checks each claim to be a witness against its round; an endpoint that makes reports up does not.
        let facts = log.facts_at(height);
        let fits = |witness: &Witness| {
            let proof = |facts: &Arc<RoundFacts>| facts.selection.witness_proof(witness.proof.index);
            facts.is_none_or(|facts| proof(facts) == Some(witness.proof))
        };
        match witnesses.filter(|list| list.iter().all(fits)) {
            Some(witnesses) => log.rebuild(witnessed_in, witnesses),
            None => {
                let round = log.round(before);
                self.ask_again(round);
            }
        }
    }

    /// The history did not tell; it may when endpoints are current again.
    fn ask_again(&mut self, round: RoundKey) {
        let resolution = self.resolution.as_mut().filter(|resolution| resolution.round == round);
        let Some(rebuild) = resolution.and_then(|resolution| resolution.rebuild.as_mut()) else { return };
        let doublings = rebuild.asked.saturating_sub(1).min(8);
        let pause_ms = REBUILD_PAUSE_MS.saturating_mul(1 << doublings).min(REBUILD_PAUSE_MS_MAX);
        rebuild.due_ms = Some(self.now.mono_ms.saturating_add(pause_ms));
    }

    /// The results of a decided round, once they are known and here.
    fn resolve(&mut self, at: usize, height: u32, witnesses: &[Witness]) -> Result<Vec<ResultAnnounced>, Obstacle> {
        let Some(log) = self.logs.get(at) else { return Err(Obstacle::Waiting) };
        let round = log.round(height);
        let quorum = log.quorum(witnesses);
        if witnesses.len() < quorum {
            return Ok(Vec::new());
        }
        let Some(facts) = log.facts_at(height).cloned() else {
            return Err(Obstacle::Hopeless("its clients are not known".to_owned()));
        };
        let certain = self.resolution.as_ref().and_then(|resolution| resolution.winners.clone());
        let results = match certain {
            Some(results) => results,
            None => self.decide(round, &facts, witnesses, quorum)?,
        };
        if results.iter().any(|result| self.fetches.is_malformed(&result.payload)) {
            return Err(Obstacle::Hopeless("witnesses vouched for a payload that is malformed here".to_owned()));
        }
        let absent = self.want_results(&results, &facts);
        if absent > 0 {
            let reason = || format!("{absent} of {} payloads are missing", results.len());
            return Err(self.obstacle(self.waited_ms(round.step), reason));
        }
        Ok(results.to_vec())
    }

    /// The winners of a decided round. Once every manifest is known they can't change, and are kept: this is asked again with
    /// everything that happens until the last payload is here.
    fn decide(
        &mut self,
        round: RoundKey,
        facts: &RoundFacts,
        witnesses: &[Witness],
        quorum: usize,
    ) -> Result<Arc<[ResultAnnounced]>, Obstacle> {
        let waited_ms = self.waited_ms(round.step);
        let missing = self.missing_manifests(round, witnesses);
        if missing > 0 && self.own_guess_is_due() {
            // What this node accepted itself, or heard of, is most likely what the others accepted.
            let accepted = self.accepted_manifest(round);
            let store = self.stores.entry(round).or_default();
            let announced = store.manifest_of(round, |_| true);
            for guess in [accepted, announced] {
                let submitted = |root: &[u8; 32]| witnesses.iter().any(|witness| witness.broadcast_merkle == *root);
                store.take_manifest(&guess, facts, &self.config, submitted);
            }
        }
        let missing = if missing > 0 { self.missing_manifests(round, witnesses) } else { 0 };
        if missing > 0 {
            self.want_manifests(round, witnesses);
            if waited_ms < self.config.patience.manifest_ms {
                return Err(Obstacle::Waiting);
            }
            if missing >= quorum {
                return Err(self.obstacle(waited_ms, || format!("{missing} of {} manifests are missing", witnesses.len())));
            }
        }
        let results: Arc<[_]> = self.winners(round, witnesses, quorum, missing > 0).into();
        if missing == 0
            && let Some(resolution) = &mut self.resolution
        {
            resolution.winners = Some(Arc::clone(&results));
        }
        Ok(results)
    }

    /// Whether to compare once more what this node accepted with the roots on chain: payloads may have come since.
    fn own_guess_is_due(&mut self) -> bool {
        let Some(resolution) = &mut self.resolution else { return false };
        let due = resolution.guess_ms.is_none_or(|at_ms| self.now.mono_ms >= at_ms.saturating_add(GUESS_MS));
        if due {
            resolution.guess_ms = Some(self.now.mono_ms);
        }
        due
    }

    fn obstacle(&self, waited_ms: u64, reason: impl FnOnce() -> String) -> Obstacle {
        if waited_ms < self.config.patience.apply_ms { Obstacle::Waiting } else { Obstacle::Hopeless(reason()) }
    }

    /// How many of the witnesses have a manifest that is not known. A report that landed a round too late names a manifest
    /// of another round, which says nothing of this one and is no reason to wait.
    fn missing_manifests(&self, round: RoundKey, witnesses: &[Witness]) -> usize {
        let known = |root: &[u8; 32]| {
            *root == EMPTY_ROOT || self.stores.range(..=round).any(|(_, store)| store.manifest(root).is_some())
        };
        witnesses.iter().filter(|witness| !known(&witness.broadcast_merkle)).count()
    }

    fn want_manifests(&mut self, round: RoundKey, witnesses: &[Witness]) {
        let Some(store) = self.stores.get(&round) else { return };
        for witness in witnesses {
            let root = witness.broadcast_merkle;
            if root == EMPTY_ROOT || store.manifest(&root).is_some() {
                continue;
            }
            for offer in store.manifest_offers(root) {
                let what = Fetching::Manifest { round, root };
                let (blob, len) = (offer.announced.blob, offer.announced.blob_len);
                self.fetches.want(blob, len, what, &offer.providers, self.now.mono_ms);
            }
        }
    }

    fn winners(&self, round: RoundKey, witnesses: &[Witness], quorum: usize, missing: bool) -> Vec<ResultAnnounced> {
        let Some(store) = self.stores.get(&round) else { return Vec::new() };
        let announced = if missing { store.announced_candidates(&self.config.run_tag) } else { Vec::new() };
        let listed = witnesses.iter().filter_map(|witness| store.manifest(&witness.broadcast_merkle)).flatten();
        let blooms: Vec<_> = witnesses.iter().map(|witness| &witness.broadcast_bloom).collect();
        winners(listed.chain(&announced), &blooms, quorum)
    }

    /// Says how many of the payloads are not here, and asks for them from time to time.
    fn want_results(&mut self, results: &[ResultAnnounced], facts: &RoundFacts) -> usize {
        let now_ms = self.now.mono_ms;
        let due = self.resolution.as_mut().is_none_or(|resolution| {
            let due = resolution.wanted_ms.is_none_or(|at_ms| now_ms >= at_ms.saturating_add(WANT_MS));
            resolution.wanted_ms = if due { Some(now_ms) } else { resolution.wanted_ms };
            due
        });
        let absent: Vec<_> = results.iter().filter(|result| !self.fetches.is_here(&result.payload)).collect();
        if due && !absent.is_empty() {
            let members = facts.members.iter().map(|member| member.peer);
            let others: Vec<_> = members.filter(|peer| *peer != self.config.peer).collect();
            for result in &absent {
                self.want_payload(result, &others);
            }
        }
        absent.len()
    }

    fn apply(&mut self, at: usize, round: RoundKey, results: Vec<ResultAnnounced>) {
        let Some(log) = self.logs.get(at) else { return };
        let schedule = log.schedule;
        self.resolution = None;
        self.start_applying(round, results, schedule);
    }

    pub(super) fn on_applied(&mut self, round: RoundKey, digest: Digest) {
        let Some(Busy::Applying { round: applying, results }) = self.busy else { return };
        if applying != round {
            return;
        }
        self.busy = None;
        if !self.log_applied(round, digest) {
            return self.model.lose();
        }
        self.model.hold(round, digest);
        self.updates.settle();
        self.digests.know(round.step, digest, self.now.mono_ms);
        self.report(NodeEvent::StepApplied { epoch: round.epoch, step: round.step, results, digest });
        self.tell_digest(round, results, digest);
        self.note_replayed();
    }

    pub(super) fn on_apply_failed(&mut self, round: RoundKey, reason: &str) {
        if !matches!(self.busy, Some(Busy::Applying { round: applying, .. }) if applying == round) {
            return;
        }
        self.busy = None;
        self.model.lose();
        // What is taken for stored may be gone; and the log that was being replayed needs it again, which another one may not.
        if let Some(pending) = self.updates.pending.take() {
            pending.results.iter().for_each(|result| self.fetches.lost(&result.payload, self.now.mono_ms));
        }
        if let Some(author) = self.updates.replay.as_ref().map(|replay| replay.author) {
            self.leave_log(author);
        }
        self.warn(format!("the results of round {round} could not be applied, so the parameters are given up: {reason}"));
    }
}
