//! What the run's owner does.

use super::{Clock, CoordinatorError, Outcome, bump_nonce, enter, finish_with_tick, waiting_or_finished, withdraw_all};
use crate::instruction::UpdateArgs;
use crate::layout::{CoordinatorAccount, MAX_CLIENT_VERSION_LEN, MAX_RUN_ID_LEN, RunState};

/// Turns fresh account data into an unconfigured run. The data must be all the account's and carry no discriminator;
/// whatever else it holds is erased.
///
/// # Errors
/// `CoordinatorAccountIncorrectSize`, `AccountAlreadyInitialized`, `RunIdInvalidLength`, `InvalidClientVersion`; and
/// `CorruptAccount` where the memory is not aligned, which never happens on chain.
pub fn init<'a>(
    data: &'a mut [u8],
    run_id: &str,
    client_version: &str,
) -> Result<&'a mut CoordinatorAccount, CoordinatorError> {
    if data.len() != CoordinatorAccount::SIZE {
        return Err(CoordinatorError::CoordinatorAccountIncorrectSize);
    }
    let account: &mut CoordinatorAccount = bytemuck::try_from_bytes_mut(data).map_err(|_| CoordinatorError::CorruptAccount)?;
    if account.discriminator != [0; 8] {
        return Err(CoordinatorError::AccountAlreadyInitialized);
    }
    if run_id.is_empty() || run_id.len() > MAX_RUN_ID_LEN || run_id.as_bytes().contains(&0) {
        return Err(CoordinatorError::RunIdInvalidLength);
    }
    check_version(client_version)?;
    bytemuck::write_zeroes(account);
    account.discriminator = CoordinatorAccount::DISCRIMINATOR;
    account.version = CoordinatorAccount::VERSION;
    let _fits = account.state.coordinator.run_id.set(run_id) && account.state.client_version.set(client_version);
    Ok(account)
}

fn check_version(version: &str) -> Outcome {
    if version.len() > MAX_CLIENT_VERSION_LEN || version.as_bytes().contains(&0) {
        Err(CoordinatorError::InvalidClientVersion)
    } else {
        Ok(())
    }
}

/// Whether the owner may close the run.
///
/// # Errors
/// `CloseCoordinatorNotHalted`.
pub fn check_free(account: &CoordinatorAccount) -> Outcome {
    if account.halted() { Ok(()) } else { Err(CoordinatorError::CloseCoordinatorNotHalted) }
}

/// Replaces parts of the run's description.
///
/// # Errors
/// `UpdateConfigFinished`, `UpdateConfigNotHalted`, and the three sanity checks.
pub fn update(account: &mut CoordinatorAccount, args: &UpdateArgs) -> Outcome {
    let state = account.run_state();
    if state == RunState::Finished {
        return Err(CoordinatorError::UpdateConfigFinished);
    }
    let needs_halt = args.config.is_some() || args.model.is_some() || args.progress.is_some();
    if needs_halt && !state.halted() {
        return Err(CoordinatorError::UpdateConfigNotHalted);
    }
    if args.config.as_ref().is_some_and(|config| !config.check()) {
        return Err(CoordinatorError::ConfigSanityCheckFailed);
    }
    if args.model.as_ref().is_some_and(|model| !model.check()) {
        return Err(CoordinatorError::ModelSanityCheckFailed);
    }
    if args.progress.as_ref().is_some_and(|progress| !progress.check()) {
        return Err(CoordinatorError::ProgressSanityCheckFailed);
    }
    if let Some(metadata) = &args.metadata {
        account.state.metadata = *metadata;
    }
    let coordinator = &mut account.state.coordinator;
    if let Some(config) = &args.config {
        coordinator.config = *config;
    }
    if let Some(model) = &args.model {
        coordinator.model.set(model);
    }
    if let Some(progress) = &args.progress {
        coordinator.progress = *progress;
    }
    bump_nonce(account);
    Ok(())
}

/// Replaces the client version that the run wants. The nonce stays, as in the deployed program.
///
/// # Errors
/// `UpdateConfigNotHalted`, `InvalidClientVersion`.
pub fn update_client_version(account: &mut CoordinatorAccount, version: &str) -> Outcome {
    if !account.halted() {
        return Err(CoordinatorError::UpdateConfigNotHalted);
    }
    check_version(version)?;
    let _fits = account.state.client_version.set(version);
    Ok(())
}

/// Sets what the next epochs pay; `None` leaves a rate as it is.
///
/// # Errors
/// None today.
pub fn set_future_epoch_rates(account: &mut CoordinatorAccount, earning: Option<u64>, slashing: Option<u64>) -> Outcome {
    let clients = &mut account.state.clients_state;
    clients.future_earning_rate = earning.unwrap_or(clients.future_earning_rate);
    clients.future_slashing_rate = slashing.unwrap_or(clients.future_slashing_rate);
    bump_nonce(account);
    Ok(())
}

/// Pauses the run (at the epoch's end, where one is training) or resumes it.
///
/// # Errors
/// Pausing: `Halted`. Resuming: the sanity checks, `CannotResume`, and `StepsDone` where all steps are done already: a run
/// paused in its last Cooldown goes on once the owner has raised `total_steps`.
pub fn set_paused(account: &mut CoordinatorAccount, paused: bool, clock: &Clock) -> Outcome {
    if paused { pause(account, clock) } else { resume(account, clock) }
}

fn pause(account: &mut CoordinatorAccount, clock: &Clock) -> Outcome {
    let coordinator = &mut account.state.coordinator;
    let state = coordinator.state();
    if state.halted() {
        return Err(CoordinatorError::Halted);
    }
    if state.training() {
        coordinator.pending_pause = 1;
    } else {
        withdraw_all(coordinator);
        coordinator.epoch_state.cold_start_epoch = 1;
        enter(coordinator, RunState::Paused, clock.now());
    }
    bump_nonce(account);
    Ok(())
}

fn resume(account: &mut CoordinatorAccount, clock: &Clock) -> Outcome {
    let coordinator = &mut account.state.coordinator;
    let model = coordinator.model.get().map_err(|_| CoordinatorError::CorruptAccount)?;
    if !coordinator.config.check() || !coordinator.config.cold_start_fits(coordinator.model.cold_start_warmup_steps) {
        return Err(CoordinatorError::ConfigSanityCheckFailed);
    }
    if !model.check() {
        return Err(CoordinatorError::ModelSanityCheckFailed);
    }
    match coordinator.state() {
        // The first start of a run: step 1 is the first.
        RunState::Uninitialized if coordinator.config.total_steps <= 1 => return Err(CoordinatorError::StepsDone),
        RunState::Uninitialized => coordinator.progress.step = 1,
        RunState::Paused if !coordinator.progress.check() => return Err(CoordinatorError::ProgressSanityCheckFailed),
        RunState::Paused if waiting_or_finished(coordinator) == RunState::Finished => {
            return Err(CoordinatorError::StepsDone);
        }
        RunState::Paused => {}
        _ => return Err(CoordinatorError::CannotResume),
    }
    enter(coordinator, RunState::WaitingForMembers, clock.now());
    let clients = &mut account.state.clients_state;
    clients.next_active = clients.next_active.saturating_add(1);
    finish_with_tick(account, clock, true);
    Ok(())
}
