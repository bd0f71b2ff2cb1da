//! What must hold after every event, whatever goes wrong.

use std::collections::{BTreeMap, BTreeSet};

use psyche_messages::{Address, BatchInterval, Digest, NodeEvent, ResultAnnounced, RoundKey, Step};
use psyche_protocol::select::quorum;

use super::chain::Chain;
use super::toy::ToyModel;

pub(crate) const RUN_TAG: Address = Address([200; 32]);

/// What happened so far, as far as it must agree.
pub(crate) struct Checks {
    /// The right parameters after every step, computed apart from any node.
    models: BTreeMap<Step, ToyModel>,
    applied: BTreeMap<RoundKey, Vec<[u8; 32]>>,
    batches: BTreeMap<(RoundKey, BatchInterval), usize>,
    announced: BTreeMap<[u8; 32], ResultAnnounced>,
    /// Nodes that need not be right, because they lie, or because something breaks in them.
    pub excused: BTreeSet<usize>,
    /// Whether all may lose everything, so that the run begins again from its checkpoint.
    pub may_begin_again: bool,
    /// How often witnesses had to be looked up in the history.
    pub rebuilds: u32,
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
    /// Nodes whose parameters are wrong, with the step in work when they became so.
    wrong: BTreeMap<usize, Step>,
    /// The step in work when a node's parameters became wrong, and when they were right again.
    pub healings: Vec<(Step, Step)>,
    /// How often a node declared older parameters right.
    pub adoptions: u32,
    /// Comparisons that found a difference.
    pub differences: u32,
    warnings: BTreeMap<String, u32>,
}

impl Checks {
    pub(crate) fn new() -> Self {
        Self {
            models: BTreeMap::from([(Step(0), ToyModel::initial())]),
            applied: BTreeMap::new(),
            batches: BTreeMap::new(),
            announced: BTreeMap::new(),
            excused: BTreeSet::new(),
            may_begin_again: false,
            rebuilds: 0,
            skips: 0,
            loads: 0,
            loaded: Vec::new(),
            replays: Vec::new(),
            false_logs: 0,
            wrong: BTreeMap::new(),
            healings: Vec::new(),
            adoptions: 0,
            differences: 0,
            warnings: BTreeMap::new(),
        }
    }

    /// A node has loaded parameters.
    pub(crate) fn load(&mut self, node: usize, step: Step, model: &ToyModel) {
        self.loads += 1;
        self.loaded.push((node, step));
        if self.may_begin_again && *model == ToyModel::initial() {
            self.models.insert(step, model.clone());
        }
        self.hold(node, step, model.digest());
    }

    /// A node declares older parameters to be the right ones, as nobody has others.
    pub(crate) fn adopt(&mut self, node: usize, step: Step, model: &ToyModel) {
        assert!(self.may_begin_again, "node {node} takes older parameters for those after step {step}");
        self.models.insert(step, model.clone());
        self.adoptions += 1;
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
        self.models.get(&step).map(ToyModel::digest)
    }

    /// Whether others applied other results.
    pub(crate) fn contradicts(&self, round: RoundKey, results: &[ResultAnnounced]) -> bool {
        let commitments: Vec<_> = results.iter().map(|result| result.commitment(&RUN_TAG)).collect();
        self.applied.get(&round).is_some_and(|others| *others != commitments)
    }

    /// A node applies these results.
    pub(crate) fn apply(&mut self, node: usize, round: RoundKey, results: &[ResultAnnounced], payloads: &[Vec<u8>]) {
        let commitments: Vec<_> = results.iter().map(|result| result.commitment(&RUN_TAG)).collect();
        if self.excused.contains(&node) && self.applied.get(&round).is_some_and(|others| *others != commitments) {
            return;
        }
        let canonical = self.applied.entry(round).or_insert_with(|| commitments.clone());
        assert_eq!(&commitments, canonical, "node {node} applies other results than the others in round {round}");
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
        for ((other_round, other), owner) in &self.batches {
            let overlap = other.start() <= batch.end() && batch.start() <= other.end();
            assert!(
                !(*other_round == round && overlap) || *owner == node,
                "nodes {node} and {owner} train overlapping batches {batch} and {other} in round {round}"
            );
        }
        self.batches.insert((round, batch), node);
    }

    /// A node announces a result.
    pub(crate) fn announce(&mut self, result: &ResultAnnounced) {
        self.announced.insert(result.commitment(&RUN_TAG), result.clone());
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

    /// Compares everything that was applied with what the chain's whole history says, computed the plain way.
    pub(crate) fn compare_with_history(&self, chain: &Chain) {
        for (round, applied) in &self.applied {
            let witnesses = chain.witnesses(RoundKey { epoch: round.epoch, step: round.step.next() });
            let nodes = chain.config().witness_nodes;
            let needed = usize::from(quorum(if nodes == 0 { witnesses.len() as u16 } else { nodes }));
            let mut winners = BTreeMap::new();
            for (commitment, result) in self.announced.iter().filter(|(_, result)| result.round == *round) {
                let votes = witnesses.iter().filter(|witness| witness.broadcast_bloom.contains(commitment)).count();
                let best = winners.entry(result.batch).or_insert((0, [0; 32]));
                if votes >= needed && votes > 0 && (votes > best.0 || votes == best.0 && *commitment < best.1) {
                    *best = (votes, *commitment);
                }
            }
            let winners: Vec<_> = winners.into_values().filter(|(votes, _)| *votes > 0).map(|(_, c)| c).collect();
            assert_eq!(applied, &winners, "what was applied in round {round} is not what was witnessed");
        }
    }
}
