//! What must hold between any two moments of a run; also used by the tests that compare bytecode and rules.
#![allow(dead_code, reason = "not every test uses every helper")]

use psyche_protocol::layout::*;

/// What an instruction did to points and places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Members that were paid.
    pub(crate) paid: usize,
    /// Members that were slashed.
    pub(crate) slashed: usize,
    /// Roster places that changed hands.
    pub(crate) reused: usize,
}

/// Checks everything, and says what happened.
pub(crate) fn check(before: &CoordinatorAccount, after: &CoordinatorAccount) -> Changes {
    assert_eq!(after.validate(), Ok(()));
    let (old, new) = (&before.state, &after.state);
    assert!(after.nonce == before.nonce || after.nonce == before.nonce + 1);
    assert!(new.clients_state.next_active >= old.clients_state.next_active);
    // The epoch's clients are in the roster, each once, and nobody is both here and gone.
    for (at, client) in after.clients().iter().enumerate() {
        assert!(after.roster_client(&client.id.signer).is_some());
        assert_eq!(after.client_index(&client.id.signer), Some(at));
    }
    let exited = &new.coordinator.epoch_state.exited_clients;
    assert!(after.clients().len() + exited.len() <= new.clients_state.clients.len());
    for gone in exited.iter() {
        assert!(after.client_index(&gone.id.signer).is_none() && !gone.is_healthy());
    }
    for round in &new.coordinator.epoch_state.rounds {
        let mut indices: Vec<u64> = round.witnesses.iter().map(|witness| witness.proof.index).collect();
        indices.sort_unstable();
        indices.dedup();
        assert_eq!(indices.len(), round.witnesses.len(), "one witness twice");
    }
    check_roster(before, after)
}

/// Places change hands only as documented, and points come and go only at an epoch's end: equal shares of the rate to some
/// of its clients, the slashing rate from those who were ejected from it.
fn check_roster(before: &CoordinatorAccount, after: &CoordinatorAccount) -> Changes {
    let (old, new) = (&before.state.clients_state, &after.state.clients_state);
    assert!(new.clients.len() >= old.clients.len());
    let mut signers: Vec<_> = new.clients.iter().map(|member| member.id.signer).collect();
    signers.sort_unstable();
    signers.dedup();
    assert_eq!(signers.len(), new.clients.len(), "one wallet twice");
    let ended = after.state.coordinator.progress.epoch != before.state.coordinator.progress.epoch;
    let (mut paid, mut changes) = (Vec::new(), Changes::default());
    for (was, is) in old.clients.iter().zip(new.clients.iter()) {
        if was.id.signer != is.id.signer {
            assert!(old.is_vacant(was) && !is.has_points() && old.clients.len() == MAX_CLIENTS);
            changes.reused += 1;
            continue;
        }
        assert!(is.earned >= was.earned && is.slashed >= was.slashed);
        if is.earned > was.earned {
            assert!(ended && before.client_index(&is.id.signer).is_some(), "paid for nothing");
            paid.push(is.earned - was.earned);
        }
        if is.slashed > was.slashed {
            let ejected = |client: &EpochClient| client.client_state() == ClientState::Ejected;
            let mut gone = after.state.coordinator.epoch_state.exited_clients.iter();
            assert!(ended && gone.any(|client| client.id.signer == is.id.signer && ejected(client)));
            assert_eq!(is.slashed - was.slashed, old.current_slashing_rate);
            assert_eq!(is.earned, was.earned, "an ejected client was paid");
            changes.slashed += 1;
        }
    }
    if let Some(share) = paid.first() {
        assert_eq!(*share, old.current_earning_rate / paid.len() as u64, "the shares are not the rate's");
        assert!(paid.iter().all(|points| points == share));
    }
    assert!(changes.reused <= 1);
    Changes { paid: paid.len(), ..changes }
}
