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
use psyche_program_shell::account::{derived, read, signer, system_program, writable, write};
use psyche_program_shell::{Call, code, create};
use psyche_protocol::accounts::Authorization;
use psyche_protocol::books::{AuthorizerError, authorizer};
use psyche_protocol::instruction::{
    Args, AuthorizationCloseArgs, AuthorizationCreateArgs, AuthorizationGranteeUpdateArgs, AuthorizationGrantorUpdateArgs,
};
use psyche_protocol::{ids, pda};

psyche_program_shell::entrypoint!(crate::process);

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

/// The program's custom code for an error of the state machine.
fn refusal(error: AuthorizerError) -> ProgramError {
    ProgramError::Custom(error.code())
}

fn now() -> Result<i64, ProgramError> {
    Ok(Clock::get()?.unix_timestamp)
}

#[inline(never)]
fn authorization_create(call: Call<'_>) -> ProgramResult {
    let (program, [payer, grantor, authorization, system], args) = call.open::<AuthorizationCreateArgs<'_>, 4>()?;
    signer(payer)?;
    signer(grantor)?;
    system_program(system)?;
    writable(payer)?;
    writable(authorization)?;
    let grantor = grantor.address().as_array();
    let seeds = pda::authorization(grantor, &args.grantee, args.scope);
    let space = Authorization::size(args.scope.len(), 0);
    let bump = create::create_derived(authorization, payer, (program, &seeds), space)?;
    let created = authorizer::created(grantor, &args, bump, now()?);
    created.encode(&mut authorization.try_borrow_mut()?).map_err(|_| ProgramError::AccountDataTooSmall)?;
    Ok(())
}

#[inline(never)]
fn authorization_grantor_update(call: Call<'_>) -> ProgramResult {
    let (program, [grantor, authorization], args) = call.open::<AuthorizationGrantorUpdateArgs, 2>()?;
    signer(grantor)?;
    check(authorization, program)?;
    let now = now()?;
    let mut data = write(authorization, program, &Authorization::DISCRIMINATOR)?;
    authorizer::grantor_update(&mut data, grantor.address().as_array(), args.active, now).map_err(refusal)
}

#[inline(never)]
fn authorization_grantee_update(call: Call<'_>) -> ProgramResult {
    let (program, [payer, grantee, authorization, system], args) = call.open::<AuthorizationGranteeUpdateArgs<'_>, 4>()?;
    signer(payer)?;
    signer(grantee)?;
    check(authorization, program)?;
    system_program(system)?;
    writable(payer)?;
    let grantee = grantee.address().as_array();
    let space = authorizer::space_after(&authorization.try_borrow()?, grantee, &args).map_err(refusal)?;
    // Growing comes before the new delegates are written, shrinking after.
    if space > authorization.data_len() {
        create::resize(authorization, payer, space)?;
    }
    authorizer::grantee_update(&mut authorization.try_borrow_mut()?, grantee, &args).map_err(refusal)?;
    if space < authorization.data_len() {
        create::resize(authorization, payer, space)?;
    }
    Ok(())
}

#[inline(never)]
fn authorization_close(call: Call<'_>) -> ProgramResult {
    let (program, [grantor, spill, authorization, system], _) = call.open::<AuthorizationCloseArgs, 4>()?;
    signer(grantor)?;
    check(authorization, program)?;
    system_program(system)?;
    writable(spill)?;
    let now = now()?;
    authorizer::check_close(&authorization.try_borrow()?, grantor.address().as_array(), now).map_err(refusal)?;
    create::close(authorization, spill)
}

/// Checks that the account is a writable authorization at its own address.
#[inline(never)]
fn check(account: &AccountView, program: &Address) -> ProgramResult {
    let data = read(account, program, &Authorization::DISCRIMINATOR)?;
    let found = Authorization::decode(&data).map_err(|_| code::ACCOUNT_DID_NOT_DESERIALIZE)?;
    derived(account, &pda::authorization(&found.grantor, &found.grantee, found.scope), found.bump, program)?;
    writable(account)
}
