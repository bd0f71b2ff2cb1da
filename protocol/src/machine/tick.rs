//! What time does: a tick decides whether the run has to move, and moves it.
//!
//! The decision ([`decide`]) only reads; [`advance`] applies it. Nodes use the first to predict the second.

use super::{Clock, CoordinatorError, Outcome, bump_nonce, enter, start_round, waiting_or_finished, withdraw_all};
use crate::layout::{ClientState, ClientsState, Coordinator, CoordinatorAccount, EpochClient, EpochState, RunState};
use crate::select::MIN_HEALTH_HEIGHT;

/// After the epoch's time is over, this many more steps let the last results be exchanged and applied.
const DRAIN_STEPS: u32 = 2;
/// An epoch does not end before this step, because the pipeline of a run's first rounds has to fill.
const MIN_LAST_STEP: u32 = 4;

/// What a tick does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Move {
    /// Enough clients have joined: a new epoch begins.
    StartEpoch,
    /// Too few clients are left before the training began.
    AbandonEpoch,
    /// The warm-up is over.
    StartTraining,
    /// The time for training is over.
    EndTraining,
    /// The round is over; `last_step` is what the epoch's end becomes.
    EndRound { then: RoundEnd, last_step: u32 },
    /// The cool-down is over.
    EndEpoch,
}

/// What follows a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RoundEnd {
    /// Another round.
    NextRound,
    /// The epoch ends.
    Cooldown,
    /// The epoch ends, because no witness reported and nobody can be told to be there.
    Deserted,
}

const fn elapsed(start: u64, now: u64, seconds: u64) -> bool {
    now != start && now >= start.saturating_add(seconds)
}

fn healthy_clients(epoch: &EpochState) -> usize {
    epoch.clients.iter().filter(|client| client.is_healthy()).count()
}

fn decide(account: &CoordinatorAccount, now: u64) -> Option<Move> {
    let coordinator = &account.state.coordinator;
    let config = &coordinator.config;
    let timeout = |seconds| elapsed(coordinator.run_state_start_unix_timestamp, now, seconds);
    match coordinator.state() {
        RunState::Uninitialized | RunState::Finished | RunState::Paused => None,
        RunState::WaitingForMembers => {
            let ready = timeout(u64::from(config.waiting_for_members_extra_time))
                && account.state.clients_state.pending().count() >= usize::from(config.init_min_clients);
            ready.then_some(Move::StartEpoch)
        }
        RunState::Warmup => {
            let over = timeout(config.warmup_time);
            let epoch = &coordinator.epoch_state;
            let left = if over { epoch.clients.len() } else { healthy_clients(epoch) };
            if left < usize::from(config.min_clients) { Some(Move::AbandonEpoch) } else { over.then_some(Move::StartTraining) }
        }
        RunState::RoundTrain => timeout(config.max_round_train_time).then_some(Move::EndTraining),
        RunState::RoundWitness => timeout(config.round_witness_time).then(|| decide_round_end(coordinator, now)),
        RunState::Cooldown => timeout(config.cooldown_time).then_some(Move::EndEpoch),
    }
}

fn decide_round_end(coordinator: &Coordinator, now: u64) -> Move {
    let (epoch, config) = (&coordinator.epoch_state, &coordinator.config);
    let witnesses = epoch.current_round().witnesses.len();
    if witnesses == 0 {
        return Move::EndRound { then: RoundEnd::Deserted, last_step: epoch.last_step };
    }
    let step = coordinator.progress.step.saturating_add(1);
    let mut last_step = epoch.last_step;
    if last_step == 0 && elapsed(epoch.start_timestamp, now, config.epoch_time) {
        let candidate = step.saturating_add(DRAIN_STEPS);
        if candidate >= MIN_LAST_STEP {
            last_step = candidate;
        }
    }
    let over = (last_step != 0 && step == last_step)
        || healthy_clients(epoch) < usize::from(config.min_clients)
        || witnesses < usize::from(coordinator.witness_quorum(witnesses))
        || step >= config.total_steps
        || coordinator.pending_pause == 1;
    let then = if over { RoundEnd::Cooldown } else { RoundEnd::NextRound };
    Move::EndRound { then, last_step }
}

/// The state that a tick at `now` (seconds of the chain's clock) would lead to; `None` where the run would stay as it
/// is.
#[must_use]
pub fn would_tick(account: &CoordinatorAccount, now: i64) -> Option<RunState> {
    let coordinator = &account.state.coordinator;
    let now = Clock { unix_timestamp: now, slot: 0 }.now();
    decide(account, now).map(|decided| match decided {
        Move::StartEpoch => RunState::Warmup,
        Move::AbandonEpoch => waiting_or_finished(coordinator),
        Move::StartTraining | Move::EndRound { then: RoundEnd::NextRound, .. } => RunState::RoundTrain,
        Move::EndTraining => RunState::RoundWitness,
        Move::EndRound { then: RoundEnd::Cooldown | RoundEnd::Deserted, .. } => RunState::Cooldown,
        Move::EndEpoch if coordinator.pending_pause == 1 => RunState::Paused,
        Move::EndEpoch => waiting_or_finished(coordinator),
    })
}

/// Moves the run on if its time has come; where it has not, succeeds too and changes nothing, the nonce included.
///
/// # Errors
/// `Halted`.
pub fn tick(account: &mut CoordinatorAccount, clock: &Clock) -> Outcome {
    if account.halted() {
        return Err(CoordinatorError::Halted);
    }
    if advance(account, clock) {
        bump_nonce(account);
    }
    Ok(())
}

/// A tick that may find nothing to do: whether it changed anything. Nearly every instruction ends with it, so that copies of
/// it would fill the bytecode.
#[inline(never)]
pub(super) fn advance(account: &mut CoordinatorAccount, clock: &Clock) -> bool {
    let now = clock.now();
    let decided = decide(account, now);
    let prepared = match account.run_state() {
        RunState::WaitingForMembers => expect_epoch(account),
        RunState::Warmup if decided != Some(Move::StartTraining) => evict(&mut account.state.coordinator.epoch_state, 0),
        _ => false,
    };
    match decided {
        None => {}
        Some(Move::StartEpoch) => start_epoch(account, now),
        Some(Move::AbandonEpoch) => {
            let coordinator = &mut account.state.coordinator;
            let next = waiting_or_finished(coordinator);
            enter(coordinator, next, now);
        }
        Some(Move::StartTraining) => start_round(&mut account.state.coordinator, clock),
        Some(Move::EndTraining) => enter(&mut account.state.coordinator, RunState::RoundWitness, now),
        Some(Move::EndRound { then, last_step }) => end_round(&mut account.state.coordinator, then, last_step, clock),
        Some(Move::EndEpoch) => end_epoch(account, now),
    }
    let noted = note_phase(account);
    prepared || decided.is_some() || noted
}

/// The next Warmup and the next training will be noticed as new; false where they would have been anyway.
const fn expect_epoch(account: &mut CoordinatorAccount) -> bool {
    let state = &mut account.state;
    if state.is_warmup_first_tick == 1 && state.is_training_first_tick == 1 {
        return false;
    }
    state.is_warmup_first_tick = 1;
    state.is_training_first_tick = 1;
    true
}

/// The first tick that sees an epoch's Warmup fixes what it pays; the first that sees its training makes everyone join
/// anew for the next. Whether it was one of these.
fn note_phase(account: &mut CoordinatorAccount) -> bool {
    let state = &mut account.state;
    if state.coordinator.epoch_state.first_round != 1 {
        return false;
    }
    let clients = &mut state.clients_state;
    match state.coordinator.state() {
        RunState::Warmup if state.is_warmup_first_tick == 1 => {
            clients.current_earning_rate = clients.future_earning_rate;
            clients.current_slashing_rate = clients.future_slashing_rate;
            state.is_warmup_first_tick = 0;
        }
        RunState::RoundTrain if state.is_training_first_tick == 1 => {
            clients.next_active = clients.next_active.saturating_add(1);
            state.is_training_first_tick = 0;
        }
        _ => return false,
    }
    true
}

/// Moves clients that are not healthy to the exited ones, and says whether there were any.
fn evict(epoch: &mut EpochState, height: u32) -> bool {
    if epoch.clients.iter().all(EpochClient::is_healthy) {
        return false;
    }
    let exited = &mut epoch.exited_clients;
    epoch.clients.retain(|client| {
        if client.is_healthy() {
            return true;
        }
        let gone = EpochClient { exited_height: height, ..*client };
        // Both lists together never exceed the clients that began the epoch, so there is room.
        let _stored = exited.push(&gone);
        false
    });
    true
}

/// Whether any healthy client of the last epoch has joined the next one.
fn anyone_stays(epoch: &EpochState, roster: &ClientsState) -> bool {
    let mut next = 0;
    epoch.clients.iter().filter(|client| client.is_healthy()).any(|client| {
        let Some(slot) = roster.slot_of(client, next) else { return false };
        next = slot + 1;
        roster.clients.get(slot).is_some_and(|member| roster.is_pending(member))
    })
}

fn start_epoch(account: &mut CoordinatorAccount, now: u64) {
    let (coordinator, roster) = (&mut account.state.coordinator, &account.state.clients_state);
    if !anyone_stays(&coordinator.epoch_state, roster) {
        coordinator.model.checkpoint.take_from_peers();
    }
    let epoch = &mut coordinator.epoch_state;
    let cold_start_epoch = epoch.cold_start_epoch;
    bytemuck::write_zeroes(epoch);
    epoch.cold_start_epoch = cold_start_epoch;
    epoch.first_round = 1;
    epoch.start_step = coordinator.progress.step;
    epoch.start_timestamp = now;
    for (slot, member) in roster.clients.iter().enumerate() {
        if roster.is_pending(member) {
            let client = EpochClient { roster_hint: slot as u8, ..EpochClient::new(member.id) };
            let _stored = epoch.clients.push(&client);
        }
    }
    enter(coordinator, RunState::Warmup, now);
}

fn end_round(coordinator: &mut Coordinator, then: RoundEnd, last_step: u32, clock: &Clock) {
    let epoch = &mut coordinator.epoch_state;
    let height = epoch.current_round().height;
    epoch.first_round = 0;
    epoch.last_step = last_step;
    let _left = evict(epoch, height);
    coordinator.progress.step = coordinator.progress.step.saturating_add(1);
    match then {
        RoundEnd::NextRound => return start_round(coordinator, clock),
        RoundEnd::Deserted => withdraw_all(coordinator),
        RoundEnd::Cooldown => {}
    }
    coordinator.epoch_state.current_round_mut().witnesses.clear();
    enter(coordinator, RunState::Cooldown, clock.now());
}

#[inline(never)]
fn end_epoch(account: &mut CoordinatorAccount, now: u64) {
    // Whoever is sent home by what follows has finished the epoch.
    pay(account);
    let coordinator = &mut account.state.coordinator;
    let round = coordinator.epoch_state.current_round();
    let height = round.height;
    let next_index = round.data_index.saturating_add(u64::from(coordinator.global_batch_size(round)));
    coordinator.progress.epoch_start_data_index = next_index;
    coordinator.progress.epoch = coordinator.progress.epoch.saturating_add(1);
    let _left = evict(&mut coordinator.epoch_state, height);
    coordinator.model.checkpoint.hand_to_peers();
    if coordinator.pending_pause == 1 {
        withdraw_all(coordinator);
        coordinator.pending_pause = 0;
        coordinator.epoch_state.cold_start_epoch = 1;
        enter(coordinator, RunState::Paused, now);
    } else {
        coordinator.epoch_state.cold_start_epoch = 0;
        let next = waiting_or_finished(coordinator);
        enter(coordinator, next, now);
    }
    slash(account);
}

/// Whether a client of an ending epoch has finished it: one that nobody found absent. A round without any report sends
/// everyone home; that costs nobody the epoch's points once health could be judged, but before that nobody has shown
/// anything.
fn finishes(client: &EpochClient, height: u32) -> bool {
    match client.client_state() {
        ClientState::Healthy => true,
        ClientState::Withdrawn => height >= MIN_HEALTH_HEIGHT,
        ClientState::Dropped | ClientState::Ejected => false,
    }
}

/// Pays the epoch's finishers in equal shares.
fn pay(account: &mut CoordinatorAccount) {
    let epoch = &account.state.coordinator.epoch_state;
    let roster = &mut account.state.clients_state;
    let height = epoch.current_round().height;
    let finishers = || epoch.clients.iter().filter(|client| finishes(client, height));
    let Some(share) = roster.current_earning_rate.checked_div(finishers().count() as u64) else { return };
    let mut next = 0;
    for finisher in finishers() {
        let Some(slot) = roster.slot_of(finisher, next) else { continue };
        next = slot + 1;
        if let Some(member) = roster.clients.as_mut_slice().get_mut(slot) {
            member.earned = member.earned.saturating_add(share);
        }
    }
}

/// Takes the epoch's rate from every client that was ejected from it, in whatever order they left.
fn slash(account: &mut CoordinatorAccount) {
    let roster = &mut account.state.clients_state;
    let rate = roster.current_slashing_rate;
    let exited = &account.state.coordinator.epoch_state.exited_clients;
    let mut next = 0;
    for gone in exited.iter().filter(|gone| gone.client_state() == ClientState::Ejected) {
        let Some(slot) = roster.slot_of(gone, next) else { continue };
        next = slot + 1;
        if let Some(member) = roster.clients.as_mut_slice().get_mut(slot) {
            member.slashed = member.slashed.saturating_add(rate);
        }
    }
}
