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
    /// Serves bytes that are no payload.
    Garbage,
    /// Says again what it and others said before, and passes its last result for its next one.
    Replay,
    /// Passes another trainer's payload for its own.
    Copy,
    /// Announces nothing at all.
    Absent,
    /// Announces its result for a batch that is another trainer's.
    WrongBatch,
    /// Announces the others' manifest as its payload.
    Mislabel,
    /// Names another step in its reports than the one they are about.
    OtherStep,
}

impl Lie {
    const ALL: [Self; 13] = [
        Self::Equivocate,
        Self::FalseDigest,
        Self::VouchForAll,
        Self::Withhold,
        Self::Slander,
        Self::Garbage,
        Self::Replay,
        Self::Copy,
        Self::Absent,
        Self::WrongBatch,
        Self::FalseLog,
        Self::Mislabel,
        Self::OtherStep,
    ];
}

/// A node's stay in the run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Visit {
    pub node: usize,
    /// When it starts for the first time.
    pub from_ms: u64,
    /// When it leaves, if it does.
    pub until_ms: Option<u64>,
    /// When it comes back, if it does.
    pub again_ms: Option<u64>,
}

/// A time during which a node's endpoints are down: it sees no state, and what it sends fails.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outage {
    pub node: usize,
    pub from_ms: u64,
    pub for_ms: u64,
}

/// Everything that goes wrong. Probabilities in percent, times in milliseconds.
#[derive(Clone, Debug)]
pub(crate) struct Faults {
    /// Whether everything may go wrong together.
    pub is_mixed: bool,
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
    /// Of those that fail, how many land up to half a minute later.
    pub lands_late: u32,
    /// Fetches that fail.
    pub fail_fetch: u32,
    /// Longest training of a batch.
    pub training_ms: u64,
    /// What every sample takes, exactly, instead.
    pub sample_ms: Option<u64>,
    /// A node dies at this time and comes back after that.
    pub crash: Option<(u64, u64)>,
    /// All nodes die at this time and come back after that.
    pub crash_of_all: Option<(u64, u64)>,
    /// Whether a node finds its newest snapshot again when it comes back.
    pub keeps_disk: bool,
    /// Nodes that find an empty disk nevertheless.
    pub lost_disks: Vec<usize>,
    /// A node that takes that long for a batch.
    pub slow: Option<(usize, u64)>,
    /// Endpoints that are down.
    pub outages: Vec<Outage>,
    /// Nodes that come late or leave; all others are there from the beginning to the end.
    pub visits: Vec<Visit>,
    /// The first two nodes are cut off from the others from this time on, for that long.
    pub partition: Option<(u64, u64)>,
    /// The last node's parameters break at this time.
    pub flip: Option<u64>,
    /// The last node lies.
    pub lie: Option<Lie>,
    /// Questions to the history of transactions that are not answered.
    pub fail_history: u32,
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
        is_mixed: false,
        until_ms: 0,
        drop: 0,
        duplicate: 0,
        delay_ms: 100,
        drop_state: 0,
        state_delay_ms: 300,
        fail_send: 0,
        false_fail: 0,
        lands_late: 0,
        slow: None,
        outages: Vec::new(),
        visits: Vec::new(),
        fail_fetch: 0,
        training_ms: 2_000,
        sample_ms: None,
        crash: None,
        crash_of_all: None,
        keeps_disk: false,
        lost_disks: Vec::new(),
        partition: None,
        flip: None,
        lie: None,
        fail_history: 0,
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
            lands_late: 20,
            fail_fetch: rng.random_range(0..25),
            fail_history: 30,
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

    /// All nodes die, and some of them, but not all, lose their disks.
    pub(crate) fn with_disks_of_some(mut self, seed: u64, nodes: usize) -> Self {
        self = self.with_restart_of_all(seed);
        let mut rng = rng(seed, 12);
        let kept = rng.random_range(0..nodes);
        self.lost_disks = (0..nodes).filter(|node| *node != kept && rng.random()).collect();
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

    /// A node trains for longer than a round lasts, or nearly.
    pub(crate) fn with_slow_node(mut self, seed: u64, nodes: usize) -> Self {
        let mut rng = rng(seed, 8);
        self.slow = Some((rng.random_range(0..nodes), rng.random_range(8_000..25_000)));
        self
    }

    /// One node after the other, or several at once, lose their view of the chain.
    pub(crate) fn with_outages(mut self, seed: u64, nodes: usize) -> Self {
        let mut rng = rng(seed, 9);
        for _ in 0..rng.random_range(1..=4) {
            let (node, from_ms) = (rng.random_range(0..nodes), rng.random_range(2_000..120_000));
            self.outages.push(Outage { node, from_ms, for_ms: rng.random_range(1_000..25_000) });
        }
        self
    }

    /// The nodes beyond the first three come late or leave.
    pub(crate) fn with_churn(mut self, seed: u64, nodes: usize) -> Self {
        let mut rng = rng(seed, 10);
        for node in 3..nodes {
            let from_ms = if rng.random() { 0 } else { rng.random_range(0..100_000) };
            let until_ms = rng.random::<bool>().then(|| from_ms + rng.random_range(20_000..100_000));
            let again_ms = until_ms.filter(|_| rng.random()).map(|until_ms| until_ms + rng.random_range(1_000..60_000));
            self.visits.push(Visit { node, from_ms, until_ms, again_ms });
        }
        self.keeps_disk = rng.random();
        self
    }

    /// Whatever the seed draws.
    pub(crate) fn mixed(seed: u64, nodes: usize) -> Self {
        let mut rng = rng(seed, 11);
        let mut faults = if rng.random_range(0..5) == 0 { Self { until_ms: 150_000, ..Self::NONE } } else { Self::lossy(seed) };
        let mut draw = |percent: u32| rng.random_range(0..100) < percent;
        if draw(40) {
            faults = faults.with_crash(seed);
        }
        if draw(25) {
            faults = faults.with_partition(seed);
        }
        if draw(30) {
            faults = faults.with_slow_node(seed, nodes);
        }
        if draw(40) {
            faults = faults.with_outages(seed, nodes);
        }
        if draw(40) {
            faults = faults.with_churn(seed, nodes);
        }
        if draw(20) {
            faults = faults.with_pause(seed);
        }
        if draw(10) {
            faults = faults.with_crash_of_all(seed);
        } else if draw(10) {
            faults = faults.with_restart_of_all(seed);
        }
        // One node at most is not to be trusted, so that the others are a quorum.
        if draw(30) {
            faults = faults.with_lie(seed);
        } else if draw(15) {
            faults = faults.with_flip(seed);
        } else if draw(15) {
            faults = faults.with_skips(5);
        }
        faults.keeps_disk |= draw(50);
        faults.is_mixed = true;
        faults
    }

    /// When the last fault is over, in milliseconds.
    pub(crate) fn last_ms(&self) -> u64 {
        let pairs = [self.crash, self.crash_of_all, self.partition].into_iter().flatten();
        let pairs = pairs.map(|(from_ms, for_ms)| from_ms + for_ms);
        let outages = self.outages.iter().map(|outage| outage.from_ms + outage.for_ms);
        let last_of = |visit: &Visit| visit.again_ms.or(visit.until_ms).unwrap_or(visit.from_ms);
        let others = outages.chain(self.visits.iter().map(last_of)).chain(self.pause).chain(self.flip).chain(self.late);
        pairs.chain(others).max().unwrap_or(0).max(self.until_ms)
    }

    /// Whether a node sees nothing of the chain at that time.
    pub(crate) fn is_blind(&self, node: usize, at_ms: u64) -> bool {
        let covers = |outage: &Outage| outage.node == node && (outage.from_ms..outage.from_ms + outage.for_ms).contains(&at_ms);
        self.outages.iter().any(covers)
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

    pub(crate) fn with_false_steps(mut self) -> Self {
        self.lie = Some(Lie::OtherStep);
        self
    }

    pub(crate) fn with_mislabelled_manifests(mut self) -> Self {
        self.lie = Some(Lie::Mislabel);
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
