//! The device queue: carries the engine's device commands out one after another, and reports each outcome.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use psyche_data::TokenSource;
use psyche_gpu::GpuError;
use psyche_gpu::snapshot::{SnapshotError as Stale, SnapshotLabel, SnapshotStore};
use psyche_gpu::worker::{ApplyPlan, StepPlan, TrainOutcome};
use psyche_messages::events::ModelSource;
use psyche_messages::{BatchInterval, BlobHash, Digest, PeerKey, ResultAnnounced, RoundKey, Step};
use thiserror::Error;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, mpsc};

use super::plan::RunPlan;
use super::snapshots::{SnapshotError, Snapshots, on_disk};
use super::{Happened, RunLink};
use crate::chain_of;
use crate::engine::{Event, LoadFrom, StepSchedule};
use crate::gossip::{GradientGossip, ReadBlob, StoreBlob};
use crate::supervisor::{AskError, Supervised};
use crate::trainer::{ApplyResults, CaptureState, DeviceMesh, GetDigest, LoadSource, ResetMomentum, TrainBatch, TrainerError};

#[cfg(test)]
mod tests;

/// Commands that may wait. The engine has at most one of each kind under way for each of the rounds in flight.
const COMMANDS_MAX: usize = 64;

/// Something for the devices to do.
#[derive(Debug)]
pub(super) enum DeviceCommand {
    /// Replace the parameters.
    Load { step: Step, from: LoadFrom },
    /// Forget the momentum.
    ResetMomentum,
    /// Train a batch.
    Train { round: RoundKey, batch: BatchInterval, schedule: StepSchedule },
    /// Apply results.
    Apply { round: RoundKey, results: Vec<ResultAnnounced>, schedule: StepSchedule },
    /// Write and serve a snapshot.
    Snapshot { round: RoundKey },
}

impl DeviceCommand {
    /// The event that says that the command could not be carried out; `None` where the engine awaits none.
    pub(super) fn failure(self, reason: &str) -> Option<Event> {
        let reason = reason.to_owned();
        match self {
            Self::Load { .. } => Some(Event::ModelLoadFailed { reason }),
            Self::ResetMomentum => None,
            Self::Train { round, .. } => Some(Event::TrainingSkipped { round, reason }),
            Self::Apply { round, .. } => Some(Event::ApplyFailed { round, reason }),
            Self::Snapshot { round } => Some(Event::SnapshotFailed { round, reason }),
        }
    }
}

/// Why a device command failed.
#[derive(Debug, Error)]
pub(super) enum DeviceError {
    #[error(transparent)]
    Trainer(#[from] TrainerError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error(transparent)]
    Data(#[from] psyche_data::DataError),
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("store the payload")]
    Store(#[source] psyche_net::NetError),
    #[error("find the payload {}", .0.short())]
    NoPayload(BlobHash),
    #[error("find a payload on rank 0")]
    NoResult,
    #[error("find the copied state on rank 0")]
    NoState,
}

/// The way to the devices. Cheap to clone.
#[derive(Clone)]
pub struct DeviceQueue {
    commands: mpsc::Sender<DeviceCommand>,
    shared: Arc<Shared>,
    snapshots: Arc<AsyncMutex<Snapshots>>,
}

type Shared = Mutex<Training>;

/// What is being trained, and what must not be.
#[derive(Default)]
struct Training {
    current: Option<(RoundKey, Arc<AtomicBool>)>,
    cancelled: Option<RoundKey>,
    /// The node stops: nothing is trained any more.
    stops: bool,
}

/// What the devices need beside commands.
pub struct DeviceParts {
    /// The workers.
    pub mesh: DeviceMesh,
    /// What the run trains.
    pub plan: Arc<RunPlan>,
    /// The tokens.
    pub data: TokenSource,
    /// The blobs.
    pub gossip: Supervised<GradientGossip>,
    /// This node's snapshots.
    pub snapshots: Arc<SnapshotStore>,
    /// Who hears of outcomes.
    pub run: RunLink,
}

impl DeviceQueue {
    /// Starts the queue. Needs a tokio runtime, on which it runs until every handle is dropped.
    #[must_use]
    pub fn start(parts: DeviceParts) -> Self {
        let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
        let shared = Arc::new(Shared::default());
        let worker = Worker::new(parts, Arc::clone(&shared));
        let snapshots = Arc::clone(&worker.snapshots);
        drop(tokio::spawn(worker.serve(inbox)));
        Self { commands, shared, snapshots }
    }

    pub(super) fn push(&self, command: DeviceCommand) -> Result<(), DeviceCommand> {
        self.commands.try_send(command).map_err(|refused| refused.into_inner())
    }

    /// Stops training `round`, now or as soon as its turn comes.
    pub(super) fn cancel(&self, round: RoundKey) {
        let mut training = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        training.cancelled = Some(round);
        if let Some((current, cancel)) = &training.current
            && *current == round
        {
            cancel.store(true, Ordering::Relaxed);
        }
    }

    /// Has the devices finish the micro-batch and train no more, and waits for the snapshot that is being written.
    pub(crate) async fn settle(&self) {
        let current = {
            let mut training = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
            training.stops = true;
            training.current.as_ref().map(|(round, _)| *round)
        };
        if let Some(round) = current {
            self.cancel(round);
        }
        drop(self.snapshots.lock().await);
    }
}

struct Worker {
    mesh: DeviceMesh,
    plan: Arc<RunPlan>,
    data: TokenSource,
    gossip: Supervised<GradientGossip>,
    /// Held while one is being written, so that there is one at a time, and loads wait for it.
    snapshots: Arc<AsyncMutex<Snapshots>>,
    shared: Arc<Shared>,
    run: RunLink,
    /// The learning rate of the step trained last, for the look-ahead.
    last_rate: f32,
}

impl Worker {
    fn new(parts: DeviceParts, shared: Arc<Shared>) -> Self {
        let snapshots = Snapshots::new(parts.snapshots, parts.gossip.clone(), parts.plan.model.parameter_count());
        Self {
            mesh: parts.mesh,
            plan: parts.plan,
            data: parts.data,
            gossip: parts.gossip,
            snapshots: Arc::new(AsyncMutex::new(snapshots)),
            shared,
            run: parts.run,
            last_rate: 0.0,
        }
    }

    async fn serve(mut self, mut inbox: mpsc::Receiver<DeviceCommand>) {
        while let Some(command) = inbox.recv().await {
            let event = self.carry_out(command).await;
            if let Some(event) = event {
                self.run.tell(Happened(event)).await;
            }
        }
    }

    async fn carry_out(&mut self, command: DeviceCommand) -> Option<Event> {
        let outcome = match &command {
            DeviceCommand::Load { step, from } => self.load(*step, from).await.map(Some),
            DeviceCommand::ResetMomentum => self.mesh.all(ResetMomentum).await.map(|()| None).map_err(DeviceError::from),
            DeviceCommand::Train { round, batch, schedule } => self.train(*round, *batch, *schedule).await.map(Some),
            DeviceCommand::Apply { round, results, schedule } => self.apply(*round, results, *schedule).await.map(Some),
            DeviceCommand::Snapshot { round } => self.snapshot(*round).await.map(|writing| {
                drop(tokio::spawn(writing));
                None
            }),
        };
        match outcome {
            Ok(event) => event,
            Err(error) => {
                let reason = chain_of(&error);
                tracing::warn!(actor = "devices", ?command, error = %reason, "a device command failed");
                command.failure(&reason)
            }
        }
    }

    async fn load(&mut self, step: Step, from: &LoadFrom) -> Result<Event, DeviceError> {
        // Waits for the snapshot that is being written, whose outcome comes before that of this load.
        let snapshots = Arc::clone(&self.snapshots).lock_owned().await;
        let loaded = self.load_from(&snapshots, step, from).await;
        if let (LoadFrom::Disk, Err(_)) = (from, &loaded) {
            let newest = snapshots.newest().await?;
            self.run.tell(Happened(Event::DiskSnapshotChanged(newest.as_ref().map(on_disk)))).await;
        }
        loaded
    }

    async fn load_from(
        &mut self,
        snapshots: &OwnedMutexGuard<Snapshots>,
        step: Step,
        from: &LoadFrom,
    ) -> Result<Event, DeviceError> {
        let (load, source) = match from {
            LoadFrom::Checkpoint => {
                let folder = self.plan.checkpoint.clone();
                (LoadSource::Folder { folder, digest: None }, ModelSource::Checkpoint)
            }
            LoadFrom::Disk => (LoadSource::Snapshot(snapshots.verified(step, None).await?), ModelSource::Disk),
            LoadFrom::Peers { index, len, digest, providers } => {
                from_peers(snapshots, step, (*index, *len), *digest, providers).await?
            }
        };
        let look_ahead = match &load {
            LoadSource::Snapshot(verified) => verified.stored().manifest.look_ahead_lr(),
            LoadSource::Folder { .. } => 0.0,
        };
        let loaded = self.mesh.load(Arc::clone(&self.plan), load.clone()).await;
        if source == ModelSource::Peers {
            snapshots.forget_fetched();
        }
        match (loaded, load) {
            (Ok(digest), _) => {
                self.last_rate = look_ahead;
                Ok(Event::ModelLoaded { step, digest, source })
            }
            (Err(TrainerError::Gpu(GpuError::Snapshot(error))), LoadSource::Snapshot(verified)) if error.is_damage() => {
                snapshots.refuse(verified.stored().clone()).await;
                Err(SnapshotError::from(error).into())
            }
            (Err(TrainerError::Gpu(GpuError::Snapshot(Stale::Refuted { found, expected, .. }))), _) => {
                let (found, announced) = (found.short(), expected.short());
                tracing::warn!(actor = "devices", %step, found, announced, "the parameters are not the announced ones");
                Ok(Event::ModelRefuted { step })
            }
            (Err(error), _) => Err(error.into()),
        }
    }

    async fn train(&mut self, round: RoundKey, batch: BatchInterval, schedule: StepSchedule) -> Result<Event, DeviceError> {
        let Some(cancel) = self.begin(round) else {
            return Ok(Event::TrainingSkipped { round, reason: "cancelled before it began".into() });
        };
        let samples = Arc::new(self.data.samples(batch)?);
        let lr = self.plan.rate(round.step, &schedule);
        let plan = StepPlan { step: u64::from(round.step.0), samples, lr, lr_previous: self.last_rate, cancel };
        let began = Instant::now();
        let outcome = self.mesh.all(TrainBatch(Arc::new(plan))).await;
        self.end();
        let skipped = |reason: &str| Event::TrainingSkipped { round, reason: reason.to_owned() };
        let trained = match outcome? {
            TrainOutcome::Trained(trained) => trained,
            TrainOutcome::Cancelled => return Ok(skipped("cancelled")),
            TrainOutcome::Skipped { reason } => return Ok(skipped(&reason.to_string())),
        };
        self.last_rate = lr;
        self.mesh.remember_micro_batch(trained.micro_batch_size);
        let bytes = trained.payload.ok_or(DeviceError::NoResult)?;
        let payload_len = u32::try_from(bytes.len()).map_err(|_| DeviceError::NoResult)?;
        let stored = self.gossip.ask(StoreBlob { bytes, round: Some(round) }).await?;
        let payload = stored.map_err(DeviceError::Store)?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "figures for people")]
        let (loss, tokens_per_second) =
            (trained.loss as f32, (trained.tokens as f64 / began.elapsed().as_secs_f64().max(1e-9)) as f32);
        Ok(Event::Trained { round, payload, payload_len, loss, tokens_per_second })
    }

    /// The token that cancels `round`; `None` if it is cancelled already.
    fn begin(&self, round: RoundKey) -> Option<Arc<AtomicBool>> {
        let mut training = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if training.stops || training.cancelled == Some(round) {
            return None;
        }
        let cancel = Arc::new(AtomicBool::new(false));
        training.current = Some((round, Arc::clone(&cancel)));
        Some(cancel)
    }

    fn end(&self) {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).current = None;
    }

    async fn apply(
        &mut self,
        round: RoundKey,
        results: &[ResultAnnounced],
        schedule: StepSchedule,
    ) -> Result<Event, DeviceError> {
        let mut payloads = Vec::with_capacity(results.len());
        for result in results {
            let bytes = self.gossip.ask(ReadBlob(result.payload)).await?.ok_or(DeviceError::NoPayload(result.payload))?;
            payloads.push(Arc::from(bytes));
        }
        let plan = ApplyPlan {
            step: u64::from(round.step.0),
            lr: self.plan.rate(round.step, &schedule),
            weight_decay: self.plan.distro.weight_decay.unwrap_or(0.0),
            payloads: Arc::new(payloads),
        };
        self.mesh.all(ApplyResults(Arc::new(plan))).await?;
        let digest = self.mesh.all(GetDigest).await?;
        Ok(Event::Applied { round, digest })
    }

    /// Copies the state; it is written while the devices go on, and the outcome told to the run.
    async fn snapshot(&mut self, round: RoundKey) -> Result<impl Future<Output = Event> + Send + use<>, DeviceError> {
        let mut snapshots = Arc::clone(&self.snapshots).lock_owned().await;
        let captured = self.mesh.all(CaptureState).await?.ok_or(DeviceError::NoState)?;
        let label = SnapshotLabel { round, look_ahead_lr: self.last_rate };
        let run = self.run.clone();
        Ok(async move {
            let event = match snapshots.save(captured, label).await {
                Ok(announced) => Event::SnapshotReady(announced),
                Err(error) => {
                    let reason = chain_of(&error);
                    tracing::warn!(actor = "devices", %round, error = %reason, "a snapshot could not be saved");
                    Event::SnapshotFailed { round, reason }
                }
            };
            run.tell(Happened(event.clone())).await;
            // Only now may the next command for snapshots go on.
            drop(snapshots);
            event
        })
    }
}

/// The parameters that peers announced: this node's own snapshot of them if it has one, with its momentum; otherwise
/// theirs.
async fn from_peers(
    snapshots: &Snapshots,
    step: Step,
    (index, len): (BlobHash, u32),
    digest: Digest,
    providers: &[PeerKey],
) -> Result<(LoadSource, ModelSource), SnapshotError> {
    match snapshots.verified(step, Some(digest)).await {
        Ok(own) => return Ok((LoadSource::Snapshot(own), ModelSource::Disk)),
        Err(SnapshotError::None { .. }) => {}
        Err(error) => tracing::warn!(actor = "devices", error = %chain_of(&error), "this node's own snapshot can't be used"),
    }
    let folder = snapshots.fetch(index, len, providers).await?;
    Ok((LoadSource::Folder { folder, digest: Some(digest) }, ModelSource::Peers))
}
