//! A reusable rendezvous of a fixed number of threads that lend each other references.
//!
//! Every rank brings a reference; when all are there, each reads all of them; nobody leaves before everybody has
//! finished reading. That last rule is what makes lending sound, and it holds also when a rank panics or gives up.
//! Waiting for others to *arrive* is bounded and ends at once when a rank fails: the failure is delivered to every rank
//! as a typed error. Waiting for others to finish *reading* is neither, because readers only copy memory.

use std::any::TypeId;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::GpuError;

/// How often a rank looks whether the others have come before it goes to sleep, some ten microseconds in all: a waking
/// thread takes about as long. Only where every rank can have a core; elsewhere it would keep the others from coming.
const LOOKS: u32 = 300;

/// Why a meeting no longer takes place.
#[derive(Debug, Clone)]
pub(crate) enum Breakdown {
    /// For good: rank and what it said.
    Failed { rank: usize, reason: String },
    /// Until all ranks have rejoined.
    Aborted { rank: usize },
    /// Somebody did not arrive in time; for good.
    TimedOut { missing: Vec<usize>, waited: Duration },
    /// Ranks brought different things; for good.
    Desynchronised { rank: usize },
}

impl From<Breakdown> for GpuError {
    fn from(breakdown: Breakdown) -> Self {
        match breakdown {
            Breakdown::Failed { rank, reason } => Self::MeshPoisoned { rank, reason },
            Breakdown::Aborted { rank } => Self::MeshAborted { rank },
            Breakdown::TimedOut { missing, waited } => {
                Self::MeshTimeout { missing, waited_ms: u64::try_from(waited.as_millis()).unwrap_or(u64::MAX) }
            }
            Breakdown::Desynchronised { rank } => Self::MeshDesynchronised { rank },
        }
    }
}

/// A lent reference with its type forgotten.
#[derive(Clone, Copy)]
struct Lent {
    pointer: *const (),
    of: TypeId,
}

// SAFETY: a `Lent` is only made from `&T` with `T: Sync`, so that the pointer may be read from any thread.
unsafe impl Send for Lent {}

struct State {
    lent: Vec<Option<Lent>>,
    /// Counts completed arrivals; a waiting rank recognises by it that its own meeting took place.
    generation: u64,
    /// Ranks of the current generation that have not finished reading.
    readers: usize,
    breakdown: Option<Breakdown>,
}

/// The rendezvous of `size` ranks.
pub(crate) struct Meeting {
    size: usize,
    wait_max: Duration,
    looks: u32,
    state: Mutex<State>,
    changed: Condvar,
    /// Moves with every change of the state that somebody may wait for; only a hint to look at the state itself.
    hint: AtomicU64,
}

/// Ends this rank's reading, also when `read` panics, and then waits for the other readers.
struct Reading<'a> {
    meeting: &'a Meeting,
    rank: usize,
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let mut state = self.meeting.lock();
        if std::thread::panicking() && state.breakdown.is_none() {
            state.breakdown = Some(Breakdown::Failed { rank: self.rank, reason: "it panicked".to_owned() });
        }
        state.readers -= 1;
        if state.readers == 0 {
            state.lent.fill(None);
            self.meeting.announce();
        }
        // The next meeting needs this rank, so that `readers` can't rise again before it has left.
        if state.readers > 0 {
            state = self.meeting.look_out(state);
        }
        while state.readers > 0 {
            state = self.meeting.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Meeting {
    pub(crate) fn new(size: usize, wait_max: Duration) -> Self {
        let state = State { lent: vec![None; size], generation: 0, readers: 0, breakdown: None };
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let looks = if size <= cores { LOOKS } else { 0 };
        Self { size, wait_max, looks, state: Mutex::new(state), changed: Condvar::new(), hint: AtomicU64::new(0) }
    }

    /// Tells waiting ranks that the state, which the caller has locked, has changed.
    fn announce(&self) {
        self.hint.fetch_add(1, Ordering::Release);
        self.changed.notify_all();
    }

    /// Waits a little for the next change without going to sleep; the state is unlocked meanwhile.
    fn look_out<'a>(&'a self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let before = self.hint.load(Ordering::Relaxed);
        drop(state);
        for _ in 0..self.looks {
            if self.hint.load(Ordering::Acquire) != before {
                break;
            }
            std::hint::spin_loop();
        }
        self.lock()
    }

    /// Sleeps until this meeting breaks down, `most` at the longest; anything else that happens may end it, too.
    pub(crate) fn pause(&self, most: Duration) {
        let state = self.lock();
        if state.breakdown.is_none() {
            drop(self.changed.wait_timeout(state, most));
        }
    }

    /// Why this meeting does not take place, if it does not.
    pub(crate) fn breakdown(&self) -> Option<Breakdown> {
        self.lock().breakdown.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code of ours panics while it holds the lock, so the state is whole even if the lock is poisoned.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes every present and future exchange fail with `breakdown`, unless an earlier one stands.
    pub(crate) fn break_down(&self, breakdown: Breakdown) {
        let mut state = self.lock();
        let replaceable = matches!(state.breakdown, None | Some(Breakdown::Aborted { .. }));
        if replaceable {
            state.breakdown = Some(breakdown);
            self.announce();
        }
    }

    /// Forgets an abort and who had arrived before it. The caller makes sure that no rank is inside an exchange.
    pub(crate) fn reset_after_abort(&self) {
        let mut state = self.lock();
        if matches!(state.breakdown, Some(Breakdown::Aborted { .. })) {
            state.breakdown = None;
            state.lent.fill(None);
        }
    }

    /// Lends `mine` to all ranks and gives `read` what all of them lend, by rank.
    ///
    /// All ranks must call this with the same `T`; otherwise all of them fail.
    ///
    /// # Errors
    /// A breakdown of this meeting; then `read` did not run.
    pub(crate) fn exchange<T: Sync + 'static, R>(
        &self,
        rank: usize,
        mine: &T,
        read: impl FnOnce(&[&T]) -> R,
    ) -> Result<R, GpuError> {
        let lent = self.arrive(rank, Lent { pointer: std::ptr::from_ref(mine).cast(), of: TypeId::of::<T>() })?;
        let reading = Reading { meeting: self, rank };
        // SAFETY: `arrive` has checked that all ranks lend a `T` (`TypeId`s are equal), `T` is `Sync`, and each lender
        // keeps its reference alive until its own `Reading` is dropped, which waits for all readers of this generation.
        let all: Vec<&T> = lent.iter().map(|lent| unsafe { &*lent.pointer.cast::<T>() }).collect();
        let result = read(&all);
        drop(reading);
        Ok(result)
    }

    /// Waits until all ranks have brought something and returns it; this rank then counts as a reader.
    fn arrive(&self, rank: usize, mine: Lent) -> Result<Vec<Lent>, GpuError> {
        let deadline = Instant::now() + self.wait_max;
        let mut state = self.lock();
        if let Some(breakdown) = &state.breakdown {
            return Err(breakdown.clone().into());
        }
        if state.lent[rank].replace(mine).is_some() {
            return Err(self.fail(&mut state, Breakdown::Desynchronised { rank }));
        }
        if state.lent.iter().all(Option::is_some) {
            if state.lent.iter().flatten().any(|lent| lent.of != mine.of) {
                return Err(self.fail(&mut state, Breakdown::Desynchronised { rank }));
            }
            state.generation += 1;
            state.readers = self.size;
            self.announce();
            return Ok(state.lent.iter().flatten().copied().collect());
        }
        let before = state.generation;
        state = self.look_out(state);
        loop {
            // The generation is looked at first: once it has moved this rank is counted as a reader and must read.
            if state.generation != before {
                return Ok(state.lent.iter().flatten().copied().collect());
            }
            if let Some(breakdown) = &state.breakdown {
                return Err(breakdown.clone().into());
            }
            let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else {
                let missing = (0..self.size).filter(|&rank| state.lent[rank].is_none()).collect();
                return Err(self.fail(&mut state, Breakdown::TimedOut { missing, waited: self.wait_max }));
            };
            (state, _) = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn fail(&self, state: &mut State, breakdown: Breakdown) -> GpuError {
        state.breakdown = Some(breakdown.clone());
        self.announce();
        breakdown.into()
    }
}
