//! The newest state of the coordinator account, and what follows from it at once: members, phases, epochs.

use std::collections::BTreeSet;
use std::sync::Arc;

use psyche_messages::events::Phase;
use psyche_messages::{ChainTime, Epoch, NodeEvent, Nonce, PeerKey, RoundKey, Slot, Step};
use psyche_protocol::layout::{ClientState, CoordinatorAccount, RunState};

use super::api::Effect;
use super::epoch::EpochLog;
use super::rules::Member;
use super::{EPOCHS_KEPT, Engine};

/// The newest state, and since when it looks like that.
pub(super) struct View {
    /// The account.
    pub account: Arc<CoordinatorAccount>,
    /// When this node first saw the present phase of the present step, by its own clock.
    pub since_ms: u64,
    /// When this node first saw the present nonce, by its own clock.
    pub nonce_ms: u64,
}

impl core::fmt::Debug for View {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:?} {}/{} nonce {}", self.phase(), self.epoch(), self.step(), self.nonce())
    }
}

impl View {
    /// What the run is doing.
    pub(super) fn phase(&self) -> Phase {
        match self.account.run_state() {
            RunState::Uninitialized => Phase::Uninitialized,
            RunState::WaitingForMembers => Phase::WaitingForMembers,
            RunState::Warmup => Phase::Warmup,
            RunState::RoundTrain => Phase::RoundTrain,
            RunState::RoundWitness => Phase::RoundWitness,
            RunState::Cooldown => Phase::Cooldown,
            RunState::Finished => Phase::Finished,
            RunState::Paused => Phase::Paused,
        }
    }

    /// Whether a round is in work.
    pub(super) fn in_round(&self) -> bool {
        matches!(self.phase(), Phase::RoundTrain | Phase::RoundWitness)
    }

    /// The epoch that the account counts.
    pub(super) fn epoch(&self) -> Epoch {
        Epoch(self.account.state.coordinator.progress.epoch)
    }

    /// The step in work; between epochs, the first of the next one.
    pub(super) fn step(&self) -> Step {
        Step(self.account.state.coordinator.progress.step)
    }

    /// The round in work, if one is.
    pub(super) fn round(&self) -> Option<RoundKey> {
        self.in_round().then(|| RoundKey { epoch: self.epoch(), step: self.step() })
    }

    /// The state's number.
    pub(super) fn nonce(&self) -> Nonce {
        Nonce(self.account.nonce)
    }

    /// When the phase began, by the chain's clock.
    pub(super) fn phase_start(&self) -> ChainTime {
        ChainTime(i64::try_from(self.account.state.coordinator.run_state_start_unix_timestamp).unwrap_or(i64::MAX))
    }

    /// The index of a node among the epoch's clients. Under another peer key its messages would not count.
    pub(super) fn index_of(&self, node: &Member) -> Option<usize> {
        self.account.clients().iter().position(|client| Member::from(&client.id) == *node)
    }

    /// Whether a node is a client of the epoch that has not been dropped.
    pub(super) fn is_healthy(&self, node: &Member) -> bool {
        self.index_of(node).and_then(|at| self.account.clients().get(at)).is_some_and(|client| client.is_healthy())
    }

    /// Whether a node was ejected from the epoch, be it in the list still or out already.
    pub(super) fn is_ejected(&self, node: &Member) -> bool {
        let epoch = &self.account.state.coordinator.epoch_state;
        let mut everyone = epoch.clients.iter().chain(epoch.exited_clients.iter());
        everyone.any(|client| Member::from(&client.id) == *node && client.client_state() == ClientState::Ejected)
    }

    /// Whether a node has joined for the next epoch, under its present peer key.
    pub(super) fn is_pending(&self, node: &Member) -> bool {
        let roster = &self.account.state.clients_state;
        roster.pending().any(|client| Member::from(&client.id) == *node)
    }

    /// Peer keys of the epoch's clients, by index.
    pub(super) fn client_peers(&self) -> Vec<PeerKey> {
        self.account.clients().iter().map(|client| PeerKey(client.id.p2p_identity)).collect()
    }

    /// The clients that have joined for the next epoch, in roster order.
    pub(super) fn pending(&self) -> Vec<Member> {
        self.account.state.clients_state.pending().map(|client| Member::from(&client.id)).collect()
    }

    /// Whether a peer belongs to anyone who ever joined.
    pub(super) fn in_roster(&self, peer: &PeerKey) -> bool {
        self.account.state.clients_state.clients.iter().any(|client| client.id.p2p_identity == peer.0)
    }

    /// Whether `round` is the last of its epoch for certain, so that its results could never be witnessed.
    pub(super) fn is_last_round(&self, step: Step) -> bool {
        let coordinator = &self.account.state.coordinator;
        let next = step.0.saturating_add(1);
        next == coordinator.epoch_state.last_step || next >= coordinator.config.total_steps
    }
}

impl Engine {
    pub(super) fn on_account(&mut self, slot: Slot, account: Arc<CoordinatorAccount>) {
        let now_ms = self.now.mono_ms;
        let (mut since_ms, mut nonce_ms) = (now_ms, now_ms);
        let before = self.view.as_ref().map(|view| (view.phase(), view.epoch(), view.step(), view.phase_start()));
        if let Some(view) = &self.view {
            if account.nonce < view.account.nonce {
                return;
            }
            if account.nonce == view.account.nonce {
                nonce_ms = view.nonce_ms;
            }
            since_ms = view.since_ms;
        }
        let was_healthy = self.view.as_ref().is_some_and(|view| view.in_round() && view.is_healthy(&self.me()));
        let mut view = View { account, since_ms, nonce_ms };
        let after = (view.phase(), view.epoch(), view.step(), view.phase_start());
        let moved = before != Some(after);
        if moved {
            view.since_ms = now_ms;
            self.report(phase_changed(&view, slot));
        }
        let dropped = was_healthy && before.map(|before| before.1) == Some(view.epoch()) && !view.is_healthy(&self.me());
        // The state before was another epoch's, or this one's Warmup.
        let watched_before = before.is_some_and(|before| {
            !matches!(before.0, Phase::RoundTrain | Phase::RoundWitness | Phase::Cooldown) || before.1 != view.epoch()
        });
        let finished = before.is_some_and(|before| before.0 == Phase::Cooldown && before.1 != view.epoch())
            && self.view.as_ref().is_some_and(|before| before.is_healthy(&self.me()));
        self.observe_epoch(slot, &view.account, watched_before);
        if let Some(lasted_ms) = witness_phase_over(before.map(|before| before.0), &view, since_ms, now_ms) {
            self.lead.witness_phase_over(lasted_ms);
        }
        let in_round = |phase| matches!(phase, Phase::RoundTrain | Phase::RoundWitness);
        let began = before.is_some_and(|before| before.2 != view.step() || !in_round(before.0));
        let begun = view.round().filter(|_| began);
        self.view = Some(view);
        self.members_stale = true;
        if let Some(round) = begun {
            self.stores.entry(round).or_default().begin(now_ms);
        }
        if finished {
            self.errands.note_finish();
        }
        if dropped {
            self.on_dropped();
        }
        if moved && !self.early.is_empty() {
            for signed in self.early.take() {
                self.hear(signed);
            }
        }
    }

    /// The run goes on without this node until it joins anew.
    fn on_dropped(&mut self) {
        let Some(view) = self.view.as_ref() else { return };
        if !view.is_ejected(&self.me()) {
            self.warn("this node was dropped from the epoch, as witnesses did not receive its results in time".to_owned());
            return;
        }
        let points = view.account.state.clients_state.current_slashing_rate;
        let what =
            format!("this node was ejected from the epoch and loses {points} points: a quorum of witnesses heard nothing");
        let then = if self.errands.note_ejection() {
            "it joins no more while the run goes on without it; check its network and its clock"
        } else {
            "it joins the next epoch once more"
        };
        self.warn(format!("{what}; {then}"));
    }

    fn observe_epoch(&mut self, slot: Slot, account: &CoordinatorAccount, watched_before: bool) {
        for log in &mut self.logs {
            log.observe(slot, account);
        }
        if self.logs.iter().any(|log| log.is_shown(account)) {
            return;
        }
        if let Some(log) = EpochLog::begin(slot, account, watched_before) {
            self.pace.keep(|trainer| account.clients().iter().any(|client| client.id.signer == trainer.0));
            self.logs.push_back(log);
            while self.logs.len() > EPOCHS_KEPT {
                self.logs.pop_front();
            }
        }
    }

    /// Tells the network who belongs to the run, and the operator how many of them are connected.
    pub(super) fn drive_members(&mut self) {
        let Some(view) = &self.view else { return };
        let mut members: BTreeSet<PeerKey> = view.client_peers().into_iter().collect();
        members.extend(view.pending().into_iter().map(|member| member.peer));
        members.remove(&self.config.peer);
        if !members.iter().eq(self.members.iter()) {
            self.members = members.iter().copied().collect();
            self.out.push(Effect::SetMembers(self.members.clone()));
        }
        let connected = u16::try_from(self.connected.intersection(&members).count()).unwrap_or(u16::MAX);
        if self.connected_reported != Some(connected) {
            self.connected_reported = Some(connected);
            self.report(NodeEvent::PeersChanged { connected });
        }
    }
}

/// How long RoundWitness lasted, if a round has followed it just now.
fn witness_phase_over(before: Option<Phase>, view: &View, since_ms: u64, now_ms: u64) -> Option<u64> {
    let over = before == Some(Phase::RoundWitness) && view.phase() == Phase::RoundTrain;
    over.then(|| now_ms.saturating_sub(since_ms))
}

fn phase_changed(view: &View, slot: Slot) -> NodeEvent {
    NodeEvent::PhaseChanged {
        epoch: view.epoch(),
        step: view.step(),
        phase: view.phase(),
        slot,
        since: view.phase_start(),
        clients: u16::try_from(view.account.clients().len()).unwrap_or(u16::MAX),
        total_steps: view.account.state.coordinator.config.total_steps,
    }
}
