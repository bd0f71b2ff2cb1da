//! What a run's owner does. Accounts of all but the first two: authority (signs), instance, coordinator account.

use pinocchio::{AccountView, Address, ProgramResult, error::ProgramError};
use psyche_program_shell::account::{ensure, exists, signer, system_program, writable};
use psyche_program_shell::{Call, code, create};
use psyche_protocol::accounts::CoordinatorInstance;
use psyche_protocol::instruction::{
    FreeCoordinatorArgs, InitCoordinatorArgs, SetFutureEpochRatesArgs, SetPausedArgs, UpdateArgs, UpdateClientVersionArgs,
};
use psyche_protocol::{machine, pda};

use crate::state::{change, check_run, clock, refusal};

/// Accounts: payer (signs), instance, coordinator account, system program. The owner-to-be need not sign.
#[inline(never)]
pub(crate) fn init_coordinator(call: Call<'_>) -> ProgramResult {
    let (program, [payer, instance, account, system], args) = call.open::<InitCoordinatorArgs<'_>, 4>()?;
    signer(payer)?;
    exists(account, program)?;
    system_program(system)?;
    for written in [&*payer, instance, account] {
        writable(written)?;
    }
    machine::init(&mut account.try_borrow_mut()?, args.run_id, args.client_version).map_err(refusal)?;
    let seeds = pda::coordinator_instance(args.run_id);
    let bump = create::create_derived(instance, payer, (program, &seeds), CoordinatorInstance::SIZE)?;
    let created = CoordinatorInstance {
        bump,
        main_authority: args.main_authority,
        join_authority: args.join_authority,
        coordinator_account: account.address().to_bytes(),
        run_id: args.run_id,
    };
    created.encode(&mut instance.try_borrow_mut()?).map_err(|_| ProgramError::AccountDataTooSmall)?;
    Ok(())
}

/// Accounts: authority (signs), spill, instance, coordinator account. Both accounts are closed; `spill` gets their rent.
#[inline(never)]
pub(crate) fn free_coordinator(call: Call<'_>) -> ProgramResult {
    let (program, [authority, spill, instance, account], _) = call.open::<FreeCoordinatorArgs, 4>()?;
    check_owner(program, authority, instance, account)?;
    writable(spill)?;
    writable(instance)?;
    change(program, account, |run| machine::check_free(run))?;
    create::close(account, spill)?;
    create::close(instance, spill)
}

#[inline(never)]
pub(crate) fn update(call: Call<'_>) -> ProgramResult {
    let (program, [authority, instance, account], args) = call.open::<UpdateArgs, 3>()?;
    check_owner(program, authority, instance, account)?;
    change(program, account, |run| machine::update(run, &args))
}

#[inline(never)]
pub(crate) fn update_client_version(call: Call<'_>) -> ProgramResult {
    let (program, [authority, instance, account], args) = call.open::<UpdateClientVersionArgs<'_>, 3>()?;
    check_owner(program, authority, instance, account)?;
    change(program, account, |run| machine::update_client_version(run, args.client_version))
}

#[inline(never)]
pub(crate) fn set_future_epoch_rates(call: Call<'_>) -> ProgramResult {
    let (program, [authority, instance, account], args) = call.open::<SetFutureEpochRatesArgs, 3>()?;
    check_owner(program, authority, instance, account)?;
    change(program, account, |run| {
        machine::set_future_epoch_rates(run, args.earning_rate_total_shared, args.slashing_rate_per_client)
    })
}

#[inline(never)]
pub(crate) fn set_paused(call: Call<'_>) -> ProgramResult {
    let (program, [authority, instance, account], args) = call.open::<SetPausedArgs, 3>()?;
    check_owner(program, authority, instance, account)?;
    let clock = clock()?;
    change(program, account, |run| machine::set_paused(run, args.paused, &clock))
}

/// The authority signed and owns the run.
#[inline(never)]
fn check_owner(program: &Address, authority: &AccountView, instance: &AccountView, account: &AccountView) -> ProgramResult {
    signer(authority)?;
    check_run(program, instance, account, |run| ensure(run.main == authority.address().to_bytes(), code::CONSTRAINT_RAW))
}
