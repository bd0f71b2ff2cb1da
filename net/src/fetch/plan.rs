//! Which group of a blob to ask of whom next. Pure: the caller brings the time, the randomness and the answers.
//!
//! Groups are asked for in random order, so that receivers of one blob soon have different parts to hand each other. Whoever is
//! quick gets more requests; when nothing is left to be asked for, groups that are long under way are asked of others, too:
//! first of those who have delivered.
//!
//! What is long follows from what groups take: a small multiple of their median, whoever sent them. Whoever lets that time pass
//! has stalled: it gets one request at a time and is given no time as somebody whom others name, until it has delivered as often
//! as it stalled. So a peer that takes requests and never answers costs a transfer that time about once, not for each group.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::time::{Duration, Instant};

use psyche_messages::PeerKey;

use crate::blobs::Bits;

/// Groups asked of a source at a time, before and after it has proved itself.
const WINDOW_FIRST: usize = 2;
const WINDOW: usize = 8;

/// Most sources that are kept in mind.
const SOURCES_MAX: usize = 64;

/// A group that is under way for longer may be asked of one more source: a multiple of the median, within bounds; what holds
/// while nothing is known.
const STEAL: Patience = Patience { times: 3, least: Duration::from_millis(300), unknown: Duration::from_secs(1) };

/// How long those whom a source names are left alone with a group.
const REDIRECT: Patience = Patience { times: 4, least: Duration::from_millis(500), unknown: Duration::from_millis(1500) };

/// The slowest median that counts.
const PACE_MAX: Duration = Duration::from_secs(2);

/// Groups whose times make up the median.
const TIMES_MAX: usize = 32;

/// Most sources that a group is asked of at a time; each next one after twice the time.
const COPIES_MAX: usize = 4;

/// Most stalls that are held against a source.
const STALLS_MAX: u8 = 8;

/// Pauses before a source without anything of use is asked again: they double from the first to the last, which comes sooner
/// for one that is receiving the blob itself.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_LAST: Duration = Duration::from_secs(2);
const PAUSE_LAST_RECEIVING: Duration = Duration::from_millis(400);

/// What came of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The group is here.
    Stored,
    /// The source has nothing of the blob, or can't be reached.
    Unavailable,
    /// The source has too much to do.
    Busy,
    /// The source has these groups, and not the one asked for.
    Others(Bits),
    /// These peers have the group.
    Elsewhere(Vec<PeerKey>),
    /// What came is not the group.
    Wrong,
}

/// A request to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) peer: PeerKey,
    pub(super) group: u32,
    /// Whether the source is to send it whoever else has it.
    pub(super) insist: bool,
}

/// How long to wait for something.
struct Patience {
    /// How many times what a group takes.
    times: u32,
    least: Duration,
    unknown: Duration,
}

impl Patience {
    fn with(&self, pace: Option<Duration>) -> Duration {
        pace.map_or(self.unknown, |pace| (self.times * pace.min(PACE_MAX)).max(self.least))
    }
}

struct Source {
    in_flight: usize,
    /// How much oftener it has stalled than delivered.
    stalls: u8,
    proven: bool,
    /// The groups it has; all of them, as far as is known, where there is none.
    have: Option<Bits>,
    next: Instant,
    pause: Duration,
}

struct Asked {
    of: Vec<PeerKey>,
    since: Instant,
    /// When the last of them was asked.
    last: Instant,
}

/// A group that sources want to be fetched from others.
struct Redirect {
    /// Who said so, and has it therefore.
    by: Vec<PeerKey>,
    /// Whom they named.
    to: Vec<PeerKey>,
    /// Until when they are left alone with it. Runs from the first word on, since words may go in circles.
    until: Instant,
}

/// The groups that are missing, and those who may have them.
pub(super) struct Plan {
    groups: u32,
    /// Neither here nor under way.
    needed: Vec<u32>,
    asked: BTreeMap<u32, Asked>,
    redirects: HashMap<u32, Redirect>,
    sources: BTreeMap<PeerKey, Source>,
    /// Whose turn it is to be asked.
    turn: Option<PeerKey>,
    /// What the last groups took.
    times: VecDeque<Duration>,
    /// What groups took in transfers before this one.
    pace_before: Option<Duration>,
    /// Who stalled in transfers before this one.
    stalled_before: BTreeSet<PeerKey>,
}

/// What transfers tell the next ones.
#[derive(Clone, Debug, Default)]
pub(super) struct Experience {
    /// What a group takes.
    pub(super) pace: Option<Duration>,
    /// Who stalls.
    pub(super) stalled: BTreeSet<PeerKey>,
}

impl Plan {
    /// A plan for the groups of a blob of `groups` that `have` lacks.
    pub(super) fn new(groups: u32, have: &Bits, before: Experience) -> Self {
        let needed = (0..groups).filter(|group| !have.contains(*group)).collect();
        Self {
            groups,
            needed,
            asked: BTreeMap::new(),
            redirects: HashMap::new(),
            sources: BTreeMap::new(),
            turn: None,
            times: VecDeque::new(),
            pace_before: before.pace,
            stalled_before: before.stalled,
        }
    }

    /// What this transfer adds to what was known: at most [`SOURCES_MAX`] who stall.
    pub(super) fn experience(&self) -> Experience {
        let stalled = self.sources.iter().filter(|(_, source)| source.stalls > 0).map(|(peer, _)| *peer);
        let unseen = self.stalled_before.iter().filter(|peer| !self.sources.contains_key(peer)).copied();
        Experience { pace: self.pace(), stalled: stalled.chain(unseen).take(SOURCES_MAX).collect() }
    }

    /// What a group takes: the median of the last ones.
    fn pace(&self) -> Option<Duration> {
        let mut times: Vec<_> = self.times.iter().copied().collect();
        let middle = times.len() / 2;
        let median = (middle < times.len()).then(|| *times.select_nth_unstable(middle).1);
        median.or(self.pace_before)
    }

    /// Whether every group is here.
    pub(super) fn is_done(&self) -> bool {
        self.needed.is_empty() && self.asked.is_empty()
    }

    /// Adds peers who may have the blob, and are not asked before `from`.
    pub(super) fn offer(&mut self, peers: impl IntoIterator<Item = PeerKey>, from: Instant, now: Instant) {
        for peer in peers {
            self.source(peer, from, now);
        }
    }

    fn source(&mut self, peer: PeerKey, from: Instant, now: Instant) -> Option<&mut Source> {
        if self.sources.len() >= SOURCES_MAX && !self.sources.contains_key(&peer) {
            // One that was of no use makes room.
            let idle = self.sources.iter().find(|(_, source)| !source.proven && source.in_flight == 0 && source.next > now);
            let idle = idle.map(|(peer, _)| *peer)?;
            self.sources.remove(&idle);
        }
        let stalls = u8::from(self.stalled_before.contains(&peer));
        let fresh = || Source { in_flight: 0, stalls, proven: false, have: None, next: from, pause: PAUSE_FIRST };
        Some(self.sources.entry(peer).or_insert_with(fresh))
    }

    /// The next request, if one can be made at `now`; it is under way until [`Plan::note`].
    pub(super) fn next(&mut self, now: Instant, random: &mut impl FnMut() -> usize) -> Option<Ask> {
        let mut after: Vec<PeerKey> = match self.turn {
            Some(turn) => {
                let (after, before) =
                    (self.sources.range((Bound::Excluded(turn), Bound::Unbounded)), self.sources.range(..=turn));
                after.chain(before).map(|(peer, _)| *peer).collect()
            }
            None => self.sources.keys().copied().collect(),
        };
        // Whoever stalls is asked only for what nobody else is asked for.
        after.sort_by_key(|peer| self.sources.get(peer).is_some_and(|source| source.stalls > 0));
        for peer in after {
            let Some((group, insist)) = self.pick(&peer, now, random) else { continue };
            self.turn = Some(peer);
            if let Some(source) = self.sources.get_mut(&peer) {
                source.in_flight += 1;
            }
            let asked = self.asked.entry(group).or_insert_with(|| Asked { of: Vec::new(), since: now, last: now });
            let late = std::mem::replace(&mut asked.of, vec![peer]);
            asked.of.extend(&late);
            asked.last = now;
            // Those who let the time pass until somebody else is asked, and those who were named and did not help.
            let overdue = self.redirects.get(&group).filter(|_| insist).map_or(&[][..], |redirect| &redirect.to);
            self.stalled(late.iter().chain(overdue).copied().collect());
            return Some(Ask { peer, group, insist });
        }
        None
    }

    /// What to ask of `peer`, which is then no longer needed.
    fn pick(&mut self, peer: &PeerKey, now: Instant, random: &mut impl FnMut() -> usize) -> Option<(u32, bool)> {
        let source = self.sources.get(peer)?;
        let window = match source {
            Source { stalls: 1.., .. } => 1,
            Source { proven: true, .. } => WINDOW,
            _ => WINDOW_FIRST,
        };
        if source.next > now || source.in_flight >= window {
            return None;
        }
        let start = if self.needed.is_empty() { 0 } else { random() % self.needed.len() };
        let order = (start..self.needed.len()).chain(0..start);
        let redirected = |group: &u32| self.redirects.get(group).filter(|redirect| redirect.by.contains(peer));
        let open = |group: &u32| redirected(group).is_none_or(|redirect| redirect.until <= now);
        let known = |group: &u32| source.have.as_ref().is_none_or(|have| have.contains(*group));
        let mut found = order.clone().find(|place| self.needed.get(*place).is_some_and(|group| known(group) && open(group)));
        if found.is_none() && source.in_flight == 0 && source.have.is_some() {
            // It has nothing of use so far: any question tells what it has got since.
            found = order.clone().find(|place| self.needed.get(*place).is_some_and(open));
        }
        if let Some(place) = found {
            let insist = self.needed.get(place).and_then(redirected).is_some();
            return Some((self.needed.swap_remove(place), insist));
        }
        let late = self
            .asked
            .iter()
            .filter(|(group, asked)| known(group) && open(group) && asked.of.len() < COPIES_MAX && !asked.of.contains(peer));
        // Those who deliver come first, if there are any others than those who let it wait.
        let late = late.filter(|(group, asked)| {
            let delivers = source.proven || redirected(group).is_some() || !self.somebody_else_delivers(asked);
            now >= self.steal_at(asked, delivers)
        });
        late.min_by_key(|(_, asked)| asked.since).map(|(group, _)| (*group, true))
    }

    /// Notes what came of a request; whether the source was one still.
    pub(super) fn note(&mut self, ask: &Ask, outcome: Outcome, now: Instant) -> bool {
        let stored = outcome == Outcome::Stored;
        self.land(ask, stored, now);
        match outcome {
            Outcome::Stored | Outcome::Wrong => {}
            Outcome::Unavailable => self.not_from(ask, now),
            Outcome::Elsewhere(ref peers) => self.redirect(ask, peers, now),
            Outcome::Busy | Outcome::Others(_) => {}
        }
        let Some(source) = self.sources.get_mut(&ask.peer) else { return false };
        source.in_flight = source.in_flight.saturating_sub(1);
        match outcome {
            Outcome::Stored => {
                (source.proven, source.next, source.pause) = (true, now, PAUSE_FIRST);
                source.stalls = source.stalls.saturating_sub(1);
            }
            Outcome::Wrong => drop(self.sources.remove(&ask.peer)),
            Outcome::Elsewhere(_) => source.next = now,
            Outcome::Others(have) => {
                let useful = self.needed.iter().any(|group| have.contains(*group));
                source.have = Some(have);
                if useful { source.next = now } else { source.wait(now, PAUSE_LAST_RECEIVING) }
            }
            Outcome::Busy => source.wait(now, PAUSE_LAST),
            Outcome::Unavailable => {
                source.proven = false;
                source.wait(now, PAUSE_LAST);
            }
        }
        true
    }

    /// When one more source may be asked for a group that is under way: one that delivers, or later another one.
    fn steal_at(&self, asked: &Asked, delivers: bool) -> Instant {
        let copies = asked.of.len().clamp(1, COPIES_MAX) - usize::from(delivers);
        asked.last + (1 << copies) * STEAL.with(self.pace())
    }

    /// Whether a source has delivered that is not asked for this group yet.
    fn somebody_else_delivers(&self, asked: &Asked) -> bool {
        self.sources.iter().any(|(peer, source)| source.proven && !asked.of.contains(peer))
    }

    fn stalled(&mut self, peers: Vec<PeerKey>) {
        for peer in peers {
            if let Some(source) = self.sources.get_mut(&peer) {
                source.stalls = (source.stalls + 1).min(STALLS_MAX);
            }
        }
    }

    /// Takes a request off those under way.
    fn land(&mut self, ask: &Ask, stored: bool, now: Instant) {
        if let Some(asked) = self.asked.get_mut(&ask.group) {
            if stored {
                self.times.push_back(now.saturating_duration_since(asked.since));
                if self.times.len() > TIMES_MAX {
                    self.times.pop_front();
                }
            }
            asked.of.retain(|peer| *peer != ask.peer);
            if stored {
                self.asked.remove(&ask.group);
                self.redirects.remove(&ask.group);
            } else if asked.of.is_empty() {
                self.asked.remove(&ask.group);
                self.needed.push(ask.group);
            }
        }
    }

    /// Notes that a peer does not have a group that others may have said it has.
    fn not_from(&mut self, ask: &Ask, now: Instant) {
        if let Some(redirect) = self.redirects.get_mut(&ask.group) {
            redirect.to.retain(|peer| *peer != ask.peer);
            if redirect.to.is_empty() {
                redirect.until = now;
            }
        }
    }

    fn redirect(&mut self, ask: &Ask, peers: &[PeerKey], now: Instant) {
        let mut to = Vec::new();
        for peer in peers.iter().filter(|peer| **peer != ask.peer) {
            let groups = self.groups;
            let Some(source) = self.source(*peer, now, now) else { continue };
            if let Some(have) = &mut source.have {
                have.insert(ask.group);
            } else if !source.proven {
                let mut have = Bits::none(groups);
                have.insert(ask.group);
                source.have = Some(have);
            }
            if source.stalls > 0 {
                continue;
            }
            source.next = source.next.min(now);
            to.push(*peer);
        }
        let patience = REDIRECT.with(self.pace());
        let fresh = || Redirect { by: Vec::new(), to: Vec::new(), until: now + patience };
        let redirect = self.redirects.entry(ask.group).or_insert_with(fresh);
        redirect.by.push(ask.peer);
        for peer in to {
            if !redirect.to.contains(&peer) && redirect.to.len() < SOURCES_MAX {
                redirect.to.push(peer);
            }
        }
        redirect.to.retain(|peer| !redirect.by.contains(peer));
        if redirect.to.is_empty() {
            redirect.until = now;
        }
    }

    /// When there may be something to do that no answer announces.
    pub(super) fn wake(&self, now: Instant) -> Instant {
        let pauses = self.sources.values().map(|source| source.next);
        let steals = self.asked.values().filter(|asked| asked.of.len() < COPIES_MAX);
        let steals = steals.flat_map(|asked| [true, false].map(|delivers| self.steal_at(asked, delivers)));
        let redirects = self.redirects.values().map(|redirect| redirect.until);
        let soonest = pauses.chain(steals).chain(redirects).filter(|at| *at > now).min();
        soonest.map_or(now + PAUSE_LAST, |at| at.min(now + PAUSE_LAST))
    }
}

impl Source {
    fn wait(&mut self, now: Instant, last: Duration) {
        let pause = self.pause.min(last);
        self.next = now + pause;
        self.pause = (pause * 2).min(last);
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
