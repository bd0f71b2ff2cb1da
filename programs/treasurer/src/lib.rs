//! The treasurer: owns a coordinator run in its creator's name and pays the run's clients for their points.
//!
//! *Accounts*: one [`Run`] per index, which is the main authority of a coordinator run and holds the collateral in its
//! associated token account; one [`Participant`] per (run, user), the book of what that user has claimed.
//! *Who may what*: anyone creates a run under a free index; the run's main authority changes it; a user claims its own
//! points into its own token account. One point is one base unit of collateral.
//!
//! [`Run`]: psyche_protocol::accounts::Run
//! [`Participant`]: psyche_protocol::accounts::Participant

#![cfg_attr(any(target_os = "solana", target_arch = "bpf"), no_std)]

mod participant;
mod run;

use pinocchio::{AccountView, Address, ProgramResult, error::ProgramError};
use psyche_program_shell::account::{derived, read};
use psyche_program_shell::{Call, code};
use psyche_protocol::accounts::Run;
use psyche_protocol::books::TreasurerError;
use psyche_protocol::instruction::{Args, ParticipantClaimArgs, ParticipantCreateArgs, RunCreateArgs, RunUpdateArgs};
use psyche_protocol::{ids, pda};

psyche_program_shell::entrypoint!(crate::process);

/// The program's custom code for an error of the state machine.
fn refusal(error: TreasurerError) -> ProgramError {
    ProgramError::Custom(error.code())
}

/// Handles one instruction.
pub fn process(program: &Address, accounts: &mut [AccountView], data: &[u8]) -> ProgramResult {
    let (discriminator, call) = Call::new(&ids::TREASURER, program, accounts, data)?;
    match discriminator {
        RunCreateArgs::DISCRIMINATOR => run::create(call),
        RunUpdateArgs::DISCRIMINATOR => run::update(call),
        ParticipantCreateArgs::DISCRIMINATOR => participant::create(call),
        ParticipantClaimArgs::DISCRIMINATOR => participant::claim(call),
        _ => Err(code::INSTRUCTION_FALLBACK_NOT_FOUND),
    }
}

/// Reads a run's account, without a look at its address.
fn read_run(account: &AccountView, program: &Address) -> Result<Run, ProgramError> {
    let data = read(account, program, &Run::DISCRIMINATOR)?;
    Run::decode(&data).map_err(|_| code::ACCOUNT_DID_NOT_DESERIALIZE)
}

/// The account of `run` lies where its index says.
fn run_at_its_address(account: &AccountView, run: &Run, program: &Address) -> ProgramResult {
    derived(account, &pda::run(&run.index.to_le_bytes()), run.bump, program)
}
