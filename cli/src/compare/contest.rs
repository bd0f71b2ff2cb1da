//! One run of one contestant: the same model, the same samples, one optimizer.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use psyche_data::TokenSource;
use psyche_gpu::codec::Threads;
use psyche_gpu::config::LlamaConfig;
use psyche_gpu::devices::DeviceSpec;
use psyche_gpu::exact::LrSchedule;
use psyche_gpu::mesh::{Topology, mesh};
use psyche_gpu::optimizer::OptimizerConfig;
use psyche_gpu::precision::Precision;
use psyche_gpu::worker::{AdamWConfig, AdamWTrainer, ApplyPlan, Rank, RankSetup, StepPlan, TrainOutcome, Trained};
use psyche_messages::BatchInterval;

use crate::commands::failed_to;

/// How often the held-out samples are asked, in a run.
const EVALUATIONS: u32 = 20;
/// Samples that take part in a forward pass together.
const MICRO_BATCH: usize = 16;

/// Who runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Contestant {
    /// AdamW on the whole batch.
    AdamW {
        /// Its highest learning rate.
        lr: f32,
    },
    /// DisTrO with that many nodes, each training its part of the batch.
    Distro {
        /// The nodes.
        senders: u16,
        /// Its highest learning rate.
        lr: f32,
    },
}

impl Contestant {
    /// Its name in tables, without the learning rate.
    pub(crate) fn name(self) -> String {
        match self {
            Self::AdamW { .. } => "AdamW".to_owned(),
            Self::Distro { senders: 1, .. } => "DisTrO, 1 sender".to_owned(),
            Self::Distro { senders, .. } => format!("DisTrO, {senders} senders"),
        }
    }

    /// Its highest learning rate.
    pub(crate) const fn lr(self) -> f32 {
        match self {
            Self::AdamW { lr } | Self::Distro { lr, .. } => lr,
        }
    }
}

/// What all contestants of a seed share.
pub(crate) struct Course<'a> {
    /// The model.
    pub(crate) config: &'a LlamaConfig,
    /// Its initial weights.
    pub(crate) weights: PathBuf,
    /// What is trained on.
    pub(crate) samples: &'a TokenSource,
    /// Where this seed begins to read.
    pub(crate) first_sample: u64,
    /// What the loss is asked of.
    pub(crate) held_out: &'a [Vec<u32>],
    /// Steps of the run.
    pub(crate) steps: u32,
    /// Samples of a step.
    pub(crate) batch: u16,
    /// DisTrO's settings.
    pub(crate) distro: OptimizerConfig,
    /// Steps between a result and its application.
    pub(crate) delay: u16,
}

/// A loss along the way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Point {
    /// Steps done.
    pub(crate) step: u32,
    /// Tokens trained on.
    pub(crate) tokens: u64,
    /// Loss on the samples of the last step, before it.
    pub(crate) training: f64,
    /// Loss on the held-out samples, after it.
    pub(crate) held_out: f64,
}

impl Course<'_> {
    /// Runs `contestant` to the end.
    ///
    /// # Errors
    /// What the files or the devices refuse, and steps that are skipped: a comparison with holes is none.
    pub(crate) fn run(&self, contestant: Contestant) -> Result<Vec<Point>> {
        let schedule = self.schedule(contestant.lr());
        schedule.validate().map_err(failed_to)?;
        match contestant {
            Contestant::AdamW { .. } => self.adamw(schedule),
            Contestant::Distro { senders, .. } => self.distro(schedule, senders),
        }
    }

    fn adamw(&self, schedule: LrSchedule) -> Result<Vec<Point>> {
        let mut trainer = AdamWTrainer::new(self.setup(&self.weights)?, AdamWConfig::default()).map_err(failed_to)?;
        let mut points = Vec::new();
        for step in 0..self.steps {
            let samples = self.batch(step, 0, 1)?;
            let lr = schedule.rate(step, None);
            let training = trainer.train(&plan(step, samples, lr, lr)).map_err(failed_to)?;
            let TrainOutcome::Trained(Trained { loss, .. }) = training else {
                bail!("step {step} was not trained: {training:?}")
            };
            if self.is_asked(step) {
                points.push(self.point(step, loss, trainer.evaluate(u64::from(step), self.held_out).map_err(failed_to)?));
            }
        }
        Ok(points)
    }

    fn distro(&self, schedule: LrSchedule, senders: u16) -> Result<Vec<Point>> {
        if senders == 0 || !self.batch.is_multiple_of(senders) {
            bail!("{} samples a step are not divisible by {senders} senders", self.batch);
        }
        let mut nodes = (0..senders).map(|_| self.node()).collect::<Result<Vec<_>>>()?;
        let (mut points, mut waiting) = (Vec::new(), VecDeque::new());
        for step in 0..self.steps {
            if waiting.len() > usize::from(self.delay) {
                apply(&mut nodes, waiting.pop_front())?;
            }
            let (lr, lr_previous) = (schedule.rate(step, None), schedule.rate(step.saturating_sub(1), None));
            let (mut loss, mut payloads) = (0.0, Vec::new());
            for (index, node) in (0..senders).zip(&mut nodes) {
                let plan = plan(step, self.batch(step, index, senders)?, lr, lr_previous);
                let outcome = node.train(&plan).map_err(failed_to)?;
                let TrainOutcome::Trained(trained) = outcome else { bail!("step {step} was not trained: {outcome:?}") };
                loss += trained.loss / f64::from(senders);
                payloads.push(Arc::from(trained.payload.context("a node of one device made no result")?));
            }
            waiting.push_back(ApplyPlan { step: u64::from(step), lr, weight_decay: 0.0, payloads: Arc::new(payloads) });
            if step + 1 == self.steps {
                waiting.drain(..).try_for_each(|results| apply(&mut nodes, Some(results)))?;
            }
            if self.is_asked(step) {
                // All nodes have the same weights, to the bit.
                let held_out = nodes[0].evaluate(u64::from(step), self.held_out).map_err(failed_to)?;
                points.push(self.point(step, loss, held_out));
            }
        }
        let digests = nodes.iter_mut().map(Rank::digest).collect::<Result<Vec<_>, _>>().map_err(failed_to)?;
        if digests.iter().any(|digest| *digest != digests[0]) {
            bail!("the senders ended with different weights");
        }
        Ok(points)
    }

    fn node(&self) -> Result<Rank> {
        Rank::new(self.setup(&self.weights)?).map_err(failed_to)
    }

    fn setup(&self, weights: &Path) -> Result<RankSetup> {
        alone(self.config, self.distro, self.samples.seq_len() as usize, weights)
    }

    /// A cosine from the highest rate to a tenth of it, after a short warmup; the same for everybody.
    fn schedule(&self, lr: f32) -> LrSchedule {
        let base = f64::from(lr);
        let warmup_steps = self.steps / 20;
        LrSchedule::Cosine { base, warmup_init: 0.0, final_rate: 0.1 * base, warmup_steps, total_steps: self.steps }
    }

    /// The samples of part `part` of `parts` of a step.
    fn batch(&self, step: u32, part: u16, parts: u16) -> Result<Arc<Vec<Vec<u32>>>> {
        let share = u64::from(self.batch / parts);
        let start = self.first_sample + u64::from(step) * u64::from(self.batch) + u64::from(part) * share;
        let interval = BatchInterval::new(start, start + share - 1).context("an empty part of a batch")?;
        Ok(Arc::new(self.samples.samples(interval).map_err(failed_to)?))
    }

    fn is_asked(&self, step: u32) -> bool {
        (step + 1).is_multiple_of((self.steps / EVALUATIONS).max(1)) || step + 1 == self.steps
    }

    fn point(&self, step: u32, training: f64, held_out: f64) -> Point {
        let tokens = u64::from(step + 1) * u64::from(self.batch) * u64::from(self.samples.seq_len());
        Point { step: step + 1, tokens, training, held_out }
    }
}

/// What one CPU device starts with that trains a model alone.
///
/// # Errors
/// If this machine has no such device.
pub(crate) fn alone(
    config: &LlamaConfig,
    optimizer: OptimizerConfig,
    sequence_len: usize,
    weights: &Path,
) -> Result<RankSetup> {
    let topology = Topology::new(1, 1).map_err(failed_to)?;
    let mesh = mesh(topology, Duration::from_secs(600)).into_iter().next().context("a mesh without ranks")?;
    let device = DeviceSpec::Cpu(None).resolve(1).map_err(failed_to)?.into_iter().next().context("no device")?;
    Ok(RankSetup {
        mesh,
        device,
        config: config.clone(),
        optimizer,
        sequence_len,
        micro_batch_size: MICRO_BATCH,
        precision: Precision::F32,
        checkpointing: false,
        spikes: None,
        threads: Threads::ONE,
        weights: weights.to_owned(),
    })
}

fn apply(nodes: &mut [Rank], results: Option<ApplyPlan>) -> Result<()> {
    let Some(results) = results else { return Ok(()) };
    nodes.iter_mut().try_for_each(|node| node.apply(&results).map_err(failed_to))
}

fn plan(step: u32, samples: Arc<Vec<Vec<u32>>>, lr: f32, lr_previous: f32) -> StepPlan {
    StepPlan { step: u64::from(step), samples, lr, lr_previous, cancel: Arc::new(AtomicBool::new(false)) }
}
