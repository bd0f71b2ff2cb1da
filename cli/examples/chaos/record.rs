//! What a node says of itself in its event log, and what its last snapshot holds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result};
use psyche_messages::events::LoggedEvent;
use psyche_messages::{Digest, NodeEvent, Phase};

use super::scenario::SEQUENCE;

/// A batch that a node has trained.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trained {
    pub(crate) loss: f64,
    pub(crate) samples: u64,
    /// When it was done, in milliseconds of Unix time.
    pub(crate) ended_ms: u64,
    /// How long it took.
    pub(crate) took_ms: f64,
}

/// One node's record.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    pub(crate) starts: u32,
    /// Step, phase and clients, as it saw them last.
    pub(crate) position: Option<(u32, Phase, u16)>,
    pub(crate) trained: BTreeMap<u32, Trained>,
    /// Every digest that it had after a step, whether it applied that step or loaded parameters that contain it.
    pub(crate) held: BTreeMap<u32, BTreeSet<Digest>>,
    /// Step and digest of its newest snapshot.
    pub(crate) snapshot: Option<(u64, String)>,
    /// When rounds began to train, and when epochs ended, by the machine's clock.
    pub(crate) phases: Vec<(u64, u32, Phase)>,
}

impl Record {
    /// What is in the node's folder for data by now.
    ///
    /// # Errors
    /// If it can't be read.
    pub(crate) fn read(data: &Path) -> Result<Self> {
        let path = data.join("events.jsonl");
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            read => Ok(read.unwrap_or_default()),
        };
        let text = text.with_context(|| format!("failed to read {}", path.display()))?;
        let mut record = Self::default();
        // A process that is killed may leave half a line.
        for line in text.lines().filter_map(|line| serde_json::from_str::<LoggedEvent>(line).ok()) {
            record.take(line);
        }
        record.snapshot = newest_snapshot(&data.join("snapshots"));
        Ok(record)
    }

    fn take(&mut self, line: LoggedEvent) {
        match line.event {
            NodeEvent::Started { .. } => self.starts += 1,
            NodeEvent::PhaseChanged { step, phase, clients, .. } => {
                self.position = Some((step.0, phase, clients));
                self.phases.push((line.unix_ms, step.0, phase));
            }
            NodeEvent::StepTrained { step, loss, samples, tokens_per_second, .. } => {
                #[expect(clippy::cast_precision_loss, reason = "samples of a batch are few")]
                let tokens = (samples * u64::from(SEQUENCE)) as f64;
                let took_ms = tokens * 1000.0 / f64::from(tokens_per_second);
                let trained = Trained { loss: f64::from(loss), samples, ended_ms: line.unix_ms, took_ms };
                self.trained.insert(step.0, trained);
            }
            NodeEvent::StepApplied { step, digest, .. } | NodeEvent::ModelReady { step, digest, .. } => {
                self.held.entry(step.0).or_default().insert(digest);
            }
            _ => {}
        }
    }
}

/// Step and digest of the newest whole snapshot.
fn newest_snapshot(folder: &Path) -> Option<(u64, String)> {
    let run = std::fs::read_dir(folder).ok()?.flatten().next()?.path();
    let manifests = std::fs::read_dir(run).ok()?.flatten().map(|entry| entry.path().join("snapshot.json"));
    let read = manifests.filter_map(|path| serde_json::from_slice::<serde_json::Value>(&std::fs::read(path).ok()?).ok());
    let told = read.filter_map(|value| {
        let manifest = value.get("manifest").unwrap_or(&value);
        Some((manifest["round"]["step"].as_u64()?, manifest["digest"].to_string()))
    });
    told.max_by_key(|(step, _)| *step)
}
