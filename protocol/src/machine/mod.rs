//! The state machine (ABI section 4): one function per instruction, over the account in place.
//!
//! *Purpose*: everything that an instruction decides once its shell has checked signatures, addresses and owners.
//! Programs run it on chain; nodes run the same code to predict what the chain will do.
//!
//! *Invariants*: a function that returns an error has changed nothing. List lengths stay within capacity. The
//! epoch's clients and its exited clients are entries of the roster. Points of either kind never decrease. The nonce
//! grows by one with every instruction that changes something, but not for a new client version; a client's instruction
//! that finds nothing to change (a tick too early, a second report of the same absence) writes nothing at all.
//!
//! *Closing gaps of the deployed programs*, while accepting the same bytes from honest clients: docs/PROGRAMS.md lists
//! them, each with its test.

mod error;
mod owner;
mod reports;
mod tick;

pub use crate::select::Clock;
pub use error::CoordinatorError;
pub use owner::{check_free, init, set_future_epoch_rates, set_paused, update, update_client_version};
pub use reports::{check_join, checkpoint, health_check, join_run, warmup_witness, witness};
pub use tick::{tick, would_tick};

use crate::layout::{ClientState, Coordinator, CoordinatorAccount, RunState, STORED_ROUNDS};

type Outcome = Result<(), CoordinatorError>;

/// Ends a client's successful instruction: the run moves on if it is time, and the nonce grows if anything `changed`.
fn finish_with_tick(account: &mut CoordinatorAccount, clock: &Clock, changed: bool) {
    let moved = tick::advance(account, clock);
    if changed || moved {
        bump_nonce(account);
    }
}

const fn bump_nonce(account: &mut CoordinatorAccount) {
    account.nonce = account.nonce.saturating_add(1);
}

/// Enters `state`.
fn enter(coordinator: &mut Coordinator, state: RunState, now: u64) {
    coordinator.run_state = state.number();
    coordinator.run_state_start_unix_timestamp = now;
}

/// Where the run goes when an epoch ends or a pause does: on, unless all steps are done.
const fn waiting_or_finished(coordinator: &Coordinator) -> RunState {
    if coordinator.progress.step < coordinator.config.total_steps { RunState::WaitingForMembers } else { RunState::Finished }
}

/// Sends everyone home.
fn withdraw_all(coordinator: &mut Coordinator) {
    for client in coordinator.epoch_state.clients.as_mut_slice() {
        if client.is_healthy() {
            client.state = ClientState::Withdrawn.number();
        }
    }
}

/// Starts a round: the epoch's first where `first_round` says so, the next one otherwise.
fn start_round(coordinator: &mut Coordinator, clock: &Clock) {
    let previous = coordinator.epoch_state.current_round();
    let next_index = previous.data_index.saturating_add(u64::from(coordinator.global_batch_size(previous)));
    let next_height = previous.height.saturating_add(1);
    let epoch = &mut coordinator.epoch_state;
    let (height, data_index) = if epoch.first_round == 1 {
        (0, coordinator.progress.epoch_start_data_index)
    } else {
        epoch.rounds_head = (epoch.rounds_head % STORED_ROUNDS as u32 + 1) % STORED_ROUNDS as u32;
        (next_height, next_index)
    };
    let clients_len = epoch.clients.len() as u16;
    let round = epoch.current_round_mut();
    round.witnesses.clear();
    round.data_index = data_index;
    round.random_seed = clock.seed();
    round.height = height;
    round.clients_len = clients_len;
    round.tie_breaker_tasks = 0;
    enter(coordinator, RunState::RoundTrain, clock.now());
}
