//! Questions that nodes and programs ask of an account.

use super::{
    ClientsState, Coordinator, CoordinatorAccount, EpochClient, EpochState, ROSTER_IDLE_EPOCHS, RosterClient, Round, RunState,
    STORED_ROUNDS,
};
use crate::Pubkey;

impl CoordinatorAccount {
    /// What the run is doing.
    #[must_use]
    pub fn run_state(&self) -> RunState {
        self.state.coordinator.state()
    }

    /// Whether nothing moves until the owner acts.
    #[must_use]
    pub fn halted(&self) -> bool {
        self.run_state().halted()
    }

    /// The current epoch's clients, in the order of the roster when it began.
    #[must_use]
    pub fn clients(&self) -> &[EpochClient] {
        self.state.coordinator.epoch_state.clients.as_slice()
    }

    /// Index of a signer among the current epoch's clients.
    #[must_use]
    pub fn client_index(&self, signer: &Pubkey) -> Option<usize> {
        self.clients().iter().position(|client| client.id.signer == *signer)
    }

    /// A signer's entry in the roster of all who ever joined.
    #[must_use]
    pub fn roster_client(&self, signer: &Pubkey) -> Option<&RosterClient> {
        self.state.clients_state.clients.iter().find(|client| client.id.signer == *signer)
    }

    /// Whether a signer has joined for the next epoch.
    #[must_use]
    pub fn is_pending(&self, signer: &Pubkey) -> bool {
        self.roster_client(signer).is_some_and(|client| self.state.clients_state.is_pending(client))
    }

    /// The round in work, or the last one.
    #[must_use]
    pub fn current_round(&self) -> &Round {
        self.state.coordinator.epoch_state.current_round()
    }

    /// The round before the current one, where this epoch had one.
    #[must_use]
    pub fn previous_round(&self) -> Option<&Round> {
        self.state.coordinator.epoch_state.round_back(1)
    }

    /// The round two before the current one, where this epoch had one.
    #[must_use]
    pub fn previous_previous_round(&self) -> Option<&Round> {
        self.state.coordinator.epoch_state.round_back(2)
    }
}

impl EpochState {
    /// The round in work, or the last one.
    #[must_use]
    pub fn current_round(&self) -> &Round {
        let [first, second, third, fourth] = &self.rounds;
        match self.rounds_head {
            1 => second,
            2 => third,
            3 => fourth,
            _ => first,
        }
    }

    /// The round in work, or the last one, to be changed.
    pub fn current_round_mut(&mut self) -> &mut Round {
        let [first, second, third, fourth] = &mut self.rounds;
        match self.rounds_head {
            1 => second,
            2 => third,
            3 => fourth,
            _ => first,
        }
    }

    /// The round `back` before the current one (at most 3), where this epoch had one.
    #[must_use]
    pub fn round_back(&self, back: u32) -> Option<&Round> {
        if back >= STORED_ROUNDS as u32 || self.current_round().height < back {
            return None;
        }
        let at = (self.rounds_head as usize % STORED_ROUNDS + STORED_ROUNDS - back as usize) % STORED_ROUNDS;
        self.rounds.get(at)
    }

    /// The client that had `index` when a round with `clients_len` clients began: still here, or found among the
    /// exited clients counted from their end.
    #[must_use]
    pub fn client_at(&self, index: usize, clients_len: u16) -> Option<&EpochClient> {
        if let Some(client) = self.clients.get(index) {
            return Some(client);
        }
        let from_end = usize::from(clients_len).checked_sub(index)?.checked_sub(1)?;
        let at = self.exited_clients.len().checked_sub(from_end)?.checked_sub(1)?;
        self.exited_clients.get(at)
    }
}

impl ClientsState {
    /// Whether a roster client has joined for the next epoch.
    #[must_use]
    pub const fn is_pending(&self, client: &RosterClient) -> bool {
        client.active == self.next_active
    }

    /// Whether a member's place may be given away: it has no points, and has not joined for long.
    #[must_use]
    pub const fn is_vacant(&self, client: &RosterClient) -> bool {
        !client.has_points() && client.active.saturating_add(ROSTER_IDLE_EPOCHS) < self.next_active
    }

    /// Where in the roster a client of the epoch is. The hint in the client is tried first, then every place from `from`
    /// on and around, so that a list in roster order is found in one walk.
    pub(crate) fn slot_of(&self, client: &EpochClient, from: usize) -> Option<usize> {
        let members = self.clients.as_slice();
        let is_there = |at: usize| members.get(at).is_some_and(|member| member.id.signer == client.id.signer);
        let hint = usize::from(client.roster_hint);
        if is_there(hint) {
            return Some(hint);
        }
        let from = from.min(members.len());
        (from..members.len()).chain(0..from).find(|at| is_there(*at))
    }

    /// The clients that have joined for the next epoch, in roster order.
    pub fn pending(&self) -> impl Iterator<Item = &RosterClient> {
        self.clients.iter().filter(|client| self.is_pending(client))
    }
}

impl Coordinator {
    /// The steps `[from, to)` over which the learning rate warms up again, in a cold-start epoch only.
    #[must_use]
    pub const fn cold_start_warmup_bounds(&self) -> Option<(u32, u32)> {
        let steps = self.model.cold_start_warmup_steps;
        if self.epoch_state.cold_start_epoch == 0 || steps == 0 {
            return None;
        }
        Some((self.epoch_state.start_step, self.epoch_state.start_step.saturating_add(steps)))
    }

    /// Samples in `round`'s global batch.
    #[must_use]
    pub const fn global_batch_size(&self, round: &Round) -> u16 {
        crate::select::global_batch_size(&self.config, round.data_index, self.model.max_seq_len)
    }
}
