//! Work spread over a chosen number of threads; 1 runs in the caller's thread.

use std::num::NonZeroUsize;

/// Elements that take about as long to encode or to move as a thread takes to start.
const ELEMENTS_PER_THREAD: usize = 1 << 15;

/// How many threads a call may use, the caller's included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threads(NonZeroUsize);

impl Threads {
    /// The caller's thread only: what a device worker with one core of its own wants.
    pub const ONE: Self = Self(NonZeroUsize::MIN);

    /// `count` threads; 0 counts as 1.
    pub fn new(count: usize) -> Self {
        Self(NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN))
    }

    /// The number of threads.
    pub fn count(self) -> usize {
        self.0.get()
    }

    /// As many of these threads as have work that is worth starting them for: `elements` in all.
    pub(crate) fn worth(self, elements: usize) -> Self {
        Self::new(self.count().min(elements / ELEMENTS_PER_THREAD))
    }

    /// How many items of `total` each thread takes, at least 1.
    pub(crate) fn share(self, total: usize) -> usize {
        total.div_ceil(self.0.get()).max(1)
    }
}

/// Runs `work` on every item, each but the last on a thread of its own.
pub(crate) fn scoped<I: Send>(items: impl Iterator<Item = I>, work: impl Fn(I) + Sync) {
    let mut items: Vec<I> = items.collect();
    let last = items.pop();
    std::thread::scope(|scope| {
        for item in items {
            let work = &work;
            scope.spawn(move || work(item));
        }
        if let Some(item) = last {
            work(item);
        }
    });
}

/// As [`scoped`], for work that can fail: the first error in the order of the items.
pub(crate) fn try_scoped<I: Send, E: Send>(
    items: impl Iterator<Item = I>,
    work: impl Fn(I) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let items: Vec<I> = items.collect();
    let mut results: Vec<Result<(), E>> = items.iter().map(|_| Ok(())).collect();
    scoped(items.into_iter().zip(&mut results), |(item, result)| *result = work(item));
    results.into_iter().collect()
}
