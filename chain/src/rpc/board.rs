//! What is known about every endpoint, and whom to ask. Pure: the shell around it ([`super::calls`], [`super::jobs`]) brings
//! clock, jitter and answers, and does what it says.
//!
//! The choice is sticky: the endpoint that answers well is asked first, until it fails, lags, turns slow, is rate limited or
//! names another cluster. Then the first configured one without such a blemish takes its place and keeps it.

mod choice;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use psyche_messages::{Backoff, Slot};
use solana_hash::Hash;

use super::breaker::{Breaker, Fault};
use super::cluster;
use super::hedge::HedgeBudget;
use super::latency::Latency;
use super::slots::Slots;

pub(crate) use choice::Job;

/// Slots behind the best from which an endpoint counts as lagging, seen twice in a row.
const LAG_OUT: u64 = 30;
/// Slots behind the best up to which it does not any more.
const LAG_IN: u64 = 10;
/// Weight of a new pulse: one in so many.
const PULSE_WEIGHT: u32 = 4;
/// Pulses before anything is concluded from them.
const PULSES_MIN: u32 = 3;
/// An endpoint is slow if its pulse takes so many times as long as the fastest one's, and so much longer in all.
const SLOW_OUT: (u32, Duration) = (3, Duration::from_millis(100));
/// It is not slow any more below this.
const SLOW_IN: (u32, Duration) = (2, Duration::from_millis(50));
/// Strikes that cost an endpoint its place; any answer clears them.
const STRIKES_OUT: u8 = 2;
/// Rest after "too many requests" without a word on how long; doubles while nothing else is answered.
const UNTOLD_REST: Duration = Duration::from_secs(1);
/// Longest such rest.
const UNTOLD_REST_MAX: Duration = Duration::from_secs(30);

/// Something that an operator should hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// The circuit of an endpoint opened.
    Opened { index: usize, rest: Duration },
    /// It closed.
    Closed { index: usize },
    /// An endpoint is on another cluster than the others.
    Refused { index: usize, genesis: Hash, home: Hash, others: Vec<usize> },
    /// It is on the same cluster again.
    Readmitted { index: usize },
    /// It claims a slot far beyond what most others say.
    Absurd { index: usize, slot: Slot },
}

/// What is known of one endpoint.
#[derive(Debug, Default)]
pub(crate) struct Member {
    pub(crate) breaker: Breaker,
    pub(crate) latency: Latency,
    /// Moving average of the same small request at every endpoint, and how many there were.
    pulse: Option<(Duration, u32)>,
    /// The genesis hash that it named last.
    pub(crate) genesis: Option<Hash>,
    /// Whether it has named it since its circuit was open.
    verified: bool,
    /// Whether it was ever asked for it.
    asked: bool,
    pub(crate) refused: bool,
    pub(crate) limited_until: Option<Instant>,
    limited_in_a_row: u32,
    strikes: u8,
    lag_strikes: u8,
    pub(crate) lagging: bool,
    pub(crate) slow: bool,
    /// Whether its slot is far beyond what most others say.
    absurd: bool,
    /// A background job that is under way, since then.
    busy: Option<Instant>,
    /// When it was last asked in the background.
    pulsed_at: Option<Instant>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Board {
    pub(crate) members: Vec<Member>,
    pub(crate) slots: Slots,
    pub(crate) hedges: HedgeBudget,
    current: usize,
    home: Option<Hash>,
    cooldown: Backoff,
    /// How often every endpoint is asked for its slot while calls are made.
    survey_every: Duration,
    /// After so long a background job is taken for lost.
    job_timeout: Duration,
    notices: Vec<Notice>,
}

impl Board {
    pub(crate) fn new(endpoints: usize, cooldown: Backoff, survey_every: Duration, job_timeout: Duration) -> Self {
        Self {
            members: (0..endpoints).map(|_| Member::default()).collect(),
            slots: Slots::new(endpoints),
            hedges: HedgeBudget::default(),
            current: 0,
            home: None,
            cooldown,
            survey_every,
            job_timeout,
            notices: Vec::new(),
        }
    }

    /// What happened since this was asked last.
    pub(crate) fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// The cluster that is believed in.
    pub(crate) const fn home(&self) -> Option<Hash> {
        self.home
    }

    /// Notes an answer to an ordinary request.
    pub(crate) fn answered(&mut self, index: usize, elapsed: Duration) {
        if let Some(member) = self.members.get_mut(index) {
            member.latency.note(elapsed);
            member.heard_from();
            member.breaker.answered();
        }
    }

    /// Notes a failure.
    pub(crate) fn failed(&mut self, index: usize, fault: Fault, now: Instant, jitter: u16) {
        let Some(member) = self.members.get_mut(index) else { return };
        member.busy = None;
        // Who says that it has not come so far has answered; how far it is behind is told apart.
        member.latency.outcome(fault != Fault::Behind);
        member.strikes = member.strikes.saturating_add(fault.strikes());
        if fault == Fault::Behind {
            member.lags();
        }
        let was_closed = member.breaker.is_closed();
        if let Some(rest) = member.breaker.failed(fault, now, &self.cooldown, jitter) {
            member.verified = false;
            if was_closed {
                self.notices.push(Notice::Opened { index, rest });
            }
        }
    }

    /// Notes that `index` was asked first and another endpoint answered before it: after `elapsed` it was not waited for any
    /// longer. Within four times its average this may be chance; beyond, or where nothing is known of it, it has stalled.
    pub(crate) fn outrun(&mut self, index: usize, elapsed: Duration, now: Instant, jitter: u16) {
        let Some(member) = self.members.get_mut(index) else { return };
        let stalled = member.latency.average().is_none_or(|average| elapsed > average * 4);
        member.latency.note(elapsed);
        self.failed(index, if stalled { Fault::Stalled } else { Fault::Outrun }, now, jitter);
    }

    /// Notes "too many requests": leave it alone for `rest`, or for as long as seems right.
    pub(crate) fn limited(&mut self, index: usize, rest: Option<Duration>, now: Instant) {
        let Some(member) = self.members.get_mut(index) else { return };
        member.busy = None;
        member.latency.outcome(true);
        let doubled = UNTOLD_REST * 2_u32.saturating_pow(member.limited_in_a_row.min(8));
        let until = now + rest.unwrap_or(doubled.min(UNTOLD_REST_MAX));
        member.limited_in_a_row = member.limited_in_a_row.saturating_add(1);
        member.limited_until = member.limited_until.max(Some(until));
        if member.breaker.is_half_open() {
            // It lives; whether it is on the right cluster is asked once it may be asked.
            self.revive(index);
        }
    }

    /// Notes that a read of `index` came from `slot`.
    pub(crate) fn read_from(&mut self, index: usize, slot: Slot, now: Instant) {
        self.slots.read(index, slot, now);
        self.judge_slot(index, slot, now);
    }

    /// Notes that a background request came to nothing, through no fault of the endpoint's.
    pub(crate) fn done(&mut self, index: usize) {
        if let Some(member) = self.members.get_mut(index) {
            member.busy = None;
        }
    }

    /// Notes the answer to a background request for the slot.
    pub(crate) fn pulsed(&mut self, index: usize, slot: Slot, elapsed: Duration, now: Instant) {
        self.slots.observed(index, slot, now);
        if let Some(member) = self.members.get_mut(index) {
            member.busy = None;
            member.heard_from();
            member.breaker.answered();
            let (average, count) = member.pulse.unwrap_or((elapsed, 0));
            let average = average - average / PULSE_WEIGHT + elapsed / PULSE_WEIGHT;
            member.pulse = Some((average, count.saturating_add(1)));
        }
        self.judge_slot(index, slot, now);
        self.judge_pace();
    }

    /// Notes the genesis hash that `index` names, closes its circuit if that was a probe, and votes.
    pub(crate) fn named(&mut self, index: usize, genesis: Hash) {
        let Some(member) = self.members.get_mut(index) else { return };
        member.busy = None;
        member.heard_from();
        member.genesis = Some(genesis);
        member.verified = true;
        self.revive(index);
        let known: Vec<Option<Hash>> = self.members.iter().map(|member| member.genesis).collect();
        self.home = cluster::vote(&known, self.home);
        let Some(home) = self.home else { return };
        let others: Vec<usize> = (0..known.len()).filter(|other| known.get(*other) == Some(&Some(home))).collect();
        for (index, member) in self.members.iter_mut().enumerate() {
            let refused = member.genesis.is_some_and(|genesis| genesis != home);
            match (std::mem::replace(&mut member.refused, refused), refused, member.genesis) {
                (false, true, Some(genesis)) => {
                    self.notices.push(Notice::Refused { index, genesis, home, others: others.clone() });
                }
                (true, false, _) => self.notices.push(Notice::Readmitted { index }),
                _ => {}
            }
        }
    }

    fn revive(&mut self, index: usize) {
        if self.members.get_mut(index).is_some_and(|member| member.breaker.probed()) {
            self.notices.push(Notice::Closed { index });
        }
    }

    fn judge_slot(&mut self, index: usize, slot: Slot, now: Instant) {
        let (lag, absurd) = (self.slots.lag(index, now), self.slots.is_absurd(index, now));
        let Some(member) = self.members.get_mut(index) else { return };
        if absurd && !member.absurd {
            self.notices.push(Notice::Absurd { index, slot });
        }
        member.absurd = absurd;
        match lag {
            Some(lag) if lag > LAG_OUT => member.lags(),
            Some(lag) if lag <= LAG_IN => (member.lagging, member.lag_strikes) = (false, 0),
            _ => {}
        }
    }

    /// Compares the pulses: the same request at all endpoints, so that nobody looks slow for having the heavy ones.
    fn judge_pace(&mut self) {
        let proven = |member: &Member| member.pulse.filter(|(_, count)| *count >= PULSES_MIN).map(|(average, _)| average);
        let Some(best) = self.members.iter().filter(|member| member.is_usable()).filter_map(proven).min() else { return };
        for member in &mut self.members {
            let Some(pulse) = proven(member) else { continue };
            let beyond = |(times, more): (u32, Duration)| pulse > best * times && pulse > best + more;
            member.slow = if member.slow { beyond(SLOW_IN) } else { beyond(SLOW_OUT) };
        }
    }
}

impl Member {
    /// Whether its answers count: the circuit is closed, and it has named the right cluster since it was open.
    pub(crate) fn is_usable(&self) -> bool {
        self.breaker.is_closed() && self.verified && !self.refused
    }

    /// Whether it should lose its place to one that has no blemish.
    pub(crate) const fn is_blemished(&self) -> bool {
        self.lagging || self.slow || self.absurd || self.strikes >= STRIKES_OUT
    }

    pub(crate) fn is_limited(&self, now: Instant) -> bool {
        self.limited_until.is_some_and(|until| now < until)
    }

    fn heard_from(&mut self) {
        self.latency.outcome(false);
        self.strikes = 0;
        self.limited_in_a_row = 0;
    }

    const fn lags(&mut self) {
        self.lag_strikes = self.lag_strikes.saturating_add(1);
        self.lagging = self.lagging || self.lag_strikes >= 2;
    }
}
