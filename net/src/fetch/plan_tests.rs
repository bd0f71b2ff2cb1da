#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const A: PeerKey = PeerKey([1; 32]);
const B: PeerKey = PeerKey([2; 32]);
const C: PeerKey = PeerKey([3; 32]);

fn plan(groups: u32, sources: &[PeerKey], now: Instant) -> Plan {
    let mut plan = Plan::new(groups, &Bits::none(groups), Experience::default());
    plan.offer(sources.iter().copied(), now, now);
    plan
}

fn asks(plan: &mut Plan, now: Instant) -> Vec<Ask> {
    std::iter::from_fn(|| plan.next(now, &mut || 0)).collect()
}

fn bits(groups: u32, have: &[u32]) -> Bits {
    let mut bits = Bits::none(groups);
    for group in have {
        bits.insert(*group);
    }
    bits
}

#[test]
fn groups_are_asked_of_several_sources_and_more_of_those_that_deliver() {
    let now = Instant::now();
    let mut plan = plan(100, &[A, B], now);
    let first = asks(&mut plan, now);
    assert_eq!(first.len(), 2 * WINDOW_FIRST);
    let of = |asks: &[Ask], peer| asks.iter().filter(|ask| ask.peer == peer).count();
    assert_eq!((of(&first, A), of(&first, B)), (WINDOW_FIRST, WINDOW_FIRST));
    assert_eq!(first.iter().map(|ask| ask.group).collect::<BTreeSet<_>>().len(), first.len(), "no group twice");
    let of_a = first.iter().find(|ask| ask.peer == A).unwrap();
    assert!(plan.note(of_a, Outcome::Stored, now));
    let more = asks(&mut plan, now);
    assert_eq!((of(&more, A), of(&more, B)), (WINDOW - WINDOW_FIRST + 1, 0));
}

#[test]
fn what_one_source_does_not_deliver_is_asked_of_another() {
    let now = Instant::now();
    let mut plan = plan(4, &[A, B], now);
    let first = asks(&mut plan, now);
    for ask in first.iter().filter(|ask| ask.peer == A) {
        plan.note(ask, Outcome::Unavailable, now);
    }
    for ask in first.iter().filter(|ask| ask.peer == B) {
        plan.note(ask, Outcome::Stored, now);
    }
    let again = asks(&mut plan, now);
    assert_eq!(again.len(), 2);
    assert!(again.iter().all(|ask| ask.peer == B), "A is left alone for a while");
    again.iter().for_each(|ask| assert!(plan.note(ask, Outcome::Stored, now)));
    assert!(plan.is_done());
}

#[test]
fn a_group_that_is_long_under_way_is_stolen_once_by_a_source_that_delivers() {
    let now = Instant::now();
    let mut plan = plan(4, &[A, B], now);
    let first = asks(&mut plan, now);
    for ask in first.iter().filter(|ask| ask.peer == B) {
        plan.note(ask, Outcome::Stored, now);
    }
    assert!(asks(&mut plan, now).is_empty());
    // What B sent took no time, so the least counts.
    assert_eq!(plan.wake(now), now + STEAL.least);
    let late = now + STEAL.least;
    let stolen = asks(&mut plan, late);
    assert_eq!(stolen.len(), 2);
    assert!(stolen.iter().all(|ask| ask.peer == B && ask.insist));
    assert!(asks(&mut plan, late + 10 * STEAL.least).is_empty(), "nobody is asked twice for one group");
    stolen.iter().for_each(|ask| assert!(plan.note(ask, Outcome::Stored, late)));
    assert!(plan.is_done());
    // The first source comes after all.
    let of_a = first.iter().find(|ask| ask.peer == A).unwrap();
    plan.note(of_a, Outcome::Unavailable, late);
    assert!(plan.is_done());
}

#[test]
fn who_never_answers_holds_up_no_blob_of_one_group() {
    let now = Instant::now();
    let mut plan = plan(1, &[A, B, C], now);
    let first = asks(&mut plan, now);
    assert_eq!((first.len(), first[0].peer), (1, A));
    let late = now + STEAL.unknown;
    assert!(plan.wake(now) <= late);
    let second = asks(&mut plan, late);
    assert_eq!(second.iter().map(|ask| ask.peer).collect::<Vec<_>>(), [B], "nobody has delivered yet: anybody may");
    assert!(plan.note(&second[0], Outcome::Stored, late));
    assert!(plan.is_done());
    // The next transfer asks A last.
    let mut next = Plan::new(1, &Bits::none(1), plan.experience());
    next.offer([A, B, C], late, late);
    assert_eq!(asks(&mut next, late)[0].peer, B);
}

#[test]
fn who_has_not_delivered_is_asked_for_what_those_who_have_leave_lying() {
    let now = Instant::now();
    let mut plan = plan(3, &[A, B], now);
    let first = asks(&mut plan, now);
    first.iter().filter(|ask| ask.peer == B).for_each(|ask| assert!(plan.note(ask, Outcome::Stored, now)));
    plan.offer([C], now, now);
    let by_b = asks(&mut plan, now + STEAL.least);
    assert!(!by_b.is_empty() && by_b.iter().all(|ask| ask.peer == B), "B has delivered: {by_b:?}");
    // Now nobody is left who has delivered and is not asked already.
    let by_c = asks(&mut plan, now + 3 * STEAL.least);
    assert!(!by_c.is_empty() && by_c.iter().all(|ask| ask.peer == C), "{by_c:?}");
}

#[test]
fn a_source_that_is_receiving_itself_is_asked_for_what_it_has() {
    let now = Instant::now();
    let mut plan = plan(8, &[A], now);
    let first = asks(&mut plan, now);
    plan.note(&first[0], Outcome::Others(bits(8, &[5, 6])), now);
    let next = asks(&mut plan, now);
    assert!(next.iter().all(|ask| [5, 6].contains(&ask.group)), "{next:?}");
    plan.note(&first[1], Outcome::Others(bits(8, &[5, 6])), now);
    next.iter().chain(&asks(&mut plan, now)).for_each(|ask| assert!(plan.note(ask, Outcome::Stored, now)));
    // It has nothing else: one question at a time, with pauses, finds out what it got since.
    let probe = asks(&mut plan, now);
    assert_eq!(probe.len(), 1);
    plan.note(&probe[0], Outcome::Others(bits(8, &[5, 6])), now);
    assert!(asks(&mut plan, now).is_empty());
    assert_eq!(plan.wake(now), now + PAUSE_FIRST);
    assert_eq!(asks(&mut plan, now + PAUSE_FIRST).len(), 1);
}

#[test]
fn who_is_sent_elsewhere_asks_there_and_insists_only_when_nobody_there_helps() {
    let now = Instant::now();
    let mut plan = plan(1, &[A], now);
    let ask = asks(&mut plan, now)[0];
    assert_eq!(ask, Ask { peer: A, group: 0, insist: false });
    plan.note(&ask, Outcome::Elsewhere(vec![B, C]), now);
    let there = asks(&mut plan, now);
    assert_eq!(there.len(), 1);
    assert_ne!(there[0].peer, A);
    plan.note(&there[0], Outcome::Unavailable, now);
    let other = asks(&mut plan, now);
    assert_eq!(other.len(), 1);
    assert!(other[0].peer != A && other[0].peer != there[0].peer);
    plan.note(&other[0], Outcome::Unavailable, now);
    assert_eq!(asks(&mut plan, now), [Ask { peer: A, group: 0, insist: true }]);
}

#[test]
fn patience_with_those_elsewhere_ends() {
    let now = Instant::now();
    let mut plan = plan(1, &[A], now);
    let ask = asks(&mut plan, now)[0];
    plan.note(&ask, Outcome::Elsewhere(vec![B]), now);
    let there = asks(&mut plan, now);
    assert_eq!(there, [Ask { peer: B, group: 0, insist: false }]);
    assert!(asks(&mut plan, now + REDIRECT.unknown / 2).is_empty(), "B is on it");
    assert_eq!(asks(&mut plan, now + REDIRECT.unknown), [Ask { peer: A, group: 0, insist: true }]);
}

#[test]
fn wrong_bytes_end_a_source_and_naming_nobody_ends_patience() {
    let now = Instant::now();
    let mut plan = plan(2, &[A], now);
    let first = asks(&mut plan, now);
    assert!(plan.note(&first[0], Outcome::Wrong, now));
    assert!(!plan.note(&first[1], Outcome::Wrong, now), "it is one no longer");
    assert!(asks(&mut plan, now).is_empty() && !plan.is_done());
    plan.offer([B], now, now);
    let ask = asks(&mut plan, now)[0];
    plan.note(&ask, Outcome::Elsewhere(vec![B]), now);
    assert!(asks(&mut plan, now).iter().any(|again| again.group == ask.group && again.insist));
}

#[test]
fn sources_are_bounded_and_useless_ones_make_room() {
    let now = Instant::now();
    let mut plan = plan(1000, &[A], now);
    let ask = asks(&mut plan, now)[0];
    plan.note(&ask, Outcome::Unavailable, now);
    plan.offer((10..200).map(|byte| PeerKey([byte; 32])), now, now);
    assert_eq!(plan.sources.len(), SOURCES_MAX);
}

/// What a peer of the simulated network does with requests.
#[derive(Clone, Copy, Debug)]
enum Manner {
    Serves,
    Lacks,
    Lies,
    IsBusy,
    SendsElsewhere,
    HasHalf,
}

fn manner() -> impl Strategy<Value = Manner> {
    prop::sample::select(vec![
        Manner::Serves,
        Manner::Lacks,
        Manner::Lies,
        Manner::IsBusy,
        Manner::SendsElsewhere,
        Manner::HasHalf,
    ])
}

proptest! {
    #[test]
    fn prop_one_honest_source_is_enough_whatever_the_others_do(
        groups in 1_u32..40,
        manners in prop::collection::vec(manner(), 0..6),
        seed: u64,
    ) {
        let mut now = Instant::now();
        let mut state = seed;
        let mut random = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(state >> 33).unwrap()
        };
        let honest = PeerKey([100; 32]);
        let peers: Vec<_> = (0..).map(|byte| PeerKey([byte; 32])).take(manners.len()).collect();
        let half: Vec<u32> = (0..groups).filter(|group| group % 2 == 0).collect();
        let mut plan = plan(groups, &[peers.as_slice(), &[honest]].concat(), now);
        let (mut stored, mut under_way) = (BTreeSet::new(), Vec::new());
        for _ in 0..10_000 {
            if plan.is_done() {
                break;
            }
            under_way.extend(std::iter::from_fn(|| plan.next(now, &mut random)));
            if under_way.is_empty() {
                prop_assert!(plan.wake(now) > now);
                now = plan.wake(now);
                continue;
            }
            let ask: Ask = under_way.swap_remove(random() % under_way.len());
            let place = peers.iter().position(|peer| *peer == ask.peer);
            let outcome = match place.map_or(Manner::Serves, |place| manners[place]) {
                Manner::Serves => Outcome::Stored,
                Manner::Lacks => Outcome::Unavailable,
                Manner::Lies => Outcome::Wrong,
                Manner::IsBusy => Outcome::Busy,
                Manner::SendsElsewhere => Outcome::Elsewhere(peers.clone()),
                Manner::HasHalf if half.contains(&ask.group) => Outcome::Stored,
                Manner::HasHalf => Outcome::Others(bits(groups, &half)),
            };
            if outcome == Outcome::Stored {
                stored.insert(ask.group);
            }
            plan.note(&ask, outcome, now);
        }
        prop_assert!(plan.is_done());
        prop_assert_eq!(stored.len(), groups as usize);
    }
}

#[test]
fn slow_links_are_given_time_and_one_slow_source_changes_nothing() {
    let now = Instant::now();
    let mut plan = plan(40, &[A], now);
    let first = asks(&mut plan, now);
    let slow = Duration::from_millis(1500);
    assert!(plan.note(&first[0], Outcome::Stored, now + slow));
    assert_eq!(STEAL.with(plan.pace()), 3 * slow);
    plan.note(&first[1], Outcome::Elsewhere(vec![B]), now + slow);
    assert_eq!(plan.redirects[&first[1].group].until, now + slow + 4 * slow);
    // What takes for ever is no measure, neither alone nor among others.
    let next: Vec<_> = asks(&mut plan, now + slow).into_iter().filter(|ask| ask.peer == A).collect();
    plan.note(&next[0], Outcome::Stored, now + 1000 * slow);
    assert_eq!(STEAL.with(plan.pace()), 3 * PACE_MAX);
    for ask in &next[1..5] {
        plan.note(ask, Outcome::Stored, now + 2 * slow);
    }
    assert_eq!(plan.pace(), Some(slow));
}

/// A peer of which it is only known how long it takes for a group, if it answers at all.
struct Served {
    plan: Plan,
    now: Instant,
    under_way: Vec<(Instant, Ask, Outcome)>,
    /// When the author has time for the next group.
    free: Instant,
}

const AUTHOR: PeerKey = A;
const TAKES: Duration = Duration::from_millis(40);

impl Served {
    fn new(groups: u32, sources: &[PeerKey], before: Experience) -> Self {
        let now = Instant::now();
        let mut plan = Plan::new(groups, &Bits::none(groups), before);
        plan.offer(sources.iter().copied(), now, now);
        Self { plan, now, under_way: Vec::new(), free: now }
    }

    /// How long a transfer takes if the author names `named` to whoever does not insist, and nobody else ever answers.
    fn duration(&mut self, named: &[PeerKey]) -> Duration {
        let start = self.now;
        for _ in 0..100_000 {
            if self.plan.is_done() {
                return self.now - start;
            }
            while let Some(ask) = self.plan.next(self.now, &mut || 0) {
                if ask.peer != AUTHOR {
                    continue;
                }
                if !ask.insist && !named.is_empty() {
                    self.under_way.push((self.now, ask, Outcome::Elsewhere(named.to_vec())));
                    continue;
                }
                self.free = self.free.max(self.now) + TAKES;
                self.under_way.push((self.free, ask, Outcome::Stored));
            }
            let answer = (0..self.under_way.len()).min_by_key(|place| self.under_way[*place].0);
            let wake = self.plan.wake(self.now);
            match answer.filter(|place| self.under_way[*place].0 <= wake) {
                Some(place) => {
                    let (at, ask, outcome) = self.under_way.swap_remove(place);
                    self.now = self.now.max(at);
                    self.plan.note(&ask, outcome, self.now);
                }
                None => self.now = wake,
            }
        }
        panic!("the transfer does not end");
    }
}

#[test]
fn receivers_that_are_named_and_stall_cost_a_transfer_one_wait_and_the_next_ones_none() {
    let groups = 64;
    let alone = Served::new(groups, &[AUTHOR], Experience::default()).duration(&[]);
    let mut first = Served::new(groups, &[AUTHOR], Experience::default());
    let with_stallers = first.duration(&[B, C]);
    assert!(with_stallers <= alone + REDIRECT.unknown + STEAL.unknown, "{with_stallers:?} instead of {alone:?}");
    let learnt = first.plan.experience();
    assert_eq!(learnt.stalled, BTreeSet::from([B, C]));
    let second = Served::new(groups, &[AUTHOR], learnt).duration(&[B, C]);
    assert!(second * 4 <= alone * 5, "{second:?} instead of {alone:?}");
}

#[test]
fn a_source_that_takes_requests_and_never_answers_delays_a_transfer_by_a_few_groups_times() {
    let groups = 64;
    let alone = Served::new(groups, &[AUTHOR], Experience::default()).duration(&[]);
    let mut beside = Served::new(groups, &[AUTHOR, B], Experience::default());
    let with_staller = beside.duration(&[]);
    assert!(with_staller <= alone + STEAL.unknown, "{with_staller:?} instead of {alone:?}");
    assert!(beside.plan.experience().stalled.contains(&B) && !beside.plan.experience().stalled.contains(&AUTHOR));
}

#[test]
fn who_stalled_is_trusted_again_once_it_has_delivered_as_often() {
    let now = Instant::now();
    let before = Experience { pace: None, stalled: BTreeSet::from([A]) };
    let mut plan = Plan::new(20, &Bits::none(20), before);
    plan.offer([A], now, now);
    let only = asks(&mut plan, now);
    assert_eq!(only.len(), 1, "one request at a time");
    plan.note(&only[0], Outcome::Stored, now);
    assert_eq!(asks(&mut plan, now).len(), WINDOW);
    assert!(plan.experience().stalled.is_empty());
}
