//! Who trains and who witnesses in a round.

use core::fmt;

use super::shuffled_index;
use crate::hash::sha256;
use crate::layout::{Committee, CommitteeProof, Config, MAX_CLIENTS, MAX_WITNESSES, Round, WitnessProof};

/// A round's selection cannot be made from its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelectError;

impl fmt::Display for SelectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("select committees from contradictory numbers")
    }
}

impl core::error::Error for SelectError {}

/// The committees and witnesses of one round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    committee_seed: [u8; 32],
    witness_seed: [u8; 32],
    clients: u64,
    tie_breakers: u64,
    verifiers: u64,
    witnesses: u64,
}

impl Selection {
    /// The selection of `round` under `config`.
    ///
    /// # Errors
    /// [`SelectError`] when the round has fewer clients than tie breakers or configured witnesses, when more than all
    /// are to verify, or when there are more clients than an epoch can hold.
    pub fn of_round(round: &Round, config: &Config) -> Result<Self, SelectError> {
        let clients = u64::from(round.clients_len);
        let tie_breakers = u64::from(round.tie_breaker_tasks);
        let percent = u64::from(config.verification_percent);
        if round.clients_len as usize > MAX_CLIENTS
            || clients < tie_breakers
            || clients < u64::from(config.witness_nodes)
            || percent > 100
        {
            return Err(SelectError);
        }
        let witnesses = match config.witness_nodes {
            0 => MAX_WITNESSES as u64,
            nodes => u64::from(nodes),
        };
        let seed = sha256(&[&round.random_seed.to_le_bytes()]);
        Ok(Self {
            committee_seed: sha256(&[&seed, b"committee"]),
            witness_seed: sha256(&[&seed, b"witness"]),
            clients,
            tie_breakers,
            verifiers: (clients - tie_breakers) * percent / 100,
            witnesses,
        })
    }

    /// How many clients the round has.
    #[must_use]
    pub const fn clients(&self) -> u64 {
        self.clients
    }

    /// The seed of a role's shuffle: of the committees, or of the witnesses.
    #[must_use]
    pub const fn role_seeds(&self) -> (&[u8; 32], &[u8; 32]) {
        (&self.committee_seed, &self.witness_seed)
    }

    /// The committee of the client at `index`, with its proof; `None` where the round has no such client.
    #[must_use]
    pub fn committee(&self, index: u64) -> Option<CommitteeProof> {
        let position = shuffled_index(index, self.clients, &self.committee_seed)?;
        let committee = if position < self.tie_breakers {
            Committee::TieBreaker
        } else if position < self.tie_breakers + self.verifiers {
            Committee::Verifier
        } else {
            Committee::Trainer
        };
        Some(CommitteeProof { committee, position, index })
    }

    /// Whether the client at `index` is a witness, with its proof; `None` where the round has no such client.
    #[must_use]
    pub fn witness_proof(&self, index: u64) -> Option<WitnessProof> {
        let position = shuffled_index(index, self.clients, &self.witness_seed)?;
        Some(WitnessProof::new(position, index, position < self.witnesses))
    }

    /// Whether a committee proof recomputes exactly.
    #[must_use]
    pub fn verify_committee(&self, proof: &CommitteeProof) -> bool {
        self.committee(proof.index) == Some(*proof)
    }

    /// Whether a proof recomputes exactly and is a witness's.
    #[must_use]
    pub fn verify_witness(&self, proof: &WitnessProof) -> bool {
        proof.witness == 1
            && self
                .witness_proof(proof.index)
                .is_some_and(|expected| expected.position == proof.position && expected.witness == 1)
    }

    /// Whether the round has nobody but trainers, so that no shuffle is needed to know them.
    #[must_use]
    pub const fn all_train(&self) -> bool {
        self.tie_breakers == 0 && self.verifiers == 0
    }
}
