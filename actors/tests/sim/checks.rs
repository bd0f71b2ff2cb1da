//! What must hold after every event, whatever goes wrong.

use std::collections::{BTreeMap, BTreeSet};

use psyche_messages::{Address, BatchInterval, BlobHash, Digest, NodeEvent, ResultAnnounced, RoundKey, Step};
use psyche_protocol::layout::Witness;
use psyche_protocol::select::quorum;

use super::chain::Chain;
use super::training::SimModel;

pub(crate) const RUN_TAG: Address = Address([200; 32]);

/// What happened so far, as far as it must agree.
pub(crate) struct Checks {
    /// The right parameters after every step, computed apart from any node.
    models: BTreeMap<Step, SimModel>,
    applied: BTreeMap<RoundKey, Vec<[u8; 32]>>,
    batches: BTreeMap<RoundKey, BTreeMap<BatchInterval, usize>>,
    announced: BTreeMap<RoundKey, BTreeMap<[u8; 32], ResultAnnounced>>,
    /// Nodes that need not be right, because they lie, or because something breaks in them.
    pub excused: BTreeSet<usize>,
    /// Whether that is everybody.
    pub all_excused: bool,
    /// Whether all may lose everything, so that the run begins again from its checkpoint.
    pub may_begin_again: bool,
    /// How often witnesses had to be looked up in the history.
    pub rebuilds: u32,
    /// How often the history told them.
    pub rebuilt: u32,
    /// How often it would have told others, had they been picked by the steps that they name.
    pub misclaimed: u32,
    /// Who trained in which round, from when to when, where that is exact.
    pub trained: Vec<(usize, RoundKey, u64, u64)>,
    /// Batches that were trained without a result.
    pub skips: u32,
    /// How often parameters were loaded.
    pub loads: u32,
    /// Who loaded parameters after which step.
    pub loaded: Vec<(usize, Step)>,
    /// What was replayed from update logs.
    pub replays: Vec<(Step, Step)>,
    /// How often a false log was served.
    pub false_logs: u32,
    /// Who had whom scored down.
    pub blames: Vec<(usize, usize)>,
    /// Nodes whose parameters are wrong, with the step in work when they became so.
    wrong: BTreeMap<usize, Step>,
    /// The step in work when a node's parameters became wrong, and when they were right again.
    pub healings: Vec<(Step, Step)>,
    /// The newest step that outlives everybody's death on any disk.
    kept: Option<Step>,
    /// How often a node declared older parameters right.
    pub adoptions: u32,
    /// Comparisons that found a difference.
    pub differences: u32,
    warnings: BTreeMap<String, u32>,
}

impl Checks {
    pub(crate) fn new() -> Self {
        Self {
            models: BTreeMap::from([(Step(0), SimModel::initial())]),
            applied: BTreeMap::new(),
            batches: BTreeMap::new(),
            announced: BTreeMap::new(),
            excused: BTreeSet::new(),
            all_excused: false,
            may_begin_again: false,
            rebuilds: 0,
            rebuilt: 0,
            misclaimed: 0,
            trained: Vec::new(),
            skips: 0,
            loads: 0,
            loaded: Vec::new(),
            replays: Vec::new(),
            false_logs: 0,
            blames: Vec::new(),
            wrong: BTreeMap::new(),
            healings: Vec::new(),
            kept: None,
            adoptions: 0,
            differences: 0,
            warnings: BTreeMap::new(),
        }
    }

    /// A node has loaded parameters.
    pub(crate) fn load(&mut self, node: usize, step: Step, model: &SimModel, holders: &[usize]) {
        self.loads += 1;
        self.loaded.push((node, step));
        let begins_again = step > Step(0) && *model == SimModel::initial() && !self.excused.contains(&node);
        assert!(holders.is_empty() || !begins_again, "node {node} begins again, although {holders:?} hold step {step}");
        if self.may_begin_again && *model == SimModel::initial() {
            // A liar that begins again does so alone.
            let right = self.models.entry(step).or_insert_with(|| model.clone());
            if !self.excused.contains(&node) {
                *right = model.clone();
            }
        }
        self.hold(node, step, model.digest());
    }

    /// A node declares older parameters to be the right ones, as nobody has others: no honest client that it is connected to
    /// is among `holders`.
    pub(crate) fn adopt(&mut self, node: usize, (held, step): (Step, Step), model: &SimModel, holders: &[usize]) {
        let excused = self.excused.contains(&node);
        assert!(
            self.kept.is_none_or(|kept| kept <= held) || excused,
            "node {node} goes on from step {held}, {:?} is kept",
            self.kept
        );
        assert!(self.may_begin_again || excused, "node {node} takes older parameters for those after step {step}");
        assert!(
            holders.is_empty() || excused,
            "node {node} takes older parameters for those after step {step}, which {holders:?} hold"
        );
        self.models.insert(step, model.clone());
        self.adoptions += 1;
    }

    /// A node dies whose disk, which it finds again, leads to `step`.
    pub(crate) fn keep(&mut self, step: Option<Step>) {
        self.kept = self.kept.max(step);
    }

    /// A node has looked for the witnesses of a round in the history.
    pub(crate) fn rebuild(&mut self, node: usize, round: RoundKey, found: Option<&[Witness]>, chain: &Chain) {
        self.rebuilds += 1;
        let Some(found) = found else { return };
        assert_eq!(found, chain.witnesses(round), "node {node} finds other witnesses of round {round} than it had");
        self.rebuilt += 1;
        self.misclaimed += u32::from(chain.claimed(round) != found);
    }

    /// A node has another one scored down.
    pub(crate) fn blame(&mut self, node: usize, other: usize) {
        // A log that went on from what was given up is not distinguishable from a false one.
        let excused = self.all_excused || self.adoptions > 0 || self.excused.contains(&node) || self.excused.contains(&other);
        assert!(excused, "node {node} has node {other} scored down, which is honest");
        self.blames.push((node, other));
    }

    /// A node holds these parameters after `step`.
    pub(crate) fn hold(&self, node: usize, step: Step, digest: Digest) {
        let right = self.models.get(&step).expect("someone applied it").digest();
        let excused = self.excused.contains(&node);
        assert!(excused || digest == right, "node {node} has wrong parameters after step {step}");
    }

    /// Notes whether a node's parameters are right while `round` is in work, and current once they were wrong.
    pub(crate) fn watch_health(&mut self, node: usize, held: Option<(Step, Digest)>, in_work: Step) {
        let Some((step, digest)) = held else { return };
        match self.right(step).map(|right| right == digest) {
            Some(false) => {
                self.wrong.entry(node).or_insert(in_work);
            }
            Some(true) if step.0 + 2 >= in_work.0 => {
                if let Some(since) = self.wrong.remove(&node) {
                    self.healings.push((since, in_work));
                }
            }
            _ => {}
        }
    }

    /// The digest of the right parameters after `step`.
    pub(crate) fn right(&self, step: Step) -> Option<Digest> {
        self.models.get(&step).map(SimModel::digest)
    }

    /// Whether other results were witnessed.
    pub(crate) fn contradicts(&self, round: RoundKey, results: &[ResultAnnounced], chain: &Chain) -> bool {
        let commitments: Vec<_> = results.iter().map(|result| result.commitment(&RUN_TAG)).collect();
        self.witnessed(round, chain) != commitments
    }

    /// A node applies these results: exactly those that the chain's whole history calls for, which nobody else sees.
    pub(crate) fn apply(
        &mut self,
        node: usize,
        round: RoundKey,
        results: &[ResultAnnounced],
        payloads: &[Vec<u8>],
        chain: &Chain,
    ) {
        let commitments: Vec<_> = results.iter().map(|result| result.commitment(&RUN_TAG)).collect();
        let witnessed = if self.all_excused { self.applied.get(&round).cloned() } else { Some(self.witnessed(round, chain)) };
        if self.excused.contains(&node) && witnessed.as_ref().is_some_and(|others| *others != commitments) {
            return;
        }
        let canonical = witnessed.unwrap_or_else(|| commitments.clone());
        assert_eq!(commitments, canonical, "node {node} applies in round {round} what was not witnessed, or not all that was");
        self.applied.entry(round).or_insert(canonical);
        assert!(results.windows(2).all(|pair| pair[0].batch < pair[1].batch), "round {round} is not in batch order");
        let before = self.models.get(&Step(round.step.0 - 1)).cloned();
        self.models.entry(round.step).or_insert_with(|| {
            let mut model = before.expect("rounds are applied in order");
            model.apply(payloads);
            model
        });
    }

    /// A node trains a batch.
    pub(crate) fn train(&mut self, node: usize, round: RoundKey, batch: BatchInterval) {
        let batches = self.batches.entry(round).or_default();
        for (other, owner) in batches.iter() {
            let overlap = other.start() <= batch.end() && batch.start() <= other.end();
            assert!(
                !overlap || *owner == node,
                "nodes {node} and {owner} train overlapping batches {batch} and {other} in round {round}"
            );
        }
        batches.insert(batch, node);
    }

    /// A node announces a result.
    pub(crate) fn announce(&mut self, result: &ResultAnnounced) {
        self.announced.entry(result.round).or_default().insert(result.commitment(&RUN_TAG), result.clone());
    }

    /// Everything that was announced of a round.
    pub(crate) fn announced_in(&self, round: RoundKey) -> impl Iterator<Item = &ResultAnnounced> {
        self.announced.get(&round).into_iter().flatten().map(|(_, result)| result)
    }

    /// The payload that a trainer announced last before `round`.
    pub(crate) fn last_result_before(&self, round: RoundKey, trainer: &Address) -> Option<BlobHash> {
        let mut before = self.announced.range(..round).rev().flat_map(|(_, results)| results.values());
        before.find(|result| result.trainer == *trainer).map(|result| result.payload)
    }

    /// A node reports something.
    pub(crate) fn report(&mut self, event: &NodeEvent) {
        match event {
            NodeEvent::DigestCompared { equal: false, .. } => self.differences += 1,
            NodeEvent::UpdatesReplayed { from, to, .. } => self.replays.push((*from, *to)),
            NodeEvent::Warning { message } => {
                // Without the names of rounds and peers, equal warnings count together.
                let plain = |word: &&str| !word.contains(|c: char| c.is_ascii_digit());
                let kind: Vec<_> = message.split(' ').filter(plain).collect();
                *self.warnings.entry(kind.join(" ")).or_default() += 1;
            }
            _ => {}
        }
    }

    /// Whether anyone warned with these words.
    pub(crate) fn warned(&self, words: &str) -> bool {
        self.warnings.keys().any(|warning| warning.contains(words))
    }

    /// The run in a line.
    pub(crate) fn summary(&self, chain: &Chain) -> String {
        let rounds = chain.rounds();
        let epochs = rounds.iter().map(|round| round.epoch).collect::<BTreeSet<_>>().len();
        let possible: usize = rounds.iter().map(|round| chain.clients(*round)).sum();
        let applied: usize = self.applied.values().map(Vec::len).sum();
        format!(
            "{epochs} epochs, {} rounds, {applied} of {possible} results, {} loads, {} replays, {} adoptions, {} rebuilds, {} differences, {:?}",
            rounds.len(),
            self.loads,
            self.replays.len(),
            self.adoptions,
            self.rebuilds,
            self.differences,
            self.warnings
        )
    }

    /// How many results of a round were applied.
    pub(crate) fn applied_results(&self, round: RoundKey) -> Option<usize> {
        self.applied.get(&round).map(Vec::len)
    }

    /// What was witnessed of `round`, computed the plain way.
    fn witnessed(&self, round: RoundKey, chain: &Chain) -> Vec<[u8; 32]> {
        let witnesses = chain.witnesses(RoundKey { epoch: round.epoch, step: round.step.next() });
        let nodes = chain.config().witness_nodes;
        let needed = usize::from(quorum(if nodes == 0 { witnesses.len() as u16 } else { nodes }));
        let mut winners = BTreeMap::new();
        for (commitment, result) in self.announced.get(&round).into_iter().flatten() {
            let votes = witnesses.iter().filter(|witness| witness.broadcast_bloom.contains(commitment)).count();
            let best = winners.entry(result.batch).or_insert((0, [0; 32]));
            if votes >= needed && votes > 0 && (votes > best.0 || votes == best.0 && *commitment < best.1) {
                *best = (votes, *commitment);
            }
        }
        winners.into_values().filter(|(votes, _)| *votes > 0).map(|(_, commitment)| commitment).collect()
    }

    /// Compares everything that was applied with what the chain's whole history says.
    pub(crate) fn compare_with_history(&self, chain: &Chain) {
        for (round, applied) in &self.applied {
            assert_eq!(applied, &self.witnessed(*round, chain), "what was applied in round {round} is not what was witnessed");
        }
    }
}
