//! # Purpose
//! One device: loads its part of the model, trains, applies, digests and captures its state for snapshots, together with
//! the node's other devices.
//!
//! # In (message → reply)
//! [`LoadWeights`], [`ReplaceState`], [`TrainBatch`], [`ApplyResults`], [`GetDigest`], [`CaptureState`] and
//! [`ResetMomentum`] → their results. All but the last are collective: every worker of the node gets the same one, in the same order, which
//! [`DeviceMesh`] sees to.
//!
//! # Out
//! Nothing but replies.
//!
//! # State and invariants
//! The rank's tensors, which never leave the worker's thread. Without weights every command but [`LoadWeights`] is refused.
//!
//! # Mailbox (bound, policy when full)
//! 8 messages; the mesh sends one at a time and waits.
//!
//! # Failure (how it dies, who restarts it)
//! A failing rank ends the mesh: all workers report an error, and the next [`DeviceMesh::load`] makes a new mesh. A load that
//! fails over its files leaves every worker as it was. A panic
//! restarts the worker empty, by the node's supervisor.
//!
//! # Time
//! None. Training is cancelled through the plan's token, between micro-batches.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, ArbiterHandle, Context, Handler, MessageResult};
use psyche_gpu::GpuError;
use psyche_gpu::codec::Threads;
use psyche_gpu::devices::Placement;
use psyche_gpu::mesh::{MeshRank, Topology, mesh};
use psyche_gpu::snapshot::{Captured, SnapshotError, Verified};
use psyche_gpu::worker::{ApplyPlan, Rank, RankSetup, SpikeRule, StepPlan, TrainOutcome};
use psyche_messages::{Command, Digest};
use thiserror::Error;

use crate::config::{ComputeConfig, MeshShape};
use crate::envelope::Ask;
use crate::run::RunPlan;
use crate::supervisor::{AskError, Supervised};

/// Messages that may wait for a worker.
const MAILBOX_MAX: usize = 8;
/// Longest time that a rank waits for another at a collective: a rank that takes longer than this for a micro-batch is dead.
const RANK_WAIT_MAX: Duration = Duration::from_secs(600);

/// Why the devices could not do something.
#[derive(Debug, Error)]
pub enum TrainerError {
    /// A device failed.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// A worker died.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// No weights are loaded.
    #[error("use the devices: no weights are loaded")]
    Empty,
}

impl TrainerError {
    /// Whether the mesh has to be made anew before anything else can be done.
    const fn ends_the_mesh(&self) -> bool {
        match self {
            Self::Ask(_) | Self::Empty => true,
            Self::Gpu(error) => matches!(
                error,
                GpuError::MeshPoisoned { .. }
                    | GpuError::MeshAborted { .. }
                    | GpuError::MeshTimeout { .. }
                    | GpuError::MeshDesynchronised { .. }
            ),
        }
    }

    /// Whether another rank's error says more.
    const fn is_an_echo(&self) -> bool {
        matches!(self, Self::Gpu(GpuError::MeshPoisoned { .. } | GpuError::Files { .. }))
    }
}

/// Where a node's state comes from.
#[derive(Clone, Debug)]
pub enum LoadSource {
    /// Weights in a folder, with empty momentum.
    Folder {
        /// The folder.
        folder: PathBuf,
        /// The digest that they must have.
        digest: Option<Digest>,
    },
    /// A snapshot of this node: weights and momentum.
    Snapshot(Verified),
}

/// Loads weights, and makes the rank anew.
pub struct LoadWeights {
    /// Place among the node's ranks.
    rank: MeshRank,
    /// What to load it with.
    settings: Arc<LoadSettings>,
}

struct LoadSettings {
    plan: Arc<RunPlan>,
    devices: Arc<DeviceSettings>,
    source: LoadSource,
}

/// Replaces weights and momentum of all ranks, or of none.
#[derive(Clone, Debug)]
pub struct ReplaceState(pub Arc<LoadSource>);

/// Trains one batch.
#[derive(Clone, Debug)]
pub struct TrainBatch(pub Arc<StepPlan>);

/// Applies results.
#[derive(Clone, Debug)]
pub struct ApplyResults(pub Arc<ApplyPlan>);

/// Asks for the digest of the parameters.
#[derive(Clone, Copy, Debug)]
pub struct GetDigest;

/// Copies the state, for a snapshot; the first worker's answer holds all of it.
#[derive(Clone, Copy, Debug)]
pub struct CaptureState;

/// Forgets the momentum.
#[derive(Clone, Copy, Debug)]
pub struct ResetMomentum;

impl Command for LoadWeights {
    type Reply = Result<Digest, TrainerError>;
}
impl Command for ReplaceState {
    type Reply = Result<Digest, TrainerError>;
}
impl Command for TrainBatch {
    type Reply = Result<TrainOutcome, TrainerError>;
}
impl Command for ApplyResults {
    type Reply = Result<(), TrainerError>;
}
impl Command for GetDigest {
    type Reply = Result<Digest, TrainerError>;
}
impl Command for CaptureState {
    type Reply = Result<Option<Captured>, TrainerError>;
}
impl Command for ResetMomentum {
    type Reply = Result<(), TrainerError>;
}

/// See the module.
#[derive(Default)]
pub struct TrainerWorker {
    rank: Option<Rank>,
}

impl TrainerWorker {
    /// Starts a worker on the thread of `arbiter`, which must be its own.
    #[must_use]
    pub fn start(arbiter: &ArbiterHandle) -> Addr<Self> {
        Self::start_in_arbiter(arbiter, |_| Self::default())
    }

    fn with_rank<T>(&mut self, work: impl FnOnce(&mut Rank) -> Result<T, GpuError>) -> Result<T, TrainerError> {
        let rank = self.rank.as_mut().ok_or(TrainerError::Empty)?;
        Ok(work(rank)?)
    }
}

impl Actor for TrainerWorker {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX_MAX);
    }
}

impl Handler<Ask<LoadWeights>> for TrainerWorker {
    type Result = MessageResult<Ask<LoadWeights>>;

    fn handle(&mut self, Ask(LoadWeights { rank, settings }): Ask<LoadWeights>, _: &mut Self::Context) -> Self::Result {
        // The old rank's memory is given back before the new one's is taken.
        self.rank = None;
        let loaded = load(rank, &settings).map_err(TrainerError::from);
        MessageResult(loaded.map(|(rank, digest)| {
            self.rank = Some(rank);
            digest
        }))
    }
}

impl Handler<Ask<ReplaceState>> for TrainerWorker {
    type Result = MessageResult<Ask<ReplaceState>>;

    fn handle(&mut self, Ask(ReplaceState(source)): Ask<ReplaceState>, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.with_rank(|rank| match &*source {
            LoadSource::Folder { folder, digest } => rank.load(folder, *digest),
            LoadSource::Snapshot(snapshot) => resume(rank, snapshot),
        }))
    }
}

fn resume(rank: &mut Rank, snapshot: &Verified) -> Result<Digest, GpuError> {
    rank.resume(snapshot)?;
    Ok(snapshot.stored().manifest.digest)
}

fn load(mesh: MeshRank, settings: &LoadSettings) -> Result<(Rank, Digest), GpuError> {
    let folder = match &settings.source {
        LoadSource::Folder { folder, .. } => folder,
        LoadSource::Snapshot(snapshot) => &snapshot.stored().folder,
    };
    let mut rank = make_rank(mesh, settings, folder)?;
    let digest = match &settings.source {
        LoadSource::Folder { digest, .. } => {
            let found = Digest(rank.digest()?);
            if let Some(expected) = digest.filter(|expected| *expected != found) {
                return Err(SnapshotError::Refuted { path: folder.clone(), found, expected }.into());
            }
            found
        }
        LoadSource::Snapshot(snapshot) => resume(&mut rank, snapshot)?,
    };
    Ok((rank, digest))
}

fn make_rank(mesh: MeshRank, settings: &LoadSettings, folder: &Path) -> Result<Rank, GpuError> {
    let number = mesh.rank();
    let DeviceSettings { shape, placement, compute } = &*settings.devices;
    let seat = placement.seats.get(number).ok_or_else(|| GpuError::Layout { problem: "a rank without a device".into() })?;
    // The worker's thread is the rank's own, and stays so when the worker is started anew.
    seat.take()?;
    let plan = &settings.plan;
    let rank = Rank::new(RankSetup {
        mesh,
        device: seat.device,
        config: plan.model.clone(),
        optimizer: plan.optimizer(),
        sequence_len: plan.seq_len,
        micro_batch_size: usize::try_from(shape.micro_batch).unwrap_or(usize::MAX),
        precision: compute.precision_on(seat),
        checkpointing: compute.checkpointing,
        spikes: compute.skips_spikes.then(SpikeRule::default),
        threads: Threads::new(seat.cores.threads),
        weights: folder.to_owned(),
    })?;
    if let Some(used) = rank.memory_use()? {
        let (in_tensors, held) = (used.allocated_bytes, used.reserved_bytes);
        tracing::info!(actor = "trainer", rank = number, device = %seat, in_tensors, held, "the model is on the device");
    }
    Ok(rank)
}

impl Handler<Ask<TrainBatch>> for TrainerWorker {
    type Result = MessageResult<Ask<TrainBatch>>;

    fn handle(&mut self, Ask(TrainBatch(plan)): Ask<TrainBatch>, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.with_rank(|rank| rank.train(&plan)))
    }
}

impl Handler<Ask<ApplyResults>> for TrainerWorker {
    type Result = MessageResult<Ask<ApplyResults>>;

    fn handle(&mut self, Ask(ApplyResults(plan)): Ask<ApplyResults>, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.with_rank(|rank| rank.apply(&plan)))
    }
}

impl Handler<Ask<GetDigest>> for TrainerWorker {
    type Result = MessageResult<Ask<GetDigest>>;

    fn handle(&mut self, _: Ask<GetDigest>, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.with_rank(Rank::digest).map(Digest))
    }
}

impl Handler<Ask<CaptureState>> for TrainerWorker {
    type Result = MessageResult<Ask<CaptureState>>;

    fn handle(&mut self, _: Ask<CaptureState>, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.with_rank(Rank::capture))
    }
}

impl Handler<Ask<ResetMomentum>> for TrainerWorker {
    type Result = MessageResult<Ask<ResetMomentum>>;

    fn handle(&mut self, _: Ask<ResetMomentum>, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.with_rank(Rank::reset_momentum))
    }
}

/// All workers of the node, as one. Only one command at a time: the device queue sees to that.
pub struct DeviceMesh {
    workers: Vec<Supervised<TrainerWorker>>,
    devices: Arc<DeviceSettings>,
}

/// How the node's devices are laid out and used.
#[derive(Clone, Debug)]
pub struct DeviceSettings {
    /// How many ranks there are.
    pub shape: MeshShape,
    /// Where each of them computes.
    pub placement: Placement,
    /// And how.
    pub compute: ComputeConfig,
}

impl DeviceMesh {
    /// A mesh of `workers`, one for each rank of the settings.
    #[must_use]
    pub fn new(workers: Vec<Supervised<TrainerWorker>>, devices: DeviceSettings) -> Self {
        Self { workers, devices: Arc::new(devices) }
    }

    /// Goes on from `source`; the digest of the weights. Where there is no mesh, or a broken one, a new one is made.
    ///
    /// # Errors
    /// [`TrainerError`] of the first rank that failed. A mesh that was whole then keeps the state that it had.
    pub async fn load(&mut self, plan: Arc<RunPlan>, source: LoadSource) -> Result<Digest, TrainerError> {
        match self.all(ReplaceState(Arc::new(source.clone()))).await {
            Err(error) if error.ends_the_mesh() => self.load_anew(plan, source).await,
            replaced => replaced,
        }
    }

    async fn load_anew(&mut self, plan: Arc<RunPlan>, source: LoadSource) -> Result<Digest, TrainerError> {
        let shape = self.devices.shape;
        let topology = Topology::new(usize::from(shape.dp), usize::from(shape.tp))?;
        let settings = Arc::new(LoadSettings { plan, devices: Arc::clone(&self.devices), source });
        let ranks = mesh(topology, RANK_WAIT_MAX);
        let loads = self
            .workers
            .iter()
            .zip(ranks)
            .map(|(worker, rank)| worker.ask(LoadWeights { rank, settings: Arc::clone(&settings) }));
        first_error(futures::future::join_all(loads).await)
    }

    /// Lets the next mesh begin with micro-batches that the devices' memory was found to hold.
    pub fn remember_micro_batch(&mut self, samples: usize) {
        let samples = u32::try_from(samples).unwrap_or(u32::MAX);
        let shape = &mut Arc::make_mut(&mut self.devices).shape;
        shape.micro_batch = shape.micro_batch.min(samples);
    }

    /// Has every worker carry out `command`: the first worker's answer.
    ///
    /// # Errors
    /// [`TrainerError`] of the first rank that failed.
    pub async fn all<C, T>(&mut self, command: C) -> Result<T, TrainerError>
    where
        C: Command<Reply = Result<T, TrainerError>> + Clone,
        T: Send + 'static,
        TrainerWorker: Handler<Ask<C>>,
        Context<TrainerWorker>: actix::dev::ToEnvelope<TrainerWorker, Ask<C>>,
    {
        let answers = self.workers.iter().map(|worker| worker.ask(command.clone()));
        first_error(futures::future::join_all(answers).await)
    }
}

/// The first answer, unless any is an error; then that.
fn first_error<T>(answers: Vec<Result<Result<T, TrainerError>, AskError>>) -> Result<T, TrainerError> {
    let mut first = None;
    let mut echo = None;
    for answer in answers {
        match answer.map_err(TrainerError::from).and_then(|answer| answer) {
            Ok(answer) => first = first.or(Some(answer)),
            // The rank that failed says more than those that lost it.
            Err(error) if error.is_an_echo() => echo = echo.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    match (echo, first) {
        (Some(error), _) => Err(error),
        (None, Some(answer)) => Ok(answer),
        (None, None) => Err(TrainerError::Empty),
    }
}
