//! One node: an engine, a small trainer, a blob store. What the shell does, in virtual time.

use std::collections::{BTreeMap, VecDeque};

use psyche_actors::engine::{DiskSnapshot, Effect, Engine, EngineConfig, Ledger, LoadFrom, Patience};
use psyche_messages::{BlobHash, ManifestAnnounced, RoundKey, SignedRoundMessage, Step};

use super::chain::{address, peer};
use super::checks::RUN_TAG;
use super::training::{self, Blob, SimModel};

/// Most messages that a liar remembers.
const HEARD_MAX: usize = 40;
/// Most of its own announcements of manifests that lie on its disk.
const MANIFESTS_KEPT: usize = 8;

/// A node, dead or alive.
pub(crate) struct Node {
    pub engine: Option<Engine>,
    /// Counts its lives; what was under way in an earlier one is lost.
    pub life: u32,
    pub blobs: BTreeMap<BlobHash, Blob>,
    pub model: Option<(u32, SimModel)>,
    /// The newest snapshot, which outlives the node where disks do.
    pub disk: Option<(u32, SimModel)>,
    /// The update log, which outlives the node where disks do.
    pub ledger: Ledger,
    /// What it announced as a witness, which outlives the node where disks do.
    pub manifests: Vec<ManifestAnnounced>,
    /// Whether there was one when the node died.
    pub disk_at_death: bool,
    /// Commands for the trainer; the first one is being executed.
    pub commands: VecDeque<Effect>,
    /// Names the execution of the first command.
    pub ticket: u64,
    pub cancelled: Option<RoundKey>,
    /// When the snapshot that is being written is done: no load or other snapshot begins before.
    pub written_ms: u64,
    pub finished: bool,
    /// It left the run of its own will, for good.
    pub gone: bool,
    /// What a liar heard and may say again.
    pub heard: VecDeque<SignedRoundMessage>,
}

impl Node {
    pub(crate) fn new() -> Self {
        Self {
            engine: None,
            life: 0,
            blobs: BTreeMap::new(),
            model: None,
            disk: None,
            ledger: Ledger::default(),
            manifests: Vec::new(),
            disk_at_death: false,
            commands: VecDeque::new(),
            ticket: 0,
            cancelled: None,
            written_ms: 0,
            finished: false,
            gone: false,
            heard: VecDeque::new(),
        }
    }

    /// Starts, or starts again without any memory but, where disks outlive nodes, its snapshot.
    pub(crate) fn start(&mut self, node: usize, keeps_disk: bool) {
        if !keeps_disk {
            self.disk = None;
            self.ledger = Ledger::default();
            self.manifests.clear();
            self.blobs.clear();
        }
        let disk = self.disk.as_ref().map(|(step, model)| DiskSnapshot { step: Step(*step), digest: model.digest() });
        let config = EngineConfig {
            me: address(node),
            peer: peer(node),
            run_tag: RUN_TAG,
            payload_len: training::payload_len(),
            manifest_len_max: 1 << 16,
            index_len_max: 1 << 16,
            disk,
            updates: self.ledger.range().map(|(first, last, _)| (first, last)),
            manifests: self.manifests.clone(),
            updates_len_max: 1 << 20,
            keeps_checkpoints: keeps_disk,
            checkpoint_repo: None,
            patience: Patience { apply_ms: 10_000, ..Patience::default() },
        };
        self.life += 1;
        self.engine = Some(Engine::new(config));
    }

    /// Writes down what it announced as a witness.
    pub(crate) fn keep_manifest(&mut self, announced: &ManifestAnnounced) {
        self.manifests.retain(|kept| kept.round != announced.round);
        self.manifests.push(announced.clone());
        if self.manifests.len() > MANIFESTS_KEPT {
            self.manifests.remove(0);
        }
    }

    /// Remembers what was said, to say it again.
    pub(crate) fn hear(&mut self, signed: SignedRoundMessage) {
        if self.heard.len() == HEARD_MAX {
            self.heard.pop_front();
        }
        self.heard.push_back(signed);
    }

    /// Dies, and forgets everything but what lies on its disk.
    pub(crate) fn die(&mut self) {
        let (disk, ledger, mut blobs) = (self.disk.take(), core::mem::take(&mut self.ledger), core::mem::take(&mut self.blobs));
        let manifests = core::mem::take(&mut self.manifests);
        blobs.retain(|_, blob| matches!(blob, Blob::Payload(_) | Blob::Manifest(_)));
        *self = Self { life: self.life, disk_at_death: disk.is_some(), disk, ledger, manifests, blobs, ..Self::new() };
    }

    /// The step that its disk leads to: the snapshot's, or the last one of the update log that goes on from there.
    pub(crate) fn kept_step(&self) -> Option<Step> {
        let (snapshot, _) = self.disk.as_ref()?;
        let logged = self.ledger.range().filter(|(first, ..)| first.0 <= snapshot + 1).map_or(0, |(_, last, _)| last.0);
        Some(Step(logged.max(*snapshot)))
    }

    /// Parameters for a load, if they can be had.
    pub(crate) fn loaded(&self, from: &LoadFrom, served: impl Fn(&BlobHash) -> Option<Blob>) -> Option<SimModel> {
        match from {
            LoadFrom::Checkpoint => Some(SimModel::initial()),
            LoadFrom::Disk => self.disk.as_ref().map(|(_, model)| model.clone()),
            LoadFrom::Peers { index, .. } => match served(index) {
                Some(Blob::Snapshot(model)) => Some(model),
                _ => None,
            },
        }
    }
}
