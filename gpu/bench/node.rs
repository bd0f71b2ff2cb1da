//! The ranks of one node, each on its thread.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use psyche_gpu::GpuError;
use psyche_gpu::codec::Threads;
use psyche_gpu::config::LlamaConfig;
use psyche_gpu::devices::{DeviceSpec, init_threads};
use psyche_gpu::mesh::{Topology, mesh};
use psyche_gpu::optimizer::OptimizerConfig;
use psyche_gpu::precision::PrecisionError;
use psyche_gpu::worker::{
    AdamWConfig, AdamWTrainer, ApplyPlan, Rank, RankSetup, StepDurations, StepPlan, TrainOutcome, Trained,
};

use crate::error::BenchError;
use crate::setting::Job;

/// As the peers set theirs.
const ADAMW: AdamWConfig = AdamWConfig { betas: (0.9, 0.95), weight_decay: 0.01, epsilon: 1e-8 };
const MESH_WAIT_MAX: Duration = Duration::from_secs(120);

/// What a rank can be told to do.
#[derive(Clone)]
enum Work {
    Train(StepPlan),
    Apply(ApplyPlan),
    Digest,
}

/// The state of one device, by optimiser.
enum Trainer {
    Distro(Box<Rank>),
    AdamW(Box<AdamWTrainer>),
}

/// What a rank has to say about it.
#[derive(Default)]
struct Done {
    trained: Option<Trained>,
    durations: StepDurations,
    digest: [u8; 32],
}

/// A trained step, and where its time went.
pub(crate) struct Step {
    pub(crate) trained: Trained,
    pub(crate) durations: StepDurations,
    pub(crate) train: Duration,
}

/// What a rank's thread is told, and what it says.
type Line = (SyncSender<Work>, Receiver<Result<Done, GpuError>>);

/// The threads of all ranks. Dropping it ends them.
pub(crate) struct Node {
    ranks: Vec<Line>,
    job: Job,
    vocabulary: usize,
    parameters: u64,
}

impl Node {
    /// Loads the weights on every rank.
    ///
    /// # Errors
    /// Devices that are not there, weights that don't load.
    pub(crate) fn new(job: &Job) -> Result<Self, BenchError> {
        let path = job.weights.join("config.json");
        let text = std::fs::read(&path).map_err(|source| BenchError::Io { path, source })?;
        let config = LlamaConfig::from_json(&text).map_err(GpuError::from)?;
        init_threads(job.threads);
        let topology = Topology::new(job.data_parallel, job.tensor_parallel)?;
        let devices = job.device.parse::<DeviceSpec>()?.resolve(topology.ranks())?;
        let (vocabulary, parameters) = (config.vocab_size, config.parameter_count());
        let mut ranks = Vec::with_capacity(topology.ranks());
        for (place, device) in mesh(topology, MESH_WAIT_MAX).into_iter().zip(devices) {
            let setup = RankSetup {
                mesh: place,
                device,
                config: config.clone(),
                optimizer: optimizer(),
                sequence_len: job.sequence,
                micro_batch_size: job.micro_batch,
                precision: job.precision.parse().map_err(|error: PrecisionError| BenchError::Arguments(error.to_string()))?,
                checkpointing: false,
                spikes: None,
                threads: Threads::new(job.threads),
                weights: job.weights.clone(),
            };
            ranks.push(start(setup, job.adamw));
        }
        Ok(Self { ranks, job: job.clone(), vocabulary, parameters })
    }

    /// Parameters of the model.
    pub(crate) fn parameters(&self) -> u64 {
        self.parameters
    }

    /// Trains on the tokens of step `number`.
    ///
    /// # Errors
    /// A step that does not finish.
    pub(crate) fn train(&self, number: u64) -> Result<Step, BenchError> {
        let samples = Arc::new(tokens(&self.job, self.vocabulary, number));
        let (lr, cancel) = (self.job.learning_rate, Arc::new(AtomicBool::new(false)));
        let started = Instant::now();
        let done = self.tell(&Work::Train(StepPlan { step: number, samples, lr, lr_previous: lr, cancel }))?;
        let train = started.elapsed();
        match done.trained {
            Some(trained) => Ok(Step { trained, durations: done.durations, train }),
            None => Err(GpuError::Plan { step: number, problem: "the step was skipped".to_owned() }.into()),
        }
    }

    /// Applies results to the weights.
    ///
    /// # Errors
    /// Results of another model.
    pub(crate) fn apply(&self, step: u64, payloads: &Arc<Vec<Arc<[u8]>>>) -> Result<Duration, BenchError> {
        let plan = ApplyPlan { step, lr: self.job.learning_rate, weight_decay: 0.01, payloads: Arc::clone(payloads) };
        let started = Instant::now();
        self.tell(&Work::Apply(plan))?;
        Ok(started.elapsed())
    }

    /// The digest of the weights.
    ///
    /// # Errors
    /// A broken mesh.
    pub(crate) fn digest(&self) -> Result<([u8; 32], Duration), BenchError> {
        let started = Instant::now();
        Ok((self.tell(&Work::Digest)?.digest, started.elapsed()))
    }

    /// All ranks do it; rank 0 reports.
    fn tell(&self, work: &Work) -> Result<Done, BenchError> {
        let gone = || GpuError::Plan { step: 0, problem: "a rank's thread is gone".to_owned() };
        for (commands, _) in &self.ranks {
            commands.send(work.clone()).map_err(|_| gone())?;
        }
        let answers: Vec<_> = self.ranks.iter().map(|(_, answers)| answers.recv()).collect();
        let mut done = answers.into_iter().map(|answer| answer.map_err(|_| gone())?).collect::<Result<Vec<_>, _>>()?;
        Ok(done.swap_remove(0))
    }
}

fn start(setup: RankSetup, adamw: bool) -> (SyncSender<Work>, Receiver<Result<Done, GpuError>>) {
    let (commands, inbox) = sync_channel::<Work>(1);
    let (outbox, answers) = sync_channel(1);
    std::thread::spawn(move || {
        let trainer = if adamw {
            AdamWTrainer::new(setup, ADAMW).map(|trainer| Trainer::AdamW(Box::new(trainer)))
        } else {
            Rank::new(setup).map(|rank| Trainer::Distro(Box::new(rank)))
        };
        let mut trainer = match trainer {
            Ok(trainer) => trainer,
            Err(error) => return drop(outbox.send(Err(error))),
        };
        while let Ok(work) = inbox.recv() {
            if outbox.send(carry_out(&mut trainer, &work)).is_err() {
                break;
            }
        }
    });
    (commands, answers)
}

fn carry_out(trainer: &mut Trainer, work: &Work) -> Result<Done, GpuError> {
    let trained = |outcome| match outcome {
        TrainOutcome::Trained(trained) => Done { trained: Some(trained), ..Done::default() },
        TrainOutcome::Skipped { .. } | TrainOutcome::Cancelled => Done::default(),
    };
    match (trainer, work) {
        (Trainer::Distro(rank), Work::Train(plan)) => {
            let done = trained(rank.train(plan)?);
            Ok(Done { durations: rank.durations(), ..done })
        }
        (Trainer::Distro(rank), Work::Apply(plan)) => rank.apply(plan).map(|()| Done::default()),
        (Trainer::Distro(rank), Work::Digest) => Ok(Done { digest: rank.digest()?, ..Done::default() }),
        (Trainer::AdamW(trainer), Work::Train(plan)) => Ok(trained(trainer.train(plan)?)),
        (Trainer::AdamW(_), Work::Apply(_) | Work::Digest) => Ok(Done::default()),
    }
}

/// What runs are configured with by default.
pub(crate) fn optimizer() -> OptimizerConfig {
    OptimizerConfig {
        compression_decay: 0.999,
        compression_chunk: 64,
        compression_topk: 8,
        quantize_1bit: true,
        clip_grad_norm: Some(1.0),
    }
}

/// The tokens of step `number`, the same that peers compute.
fn tokens(job: &Job, vocabulary: usize, number: u64) -> Vec<Vec<u32>> {
    let token =
        |sample: usize, position: usize| ((sample * 7919 + position * 104_729 + number as usize * 31) % vocabulary) as u32;
    (0..job.samples).map(|sample| (0..=job.sequence).map(|position| token(sample, position)).collect()).collect()
}
