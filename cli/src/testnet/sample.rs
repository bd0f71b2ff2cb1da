//! The model at the end of a run: kept in a folder of its own, and a sample of what it writes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use psyche_data::tokenize::TOKENIZER_FILE;
use psyche_data::{TextTokenizer, TokenSource};
use psyche_gpu::generate::Sampling;
use psyche_gpu::snapshot::{MANIFEST_FILE, is_model_file};

use super::plan::Plan;
use crate::commands::failed_to;
use crate::generate::Writer;

/// Tokens of the prompt.
const PROMPT_TOKENS: usize = 24;
/// Tokens that the model writes at most.
const TOKENS: usize = 120;
/// How long it may write.
const TAKES_MAX: Duration = Duration::from_secs(30);
/// How it writes; the seed is the report's, so that the same weights write the same text.
const SAMPLING: Sampling = Sampling { temperature: 0.8, top_k: Some(40), seed: 1 };
/// Entries of a folder that are looked at.
const ENTRIES_MAX: usize = 1000;

/// A sample of text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sample {
    /// The last step that the weights contain.
    pub(crate) step: u32,
    /// What it was given: text that the run did not train on.
    pub(crate) prompt: String,
    /// What it wrote.
    pub(crate) text: String,
    /// How the text really goes on.
    pub(crate) truth: String,
    /// Tokens that it wrote, and how long that took.
    pub(crate) tokens: usize,
    pub(crate) took: Duration,
}

impl Sample {
    /// How it was drawn, in words.
    pub(crate) fn settings() -> String {
        let Sampling { temperature, top_k, seed } = SAMPLING;
        let top_k = top_k.map_or_else(String::new, |k| format!(", the {k} likeliest tokens"));
        format!("temperature {temperature}{top_k}, seed {seed}")
    }
}

/// Keeps the newest snapshot's model, and lets it write.
///
/// # Errors
/// If no node has a snapshot, or its files can't be copied or used.
pub(crate) fn write(plan: &Plan, cancel: &AtomicBool) -> Result<Sample> {
    let newest = plan.nodes.iter().filter_map(|node| newest_snapshot(&node.data().join("snapshots"))).max();
    let (step, folder) = newest.context("no node has a snapshot")?;
    keep(&folder, &plan.text().join(TOKENIZER_FILE), &plan.trained())?;
    let writer = Writer::open(&plan.trained(), None)?;
    let tokenizer = TextTokenizer::load(&plan.trained().join(TOKENIZER_FILE)).map_err(failed_to)?;
    let samples = TokenSource::open(&plan.tokens()).map_err(failed_to)?;
    let next = samples.sample(u64::from(plan.steps) * u64::from(plan.batch())).map_err(failed_to)?;
    let (prompt, truth) = next.split_at(PROMPT_TOKENS.min(next.len()));
    let prompt = tokenizer.decode(prompt).map_err(failed_to)?;
    let began = Instant::now();
    let mut going = || !cancel.load(Ordering::Relaxed) && began.elapsed() < TAKES_MAX;
    let written = writer.write(&prompt, TOKENS, SAMPLING, &mut going)?;
    Ok(Sample {
        step,
        prompt,
        text: written.text,
        truth: tokenizer.decode(truth).map_err(failed_to)?,
        tokens: written.tokens,
        took: written.took,
    })
}

/// The whole snapshot of the latest step below `root`, with its step.
fn newest_snapshot(root: &Path) -> Option<(u32, PathBuf)> {
    let folders = |path: &Path| fs::read_dir(path).into_iter().flatten().take(ENTRIES_MAX).flatten().map(|entry| entry.path());
    let snapshots = folders(root).flat_map(|run| folders(&run).collect::<Vec<_>>());
    let whole = snapshots.filter(|path| path.extension().is_none() && path.join(MANIFEST_FILE).is_file());
    whole.filter_map(|path| Some((path.file_name()?.to_str()?.rsplit_once("-step-")?.1.parse().ok()?, path))).max()
}

/// Copies a model and its tokenizer to the new folder `to`.
fn keep(snapshot: &Path, tokenizer: &Path, to: &Path) -> Result<()> {
    let failed = || format!("failed to keep the trained model in {}", to.display());
    fs::create_dir_all(to).with_context(failed)?;
    for entry in fs::read_dir(snapshot).with_context(failed)? {
        let name = entry.with_context(failed)?.file_name();
        if name.to_str().is_some_and(is_model_file) {
            fs::copy(snapshot.join(&name), to.join(&name)).with_context(failed)?;
        }
    }
    fs::copy(tokenizer, to.join(TOKENIZER_FILE)).with_context(failed)?;
    Ok(())
}
