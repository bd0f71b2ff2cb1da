//! What goes into the engine and what comes out of it.
//!
//! Every effect that has an outcome names the event that carries it. Commands for the trainer ([`Effect::LoadModel`],
//! [`Effect::ResetMomentum`], [`Effect::Train`], [`Effect::Apply`], [`Effect::TakeSnapshot`]) are executed in the order in
//! which they come, and each has an outcome, if need be a failure: no more is asked of the trainer before. Only the outcome of
//! a snapshot, which is written beside the next commands, may come after those of training and applying. Any other
//! outcome that never comes costs the engine a deadline, never its correctness.

mod debug;

use std::sync::Arc;

use psyche_messages::{
    Address, AppliedStep, BatchInterval, BlobHash, ChainTime, Digest, Manifest, ManifestAnnounced, NodeEvent, PeerKey,
    ResultAnnounced, RoundKey, RoundMessage, SignedRoundMessage, Slot, SnapshotAnnounced, Step, UpdatesAnnounced,
    events::ModelSource,
};
use psyche_protocol::layout::{CommitteeProof, CoordinatorAccount, Witness};
use psyche_protocol::model::HubRepo;

use super::history::Gap;
use super::leaving::Leaving;
use super::snapshots::DiskSnapshot;
use crate::telemetry::TxKind;

/// What the clocks say when an event is handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The chain's clock as the shell estimates it from slots and the Clock sysvar.
    pub chain: ChainTime,
    /// A clock of the machine that never goes backwards, in milliseconds from any origin.
    pub mono_ms: u64,
}

/// Who this node is, and what it may assume.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// The wallet's address, under which the node joins.
    pub me: Address,
    /// The node's peer key, as its roster entry holds it.
    pub peer: PeerKey,
    /// The run's coordinator account: part of every commitment.
    pub run_tag: Address,
    /// Exact length of every payload, in bytes; follows from the model and the optimiser's configuration.
    pub payload_len: u32,
    /// Longest manifest blob that is fetched, in bytes.
    pub manifest_len_max: u32,
    /// Longest snapshot index blob that is fetched, in bytes.
    pub index_len_max: u32,
    /// The snapshot that lies on the node's own disk when it starts.
    pub disk: Option<DiskSnapshot>,
    /// The first and the last step of the update log that lies there.
    pub updates: Option<(Step, Step)>,
    /// What this node announced as a witness before it started, of the last few rounds.
    pub manifests: Vec<ManifestAnnounced>,
    /// Longest page of an update log that is fetched, in bytes.
    pub updates_len_max: u32,
    /// Whether checkpoints are kept at a place of the operator's, so that this node writes one whenever it is elected to.
    pub keeps_checkpoints: bool,
    /// The repository that an elected node then names on chain.
    pub checkpoint_repo: Option<HubRepo>,
    /// How long the engine waits for what.
    pub patience: Patience,
}

/// How long the engine waits for what, in milliseconds of [`Now::mono_ms`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For a witness's manifest, while enough others are at hand to know every possible winner.
    pub manifest_ms: u64,
    /// For manifests and payloads without which a round cannot be applied; then the node heals from a snapshot.
    pub apply_ms: u64,
    /// For the rest of the members' digests, before the largest group counts as right.
    pub digest_ms: u64,
    /// For more announcements of the same snapshot, before the largest group counts as right.
    pub snapshot_ms: u64,
    /// For any announced snapshot, before a checkpoint is loaded that is older than the run.
    pub peers_ms: u64,
    /// For witnesses rebuilt from transactions, however often the history has to be asked.
    pub rebuild_ms: u64,
    /// For healing and the last snapshot after the run has finished.
    pub finish_ms: u64,
    /// Between repetitions of the node's own messages that are still of use, while they are young.
    pub repeat_ms: u64,
    /// Between the turns of two members that could send the same transaction.
    pub turn_ms: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            manifest_ms: 2_000,
            apply_ms: 20_000,
            digest_ms: 5_000,
            snapshot_ms: 2_000,
            peers_ms: 8_000,
            rebuild_ms: 15_000,
            finish_ms: 30_000,
            repeat_ms: 4_000,
            turn_ms: 700,
        }
    }
}

/// Something happened.
#[derive(Clone)]
pub enum Event {
    /// The newest state of the coordinator account. States may be skipped; they never go backwards.
    CoordinatorAdvanced {
        /// The slot at which the state was read.
        slot: Slot,
        /// The state.
        account: Arc<CoordinatorAccount>,
    },
    /// A peer's message with a valid signature.
    Message(SignedRoundMessage),
    /// A message of this node was signed ([`Effect::Publish`]); also comes for each repetition.
    Published(SignedRoundMessage),
    /// The outcome of [`Effect::Fetch`] of a payload.
    Fetched {
        /// The blob.
        blob: BlobHash,
        /// Whether it is here and well-formed.
        outcome: FetchOutcome,
    },
    /// The outcome of [`Effect::Fetch`] of a manifest. `None` if no provider has it.
    ManifestFetched {
        /// The blob.
        blob: BlobHash,
        /// The length with which it was asked for, in bytes.
        len: u32,
        /// What it lists. The signature of every entry has been checked; a manifest with a bad one is malformed.
        outcome: Result<Manifest, FetchFault>,
    },
    /// [`Effect::StoreManifest`] is done.
    ManifestStored {
        /// The round whose results the manifest lists.
        round: RoundKey,
        /// The blob.
        blob: BlobHash,
        /// Its length in bytes.
        len: u32,
    },
    /// [`Effect::Train`] is done, and its payload is stored as a blob.
    Trained {
        /// The round.
        round: RoundKey,
        /// The payload.
        payload: BlobHash,
        /// Its length in bytes.
        payload_len: u32,
        /// Mean loss over the batch's tokens, in nats.
        loss: f32,
        /// Tokens a second of this node.
        tokens_per_second: f32,
    },
    /// [`Effect::Train`] ended without a payload: cancelled, no data, a failure.
    TrainingSkipped {
        /// The round.
        round: RoundKey,
        /// Why.
        reason: String,
    },
    /// [`Effect::Apply`] is done.
    Applied {
        /// The round whose results were applied.
        round: RoundKey,
        /// The digest of the parameters afterwards.
        digest: Digest,
    },
    /// [`Effect::Apply`] failed, so that the parameters are no longer to be trusted.
    ApplyFailed {
        /// The round.
        round: RoundKey,
        /// Why.
        reason: String,
    },
    /// [`Effect::LoadModel`] replaced the parameters, if need be with other ones than the engine knows to be right: it
    /// compares digests itself.
    ModelLoaded {
        /// The last step that the parameters contain, as the effect said it.
        step: Step,
        /// Their digest.
        digest: Digest,
        /// Where they came from.
        source: ModelSource,
    },
    /// [`Effect::LoadModel`] failed before it touched the parameters: those from before are still there.
    ModelLoadFailed {
        /// Why.
        reason: String,
    },
    /// What [`Effect::LoadModel`] found is not what was announced: the parameters from before are still there.
    ModelRefuted {
        /// The last step that the new parameters were to contain.
        step: Step,
    },
    /// The outcome of [`Effect::FetchUpdates`].
    UpdatesFetched {
        /// Whose log it is.
        author: PeerKey,
        /// Its steps from the one asked for on, if it reaches back that far; at most [`super::LEDGER_STEPS_MAX`]. The
        /// author's signatures are checked; a log with a bad one is malformed.
        outcome: Result<Vec<AppliedStep>, FetchFault>,
    },
    /// [`Effect::LogUpdate`] is done, and the log is served.
    UpdatesLogged(UpdatesAnnounced),
    /// The newest snapshot on the node's own disk is another one now: the one before turned out to be damaged.
    DiskSnapshotChanged(Option<DiskSnapshot>),
    /// [`Effect::TakeSnapshot`] is done, and the snapshot is served.
    SnapshotReady(SnapshotAnnounced),
    /// The outcome of [`Effect::WriteCheckpoint`].
    CheckpointWritten {
        /// The round.
        round: RoundKey,
        /// Where the checkpoint is; `None` where it could not be written.
        path: Option<String>,
    },
    /// [`Effect::TakeSnapshot`] failed.
    SnapshotFailed {
        /// The round.
        round: RoundKey,
        /// Why.
        reason: String,
    },
    /// The outcome of [`Effect::RebuildWitnesses`].
    WitnessesRebuilt {
        /// The round whose witnesses were asked for.
        round: RoundKey,
        /// All its witnesses in the order of their transactions ([`Gap::fill`]); `None` where the history does not say.
        witnesses: Option<Vec<Witness>>,
    },
    /// The outcome of [`Effect::Send`].
    ChainSent {
        /// The effect's id.
        id: SendId,
        /// What became of the transaction.
        outcome: SendOutcome,
    },
    /// A peer is connected.
    PeerConnected(PeerKey),
    /// A peer is gone.
    PeerDisconnected(PeerKey),
    /// The run was closed and created anew, so that nothing holds that was known of it.
    RunReplaced,
    /// Time has passed; comes about every 200 ms.
    Timer,
}

/// What became of a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchOutcome {
    /// The blob is stored here, and its content is a well-formed payload.
    Valid,
    /// It is not.
    Fault(FetchFault),
}

/// Why a blob is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchFault {
    /// No provider served it; trying again may help.
    Unavailable,
    /// It is here, but has another length, or its content breaks the rules; it always will.
    Malformed,
}

/// Names one [`Effect::Send`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SendId(pub u64);

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    /// It is confirmed.
    Confirmed,
    /// The program refuses it, and would refuse it again in this state.
    Refused,
    /// It did not get through; trying again may help.
    Failed,
}

/// Something to be done.
#[derive(Clone, PartialEq)]
pub enum Effect {
    /// Replace the parameters, and the momentum: by the saved one from the node's own snapshot, otherwise by none →
    /// [`Event::ModelLoaded`], [`Event::ModelRefuted`] or [`Event::ModelLoadFailed`].
    LoadModel {
        /// The last step that the new parameters are to contain.
        step: Step,
        /// Where from.
        from: LoadFrom,
    },
    /// Forget the momentum.
    ResetMomentum,
    /// Train a batch → [`Event::Trained`] or [`Event::TrainingSkipped`].
    Train {
        /// The round.
        round: RoundKey,
        /// The samples.
        batch: BatchInterval,
        /// What decides the learning rate.
        schedule: StepSchedule,
    },
    /// Stop training this round as soon as that is possible → [`Event::TrainingSkipped`], if it was not done already.
    CancelTraining {
        /// The round.
        round: RoundKey,
    },
    /// Sign and gossip a message of this node → [`Event::Published`].
    Publish(RoundMessage),
    /// Get a blob → [`Event::Fetched`] or [`Event::ManifestFetched`].
    Fetch {
        /// Its name.
        blob: BlobHash,
        /// Its exact length in bytes.
        len: u32,
        /// Who may have it, the likeliest first.
        providers: Vec<PeerKey>,
        /// What it is.
        what: Fetching,
    },
    /// Store a manifest as a blob and serve it → [`Event::ManifestStored`].
    StoreManifest(Manifest),
    /// Apply these results → [`Event::Applied`] or [`Event::ApplyFailed`].
    Apply {
        /// The round.
        round: RoundKey,
        /// The results in batch order; none is a valid list, after which the digest still counts.
        results: Vec<ResultAnnounced>,
        /// What decides the learning rate.
        schedule: StepSchedule,
    },
    /// Write what was applied into this node's signed update log, and serve it → [`Event::UpdatesLogged`].
    LogUpdate(AppliedStep),
    /// Get an update log → [`Event::UpdatesFetched`].
    FetchUpdates {
        /// Whose; this node's own lies on its disk.
        author: PeerKey,
        /// Name and length of its newest page; `None` for this node's own.
        head: Option<(BlobHash, u32)>,
        /// The first step that is needed.
        from: Step,
    },
    /// Write and serve a snapshot of the parameters as they are → [`Event::SnapshotReady`] or [`Event::SnapshotFailed`].
    TakeSnapshot {
        /// The round whose results were applied last.
        round: RoundKey,
    },
    /// Write the weights of the snapshot after this round, which was saved just now, where the operator keeps checkpoints →
    /// [`Event::CheckpointWritten`].
    WriteCheckpoint {
        /// The round whose results were applied last.
        round: RoundKey,
    },
    /// Find the witnesses of a round in the transaction history, as the account no longer has all of them →
    /// [`Event::WitnessesRebuilt`].
    RebuildWitnesses {
        /// The round in which the witnesses submitted.
        round: RoundKey,
        /// Between which states they lie, and what else lies there.
        gap: Arc<Gap>,
    },
    /// Send a transaction → [`Event::ChainSent`].
    Send {
        /// Names it.
        id: SendId,
        /// What it does.
        action: ChainAction,
    },
    /// A peer signed what is not so: have the network score it down, and keep it out if it goes on.
    Blame {
        /// Who.
        peer: PeerKey,
        /// What about.
        lie: Lie,
    },
    /// Only these peers belong to the run now. This node is not among them.
    SetMembers(Vec<PeerKey>),
    /// Nothing of the rounds before this one is needed any more: blobs and what the update log says of them may go.
    ForgetRoundsBefore(RoundKey),
    /// Tell whoever listens.
    Report(NodeEvent),
    /// The run is over for this node; no effect follows.
    Finished {
        /// Why, in words.
        reason: String,
    },
    /// The run goes on, but not with this node as it is; no effect follows.
    Leave(Leaving),
}

/// What a peer signed and is not so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// A blob that it announced is not what it said.
    Mislabelled,
    /// Its update log is false.
    FalseLog,
}

/// Where parameters come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadFrom {
    /// The checkpoint that the account names.
    Checkpoint,
    /// The node's own snapshot.
    Disk,
    /// A snapshot that peers serve.
    Peers {
        /// The index blob.
        index: BlobHash,
        /// Its exact length in bytes.
        len: u32,
        /// The digest that the parameters must have.
        digest: Digest,
        /// Who announced it.
        providers: Vec<PeerKey>,
    },
}

/// What a node must know beside the step to compute the learning rate of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepSchedule {
    /// The steps `[from, to)` over which the rate warms up again, in a cold-start epoch only.
    pub cold_start: Option<(Step, Step)>,
}

/// What a blob is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetching {
    /// The payload of this result.
    Payload(ResultAnnounced),
    /// A manifest of this round.
    Manifest {
        /// The round whose results it lists.
        round: RoundKey,
        /// The Merkle root that it must have.
        root: [u8; 32],
    },
}

/// A transaction.
#[derive(Clone, Debug, PartialEq)]
pub enum ChainAction {
    /// Join the next epoch.
    Join,
    /// Move the run on.
    Tick,
    /// Report that the model is ready.
    WarmupWitness(Box<Witness>),
    /// Witness the previous round's results.
    Witness {
        /// Proof, blooms and Merkle root.
        witness: Box<Witness>,
        /// What is only written into the transaction.
        metadata: WitnessNumbers,
    },
    /// Name the run's newest checkpoint.
    Checkpoint(HubRepo),
    /// Report that a client is gone.
    HealthCheck {
        /// The client's wallet address.
        target: Address,
        /// Its place in the previous round.
        proof: CommitteeProof,
    },
}

/// What a witness tells about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct WitnessNumbers {
    /// The step in work.
    pub step: Step,
    /// Tokens a second.
    pub tokens_per_second: f32,
    /// Loss of the batch trained last, in nats.
    pub loss: f32,
}

impl ChainAction {
    /// What it is for, in a word or two, for logs and events.
    #[must_use]
    pub const fn purpose(&self) -> &'static str {
        TxKind::of(self).name()
    }
}
