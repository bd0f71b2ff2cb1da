//! Which results of a round count: a pure function of what is on chain and of the witnesses' manifests.

use std::collections::{BTreeMap, BTreeSet};

use psyche_messages::{BatchInterval, ResultAnnounced};
use psyche_protocol::layout::Bloom;

/// A result that may win its batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// What stands for it in blooms.
    pub commitment: [u8; 32],
    /// The result.
    pub result: ResultAnnounced,
}

/// The winners in batch order: per batch the candidate that most of the witnesses' broadcast blooms hold, if at least
/// `quorum` do. Of equals the lowest commitment wins.
///
/// The order of `candidates` does not matter, nor do repetitions.
pub(super) fn winners<'a>(
    candidates: impl IntoIterator<Item = &'a Candidate>,
    blooms: &[&Bloom],
    quorum: usize,
) -> Vec<ResultAnnounced> {
    let mut best: BTreeMap<BatchInterval, (usize, &Candidate)> = BTreeMap::new();
    // Every witness lists the same ones, if nothing went wrong.
    let mut counted: BTreeSet<[u8; 32]> = BTreeSet::new();
    for candidate in candidates {
        if !counted.insert(candidate.commitment) {
            continue;
        }
        let votes = blooms.iter().filter(|bloom| bloom.contains(&candidate.commitment)).count();
        if votes < quorum.max(1) {
            continue;
        }
        let better = match best.get(&candidate.result.batch) {
            None => true,
            Some((most, holder)) => votes > *most || (votes == *most && candidate.commitment < holder.commitment),
        };
        if better {
            best.insert(candidate.result.batch, (votes, candidate));
        }
    }
    best.into_values().map(|(_, candidate)| candidate.result.clone()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use proptest::prelude::*;
    use psyche_messages::{Address, BlobHash, RoundKey};

    use super::*;

    fn candidate(batch: u64, payload: u8) -> Candidate {
        let result = ResultAnnounced {
            round: RoundKey::new(0, 1),
            trainer: Address([payload; 32]),
            batch: BatchInterval::new(batch * 10, batch * 10 + 9).unwrap(),
            payload: BlobHash([payload; 32]),
            payload_len: 4,
        };
        Candidate { commitment: result.commitment(&Address([7; 32])), result }
    }

    fn bloom(witness: u64, holds: &[&Candidate]) -> Bloom {
        let mut bloom = Bloom::new(core::array::from_fn(|n| witness * 1000 + n as u64));
        for candidate in holds {
            bloom.add(&candidate.commitment);
        }
        bloom
    }

    #[test]
    fn a_result_below_the_quorum_is_dropped() {
        let (a, b) = (candidate(0, 1), candidate(1, 2));
        let blooms = [bloom(1, &[&a, &b]), bloom(2, &[&a]), bloom(3, &[])];
        let blooms: Vec<_> = blooms.iter().collect();
        assert_eq!(winners([&a, &b], &blooms, 2), core::slice::from_ref(&a.result));
        assert_eq!(winners([&a, &b], &blooms, 3), []);
    }

    #[test]
    fn most_votes_win_a_batch_and_the_lowest_commitment_breaks_ties() {
        let (a, b) = (candidate(0, 1), candidate(0, 2));
        let (low, high) = if a.commitment < b.commitment { (a, b) } else { (b, a) };
        let blooms = [bloom(1, &[&high]), bloom(2, &[&high, &low]), bloom(3, &[&low])];
        let blooms: Vec<_> = blooms.iter().collect();
        assert_eq!(winners([&high, &low], &blooms, 2), core::slice::from_ref(&low.result));
        assert_eq!(winners([&low, &high], &blooms[..2], 1), core::slice::from_ref(&high.result));
    }

    #[test]
    fn without_witnesses_nothing_wins() {
        assert_eq!(winners([&candidate(0, 1)], &[], 0), []);
    }

    proptest! {
        #[test]
        fn prop_winners_do_not_depend_on_the_order_of_candidates(
            votes in prop::collection::vec((0_u64..4, 0_u8..40, prop::collection::vec(any::<bool>(), 4)), 0..20),
            turn in 0_usize..20,
        ) {
            let candidates: Vec<_> = votes.iter().map(|(batch, payload, _)| candidate(*batch, *payload)).collect();
            let blooms: Vec<_> = (0..4_usize)
                .map(|witness| {
                    let held: Vec<_> =
                        candidates.iter().zip(&votes).filter(|(_, (_, _, seen))| seen[witness]).map(|(c, _)| c).collect();
                    bloom(witness as u64, &held)
                })
                .collect();
            let blooms: Vec<_> = blooms.iter().collect();
            let expected = winners(&candidates, &blooms, 2);
            let mut turned = candidates.clone();
            turned.rotate_left(turn % candidates.len().max(1));
            turned.extend(candidates.iter().take(3).cloned());
            prop_assert_eq!(winners(&turned, &blooms, 2), expected.clone());
            prop_assert!(expected.windows(2).all(|pair| pair[0].batch < pair[1].batch));
        }
    }
}
