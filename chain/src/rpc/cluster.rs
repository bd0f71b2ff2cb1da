//! Which cluster the node is on, by the genesis hashes that its endpoints name. Pure.
//!
//! The majority decides; with a tie the cluster that was believed before, then that of the first configured endpoint. Once
//! believed, a cluster is given up only for one that at least two endpoints name: a single endpoint behind whose URL another
//! chain comes up is refused, not followed.

use solana_hash::Hash;

/// The cluster to believe in. `known` holds each endpoint's latest genesis hash, in the order of configuration.
pub(crate) fn vote(known: &[Option<Hash>], home: Option<Hash>) -> Option<Hash> {
    let votes = |hash: &Hash| known.iter().flatten().filter(|other| *other == hash).count();
    let mut best: Option<(Hash, usize)> = None;
    for hash in known.iter().flatten() {
        let count = votes(hash);
        if best.is_none_or(|(_, most)| count > most) {
            best = Some((*hash, count));
        }
    }
    let Some(home) = home else { return best.map(|(hash, _)| hash) };
    match best {
        Some((hash, count)) if count >= 2 && count > votes(&home) => Some(hash),
        _ => Some(home),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hash(byte: u8) -> Hash {
        Hash::new_from_array([byte; 32])
    }

    fn known(bytes: &[u8]) -> Vec<Option<Hash>> {
        bytes.iter().map(|byte| (*byte > 0).then(|| hash(*byte))).collect()
    }

    #[test]
    fn the_majority_decides_even_against_the_first_configured() {
        assert_eq!(vote(&known(&[1, 2, 2]), None), Some(hash(2)));
        assert_eq!(vote(&known(&[1, 2, 2]), Some(hash(1))), Some(hash(2)));
        assert_eq!(vote(&known(&[1, 2, 1]), None), Some(hash(1)));
    }

    #[test]
    fn with_a_tie_the_first_configured_decides_unless_one_was_believed_before() {
        assert_eq!(vote(&known(&[1, 2]), None), Some(hash(1)));
        assert_eq!(vote(&known(&[0, 2, 1]), None), Some(hash(2)));
        assert_eq!(vote(&known(&[1, 2]), Some(hash(2))), Some(hash(2)));
        assert_eq!(vote(&known(&[1, 1, 2, 2]), Some(hash(2))), Some(hash(2)));
    }

    #[test]
    fn a_lone_endpoint_does_not_take_the_node_to_another_cluster() {
        assert_eq!(vote(&known(&[2]), Some(hash(1))), Some(hash(1)));
        assert_eq!(vote(&known(&[0, 2, 0]), Some(hash(1))), Some(hash(1)));
    }

    #[test]
    fn without_any_answer_nothing_is_decided() {
        assert_eq!(vote(&[], None), None);
        assert_eq!(vote(&known(&[0, 0]), None), None);
        assert_eq!(vote(&known(&[0, 0]), Some(hash(3))), Some(hash(3)));
    }

    proptest! {
        #[test]
        fn prop_a_strict_majority_of_two_or_more_always_wins_and_a_vote_is_stable(
            bytes in proptest::collection::vec(0_u8..4, 1..12), home in 0_u8..4
        ) {
            let (known, home) = (known(&bytes), (home > 0).then(|| hash(home)));
            let chosen = vote(&known, home);
            let count = |wanted: Hash| known.iter().flatten().filter(|hash| **hash == wanted).count();
            for candidate in known.iter().flatten() {
                if count(*candidate) >= 2 && count(*candidate) * 2 > known.len() {
                    prop_assert_eq!(chosen, Some(*candidate));
                }
            }
            prop_assert_eq!(vote(&known, chosen), chosen);
            prop_assert!(chosen.is_none_or(|chosen| home == Some(chosen) || count(chosen) > 0));
        }
    }
}
