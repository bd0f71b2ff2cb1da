//! What the node's events add up to. Every event passes through here as it is reported, so none is missed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use psyche_chain::ChainError;
use psyche_messages::events::LoggedEvent;
use psyche_messages::{ChainTime, Digest, Epoch, NodeEvent, PeerKey, Phase, Points, Slot, Step};
use psyche_protocol::layout::{Coordinator, RunState};

use super::kinds::TxKind;
use super::report::{BatchReport, DeviceReport};
use super::sheet::Durations;

/// Events that are remembered for `/status`.
const LATEST_MAX: usize = 64;
/// Trained batches that are remembered for the curves.
const HISTORY_MAX: usize = 240;
/// Peers whose digests are remembered.
const PEERS_MAX: usize = 1024;

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxOutcome {
    /// It was confirmed.
    Landed,
    /// It never landed.
    Expired,
    /// It failed otherwise.
    Failed,
}

impl TxOutcome {
    /// How a transaction ended that `error` tells of.
    #[must_use]
    pub const fn of(error: &ChainError) -> Self {
        if matches!(error, ChainError::Expired { .. }) { Self::Expired } else { Self::Failed }
    }
}

/// Transactions of one kind, by how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TxCounts {
    pub(super) landed: u64,
    pub(super) expired: u64,
    pub(super) failed: u64,
}

/// What the run makes of this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// It is a client of the epoch.
    pub member: bool,
    /// It has joined the next epoch.
    pub pending: bool,
}

/// Parameters that were loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Model {
    pub(super) step: Step,
    pub(super) digest: Digest,
}

/// Where the run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stand {
    pub(super) phase: Phase,
    pub(super) epoch: Epoch,
    pub(super) step: Step,
    pub(super) total_steps: u32,
    pub(super) clients: u16,
}

/// The round within the epoch, and when the phase ends at the latest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// The round, from 0.
    pub round: Option<u32>,
    /// When the phase ends if nothing ends it before, by the chain's clock.
    pub ends: Option<ChainTime>,
}

impl Schedule {
    /// That of a run.
    #[must_use]
    pub fn of(coordinator: &Coordinator) -> Self {
        let (config, state) = (&coordinator.config, coordinator.state());
        let lasts = match state {
            RunState::Warmup => Some(config.warmup_time),
            RunState::RoundTrain => Some(config.max_round_train_time),
            RunState::RoundWitness => Some(config.round_witness_time),
            RunState::Cooldown => Some(config.cooldown_time),
            RunState::Uninitialized | RunState::WaitingForMembers | RunState::Finished | RunState::Paused => None,
        };
        let ends = lasts.map(|seconds| coordinator.run_state_start_unix_timestamp.saturating_add(seconds));
        let round = matches!(state, RunState::RoundTrain | RunState::RoundWitness)
            .then(|| coordinator.epoch_state.current_round().height);
        Self { round, ends: ends.map(|ends| ChainTime(i64::try_from(ends).unwrap_or(i64::MAX))) }
    }
}

/// A reading of the chain's clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    chain: ChainTime,
    speed: f64,
    read: Instant,
}

impl Clock {
    /// Seconds of ours until the chain's clock shows `ends`.
    pub(super) fn until(&self, ends: ChainTime, now: Instant) -> u64 {
        let chain_seconds = ends.0.saturating_sub(self.chain.0).max(0);
        let ours = Duration::try_from_secs_f64(u64_of(chain_seconds) / self.speed.max(1e-3)).unwrap_or(Duration::MAX);
        ours.saturating_sub(now.saturating_duration_since(self.read)).as_secs()
    }
}

#[expect(clippy::cast_precision_loss, reason = "seconds until a deadline; beyond 2^53 nobody counts them")]
const fn u64_of(seconds: i64) -> f64 {
    seconds as f64
}

/// Sums and latest values.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub(super) stand: Option<Stand>,
    pub(super) membership: Membership,
    pub(super) chain: Option<(Slot, Instant)>,
    pub(super) model: Option<Model>,
    pub(super) rounds: Durations,
    round: Option<Instant>,
    pub(super) trained: u64,
    pub(super) skipped: u64,
    pub(super) applied: u64,
    pub(super) results: u64,
    pub(super) samples: u64,
    pub(super) payload_bytes: u64,
    pub(super) loss: Option<f32>,
    pub(super) tokens_per_second: Option<f32>,
    pub(super) digests: u64,
    pub(super) desyncs: u64,
    pub(super) peers: u16,
    pub(super) earned: Points,
    pub(super) slashed: Points,
    pub(super) claimed: Points,
    pub(super) lamports: Option<u64>,
    pub(super) transactions: BTreeMap<TxKind, TxCounts>,
    pub(super) warnings: u64,
    pub(super) latest: VecDeque<LoggedEvent>,
    pub(super) schedule: Schedule,
    pub(super) clock: Option<Clock>,
    pub(super) history: VecDeque<BatchReport>,
    pub(super) digests_of: BTreeMap<PeerKey, (Step, bool)>,
    pub(super) devices: Vec<DeviceReport>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Counts>);

impl Tally {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        // Every change below leaves the counts whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of everything.
    pub(super) fn read(&self) -> Counts {
        self.counts().clone()
    }

    /// Adds an event that happened at `now`.
    pub fn note(&self, logged: LoggedEvent, now: Instant) {
        self.counts().note(logged, now);
    }

    /// The chain showed `slot` at `now`. Only new slots count: a chain that stands still is silent.
    pub fn saw_chain(&self, slot: Slot, now: Instant) {
        let mut counts = self.counts();
        if counts.chain.is_none_or(|(newest, _)| slot > newest) {
            counts.chain = Some((slot, now));
        }
    }

    /// What the run makes of this node, and what it lost of its points.
    pub fn saw_membership(&self, membership: Membership, slashed: Points) {
        let mut counts = self.counts();
        (counts.membership, counts.slashed) = (membership, slashed);
    }

    /// Where the run is in its epoch, and when its phase ends.
    pub fn saw_schedule(&self, schedule: Schedule) {
        self.counts().schedule = schedule;
    }

    /// The chain's clock showed `chain` at `read`, and runs at `speed` times ours.
    pub fn saw_clock(&self, chain: ChainTime, speed: f64, read: Instant) {
        self.counts().clock = Some(Clock { chain, speed, read });
    }

    /// How the devices fare.
    pub(super) fn saw_devices(&self, devices: Vec<DeviceReport>) {
        self.counts().devices = devices;
    }

    /// A fresh engine began: it has no parameters yet.
    pub fn engine_began(&self) {
        self.counts().model = None;
    }

    /// What the wallet holds.
    pub fn saw_lamports(&self, lamports: u64) {
        self.counts().lamports = Some(lamports);
    }

    /// A transaction ended.
    pub fn transaction(&self, kind: TxKind, outcome: TxOutcome) {
        let mut counts = self.counts();
        let of_kind = counts.transactions.entry(kind).or_default();
        match outcome {
            TxOutcome::Landed => of_kind.landed += 1,
            TxOutcome::Expired => of_kind.expired += 1,
            TxOutcome::Failed => of_kind.failed += 1,
        }
    }
}

impl Counts {
    fn note(&mut self, logged: LoggedEvent, now: Instant) {
        match &logged.event {
            NodeEvent::PhaseChanged { epoch, step, phase, clients, total_steps, .. } => {
                let (clients, total_steps) = (*clients, *total_steps);
                self.phase(Stand { phase: *phase, epoch: *epoch, step: *step, total_steps, clients }, now);
            }
            NodeEvent::ModelReady { step, digest, .. } => self.model = Some(Model { step: *step, digest: *digest }),
            NodeEvent::StepTrained { step, loss, samples, tokens_per_second, payload_bytes, .. } => {
                self.trained += 1;
                self.samples += samples;
                self.payload_bytes += payload_bytes;
                if self.history.len() == HISTORY_MAX {
                    self.history.pop_front();
                }
                self.history.push_back(BatchReport { step: *step, loss: *loss, tokens_per_second: *tokens_per_second });
                (self.loss, self.tokens_per_second) = (Some(*loss), Some(*tokens_per_second));
            }
            NodeEvent::StepSkipped { .. } => self.skipped += 1,
            NodeEvent::StepApplied { results, step, digest, .. } => {
                self.applied += 1;
                self.results += u64::from(*results);
                self.model = Some(Model { step: *step, digest: *digest });
            }
            NodeEvent::DigestCompared { step, peer, equal } => {
                self.digests += 1;
                self.desyncs += u64::from(!equal);
                if self.digests_of.len() < PEERS_MAX || self.digests_of.contains_key(peer) {
                    self.digests_of.insert(*peer, (*step, *equal));
                }
            }
            NodeEvent::PeersChanged { connected } => self.peers = *connected,
            NodeEvent::PointsChanged { earned, claimed } => (self.earned, self.claimed) = (*earned, *claimed),
            NodeEvent::Warning { .. } => self.warnings += 1,
            NodeEvent::Started { .. }
            | NodeEvent::UpdatesReplayed { .. }
            | NodeEvent::CheckpointWritten { .. }
            | NodeEvent::Joined { .. }
            | NodeEvent::RewardsClaimed { .. }
            | NodeEvent::TransactionConfirmed { .. }
            | NodeEvent::EndpointChanged { .. }
            | NodeEvent::Stopped { .. } => {}
        }
        if self.latest.len() == LATEST_MAX {
            self.latest.pop_front();
        }
        self.latest.push_back(logged);
    }

    /// A round lasts from its training to the next round's, or to whatever else follows.
    fn phase(&mut self, stand: Stand, now: Instant) {
        let before = self.stand.replace(stand);
        let same_round = before.is_some_and(|before| (before.epoch, before.step) == (stand.epoch, stand.step));
        if stand.phase == Phase::RoundWitness && same_round {
            return;
        }
        if let Some(began) = self.round.take() {
            self.rounds.add(now.saturating_duration_since(began));
        }
        self.round = (stand.phase == Phase::RoundTrain).then_some(now);
    }
}

#[cfg(test)]
mod tests {
    use psyche_messages::events::EVENT_LOG_VERSION;

    use super::*;

    fn logged(event: NodeEvent) -> LoggedEvent {
        LoggedEvent { v: EVENT_LOG_VERSION, unix_ms: 1, event }
    }

    fn phase(step: u32, phase: Phase) -> LoggedEvent {
        let (epoch, slot, since) = (Epoch(1), Slot(9), ChainTime(4));
        logged(NodeEvent::PhaseChanged { epoch, step: Step(step), phase, slot, since, clients: 3, total_steps: 20 })
    }

    #[test]
    fn a_round_lasts_until_the_next_one_begins_or_the_epoch_ends() {
        let (tally, start) = (Tally::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        tally.note(phase(1, Phase::Warmup), at(0));
        tally.note(phase(1, Phase::RoundTrain), at(10));
        tally.note(phase(1, Phase::RoundWitness), at(14));
        tally.note(phase(2, Phase::RoundTrain), at(15));
        tally.note(phase(2, Phase::Cooldown), at(18));
        let counts = tally.read();
        assert_eq!((counts.rounds.count, counts.rounds.sum), (2, 8.0));
        assert_eq!(counts.stand.map(|stand| stand.phase), Some(Phase::Cooldown));
    }

    #[test]
    fn peers_with_other_parameters_are_counted_and_the_latest_events_kept() {
        let tally = Tally::default();
        for equal in [true, false, true] {
            tally.note(logged(NodeEvent::DigestCompared { step: Step(1), peer: PeerKey([1; 32]), equal }), Instant::now());
        }
        for _ in 0..100 {
            tally.note(logged(NodeEvent::Warning { message: "w".into() }), Instant::now());
        }
        let counts = tally.read();
        assert_eq!((counts.digests, counts.desyncs, counts.warnings, counts.latest.len()), (3, 1, 100, LATEST_MAX));
    }

    #[test]
    fn a_chain_that_stands_still_is_silent() {
        let (tally, start) = (Tally::default(), Instant::now());
        tally.saw_chain(Slot(5), start);
        tally.saw_chain(Slot(5), start + Duration::from_secs(50));
        tally.saw_chain(Slot(4), start + Duration::from_secs(60));
        assert_eq!(tally.read().chain, Some((Slot(5), start)));
    }

    #[test]
    fn the_time_left_in_a_phase_is_told_in_our_seconds_and_ends_at_none() {
        let start = Instant::now();
        let clock = Clock { chain: ChainTime(100), speed: 8.0, read: start };
        assert_eq!(clock.until(ChainTime(180), start), 10);
        assert_eq!(clock.until(ChainTime(180), start + Duration::from_secs(4)), 6);
        assert_eq!((clock.until(ChainTime(90), start), clock.until(ChainTime(i64::MAX), start) > 0), (0, true));
        assert_eq!(Clock { speed: f64::NAN, ..clock }.until(ChainTime(101), start), 1_000);
    }

    #[test]
    fn curves_and_digests_are_remembered_within_bounds() {
        let tally = Tally::default();
        for n in 0..5_000_u32 {
            let (epoch, step) = (Epoch(1), Step(n));
            let trained =
                NodeEvent::StepTrained { epoch, step, loss: 1.0, samples: 1, tokens_per_second: 2.0, payload_bytes: 3 };
            tally.note(logged(trained), Instant::now());
            let mut key = [0; 32];
            key[..4].copy_from_slice(&n.to_be_bytes());
            tally.note(logged(NodeEvent::DigestCompared { step, peer: PeerKey(key), equal: true }), Instant::now());
        }
        let counts = tally.read();
        assert_eq!((counts.history.len(), counts.digests_of.len()), (HISTORY_MAX, PEERS_MAX));
        assert_eq!(counts.history.back().map(|batch| batch.step), Some(Step(4_999)));
    }
}
