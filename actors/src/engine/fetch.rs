//! Blobs that the engine wants, and how often it asked for them.

use std::collections::{BTreeMap, BTreeSet};

use psyche_messages::{Address, BlobHash, PeerKey, RoundKey, Step};

use super::api::{Effect, FetchFault, Fetching};

/// Most blobs that are tracked at once. Beyond that, new ones are refused until rounds are forgotten.
const JOBS_MAX: usize = 8_192;
/// Most providers named to the shell.
const PROVIDERS_MAX: usize = 16;
/// An answer that takes longer is taken for lost.
const ANSWER_MS: u64 = 60_000;
/// First pause after a failure, doubled each time up to [`PAUSE_MS_MAX`].
const PAUSE_MS: u64 = 300;
/// Longest pause after a failure.
const PAUSE_MS_MAX: u64 = 5_000;

/// What a blob is wanted as. One that is announced as two things is two: whoever announces a manifest as a payload, or with
/// another length, has nobody wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wanted {
    /// A payload; all payloads of a run have the same length.
    Payload(BlobHash),
    /// A manifest of that length.
    Manifest(BlobHash, u32),
}

impl Wanted {
    const fn of(blob: BlobHash, len: u32, what: &Fetching) -> Self {
        match what {
            Fetching::Payload(_) => Self::Payload(blob),
            Fetching::Manifest { .. } => Self::Manifest(blob, len),
        }
    }

    const fn blob(&self) -> BlobHash {
        match self {
            Self::Payload(blob) | Self::Manifest(blob, _) => *blob,
        }
    }
}

#[derive(Clone, Debug)]
struct Job {
    what: Fetching,
    len: u32,
    providers: Vec<PeerKey>,
    state: JobState,
    failures: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum JobState {
    /// To be asked for at this time.
    Due { at_ms: u64 },
    /// Asked for.
    Asked { at_ms: u64 },
    /// Here and well-formed.
    Here,
    /// Here and useless.
    Malformed,
}

impl JobState {
    /// When something is to be done.
    const fn due_ms(self) -> Option<u64> {
        match self {
            Self::Due { at_ms } => Some(at_ms),
            Self::Asked { at_ms } => Some(at_ms.saturating_add(ANSWER_MS)),
            Self::Here | Self::Malformed => None,
        }
    }
}

/// Every blob of the rounds in work.
#[derive(Debug, Default)]
pub(super) struct Fetches {
    jobs: BTreeMap<Wanted, Job>,
    /// What is not here yet, by when something is to be done.
    awaited: BTreeSet<(u64, Wanted)>,
}

impl Fetches {
    /// Asks for a blob, or adds providers to one that is asked for already.
    pub(super) fn want<'a>(
        &mut self,
        blob: BlobHash,
        len: u32,
        what: Fetching,
        providers: impl IntoIterator<Item = &'a PeerKey>,
        now_ms: u64,
    ) {
        let full = self.jobs.len() >= JOBS_MAX;
        let wanted = Wanted::of(blob, len, &what);
        let job = match self.jobs.entry(wanted) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(_) if full => return,
            std::collections::btree_map::Entry::Vacant(entry) => {
                self.awaited.insert((now_ms, wanted));
                entry.insert(Job { what, len, providers: Vec::new(), state: JobState::Due { at_ms: now_ms }, failures: 0 })
            }
        };
        for provider in providers {
            if job.providers.len() >= PROVIDERS_MAX {
                break;
            }
            if !job.providers.contains(provider) {
                job.providers.push(*provider);
            }
        }
    }

    /// Notes a blob that this node made itself.
    pub(super) fn own(&mut self, blob: BlobHash, len: u32, what: Fetching) {
        let wanted = Wanted::of(blob, len, &what);
        if self.jobs.len() < JOBS_MAX || self.jobs.contains_key(&wanted) {
            self.change(&wanted, JobState::Here);
            self.jobs.insert(wanted, Job { what, len, providers: Vec::new(), state: JobState::Here, failures: 0 });
        }
    }

    /// How many blobs are remembered.
    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Whether a payload is here and well-formed.
    pub(super) fn is_here(&self, payload: &BlobHash) -> bool {
        self.jobs.get(&Wanted::Payload(*payload)).is_some_and(|job| job.state == JobState::Here)
    }

    /// Whether what was announced as a payload is here and is none.
    pub(super) fn is_malformed(&self, payload: &BlobHash) -> bool {
        self.jobs.get(&Wanted::Payload(*payload)).is_some_and(|job| job.state == JobState::Malformed)
    }

    /// Whose payload is awaited under this name, and of which round.
    pub(super) fn awaited_payload(&self, payload: &BlobHash) -> Option<(Address, RoundKey)> {
        match self.what_is_awaited(&Wanted::Payload(*payload))? {
            Fetching::Payload(result) => Some((result.trainer, result.round)),
            Fetching::Manifest { .. } => None,
        }
    }

    /// Of which round a manifest of this name and length is awaited.
    pub(super) fn awaited_manifest(&self, blob: &BlobHash, len: u32) -> Option<RoundKey> {
        match self.what_is_awaited(&Wanted::Manifest(*blob, len))? {
            Fetching::Manifest { round, .. } => Some(*round),
            Fetching::Payload(_) => None,
        }
    }

    fn what_is_awaited(&self, wanted: &Wanted) -> Option<&Fetching> {
        let job = self.jobs.get(wanted)?;
        matches!(job.state, JobState::Asked { .. } | JobState::Due { .. }).then_some(&job.what)
    }

    /// Notes what became of the fetch of a payload.
    pub(super) fn finish_payload(&mut self, payload: BlobHash, outcome: Result<(), FetchFault>, now_ms: u64) {
        self.finish(&Wanted::Payload(payload), outcome, now_ms);
    }

    /// Notes what became of the fetch of a manifest.
    pub(super) fn finish_manifest(&mut self, blob: BlobHash, len: u32, outcome: Result<(), FetchFault>, now_ms: u64) {
        self.finish(&Wanted::Manifest(blob, len), outcome, now_ms);
    }

    fn finish(&mut self, wanted: &Wanted, outcome: Result<(), FetchFault>, now_ms: u64) {
        let Some(job) = self.jobs.get_mut(wanted) else { return };
        if matches!(job.state, JobState::Here | JobState::Malformed) {
            return;
        }
        let state = match outcome {
            Ok(()) => JobState::Here,
            Err(FetchFault::Malformed) => JobState::Malformed,
            Err(FetchFault::Unavailable) => {
                let pause = PAUSE_MS.saturating_mul(1 << job.failures.min(8)).min(PAUSE_MS_MAX);
                job.failures = job.failures.saturating_add(1);
                JobState::Due { at_ms: now_ms.saturating_add(pause) }
            }
        };
        self.change(wanted, state);
    }

    /// Gives a blob another state.
    fn change(&mut self, wanted: &Wanted, state: JobState) {
        let Some(job) = self.jobs.get_mut(wanted) else { return };
        let before = core::mem::replace(&mut job.state, state);
        if let Some(due_ms) = before.due_ms() {
            self.awaited.remove(&(due_ms, *wanted));
        }
        if let Some(due_ms) = state.due_ms() {
            self.awaited.insert((due_ms, *wanted));
        }
    }

    /// A payload that was here is gone, as the disk tells: it is asked for again.
    pub(super) fn lost(&mut self, payload: &BlobHash, now_ms: u64) {
        if self.is_here(payload) {
            self.change(&Wanted::Payload(*payload), JobState::Due { at_ms: now_ms.saturating_add(PAUSE_MS) });
        }
    }

    /// Emits the fetches that are due.
    pub(super) fn drive(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        let due: Vec<_> = self.awaited.iter().take_while(|(at_ms, _)| *at_ms <= now_ms).map(|(_, wanted)| *wanted).collect();
        for wanted in due {
            let Some(job) = self.jobs.get(&wanted).filter(|job| !job.providers.is_empty()) else { continue };
            // After a failure another provider comes first.
            let turn = job.failures as usize % job.providers.len();
            let mut providers = job.providers.clone();
            providers.rotate_left(turn);
            out.push(Effect::Fetch { blob: wanted.blob(), len: job.len, providers, what: job.what.clone() });
            self.change(&wanted, JobState::Asked { at_ms: now_ms });
        }
    }

    /// Forgets the blobs of rounds before `step`.
    pub(super) fn forget_before(&mut self, step: Step) {
        self.jobs.retain(|_, job| match &job.what {
            Fetching::Payload(result) => result.round.step >= step,
            Fetching::Manifest { round, .. } => round.step >= step,
        });
        self.awaited.retain(|(_, wanted)| self.jobs.contains_key(wanted));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use psyche_messages::{BatchInterval, ResultAnnounced};

    use super::*;

    const BLOB: BlobHash = BlobHash([1; 32]);

    fn manifest() -> Fetching {
        Fetching::Manifest { round: RoundKey::new(0, 4), root: [0; 32] }
    }

    fn payload() -> Fetching {
        Fetching::Payload(ResultAnnounced {
            round: RoundKey::new(0, 4),
            trainer: Address([3; 32]),
            batch: BatchInterval::new(0, 1).unwrap(),
            payload: BLOB,
            payload_len: 9,
        })
    }

    #[test]
    fn a_blob_that_is_announced_as_several_things_is_fetched_as_each_of_them() {
        let (liar, honest) = (PeerKey([1; 32]), PeerKey([2; 32]));
        let mut fetches = Fetches::default();
        fetches.want(BLOB, 9, payload(), &[liar], 0);
        fetches.want(BLOB, 8, manifest(), &[liar], 0);
        fetches.want(BLOB, 7, manifest(), &[honest], 0);
        assert_eq!(asked(&mut fetches, 0), [vec![liar], vec![honest], vec![liar]]);
        fetches.finish_manifest(BLOB, 7, Ok(()), 1);
        fetches.finish_manifest(BLOB, 8, Err(FetchFault::Malformed), 1);
        assert!(!fetches.is_here(&BLOB) && !fetches.is_malformed(&BLOB), "as a payload it is still awaited");
        assert_eq!(fetches.awaited_manifest(&BLOB, 7), None);
    }

    fn asked(fetches: &mut Fetches, now_ms: u64) -> Vec<Vec<PeerKey>> {
        let mut out = Vec::new();
        fetches.drive(now_ms, &mut out);
        out.into_iter()
            .filter_map(|effect| if let Effect::Fetch { providers, .. } = effect { Some(providers) } else { None })
            .collect()
    }

    #[test]
    fn a_failed_fetch_is_repeated_with_another_provider_after_a_growing_pause() {
        let (a, b) = (PeerKey([1; 32]), PeerKey([2; 32]));
        let mut fetches = Fetches::default();
        fetches.want(BLOB, 9, manifest(), &[a, b], 0);
        assert_eq!(asked(&mut fetches, 0), [vec![a, b]]);
        assert!(asked(&mut fetches, 1).is_empty());
        fetches.finish_manifest(BLOB, 9, Err(FetchFault::Unavailable), 10);
        assert!(asked(&mut fetches, 309).is_empty());
        assert_eq!(asked(&mut fetches, 310), [vec![b, a]]);
        fetches.finish_manifest(BLOB, 9, Err(FetchFault::Unavailable), 400);
        assert!(asked(&mut fetches, 999).is_empty());
        assert_eq!(asked(&mut fetches, 1000), [vec![a, b]]);
        fetches.finish_manifest(BLOB, 9, Ok(()), 1001);
        assert_eq!(fetches.awaited_manifest(&BLOB, 9), None);
        assert!(asked(&mut fetches, 1_000_000).is_empty());
    }

    #[test]
    fn a_malformed_blob_stays_malformed() {
        let mut fetches = Fetches::default();
        fetches.want(BLOB, 9, payload(), &[PeerKey([1; 32])], 0);
        assert_eq!(asked(&mut fetches, 0).len(), 1);
        fetches.finish_payload(BLOB, Err(FetchFault::Malformed), 1);
        fetches.finish_payload(BLOB, Ok(()), 2);
        assert!(fetches.is_malformed(&BLOB) && !fetches.is_here(&BLOB));
        fetches.forget_before(Step(5));
        assert!(!fetches.is_malformed(&BLOB));
    }

    #[test]
    fn a_lost_answer_is_asked_for_again() {
        let mut fetches = Fetches::default();
        fetches.want(BLOB, 9, manifest(), &[PeerKey([1; 32])], 0);
        assert_eq!(asked(&mut fetches, 0).len(), 1);
        assert_eq!(asked(&mut fetches, ANSWER_MS).len(), 1);
    }
}
