//! Transactions: joining, ticks, readiness, health checks. Members take turns, so that one of them is enough.

use std::collections::BTreeMap;

use psyche_chain::epoch_left;
use psyche_messages::events::Phase;
use psyche_messages::{Address, NodeEvent, Nonce, PeerKey, RoundKey};
use psyche_protocol::layout::{Bloom, CommitteeProof, Witness, WitnessProof};
use psyche_protocol::machine::would_tick;
use psyche_protocol::select::{EMPTY_ROOT, unhealthy_clients};

use super::Engine;
use super::api::{ChainAction, Effect, SendId, SendOutcome};
use super::duty::Duty;

/// After this time without anybody's tick, those who are not members step in.
const OUTSIDERS_MS: u64 = 5_000;
/// How many turns outsiders spread over.
const OUTSIDER_TURNS: u64 = 8;
/// A confirmed join that the account does not show after this time is sent again.
const JOIN_SHOWN_MS: u64 = 15_000;
/// A refused join is tried again after this time: an authorization may have come.
const JOIN_REFUSED_MS: u64 = 60_000;
/// A confirmed tick that the account does not show after this time came too early for the chain's clock, which this node's
/// may be ahead of: it changed nothing, and is sent again.
const TICK_SHOWN_MS: u64 = 2_000;
/// After this many ejections without an epoch finished in between, the node joins only a run that stands still without it:
/// each costs points.
const EJECTIONS_MAX: u8 = 2;
/// A run that has waited for members for this long stands still.
const STANDSTILL_MS: u64 = 60_000;
/// How long a round lasts before absence is reported: blooms on chain arrive with the round itself.
const HEALTH_DELAY_MS: u64 = 500;

/// Every transaction but the witness's report.
#[derive(Debug, Default)]
pub(super) struct Errands {
    next_id: u64,
    join: Duty<u64>,
    ready: Duty<i64>,
    tick: Duty<Nonce>,
    /// Since when a tick is due at this nonce.
    tick_due: Option<(Nonce, u64)>,
    health: Duty<(RoundKey, Address)>,
    health_done: Vec<(RoundKey, Address)>,
    /// Clients that the witnesses did not hear, in the state with this nonce.
    absent: Vec<(Address, CommitteeProof)>,
    absent_at: Option<Nonce>,
    /// Clients that were connected when the witnesses had not heard them, with the first such round of the epoch.
    spared: BTreeMap<Address, RoundKey>,
    /// The round in which that was looked up last.
    spared_in: Option<RoundKey>,
    /// Ejections since the last epoch that this node finished.
    ejections: u8,
}

impl Errands {
    /// Notes that this node was ejected, and says whether it stays out of a run that goes on without it.
    pub(super) const fn note_ejection(&mut self) -> bool {
        self.ejections = self.ejections.saturating_add(1);
        self.ejections >= EJECTIONS_MAX
    }

    /// Notes that this node finished an epoch.
    pub(super) const fn note_finish(&mut self) {
        self.ejections = 0;
    }
}

impl Engine {
    pub(super) fn drive_errands(&mut self) {
        self.drive_join();
        self.drive_ready();
        self.drive_health();
        self.drive_tick();
    }

    /// Emits a transaction under a fresh id.
    pub(super) fn send(&mut self, action: ChainAction) -> SendId {
        self.errands.next_id = self.errands.next_id.saturating_add(1);
        let id = SendId(self.errands.next_id);
        self.out.push(Effect::Send { id, action });
        id
    }

    pub(super) fn on_sent(&mut self, id: SendId, outcome: SendOutcome) {
        let now_ms = self.now.mono_ms;
        let errands = &mut self.errands;
        if errands.join.settle(id, outcome, now_ms) {
            if outcome == SendOutcome::Confirmed {
                let epoch = self.view.as_ref().map(super::view::View::epoch).unwrap_or_default();
                // Where the epoch that was joined has begun meanwhile, there is nothing to wait for.
                let waits = self.view.as_ref().filter(|view| view.index_of(&self.me()).is_none());
                let epoch_left_s = waits.and_then(|view| epoch_left(&view.account, self.now.chain));
                self.report(NodeEvent::Joined { epoch, epoch_left_s });
            } else if outcome == SendOutcome::Refused {
                self.warn("the run refuses to let this node join".to_owned());
            }
            return;
        }
        let _mine = errands.ready.settle(id, outcome, now_ms)
            || errands.tick.settle(id, outcome, now_ms)
            || errands.health.settle(id, outcome, now_ms)
            || self.checkpoints.duty.settle(id, outcome, now_ms)
            || self.witnessing.duty.settle(id, outcome, now_ms);
    }

    /// Joins the next epoch: once between epochs, and during an epoch that goes on without this node.
    fn drive_join(&mut self) {
        let Some(view) = &self.view else { return };
        let me = self.me();
        let wanted = match view.phase() {
            Phase::WaitingForMembers => true,
            Phase::RoundTrain | Phase::RoundWitness | Phase::Cooldown => view.index_of(&me).is_none(),
            _ => false,
        };
        let now_ms = self.now.mono_ms;
        let needed = view.phase() == Phase::WaitingForMembers && now_ms >= view.since_ms.saturating_add(STANDSTILL_MS);
        if !wanted || view.is_pending(&me) || (self.errands.ejections >= EJECTIONS_MAX && !needed) {
            return;
        }
        let epoch_key = view.account.state.clients_state.next_active;
        let join = &mut self.errands.join;
        let again_ms = join
            .settled_at(&epoch_key)
            .map(|(confirmed, at_ms)| at_ms.saturating_add(if confirmed { JOIN_SHOWN_MS } else { JOIN_REFUSED_MS }));
        if again_ms.is_some_and(|again_ms| now_ms >= again_ms) {
            join.reopen(now_ms);
        }
        if join.due(epoch_key, now_ms) {
            let id = self.send(ChainAction::Join);
            self.errands.join.sent(id, now_ms);
        }
    }

    /// Reports in Warmup that the right parameters are loaded.
    fn drive_ready(&mut self) {
        let Some(view) = &self.view else { return };
        let current = self.model.step.is_some_and(|step| step.next() == view.step());
        if view.phase() != Phase::Warmup || !current || self.model.trouble.is_some() || self.busy.is_some() {
            return;
        }
        let Some(index) = view.index_of(&self.me()) else { return };
        let shown = view.account.current_round().witnesses.iter().any(|witness| witness.proof.index == index as u64);
        let now_ms = self.now.mono_ms;
        if shown || !self.errands.ready.due(view.phase_start().0, now_ms) {
            return;
        }
        let witness = Witness {
            proof: WitnessProof::new(0, index as u64, true),
            participant_bloom: Bloom::new([0; 8]),
            broadcast_bloom: Bloom::new([0; 8]),
            broadcast_merkle: EMPTY_ROOT,
        };
        let id = self.send(ChainAction::WarmupWitness(Box::new(witness)));
        self.errands.ready.sent(id, now_ms);
    }

    /// Reports one client at a time that the previous round's witnesses did not hear.
    fn drive_health(&mut self) {
        let Some(view) = &self.view else { return };
        let Some(round) = view.round() else { return };
        if view.phase() == Phase::RoundTrain {
            self.spare_once(round);
        }
        let Some(view) = &self.view else { return };
        let now_ms = self.now.mono_ms;
        let healthy = view.is_healthy(&self.me());
        let Some(index) = view.index_of(&self.me()) else { return };
        if view.phase() != Phase::RoundTrain || !healthy || self.errands.health.in_flight(now_ms) {
            return;
        }
        if !self.is_elected(index, u64::from(round.step.0), view.since_ms.saturating_add(HEALTH_DELAY_MS)) {
            return;
        }
        let nonce = view.nonce();
        if self.errands.absent_at != Some(nonce) {
            let absent = unhealthy_clients(&view.account.state.coordinator).map(|(id, proof)| (Address(id.signer), proof));
            let spared = |target: &Address| self.errands.spared.get(target) == Some(&round);
            self.errands.absent = absent.filter(|(target, _)| *target != self.config.me && !spared(target)).collect();
            self.errands.absent_at = Some(nonce);
        }
        let done = &self.errands.health_done;
        let next = self.errands.absent.iter().find(|(target, _)| !done.contains(&(round, *target))).copied();
        if let Some((target, proof)) = next {
            self.check_health_of(round, target, proof);
        }
    }

    /// Passes over the absence of clients that are connected, each once an epoch, so that one late result does not cost a node
    /// that is there its place.
    fn spare_once(&mut self, round: RoundKey) {
        let Some(view) = &self.view else { return };
        if self.errands.spared_in == Some(round) {
            return;
        }
        self.errands.spared_in = Some(round);
        self.errands.spared.retain(|_, first| first.epoch == round.epoch);
        for (client, _) in unhealthy_clients(&view.account.state.coordinator) {
            if self.connected.contains(&PeerKey(client.p2p_identity)) {
                self.errands.spared.entry(Address(client.signer)).or_insert(round);
            }
        }
    }

    fn check_health_of(&mut self, round: RoundKey, target: Address, proof: CommitteeProof) {
        let now_ms = self.now.mono_ms;
        if self.errands.health.due((round, target), now_ms) {
            let id = self.send(ChainAction::HealthCheck { target, proof });
            self.errands.health.sent(id, now_ms);
        } else if self.errands.health.settled_at(&(round, target)).is_some() {
            // The next one may follow; whoever was reported is gone at the round's end.
            self.errands.health_done.retain(|(done, _)| *done == round);
            self.errands.health_done.push((round, target));
        }
    }

    /// Sends a tick when the run could move on: first the member whose turn it is, then one after another.
    fn drive_tick(&mut self) {
        let Some(view) = &self.view else { return };
        let now_ms = self.now.mono_ms;
        let nonce = view.nonce();
        if would_tick(&view.account, self.now.chain.0).is_none() {
            return;
        }
        let since_ms = match self.errands.tick_due {
            Some((due, since_ms)) if due == nonce => since_ms,
            _ => now_ms,
        };
        self.errands.tick_due = Some((nonce, since_ms));
        let me = self.me();
        let index = if view.phase() == Phase::WaitingForMembers {
            view.pending().iter().position(|member| *member == me)
        } else {
            view.index_of(&me)
        };
        let tick = &mut self.errands.tick;
        if tick.settled_at(&nonce).is_some_and(|(confirmed, at_ms)| confirmed && now_ms >= at_ms.saturating_add(TICK_SHOWN_MS))
        {
            tick.reopen(now_ms);
        }
        let elected = match index {
            Some(index) => self.is_elected(index, nonce.0, since_ms),
            None => {
                let turn = u64::from(me.signer.0.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte))) % OUTSIDER_TURNS;
                let pause = OUTSIDERS_MS.saturating_add(turn.saturating_mul(self.config.patience.turn_ms));
                now_ms >= since_ms.saturating_add(pause)
            }
        };
        if elected && !self.errands.tick.in_flight(now_ms) && self.errands.tick.due(nonce, now_ms) {
            let id = self.send(ChainAction::Tick);
            self.errands.tick.sent(id, now_ms);
        }
    }

    /// Whether it is this member's turn: the turn moves on with `number` and every [`super::Patience::turn_ms`].
    fn is_elected(&self, index: usize, number: u64, since_ms: u64) -> bool {
        let Some(view) = &self.view else { return false };
        let members = match view.phase() {
            Phase::WaitingForMembers => view.pending().len(),
            _ => view.account.clients().len(),
        };
        let rank = (index as u64).wrapping_add(number).checked_rem(members as u64).unwrap_or(0);
        self.now.mono_ms >= since_ms.saturating_add(rank.saturating_mul(self.config.patience.turn_ms))
    }
}
