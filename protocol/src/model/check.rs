//! Sanity checks of what an owner configures (ABI section 1.2 and reference notes).

use super::{Checkpoint, DataLocation, HttpSource, Llm, Model, Optimizer};
use crate::layout::{Config, FixedString, MAX_CLIENTS, MAX_WITNESSES, Progress};

/// `name` or `owner/name`, by the hub's own rules for characters; the field bounds the length.
fn is_repo_id(text: &str) -> bool {
    let mut names = text.split('/');
    let is_name = |name: &str| {
        is_made_of(name, b"-_.") && !name.starts_with(['-', '.']) && !name.ends_with(['-', '.']) && !name.ends_with(".git")
    };
    let (first, second) = (names.next(), names.next());
    names.next().is_none()
        && first.is_some_and(is_name)
        && second.is_none_or(is_name)
        && !has_pair(text, *b"--")
        && !has_pair(text, *b"..")
}

/// A branch, tag or commit, as git lets them be called.
fn is_revision(text: &str) -> bool {
    is_made_of(text, b"-_./")
        && !text.starts_with(['-', '.', '/'])
        && !text.ends_with(['.', '/'])
        && !text.ends_with(".lock")
        && ![*b"..", *b"//", *b"/."].into_iter().any(|pair| has_pair(text, pair))
}

/// A bucket, as the storage service lets them be called.
fn is_bucket(text: &str) -> bool {
    let is_end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    text.len() >= 3
        && is_made_of(text, b"-_.")
        && !text.bytes().any(|byte| byte.is_ascii_uppercase())
        && is_end(text.as_bytes().first())
        && is_end(text.as_bytes().last())
        && !has_pair(text, *b"..")
}

/// A folder within a bucket, with or without a slash behind it.
fn is_prefix(text: &str) -> bool {
    let folder = text.strip_suffix('/').unwrap_or(text);
    is_made_of(folder, b"-_./=+@")
        && !folder.starts_with('/')
        && !folder.split('/').any(|name| name.is_empty() || name == "." || name == "..")
}

/// Whether `text` has these two bytes in a row (the library's search for text is large in bytecode).
fn has_pair(text: &str, pair: [u8; 2]) -> bool {
    text.as_bytes().windows(2).any(|window| window == pair)
}

/// Whether `text` is not empty and has ASCII letters, digits and `others` only.
fn is_made_of(text: &str, others: &[u8]) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || others.contains(&byte))
}

/// Whether the bytes are text, and some.
fn is_some_text<const L: usize>(text: &FixedString<L>) -> bool {
    text.text().is_some_and(|text| !text.is_empty())
}

fn is_text_or_none<const L: usize>(text: Option<&FixedString<L>>) -> bool {
    text.is_none_or(|text| text.text().is_some())
}

impl Model {
    /// Whether a run can train this: a sequence length, a data location and a checkpoint that name something in plain text,
    /// and an optimiser.
    #[must_use]
    pub fn check(&self) -> bool {
        let Self::Llm(llm) = self;
        llm.check()
    }
}

impl Llm {
    fn check(&self) -> bool {
        self.max_seq_len != 0
            && self.checkpoint.check()
            && self.data_location.check()
            && !matches!(self.optimizer, Optimizer::Dummy)
    }
}

impl Checkpoint {
    /// Whether it names weights that a node can find; a repository may be a folder on every node's disk.
    #[must_use]
    pub fn check(&self) -> bool {
        match self {
            Self::Ephemeral => false,
            Self::Dummy(repo) => repo.repo_id.text().is_some() && is_text_or_none(repo.revision.as_ref()),
            Self::Hub(repo) | Self::P2P(repo) => is_some_text(&repo.repo_id) && is_text_or_none(repo.revision.as_ref()),
            Self::Gcs(repo) | Self::P2PGcs(repo) => is_some_text(&repo.bucket) && is_text_or_none(repo.prefix.as_ref()),
        }
    }

    /// Whether it names a place outside that anybody could fetch weights from: what a member may announce. Stricter than
    /// [`Checkpoint::check`], which is for the run's owner.
    #[must_use]
    pub fn is_well_formed(&self) -> bool {
        let holds = |text: &FixedString<64>, rule: fn(&str) -> bool| text.text().is_some_and(rule);
        match self {
            Self::Ephemeral => false,
            Self::Dummy(repo) | Self::Hub(repo) | Self::P2P(repo) => {
                holds(&repo.repo_id, is_repo_id) && repo.revision.as_ref().is_none_or(|text| holds(text, is_revision))
            }
            Self::Gcs(repo) | Self::P2PGcs(repo) => {
                holds(&repo.bucket, is_bucket) && repo.prefix.as_ref().is_none_or(|text| holds(text, is_prefix))
            }
        }
    }
}

impl DataLocation {
    /// Whether it names data in plain text. A local folder may be left to each node.
    #[must_use]
    pub fn check(&self) -> bool {
        match self {
            Self::Dummy => true,
            Self::Local(folder) => folder.text().is_some(),
            Self::Server(address) => is_some_text(address),
            Self::WeightedHttp(url) | Self::Preprocessed(url) => is_some_text(url),
            Self::Http(http) => match &http.source {
                HttpSource::SingleUrl(url) => is_some_text(url),
                HttpSource::NumberedFiles { url_template, num_files, .. } => is_some_text(url_template) && *num_files != 0,
                HttpSource::Gcp { bucket_name, filter_directory } => {
                    is_some_text(bucket_name) && filter_directory.text().is_some()
                }
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
