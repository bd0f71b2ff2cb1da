//! The authorizer: a grantor permits a grantee, or keys that the grantee names, to do what a scope says.
//!
//! *Accounts*: one [`Authorization`] per (grantor, grantee, scope), at the address derived from them.
//! *Who may what*: the grantor creates, switches and closes; the grantee names its delegates, even while the
//! authorization is inactive. Payers only pay.

#![cfg_attr(any(target_os = "solana", target_arch = "bpf"), no_std)]

use pinocchio::{
    AccountView, Address, ProgramResult,
    error::ProgramError,
    sysvars::{Sysvar, clock::Clock},
};
use psyche_program_shell::account::{derived, ensure, read, signer, system_program, writable, write};
use psyche_program_shell::{Call, code, create};
use psyche_protocol::accounts::Authorization;
use psyche_protocol::instruction::{
    Args, AuthorizationCloseArgs, AuthorizationCreateArgs, AuthorizationGranteeUpdateArgs, AuthorizationGrantorUpdateArgs,
};
use psyche_protocol::{ids, pda};

psyche_program_shell::entrypoint!(crate::process);

/// An active authorization cannot be closed.
const ACTIVE_IS_TRUE: ProgramError = ProgramError::Custom(6000);
/// An authorization with delegates cannot be closed so soon after the grantor's last change.
const CLOSING_CONDITIONS_NOT_REACHED_YET: ProgramError = ProgramError::Custom(6001);
/// How long delegates are left in peace after the grantor's last change, in seconds.
const CLOSING_DELAY_S: i64 = 30 * 24 * 60 * 60;

/// Handles one instruction.
pub fn process(program: &Address, accounts: &mut [AccountView], data: &[u8]) -> ProgramResult {
    let (discriminator, call) = Call::new(&ids::AUTHORIZER, program, accounts, data)?;
    match discriminator {
        AuthorizationCreateArgs::DISCRIMINATOR => authorization_create(call),
        AuthorizationGrantorUpdateArgs::DISCRIMINATOR => authorization_grantor_update(call),
        AuthorizationGranteeUpdateArgs::DISCRIMINATOR => authorization_grantee_update(call),
        AuthorizationCloseArgs::DISCRIMINATOR => authorization_close(call),
        _ => Err(code::INSTRUCTION_FALLBACK_NOT_FOUND),
    }
}

#[inline(never)]
fn authorization_create(call: Call<'_>) -> ProgramResult {
    let (program, [payer, grantor, authorization, system], args) = call.open::<AuthorizationCreateArgs<'_>, 4>()?;
    signer(payer)?;
    signer(grantor)?;
    system_program(system)?;
    writable(payer)?;
    writable(authorization)?;
    let seeds = pda::authorization(grantor.address().as_array(), &args.grantee, args.scope);
    let space = Authorization::size(args.scope.len(), 0);
    let bump = create::create_derived(authorization, payer, (program, &seeds), space)?;
    let created = Authorization {
        bump,
        grantor: grantor.address().to_bytes(),
        grantee: args.grantee,
        scope: args.scope,
        active: false,
        delegates: &[],
        grantor_update_unix_timestamp: Clock::get()?.unix_timestamp,
    };
    created.encode(&mut authorization.try_borrow_mut()?).map_err(|_| ProgramError::AccountDataTooSmall)?;
    Ok(())
}

#[inline(never)]
fn authorization_grantor_update(call: Call<'_>) -> ProgramResult {
    let (program, [grantor, authorization], args) = call.open::<AuthorizationGrantorUpdateArgs, 2>()?;
    signer(grantor)?;
    let found = check(authorization, program)?;
    ensure(found.grantor == grantor.address().to_bytes(), code::CONSTRAINT_RAW)?;
    let mut data = write(authorization, program, &Authorization::DISCRIMINATOR)?;
    Authorization::set_active_in(&mut data, args.active, Clock::get()?.unix_timestamp)
        .map_err(|_| code::ACCOUNT_DID_NOT_DESERIALIZE)
}

#[inline(never)]
fn authorization_grantee_update(call: Call<'_>) -> ProgramResult {
    let (program, [payer, grantee, authorization, system], args) = call.open::<AuthorizationGranteeUpdateArgs<'_>, 4>()?;
    signer(payer)?;
    signer(grantee)?;
    let found = check(authorization, program)?;
    system_program(system)?;
    writable(payer)?;
    ensure(found.grantee == grantee.address().to_bytes(), code::CONSTRAINT_RAW)?;
    let kept = if args.delegates_clear { 0 } else { found.delegates };
    let space = Authorization::size(found.scope_len, kept + args.delegates_added.len());
    // Growing comes before the new delegates are written, shrinking after.
    if space > authorization.data_len() {
        create::resize(authorization, payer, space)?;
    }
    let mut data = write(authorization, program, &Authorization::DISCRIMINATOR)?;
    Authorization::set_delegates_in(&mut data, args.delegates_clear, args.delegates_added)
        .map_err(|_| code::ACCOUNT_DID_NOT_DESERIALIZE)?;
    drop(data);
    if space < authorization.data_len() {
        create::resize(authorization, payer, space)?;
    }
    Ok(())
}

#[inline(never)]
fn authorization_close(call: Call<'_>) -> ProgramResult {
    let (program, [grantor, spill, authorization, system], _) = call.open::<AuthorizationCloseArgs, 4>()?;
    signer(grantor)?;
    let found = check(authorization, program)?;
    system_program(system)?;
    writable(spill)?;
    ensure(found.grantor == grantor.address().to_bytes(), code::CONSTRAINT_RAW)?;
    ensure(!found.active, ACTIVE_IS_TRUE)?;
    let closable_at = found.grantor_updated.saturating_add(CLOSING_DELAY_S);
    let reached = found.delegates == 0 || Clock::get()?.unix_timestamp >= closable_at;
    ensure(reached, CLOSING_CONDITIONS_NOT_REACHED_YET)?;
    create::close(authorization, spill)
}

/// What the instructions need to know of an authorization.
struct Found {
    grantor: psyche_protocol::Pubkey,
    grantee: psyche_protocol::Pubkey,
    scope_len: usize,
    delegates: usize,
    active: bool,
    grantor_updated: i64,
}

/// Checks that the account is a writable authorization at its own address.
fn check(account: &AccountView, program: &Address) -> Result<Found, ProgramError> {
    let data = read(account, program, &Authorization::DISCRIMINATOR)?;
    let found = Authorization::decode(&data).map_err(|_| code::ACCOUNT_DID_NOT_DESERIALIZE)?;
    let seeds = pda::authorization(&found.grantor, &found.grantee, found.scope);
    derived(account, &seeds, found.bump, program)?;
    writable(account)?;
    Ok(Found {
        grantor: found.grantor,
        grantee: found.grantee,
        scope_len: found.scope.len(),
        delegates: found.delegates.len(),
        active: found.active,
        grantor_updated: found.grantor_update_unix_timestamp,
    })
}
