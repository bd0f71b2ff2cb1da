//! Which reports of the transaction history belong to a round that the account no longer tells of.
//!
//! A report names a step, which no program looks at: whoever lies about it lies for nothing here, as it is not read. What binds
//! a report to a round is the order of the chain. The program takes reports only for the round in work and adds each to its
//! list; so what lies between two states that this node saw, less what belongs to the rounds whose lists it knows, is the rest
//! of the one round whose list it does not know. Every report makes a new nonce, so that a history with too few or too many
//! transactions is noticed, and asked for again, instead of believed.

use psyche_messages::{Nonce, Slot};
use psyche_protocol::layout::{MAX_WITNESSES, Witness};

/// A state of the account that this node saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    /// The slot at which it was read: it holds the effect of every transaction up to this one.
    pub slot: Slot,
    /// Its nonce.
    pub nonce: Nonce,
}

/// What happened on chain, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Past {
    /// A report that the program accepted.
    Witness(Box<Witness>),
    /// Anything else that the program did for the run, or found nothing to do for.
    Other,
}

/// The time between two states, in which the reports of one round are not known.
#[derive(Clone, Debug, PartialEq)]
pub struct Gap {
    /// The newest state before the gap.
    pub after: Sight,
    /// The oldest one behind it.
    pub until: Sight,
    /// Reports in the gap, of rounds before.
    pub(super) before: Vec<Witness>,
    /// Reports of the round that were seen before the gap.
    pub(super) known: Vec<Witness>,
    /// Reports in the gap, of rounds after.
    pub(super) later: Vec<Witness>,
}

impl Gap {
    /// The reports of the round in their order, from everything that was done for the run in the slots after
    /// [`Gap::after`] up to [`Gap::until`]. `None` if that is not all of it, or does not fit to what this node saw.
    #[must_use]
    pub fn fill(&self, past: &[Past]) -> Option<Vec<Witness>> {
        let report = |past: &Past| if let Past::Witness(witness) = past { Some(**witness) } else { None };
        let reports: Vec<Witness> = past.iter().filter_map(report).collect();
        let changes = self.until.nonce.0.checked_sub(self.after.nonce.0)?;
        // Some transactions find nothing to do, and no state is new without one.
        if (reports.len() as u64) > changes || changes > past.len() as u64 {
            return None;
        }
        let rest = reports.strip_prefix(self.before.as_slice())?.strip_suffix(self.later.as_slice())?;
        let list = [self.known.as_slice(), rest].concat();
        let mut indices: Vec<_> = list.iter().map(|witness| witness.proof.index).collect();
        indices.sort_unstable();
        // The program takes one report of each client, and no more than it has room for.
        let possible = list.len() <= MAX_WITNESSES && indices.windows(2).all(|pair| pair[0] != pair[1]);
        possible.then_some(list)
    }
}

#[cfg(test)]
mod tests {
    use psyche_protocol::layout::{Bloom, WitnessProof};

    use super::*;

    fn report(index: u64, round: u8) -> Witness {
        let empty = Bloom::new([0; 8]);
        Witness {
            proof: WitnessProof::new(0, index, true),
            participant_bloom: empty,
            broadcast_bloom: empty,
            broadcast_merkle: [round; 32],
        }
    }

    fn said(index: u64, round: u8) -> Past {
        Past::Witness(Box::new(report(index, round)))
    }

    fn gap(changes: u64) -> Gap {
        let sight = |slot, nonce| Sight { slot: Slot(slot), nonce: Nonce(nonce) };
        Gap {
            after: sight(10, 100),
            until: sight(20, 100 + changes),
            before: vec![report(1, 1)],
            known: Vec::new(),
            later: vec![report(0, 3)],
        }
    }

    #[test]
    fn reports_are_told_apart_by_their_order_and_not_by_what_they_claim() {
        let past = [said(1, 1), Past::Other, said(0, 2), said(1, 2), Past::Other, said(0, 3)];
        assert_eq!(gap(6).fill(&past), Some(vec![report(0, 2), report(1, 2)]));
        let mut seen = gap(4);
        (seen.before, seen.known) = (Vec::new(), vec![report(0, 2)]);
        assert_eq!(seen.fill(&past[3..]), None, "more states than transactions");
        seen.until.nonce = Nonce(103);
        assert_eq!(seen.fill(&past[3..]), Some(vec![report(0, 2), report(1, 2)]));
    }

    #[test]
    fn a_history_that_lacks_something_or_does_not_fit_is_not_believed() {
        let whole = [said(1, 1), Past::Other, said(0, 2), said(0, 3)];
        assert!(gap(4).fill(&whole).is_some());
        for missing in 0..4 {
            let mut past = whole.to_vec();
            past.remove(missing);
            assert_eq!(gap(4).fill(&past), None, "without transaction {missing}");
        }
        assert_eq!(gap(2).fill(&whole), None, "more reports than states");
        let swapped = [said(0, 2), Past::Other, said(1, 1), said(0, 3)];
        assert_eq!(gap(4).fill(&swapped), None, "another order");
        let twice = [said(1, 1), said(0, 2), said(0, 2), said(0, 3)];
        assert_eq!(gap(4).fill(&twice), None, "the program takes one report of each");
        let backwards = Gap { until: Sight { slot: Slot(20), nonce: Nonce(99) }, ..gap(4) };
        assert_eq!(backwards.fill(&whole), None);
    }
}
