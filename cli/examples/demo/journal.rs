//! What nodes say of themselves in their event logs, and the transcript that is made of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use psyche_messages::events::{LoggedEvent, ModelSource};
use psyche_messages::{Digest, Epoch, NodeEvent, PeerKey, Phase, Step};

/// The event log of one node, as far as it was read.
#[derive(Debug)]
struct Log {
    path: PathBuf,
    read_bytes: u64,
    /// The beginning of a line whose end is not written yet.
    partial: Vec<u8>,
    events: Vec<NodeEvent>,
}

/// All nodes' events. Nodes count from one.
pub(crate) struct Journal<'a> {
    out: &'a mut dyn Write,
    began_ms: u64,
    logs: Vec<Log>,
    names: BTreeMap<PeerKey, usize>,
    /// Epoch and step of the run as it was told last, and the phases there that were told.
    told: ((Epoch, Step), Vec<Phase>),
}

impl<'a> Journal<'a> {
    /// The events in the files `logs`, told to `out` as they come.
    pub(crate) fn new(logs: impl IntoIterator<Item = PathBuf>, out: &'a mut dyn Write) -> Self {
        let log = |path| Log { path, read_bytes: 0, partial: Vec::new(), events: Vec::new() };
        Self {
            out,
            began_ms: now_ms(),
            logs: logs.into_iter().map(log).collect(),
            names: BTreeMap::new(),
            told: ((Epoch(0), Step(0)), Vec::new()),
        }
    }

    /// Reads what is new, and tells it.
    ///
    /// # Errors
    /// If a log can't be read, or the transcript not be written.
    pub(crate) fn read(&mut self) -> Result<()> {
        let mut fresh = Vec::new();
        for (node, log) in (1..).zip(&mut self.logs) {
            let new = log.read().with_context(|| format!("failed to read {}", log.path.display()))?;
            fresh.extend(new.into_iter().map(|line| (line.unix_ms, node, line.event)));
        }
        fresh.sort_by_key(|(unix_ms, ..)| *unix_ms);
        for (unix_ms, node, event) in fresh {
            if let NodeEvent::Started { peer, .. } = &event {
                self.names.insert(*peer, node);
            }
            if let Some((who, text)) = self.words(node, &event) {
                self.line(unix_ms, &who, &text)?;
            }
            self.logs[node - 1].events.push(event);
        }
        Ok(())
    }

    /// Tells what the demonstration itself does or concludes.
    ///
    /// # Errors
    /// If it can't be written.
    pub(crate) fn say(&mut self, text: &str) -> Result<()> {
        self.line(now_ms(), "*", text)
    }

    fn line(&mut self, unix_ms: u64, who: &str, text: &str) -> Result<()> {
        #[expect(clippy::cast_precision_loss, reason = "minutes")]
        let seconds = unix_ms.saturating_sub(self.began_ms) as f64 / 1000.0;
        writeln!(self.out, "{seconds:6.1} s  {who:<7} {text}").context("failed to write the transcript")
    }

    /// An event in words, and whose it is; none for what is only noise here.
    fn words(&mut self, node: usize, event: &NodeEvent) -> Option<(String, String)> {
        let text = match event {
            NodeEvent::Started { address, .. } => format!("is up: wallet {address}"),
            NodeEvent::PhaseChanged { epoch, step, phase, clients, .. } => {
                if !self.is_news((*epoch, *step), *phase) {
                    return None;
                }
                return Some(("run".to_owned(), format!("epoch {epoch}, step {step}: {phase}, {clients} clients")));
            }
            NodeEvent::Joined { .. } => "has joined".to_owned(),
            NodeEvent::ModelReady { step, source, digest } => {
                let source = match source {
                    ModelSource::Checkpoint => "the run's checkpoint",
                    ModelSource::Peers => "a snapshot of its peers",
                    ModelSource::Disk => "its own disk",
                };
                format!("loads parameters {} after step {step} from {source}", digest.short())
            }
            NodeEvent::StepTrained { step, loss, .. } => format!("trained step {step}: loss {loss:.3}"),
            NodeEvent::StepSkipped { step, reason, .. } => format!("did not train step {step}: {reason}"),
            NodeEvent::StepApplied { step, results, digest, .. } => {
                format!("applied {results} results of step {step}: parameters {}", digest.short())
            }
            NodeEvent::UpdatesReplayed { from, to, peer } => {
                let whose = self.names.get(peer).map_or_else(|| peer.to_string(), |node| format!("node {node}"));
                format!("replayed steps {from} to {to} of the update log of {whose}")
            }
            NodeEvent::DigestCompared { step, peer, equal: false } => {
                let whose = self.names.get(peer).map_or_else(|| peer.to_string(), |node| format!("node {node}"));
                format!("has other parameters after step {step} than {whose}")
            }
            NodeEvent::Warning { message } => format!("warns: {message}"),
            NodeEvent::TransactionConfirmed { purpose, .. } if purpose.contains("health") => {
                "reported an absent client".to_owned()
            }
            NodeEvent::Stopped { reason } => format!("stops: {reason}"),
            _ => return None,
        };
        Some((format!("node {node}"), text))
    }

    /// Whether the run is seen there for the first time: several nodes tell the same.
    fn is_news(&mut self, at: (Epoch, Step), phase: Phase) -> bool {
        let (told, phases) = &mut self.told;
        if at > *told {
            (*told, *phases) = (at, Vec::new());
        }
        let is_news = at == *told && !phases.contains(&phase);
        if is_news {
            phases.push(phase);
        }
        is_news
    }

    /// What `node` has said so far.
    pub(crate) fn of(&self, node: usize) -> &[NodeEvent] {
        &self.logs[node - 1].events
    }

    /// Addresses at which nodes that are up are reached, but for `node`.
    pub(crate) fn addresses(&self, node: usize) -> Vec<String> {
        let others = (1..=self.logs.len()).filter(|other| *other != node);
        let listen =
            |event: &NodeEvent| if let NodeEvent::Started { listen, .. } = event { Some(listen.clone()) } else { None };
        others.filter_map(|other| self.of(other).iter().rev().find_map(listen)).flatten().collect()
    }

    /// The last step that the parameters of `node` contain, and their digest.
    pub(crate) fn holds(&self, node: usize) -> Option<(Step, Digest)> {
        self.of(node).iter().rev().find_map(held)
    }

    /// The digest of `node` after `step`, as it was last.
    pub(crate) fn digest(&self, node: usize, step: Step) -> Option<Digest> {
        let after = |event: &NodeEvent| held(event).filter(|(at, _)| *at == step).map(|(_, digest)| digest);
        self.of(node).iter().rev().find_map(after)
    }

    /// Whether two nodes have the same parameters now.
    pub(crate) fn agree(&self, one: usize, other: usize) -> bool {
        self.holds(one).is_some() && self.holds(one) == self.holds(other)
    }

    /// The steps after which any two of `nodes` had different parameters.
    pub(crate) fn contradictions(&self, nodes: &[usize]) -> Vec<Step> {
        let mut digests: BTreeMap<Step, BTreeSet<Digest>> = BTreeMap::new();
        for (step, digest) in nodes.iter().flat_map(|node| self.of(*node)).filter_map(held) {
            digests.entry(step).or_default().insert(digest);
        }
        digests.into_iter().filter(|(_, seen)| seen.len() > 1).map(|(step, _)| step).collect()
    }
}

/// Step and digest of the parameters that a node has from this event on.
pub(crate) fn held(event: &NodeEvent) -> Option<(Step, Digest)> {
    match event {
        NodeEvent::StepApplied { step, digest, .. } | NodeEvent::ModelReady { step, digest, .. } => Some((*step, *digest)),
        _ => None,
    }
}

impl Log {
    fn read(&mut self) -> std::io::Result<Vec<LoggedEvent>> {
        let mut file = match File::open(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            opened => opened?,
        };
        file.seek(SeekFrom::Start(self.read_bytes))?;
        self.read_bytes += file.read_to_end(&mut self.partial)? as u64;
        let mut lines = Vec::new();
        while let Some(end) = self.partial.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            // Whoever is killed may leave half a line.
            lines.extend(serde_json::from_slice(&line).ok());
        }
        Ok(lines)
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
