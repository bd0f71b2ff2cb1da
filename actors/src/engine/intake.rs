//! Messages of peers, and blobs that were fetched.

use psyche_messages::{
    Address, BlobHash, Evidence, Manifest, ManifestAnnounced, ManifestEntry, PeerKey, ResultAnnounced, RoundKey, RoundMessage,
    SignedRoundMessage, Step,
};
use psyche_protocol::select::merkle_root;

use super::api::{Effect, FetchFault, FetchOutcome, Fetching, Lie};
use super::store::{self, Refusal};
use super::{Busy, Engine};

/// How many steps ahead of this node's view a message may speak.
const STEPS_AHEAD: u32 = 4;

impl Engine {
    /// Takes in a peer's message, or keeps it until the chain shows its round.
    pub(super) fn hear(&mut self, signed: SignedRoundMessage) {
        let Some(view) = &self.view else { return };
        if signed.from == self.config.peer || !view.in_roster(&signed.from) {
            return;
        }
        let around = view.step();
        match &signed.message {
            RoundMessage::Digest(announced) => {
                self.digests.hear(announced.round.step, signed.from, announced.digest, around);
            }
            RoundMessage::Snapshot(announced) => {
                if announced.index_len <= self.config.index_len_max {
                    self.snapshots.hear(signed.from, announced.clone(), around, self.now.mono_ms);
                }
            }
            RoundMessage::Updates(announced) => {
                if announced.blob_len <= self.config.updates_len_max {
                    self.updates.hear(signed.from, announced.clone(), around);
                }
            }
            RoundMessage::Result(result) => {
                if self.locate(result.round).is_some() {
                    let entry = ManifestEntry { from: signed.from, result: result.clone(), signature: signed.signature };
                    self.hear_result(entry);
                } else if self.is_ahead(result.round.step) {
                    self.early.keep(signed);
                }
            }
            RoundMessage::Manifest(announced) => {
                if self.locate(announced.round).is_some() {
                    self.hear_manifest(announced.clone(), signed.from);
                } else if self.is_ahead(announced.round.step) {
                    self.early.keep(signed);
                }
            }
            RoundMessage::Skip(skip) => {
                if self.locate(skip.round).is_some() {
                    self.hear_skip(skip.round, skip.trainer, &signed.from);
                } else if self.is_ahead(skip.round.step) {
                    self.early.keep(signed);
                }
            }
            RoundMessage::Evidence(evidence) => {
                if self.locate(evidence.first.result.round).is_some() {
                    self.hear_evidence((**evidence).clone());
                } else if self.is_ahead(evidence.first.result.round.step) {
                    self.early.keep(signed);
                }
            }
        }
    }

    /// Whether a step may be one that the chain has not shown this node yet.
    fn is_ahead(&self, step: Step) -> bool {
        let Some(view) = &self.view else { return false };
        step >= view.step() && step.0 <= view.step().0.saturating_add(STEPS_AHEAD) && self.locate_step(step).is_none()
    }

    /// Notes a result and fetches its payload while witnesses may still vouch for it.
    fn hear_result(&mut self, entry: ManifestEntry) {
        let result = entry.result.clone();
        let Some((at, height)) = self.locate(result.round) else { return };
        let Some(log) = self.logs.get(at) else { return };
        let Some(facts) = log.facts_at(height) else { return };
        if store::check(facts, &entry.from, &result, self.config.payload_len).is_err() {
            return;
        }
        let votable = log.last.is_none() && height.saturating_add(1) >= log.head;
        let from = entry.from;
        match self.stores.entry(result.round).or_default().offer(entry, &self.config.run_tag) {
            Ok(()) if votable && self.takes_part() => self.want_payload(&result, &[from]),
            Err(Refusal::Equivocation(evidence)) => self.accuse(*evidence, true),
            _ => {}
        }
    }

    /// Notes that a trainer has no result, if it says so itself.
    fn hear_skip(&mut self, round: RoundKey, trainer: Address, from: &PeerKey) {
        let Some((at, height)) = self.locate(round) else { return };
        let Some(facts) = self.logs.get(at).and_then(|log| log.facts_at(height)) else { return };
        let author = facts.index_of(&trainer).and_then(|index| facts.members.get(index));
        if author.is_some_and(|member| member.peer == *from) {
            self.stores.entry(round).or_default().skip(trainer);
        }
    }

    /// Takes in what a peer knows of a trainer that says different things to different peers. Both signatures are checked.
    fn hear_evidence(&mut self, evidence: Evidence) {
        let round = evidence.first.result.round;
        let Some((at, height)) = self.locate(round) else { return };
        let Some(facts) = self.logs.get(at).and_then(|log| log.facts_at(height)) else { return };
        let entries = [&evidence.first, &evidence.second];
        let sound =
            entries.iter().all(|entry| store::check(facts, &entry.from, &entry.result, self.config.payload_len).is_ok());
        if sound && self.stores.entry(round).or_default().convict(&evidence, &self.config.run_tag) {
            self.accuse(evidence, false);
        }
    }

    /// Whoever finds a liar out tells everybody; whoever is told does not, as gossip reaches everybody already.
    fn accuse(&mut self, evidence: Evidence, found_here: bool) {
        let (trainer, round) = (evidence.first.result.trainer, evidence.first.result.round);
        self.warn(format!("trainer {trainer} announced two results for round {round}; this node vouches for neither"));
        if found_here {
            self.publish(RoundMessage::Evidence(Box::new(evidence)));
        }
    }

    /// Whether this node follows the rounds: it holds parameters that it keeps current, or is about to.
    const fn takes_part(&self) -> bool {
        self.model.step.is_some() || matches!(self.busy, Some(Busy::Loading { .. }))
    }

    /// Asks for a payload from `first` and from whoever may have it by now.
    pub(super) fn want_payload(&mut self, result: &ResultAnnounced, first: &[PeerKey]) {
        let connected = self.members.iter().filter(|peer| self.connected.contains(peer));
        let what = Fetching::Payload(result.clone());
        self.fetches.want(result.payload, result.payload_len, what, first.iter().chain(connected), self.now.mono_ms);
    }

    fn hear_manifest(&mut self, announced: ManifestAnnounced, from: PeerKey) {
        let Some((at, height)) = self.locate(announced.round) else { return };
        let Some(facts) = self.logs.get(at).and_then(|log| log.facts_at(height)) else { return };
        let author = facts.index_of(&announced.witness).and_then(|index| facts.members.get(index));
        if author.is_none_or(|member| member.peer != from) || announced.blob_len > self.config.manifest_len_max {
            return;
        }
        self.stores.entry(announced.round).or_default().offer_manifest(announced, from);
    }

    /// A message of this node is signed: its own result now counts like any other.
    pub(super) fn on_published(&mut self, signed: SignedRoundMessage) {
        let result = match signed.message {
            RoundMessage::Result(result) => result,
            RoundMessage::Skip(skip) => return self.hear_skip(skip.round, skip.trainer, &signed.from),
            // Known, unless it comes from before this node started.
            RoundMessage::Manifest(announced) => return self.hear_manifest(announced, signed.from),
            _ => return,
        };
        if self.locate(result.round).is_none() {
            return;
        }
        self.fetches.own(result.payload, result.payload_len, Fetching::Payload(result.clone()));
        let entry = ManifestEntry { from: signed.from, result, signature: signed.signature };
        // A repetition is known already; this node never announces two different results of a round.
        let _first = self.stores.entry(entry.result.round).or_default().offer(entry, &self.config.run_tag);
    }

    pub(super) fn on_fetched(&mut self, blob: BlobHash, outcome: FetchOutcome) {
        let Some((trainer, round)) = self.fetches.awaited_payload(&blob) else { return };
        let outcome = match outcome {
            FetchOutcome::Valid => Ok(()),
            FetchOutcome::Fault(fault) => Err(fault),
        };
        if outcome == Err(FetchFault::Malformed) {
            self.warn(format!("the payload {} of trainer {trainer} is malformed", blob.short()));
            // Each of them signed that this is its result of this round.
            let authors = self.stores.get(&round).map(|store| store.authors_of(blob)).unwrap_or_default();
            self.blame_for(authors, Lie::Mislabelled);
        }
        if outcome.is_ok()
            && let Some(age_ms) = self.stores.get(&round).and_then(|store| store.age_ms(self.now.mono_ms))
        {
            self.pace.note(trainer, age_ms);
        }
        self.fetches.finish_payload(blob, outcome, self.now.mono_ms);
    }

    pub(super) fn on_manifest_fetched(&mut self, blob: BlobHash, len: u32, outcome: Result<Manifest, FetchFault>) {
        let Some(round) = self.fetches.awaited_manifest(&blob, len) else { return };
        let now_ms = self.now.mono_ms;
        if outcome == Err(FetchFault::Unavailable) {
            return self.fetches.finish_manifest(blob, len, Err(FetchFault::Unavailable), now_ms);
        }
        let manifest = outcome.ok().filter(|manifest| manifest.round == round);
        let facts = self.locate(round).and_then(|(at, height)| self.logs.get(at)?.facts_at(height).cloned());
        let store = self.stores.entry(round).or_default();
        let root = manifest.as_ref().map(|manifest| merkle_root(&manifest.leaves(&self.config.run_tag)));
        let liars = store.false_offers(blob, len, root);
        let fits = match (&manifest, &facts) {
            // Under the root that it has, whoever said that it has another one.
            (Some(manifest), Some(facts)) => store.take_manifest(manifest, facts, &self.config, |_| true),
            _ => false,
        };
        self.fetches.finish_manifest(blob, len, if fits { Ok(()) } else { Err(FetchFault::Malformed) }, now_ms);
        self.blame_for(liars, Lie::Mislabelled);
    }

    /// Has the network charge peers for what they signed and what is not so.
    pub(super) fn blame_for(&mut self, liars: Vec<PeerKey>, lie: Lie) {
        for peer in liars.into_iter().filter(|peer| *peer != self.config.peer).collect::<Vec<_>>() {
            self.out.push(Effect::Blame { peer, lie });
        }
    }
}
