//! The signed update log: what a node applied, step by step, so that whoever has older parameters can apply the same
//! (docs/ARCHITECTURE.md, "The update log").
//!
//! A log is a chain of pages. Each page is a blob that its author signed and that names the page before it by hash, and each
//! step names the digest before it: nothing in a log can be left out, moved or replaced without another name for all that
//! follows. Payloads are not in it, only their names.

use crate::ids::{BlobHash, Digest, PeerKey, RoundKey, Step};
use crate::round::{RESULTS_MAX, ResultAnnounced};

/// Most steps on a page.
pub const PAGE_STEPS_MAX: usize = 32;

/// What was applied in one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedStep {
    /// The round whose results were applied.
    pub round: RoundKey,
    /// The steps `[from, to)` over which the learning rate warms up again, in a cold-start epoch only.
    pub cold_start: Option<(Step, Step)>,
    /// The results in the order in which they were applied: by batch. None where nothing was witnessed.
    pub results: Vec<ResultAnnounced>,
    /// The digest of the parameters before.
    pub before: Digest,
    /// The digest of the parameters afterwards.
    pub after: Digest,
}

impl AppliedStep {
    /// Whether the step may stand in a log at all: not more results than a round has, all of its round, in batch order.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.results.len() <= RESULTS_MAX
            && self.results.iter().all(|result| result.round == self.round)
            && self.results.windows(2).all(|pair| pair[0].batch.end() < pair[1].batch.start())
    }

    /// Whether this step may stand behind `before` in a log.
    #[must_use]
    pub fn follows(&self, before: &Self) -> bool {
        self.round.step == before.round.step.next() && self.round.epoch >= before.round.epoch && self.before == before.after
    }
}

/// Consecutive steps of a node's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdatePage {
    /// Whose log it is.
    pub author: PeerKey,
    /// Name and length of the page before; none on the first one.
    pub previous: Option<(BlobHash, u32)>,
    /// The steps, at least one and at most [`PAGE_STEPS_MAX`].
    pub steps: Vec<AppliedStep>,
}

impl UpdatePage {
    /// Whether the page may be one of a log: its steps are sound and follow each other.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        (1..=PAGE_STEPS_MAX).contains(&self.steps.len())
            && self.steps.iter().all(AppliedStep::is_sound)
            && self.steps.windows(2).all(|pair| pair[1].follows(&pair[0]))
    }
}

/// "My log of applied steps reaches from this step to that one, and its newest page is this blob."
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdatesAnnounced {
    /// The newest round in the log.
    pub round: RoundKey,
    /// The first step in the log.
    pub first: Step,
    /// The digest of the parameters after the newest one.
    pub digest: Digest,
    /// Name of the newest page.
    pub blob: BlobHash,
    /// Exact length of the newest page in bytes.
    pub blob_len: u32,
}

impl UpdatesAnnounced {
    /// Whether the log tells what was applied in `step`.
    #[must_use]
    pub fn covers(&self, step: Step) -> bool {
        self.first <= step && step <= self.round.step
    }
}
