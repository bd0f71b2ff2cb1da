//! What clients and passers-by do. Accounts of all but `join_run`: user (signs), instance, coordinator account.

use pinocchio::{AccountView, Address, ProgramResult, error::ProgramError};
use psyche_program_shell::account::{derived, ensure, read, signer};
use psyche_program_shell::{Call, code};
use psyche_protocol::accounts::Authorization;
use psyche_protocol::instruction::{CheckpointArgs, HealthCheckArgs, JoinRunArgs, TickArgs, WarmupWitnessArgs, WitnessArgs};
use psyche_protocol::machine::{self, CoordinatorError};
use psyche_protocol::{Pubkey, ids, pda};

use crate::state::{change, check_run, clock, refusal};

const AUTHORIZER: Address = Address::new_from_array(ids::AUTHORIZER);

/// Accounts: user (signs), authorization, instance, coordinator account.
#[inline(never)]
pub(crate) fn join_run(call: Call<'_>) -> ProgramResult {
    let (program, [user, authorization, instance, account], args) = call.open::<JoinRunArgs, 4>()?;
    signer(user)?;
    let user_key = user.address().to_bytes();
    let granted_by = granted_to(authorization, &user_key)?;
    check_run(program, instance, account, |run| ensure(granted_by == Some(run.join), code::CONSTRAINT_RAW))?;
    ensure(args.client.signer == user_key, refusal(CoordinatorError::SignerMismatch))?;
    let clock = clock()?;
    change(program, account, |run| machine::join_run(run, &args.client, &clock))
}

/// Whose permission to join `user` has by this authorization, if it holds. The authorizer makes authorizations nowhere but
/// at their addresses; that is checked all the same.
#[inline(never)]
fn granted_to(authorization: &AccountView, user: &Pubkey) -> Result<Option<Pubkey>, ProgramError> {
    let data = read(authorization, &AUTHORIZER, &Authorization::DISCRIMINATOR)?;
    let found = Authorization::decode(&data).map_err(|_| code::ACCOUNT_DID_NOT_DESERIALIZE)?;
    let seeds = pda::authorization(&found.grantor, &found.grantee, found.scope);
    derived(authorization, &seeds, found.bump, &AUTHORIZER)?;
    Ok(found.is_valid_for(&found.grantor, user, ids::JOIN_SCOPE).then_some(found.grantor))
}

#[inline(never)]
pub(crate) fn tick(call: Call<'_>) -> ProgramResult {
    let (program, [user, instance, account], _) = call.open::<TickArgs, 3>()?;
    check_user(program, user, instance, account)?;
    let clock = clock()?;
    change(program, account, |run| machine::tick(run, &clock))
}

#[inline(never)]
pub(crate) fn witness(call: Call<'_>) -> ProgramResult {
    let (program, [user, instance, account], args) = call.open::<WitnessArgs, 3>()?;
    check_user(program, user, instance, account)?;
    let clock = clock()?;
    change(program, account, |run| machine::witness(run, user.address().as_array(), &args.witness, &clock))
}

#[inline(never)]
pub(crate) fn warmup_witness(call: Call<'_>) -> ProgramResult {
    let (program, [user, instance, account], args) = call.open::<WarmupWitnessArgs, 3>()?;
    check_user(program, user, instance, account)?;
    let clock = clock()?;
    change(program, account, |run| machine::warmup_witness(run, user.address().as_array(), &args.witness, &clock))
}

#[inline(never)]
pub(crate) fn health_check(call: Call<'_>) -> ProgramResult {
    let (program, [user, instance, account], args) = call.open::<HealthCheckArgs, 3>()?;
    check_user(program, user, instance, account)?;
    let clock = clock()?;
    change(program, account, |run| machine::health_check(run, user.address().as_array(), &args, &clock))
}

#[inline(never)]
pub(crate) fn checkpoint(call: Call<'_>) -> ProgramResult {
    let (program, [user, instance, account], args) = call.open::<CheckpointArgs, 3>()?;
    check_user(program, user, instance, account)?;
    let clock = clock()?;
    change(program, account, |run| machine::checkpoint(run, user.address().as_array(), &args.checkpoint, &clock))
}

/// The user signed, and the other two accounts are a run's.
#[inline(never)]
fn check_user(program: &Address, user: &AccountView, instance: &AccountView, account: &AccountView) -> ProgramResult {
    signer(user)?;
    check_run(program, instance, account, |_| Ok(()))
}
