//! The coordinator's instructions.

use psyche_messages::Address;
use psyche_protocol::ids;
use psyche_protocol::instruction::{
    CheckpointArgs, FreeCoordinatorArgs, HealthCheckArgs, InitCoordinatorArgs, JoinRunArgs, SetFutureEpochRatesArgs,
    SetPausedArgs, TickArgs, UpdateArgs, UpdateClientVersionArgs, WarmupWitnessArgs, WitnessArgs,
};
use psyche_protocol::layout::NodeIdentity;
use solana_instruction::{AccountMeta, Instruction};

use super::{build, payer, read, signer, written};
use crate::addresses;
use crate::error::ChainError;
use crate::program_error::ProgramIds;
use crate::run::RunInfo;

/// Makes `account` the coordinator account of a new run.
///
/// # Errors
/// [`ChainError::Encode`] for texts that are too long.
pub fn init(
    programs: &ProgramIds,
    payer_address: Address,
    instance: Address,
    account: Address,
    args: &InitCoordinatorArgs<'_>,
) -> Result<Instruction, ChainError> {
    let accounts = vec![payer(payer_address), written(instance), written(account), read(Address(ids::SYSTEM_PROGRAM))];
    build("init_coordinator", programs.coordinator, accounts, args)
}

fn owner_set(run: &RunInfo) -> Vec<AccountMeta> {
    vec![signer(run.main_authority), read(run.instance), written(run.account)]
}

fn open_set(run: &RunInfo, user: Address) -> Vec<AccountMeta> {
    vec![signer(user), read(run.instance), written(run.account)]
}

/// Closes a halted run; its rent goes to `spill`.
///
/// # Errors
/// [`ChainError::Encode`].
pub fn free(programs: &ProgramIds, run: &RunInfo, spill: Address) -> Result<Instruction, ChainError> {
    let accounts = vec![signer(run.main_authority), written(spill), written(run.instance), written(run.account)];
    build("free_coordinator", programs.coordinator, accounts, &FreeCoordinatorArgs)
}

/// Changes a run's description, configuration, model or progress.
///
/// # Errors
/// [`ChainError::Encode`].
pub fn update(programs: &ProgramIds, run: &RunInfo, args: &UpdateArgs) -> Result<Instruction, ChainError> {
    build("update", programs.coordinator, owner_set(run), args)
}

/// Changes the version that a run's clients must have.
///
/// # Errors
/// [`ChainError::Encode`] for a text that is too long.
pub fn update_client_version(programs: &ProgramIds, run: &RunInfo, version: &str) -> Result<Instruction, ChainError> {
    let args = UpdateClientVersionArgs { client_version: version };
    build("update_client_version", programs.coordinator, owner_set(run), &args)
}

/// Sets what the next epochs pay.
///
/// # Errors
/// [`ChainError::Encode`].
pub fn set_future_epoch_rates(
    programs: &ProgramIds,
    run: &RunInfo,
    args: &SetFutureEpochRatesArgs,
) -> Result<Instruction, ChainError> {
    build("set_future_epoch_rates", programs.coordinator, owner_set(run), args)
}

/// Pauses or resumes a run.
///
/// # Errors
/// [`ChainError::Encode`].
pub fn set_paused(programs: &ProgramIds, run: &RunInfo, paused: bool) -> Result<Instruction, ChainError> {
    build("set_paused", programs.coordinator, owner_set(run), &SetPausedArgs { paused })
}

/// Joins a run for its next epoch, by the grant at `authorization`.
///
/// # Errors
/// [`ChainError::Encode`].
pub fn join_run(
    programs: &ProgramIds,
    run: &RunInfo,
    authorization: Address,
    client: NodeIdentity,
) -> Result<Instruction, ChainError> {
    let accounts = vec![signer(Address(client.signer)), read(authorization), read(run.instance), written(run.account)];
    build("join_run", programs.coordinator, accounts, &JoinRunArgs { client })
}

/// The grant by which a wallet may join `run`, given to `grantee` (the system program's id for everyone).
#[must_use]
pub fn join_authorization(programs: &ProgramIds, run: &RunInfo, grantee: Address) -> Address {
    addresses::authorization(programs, run.join_authority, grantee)
}

/// Moves a run on where its time has come.
///
/// # Errors
/// [`ChainError::Encode`].
pub fn tick(programs: &ProgramIds, run: &RunInfo, user: Address) -> Result<Instruction, ChainError> {
    build("tick", programs.coordinator, open_set(run, user), &TickArgs)
}

/// Testifies to what was received in a round.
///
/// # Errors
/// [`ChainError::Encode`].
pub fn witness(programs: &ProgramIds, run: &RunInfo, user: Address, args: &WitnessArgs) -> Result<Instruction, ChainError> {
    build("witness", programs.coordinator, open_set(run, user), args)
}

/// Testifies to being ready in Warmup.
///
/// # Errors
/// [`ChainError::Encode`].
pub fn warmup_witness(
    programs: &ProgramIds,
    run: &RunInfo,
    user: Address,
    args: &WarmupWitnessArgs,
) -> Result<Instruction, ChainError> {
    build("warmup_witness", programs.coordinator, open_set(run, user), args)
}

/// Reports a client that does nothing.
///
/// # Errors
/// [`ChainError::Encode`].
pub fn health_check(
    programs: &ProgramIds,
    run: &RunInfo,
    user: Address,
    args: &HealthCheckArgs,
) -> Result<Instruction, ChainError> {
    build("health_check", programs.coordinator, open_set(run, user), args)
}

/// Names the run's newest checkpoint.
///
/// # Errors
/// [`ChainError::Encode`].
pub fn checkpoint(
    programs: &ProgramIds,
    run: &RunInfo,
    user: Address,
    args: &CheckpointArgs,
) -> Result<Instruction, ChainError> {
    build("checkpoint", programs.coordinator, open_set(run, user), args)
}
