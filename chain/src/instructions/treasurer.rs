//! The treasurer's instructions.

use psyche_messages::Address;
use psyche_protocol::ids;
use psyche_protocol::instruction::{ParticipantClaimArgs, ParticipantCreateArgs, RunCreateArgs, RunUpdateArgs};
use solana_instruction::Instruction;

use super::{build, payer, read, signer, written};
use crate::addresses;
use crate::error::ChainError;
use crate::program_error::ProgramIds;
use crate::run::RunInfo;

const SYSTEM: Address = Address(ids::SYSTEM_PROGRAM);
const TOKEN: Address = Address(ids::TOKEN_PROGRAM);
const ASSOCIATED_TOKEN: Address = Address(ids::ASSOCIATED_TOKEN_PROGRAM);

/// A treasury run's address and what it pays with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreasuryAddresses {
    /// The treasury run.
    pub run: Address,
    /// The token that it pays.
    pub mint: Address,
}

impl TreasuryAddresses {
    /// Where the treasury keeps its tokens.
    #[must_use]
    pub fn collateral(&self) -> Address {
        addresses::associated_token(self.run, self.mint)
    }
}

/// Creates a run that the treasury owns, with `account` as its coordinator account.
///
/// # Errors
/// [`ChainError::Encode`] for texts that are too long.
pub fn run_create(
    programs: &ProgramIds,
    payer_address: Address,
    mint: Address,
    instance: Address,
    account: Address,
    args: &RunCreateArgs<'_>,
) -> Result<Instruction, ChainError> {
    let treasury = TreasuryAddresses { run: addresses::treasury_run(programs, args.index), mint };
    let accounts = vec![
        payer(payer_address),
        written(treasury.run),
        written(treasury.collateral()),
        read(mint),
        written(instance),
        written(account),
        read(programs.coordinator),
        read(ASSOCIATED_TOKEN),
        read(TOKEN),
        read(SYSTEM),
    ];
    build("run_create", programs.treasurer, accounts, args)
}

/// Does what an owner may do, to a run that the treasury owns.
///
/// # Errors
/// [`ChainError::Encode`].
pub fn run_update(
    programs: &ProgramIds,
    authority: Address,
    run: &RunInfo,
    args: &RunUpdateArgs<'_>,
) -> Result<Instruction, ChainError> {
    let accounts = vec![
        signer(authority),
        written(run.main_authority),
        written(run.instance),
        written(run.account),
        read(programs.coordinator),
    ];
    build("run_update", programs.treasurer, accounts, args)
}

/// Opens `user`'s account with the treasury; the user pays.
///
/// # Errors
/// [`ChainError::Encode`].
pub fn participant_create(programs: &ProgramIds, run: Address, user: Address) -> Result<Instruction, ChainError> {
    let participant = addresses::participant(programs, run, user);
    let accounts = vec![payer(user), signer(user), read(run), written(participant), read(SYSTEM)];
    build("participant_create", programs.treasurer, accounts, &ParticipantCreateArgs)
}

/// Pays `points` of what `user` has earned, into the user's associated token account.
///
/// # Errors
/// [`ChainError::Encode`].
pub fn participant_claim(
    programs: &ProgramIds,
    treasury: &TreasuryAddresses,
    coordinator_account: Address,
    user: Address,
    points: u64,
) -> Result<Instruction, ChainError> {
    let accounts = vec![
        signer(user),
        written(addresses::associated_token(user, treasury.mint)),
        written(treasury.run),
        written(treasury.collateral()),
        written(addresses::participant(programs, treasury.run, user)),
        read(coordinator_account),
        read(TOKEN),
    ];
    let args = ParticipantClaimArgs { claim_earned_points: points };
    build("participant_claim", programs.treasurer, accounts, &args)
}
