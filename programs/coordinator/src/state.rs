//! A run's two accounts: checked together, opened for change.

use pinocchio::sysvars::{Sysvar, clock::Clock as ClockSysvar};
use pinocchio::{AccountView, Address, ProgramResult, error::ProgramError};
use psyche_program_shell::account::{derived, ensure, read, writable, write};
use psyche_program_shell::code;
use psyche_protocol::accounts::CoordinatorInstance;
use psyche_protocol::layout::{CoordinatorAccount, LayoutFault};
use psyche_protocol::machine::{Clock, CoordinatorError};
use psyche_protocol::{Pubkey, pda};

/// The chain's clock.
pub(crate) fn clock() -> Result<Clock, ProgramError> {
    let ClockSysvar { unix_timestamp, slot, .. } = ClockSysvar::get()?;
    Ok(Clock { unix_timestamp, slot })
}

/// The program's custom code for an error of the state machine.
pub(crate) fn refusal(error: CoordinatorError) -> ProgramError {
    ProgramError::Custom(error.code())
}

/// Who is in charge of a run.
pub(crate) struct Authorities {
    pub(crate) main: Pubkey,
    pub(crate) join: Pubkey,
}

/// Checks that the two accounts are a run's: of their types, the instance at the address of its run's name, the
/// coordinator account writable and the one that the instance names. `allowed` is the rule of the instruction, in the
/// place where the deployed program has it.
#[inline(always)]
pub(crate) fn check_run(
    program: &Address,
    instance: &AccountView,
    account: &AccountView,
    allowed: impl FnOnce(&Authorities) -> ProgramResult,
) -> ProgramResult {
    let data = read(instance, program, &CoordinatorInstance::DISCRIMINATOR)?;
    let run = CoordinatorInstance::decode(&data).map_err(|_| code::ACCOUNT_DID_NOT_DESERIALIZE)?;
    drop(read(account, program, &CoordinatorAccount::DISCRIMINATOR)?);
    derived(instance, &pda::coordinator_instance(run.run_id), run.bump, program)?;
    allowed(&Authorities { main: run.main_authority, join: run.join_authority })?;
    writable(account)?;
    ensure(run.coordinator_account == account.address().to_bytes(), code::CONSTRAINT_RAW)
}

/// Applies `change` to the run's account.
#[inline(always)]
pub(crate) fn change(
    program: &Address,
    account: &mut AccountView,
    change: impl FnOnce(&mut CoordinatorAccount) -> Result<(), CoordinatorError>,
) -> ProgramResult {
    let mut data = write(account, program, &CoordinatorAccount::DISCRIMINATOR)?;
    change(load(&mut data)?).map_err(refusal)
}

#[inline(never)]
fn load(data: &mut [u8]) -> Result<&mut CoordinatorAccount, ProgramError> {
    CoordinatorAccount::load_mut(data).map_err(|error| match error.what {
        LayoutFault::Size => refusal(CoordinatorError::CoordinatorAccountIncorrectSize),
        LayoutFault::Discriminator => code::ACCOUNT_DISCRIMINATOR_MISMATCH,
        LayoutFault::Version => code::CONSTRAINT_RAW,
        LayoutFault::Alignment | LayoutFault::Length | LayoutFault::Tag => refusal(CoordinatorError::CorruptAccount),
    })
}
