//! Creation and change of runs.

use pinocchio::cpi::{Signer, invoke, invoke_signed};
use pinocchio::instruction::{InstructionAccount, InstructionView};
use pinocchio::{AccountView, Address, ProgramResult, error::ProgramError};
use psyche_program_shell::account::{exists, mint, program as is_program, signer, system_program, token_program, writable};
use psyche_program_shell::create::{create_derived, with_seeds};
use psyche_program_shell::{Call, code};
use psyche_protocol::accounts::Run;
use psyche_protocol::books::treasurer::{self, Change, RunAccounts};
use psyche_protocol::codec::EncodeError;
use psyche_protocol::instruction::{Args, InitCoordinatorArgs, MAX_LEN, RunCreateArgs, RunUpdateArgs};
use psyche_protocol::{ids, pda};

use crate::{read_run, refusal, run_at_its_address};

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
    treasurer::check_run_id(args.run_id).map_err(refusal)?;
    let index = args.index.to_le_bytes();
    let bump = create_derived(run, payer, (program, &pda::run(&index)), Run::SIZE)?;
    create_collateral(&[payer, collateral, run, collateral_mint, system, token])?;
    init_coordinator(&[payer, instance, account, system], run, &args)?;
    let accounts = RunAccounts {
        coordinator_account: account.address().as_array(),
        coordinator_instance: instance.address().as_array(),
        collateral_mint: collateral_mint.address().as_array(),
    };
    let created = treasurer::created(&args, &accounts, bump);
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
    let data = used(init.encode(&mut buffer), &buffer)?;
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
    let [signed_by, its_instance, its_account] = [&*authority, instance, account].map(|view| view.address().as_array());
    treasurer::check_update(&found, signed_by, its_instance, its_account).map_err(refusal)?;
    writable(account)?;
    let views = [&*run, instance, account];
    with_seeds(&pda::run(&found.index.to_le_bytes()), found.bump, |signer| {
        let to = Forward { views: &views, signer };
        treasurer::changes(&args).iter().flatten().try_for_each(|change| to.send(change))
    })
}

/// Where changes go: the coordinator's owner set (run, instance, coordinator account) and the run's signature.
struct Forward<'a> {
    views: &'a [&'a AccountView; 3],
    signer: &'a Signer<'a, 'a>,
}

impl Forward<'_> {
    #[inline(never)]
    fn send(&self, change: &Change<'_>) -> ProgramResult {
        let [run, instance, account] = self.views.map(AccountView::address);
        let accounts = [
            InstructionAccount::readonly_signer(run),
            InstructionAccount::readonly(instance),
            InstructionAccount::writable(account),
        ];
        let mut buffer = [0; MAX_LEN];
        let data = used(change.encode(&mut buffer), &buffer)?;
        let instruction = InstructionView { program_id: &COORDINATOR, accounts: &accounts, data };
        invoke_signed(&instruction, self.views, core::slice::from_ref(self.signer))
    }
}

/// The part of `buffer` that an instruction was written to.
fn used(written: Result<usize, EncodeError>, buffer: &[u8; MAX_LEN]) -> Result<&[u8], ProgramError> {
    let len = written.map_err(|_| code::INSTRUCTION_DID_NOT_DESERIALIZE)?;
    buffer.get(..len).ok_or(code::INSTRUCTION_DID_NOT_DESERIALIZE)
}
