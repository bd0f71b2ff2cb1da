//! Users' books and claims.

use pinocchio::{AccountView, Address, ProgramResult, error::ProgramError};
use pinocchio_token::instructions::Transfer;
use psyche_program_shell::account::{
    associated, derived, ensure, exists, read, signer, system_program, token_program, tokens, writable, write,
};
use psyche_program_shell::create::{create_derived, with_seeds};
use psyche_program_shell::{Call, code};
use psyche_protocol::accounts::{Participant, Run};
use psyche_protocol::books::treasurer;
use psyche_protocol::instruction::{ParticipantClaimArgs, ParticipantCreateArgs};
use psyche_protocol::layout::CoordinatorAccount;
use psyche_protocol::{Pubkey, ids, pda};

use crate::{read_run, refusal, run_at_its_address};

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
    treasurer::opened(bump).encode(&mut participant.try_borrow_mut()?).map_err(|_| ProgramError::AccountDataTooSmall)?;
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
    treasurer::check_purse(&book, &user_key, &theirs).map_err(refusal)?;
    run_at_its_address(run, &book, program)?;
    writable(run)?;
    ensure(book.coordinator_account == account.address().to_bytes(), code::CONSTRAINT_RAW)?;
    writable(run_collateral)?;
    ensure(ours.owner == run.address().to_bytes(), code::CONSTRAINT_TOKEN_OWNER)?;
    associated(run_collateral, run.address(), &book.collateral_mint)?;
    derived(participant, &pda::participant(run.address().as_array(), &user_key), entry.bump, program)?;
    writable(participant)?;

    let claimable = claimable(account, &user_key, entry.claimed_earned_points)?;
    let tokens = treasurer::claim(&mut book, &mut entry, claimable, args.claim_earned_points).map_err(refusal)?;
    // A claim of nothing changes nothing, so it need not cost a call.
    if tokens == 0 {
        return Ok(());
    }
    let mut data = write(participant, program, &Participant::DISCRIMINATOR)?;
    entry.encode(&mut data).map_err(|_| ProgramError::AccountDataTooSmall)?;
    drop(data);
    let mut data = write(run, program, &Run::DISCRIMINATOR)?;
    book.encode(&mut data).map_err(|_| ProgramError::AccountDataTooSmall)?;
    drop(data);
    with_seeds(&pda::run(&book.index.to_le_bytes()), book.bump, |signer| {
        Transfer::new(run_collateral, user_collateral, run, tokens).invoke_signed(core::slice::from_ref(signer))
    })
}

/// Points that `user`, who has `claimed` some, can still claim by the run's roster.
#[inline(never)]
fn claimable(account: &AccountView, user: &Pubkey, claimed: u64) -> Result<u64, ProgramError> {
    let data = read(account, &COORDINATOR, &CoordinatorAccount::DISCRIMINATOR)?;
    let coordinator = CoordinatorAccount::load(&data).map_err(|_| code::ACCOUNT_DID_NOT_DESERIALIZE)?;
    Ok(treasurer::claimable(coordinator.roster_client(user), claimed))
}

fn read_participant(account: &AccountView, program: &Address) -> Result<Participant, ProgramError> {
    let data = read(account, program, &Participant::DISCRIMINATOR)?;
    Participant::decode(&data).map_err(|_| code::ACCOUNT_DID_NOT_DESERIALIZE)
}
