//! Checks of an account's bytes before anyone reads them.

use core::mem::offset_of;

use super::{
    ClientState, CoordinatorAccount, EpochState, FixedVec, LayoutError, LayoutFault, MAX_CLIENTS, RunState, STORED_ROUNDS,
};

const fn fault(offset: usize, what: LayoutFault) -> LayoutError {
    LayoutError { offset, what }
}

/// A flag that Borsh would call a boolean.
const fn check_flag(value: u8, offset: usize) -> Result<(), LayoutError> {
    if value <= 1 { Ok(()) } else { Err(fault(offset, LayoutFault::Tag)) }
}

fn check_len<T: Copy, const N: usize>(list: &FixedVec<T, N>, offset: usize) -> Result<(), LayoutError> {
    if list.raw_len() <= N as u64 { Ok(()) } else { Err(fault(offset + size_of::<FixedVec<T, N>>() - 8, LayoutFault::Length)) }
}

impl CoordinatorAccount {
    /// Checks everything about the bytes that does not depend on the run's rules: discriminator, version, list
    /// lengths, enum numbers, flags, and that the model description decodes.
    ///
    /// # Errors
    /// [`LayoutError`] for the first offence.
    pub fn validate(&self) -> Result<(), LayoutError> {
        if self.discriminator != Self::DISCRIMINATOR {
            return Err(fault(0, LayoutFault::Discriminator));
        }
        if self.version != Self::VERSION {
            return Err(fault(8, LayoutFault::Version));
        }
        let coordinator = &self.state.coordinator;
        if RunState::from_number(u32::from(coordinator.run_state)).is_none() {
            return Err(fault(offset_of!(Self, state.coordinator.run_state), LayoutFault::Tag));
        }
        coordinator.model.validate().map_err(|error| LayoutError {
            offset: error.offset + offset_of!(Self, state.coordinator.model),
            what: error.what,
        })?;
        check_epoch(&coordinator.epoch_state)?;
        check_flag(coordinator.pending_pause, offset_of!(Self, state.coordinator.pending_pause))?;
        check_len(&self.state.clients_state.clients, offset_of!(Self, state.clients_state.clients))?;
        check_flag(self.state.is_warmup_first_tick, offset_of!(Self, state.is_warmup_first_tick))?;
        check_flag(self.state.is_training_first_tick, offset_of!(Self, state.is_training_first_tick))
    }
}

fn check_epoch(epoch: &EpochState) -> Result<(), LayoutError> {
    const START: usize = offset_of!(CoordinatorAccount, state.coordinator.epoch_state);
    const CLIENTS: usize = START + offset_of!(EpochState, clients);
    const EXITED: usize = START + offset_of!(EpochState, exited_clients);
    for (at, round) in epoch.rounds.iter().enumerate() {
        let offset = START + at * size_of::<super::Round>();
        check_len(&round.witnesses, offset)?;
        if usize::from(round.clients_len) > MAX_CLIENTS {
            return Err(fault(offset + offset_of!(super::Round, clients_len), LayoutFault::Length));
        }
    }
    check_len(&epoch.clients, CLIENTS)?;
    check_len(&epoch.exited_clients, EXITED)?;
    for (clients, start) in [(&epoch.clients, CLIENTS), (&epoch.exited_clients, EXITED)] {
        for (at, client) in clients.iter().enumerate() {
            if ClientState::from_number(u32::from(client.state)).is_none() {
                return Err(fault(start + at * size_of::<super::EpochClient>() + 64, LayoutFault::Tag));
            }
        }
    }
    if epoch.rounds_head as usize >= STORED_ROUNDS {
        return Err(fault(START + offset_of!(EpochState, rounds_head), LayoutFault::Length));
    }
    check_flag(epoch.first_round, START + offset_of!(EpochState, first_round))?;
    check_flag(epoch.cold_start_epoch, START + offset_of!(EpochState, cold_start_epoch))
}
