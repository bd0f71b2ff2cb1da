//! Quorum, and whose results the witnesses received.

use super::{Selection, participant_item};
use crate::Pubkey;
use crate::layout::{Committee, CommitteeProof, Coordinator, NodeIdentity, Round};
use crate::machine::CoordinatorError;

/// Lowest round height at which health can be judged: before it, nobody has witnessed a full round.
pub const MIN_HEALTH_HEIGHT: u32 = 2;
/// Absence is proven by this many reports at least, so that one witness alone cannot have anybody ejected.
const MIN_PROOFS: u16 = 2;

/// What the previous round's witnesses say about a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// A quorum received something from it.
    Heard,
    /// No quorum did; but some did, or too few reported at all.
    Unheard,
    /// A quorum of the witnesses that the round should have had report, each by itself, that they received nothing.
    ProvenAbsent,
}

/// How many of `witnesses` must agree: 1 of 1, 2 of 2, 2 of 3, then two thirds rounded down.
#[must_use]
pub const fn quorum(witnesses: u16) -> u16 {
    match witnesses {
        0 | 1 => 1,
        2 | 3 => 2,
        more => (more as u32 * 2 / 3) as u16,
    }
}

impl Coordinator {
    /// The quorum among a round's witnesses: of the configured number, or of those that reported where that is 0.
    #[must_use]
    pub const fn witness_quorum(&self, reported: usize) -> u16 {
        match self.config.witness_nodes {
            0 => quorum(reported as u16),
            nodes => quorum(nodes),
        }
    }
}

/// How many of a round's witnesses received something from `signer`.
#[must_use]
pub fn witness_score(round: &Round, signer: &Pubkey) -> u16 {
    let item = participant_item(signer);
    round.witnesses.iter().filter(|witness| witness.participant_bloom.contains(&item)).count() as u16
}

/// What the witnesses of the previous round say about `client`, which claims the place `proof` in it.
///
/// # Errors
/// [`CoordinatorError`] where health cannot be judged: too early, a false claim, or a committee that does not train.
pub fn check_health(
    coordinator: &Coordinator,
    client: &NodeIdentity,
    proof: &CommitteeProof,
) -> Result<Health, CoordinatorError> {
    let epoch = &coordinator.epoch_state;
    if epoch.current_round().height < MIN_HEALTH_HEIGHT {
        return Err(CoordinatorError::InvalidHealthCheck);
    }
    let round = epoch.round_back(1).ok_or(CoordinatorError::NoActiveRound)?;
    if proof.index >= u64::from(round.clients_len) {
        return Err(CoordinatorError::InvalidCommitteeProof);
    }
    let target = epoch.client_at(proof.index as usize, round.clients_len).ok_or(CoordinatorError::InvalidCommitteeProof)?;
    let selection = Selection::of_round(round, &coordinator.config).map_err(|_| CoordinatorError::InvalidCommitteeSelection)?;
    if target.id.signer != client.signer || !selection.verify_committee(proof) {
        return Err(CoordinatorError::InvalidCommitteeProof);
    }
    if proof.committee != Committee::Trainer {
        return Err(CoordinatorError::InvalidHealthCheck);
    }
    Ok(health_of(coordinator, round, &client.signer))
}

fn health_of(coordinator: &Coordinator, previous: &Round, signer: &Pubkey) -> Health {
    let reports = previous.witnesses.len();
    let heard = witness_score(previous, signer);
    if heard >= coordinator.witness_quorum(reports) {
        return Health::Heard;
    }
    let wanted = coordinator.config.witness_target(usize::from(previous.clients_len));
    let proofs = (reports as u16).saturating_sub(heard);
    if proofs >= quorum(wanted as u16).max(MIN_PROOFS) { Health::ProvenAbsent } else { Health::Unheard }
}

/// The clients that a health check would drop now, each with the proof to send: still here and healthy by name, but
/// without a quorum of the previous round's witnesses.
pub fn unhealthy_clients(coordinator: &Coordinator) -> impl Iterator<Item = (NodeIdentity, CommitteeProof)> {
    let epoch = &coordinator.epoch_state;
    let judged = (epoch.current_round().height >= MIN_HEALTH_HEIGHT && coordinator.state().training())
        .then(|| epoch.round_back(1))
        .flatten()
        .and_then(|round| Some((round, Selection::of_round(round, &coordinator.config).ok()?)));
    judged.into_iter().flat_map(move |(round, selection)| {
        let clients = epoch.clients.iter().take(usize::from(round.clients_len)).enumerate();
        clients.filter_map(move |(index, client)| {
            if !client.is_healthy() || health_of(coordinator, round, &client.id.signer) == Health::Heard {
                return None;
            }
            let proof = selection.committee(index as u64)?;
            (proof.committee == Committee::Trainer).then_some((client.id, proof))
        })
    })
}
