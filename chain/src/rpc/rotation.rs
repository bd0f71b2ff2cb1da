//! Which endpoint is asked first. Pure: the caller brings the clock.

use std::time::{Duration, Instant};

/// Remembers which endpoint is good, and which ones rest after a failure.
#[derive(Debug)]
pub(crate) struct Rotation {
    current: usize,
    resting_until: Vec<Option<Instant>>,
    cooldown: Duration,
}

impl Rotation {
    pub(crate) fn new(endpoints: usize, cooldown: Duration) -> Self {
        Self { current: 0, resting_until: vec![None; endpoints], cooldown }
    }

    /// Every endpoint once: from the current one onwards those that do not rest, then those that do, the soonest rested
    /// first, since a resting endpoint is still better than none.
    pub(crate) fn order(&self, now: Instant) -> Vec<usize> {
        let count = self.resting_until.len();
        let mut order: Vec<usize> = (0..count).map(|step| (self.current + step) % count.max(1)).collect();
        order.sort_by_key(|index| self.resting(*index, now));
        order
    }

    /// Those that do not rest, or all where all do.
    pub(crate) fn awake(&self, now: Instant) -> Vec<usize> {
        let all = || 0..self.resting_until.len();
        let awake: Vec<usize> = all().filter(|index| self.resting(*index, now).is_none()).collect();
        if awake.is_empty() { all().collect() } else { awake }
    }

    fn resting(&self, index: usize, now: Instant) -> Option<Instant> {
        self.resting_until.get(index).copied().flatten().filter(|until| *until > now)
    }

    /// Sends `index` to rest, and makes the next rested endpoint the current one.
    pub(crate) fn failed(&mut self, index: usize, now: Instant) {
        if let Some(until) = self.resting_until.get_mut(index) {
            *until = Some(now + self.cooldown);
        }
        if index == self.current
            && let Some(first) = self.order(now).first()
        {
            self.current = *first;
        }
    }

    /// Remembers `index` as the endpoint that answers.
    pub(crate) fn answered(&mut self, index: usize) {
        if let Some(until) = self.resting_until.get_mut(index) {
            *until = None;
            self.current = index;
        }
    }

    pub(crate) const fn current(&self) -> usize {
        self.current
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COOLDOWN: Duration = Duration::from_secs(10);

    #[test]
    fn the_endpoint_that_answers_stays_the_first() {
        let mut rotation = Rotation::new(3, COOLDOWN);
        let now = Instant::now();
        assert_eq!(rotation.order(now), [0, 1, 2]);
        rotation.answered(1);
        assert_eq!(rotation.order(now), [1, 2, 0]);
    }

    #[test]
    fn a_failed_endpoint_is_asked_last_until_its_cooldown_ends() {
        let mut rotation = Rotation::new(3, COOLDOWN);
        let now = Instant::now();
        rotation.failed(0, now);
        assert_eq!((rotation.current(), rotation.order(now)), (1, vec![1, 2, 0]));
        rotation.failed(1, now + Duration::from_secs(1));
        assert_eq!(rotation.order(now + Duration::from_secs(2)), [2, 0, 1]);
        assert_eq!(rotation.order(now + COOLDOWN), [2, 0, 1]);
        assert_eq!(rotation.order(now + COOLDOWN * 2), [2, 0, 1]);
    }

    #[test]
    fn with_every_endpoint_resting_the_soonest_rested_is_tried_first() {
        let mut rotation = Rotation::new(2, COOLDOWN);
        let now = Instant::now();
        rotation.failed(0, now);
        rotation.failed(1, now + Duration::from_secs(1));
        assert_eq!(rotation.order(now + Duration::from_secs(2)), [0, 1]);
    }

    #[test]
    fn a_single_endpoint_is_always_tried() {
        let mut rotation = Rotation::new(1, COOLDOWN);
        let now = Instant::now();
        rotation.failed(0, now);
        assert_eq!(rotation.order(now), [0]);
    }
}
