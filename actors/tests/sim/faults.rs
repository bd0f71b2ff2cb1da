//! What goes wrong in a simulation, and until when.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What a node does that does not follow the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// Announces one result to some peers and another one to the others.
    Equivocate,
    /// Announces digests and snapshots that are not its own.
    FalseDigest,
    /// Vouches for everything, under a root that no manifest has.
    VouchForAll,
    /// Announces results and never serves them.
    Withhold,
    /// Reports to have heard from nobody.
    Slander,
    /// Serves an update log that lacks results.
    FalseLog,
}

impl Lie {
    const ALL: [Self; 5] = [Self::Equivocate, Self::FalseDigest, Self::VouchForAll, Self::Withhold, Self::Slander];
}

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
    /// Of those, how many did get through after all.
    pub false_fail: u32,
    /// Fetches that fail.
    pub fail_fetch: u32,
    /// Longest training of a batch.
    pub training_ms: u64,
    /// A node dies at this time and comes back after that.
    pub crash: Option<(u64, u64)>,
    /// All nodes die at this time and come back after that.
    pub crash_of_all: Option<(u64, u64)>,
    /// Whether a node finds its newest snapshot again when it comes back.
    pub keeps_disk: bool,
    /// The first two nodes are cut off from the others from this time on, for that long.
    pub partition: Option<(u64, u64)>,
    /// The last node's parameters break at this time.
    pub flip: Option<u64>,
    /// The last node lies.
    pub lie: Option<Lie>,
    /// The history of transactions cannot be had.
    pub no_history: bool,
    /// The owner pauses the run at this time.
    pub pause: Option<u64>,
    /// The last node has no result in every step that this divides.
    pub skip: Option<u32>,
    /// The first node starts only at this time.
    pub late: Option<u64>,
    /// Steps of the run.
    pub steps: u32,
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
        false_fail: 0,
        fail_fetch: 0,
        training_ms: 2_000,
        crash: None,
        crash_of_all: None,
        keeps_disk: false,
        partition: None,
        flip: None,
        lie: None,
        no_history: false,
        pause: None,
        skip: None,
        late: None,
        steps: 16,
    };

    /// A day of bad lines.
    pub(crate) fn lossy(seed: u64) -> Self {
        let mut rng = rng(seed, 1);
        Self {
            until_ms: 150_000,
            drop: rng.random_range(0..25),
            duplicate: rng.random_range(0..15),
            delay_ms: rng.random_range(50..1_500),
            drop_state: rng.random_range(0..50),
            state_delay_ms: rng.random_range(100..2_500),
            fail_send: rng.random_range(0..20),
            false_fail: 30,
            fail_fetch: rng.random_range(0..25),
            training_ms: rng.random_range(500..9_000),
            ..Self::NONE
        }
    }

    pub(crate) fn with_crash(mut self, seed: u64) -> Self {
        let mut rng = rng(seed, 2);
        self.crash = Some((rng.random_range(10_000..120_000), rng.random_range(500..30_000)));
        self
    }

    pub(crate) fn with_crash_of_all(mut self, seed: u64) -> Self {
        let mut rng = rng(seed, 3);
        self.crash_of_all = Some((rng.random_range(30_000..60_000), rng.random_range(500..20_000)));
        self
    }

    pub(crate) fn with_restart_of_all(mut self, seed: u64) -> Self {
        let mut rng = rng(seed, 7);
        self.keeps_disk = true;
        self.crash_of_all = Some((rng.random_range(60_000..140_000), rng.random_range(500..20_000)));
        self
    }

    pub(crate) fn with_partition(mut self, seed: u64) -> Self {
        let mut rng = rng(seed, 4);
        self.partition = Some((rng.random_range(10_000..80_000), rng.random_range(2_000..40_000)));
        self
    }

    pub(crate) fn with_flip(mut self, seed: u64) -> Self {
        self.flip = Some(rng(seed, 5).random_range(10_000..70_000));
        self
    }

    pub(crate) fn with_lie(mut self, seed: u64) -> Self {
        self.lie = Some(Lie::ALL[seed as usize % Lie::ALL.len()]);
        self
    }

    pub(crate) fn with_slander(mut self) -> Self {
        self.lie = Some(Lie::Slander);
        self
    }

    /// A node dies for as long as several rounds take.
    pub(crate) fn with_long_crash(mut self, at_ms: u64) -> Self {
        self.crash = Some((at_ms, 40_000));
        self
    }

    pub(crate) fn with_skips(mut self, every: u32) -> Self {
        self.skip = Some(every);
        self
    }

    /// The first node starts in the middle of the first epoch, or of a later one.
    pub(crate) fn with_late_start(mut self, at_ms: u64) -> Self {
        self.late = Some(at_ms);
        self
    }

    /// A run of several epochs.
    pub(crate) fn with_steps(mut self, steps: u32) -> Self {
        self.steps = steps;
        self
    }

    pub(crate) fn with_false_log(mut self) -> Self {
        self.lie = Some(Lie::FalseLog);
        self
    }

    pub(crate) fn without_history(mut self) -> Self {
        self.no_history = true;
        self
    }

    pub(crate) fn with_pause(mut self, seed: u64) -> Self {
        self.pause = Some(rng(seed, 6).random_range(5_000..80_000));
        self
    }
}

fn rng(seed: u64, purpose: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed.wrapping_mul(1_000).wrapping_add(purpose))
}
