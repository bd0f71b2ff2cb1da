//! What goes wrong in a simulation, and until when.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Everything that goes wrong. Probabilities in percent, times in milliseconds.
#[derive(Clone, Debug)]
pub(crate) struct Faults {
    /// When faults stop.
    pub until_ms: u64,
    /// Messages lost.
    pub drop: u32,
    /// Messages repeated.
    pub duplicate: u32,
    /// Longest delay of a message.
    pub delay_ms: u64,
    /// States of the account that a node never sees.
    pub drop_state: u32,
    /// Longest delay of a state.
    pub state_delay_ms: u64,
    /// Transactions that do not get through, and say so.
    pub fail_send: u32,
    /// Fetches that fail.
    pub fail_fetch: u32,
    /// Longest training of a batch.
    pub training_ms: u64,
    /// A node dies at this time and comes back after that.
    pub crash: Option<(u64, u64)>,
    /// The first two nodes are cut off from the others from this time on, for that long.
    pub partition: Option<(u64, u64)>,
}

impl Faults {
    /// A good day.
    pub(crate) const NONE: Self = Self {
        until_ms: 0,
        drop: 0,
        duplicate: 0,
        delay_ms: 100,
        drop_state: 0,
        state_delay_ms: 300,
        fail_send: 0,
        fail_fetch: 0,
        training_ms: 2_000,
        crash: None,
        partition: None,
    };

    /// A day of bad lines.
    pub(crate) fn lossy(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0xfa17);
        Self {
            until_ms: 150_000,
            drop: rng.random_range(0..25),
            duplicate: rng.random_range(0..15),
            delay_ms: rng.random_range(50..1_500),
            drop_state: rng.random_range(0..50),
            state_delay_ms: rng.random_range(100..2_500),
            fail_send: rng.random_range(0..20),
            fail_fetch: rng.random_range(0..25),
            training_ms: rng.random_range(500..9_000),
            crash: None,
            partition: None,
        }
    }

    pub(crate) fn with_crash(mut self, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0xdead);
        self.crash = Some((rng.random_range(10_000..120_000), rng.random_range(500..30_000)));
        self
    }

    pub(crate) fn with_partition(mut self, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x9a27);
        self.partition = Some((rng.random_range(10_000..80_000), rng.random_range(2_000..40_000)));
        self
    }
}
