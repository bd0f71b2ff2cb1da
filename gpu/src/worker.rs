//! One rank: the state of one device, and what it does at the run's command.
//!
//! # In
//! [`Rank::train`], [`Rank::apply`], [`Rank::digest`], [`Rank::snapshot`] and the rest are collective: every rank of
//! the node calls the same one with equal arguments, each on its own OS thread.
//!
//! # State and invariants
//! - The master weights change only in [`Rank::apply`], by the same bits on every node.
//! - Momentum changes only when [`Rank::train`] returns [`TrainOutcome::Trained`], and all ranks agree on the outcome.
//! - A payload does not depend on the layout of devices, up to the rounding of the gradients.
//!
//! # Failure
//! A plan that can't be carried out is refused on every rank alike and changes nothing. Any other error ends the mesh:
//! every rank gets a typed error, and the node's ranks must be made anew. Too little memory is no error as long as one
//! sample fits: the step is repeated with half the micro-batch.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tch::{Device, Tensor};

use crate::GpuError;
use crate::codec::{Threads, ValidPayload};
use crate::config::LlamaConfig;
use crate::digest;
use crate::layout::NodeLayout;
use crate::mesh::MeshRank;
use crate::model::Llama;
use crate::optimizer::{LEARNING_RATE_MAX, Optimizer, OptimizerConfig};
use crate::shim::{self, Region};
use crate::transfer;
use crate::weights::{MODEL_FILES, WeightFiles};

#[cfg(test)]
mod tests;

/// Most samples of one plan.
pub const SAMPLES_MAX: usize = 1 << 20;

/// What a rank starts with.
pub struct RankSetup {
    /// The rank's place among the node's.
    pub mesh: MeshRank,
    /// The device whose state this is.
    pub device: Device,
    /// The network.
    pub config: LlamaConfig,
    /// The run's optimiser settings.
    pub optimizer: OptimizerConfig,
    /// Inputs of the longest sample; a sample has one token more.
    pub sequence_len: usize,
    /// Samples per forward pass; halved where memory does not suffice.
    pub micro_batch_size: usize,
    /// CPU threads for the rank's optimiser.
    pub threads: Threads,
    /// Folder with the safetensors files of the initial weights.
    pub weights: PathBuf,
}

/// One step's work.
#[derive(Debug, Clone)]
pub struct StepPlan {
    /// The run's step, for messages.
    pub step: u64,
    /// Samples of equal length; inputs are all tokens but the last, labels all but the first.
    pub samples: Arc<Vec<Vec<u32>>>,
    /// Learning rate of this step.
    pub lr: f32,
    /// Learning rate of the step before, for the look-ahead.
    pub lr_previous: f32,
    /// Ends the step between two micro-batches once it is true.
    pub cancel: Arc<AtomicBool>,
}

/// Results to apply.
#[derive(Debug, Clone)]
pub struct ApplyPlan {
    /// The run's step, for messages.
    pub step: u64,
    /// Learning rate of this step.
    pub lr: f32,
    /// The weights lose `lr · weight_decay` of themselves, whether there are results or not.
    pub weight_decay: f32,
    /// The accepted results, in batch order.
    pub payloads: Arc<Vec<Arc<[u8]>>>,
}

/// How a step of training ended; equal on all ranks but for the payload.
#[derive(Debug, Clone, PartialEq)]
pub enum TrainOutcome {
    /// The momentum took in the gradient.
    Trained(Trained),
    /// The step was given up; nothing but the compute copies changed.
    Skipped {
        /// Why.
        reason: SkipReason,
    },
    /// The plan's token was set; nothing but the compute copies changed.
    Cancelled,
}

/// A finished step of training.
#[derive(Debug, Clone, PartialEq)]
pub struct Trained {
    /// The whole result, on rank 0 only.
    pub payload: Option<Vec<u8>>,
    /// Mean cross entropy per label, in nats.
    pub loss: f64,
    /// Labels trained on.
    pub tokens: u64,
    /// L2 norm of the whole gradient before clipping.
    pub gradient_norm: f64,
    /// Samples per forward pass that the device's memory held.
    pub micro_batch_size: usize,
}

/// Where the time of a rank's last finished step went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StepDurations {
    /// Looking ahead and handing the weights to the ranks that compute with them.
    pub spread: Duration,
    /// Forward and backward passes.
    pub model: Duration,
    /// Waiting for the other replicas, and adding the gradients up.
    pub collect: Duration,
    /// Momentum, transform, selection and encoding.
    pub encode: Duration,
}

/// Why a step was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SkipReason {
    /// The loss is NaN or infinite.
    LossNotFinite,
    /// The gradient is NaN, infinite, or too large to transform.
    GradientNotFinite,
}

/// Sums over the samples of one replica.
#[derive(Debug, Clone, Copy)]
struct Share {
    loss_sum: f64,
    cancelled: bool,
}

/// The state of one device.
pub struct Rank {
    mesh: MeshRank,
    layout: Arc<NodeLayout>,
    config: LlamaConfig,
    sequence_len: usize,
    micro_batch_size: usize,
    model: Llama,
    optimizer: Optimizer,
    threads: Threads,
    /// Looked-ahead weights before the backward pass, the gradient after it: this rank's flat buffer.
    scratch: Vec<f32>,
    durations: StepDurations,
    #[cfg(test)]
    out_of_memory_above: usize,
}

impl Rank {
    /// Loads the rank's pieces of the weights and makes its compute copies.
    ///
    /// # Errors
    /// Devices that the model can't be split over, settings out of range, files that don't fit the model.
    pub fn new(setup: RankSetup) -> Result<Self, GpuError> {
        let RankSetup { mesh, device, config, optimizer, sequence_len, micro_batch_size, threads, weights } = setup;
        if !(1..=config.max_position_embeddings).contains(&sequence_len) {
            let problem = format!("sequences of {sequence_len}, the model takes 1..={}", config.max_position_embeddings);
            return Err(GpuError::Layout { problem });
        }
        let layout = Arc::new(NodeLayout::new(&config, optimizer.layout(&config)?, mesh.topology())?);
        let files = WeightFiles::open(&weights, MODEL_FILES)?;
        files.check(&config)?;
        let master = files.read_pieces(layout.codec.parameters(), layout.pieces(mesh.rank()))?;
        let region = Region::new(Box::new(mesh.tensor_group()));
        let model = Llama::new(&config, sequence_len, &layout, region, device)?;
        let scratch = vec![0.0; master.len()];
        let optimizer = Optimizer::new(Arc::clone(&layout), mesh.rank(), optimizer, threads, master);
        Ok(Self {
            mesh,
            layout,
            config,
            sequence_len,
            micro_batch_size: micro_batch_size.clamp(1, SAMPLES_MAX),
            model,
            optimizer,
            threads,
            scratch,
            durations: StepDurations::default(),
            #[cfg(test)]
            out_of_memory_above: usize::MAX,
        })
    }

    /// Trains one step and makes its result.
    ///
    /// # Errors
    /// A plan that can't be carried out; a broken mesh; libtorch's errors; memory for less than one sample.
    pub fn train(&mut self, plan: &StepPlan) -> Result<TrainOutcome, GpuError> {
        self.check_samples(plan.step, &plan.samples)?;
        self.check_rates(plan.step, &[("lr", plan.lr), ("lr_previous", plan.lr_previous)])?;
        self.within_memory(plan.step, |rank| rank.attempt(plan))
    }

    /// Applies accepted results to the weights; without any, only the weight decay.
    ///
    /// # Errors
    /// A rate out of range or a malformed payload, before anything changed.
    pub fn apply(&mut self, plan: &ApplyPlan) -> Result<(), GpuError> {
        self.check_rates(plan.step, &[("lr", plan.lr), ("weight_decay", plan.weight_decay)])?;
        let layout = Arc::clone(&self.layout);
        let valid = plan.payloads.iter().map(|bytes| layout.codec.validate(bytes));
        let valid = valid.collect::<Result<Vec<ValidPayload<'_>>, _>>()?;
        self.optimizer.apply(&valid, plan.lr, plan.weight_decay).map_err(|error| self.broken(error))
    }

    /// Mean cross entropy per label over `samples`, with the weights as applied so far.
    ///
    /// # Errors
    /// As [`Rank::train`].
    pub fn evaluate(&mut self, step: u64, samples: &[Vec<u32>]) -> Result<f64, GpuError> {
        self.check_samples(step, samples)?;
        let total = tokens_of(samples);
        let never = AtomicBool::new(false);
        self.within_memory(step, |rank| {
            transfer::spread(&rank.mesh, &rank.layout, rank.optimizer.master(), rank.model.parameters())?;
            let share = tch::no_grad(|| rank.micro_batches(samples, &never, |_, _| Ok(())))?;
            Ok(rank.sum_over_replicas(share)?.loss_sum / total as f64)
        })
    }

    /// The digest of the weights: equal on all ranks, and on all nodes whose weights have the same bits.
    ///
    /// # Errors
    /// A broken mesh.
    pub fn digest(&mut self) -> Result<[u8; 32], GpuError> {
        let codec = &self.layout.codec;
        let own = self.layout.pieces(self.mesh.rank()).iter().map(|piece| {
            let rows = &self.optimizer.master()[piece.at.clone()];
            Ok((piece.part.clone(), digest::block_digests(codec, &piece.part, rows, self.threads)?))
        });
        let own = own.collect::<Result<Vec<_>, GpuError>>().map_err(|error| self.broken(error))?;
        let all: Vec<_> = self.mesh.exchange(&own, |all| all.iter().flat_map(|own| own.iter().cloned()).collect())?;
        Ok(digest::combine(&digest::parameter_digests(codec, &all)?))
    }

    /// Forgets all momentum, as at the start of a run.
    pub fn reset_momentum(&mut self) {
        self.optimizer.reset_momentum();
    }

    /// The network.
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// Samples per forward pass that the device's memory has held so far.
    pub fn micro_batch_size(&self) -> usize {
        self.micro_batch_size
    }

    /// Where the time of the last finished step went.
    pub fn durations(&self) -> StepDurations {
        self.durations
    }

    /// What snapshots are made of.
    pub(crate) fn state(&mut self) -> (&MeshRank, &NodeLayout, &mut Optimizer) {
        (&self.mesh, &self.layout, &mut self.optimizer)
    }

    /// Ends the mesh, because this rank can't go on, and passes the error on.
    pub(crate) fn broken(&self, error: GpuError) -> GpuError {
        self.mesh.fail(&error.to_string());
        error
    }

    /// Repeats `attempt` with ever smaller micro-batches until no rank runs out of memory.
    ///
    /// Other errors end the mesh.
    fn within_memory<R>(&mut self, step: u64, attempt: impl Fn(&mut Self) -> Result<R, GpuError>) -> Result<R, GpuError> {
        loop {
            let rank = match attempt(self) {
                Ok(result) => return Ok(result),
                Err(GpuError::OutOfMemory { rank }) => {
                    self.mesh.abort();
                    rank
                }
                Err(GpuError::MeshAborted { rank }) => rank,
                Err(error) => return Err(self.broken(error)),
            };
            self.mesh.rejoin()?;
            if self.micro_batch_size == 1 {
                return Err(GpuError::OutOfMemory { rank });
            }
            self.micro_batch_size /= 2;
            let micro_batch_size = self.micro_batch_size;
            tracing::warn!(step, rank, micro_batch_size, "halved the micro-batch for lack of memory");
        }
    }

    /// Everything of a step that may have to be repeated, and then what may not.
    fn attempt(&mut self, plan: &StepPlan) -> Result<TrainOutcome, GpuError> {
        let mut lap = laps();
        self.optimizer.look_ahead(plan.lr_previous, &mut self.scratch);
        transfer::spread(&self.mesh, &self.layout, &self.scratch, self.model.parameters())?;
        self.model.zero_gradients();
        let spread = lap();
        let tokens = tokens_of(&plan.samples);
        let scale = 1.0 / tokens as f64;
        let share = self.micro_batches(&plan.samples, &plan.cancel, |model, loss| model.backward(loss, scale))?;
        let model = lap();
        let total = self.sum_over_replicas(share)?;
        if total.cancelled {
            return Ok(TrainOutcome::Cancelled);
        }
        if !total.loss_sum.is_finite() {
            return Ok(TrainOutcome::Skipped { reason: SkipReason::LossNotFinite });
        }
        transfer::collect(&self.mesh, &self.layout, &self.model.gradients()?, &mut self.scratch)?;
        let gradient_norm = self.gradient_norm()?;
        let Some(scale) = self.optimizer.gradient_scale(gradient_norm) else {
            return Ok(TrainOutcome::Skipped { reason: SkipReason::GradientNotFinite });
        };
        let collect = lap();
        let encoded = self.optimizer.step(&self.scratch, scale, plan.lr)?;
        let payload = self.assemble(&encoded)?;
        self.durations = StepDurations { spread, model, collect, encode: lap() };
        Ok(TrainOutcome::Trained(Trained {
            payload,
            loss: total.loss_sum / tokens as f64,
            tokens,
            gradient_norm,
            micro_batch_size: self.micro_batch_size,
        }))
    }

    /// Runs this replica's samples through the model and gives each micro-batch's loss to `use_loss`.
    fn micro_batches(
        &mut self,
        samples: &[Vec<u32>],
        cancel: &AtomicBool,
        use_loss: impl Fn(&Llama, &Tensor) -> Result<(), GpuError>,
    ) -> Result<Share, GpuError> {
        let (index, replicas) = (self.mesh.data_index(), self.mesh.topology().data_parallel());
        let mine = &samples[samples.len() * index / replicas..samples.len() * (index + 1) / replicas];
        let mut share = Share { loss_sum: 0.0, cancelled: false };
        for batch in mine.chunks(self.micro_batch_size) {
            let cancelled = self.mesh.agree_in_tensor_group(cancel.load(Ordering::Relaxed))?;
            if cancelled.contains(&true) {
                share.cancelled = true;
                break;
            }
            let before = shim::out_of_memory_count(self.model.device())?;
            let loss = self.micro_batch(batch, &use_loss);
            if loss.is_err() && shim::out_of_memory_count(self.model.device())? > before {
                return Err(GpuError::OutOfMemory { rank: self.mesh.rank() });
            }
            share.loss_sum += loss?;
        }
        Ok(share)
    }

    fn micro_batch(
        &self,
        batch: &[Vec<u32>],
        use_loss: impl Fn(&Llama, &Tensor) -> Result<(), GpuError>,
    ) -> Result<f64, GpuError> {
        #[cfg(test)]
        if batch.len() > self.out_of_memory_above {
            return Err(GpuError::OutOfMemory { rank: self.mesh.rank() });
        }
        let length = batch.first().map_or(0, Vec::len) as i64;
        let tokens: Vec<i64> = batch.iter().flatten().map(|&token| i64::from(token)).collect();
        let tokens = Tensor::f_from_slice(&tokens)?.f_view([batch.len() as i64, length])?;
        let tokens = tokens.f_to_device(self.model.device())?;
        let inputs = tokens.f_narrow(1, 0, length - 1)?;
        let labels = tokens.f_narrow(1, 1, length - 1)?;
        let loss = self.model.loss_sum(&inputs, &labels)?;
        use_loss(&self.model, &loss)?;
        Ok(loss.f_double_value(&[])?)
    }

    /// Adds the replicas' shares in their order; the ranks of one replica have equal ones.
    fn sum_over_replicas(&self, share: Share) -> Result<Share, GpuError> {
        let shares = self.mesh.agree(share)?;
        let replicas = || shares.iter().step_by(self.mesh.topology().tensor_parallel());
        Ok(Share { loss_sum: replicas().map(|share| share.loss_sum).sum(), cancelled: replicas().any(|share| share.cancelled) })
    }

    /// L2 norm of the gradient of which every rank now holds its pieces.
    fn gradient_norm(&self) -> Result<f64, GpuError> {
        let own: f64 = self.scratch.iter().map(|&g| f64::from(g) * f64::from(g)).sum();
        Ok(self.mesh.agree(own)?.iter().sum::<f64>().sqrt())
    }

    /// Strings the ranks' bytes together, on rank 0.
    fn assemble(&self, encoded: &Vec<Vec<u8>>) -> Result<Option<Vec<u8>>, GpuError> {
        let payload = self.mesh.exchange(encoded, |all| {
            (self.mesh.rank() == 0).then(|| {
                let ranks = all.iter().enumerate();
                let parts: Vec<_> = ranks
                    .flat_map(|(rank, bytes)| self.layout.pieces(rank).iter().zip(bytes.iter()))
                    .map(|(piece, bytes)| (piece.part.clone(), bytes))
                    .collect();
                self.layout.codec.assemble(&parts)
            })
        })?;
        Ok(payload.transpose()?)
    }

    fn check_samples(&self, step: u64, samples: &[Vec<u32>]) -> Result<(), GpuError> {
        let refuse = |problem: String| Err(GpuError::Plan { step, problem });
        let Some(first) = samples.first() else { return refuse("it has no samples".to_owned()) };
        if samples.len() > SAMPLES_MAX {
            return refuse(format!("{} samples, the limit is {SAMPLES_MAX}", samples.len()));
        }
        if !(2..=self.sequence_len + 1).contains(&first.len()) {
            return refuse(format!("samples of {} tokens, not 2..={}", first.len(), self.sequence_len + 1));
        }
        if let Some(other) = samples.iter().find(|sample| sample.len() != first.len()) {
            return refuse(format!("samples of {} and of {} tokens", first.len(), other.len()));
        }
        let vocabulary = self.config.vocab_size;
        match samples.iter().flatten().find(|&&token| token as usize >= vocabulary) {
            Some(token) => refuse(format!("token {token} is not in the vocabulary of {vocabulary}")),
            None => Ok(()),
        }
    }

    fn check_rates(&self, step: u64, rates: &[(&str, f32)]) -> Result<(), GpuError> {
        match rates.iter().find(|(_, rate)| !(0.0..=LEARNING_RATE_MAX).contains(rate)) {
            Some((name, rate)) => {
                Err(GpuError::Plan { step, problem: format!("{name} {rate} is not in 0..={LEARNING_RATE_MAX}") })
            }
            None => Ok(()),
        }
    }
}

/// A clock that returns the time since it was last read.
fn laps() -> impl FnMut() -> Duration {
    let mut last = Instant::now();
    move || {
        let now = Instant::now();
        now - std::mem::replace(&mut last, now)
    }
}

/// Labels of samples of equal length.
fn tokens_of(samples: &[Vec<u32>]) -> u64 {
    samples.iter().map(|sample| sample.len() as u64 - 1).sum()
}
