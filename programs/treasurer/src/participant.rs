//! Users' books and claims.

use pinocchio::{AccountView, Address, ProgramResult, error::ProgramError};
use pinocchio_token::instructions::Transfer;
use psyche_program_shell::account::{
    associated, derived, ensure, exists, read, signer, system_program, token_program, tokens, writable, write,
};
use psyche_program_shell::create::{create_derived, with_seeds};
use psyche_program_shell::{Call, code};
use psyche_protocol::accounts::{Participant, Run};
use psyche_protocol::instruction::{ParticipantClaimArgs, ParticipantCreateArgs};
use psyche_protocol::layout::CoordinatorAccount;
use psyche_protocol::{Pubkey, ids, pda};

use crate::{INVALID_PARAMETER, read_run, run_at_its_address};

const COORDINATOR: Address = Address::new_from_array(ids::COORDINATOR);

#[inline(never)]
pub(crate) fn create(call: Call<'_>) -> ProgramResult {
    let (program, [payer, user, run, participant, system], _) = call.open::<ParticipantCreateArgs, 5>()?;
    signer(payer)?;
    signer(user)?;
    let found = read_run(run, program)?;
    system_program(system)?;
    writable(payer)?;
    writable(participant)?;
    run_at_its_address(run, &found, program)?;
    let seeds = pda::participant(run.address().as_array(), user.address().as_array());
    let bump = create_derived(participant, payer, (program, &seeds), Participant::SIZE)?;
    let created = Participant { bump, claimed_collateral_amount: 0, claimed_earned_points: 0 };
    created.encode(&mut participant.try_borrow_mut()?).map_err(|_| ProgramError::AccountDataTooSmall)?;
    Ok(())
}

#[inline(never)]
pub(crate) fn claim(call: Call<'_>) -> ProgramResult {
    let (program, accounts, args) = call.open::<ParticipantClaimArgs, 7>()?;
    let [user, user_collateral, run, run_collateral, participant, account, token] = accounts;
    signer(user)?;
    let theirs = tokens(user_collateral)?;
    let mut book = read_run(run, program)?;
    let ours = tokens(run_collateral)?;
    let mut entry = read_participant(participant, program)?;
    exists(account, &COORDINATOR)?;
    token_program(token)?;

    let user_key = user.address().to_bytes();
    writable(user_collateral)?;
    ensure(theirs.mint == book.collateral_mint, code::CONSTRAINT_RAW)?;
    ensure(theirs.owner == user_key, code::CONSTRAINT_RAW)?;
    ensure(!theirs.has_delegate, code::CONSTRAINT_RAW)?;
    run_at_its_address(run, &book, program)?;
    writable(run)?;
    ensure(book.coordinator_account == account.address().to_bytes(), code::CONSTRAINT_RAW)?;
    writable(run_collateral)?;
    ensure(ours.owner == run.address().to_bytes(), code::CONSTRAINT_TOKEN_OWNER)?;
    associated(run_collateral, run.address(), &book.collateral_mint)?;
    derived(participant, &pda::participant(run.address().as_array(), &user_key), entry.bump, program)?;
    writable(participant)?;

    let points = args.claim_earned_points;
    let claimable = earned(account, &user_key)?.checked_sub(entry.claimed_earned_points).ok_or(INVALID_PARAMETER)?;
    ensure(points <= claimable, INVALID_PARAMETER)?;
    // One point is one base unit of collateral.
    add(&mut entry.claimed_earned_points, points)?;
    add(&mut entry.claimed_collateral_amount, points)?;
    add(&mut book.total_claimed_earned_points, points)?;
    add(&mut book.total_claimed_collateral_amount, points)?;
    let mut data = write(participant, program, &Participant::DISCRIMINATOR)?;
    entry.encode(&mut data).map_err(|_| ProgramError::AccountDataTooSmall)?;
    drop(data);
    let mut data = write(run, program, &Run::DISCRIMINATOR)?;
    book.encode(&mut data).map_err(|_| ProgramError::AccountDataTooSmall)?;
    drop(data);
    with_seeds(&pda::run(&book.index.to_le_bytes()), book.bump, |signer| {
        Transfer::new(run_collateral, user_collateral, run, points).invoke_signed(core::slice::from_ref(signer))
    })
}

/// Points that the run's roster says `user` earned in all epochs; none for a stranger.
#[inline(never)]
fn earned(account: &AccountView, user: &Pubkey) -> Result<u64, ProgramError> {
    let data = read(account, &COORDINATOR, &CoordinatorAccount::DISCRIMINATOR)?;
    let coordinator = CoordinatorAccount::load(&data).map_err(|_| code::ACCOUNT_DID_NOT_DESERIALIZE)?;
    Ok(coordinator.roster_client(user).map_or(0, |client| client.earned))
}

fn read_participant(account: &AccountView, program: &Address) -> Result<Participant, ProgramError> {
    let data = read(account, program, &Participant::DISCRIMINATOR)?;
    Participant::decode(&data).map_err(|_| code::ACCOUNT_DID_NOT_DESERIALIZE)
}

fn add(total: &mut u64, points: u64) -> ProgramResult {
    *total = total.checked_add(points).ok_or(ProgramError::ArithmeticOverflow)?;
    Ok(())
}
