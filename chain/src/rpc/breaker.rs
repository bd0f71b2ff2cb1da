//! Whether an endpoint may be used at all: a circuit breaker with an error budget. Pure: the caller brings clock and jitter.
//!
//! *Closed*: requests flow. Failures take from the budget, answers give back; at zero the circuit opens. *Open*: nothing is
//! asked until the cool-down is over; it doubles with every failed probe, up to a bound. *Half-open*: one probe is under
//! way, and only its success closes the circuit, on probation: with a third of the budget and the cool-down still grown.

use std::time::{Duration, Instant};

use psyche_messages::Backoff;

/// The whole budget; [`Fault::cost`] takes from it.
const BUDGET: u8 = 12;
/// What an answer gives back.
const REFUND: u8 = 1;
/// The budget of a circuit that has just closed.
const PROBATION: u8 = 4;
/// How often the cool-down grows at most; its own bound is reached long before.
const TRIPS_MAX: u32 = 16;

/// What an endpoint did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// No connection, no answer within the time-out, or a key that it does not accept: it is of no use now.
    Dead,
    /// An answer that is none: a server's error, broken JSON, a node that calls itself unhealthy.
    Bad,
    /// Another endpoint, asked later, answered first, and the difference is no accident of one slow request.
    Stalled,
    /// The same, by little.
    Outrun,
    /// It lags behind what others have seen.
    Behind,
}

impl Fault {
    /// What it takes from the error budget: a dead endpoint all of it, so that nobody waits for it twice.
    const fn cost(self) -> u8 {
        match self {
            Self::Dead => BUDGET,
            Self::Bad => 5,
            Self::Stalled => 4,
            Self::Outrun => 1,
            Self::Behind => 0,
        }
    }

    /// How much closer it brings the endpoint to losing its place; see [`super::board`].
    pub(super) const fn strikes(self) -> u8 {
        match self {
            Self::Dead | Self::Bad | Self::Stalled => 2,
            Self::Outrun | Self::Behind => 1,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Open { until: Instant },
    HalfOpen,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Breaker {
    state: State,
    budget: u8,
    trips: u32,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { state: State::Closed, budget: BUDGET, trips: 0 }
    }
}

impl Breaker {
    /// Whether requests may flow.
    pub(crate) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Whether a probe is under way.
    pub(crate) fn is_half_open(&self) -> bool {
        self.state == State::HalfOpen
    }

    /// Whether the circuit is open and may be probed: because its cool-down is over, or because `forced`: where no other
    /// endpoint is left, there is nothing to protect.
    pub(crate) fn may_probe(&self, now: Instant, forced: bool) -> bool {
        matches!(self.state, State::Open { until } if forced || until <= now)
    }

    /// Notes that the one probe is under way.
    pub(crate) fn probe(&mut self) {
        if !self.is_closed() {
            self.state = State::HalfOpen;
        }
    }

    /// Notes a failure; the cool-down if the circuit opened by it. What fails while the circuit is open changes nothing, so
    /// that a storm of failures can't lengthen the cool-down.
    pub(crate) fn failed(&mut self, fault: Fault, now: Instant, cooldown: &Backoff, jitter: u16) -> Option<Duration> {
        if matches!(self.state, State::Open { .. }) {
            return None;
        }
        self.budget = if self.is_half_open() { 0 } else { self.budget.saturating_sub(fault.cost()) };
        if self.budget > 0 {
            return None;
        }
        let rest = cooldown.delay(self.trips, jitter);
        self.trips = (self.trips + 1).min(TRIPS_MAX);
        self.state = State::Open { until: now + rest };
        Some(rest)
    }

    /// Notes an answer to an ordinary request: says nothing about a circuit that is open, since only a probe also asks which
    /// cluster answers.
    pub(crate) fn answered(&mut self) {
        if self.is_closed() {
            self.budget = (self.budget + REFUND).min(BUDGET);
            if self.budget == BUDGET {
                self.trips = 0;
            }
        }
    }

    /// Notes that the probe was answered; true if that closed the circuit.
    pub(crate) fn probed(&mut self) -> bool {
        if self.is_closed() {
            return false;
        }
        self.state = State::Closed;
        self.budget = PROBATION;
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use proptest::prelude::*;

    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn cooldown() -> Backoff {
        Backoff::new(S(1), S(60), 200, 0).unwrap()
    }

    #[test]
    fn a_dead_endpoint_opens_its_circuit_at_once() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        assert_eq!(breaker.failed(Fault::Dead, now, &cooldown(), 0), Some(S(1)));
        assert!(!breaker.is_closed() && !breaker.may_probe(now, false) && breaker.may_probe(now, true));
        assert!(breaker.may_probe(now + S(1), false));
    }

    #[test]
    fn single_bad_answers_are_forgiven_and_a_series_is_not() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        for _ in 0..20 {
            assert_eq!(breaker.failed(Fault::Bad, now, &cooldown(), 0), None);
            (0..5).for_each(|_| breaker.answered());
        }
        assert_eq!(breaker.failed(Fault::Bad, now, &cooldown(), 0), None);
        assert_eq!(breaker.failed(Fault::Bad, now, &cooldown(), 0), None);
        assert!(breaker.failed(Fault::Bad, now, &cooldown(), 0).is_some());
    }

    #[test]
    fn cool_downs_double_up_to_their_bound_and_start_anew_after_a_proof() {
        let (mut breaker, mut now) = (Breaker::default(), Instant::now());
        let mut rests = Vec::new();
        for _ in 0..8 {
            rests.push(breaker.failed(Fault::Dead, now, &cooldown(), 0).unwrap().as_secs());
            now += S(60);
            assert!(breaker.may_probe(now, false));
            breaker.probe();
            assert!(!breaker.may_probe(now, true), "one probe at a time");
        }
        assert_eq!(rests, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert!(breaker.probed() && breaker.is_closed());
        assert_eq!(breaker.failed(Fault::Dead, now, &cooldown(), 0), Some(S(60)), "on probation it is not trusted yet");
        breaker.probe();
        breaker.probed();
        (0..BUDGET).for_each(|_| breaker.answered());
        assert_eq!(breaker.failed(Fault::Dead, now, &cooldown(), 0), Some(S(1)));
    }

    #[test]
    fn a_late_answer_does_not_close_an_open_circuit_and_a_late_failure_does_not_lengthen_it() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        breaker.failed(Fault::Dead, now, &cooldown(), 0).unwrap();
        breaker.answered();
        assert!(!breaker.is_closed());
        assert_eq!(breaker.failed(Fault::Dead, now + S(1), &cooldown(), 0), None);
        assert!(breaker.may_probe(now + S(1), false));
    }

    #[test]
    fn lagging_alone_never_opens_a_circuit() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        assert!((0..1_000).all(|_| breaker.failed(Fault::Behind, now, &cooldown(), 0).is_none()));
    }

    proptest! {
        #[test]
        fn prop_a_circuit_closes_only_by_its_one_probe_and_rests_are_bounded(
            steps in proptest::collection::vec((0_u8..9, 0_u64..100, any::<u16>()), 1..200)
        ) {
            let bounded = Backoff::new(S(1), S(60), 200, 50).unwrap();
            let (mut breaker, mut now) = (Breaker::default(), Instant::now());
            for (step, seconds, jitter) in steps {
                now += S(seconds);
                let was_closed = breaker.is_closed();
                match step {
                    0 => breaker.answered(),
                    1 => {
                        let may = breaker.may_probe(now, false);
                        prop_assert!(!may || !breaker.is_half_open());
                        if may { breaker.probe() }
                    }
                    2 if breaker.is_half_open() => prop_assert!(breaker.probed()),
                    _ => {
                        let fault = [Fault::Dead, Fault::Bad, Fault::Stalled, Fault::Outrun, Fault::Behind][usize::from(step % 5)];
                        if let Some(rest) = breaker.failed(fault, now, &bounded, jitter) {
                            prop_assert!(rest >= S(1) && rest <= S(90) && !breaker.is_closed());
                        }
                    }
                }
                prop_assert!(was_closed || !breaker.is_closed() || step == 2);
            }
        }
    }
}
