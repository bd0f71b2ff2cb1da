//! Sanity checks of what an owner configures (ABI section 1.2 and reference notes).

use super::{Checkpoint, DataLocation, HttpSource, Llm, Model, Optimizer};
use crate::layout::{Config, MAX_CLIENTS, MAX_WITNESSES, Progress};

impl Model {
    /// Whether a run can train this: a sequence length, a data location and a checkpoint that name something, and
    /// an optimiser.
    #[must_use]
    pub const fn check(&self) -> bool {
        let Self::Llm(llm) = self;
        llm.check()
    }
}

impl Llm {
    const fn check(&self) -> bool {
        self.max_seq_len != 0
            && self.checkpoint.check()
            && self.data_location.check()
            && !matches!(self.optimizer, Optimizer::Dummy)
    }
}

impl Checkpoint {
    /// Whether it names weights that a node can find.
    #[must_use]
    pub const fn check(&self) -> bool {
        match self {
            Self::Ephemeral => false,
            Self::Dummy(_) => true,
            Self::Hub(repo) | Self::P2P(repo) => !repo.repo_id.is_empty(),
            Self::Gcs(repo) | Self::P2PGcs(repo) => !repo.bucket.is_empty(),
        }
    }
}

impl DataLocation {
    /// Whether it names data. A local folder may be left to each node.
    #[must_use]
    pub const fn check(&self) -> bool {
        match self {
            Self::Dummy | Self::Local(_) => true,
            Self::Server(address) => !address.is_empty(),
            Self::WeightedHttp(url) | Self::Preprocessed(url) => !url.is_empty(),
            Self::Http(http) => match &http.source {
                HttpSource::SingleUrl(url) => !url.is_empty(),
                HttpSource::NumberedFiles { url_template, num_files, .. } => !url_template.is_empty() && *num_files != 0,
                HttpSource::Gcp { bucket_name, .. } => !bucket_name.is_empty(),
            },
        }
    }
}

impl Config {
    /// Whether a run can live by these rules.
    #[must_use]
    pub const fn check(&self) -> bool {
        self.warmup_time < self.epoch_time
            && self.max_round_train_time > 0
            && self.max_round_train_time < self.epoch_time
            && self.round_witness_time > 0
            && self.cooldown_time > 0
            && self.waiting_for_members_extra_time > 0
            && self.total_steps > 0
            && self.min_clients >= 1
            && self.min_clients <= self.init_min_clients
            && self.init_min_clients as usize <= MAX_CLIENTS
            && self.witness_nodes <= self.min_clients
            && self.witness_nodes as usize <= MAX_WITNESSES
            && self.global_batch_size_start > 0
            && self.global_batch_size_start <= self.global_batch_size_end
            && self.verification_percent <= 100
    }

    /// Whether the warm-up after a pause fits into the rounds that one epoch surely has.
    #[must_use]
    pub const fn cold_start_fits(&self, cold_start_warmup_steps: u32) -> bool {
        if cold_start_warmup_steps == 0 {
            return true;
        }
        let training_time = self.epoch_time.saturating_sub(self.warmup_time);
        match training_time.checked_div(self.max_round_train_time) {
            Some(rounds) => cold_start_warmup_steps as u64 <= rounds,
            None => false,
        }
    }

    /// How many witnesses a round of `clients` clients has at most.
    #[must_use]
    pub const fn witness_target(&self, clients: usize) -> usize {
        match self.witness_nodes {
            0 if clients < MAX_WITNESSES => clients,
            0 => MAX_WITNESSES,
            nodes => nodes as usize,
        }
    }
}

impl Progress {
    /// Whether it names a step: they count from 1.
    #[must_use]
    pub const fn check(&self) -> bool {
        self.step > 0
    }
}
