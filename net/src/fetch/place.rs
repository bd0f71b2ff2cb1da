//! A transfer's place among those under way, which are bounded. Whoever gets nowhere lets others go first: blobs that are announced
//! and never served must not keep those away that are.

use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::error::FetchError;

/// How long a transfer keeps its place without getting any part of its blob, while others wait.
const KEEPS: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Place<'a> {
    permits: &'a Semaphore,
    permit: Option<SemaphorePermit<'a>>,
    since: Instant,
}

impl<'a> Place<'a> {
    /// A place under `permits` that is yet to be taken.
    pub(super) fn new(permits: &'a Semaphore) -> Self {
        Self { permits, permit: None, since: Instant::now() }
    }

    /// Takes the place, unless it is held: after those who wait for one.
    pub(super) async fn take(&mut self) -> Result<(), FetchError> {
        if self.permit.is_none() {
            self.permit = Some(self.permits.acquire().await.map_err(|_| FetchError::Closed)?);
            self.since = Instant::now();
        }
        Ok(())
    }

    /// Gives the place to others.
    pub(super) fn leave(&mut self) {
        self.permit = None;
    }

    /// Whether it was given to others.
    pub(super) const fn is_left(&self) -> bool {
        self.permit.is_none()
    }

    /// Notes that a part has come.
    pub(super) fn note(&mut self) {
        self.since = Instant::now();
    }

    /// When [`Place::pass`] gives the place away.
    pub(super) fn passes_at(&self) -> Instant {
        self.since + KEEPS
    }

    /// Gives the place away and takes another one, if no part has come for too long. What is under way stays so.
    pub(super) async fn pass(&mut self) -> Result<(), FetchError> {
        if Instant::now() >= self.passes_at() {
            self.leave();
            self.take().await?;
            // Where nobody waits it is taken again at once.
            self.note();
        }
        Ok(())
    }
}
