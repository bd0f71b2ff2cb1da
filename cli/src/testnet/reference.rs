//! What AdamW makes of the same model, data and batches, on one device: the curve that a run is held against.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use psyche_data::TokenSource;
use psyche_gpu::config::LlamaConfig;
use psyche_gpu::worker::{AdamWConfig, AdamWTrainer, StepPlan, TrainOutcome};
use psyche_messages::BatchInterval;

use super::plan::{Plan, SEQUENCE};
use crate::commands::failed_to;
use crate::compare::alone;

/// How long it may take; the curve ends there.
const TAKES_MAX: Duration = Duration::from_secs(60);

/// AdamW's curve.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Reference {
    /// Mean loss of the batch of each step, before the step.
    pub(crate) losses: Vec<(u32, f64)>,
    /// How long it took.
    pub(crate) took: Duration,
    /// Whether time ran out.
    pub(crate) cut_short: bool,
}

/// How far it is, and whether it shall go on; shared with whoever waits.
#[derive(Debug, Default)]
pub(crate) struct Course {
    pub(crate) step: AtomicU32,
    pub(crate) cancel: Arc<AtomicBool>,
}

/// Trains steps 1 to `steps` from the initial weights, with the run's batches, schedule and clipping.
///
/// # Errors
/// What the files or the device refuse; a step that is skipped; being cancelled.
pub(crate) fn train(plan: &Plan, steps: u32, course: &Course) -> Result<Reference> {
    let began = Instant::now();
    let config = config_of(&plan.model())?;
    let samples = TokenSource::open(&plan.tokens()).map_err(failed_to)?;
    let setup = alone(&config, Plan::optimizer(), SEQUENCE as usize, &plan.model())?;
    let mut trainer = AdamWTrainer::new(setup, AdamWConfig::default()).map_err(failed_to)?;
    let (batch, schedule) = (u64::from(plan.batch()), plan.schedule());
    let mut reference = Reference::default();
    for step in 1..=steps {
        if course.cancel.load(Ordering::Relaxed) {
            bail!("AdamW's reference was cancelled");
        }
        if began.elapsed() > TAKES_MAX {
            reference.cut_short = true;
            break;
        }
        // The run counts its data from the first step on.
        let first = u64::from(step - 1) * batch;
        let interval = BatchInterval::new(first, first + batch - 1).context("an empty batch")?;
        let lr = schedule.rate(step, None);
        let outcome = trainer
            .train(&StepPlan {
                step: u64::from(step),
                samples: Arc::new(samples.samples(interval).map_err(failed_to)?),
                lr,
                lr_previous: lr,
                cancel: Arc::clone(&course.cancel),
            })
            .map_err(failed_to)?;
        let TrainOutcome::Trained(trained) = outcome else { bail!("AdamW did not train step {step}: {outcome:?}") };
        reference.losses.push((step, trained.loss));
        course.step.store(step, Ordering::Relaxed);
    }
    reference.took = began.elapsed();
    Ok(reference)
}

/// The network that a folder's `config.json` describes.
pub(crate) fn config_of(folder: &Path) -> Result<LlamaConfig> {
    let path = folder.join("config.json");
    let text = std::fs::read(&path).with_context(|| format!("failed to read {}", path.display()))?;
    LlamaConfig::from_json(&text).map_err(failed_to)
}
