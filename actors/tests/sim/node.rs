//! One node: an engine, a toy trainer, a blob store. What the shell does, in virtual time.

use std::collections::{BTreeMap, VecDeque};

use psyche_actors::engine::{Effect, Engine, EngineConfig, LoadFrom, Patience};
use psyche_messages::{BlobHash, RoundKey};

use super::chain::{address, peer};
use super::checks::RUN_TAG;
use super::toy::{Blob, PAYLOAD_LEN, ToyModel};

/// A node, dead or alive.
pub(crate) struct Node {
    pub engine: Option<Engine>,
    /// Counts its lives; what was under way in an earlier one is lost.
    pub life: u32,
    pub blobs: BTreeMap<BlobHash, Blob>,
    pub model: Option<(u32, ToyModel)>,
    /// Commands for the trainer; the first one is being executed.
    pub commands: VecDeque<Effect>,
    /// Names the execution of the first command.
    pub ticket: u64,
    pub cancelled: Option<RoundKey>,
    pub finished: bool,
}

impl Node {
    pub(crate) const fn new() -> Self {
        Self {
            engine: None,
            life: 0,
            blobs: BTreeMap::new(),
            model: None,
            commands: VecDeque::new(),
            ticket: 0,
            cancelled: None,
            finished: false,
        }
    }

    /// Starts, or starts again without any memory.
    pub(crate) fn start(&mut self, node: usize) {
        let config = EngineConfig {
            me: address(node),
            peer: peer(node),
            run_tag: RUN_TAG,
            payload_len: PAYLOAD_LEN,
            manifest_len_max: 1 << 16,
            index_len_max: 1 << 16,
            disk: None,
            patience: Patience { apply_ms: 10_000, ..Patience::default() },
        };
        self.life += 1;
        self.engine = Some(Engine::new(config));
    }

    /// Dies, and forgets everything.
    pub(crate) fn die(&mut self) {
        *self = Self { life: self.life, ..Self::new() };
    }

    /// Parameters for a load, if they can be had.
    pub(crate) fn loaded(from: &LoadFrom, served: impl Fn(&BlobHash) -> Option<Blob>) -> Option<ToyModel> {
        match from {
            LoadFrom::Checkpoint => Some(ToyModel::initial()),
            LoadFrom::Disk => None,
            LoadFrom::Peers { index, .. } => match served(index) {
                Some(Blob::Snapshot(model)) => Some(model),
                _ => None,
            },
        }
    }
}
