//! The chain's clock between two readings.
//!
//! The programs count whole seconds of the chain's clock, which on a local chain may run faster than the machine's. The
//! estimate interpolates between readings of the Clock sysvar at the speed that past readings show, and never runs ahead of
//! what the next reading can say by more than the interval between readings.

use std::collections::VecDeque;

use psyche_messages::ChainTime;

/// Readings that the speed is estimated from.
const READINGS_MAX: usize = 16;
/// Readings closer together than this say little about the speed.
const SPAN_MS_MIN: u64 = 2_000;
/// The fastest chain that is believed, in chain seconds per real second.
const SPEED_MAX: f64 = 1_000.0;
/// Longest time that is interpolated from one reading.
const EXTRAPOLATION_MS_MAX: u64 = 10_000;

/// Estimates the chain's time; fed with readings, asked with the machine's monotonic clock.
#[derive(Debug, Default)]
pub struct ChainClock {
    readings: VecDeque<Reading>,
}

#[derive(Clone, Copy, Debug)]
struct Reading {
    mono_ms: u64,
    chain: ChainTime,
}

impl ChainClock {
    /// Takes a reading: at `mono_ms` of the monotonic clock the chain showed `chain`. Readings that go backwards (another
    /// endpoint lags) are ignored.
    pub fn read(&mut self, mono_ms: u64, chain: ChainTime) {
        if self.readings.back().is_some_and(|last| chain < last.chain || mono_ms <= last.mono_ms) {
            return;
        }
        if self.readings.len() == READINGS_MAX {
            self.readings.pop_front();
        }
        self.readings.push_back(Reading { mono_ms, chain });
    }

    /// Chain seconds per real second, as far as readings tell.
    #[must_use]
    pub fn speed(&self) -> f64 {
        let (Some(first), Some(last)) = (self.readings.front(), self.readings.back()) else { return 1.0 };
        let span_ms = last.mono_ms.saturating_sub(first.mono_ms);
        if span_ms < SPAN_MS_MIN {
            return 1.0;
        }
        #[expect(clippy::cast_precision_loss, reason = "spans of seconds are far below 2^53")]
        let speed = (last.chain.0.saturating_sub(first.chain.0)) as f64 * 1_000.0 / span_ms as f64;
        speed.clamp(0.0, SPEED_MAX)
    }

    /// The chain's time at `mono_ms`; `None` before the first reading.
    #[must_use]
    pub fn now(&self, mono_ms: u64) -> Option<ChainTime> {
        let last = self.readings.back()?;
        let elapsed_ms = mono_ms.saturating_sub(last.mono_ms).min(EXTRAPOLATION_MS_MAX);
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "bounded by the constants above")]
        let ahead = (elapsed_ms as f64 * self.speed() / 1_000.0).floor() as i64;
        Some(ChainTime(last.chain.0.saturating_add(ahead)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_known_before_the_first_reading() {
        assert_eq!(ChainClock::default().now(5), None);
    }

    #[test]
    fn a_fast_chain_is_followed_at_its_speed() {
        let mut clock = ChainClock::default();
        for second in 0..5_u64 {
            clock.read(second * 1_000, ChainTime(100 + i64::try_from(second).unwrap_or(0) * 8));
        }
        assert!((clock.speed() - 8.0).abs() < 1e-9);
        assert_eq!(clock.now(4_500), Some(ChainTime(136)));
    }

    #[test]
    fn a_reading_from_a_lagging_endpoint_changes_nothing() {
        let mut clock = ChainClock::default();
        clock.read(0, ChainTime(100));
        clock.read(1_000, ChainTime(90));
        assert_eq!(clock.now(0), Some(ChainTime(100)));
    }

    #[test]
    fn silence_is_not_extrapolated_for_ever() {
        let mut clock = ChainClock::default();
        clock.read(0, ChainTime(100));
        assert_eq!(clock.now(3_600_000), Some(ChainTime(110)));
    }
}
