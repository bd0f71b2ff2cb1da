//! Seeds of every program-derived address (ABI section 1.1).
//!
//! The address itself needs curve arithmetic, which is the caller's: on chain the program runtime, off chain the
//! crate that talks to the chain.

use crate::Pubkey;
use crate::hash::{low_u64, sha256};

/// First seed of a run's coordinator instance.
pub const COORDINATOR_SEED: &[u8] = b"coordinator";
/// First seed of an authorization.
pub const AUTHORIZATION_SEED: &[u8] = b"Authorization";
/// First seed of a treasury run.
pub const RUN_SEED: &[u8] = b"Run";
/// First seed of a treasury participant.
pub const PARTICIPANT_SEED: &[u8] = b"Participant";

/// Seeds of a run's instance under the coordinator program.
#[must_use]
pub const fn coordinator_instance(run_id: &str) -> [&[u8]; 2] {
    [COORDINATOR_SEED, run_id.as_bytes()]
}

/// Seeds of an authorization under the authorizer program.
#[must_use]
pub const fn authorization<'a>(grantor: &'a Pubkey, grantee: &'a Pubkey, scope: &'a [u8]) -> [&'a [u8]; 4] {
    [AUTHORIZATION_SEED, grantor, grantee, scope]
}

/// Seeds of a treasury run under the treasurer program, from `treasurer_index(run_id).to_le_bytes()`.
#[must_use]
pub const fn run(index_le: &[u8; 8]) -> [&[u8]; 2] {
    [RUN_SEED, index_le]
}

/// Seeds of a participant of the treasury run at address `run`, under the treasurer program.
#[must_use]
pub const fn participant<'a>(run: &'a Pubkey, user: &'a Pubkey) -> [&'a [u8]; 3] {
    [PARTICIPANT_SEED, run, user]
}

/// The treasury index that a run has unless its creator chose another.
#[must_use]
pub fn treasurer_index(run_id: &str) -> u64 {
    low_u64(&sha256(&[run_id.as_bytes()]))
}
