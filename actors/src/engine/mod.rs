//! The round engine: everything that a node decides in a run, as a pure function of what it is told.
//!
//! *Purpose*: `step(now, event) → effects`. No clock, no randomness, no waiting, no IO: the shell executes the effects
//! and returns their outcomes as events; a simulation does the same with thousands of seeds.
//!
//! *How it works*: an event only changes what the engine knows; afterwards one pass over all duties ([`Engine::step`])
//! asks of each whether something is to be done now. Nothing depends on having seen a particular transition, so states
//! of the chain may be skipped, messages lost, repeated or reordered. Rounds are named by epoch and step, never by phase.
//!
//! *A round*: trained in round r, announced and fetched in r and r + 1, witnessed in r + 1, applied before training in
//! r + 2, or when the epoch ends. What no witness vouched for is dropped by every node alike.
//!
//! *Invariants*: results are applied exactly once a step, in the order of steps; the trainer has at most one command to
//! load, train or apply at a time; nothing is trained on parameters that are not the ones that the round calls for; every
//! list that outsiders fill has a bound.
//!
//! | Module | Duty |
//! |---|---|
//! | [`api`] | events and effects |
//! | `view` | the newest state of the account |
//! | `epoch` | what the account showed of an epoch's rounds and witnesses |
//! | `intake` | messages, fetched blobs |
//! | `store`, `fetch`, `gossip` | announcements, blobs, messages that came too early or are repeated |
//! | `training`, `witnessing` | this node's part in a round |
//! | `pace` | how long each trainer usually takes |
//! | `lead` | how long before the end of its training this node reports |
//! | `applying`, `tally` | which results count, and when they are applied |
//! | `updates`, `replay`, `ledger` | update logs: who has which, applying from them, the own one |
//! | `model`, `digests`, `snapshots`, `adoption` | whose parameters are right, healing, snapshots |
//! | `saving` | when this node takes snapshots of its own |
//! | `checkpoint` | weights for the world outside, at Cooldown and at the end |
//! | `errands`, `duty` | transactions |
//! | [`history`] | whose report a transaction of old was |
//! | `held` | how much is remembered |
//! | `rules` | the protocol's rules in the engine's types |

mod adoption;
pub mod api;
mod applying;
mod checkpoint;
mod digests;
mod duty;
mod epoch;
mod errands;
mod fetch;
mod gossip;
mod held;
pub mod history;
mod intake;
mod lead;
mod leaving;
mod ledger;
mod model;
mod pace;
mod replay;
mod rules;
mod saving;
mod snapshots;
mod store;
mod tally;
mod training;
mod updates;
mod view;
mod witnessing;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use psyche_messages::events::Phase;
use psyche_messages::{BlobHash, Digest, NodeEvent, PeerKey, RoundKey, RoundMessage, Step};

pub use api::{
    ChainAction, Effect, EngineConfig, Event, FetchFault, FetchOutcome, Fetching, Lie, LoadFrom, Now, Patience, SendId,
    SendOutcome, StepSchedule, WitnessNumbers,
};

pub use held::Held;
pub use snapshots::DiskSnapshot;

use applying::Resolution;
use checkpoint::Checkpoints;
use digests::Digests;
use epoch::{EpochLog, ROUNDS_KEPT};
use errands::Errands;
use fetch::Fetches;
use gossip::{Early, Outbox};
use lead::Lead;
pub use leaving::{Leaving, version_fits};
pub use ledger::{LEDGER_STEPS_MAX, Ledger};
use model::Model;
use pace::Pace;
use rules::Member;
use snapshots::Snapshots;
use store::RoundStore;
use training::MyRound;
use updates::Updates;
use view::View;
use witnessing::Witnessing;

/// How many epochs are remembered: the one in work, and the one before while it drains.
const EPOCHS_KEPT: usize = 2;
/// Most peers whose connections are tracked.
const PEERS_MAX: usize = 1_024;
/// Most of this node's own messages repeated at once.
const REPEATS_MAX: usize = 4;

/// What the trainer is doing for this engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Busy {
    Loading { step: Step, right: Option<Digest>, index: Option<BlobHash> },
    Training { round: RoundKey, cancelled: bool },
    Applying { round: RoundKey, results: u16 },
}

/// The engine of one node in one run.
pub struct Engine {
    config: EngineConfig,
    now: Now,
    out: Vec<Effect>,
    view: Option<View>,
    /// Since when this node has been connected to nearly all clients, in this life of its process.
    hearing_since_ms: Option<u64>,
    /// Oldest first.
    logs: VecDeque<EpochLog>,
    stores: BTreeMap<RoundKey, RoundStore>,
    early: Early,
    outbox: Outbox,
    fetches: Fetches,
    busy: Option<Busy>,
    model: Model,
    digests: Digests,
    snapshots: Snapshots,
    updates: Updates,
    checkpoints: Checkpoints,
    resolution: Option<Resolution>,
    my_rounds: BTreeMap<RoundKey, MyRound>,
    numbers: WitnessNumbers,
    witnessing: Witnessing,
    pace: Pace,
    lead: Lead,
    errands: Errands,
    connected: BTreeSet<PeerKey>,
    connected_reported: Option<u16>,
    /// Everyone else who belongs to the run, in order.
    members: Vec<PeerKey>,
    /// Whether clients or connections changed since members were last worked out.
    members_stale: bool,
    /// The step in work when rounds were forgotten last.
    forgotten_at: Step,
    finished: bool,
}

impl core::fmt::Debug for Engine {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Engine")
            .field("me", &self.config.me)
            .field("view", &self.view)
            .field("busy", &self.busy)
            .field("model", &self.model)
            .field("finished", &self.finished)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine that knows nothing of the run yet.
    #[must_use]
    pub fn new(config: EngineConfig) -> Self {
        let updates = Updates::with_own(config.updates);
        let mut outbox = Outbox::default();
        for announced in config.manifests.iter().rev().take(ROUNDS_KEPT as usize) {
            outbox.add(RoundMessage::Manifest(announced.clone()), 0, 0);
        }
        Self {
            config,
            updates,
            checkpoints: Checkpoints::default(),
            now: Now { chain: psyche_messages::ChainTime(0), mono_ms: 0 },
            out: Vec::new(),
            view: None,
            hearing_since_ms: None,
            logs: VecDeque::new(),
            stores: BTreeMap::new(),
            early: Early::default(),
            outbox,
            fetches: Fetches::default(),
            busy: None,
            model: Model::default(),
            digests: Digests::default(),
            snapshots: Snapshots::default(),
            resolution: None,
            my_rounds: BTreeMap::new(),
            numbers: WitnessNumbers::default(),
            witnessing: Witnessing::default(),
            pace: Pace::default(),
            lead: Lead::default(),
            errands: Errands::default(),
            connected: BTreeSet::new(),
            connected_reported: None,
            members: Vec::new(),
            members_stale: true,
            forgotten_at: Step(0),
            finished: false,
        }
    }

    /// Takes in `event` and says what is to be done, in this order. `now` never goes backwards.
    pub fn step(&mut self, now: Now, event: Event) -> Vec<Effect> {
        if self.finished {
            return Vec::new();
        }
        self.now = Now { chain: now.chain, mono_ms: now.mono_ms.max(self.now.mono_ms) };
        // What is heard and fetched changes nothing about digests but the digests themselves.
        let is_word = matches!(event, Event::Message(_) | Event::Published(_));
        let is_blob = matches!(event, Event::Fetched { .. } | Event::ManifestFetched { .. } | Event::ManifestStored { .. });
        if !is_word && !is_blob {
            self.model.judged_by = None;
        }
        self.take_in(event);
        if self.view.is_some() && !self.finished {
            self.drive();
        }
        core::mem::take(&mut self.out)
    }

    fn take_in(&mut self, event: Event) {
        match event {
            Event::CoordinatorAdvanced { slot, account } => self.on_account(slot, account),
            Event::Message(signed) => self.hear(signed),
            Event::Published(signed) => self.on_published(signed),
            Event::Fetched { blob, outcome } => self.on_fetched(blob, outcome),
            Event::ManifestFetched { blob, len, outcome } => self.on_manifest_fetched(blob, len, outcome),
            Event::ManifestStored { round, blob, len } => self.on_manifest_stored(round, blob, len),
            Event::Trained { round, payload, payload_len, loss, tokens_per_second } => {
                self.on_trained(round, payload, payload_len, loss, tokens_per_second);
            }
            Event::TrainingSkipped { round, reason } => self.on_training_skipped(round, reason),
            Event::Applied { round, digest } => self.on_applied(round, digest),
            Event::ApplyFailed { round, reason } => self.on_apply_failed(round, &reason),
            Event::ModelLoaded { step, digest, source } => self.on_model_loaded(step, digest, source),
            Event::ModelLoadFailed { reason } => self.on_model_load_failed(&reason),
            Event::ModelRefuted { step } => self.on_model_refuted(step),
            Event::UpdatesFetched { author, outcome } => self.on_updates_fetched(author, outcome),
            Event::UpdatesLogged(announced) => self.on_updates_logged(announced),
            Event::DiskSnapshotChanged(disk) => self.on_disk_snapshot_changed(disk),
            Event::SnapshotReady(announced) => self.on_snapshot_ready(announced),
            Event::CheckpointWritten { round, path } => self.on_checkpoint_written(round, path),
            Event::SnapshotFailed { round, reason } => self.on_snapshot_failed(round, &reason),
            Event::WitnessesRebuilt { round, witnesses } => self.on_witnesses_rebuilt(round, witnesses),
            Event::ChainSent { id, outcome } => self.on_sent(id, outcome),
            Event::PeerConnected(peer) => {
                if self.connected.len() < PEERS_MAX && self.connected.insert(peer) {
                    self.members_stale = true;
                    self.outbox.hurry(self.now.mono_ms);
                }
            }
            Event::PeerDisconnected(peer) => {
                self.members_stale |= self.connected.remove(&peer);
            }
            Event::RunReplaced => self.on_replaced(),
            Event::Timer => {}
        }
    }

    fn drive(&mut self) {
        if core::mem::take(&mut self.members_stale) {
            self.drive_members();
            self.note_hearing();
        }
        self.drive_digests();
        self.drive_applying();
        self.drive_loading();
        self.drive_adoption();
        self.drive_training();
        self.drive_witnessing();
        self.drive_snapshot();
        self.drive_checkpoint();
        self.drive_errands();
        let now_ms = self.now.mono_ms;
        self.fetches.drive(now_ms, &mut self.out);
        for message in self.outbox.due(now_ms, self.config.patience.repeat_ms, REPEATS_MAX) {
            self.out.push(Effect::Publish(message));
        }
        self.forget();
        self.drive_finish();
        self.drive_leaving();
    }

    /// This node, as the account must name it.
    const fn me(&self) -> Member {
        Member { signer: self.config.me, peer: self.config.peer }
    }

    fn report(&mut self, event: NodeEvent) {
        self.out.push(Effect::Report(event));
    }

    fn warn(&mut self, message: String) {
        self.report(NodeEvent::Warning { message });
    }

    /// Publishes a message of this node, and again from time to time while it is of use.
    fn publish(&mut self, message: RoundMessage) {
        self.outbox.add(message.clone(), self.now.mono_ms, self.config.patience.repeat_ms);
        self.out.push(Effect::Publish(message));
    }

    /// The log of the epoch that has the round `round`, and the round's height.
    fn locate(&self, round: RoundKey) -> Option<(usize, u32)> {
        self.logs.iter().enumerate().find_map(|(at, log)| Some((at, log.height_of(round)?)))
    }

    /// As [`Engine::locate`], by the step alone: steps never repeat within a run.
    fn locate_step(&self, step: Step) -> Option<(usize, u32)> {
        self.logs.iter().enumerate().rev().find_map(|(at, log)| Some((at, log.height_of_step(step)?)))
    }

    /// Forgets rounds that nobody asks about any more.
    fn forget(&mut self) {
        let Some(view) = &self.view else { return };
        let step = view.step();
        if self.forgotten_at == step {
            return;
        }
        self.forgotten_at = step;
        self.outbox.forget(Step(step.0.saturating_sub(3)), Step(step.0.saturating_sub(2)));
        let oldest = Step(step.0.saturating_sub(ROUNDS_KEPT));
        if oldest == Step(0) {
            return;
        }
        self.stores.retain(|round, _| round.step >= oldest);
        self.my_rounds.retain(|round, _| round.step >= oldest);
        // What is being replayed lies farther back.
        let replayed = self.updates.replay.as_ref().and(self.model.step).map_or(oldest, Step::next);
        self.fetches.forget_before(oldest.min(replayed));
        self.snapshots.forget(step);
        let kept = oldest.min(replayed).min(self.updates_kept_from());
        let epoch = self.locate_step(kept).and_then(|(at, _)| self.logs.get(at)).map(|log| log.epoch);
        let epoch = epoch.or_else(|| self.logs.front().map(|log| log.epoch)).unwrap_or_default();
        self.out.push(Effect::ForgetRoundsBefore(RoundKey { epoch, step: kept }));
    }

    /// Ends when the run has finished, its last results are applied, a snapshot is there for whoever comes later, and all
    /// members say that they have the same. As long as some do not, this node stays for a while: one of them has to heal, or
    /// is still on its way to the last step.
    fn drive_finish(&mut self) {
        let Some(view) = self.view.as_ref().filter(|view| view.phase() == Phase::Finished) else { return };
        let lasted_ms = self.now.mono_ms.saturating_sub(view.since_ms);
        let wanted = Step(view.step().0.saturating_sub(1));
        let members = view.client_peers();
        let whole = self.model.served == Some(wanted) && self.model.trouble.is_none() && self.checkpoint_is_settled(wanted);
        let agreement = self.digests.ballot(wanted, &members, &self.config.peer).agreement();
        // Clients may be cut off for a moment; of the others, those count who are there.
        let behind = self.members.iter().any(|peer| {
            let claim = self.digests.claim(peer);
            claim.is_none_or(|(step, _)| step < wanted) && (self.connected.contains(peer) || members.contains(peer))
        });
        let stayed = lasted_ms >= self.config.patience.repeat_ms.saturating_mul(2) && !agreement.is_doubtful();
        let reason = match self.model.step {
            None if matches!(self.busy, Some(Busy::Loading { .. })) && lasted_ms < self.config.patience.finish_ms => return,
            None => format!("the run has finished after step {wanted}"),
            Some(_) if whole && !behind && (agreement.is_unanimous() || stayed) => {
                format!("the run has finished after step {wanted}")
            }
            Some(_) if whole && stayed && lasted_ms >= self.config.patience.finish_ms => {
                format!("the run has finished after step {wanted}")
            }
            Some(step) if lasted_ms >= self.config.patience.finish_ms => {
                format!("the run has finished after step {wanted}; this node holds step {step}, which {agreement}")
            }
            Some(_) => return,
        };
        self.finished = true;
        self.out.push(Effect::Finished { reason });
    }
}
