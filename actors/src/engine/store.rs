//! What was announced about one round: results and manifests.

use std::collections::{BTreeMap, BTreeSet};

use psyche_messages::round::RESULTS_MAX;
use psyche_messages::{Address, BlobHash, Evidence, Manifest, ManifestAnnounced, ManifestEntry, PeerKey, ResultAnnounced};
use psyche_protocol::select::merkle_root;

use super::api::EngineConfig;
use super::epoch::RoundFacts;
use super::tally::Candidate;

/// Most manifests that one witness may announce for one round. An honest one announces one; a restarted one perhaps another.
const MANIFESTS_PER_WITNESS_MAX: usize = 2;
/// Most providers remembered for one manifest.
const PROVIDERS_MAX: usize = 16;

/// Why an announcement is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The author is no client of that round.
    Stranger,
    /// The batch is not the one that was assigned.
    Batch,
    /// The payload cannot have that length.
    Length,
    /// It was announced before.
    Known,
    /// The author announced something else before.
    Equivocation(Box<Evidence>),
}

/// A trainer's announcements.
#[derive(Clone, Debug)]
pub(super) struct Offer {
    /// The first announcement.
    pub entry: ManifestEntry,
    /// Its commitment.
    pub commitment: [u8; 32],
    /// A different one for the same batch: evidence that the trainer equivocates. Both are void for this node.
    pub rival: Option<ManifestEntry>,
}

/// A manifest that someone announced.
#[derive(Clone, Debug)]
pub(super) struct ManifestOffer {
    /// The announcement.
    pub announced: ManifestAnnounced,
    /// Who has the blob.
    pub providers: Vec<PeerKey>,
}

/// Announcements of one round.
#[derive(Debug, Default)]
pub(super) struct RoundStore {
    /// When this node saw the round begin.
    begun_ms: Option<u64>,
    /// Who says that no result will come.
    skips: BTreeSet<Address>,
    offers: BTreeMap<Address, Offer>,
    /// By all that is said of the blob: a lie about one stands beside the truth, and not in its place.
    manifest_offers: BTreeMap<(BlobHash, u32, [u8; 32]), ManifestOffer>,
    manifests: BTreeMap<[u8; 32], Vec<Candidate>>,
}

/// Whether `result` may be announced by `from`: a client of that round, its batch, the right length.
pub(super) fn check(facts: &RoundFacts, from: &PeerKey, result: &ResultAnnounced, payload_len: u32) -> Result<(), Refusal> {
    let index = facts.index_of(&result.trainer).ok_or(Refusal::Stranger)?;
    if facts.members.get(index).is_none_or(|member| member.peer != *from) {
        return Err(Refusal::Stranger);
    }
    if facts.batches.get(index).copied().flatten() != Some(result.batch) {
        return Err(Refusal::Batch);
    }
    if result.payload_len != payload_len {
        return Err(Refusal::Length);
    }
    Ok(())
}

impl RoundStore {
    /// Notes that the round began just now.
    pub(super) const fn begin(&mut self, now_ms: u64) {
        self.begun_ms = Some(now_ms);
    }

    /// Notes that `trainer`, a client of the round, has no result.
    pub(super) fn skip(&mut self, trainer: Address) {
        self.skips.insert(trainer);
    }

    /// Whether `trainer` said that no result will come.
    pub(super) fn is_skipped(&self, trainer: &Address) -> bool {
        self.skips.contains(trainer)
    }

    /// How long ago the round began, if this node saw it.
    pub(super) fn age_ms(&self, now_ms: u64) -> Option<u64> {
        self.begun_ms.map(|begun_ms| now_ms.saturating_sub(begun_ms))
    }

    /// How many things are remembered.
    pub(super) fn len(&self) -> usize {
        let candidates: usize = self.manifests.values().map(Vec::len).sum();
        self.skips.len() + self.offers.len() + self.manifest_offers.len() + candidates
    }

    /// Notes a checked announcement.
    pub(super) fn offer(&mut self, entry: ManifestEntry, run_tag: &Address) -> Result<(), Refusal> {
        let commitment = entry.result.commitment(run_tag);
        match self.offers.get_mut(&entry.result.trainer) {
            None => {
                self.offers.insert(entry.result.trainer, Offer { entry, commitment, rival: None });
                Ok(())
            }
            Some(offer) if offer.commitment == commitment => Err(Refusal::Known),
            Some(offer) if offer.rival.is_some() => Err(Refusal::Known),
            Some(offer) => {
                offer.rival = Some(entry.clone());
                let evidence = Evidence::of(offer.entry.clone(), entry, run_tag);
                Err(evidence.map_or(Refusal::Known, |evidence| Refusal::Equivocation(Box::new(evidence))))
            }
        }
    }

    /// Takes in checked evidence; whether it is news that the trainer contradicts itself.
    pub(super) fn convict(&mut self, evidence: &Evidence, run_tag: &Address) -> bool {
        let known = self.offers.get(&evidence.first.result.trainer).is_some_and(|offer| offer.rival.is_some());
        for entry in [&evidence.first, &evidence.second] {
            // What was heard before, and which contradiction is kept, does not matter.
            let _heard = self.offer(entry.clone(), run_tag);
        }
        !known
    }

    /// What `trainer` announced.
    pub(super) fn offer_of(&self, trainer: &Address) -> Option<&Offer> {
        self.offers.get(trainer)
    }

    /// Announcements that were not contradicted.
    pub(super) fn sound_offers(&self) -> impl Iterator<Item = &Offer> {
        self.offers.values().filter(|offer| offer.rival.is_none())
    }

    /// Every announcement as a candidate, contradicted or not: what the chain counts is the witnesses' votes.
    pub(super) fn announced_candidates(&self, run_tag: &Address) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        for offer in self.offers.values() {
            candidates.push(Candidate { commitment: offer.commitment, result: offer.entry.result.clone() });
            if let Some(rival) = &offer.rival {
                let result = rival.result.clone();
                candidates.push(Candidate { commitment: result.commitment(run_tag), result });
            }
        }
        candidates
    }

    /// Notes where a manifest is. Its witness must be a client of the round in which it submitted.
    pub(super) fn offer_manifest(&mut self, announced: ManifestAnnounced, from: PeerKey) {
        let of_witness = self.manifest_offers.values().filter(|offer| offer.announced.witness == announced.witness);
        let full = of_witness.count() >= MANIFESTS_PER_WITNESS_MAX;
        match self.manifest_offers.entry((announced.blob, announced.blob_len, announced.root)) {
            std::collections::btree_map::Entry::Occupied(entry) => {
                let offer = entry.into_mut();
                if offer.providers.len() < PROVIDERS_MAX && !offer.providers.contains(&from) {
                    offer.providers.push(from);
                }
            }
            std::collections::btree_map::Entry::Vacant(_) if full => {}
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(ManifestOffer { announced, providers: vec![from] });
            }
        }
    }

    /// Where a manifest with this root is said to be.
    pub(super) fn manifest_offers(&self, root: [u8; 32]) -> impl Iterator<Item = &ManifestOffer> {
        self.manifest_offers.values().filter(move |offer| offer.announced.root == root)
    }

    /// Who said of the blob of a manifest, of `len` bytes as it turned out, that it has another root than `root`; where it
    /// is no manifest at all, everybody who said that it was one.
    pub(super) fn false_offers(&self, blob: BlobHash, len: u32, root: Option<[u8; 32]>) -> Vec<PeerKey> {
        let of_blob =
            self.manifest_offers.values().filter(|offer| offer.announced.blob == blob && offer.announced.blob_len == len);
        of_blob.filter(|offer| Some(offer.announced.root) != root).flat_map(|offer| offer.providers.clone()).collect()
    }

    /// Who announced `payload` as its result.
    pub(super) fn authors_of(&self, payload: BlobHash) -> Vec<PeerKey> {
        let entries = self.offers.values().flat_map(|offer| core::iter::once(&offer.entry).chain(&offer.rival));
        entries.filter(|entry| entry.result.payload == payload).map(|entry| entry.from).collect()
    }

    /// Takes in a manifest whose entries' signatures are checked, if `is_wanted` approves of the root that its entries have.
    /// Entries that break the round's rules are left out: nobody who follows them votes for such.
    pub(super) fn take_manifest(
        &mut self,
        manifest: &Manifest,
        facts: &RoundFacts,
        rules: &EngineConfig,
        is_wanted: impl Fn(&[u8; 32]) -> bool,
    ) -> bool {
        let root = merkle_root(&manifest.leaves(&rules.run_tag));
        if !is_wanted(&root) || manifest.entries.len() > RESULTS_MAX {
            return false;
        }
        let sound = manifest.entries.iter().filter(|entry| {
            entry.result.round == manifest.round && check(facts, &entry.from, &entry.result, rules.payload_len).is_ok()
        });
        let candidate = |entry: &ManifestEntry| Candidate {
            commitment: entry.result.commitment(&rules.run_tag),
            result: entry.result.clone(),
        };
        self.manifests.insert(root, sound.map(candidate).collect());
        true
    }

    /// The candidates under `root`, if that manifest is known.
    pub(super) fn manifest(&self, root: &[u8; 32]) -> Option<&[Candidate]> {
        self.manifests.get(root).map(Vec::as_slice)
    }

    /// The manifest of what `is_accepted` approves of: sound announcements by ascending batch.
    pub(super) fn manifest_of(
        &self,
        round: psyche_messages::RoundKey,
        is_accepted: impl Fn(&ResultAnnounced) -> bool,
    ) -> Manifest {
        let mut accepted: Vec<_> = self.sound_offers().filter(|offer| is_accepted(&offer.entry.result)).collect();
        accepted.sort_by_key(|offer| (offer.entry.result.batch.start(), offer.commitment));
        Manifest { round, entries: accepted.into_iter().map(|offer| offer.entry.clone()).collect() }
    }
}
