//! Whom to ask, and what to find out in the background.

use std::time::{Duration, Instant};

use super::{Board, Member};

/// An endpoint of another cluster, or one that did not say which, is asked again after so many surveys.
const RECHECK_AFTER: u32 = 3;

/// What a call can do now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Endpoints to ask, in this order.
    pub(crate) ready: Vec<usize>,
    /// Where none is ready: the endpoint whose rate limit ends first, and when.
    pub(crate) limited: Option<(usize, Instant)>,
}

/// Something to find out beside all calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Job {
    /// Which cluster it is on, and thereby whether it lives.
    Genesis(usize),
    /// Its slot, and how fast it answers.
    Pulse(usize),
}

impl Board {
    /// Whom to ask now; settles who is asked first from now on.
    pub(crate) fn plan(&mut self, now: Instant) -> Plan {
        let members = &self.members;
        let is_ready = |index: &usize| members.get(*index).is_some_and(|member| member.is_usable() && !member.is_limited(now));
        let is_clean = |index: &usize| members.get(*index).is_some_and(|member| !member.is_blemished());
        let all = 0..members.len();
        let (clean, blemished): (Vec<usize>, Vec<usize>) = all.filter(is_ready).partition(is_clean);
        if !clean.contains(&self.current) {
            let stays = clean.is_empty() && blemished.contains(&self.current);
            let next = clean.first().or(blemished.first());
            if let Some(next) = next.filter(|_| !stays) {
                self.current = *next;
            }
        }
        let mut ready: Vec<usize> = clean.into_iter().chain(blemished).collect();
        // A stable sort: the others keep their order.
        ready.sort_by_key(|index| *index != self.current);
        let waiting = |member: &Member| !member.refused && member.breaker.is_closed() && member.is_limited(now);
        let limited = self.members.iter().enumerate().filter(|(_, member)| waiting(member));
        let limited =
            limited.filter_map(|(index, member)| Some((index, member.limited_until?))).min_by_key(|(_, until)| *until);
        Plan { limited: limited.filter(|_| ready.is_empty()), ready }
    }

    /// The endpoint that would be asked first now.
    pub(crate) fn first(&mut self, now: Instant) -> usize {
        self.plan(now);
        self.current
    }

    /// Everybody whose answers count and who may be asked now.
    pub(crate) fn healthy(&self, now: Instant) -> Vec<usize> {
        let members = self.members.iter().enumerate();
        members.filter(|(_, member)| member.is_usable() && !member.is_limited(now)).map(|(index, _)| index).collect()
    }

    /// Endpoints that were never asked which cluster they are on. They count as asked now.
    pub(crate) fn roll_call(&mut self, now: Instant) -> Vec<Job> {
        let mut jobs = Vec::new();
        for (index, member) in self.members.iter_mut().enumerate().filter(|(_, member)| !member.asked) {
            member.begin(now);
            jobs.push(Job::Genesis(index));
        }
        jobs
    }

    /// Probes of everything that may come back, for a call that has nobody left to ask: cool-downs do not count then.
    pub(crate) fn last_resort(&mut self, now: Instant) -> Vec<Job> {
        let mut jobs = Vec::new();
        for (index, member) in self.members.iter_mut().enumerate() {
            let waits = member.breaker.may_probe(now, true) || (member.breaker.is_closed() && !member.verified);
            if waits && !member.refused && !member.is_limited(now) && member.is_idle(now, self.job_timeout) {
                member.begin(now);
                jobs.push(Job::Genesis(index));
            }
        }
        jobs
    }

    /// Whether somebody is finding out whether an endpoint may be used again.
    pub(crate) fn is_probing(&self, now: Instant) -> bool {
        self.members.iter().any(|member| !member.is_usable() && !member.is_idle(now, self.job_timeout))
    }

    /// Whether it is not known yet which cluster `member` is on, though somebody is about to ask.
    pub(crate) fn is_waiting_for(&self, member: &Member, now: Instant) -> bool {
        !member.asked || (member.breaker.is_closed() && !member.is_idle(now, self.job_timeout))
    }

    /// What should be found out now beside all calls: whether circuits can close, whether refused endpoints name the right
    /// cluster again, and with more than one endpoint, slot and pace of each.
    pub(crate) fn jobs(&mut self, now: Instant) -> Vec<Job> {
        let several = self.members.len() > 1;
        let mut jobs = Vec::new();
        for (index, member) in self.members.iter_mut().enumerate() {
            if !member.is_idle(now, self.job_timeout) || member.is_limited(now) {
                continue;
            }
            let since = member.pulsed_at.map(|at| now.saturating_duration_since(at));
            let job = if member.breaker.may_probe(now, false) {
                Job::Genesis(index)
            } else if !member.breaker.is_closed() || !member.asked {
                continue;
            } else if member.refused || !member.verified {
                if since.is_some_and(|since| since < self.survey_every * RECHECK_AFTER) {
                    continue;
                }
                Job::Genesis(index)
            } else if several && since.is_none_or(|since| since >= self.survey_every) {
                Job::Pulse(index)
            } else {
                continue;
            };
            member.begin(now);
            jobs.push(job);
        }
        jobs
    }
}

impl Member {
    /// Whether no background job is under way, other than one that was lost.
    fn is_idle(&self, now: Instant, job_timeout: Duration) -> bool {
        self.busy.is_none_or(|since| now.saturating_duration_since(since) > job_timeout)
    }

    fn begin(&mut self, now: Instant) {
        self.busy = Some(now);
        self.pulsed_at = Some(now);
        self.asked = true;
        self.breaker.probe();
    }
}
