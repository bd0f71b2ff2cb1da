//! Which members of an epoch may name new weights: a few, drawn anew by every round's seed.

use crate::Pubkey;
use crate::hash::sha256;
use crate::layout::{ClientState, CoordinatorAccount, EpochClient};
use crate::machine::CoordinatorError;

/// Members that a round's seed elects. More than one, so that a crash of one delays nobody.
pub const CHECKPOINTERS: usize = 3;

/// The order in which a round's seed puts the members: by a digest of the signer, so that the place of one does not
/// change when another leaves.
struct Ranking([u8; 32]);

impl Ranking {
    fn of(random_seed: u64) -> Self {
        let seed = sha256(&[&random_seed.to_le_bytes()]);
        Self(sha256(&[&seed, b"checkpoint"]))
    }

    fn rank(&self, signer: &Pubkey) -> [u8; 32] {
        sha256(&[&self.0, signer])
    }
}

/// Dropped and ejected members have no say; those whom a pause or an empty round sent home still hold the weights.
fn has_weights(client: &EpochClient) -> bool {
    matches!(client.client_state(), ClientState::Healthy | ClientState::Withdrawn)
}

/// The members who may name the run's checkpoint now, in the order of the draw: elected among the epoch's members by the
/// seed of the current (or last) round. Who is elected stays so until the next round begins, whoever else leaves; nobody
/// is before the epoch's first round.
#[must_use]
pub fn checkpointers(account: &CoordinatorAccount) -> [Option<Pubkey>; CHECKPOINTERS] {
    let round = account.current_round();
    let mut elected: [Option<([u8; 32], Pubkey)>; CHECKPOINTERS] = [None; CHECKPOINTERS];
    if round.clients_len == 0 {
        return [None; CHECKPOINTERS];
    }
    let ranking = Ranking::of(round.random_seed);
    for client in account.clients().iter().filter(|client| has_weights(client)) {
        let mut seeker = Some((ranking.rank(&client.id.signer), client.id.signer));
        for seat in &mut elected {
            // Whoever is ahead takes the seat; who had it moves on to the next.
            let is_ahead = match (&seeker, &*seat) {
                (Some((rank, _)), Some((taken, _))) => rank < taken,
                (Some(_), None) => true,
                (None, _) => break,
            };
            if is_ahead {
                core::mem::swap(seat, &mut seeker);
            }
        }
    }
    elected.map(|seat| seat.map(|(_, signer)| signer))
}

/// Whether `signer` may name the run's checkpoint now ([`checkpointers`]).
///
/// # Errors
/// `SignerNotAClient`; `NoActiveRound` before the epoch's first round; `NotElected`.
pub fn check_checkpointer(account: &CoordinatorAccount, signer: &Pubkey) -> Result<(), CoordinatorError> {
    if !account.clients().iter().any(|client| has_weights(client) && client.id.signer == *signer) {
        return Err(CoordinatorError::SignerNotAClient);
    }
    if account.current_round().clients_len == 0 {
        return Err(CoordinatorError::NoActiveRound);
    }
    if checkpointers(account).contains(&Some(*signer)) { Ok(()) } else { Err(CoordinatorError::NotElected) }
}
