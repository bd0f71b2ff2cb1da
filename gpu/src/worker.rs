//! One rank: the state of one device, and what it does at the run's command.
//!
//! # In
//! [`Rank::train`], [`Rank::apply`], [`Rank::digest`], [`Rank::capture`] and the rest are collective: every rank of
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

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use tch::Device;

use crate::GpuError;
use crate::codec::{Part, Threads, ValidPayload};
use crate::config::LlamaConfig;
use crate::digest::{self, BlockDigest};
use crate::flat::Flat;
use crate::layout::NodeLayout;
use crate::mesh::{Group, MeshRank};
use crate::model::{Llama, ModelOptions};
use crate::optimizer::{Optimizer, OptimizerConfig, Store, store_of};
use crate::precision::Precision;
use crate::shim::{self, Region};
use crate::transfer;
use crate::weights::{MODEL_FILES, WeightFiles};
use plan::{check_rates, check_samples, tokens_of};
use spike::SpikeGuard;
use step::laps;

mod adamw;
mod inspect;
mod memory;
mod plan;
mod spike;
mod step;
#[cfg(test)]
mod tests;

pub use crate::shim::MemoryUse;
pub use adamw::{AdamWConfig, AdamWTrainer};
pub use plan::{ApplyPlan, SAMPLES_MAX, SkipReason, StepDurations, StepPlan, TrainOutcome, Trained};
pub use spike::{ACCEPTED_MIN, SpikeRule};

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
    /// Element type of the compute copies and activations.
    pub precision: Precision,
    /// Whether layers run again in the backward pass instead of keeping what they computed.
    pub checkpointing: bool,
    /// Which losses are spikes, whose steps are skipped; none never are.
    pub spikes: Option<SpikeRule>,
    /// CPU threads for the rank's optimiser.
    pub threads: Threads,
    /// Folder with the safetensors files of the initial weights.
    pub weights: PathBuf,
}

/// The state of one device.
pub struct Rank {
    mesh: MeshRank,
    layout: Arc<NodeLayout>,
    config: LlamaConfig,
    sequence_len: usize,
    micro_batch_size: usize,
    spikes: SpikeGuard,
    model: Llama,
    optimizer: Optimizer,
    threads: Threads,
    /// Looked-ahead weights before the backward pass, the gradient after it: this rank's flat buffer.
    scratch: Flat,
    durations: StepDurations,
    #[cfg(test)]
    out_of_memory_above: usize,
    /// Called with the number of each micro-batch of a step that is done.
    #[cfg(test)]
    after_micro_batch: Option<Box<dyn Fn(usize) + Send>>,
}

impl Rank {
    /// Loads the rank's pieces of the weights and makes its compute copies.
    ///
    /// # Errors
    /// Devices that the model can't be split over, settings out of range, files that don't fit the model.
    pub fn new(setup: RankSetup) -> Result<Self, GpuError> {
        let store = store_of(setup.device, setup.threads);
        Self::with_store(setup, store)
    }

    /// As [`Rank::new`], with the optimiser's state in `store`.
    pub(crate) fn with_store(setup: RankSetup, store: Box<dyn Store>) -> Result<Self, GpuError> {
        let RankSetup { mesh, device, config, optimizer, sequence_len, micro_batch_size, threads, weights, .. } = setup;
        if !(1..=config.max_position_embeddings).contains(&sequence_len) {
            let problem = format!("sequences of {sequence_len}, the model takes 1..={}", config.max_position_embeddings);
            return Err(GpuError::Layout { problem });
        }
        let layout = Arc::new(NodeLayout::new(&config, optimizer.layout(&config)?, mesh.topology())?);
        let files = WeightFiles::open(&weights, MODEL_FILES)?;
        files.check(&config)?;
        let master = files.read_pieces(layout.codec.parameters(), layout.pieces(mesh.rank()))?;
        let region = Region::new(mesh.connect(Group::Tensor, device)?);
        let options = ModelOptions { sequence_len, precision: setup.precision, checkpointing: setup.checkpointing };
        let model = Llama::new(&config, options, &layout, region, device)?;
        let optimizer = Optimizer::new(Arc::clone(&layout), mesh.rank(), optimizer, store, master)?;
        let scratch = optimizer.scratch()?;
        Ok(Self {
            mesh,
            layout,
            config,
            sequence_len,
            micro_batch_size: micro_batch_size.clamp(1, SAMPLES_MAX),
            spikes: SpikeGuard::new(setup.spikes),
            model,
            optimizer,
            threads,
            scratch,
            durations: StepDurations::default(),
            #[cfg(test)]
            out_of_memory_above: usize::MAX,
            #[cfg(test)]
            after_micro_batch: None,
        })
    }

    /// Trains one step and makes its result.
    ///
    /// # Errors
    /// A plan that can't be carried out; a broken mesh; libtorch's errors; memory for less than one sample.
    pub fn train(&mut self, plan: &StepPlan) -> Result<TrainOutcome, GpuError> {
        self.check_samples(plan.step, &plan.samples)?;
        check_rates(plan.step, &[("lr", plan.lr), ("lr_previous", plan.lr_previous)])?;
        match self.within_memory(plan.step, |rank| rank.prepare(plan))? {
            ControlFlow::Break(outcome) => Ok(outcome),
            ControlFlow::Continue(prepared) => {
                let trained = self.commit(plan, prepared).map_err(|error| self.broken(error))?;
                Ok(TrainOutcome::Trained(trained))
            }
        }
    }

    /// Applies accepted results to the weights; without any, only the weight decay.
    ///
    /// # Errors
    /// A rate out of range or a malformed payload, before anything changed.
    pub fn apply(&mut self, plan: &ApplyPlan) -> Result<(), GpuError> {
        check_rates(plan.step, &[("lr", plan.lr), ("weight_decay", plan.weight_decay)])?;
        let layout = Arc::clone(&self.layout);
        let valid = plan.payloads.iter().map(|bytes| layout.codec.validate(bytes));
        let valid = valid.collect::<Result<Vec<ValidPayload<'_>>, _>>()?;
        let mut lap = laps();
        self.optimizer.apply(&valid, plan.lr, plan.weight_decay).map_err(|error| self.broken(error))?;
        self.durations.apply = lap();
        Ok(())
    }

    /// Mean cross entropy per label over `samples`, with the weights as applied so far.
    ///
    /// # Errors
    /// As [`Rank::train`].
    pub fn evaluate(&mut self, step: u64, samples: &[Vec<u32>]) -> Result<f64, GpuError> {
        self.check_samples(step, samples)?;
        self.within_memory(step, |rank| {
            transfer::spread(&rank.mesh, &rank.layout, rank.optimizer.master().view(), rank.model.parameters())?;
            rank.mean_loss(samples)
        })
    }

    /// The digest of the weights: equal on all ranks, and on all nodes whose weights have the same bits.
    ///
    /// # Errors
    /// A broken mesh.
    pub fn digest(&mut self) -> Result<[u8; 32], GpuError> {
        let mut lap = laps();
        let own = self.optimizer.block_digests().map_err(|error| self.broken(error))?;
        let digest = self.combine(own)?;
        self.durations.digest = lap();
        Ok(digest)
    }

    /// The digest that the weights would have if `master` were this rank's pieces of them. Collective.
    pub(crate) fn digest_of(&self, master: &[f32]) -> Result<[u8; 32], GpuError> {
        let own = self.layout.pieces(self.mesh.rank()).iter().map(|piece| {
            let rows = &master[piece.at.clone()];
            Ok((piece.part.clone(), digest::block_digests(&self.layout.codec, &piece.part, rows, self.threads)?))
        });
        self.combine(own.collect::<Result<Vec<_>, GpuError>>().map_err(|error| self.broken(error))?)
    }

    /// The digest of the model from every rank's block digests.
    fn combine(&self, own: Vec<(Part, Vec<BlockDigest>)>) -> Result<[u8; 32], GpuError> {
        let all: Vec<_> = self.mesh.exchange(&own, |all| all.iter().flat_map(|own| own.iter().cloned()).collect())?;
        Ok(digest::combine(&digest::parameter_digests(&self.layout.codec, &all)?))
    }

    /// Other weights are there: what losses were usual before says nothing about theirs.
    pub(crate) fn forget_losses(&mut self) {
        self.spikes.forget();
    }

    /// Forgets all momentum, as at the start of a run.
    ///
    /// # Errors
    /// libtorch's.
    pub fn reset_momentum(&mut self) -> Result<(), GpuError> {
        self.optimizer.reset_momentum()?;
        self.spikes.forget();
        Ok(())
    }

    /// The network.
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// Samples per forward pass that the device's memory has held so far.
    pub fn micro_batch_size(&self) -> usize {
        self.micro_batch_size
    }

    /// What the rank's CUDA device holds; none on the CPU.
    ///
    /// # Errors
    /// libtorch's.
    pub fn memory_use(&self) -> Result<Option<MemoryUse>, GpuError> {
        shim::memory_use(self.model.device())
    }

    /// Where the time of the last finished step went, and of the last apply and digest.
    pub fn durations(&self) -> StepDurations {
        self.durations
    }

    /// Bytes of the optimiser's buffers: master, momentum, scratch, coefficients that were sent.
    #[cfg(test)]
    pub(crate) fn optimizer_bytes(&self) -> [usize; 4] {
        let floats = |flat: &Flat| flat.len() * size_of::<f32>();
        let sent = self.optimizer.sent().into_iter().flatten().flatten();
        let sent = sent.map(|sent| size_of_val(&*sent.indices) + size_of_val(&*sent.values)).sum();
        [floats(self.optimizer.master()), floats(self.optimizer.momentum()), floats(&self.scratch), sent]
    }

    /// What snapshots are made of.
    pub(crate) fn state(&mut self) -> (&MeshRank, &Arc<NodeLayout>, &mut Optimizer) {
        (&self.mesh, &self.layout, &mut self.optimizer)
    }

    fn check_samples(&self, step: u64, samples: &[Vec<u32>]) -> Result<(), GpuError> {
        check_samples(step, samples, (self.sequence_len, self.config.vocab_size))
    }

    /// What the last step's gradient was on this rank's pieces.
    #[cfg(test)]
    pub(crate) fn gradient(&self) -> Vec<f32> {
        self.scratch.to_host().unwrap().into_owned()
    }

    /// The weights that this rank computes with, by parameter.
    #[cfg(test)]
    pub(crate) fn compute_copies(&self) -> &[tch::Tensor] {
        self.model.parameters()
    }

    /// This rank's place in the mesh.
    #[cfg(test)]
    pub(crate) fn mesh(&self) -> &MeshRank {
        &self.mesh
    }

    /// Ends the mesh, because this rank can't go on, and passes the error on.
    pub(crate) fn broken(&self, error: GpuError) -> GpuError {
        self.mesh.fail(&error.to_string());
        error
    }
}
