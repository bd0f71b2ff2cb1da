//! What this node saw of an epoch on chain: the clients and seeds of its rounds, and their witnesses.
//!
//! The account remembers four rounds, forgets clients' former places, and clears the last round's witnesses when the
//! epoch ends. This log keeps what the account will not say again.

use std::collections::BTreeMap;
use std::sync::Arc;

use psyche_messages::{Address, BatchInterval, Epoch, Nonce, RoundKey, Slot, Step};
use psyche_protocol::layout::{Config, CoordinatorAccount, EpochState, Round, RunState, STORED_ROUNDS, Witness};
use psyche_protocol::select::Selection;

use super::api::StepSchedule;
use super::history::{Gap, Sight};
use super::rules::{self, Member};

/// How many rounds back anything is kept.
pub(super) const ROUNDS_KEPT: u32 = 8;

/// What decides who does what in a round.
#[derive(Debug)]
pub(super) struct RoundFacts {
    /// Who witnesses, and in which committee everyone is.
    pub selection: Selection,
    /// The clients when the round began, by index.
    pub members: Vec<Member>,
    /// The batch of each client, by index.
    pub batches: Vec<Option<BatchInterval>>,
}

impl RoundFacts {
    /// Index of a wallet among the round's clients.
    pub(super) fn index_of(&self, signer: &Address) -> Option<usize> {
        self.members.iter().position(|member| member.signer == *signer)
    }

    /// The batch of a wallet.
    pub(super) fn batch_of(&self, signer: &Address) -> Option<BatchInterval> {
        self.batches.get(self.index_of(signer)?).copied().flatten()
    }
}

/// The witnesses of a round as far as they are known.
#[derive(Clone, Debug)]
pub(super) struct WitnessList {
    /// In the order of their transactions.
    pub list: Vec<Witness>,
    /// Whether no more can come, and none is missing.
    pub complete: bool,
}

/// What can be said about the results of a round.
#[derive(Debug)]
pub(super) enum Outlook<'a> {
    /// Their witnesses may still come.
    Open,
    /// These witnesses speak for them; nobody else will.
    Witnessed(&'a [Witness]),
    /// No witness ever speaks for them: the round was the epoch's last.
    Unwitnessed,
    /// Witnesses of the round `round` may be missing, since the account stopped to tell.
    Uncertain {
        /// The round in which they submitted.
        round: RoundKey,
        /// What is known.
        known: Option<&'a WitnessList>,
        /// Where in the history the others are.
        gap: Option<&'a Arc<Gap>>,
    },
}

/// One epoch.
#[derive(Debug)]
pub(super) struct EpochLog {
    /// The epoch.
    pub epoch: Epoch,
    /// Its first step.
    pub start_step: Step,
    /// When its Warmup began; with `start_step` this names an epoch's state in the account.
    start_timestamp: u64,
    /// Whether it is the first after a pause.
    pub cold_start: bool,
    /// What decides its learning rates.
    pub schedule: StepSchedule,
    /// Height of the newest round seen.
    pub head: u32,
    /// Height of the round in work when this node began to watch.
    pub watched_from: u32,
    /// Whether this node watched the run before the epoch's first round began.
    pub watched_from_start: bool,
    /// Height of the last round, once the epoch is over.
    pub last: Option<u32>,
    /// The run's rules; they only change between epochs.
    config: Config,
    rounds: BTreeMap<u32, Arc<RoundFacts>>,
    witnesses: BTreeMap<u32, WitnessList>,
    /// The newest state with a round of this epoch in work.
    sight: Option<Sight>,
    /// Where the reports of a round lie that no state shows.
    gaps: BTreeMap<u32, Arc<Gap>>,
}

impl EpochLog {
    /// Begins the log of the epoch in work; `None` unless a round has begun.
    pub(super) fn begin(slot: Slot, account: &CoordinatorAccount, watched_from_start: bool) -> Option<Self> {
        if !matches!(account.run_state(), RunState::RoundTrain | RunState::RoundWitness | RunState::Cooldown) {
            return None;
        }
        let coordinator = &account.state.coordinator;
        let state = &coordinator.epoch_state;
        let height = state.current_round().height;
        let mut log = Self {
            epoch: Epoch(coordinator.progress.epoch),
            start_step: Step(state.start_step),
            start_timestamp: state.start_timestamp,
            cold_start: state.cold_start_epoch != 0,
            schedule: StepSchedule {
                cold_start: coordinator.cold_start_warmup_bounds().map(|(from, to)| (Step(from), Step(to))),
            },
            head: height,
            watched_from: height,
            watched_from_start,
            last: None,
            config: coordinator.config,
            rounds: BTreeMap::new(),
            witnesses: BTreeMap::new(),
            sight: None,
            gaps: BTreeMap::new(),
        };
        log.observe(slot, account);
        Some(log)
    }

    /// Whether the account still shows this epoch's rounds.
    pub(super) fn is_shown(&self, account: &CoordinatorAccount) -> bool {
        let state = &account.state.coordinator.epoch_state;
        state.start_step == self.start_step.0 && state.start_timestamp == self.start_timestamp
    }

    /// Takes in a newer state of the account, read at `slot`.
    pub(super) fn observe(&mut self, slot: Slot, account: &CoordinatorAccount) {
        if self.last.is_some() {
            return;
        }
        let before =
            self.sight.map(|sight| (sight, self.head, self.witnesses.get(&self.head).map_or(0, |seen| seen.list.len())));
        let coordinator = &account.state.coordinator;
        let running = matches!(account.run_state(), RunState::RoundTrain | RunState::RoundWitness);
        if self.is_shown(account) {
            self.head = self.head.max(coordinator.epoch_state.current_round().height);
            self.observe_rounds(account, running);
        }
        if !running || !self.is_shown(account) {
            // The step counts the rounds that have ended, whatever else was missed; those of the epoch shown are not this one's.
            let end = if self.is_shown(account) { coordinator.progress.step } else { coordinator.epoch_state.start_step };
            self.last = Some(end.saturating_sub(self.start_step.0).saturating_sub(1));
        }
        let now = Sight { slot, nonce: Nonce(account.nonce) };
        if let Some((after, head, seen)) = before {
            self.note_gap(after, now, head, seen, account);
        }
        if running && self.is_shown(account) {
            self.sight = Some(now);
        }
        let oldest = self.head.saturating_sub(ROUNDS_KEPT);
        self.rounds.retain(|height, _| *height >= oldest);
        self.witnesses.retain(|height, _| *height >= oldest);
        self.gaps.retain(|height, _| *height >= oldest);
    }

    /// Notes where the history tells the reports of a round that neither the state before nor the one now shows. In the one
    /// before, the round at `head` was in work and had `seen` reports. Where there is more than one such round, nothing tells
    /// their reports apart.
    fn note_gap(&mut self, after: Sight, until: Sight, head: u32, seen: usize, account: &CoordinatorAccount) {
        let running = matches!(account.run_state(), RunState::RoundTrain | RunState::RoundWitness);
        let coordinator = &account.state.coordinator;
        // In the rounds of another epoch, others may have reported meanwhile.
        let others = !self.is_shown(account) && (running || coordinator.epoch_state.first_round == 0);
        if others || coordinator.progress.epoch > self.epoch.0.saturating_add(1) {
            return;
        }
        let end = self.last.unwrap_or(self.head);
        if end.saturating_sub(head) > ROUNDS_KEPT {
            return;
        }
        let is_told = |height: &u32| {
            self.witnesses.get(height).is_some_and(|known| known.complete) || (self.last.is_none() && *height == end)
        };
        let mut hidden = (head..=end).filter(|height| !is_told(height));
        let (Some(round), None) = (hidden.next(), hidden.next()) else { return };
        let list = |height: u32| self.witnesses.get(&height).map_or(&[][..], |known| &known.list);
        let new = |height: u32| list(height).get(if height == head { seen } else { 0 }..).unwrap_or_default().to_vec();
        let gap = Gap {
            after,
            until,
            before: (head..round).flat_map(new).collect(),
            known: if round == head { list(head).to_vec() } else { Vec::new() },
            later: (round.saturating_add(1)..=end).flat_map(new).collect(),
        };
        self.gaps.insert(round, Arc::new(gap));
    }

    fn observe_rounds(&mut self, account: &CoordinatorAccount, running: bool) {
        let state = &account.state.coordinator.epoch_state;
        for back in (0..STORED_ROUNDS as u32).rev() {
            let Some(round) = state.round_back(back) else { continue };
            if round.height.saturating_add(back) != state.current_round().height {
                continue;
            }
            if !self.rounds.contains_key(&round.height)
                && let Some(facts) = self.facts(account, round, back == 0 && running)
            {
                self.rounds.insert(round.height, Arc::new(facts));
            }
            if back > 0 || running {
                let complete = back > 0 || self.is_full(round);
                let list = round.witnesses.as_slice().to_vec();
                self.witnesses.insert(round.height, WitnessList { list, complete });
            }
        }
    }

    /// Whether every witness of the round has reported. Only then is the list of an epoch's last round known to be whole:
    /// the state after the newest one may have come from one more report, which ended the epoch in the same transaction.
    fn is_full(&self, round: &Round) -> bool {
        round.witnesses.len() >= self.config.witness_target(usize::from(round.clients_len))
    }

    /// The round's facts, if its clients are still known.
    fn facts(&self, account: &CoordinatorAccount, round: &Round, in_work: bool) -> Option<RoundFacts> {
        let coordinator = &account.state.coordinator;
        let members = self.members_at(&coordinator.epoch_state, round, in_work)?;
        let selection = Selection::of_round(round, &self.config).ok()?;
        let batches = rules::batches(coordinator, round, &selection);
        Some(RoundFacts { selection, members, batches })
    }

    /// The clients when `round` began: those of the account if none has left since, or those of an earlier round less
    /// those who left in between.
    fn members_at(&self, state: &EpochState, round: &Round, in_work: bool) -> Option<Vec<Member>> {
        let len = usize::from(round.clients_len);
        // Clients leave only where rounds end.
        let nobody_left = in_work || !state.exited_clients.iter().any(|client| client.exited_height >= round.height);
        if nobody_left && state.clients.len() == len {
            return Some(state.clients.iter().map(|client| Member::from(&client.id)).collect());
        }
        let (height, earlier) = self.rounds.range(..round.height).next_back()?;
        let left = |signer: &Address| {
            let mut exits = state.exited_clients.iter();
            exits.any(|gone| gone.id.signer == signer.0 && gone.exited_height >= *height && gone.exited_height < round.height)
        };
        let members: Vec<_> = earlier.members.iter().filter(|member| !left(&member.signer)).copied().collect();
        (members.len() == len).then_some(members)
    }

    /// Replaces what is known of the witnesses of `round` by the whole list.
    pub(super) fn rebuild(&mut self, round: RoundKey, list: Vec<Witness>) {
        if let Some(height) = self.height_of(round) {
            self.witnesses.insert(height, WitnessList { list, complete: true });
        }
    }

    /// Accepts what is known of the witnesses of `round` as all there is.
    pub(super) fn accept_known(&mut self, round: RoundKey) {
        if let Some(list) = self.height_of(round).and_then(|height| self.witnesses.get_mut(&height)) {
            list.complete = true;
        }
    }

    /// The round at `height`.
    pub(super) fn round(&self, height: u32) -> RoundKey {
        RoundKey { epoch: self.epoch, step: Step(self.start_step.0.saturating_add(height)) }
    }

    /// Height of a round of this epoch that has begun.
    pub(super) fn height_of(&self, round: RoundKey) -> Option<u32> {
        (round.epoch == self.epoch).then(|| self.height_of_step(round.step)).flatten()
    }

    /// Height of a step of this epoch that has begun.
    pub(super) fn height_of_step(&self, step: Step) -> Option<u32> {
        let height = step.0.checked_sub(self.start_step.0)?;
        (height <= self.last.unwrap_or(self.head)).then_some(height)
    }

    /// The facts of the round at `height`.
    pub(super) fn facts_at(&self, height: u32) -> Option<&Arc<RoundFacts>> {
        self.rounds.get(&height)
    }

    /// The facts of the newest round whose clients are known.
    pub(super) fn newest_facts(&self) -> Option<&Arc<RoundFacts>> {
        self.rounds.values().next_back()
    }

    /// What can be said about the results of the round at `height`.
    pub(super) fn outlook(&self, height: u32) -> Outlook<'_> {
        if self.last.is_some_and(|last| height >= last) {
            return Outlook::Unwitnessed;
        }
        let witnessing = height.saturating_add(1);
        let over = self.last.is_some() || self.head > witnessing;
        if !over {
            return Outlook::Open;
        }
        match self.witnesses.get(&witnessing) {
            Some(known) if known.complete => Outlook::Witnessed(&known.list),
            known => Outlook::Uncertain { round: self.round(witnessing), known, gap: self.gaps.get(&witnessing) },
        }
    }

    /// How many votes a result needs among `witnesses`.
    pub(super) fn quorum(&self, witnesses: &[Witness]) -> usize {
        rules::quorum(self.config.witness_nodes, witnesses.len())
    }
}
