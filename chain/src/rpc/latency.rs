//! How fast an endpoint answers, from a bounded window of its latest answers. Pure.

use std::time::Duration;

/// Answers that are remembered.
const WINDOW: usize = 64;
/// Answers before anything is said about the slowest of them.
const SAMPLES_MIN: usize = 8;
/// The weight of a new sample in the moving average is one in so many.
const WEIGHT: u32 = 8;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Latency {
    window: Vec<u32>,
    next: usize,
    average_micros: Option<u32>,
    /// The latest outcomes, a set bit for a failure.
    outcomes: u64,
    outcomes_len: u32,
    requests: u64,
    failures: u64,
}

impl Latency {
    /// Notes an answer that took `elapsed`, or that after `elapsed` it was not waited for any longer.
    pub(crate) fn note(&mut self, elapsed: Duration) {
        let micros = u32::try_from(elapsed.as_micros()).unwrap_or(u32::MAX);
        match self.window.get_mut(self.next) {
            Some(slot) => *slot = micros,
            None => self.window.push(micros),
        }
        self.next = (self.next + 1) % WINDOW;
        let average = self.average_micros.unwrap_or(micros);
        // average + (micros − average) / WEIGHT, without going below zero.
        self.average_micros = Some(average - average / WEIGHT + micros / WEIGHT);
    }

    /// Notes whether a request failed.
    pub(crate) fn outcome(&mut self, failed: bool) {
        self.outcomes = self.outcomes << 1 | u64::from(failed);
        self.outcomes_len = (self.outcomes_len + 1).min(u64::BITS);
        self.requests += 1;
        self.failures += u64::from(failed);
    }

    /// Answers and failures since the beginning, and how many of them were failures.
    pub(crate) const fn totals(&self) -> (u64, u64) {
        (self.requests, self.failures)
    }

    /// The exponentially weighted moving average.
    pub(crate) fn average(&self) -> Option<Duration> {
        self.average_micros.map(|micros| Duration::from_micros(micros.into()))
    }

    /// What nineteen of twenty answers in the window stayed below; `None` before there are enough.
    pub(crate) fn p95(&self) -> Option<Duration> {
        if self.window.len() < SAMPLES_MIN {
            return None;
        }
        let mut sorted = self.window.clone();
        sorted.sort_unstable();
        let index = (sorted.len() * 95).div_ceil(100).saturating_sub(1);
        sorted.get(index).map(|micros| Duration::from_micros((*micros).into()))
    }

    /// The share of failures among the latest 64 outcomes, 0 to 1; 0 before there are any.
    pub(crate) fn error_rate(&self) -> f32 {
        let failed = u8::try_from(self.outcomes.count_ones()).unwrap_or(u8::MAX);
        let all = u8::try_from(self.outcomes_len.max(1)).unwrap_or(u8::MAX);
        f32::from(failed) / f32::from(all)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use proptest::prelude::*;

    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn nothing_is_said_about_the_slowest_answers_before_there_are_enough() {
        let mut latency = Latency::default();
        assert_eq!((latency.average(), latency.p95()), (None, None));
        (0..7).for_each(|_| latency.note(MS(10)));
        assert_eq!((latency.average(), latency.p95()), (Some(MS(10)), None));
        latency.note(MS(10));
        assert_eq!(latency.p95(), Some(MS(10)));
    }

    #[test]
    fn one_slow_answer_in_twenty_does_not_move_the_p95_and_two_do() {
        let mut latency = Latency::default();
        (0..19).for_each(|_| latency.note(MS(10)));
        latency.note(MS(900));
        assert_eq!(latency.p95(), Some(MS(10)));
        latency.note(MS(900));
        assert_eq!(latency.p95(), Some(MS(900)));
    }

    #[test]
    fn old_answers_are_forgotten() {
        let mut latency = Latency::default();
        (0..WINDOW).for_each(|_| latency.note(MS(900)));
        (0..WINDOW).for_each(|_| latency.note(MS(10)));
        assert_eq!(latency.p95(), Some(MS(10)));
        assert!(latency.average().unwrap() < MS(12));
        (0..64).for_each(|_| latency.outcome(true));
        assert!(latency.error_rate() > 0.99);
        (0..64).for_each(|_| latency.outcome(false));
        assert_eq!(latency.totals(), (128, 64));
        assert!(latency.error_rate() < 0.01);
    }

    proptest! {
        #[test]
        fn prop_the_window_is_bounded_and_its_figures_lie_within_what_was_seen(
            samples in proptest::collection::vec(0_u64..u64::from(u32::MAX), 1..300)
        ) {
            let mut latency = Latency::default();
            for micros in &samples {
                latency.note(Duration::from_micros(*micros));
                latency.outcome(micros % 2 == 0);
            }
            let micros = |d: Duration| u64::try_from(d.as_micros()).unwrap();
            let recent = &samples[samples.len().saturating_sub(WINDOW)..];
            prop_assert!(latency.window.len() <= WINDOW);
            prop_assert!(micros(latency.average().unwrap()) <= *samples.iter().max().unwrap());
            prop_assert!(latency.p95().is_none_or(|p95| recent.contains(&micros(p95))));
            prop_assert!((0.0..=1.0).contains(&latency.error_rate()));
        }
    }
}
