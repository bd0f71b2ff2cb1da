//! What must hold after every event, whatever goes wrong.

use std::collections::BTreeMap;

use psyche_messages::{Address, BatchInterval, Digest, ResultAnnounced, RoundKey, Step};
use psyche_protocol::select::quorum;

use super::chain::Chain;

pub(crate) const RUN_TAG: Address = Address([200; 32]);

/// What happened so far, as far as it must agree.
#[derive(Default)]
pub(crate) struct Checks {
    digests: BTreeMap<Step, Digest>,
    applied: BTreeMap<RoundKey, Vec<[u8; 32]>>,
    batches: BTreeMap<(RoundKey, BatchInterval), usize>,
    announced: BTreeMap<[u8; 32], ResultAnnounced>,
}

impl Checks {
    /// A node holds these parameters after `step`.
    pub(crate) fn hold(&mut self, node: usize, step: Step, digest: Digest) {
        let canonical = *self.digests.entry(step).or_insert(digest);
        assert_eq!(digest, canonical, "node {node} has other parameters than the others after step {step}");
    }

    /// A node applies these results.
    pub(crate) fn apply(&mut self, node: usize, round: RoundKey, results: &[ResultAnnounced]) {
        let commitments: Vec<_> = results.iter().map(|result| result.commitment(&RUN_TAG)).collect();
        let canonical = self.applied.entry(round).or_insert_with(|| commitments.clone());
        assert_eq!(&commitments, canonical, "node {node} applies other results than the others in round {round}");
        assert!(results.windows(2).all(|pair| pair[0].batch < pair[1].batch), "round {round} is not in batch order");
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
