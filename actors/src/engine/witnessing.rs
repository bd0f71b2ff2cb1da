//! Vouching for the results of the round before.

use psyche_messages::events::Phase;
use psyche_messages::{Address, BlobHash, Manifest, ManifestAnnounced, RoundKey, RoundMessage};
use psyche_protocol::layout::{Bloom, Witness, WitnessProof};
use psyche_protocol::select::{merkle_root, participant_item};

use super::Engine;
use super::api::{ChainAction, Effect, WitnessNumbers};
use super::duty::Duty;
use super::epoch::RoundFacts;
use super::rules::{self, BloomOf};
use super::store::RoundStore;

/// The share of a round's time after which a witness reports without those who are still missing, whatever is known of
/// their pace, in percent.
const PATIENCE_PERCENT: u64 = 75;

/// Rounds without a result, of those that are remembered ([`super::epoch::ROUNDS_KEPT`]), in which a trainer that says so
/// still counts as present.
const SKIPS_MAX: usize = 2;

/// This node's report for the round in work.
#[derive(Debug, Default)]
pub(super) struct Witnessing {
    report: Option<Report>,
    /// What this node's proof to be a witness of a round is, if it is one. It takes a hundred hashes to find out.
    proof: Option<(RoundKey, Option<WitnessProof>)>,
    /// The transaction.
    pub duty: Duty<RoundKey>,
}

#[derive(Debug)]
struct Report {
    /// The round in which it is submitted.
    round: RoundKey,
    /// The round that it speaks of; none in an epoch's first.
    about: Option<RoundKey>,
    witness: Box<Witness>,
    /// Whether whoever reads the root on chain can get the manifest.
    stored: bool,
}

impl Engine {
    /// Reports to the chain, if this node is a witness of the round in work and has nothing more to wait for.
    pub(super) fn drive_witnessing(&mut self) {
        let Some(view) = &self.view else { return };
        let Some(round) = view.round() else { return };
        if self.model.step.is_none() || !view.is_healthy(&self.me()) {
            return;
        }
        let Some((at, height)) = self.locate(round) else { return };
        let Some(log) = self.logs.get(at) else { return };
        // Whoever did not watch the round before from its beginning cannot say who took part in it.
        if height > 0 && log.watched_from >= height {
            return;
        }
        let Some(index) = log.facts_at(height).and_then(|facts| facts.index_of(&self.config.me)) else { return };
        let shown = view.account.current_round().witnesses.iter().any(|witness| witness.proof.index == index as u64);
        if shown {
            self.lead.report_seen(round, self.now.mono_ms);
            return;
        }
        if self.witnessing.report.as_ref().is_none_or(|report| report.round != round) {
            self.begin_report(at, height, index);
        }
        self.send_report(round);
    }

    fn begin_report(&mut self, at: usize, height: u32, index: usize) {
        let Some(log) = self.logs.get(at) else { return };
        let (round, start_step) = (log.round(height), log.start_step);
        let Some(facts) = log.facts_at(height).cloned() else { return };
        let before = height.checked_sub(1).map(|height| (log.round(height), log.facts_at(height).cloned()));
        let Some(proof) = self.witness_proof(round, &facts, index) else { return };
        let (about, about_facts) = match before {
            None => (None, facts),
            Some((about, Some(about_facts))) => (Some(about), about_facts),
            Some((_, None)) => return,
        };
        if !self.report_is_due(round, about, &about_facts) {
            return;
        }
        // An epoch's first report has no round to speak of.
        let sound = self.is_sound_since(start_step);
        let manifest = self.accepted_manifest(about.unwrap_or(round));
        let manifest = if about.is_some() { manifest } else { Manifest { round, entries: Vec::new() } };
        // If nobody can train, nobody must pretend that rounds go on: the epoch has to end, and begin anew.
        if !sound && manifest.entries.is_empty() {
            return;
        }
        let witness = self.witness(round, about, &about_facts, proof, &manifest);
        let stored = manifest.entries.is_empty();
        self.witnessing.report = Some(Report { round, about, witness: Box::new(witness), stored });
        if !stored {
            let facts = about_facts;
            let store = self.stores.entry(manifest.round).or_default();
            store.take_manifest(&manifest, &facts, &self.config, |_| true);
            self.out.push(Effect::StoreManifest(manifest));
        }
    }

    /// The proof that this node is a witness of `round`, which has these facts; none if it is not.
    fn witness_proof(&mut self, round: RoundKey, facts: &RoundFacts, index: usize) -> Option<WitnessProof> {
        if let Some((_, proof)) = self.witnessing.proof.filter(|(of, _)| *of == round) {
            return proof;
        }
        let proof = facts.selection.witness_proof(index as u64).filter(|proof| proof.witness == 1);
        self.witnessing.proof = Some((round, proof));
        proof
    }

    /// Whether waiting longer is pointless: everyone's results are here and this node trains no longer than the chain takes to
    /// go on, or the time is nearly over.
    fn report_is_due(&self, round: RoundKey, about: Option<RoundKey>, about_facts: &RoundFacts) -> bool {
        let Some(view) = &self.view else { return false };
        if view.phase() == Phase::RoundWitness {
            return true;
        }
        let limit_s = view.account.state.coordinator.config.max_round_train_time;
        let elapsed_s = u64::try_from(self.now.chain.0.saturating_sub(view.phase_start().0)).unwrap_or(0);
        let elapsed_ms = self.now.mono_ms.saturating_sub(view.since_ms).max(elapsed_s.saturating_mul(1_000));
        if elapsed_ms >= limit_s.saturating_mul(1_000 / 100 * PATIENCE_PERCENT) {
            return true;
        }
        let ready = self.own_training_is_over(round) || self.lead.is_time(round, self.now.mono_ms);
        ready && about.is_none_or(|about| self.nobody_is_missing(about, about_facts))
    }

    /// Whether a quorum of a round's results is here, and of every other trainer nothing is to be expected: it says so, it
    /// contradicted itself, or it is overdue by its own pace.
    fn nobody_is_missing(&self, round: RoundKey, facts: &RoundFacts) -> bool {
        let store = self.stores.get(&round);
        let age_ms = store.and_then(|store| store.age_ms(self.now.mono_ms));
        let is_hopeless = |trainer: &Address| {
            // What contradicts itself or is malformed gets no better by waiting, and some say that there is nothing to wait for.
            let void = store
                .and_then(|store| store.offer_of(trainer))
                .is_some_and(|offer| offer.rival.is_some() || self.fetches.is_malformed(&offer.entry.result.payload));
            let skipped = store.is_some_and(|store| store.is_skipped(trainer));
            let deadline_ms = self.pace.deadline_ms(trainer, self.config.patience.repeat_ms);
            void || skipped || age_ms.zip(deadline_ms).is_some_and(|(age_ms, deadline_ms)| age_ms > deadline_ms)
        };
        let (mut here, mut missing) = (0_usize, 0_usize);
        for (member, _) in facts.members.iter().zip(&facts.batches).filter(|(_, batch)| batch.is_some()) {
            if self.has_result_of(round, &member.signer) {
                here = here.saturating_add(1);
            } else if is_hopeless(&member.signer) {
                missing = missing.saturating_add(1);
            } else {
                return false;
            }
        }
        missing == 0 || here >= rules::quorum(0, here.saturating_add(missing))
    }

    /// Whether a trainer's result of a round is accepted: announced once, its payload here and well-formed.
    fn has_result_of(&self, round: RoundKey, trainer: &Address) -> bool {
        let offer = self.stores.get(&round).and_then(|store| store.offer_of(trainer));
        offer.is_some_and(|offer| offer.rival.is_none() && self.fetches.is_here(&offer.entry.result.payload))
    }

    /// Whether a trainer without a result is there all the same: it said so, and did so in few of the last rounds. Whoever
    /// never has a result is of no use to the run.
    pub(super) fn is_excused(&self, round: RoundKey, trainer: &Address) -> bool {
        let skips = |at: &RoundKey, store: &RoundStore| at.epoch == round.epoch && store.is_skipped(trainer);
        let count = self.stores.range(..=round).filter(|(at, store)| skips(at, store)).count();
        count <= SKIPS_MAX && self.stores.get(&round).is_some_and(|store| store.is_skipped(trainer))
    }

    /// What this node accepted of `round`.
    pub(super) fn accepted_manifest(&self, round: RoundKey) -> Manifest {
        let accepted =
            self.stores.get(&round).map(|store| store.manifest_of(round, |result| self.fetches.is_here(&result.payload)));
        accepted.unwrap_or(Manifest { round, entries: Vec::new() })
    }

    fn witness(
        &self,
        round: RoundKey,
        about: Option<RoundKey>,
        about_facts: &RoundFacts,
        proof: WitnessProof,
        manifest: &Manifest,
    ) -> Witness {
        // Who had nothing to do did all there was to do; in an epoch's first round that is everyone.
        let present = about_facts.members.iter().zip(&about_facts.batches).filter(|(member, batch)| {
            let heard = |about| self.has_result_of(about, &member.signer) || self.is_excused(about, &member.signer);
            about.is_none_or(|about| batch.is_none() || heard(about))
        });
        let participants = present.map(|(member, _)| participant_item(&member.signer.0));
        let leaves = manifest.leaves(&self.config.run_tag);
        let me = &self.config.me;
        let participant_bloom: Bloom = rules::bloom(me, round, BloomOf::Participants, participants);
        let broadcast_bloom = rules::bloom(me, round, BloomOf::Broadcasts, leaves.iter().copied());
        Witness { proof, participant_bloom, broadcast_bloom, broadcast_merkle: merkle_root(&leaves) }
    }

    pub(super) fn on_manifest_stored(&mut self, about: RoundKey, blob: BlobHash, len: u32) {
        let Some(report) = self.witnessing.report.as_mut().filter(|report| report.about == Some(about)) else { return };
        if report.stored {
            return;
        }
        report.stored = true;
        let root = report.witness.broadcast_merkle;
        let witness = self.config.me;
        self.publish(RoundMessage::Manifest(ManifestAnnounced { round: about, witness, root, blob, blob_len: len }));
    }

    fn send_report(&mut self, round: RoundKey) {
        let now_ms = self.now.mono_ms;
        let Some(report) = self.witnessing.report.as_ref().filter(|report| report.round == round && report.stored) else {
            return;
        };
        if !self.witnessing.duty.due(round, now_ms) {
            return;
        }
        // The batch whose numbers these are may be the one before: training need not be over.
        let metadata = WitnessNumbers { step: round.step, ..self.numbers };
        let action = ChainAction::Witness { witness: report.witness.clone(), metadata };
        let id = self.send(action);
        self.lead.report_sent(round, now_ms);
        self.witnessing.duty.sent(id, now_ms);
    }
}
