//! Creation and change of runs.

use pinocchio::cpi::{Signer, invoke, invoke_signed};
use pinocchio::instruction::{InstructionAccount, InstructionView};
use pinocchio::{AccountView, Address, ProgramResult, error::ProgramError};
use psyche_program_shell::account::{
    ensure, exists, mint, program as is_program, signer, system_program, token_program, writable,
};
use psyche_program_shell::create::{create_derived, with_seeds};
use psyche_program_shell::{Call, code};
use psyche_protocol::accounts::Run;
use psyche_protocol::instruction::{
    Args, InitCoordinatorArgs, MAX_LEN, RunCreateArgs, RunUpdateArgs, SetFutureEpochRatesArgs, SetPausedArgs, UpdateArgs,
    UpdateClientVersionArgs,
};
use psyche_protocol::layout::MAX_RUN_ID_LEN;
use psyche_protocol::{ids, pda};

use crate::{RUN_ID_INVALID_LENGTH, read_run, run_at_its_address};

const COORDINATOR: Address = Address::new_from_array(ids::COORDINATOR);
const ASSOCIATED_TOKEN_PROGRAM: Address = Address::new_from_array(ids::ASSOCIATED_TOKEN_PROGRAM);
/// The associated token program's instruction that tolerates an account made before.
const CREATE_IDEMPOTENT: [u8; 1] = [1];

#[inline(never)]
pub(crate) fn create(call: Call<'_>) -> ProgramResult {
    let (program, accounts, args) = call.open::<RunCreateArgs<'_>, 10>()?;
    let [payer, run, collateral, collateral_mint, instance, account, coordinator, associated, token, system] = accounts;
    signer(payer)?;
    mint(collateral_mint)?;
    is_program(coordinator, &ids::COORDINATOR)?;
    is_program(associated, &ids::ASSOCIATED_TOKEN_PROGRAM)?;
    token_program(token)?;
    system_program(system)?;
    for written in [&*payer, run, collateral, instance, account] {
        writable(written)?;
    }
    ensure((1..=MAX_RUN_ID_LEN).contains(&args.run_id.len()), RUN_ID_INVALID_LENGTH)?;
    let index = args.index.to_le_bytes();
    let bump = create_derived(run, payer, (program, &pda::run(&index)), Run::SIZE)?;
    create_collateral(&[payer, collateral, run, collateral_mint, system, token])?;
    init_coordinator(&[payer, instance, account, system], run, &args)?;
    let created = Run {
        bump,
        index: args.index,
        main_authority: args.main_authority,
        join_authority: args.join_authority,
        coordinator_account: account.address().to_bytes(),
        coordinator_instance: instance.address().to_bytes(),
        collateral_mint: collateral_mint.address().to_bytes(),
        total_claimed_collateral_amount: 0,
        total_claimed_earned_points: 0,
    };
    created.encode(&mut run.try_borrow_mut()?).map_err(|_| ProgramError::AccountDataTooSmall)?;
    Ok(())
}

/// Makes the run's token account unless somebody already did. `views` in the associated token program's order.
#[inline(never)]
fn create_collateral(views: &[&AccountView; 6]) -> ProgramResult {
    let [payer, collateral, run, mint, system, token] = views.map(AccountView::address);
    let accounts = [
        InstructionAccount::writable_signer(payer),
        InstructionAccount::writable(collateral),
        InstructionAccount::readonly(run),
        InstructionAccount::readonly(mint),
        InstructionAccount::readonly(system),
        InstructionAccount::readonly(token),
    ];
    let instruction = InstructionView { program_id: &ASSOCIATED_TOKEN_PROGRAM, accounts: &accounts, data: &CREATE_IDEMPOTENT };
    invoke(&instruction, views)
}

/// Creates the coordinator's run with the treasury run as its main authority.
#[inline(never)]
fn init_coordinator(views: &[&AccountView; 4], run: &AccountView, args: &RunCreateArgs<'_>) -> ProgramResult {
    let init = InitCoordinatorArgs {
        main_authority: run.address().to_bytes(),
        join_authority: args.join_authority,
        run_id: args.run_id,
        client_version: args.client_version,
    };
    let [payer, instance, account, system] = views.map(AccountView::address);
    let accounts = [
        InstructionAccount::writable_signer(payer),
        InstructionAccount::writable(instance),
        InstructionAccount::writable(account),
        InstructionAccount::readonly(system),
    ];
    let mut buffer = [0; MAX_LEN];
    let data = encode(&init, &mut buffer)?;
    invoke(&InstructionView { program_id: &COORDINATOR, accounts: &accounts, data }, views)
}

#[inline(never)]
pub(crate) fn update(call: Call<'_>) -> ProgramResult {
    let (program, [authority, run, instance, account, coordinator], args) = call.open::<RunUpdateArgs<'_>, 5>()?;
    signer(authority)?;
    let found = read_run(run, program)?;
    exists(instance, &COORDINATOR)?;
    exists(account, &COORDINATOR)?;
    is_program(coordinator, &ids::COORDINATOR)?;
    run_at_its_address(run, &found, program)?;
    ensure(found.main_authority == authority.address().to_bytes(), code::CONSTRAINT_RAW)?;
    ensure(found.coordinator_instance == instance.address().to_bytes(), code::CONSTRAINT_RAW)?;
    ensure(found.coordinator_account == account.address().to_bytes(), code::CONSTRAINT_RAW)?;
    writable(account)?;
    let views = [&*run, instance, account];
    with_seeds(&pda::run(&found.index.to_le_bytes()), found.bump, |signer| forward(&Forward { views: &views, signer }, &args))
}

/// Passes a run's changes on to the coordinator. A pause comes first and a resumption last, because most of the other
/// changes need a halted run.
#[inline(never)]
fn forward(to: &Forward<'_>, args: &RunUpdateArgs<'_>) -> ProgramResult {
    if args.paused == Some(true) {
        to.send(&SetPausedArgs { paused: true })?;
    }
    let UpdateArgs { metadata, config, model, progress } = &args.update;
    if metadata.is_some() || config.is_some() || model.is_some() || progress.is_some() {
        to.send(&args.update)?;
    }
    if args.earning_rate_total_shared.is_some() || args.slashing_rate_per_client.is_some() {
        to.send(&SetFutureEpochRatesArgs {
            earning_rate_total_shared: args.earning_rate_total_shared,
            slashing_rate_per_client: args.slashing_rate_per_client,
        })?;
    }
    if let Some(client_version) = args.client_version {
        to.send(&UpdateClientVersionArgs { client_version })?;
    }
    if args.paused == Some(false) {
        to.send(&SetPausedArgs { paused: false })?;
    }
    Ok(())
}

/// Where changes go: the coordinator's owner set (run, instance, coordinator account) and the run's signature.
struct Forward<'a> {
    views: &'a [&'a AccountView; 3],
    signer: &'a Signer<'a, 'a>,
}

impl Forward<'_> {
    #[inline(never)]
    fn send<'a>(&self, args: &impl Args<'a>) -> ProgramResult {
        let [run, instance, account] = self.views.map(AccountView::address);
        let accounts = [
            InstructionAccount::readonly_signer(run),
            InstructionAccount::readonly(instance),
            InstructionAccount::writable(account),
        ];
        let mut buffer = [0; MAX_LEN];
        let data = encode(args, &mut buffer)?;
        let instruction = InstructionView { program_id: &COORDINATOR, accounts: &accounts, data };
        invoke_signed(&instruction, self.views, core::slice::from_ref(self.signer))
    }
}

fn encode<'b, 'a>(args: &impl Args<'a>, buffer: &'b mut [u8; MAX_LEN]) -> Result<&'b [u8], ProgramError> {
    let len = args.encode(buffer).map_err(|_| code::INSTRUCTION_DID_NOT_DESERIALIZE)?;
    buffer.get(..len).ok_or(code::INSTRUCTION_DID_NOT_DESERIALIZE)
}
