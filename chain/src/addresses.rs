//! Derived addresses (ABI section 1.1): what belongs to a run, a grant, a participant.

use psyche_messages::{Address, RunId};
use psyche_protocol::{ids, pda};
use solana_pubkey::Pubkey;

use crate::convert::{address, key};
pub use crate::program_error::ProgramIds;

fn derive(seeds: &[&[u8]], program: Address) -> Address {
    address(&Pubkey::find_program_address(seeds, &key(program)).0)
}

/// The run's instance under the coordinator program.
#[must_use]
pub fn instance(programs: &ProgramIds, run_id: &RunId) -> Address {
    derive(&pda::coordinator_instance(run_id.as_str()), programs.coordinator)
}

/// The grant to join runs that `grantor` gives `grantee`; the system program's id as grantee means everyone.
#[must_use]
pub fn authorization(programs: &ProgramIds, grantor: Address, grantee: Address) -> Address {
    derive(&pda::authorization(&grantor.0, &grantee.0, ids::JOIN_SCOPE), programs.authorizer)
}

/// The treasury run with `index` ([`treasurer_index`] unless its creator chose another).
#[must_use]
pub fn treasury_run(programs: &ProgramIds, index: u64) -> Address {
    derive(&pda::run(&index.to_le_bytes()), programs.treasurer)
}

/// The index that a run's treasury has unless its creator chose another.
#[must_use]
pub fn treasurer_index(run_id: &RunId) -> u64 {
    pda::treasurer_index(run_id.as_str())
}

/// What `user` has claimed from the treasury run at `run`.
#[must_use]
pub fn participant(programs: &ProgramIds, run: Address, user: Address) -> Address {
    derive(&pda::participant(&run.0, &user.0), programs.treasurer)
}

/// The token account for `mint` that belongs to `owner` by default.
#[must_use]
pub fn associated_token(owner: Address, mint: Address) -> Address {
    derive(&[&owner.0, &ids::TOKEN_PROGRAM, &mint.0], Address(ids::ASSOCIATED_TOKEN_PROGRAM))
}

/// Where an upgradeable program keeps its bytes.
#[must_use]
pub fn program_data(program: Address) -> Address {
    derive(&[&program.0], Address(crate::program_error::LOADER_V3))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use super::*;

    #[test]
    fn an_associated_token_account_is_where_every_wallet_expects_it() {
        // The account of the USDC mint for the system program's id, from the SPL documentation's derivation.
        let owner: Address = "11111111111111111111111111111111".parse().unwrap();
        let mint: Address = "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v".parse().unwrap();
        let seeds: [&[u8]; 3] = [&owner.0, &ids::TOKEN_PROGRAM, &mint.0];
        let (expected, bump) = Pubkey::find_program_address(&seeds, &key(Address(ids::ASSOCIATED_TOKEN_PROGRAM)));
        assert_eq!(associated_token(owner, mint), address(&expected));
        let with_bump: [&[u8]; 4] = [&owner.0, &ids::TOKEN_PROGRAM, &mint.0, &[bump]];
        let created = Pubkey::create_program_address(&with_bump, &key(Address(ids::ASSOCIATED_TOKEN_PROGRAM))).unwrap();
        assert_eq!(created, expected);
    }

    #[test]
    fn addresses_differ_by_run_grantor_and_grantee() {
        let programs = ProgramIds::default();
        let (a, b) = (Address([1; 32]), Address([2; 32]));
        assert_ne!(instance(&programs, &"a".parse().unwrap()), instance(&programs, &"b".parse().unwrap()));
        assert_ne!(authorization(&programs, a, b), authorization(&programs, b, a));
        assert_ne!(participant(&programs, a, b), participant(&programs, b, a));
        assert_ne!(treasury_run(&programs, 1), treasury_run(&programs, 256));
    }
}
