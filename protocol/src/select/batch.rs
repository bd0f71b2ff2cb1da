//! Who trains which samples: global batch size and assignment.

use super::Selection;
use crate::layout::{Committee, Config, MAX_CLIENTS, Round};
use crate::num::{product_at_most, wide_mul};

/// Samples of the global batch that begins at `data_index`: `global_batch_size_start` growing in a straight line to
/// `global_batch_size_end` over the warm-up tokens, rounded half away from zero, in exact arithmetic.
#[must_use]
pub const fn global_batch_size(config: &Config, data_index: u64, max_seq_len: u32) -> u16 {
    let (start, end) = (config.global_batch_size_start, config.global_batch_size_end);
    let warmup = config.global_batch_size_warmup_tokens;
    let (beyond, tokens) = wide_mul(data_index, max_seq_len as u64);
    if beyond != 0 || tokens >= warmup || end <= start {
        return end;
    }
    // The rounded increment is the largest q with (2q - 1) * warmup <= 2 * (end - start) * tokens.
    let growth = (end - start) as u64;
    let (mut low, mut high) = (0u64, growth);
    while low < high {
        let middle = (low + high).div_ceil(2);
        if product_at_most(2 * middle - 1, warmup, 2 * growth, tokens) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    start + low as u16
}

/// A closed interval of sample indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId {
    /// First sample.
    pub start: u64,
    /// Last sample.
    pub end: u64,
}

impl BatchId {
    /// How many samples; at least one in every interval that an assignment gives.
    #[must_use]
    pub const fn samples(&self) -> u64 {
        self.end.saturating_sub(self.start).saturating_add(1)
    }

    /// Whether `sample` is one of them.
    #[must_use]
    pub const fn contains(&self, sample: u64) -> bool {
        self.start <= sample && sample <= self.end
    }
}

/// One client's part of a round's global batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// Index into the round's clients.
    pub client: u16,
    /// Its samples.
    pub batch: BatchId,
}

/// A round's global batch, cut into one interval per trainer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Trainers in the order of their intervals; only the first `owners` count.
    order: [u16; MAX_CLIENTS],
    /// How many trainers own a non-empty interval.
    owners: u16,
    /// Samples of the smaller intervals.
    share: u16,
    /// How many of the first intervals are larger by one.
    larger: u16,
    data_index: u64,
}

impl Assignment {
    /// The assignment of `round` for clients that `selection` made of it.
    #[must_use]
    pub fn new(round: &Round, selection: &Selection, global_batch: u16) -> Self {
        let mut order = [0u16; MAX_CLIENTS];
        let mut trainers = 0usize;
        for client in 0..round.clients_len {
            let trains = selection.all_train()
                || selection.committee(u64::from(client)).is_some_and(|proof| proof.committee == Committee::Trainer);
            if let (true, Some(slot)) = (trains, order.get_mut(trainers)) {
                *slot = client;
                trainers += 1;
            }
        }
        if let Some(trainers) = order.get_mut(..trainers) {
            shuffle(trainers, round.random_seed);
        }
        let count = trainers as u16;
        let (share, larger) = match count {
            0 => (0, 0),
            count => (global_batch / count, global_batch % count),
        };
        let owners = if share == 0 { larger } else { count };
        Self { order, owners, share, larger, data_index: round.data_index }
    }

    /// How many clients have something to train.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.owners as usize
    }

    /// Whether nobody has anything to train.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.owners == 0
    }

    /// Every client's part, in the order of the samples.
    pub fn iter(&self) -> impl Iterator<Item = Assigned> {
        (0..self.owners).filter_map(|at| self.at(at))
    }

    fn at(&self, at: u16) -> Option<Assigned> {
        let client = *self.order.get(usize::from(at))?;
        let before = u64::from(at) * u64::from(self.share) + u64::from(at.min(self.larger));
        let samples = u64::from(self.share) + u64::from(at < self.larger);
        let start = self.data_index.saturating_add(before);
        let end = start.saturating_add(samples.saturating_sub(1));
        Some(Assigned { client, batch: BatchId { start, end } })
    }

    /// The part of the client at `index`, if it has one.
    #[must_use]
    pub fn of_client(&self, index: u16) -> Option<BatchId> {
        self.iter().find(|assigned| assigned.client == index).map(|assigned| assigned.batch)
    }

    /// Whose part exactly `batch` is.
    #[must_use]
    pub fn owner_of(&self, batch: &BatchId) -> Option<u16> {
        self.iter().find(|assigned| assigned.batch == *batch).map(|assigned| assigned.client)
    }
}

/// Fisher-Yates from the last index down, drawing from a 64-bit linear congruential generator.
fn shuffle(items: &mut [u16], seed: u64) {
    let mut state = seed;
    for at in (1..items.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        items.swap(at, (state % (at as u64 + 1)) as usize);
    }
}
