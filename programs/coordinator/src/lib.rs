//! The coordinator: one run per name, its rules, its clients, and the rounds that they train in.
//!
//! *Accounts*: a [`CoordinatorInstance`] at the address derived from the run's name links owner and authorities to a
//! coordinator account of 119,160 bytes, which the creator allocates.
//! *Who may what*: the main authority changes the run; who holds an authorization of the join authority joins; clients
//! report; anybody ticks. What an instruction does is decided by [`psyche_protocol::machine`]; here are only the checks
//! of who sent it with which accounts.
//!
//! [`CoordinatorInstance`]: psyche_protocol::accounts::CoordinatorInstance

#![cfg_attr(any(target_os = "solana", target_arch = "bpf"), no_std)]

mod client;
mod owner;
mod state;

use pinocchio::{AccountView, Address, ProgramResult};
use psyche_program_shell::{Call, code};
use psyche_protocol::ids;
use psyche_protocol::instruction::{
    Args, CheckpointArgs, FreeCoordinatorArgs, HealthCheckArgs, InitCoordinatorArgs, JoinRunArgs, SetFutureEpochRatesArgs,
    SetPausedArgs, TickArgs, UpdateArgs, UpdateClientVersionArgs, WarmupWitnessArgs, WitnessArgs,
};

psyche_program_shell::entrypoint!(crate::process);

/// Handles one instruction.
pub fn process(program: &Address, accounts: &mut [AccountView], data: &[u8]) -> ProgramResult {
    let (discriminator, call) = Call::new(&ids::COORDINATOR, program, accounts, data)?;
    match discriminator {
        InitCoordinatorArgs::DISCRIMINATOR => owner::init_coordinator(call),
        FreeCoordinatorArgs::DISCRIMINATOR => owner::free_coordinator(call),
        UpdateArgs::DISCRIMINATOR => owner::update(call),
        UpdateClientVersionArgs::DISCRIMINATOR => owner::update_client_version(call),
        SetFutureEpochRatesArgs::DISCRIMINATOR => owner::set_future_epoch_rates(call),
        SetPausedArgs::DISCRIMINATOR => owner::set_paused(call),
        JoinRunArgs::DISCRIMINATOR => client::join_run(call),
        TickArgs::DISCRIMINATOR => client::tick(call),
        WitnessArgs::DISCRIMINATOR => client::witness(call),
        WarmupWitnessArgs::DISCRIMINATOR => client::warmup_witness(call),
        HealthCheckArgs::DISCRIMINATOR => client::health_check(call),
        CheckpointArgs::DISCRIMINATOR => client::checkpoint(call),
        _ => Err(code::INSTRUCTION_FALLBACK_NOT_FOUND),
    }
}
