#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

use proptest::prelude::*;

use super::*;

const S: fn(u64) -> Duration = Duration::from_secs;
const MS: fn(u64) -> Duration = Duration::from_millis;

fn hash(byte: u8) -> Hash {
    Hash::new_from_array([byte; 32])
}

fn blank(endpoints: usize) -> Board {
    Board::new(endpoints, Backoff::new(S(1), S(60), 200, 0).unwrap(), S(10), S(20))
}

/// A board on which all endpoints have named the same cluster.
fn board(endpoints: usize, now: Instant) -> Board {
    let mut board = blank(endpoints);
    assert_eq!(board.roll_call(now).len(), endpoints);
    (0..endpoints).for_each(|index| board.named(index, hash(1)));
    board
}

fn order(board: &mut Board, now: Instant) -> Vec<usize> {
    board.plan(now).ready
}

#[test]
fn nobody_is_asked_before_it_has_named_its_cluster() {
    let (mut board, now) = (blank(2), Instant::now());
    assert!(order(&mut board, now).is_empty() && board.jobs(now).is_empty());
    assert_eq!(board.roll_call(now), [Job::Genesis(0), Job::Genesis(1)]);
    assert!(board.roll_call(now).is_empty() && board.is_probing(now));
    board.named(1, hash(1));
    assert_eq!(order(&mut board, now), [1]);
    board.named(0, hash(1));
    assert_eq!(order(&mut board, now), [1, 0], "the one that answers keeps its place");
}

#[test]
fn the_endpoint_that_answers_stays_the_first_and_a_dead_one_is_never_started_at() {
    let now = Instant::now();
    let mut board = board(3, now);
    assert_eq!(order(&mut board, now), [0, 1, 2]);
    board.failed(0, Fault::Dead, now, 0);
    assert_eq!(order(&mut board, now), [1, 2]);
    assert_eq!(order(&mut board, now + S(3_600)), [1, 2], "time alone brings nobody back");
    assert_eq!(board.take_notices(), [Notice::Opened { index: 0, rest: S(1) }]);
    assert!(!board.jobs(now).contains(&Job::Genesis(0)));
    assert!(board.jobs(now + S(1)).contains(&Job::Genesis(0)));
    assert!(!board.jobs(now + S(2)).contains(&Job::Genesis(0)), "one probe at a time");
    board.named(0, hash(1));
    assert_eq!(board.take_notices(), [Notice::Closed { index: 0 }]);
    assert_eq!(order(&mut board, now + S(2)), [1, 0, 2], "it comes back behind the one that answered meanwhile");
}

#[test]
fn who_has_not_come_as_far_as_was_asked_for_lags_but_has_not_failed() {
    let now = Instant::now();
    let mut board = board(2, now);
    let before = board.members[0].latency.totals();
    board.failed(0, Fault::Behind, now, 0);
    board.failed(0, Fault::Behind, now, 0);
    assert_eq!(board.members[0].latency.totals(), (before.0 + 2, before.1));
    assert_eq!(order(&mut board, now), [1, 0], "another one is asked first");
    board.failed(0, Fault::Bad, now, 0);
    assert_eq!(board.members[0].latency.totals(), (before.0 + 3, before.1 + 1));
}

#[test]
fn a_lost_probe_does_not_keep_an_endpoint_away_for_ever() {
    let now = Instant::now();
    let mut board = board(1, now);
    board.failed(0, Fault::Dead, now, 0);
    assert_eq!(board.last_resort(now), [Job::Genesis(0)], "with nobody else left, the cool-down does not count");
    assert!(board.last_resort(now + S(20)).is_empty() && board.is_probing(now + S(20)));
    board.failed(0, Fault::Dead, now + S(21), 0);
    assert_eq!(board.last_resort(now + S(21)), [Job::Genesis(0)]);
}

#[test]
fn a_stalled_endpoint_loses_its_place_at_once_and_one_that_was_merely_outrun_keeps_it() {
    let now = Instant::now();
    let mut board = board(2, now);
    (0..20).for_each(|_| board.answered(0, MS(100)));
    board.outrun(0, MS(300), now, 0);
    assert_eq!(order(&mut board, now), [0, 1], "one slow answer may be chance");
    board.answered(0, MS(100));
    board.outrun(0, MS(300), now, 0);
    assert_eq!(order(&mut board, now), [0, 1], "an answer clears it");
    board.outrun(0, MS(300), now, 0);
    assert_eq!(order(&mut board, now), [1, 0]);
    let mut board = self::board(2, now);
    (0..20).for_each(|_| board.answered(0, MS(10)));
    board.outrun(0, MS(500), now, 0);
    assert_eq!(order(&mut board, now), [1, 0]);
    board.answered(0, MS(10));
    assert_eq!(order(&mut board, now), [1, 0], "the choice is sticky");
}

#[test]
fn a_lagging_endpoint_loses_its_place_with_hysteresis() {
    let now = Instant::now();
    let mut board = board(2, now);
    let mut see = |slots: [u64; 2]| {
        slots.into_iter().enumerate().rev().for_each(|(index, slot)| board.read_from(index, Slot(slot), now));
        (order(&mut board, now), board.members[0].lagging)
    };
    assert_eq!(see([1_000, 1_000]), (vec![0, 1], false));
    assert_eq!(see([1_000, 1_100]), (vec![0, 1], false), "once may be chance");
    assert_eq!(see([1_001, 1_101]), (vec![1, 0], true));
    assert!(see([1_082, 1_102]).1, "twenty slots are too many to come back");
    assert_eq!(see([1_098, 1_103]), (vec![1, 0], false), "five are not; but the other one stays the first");
}

#[test]
fn a_slow_endpoint_loses_its_place_with_hysteresis_and_only_for_the_same_small_request() {
    let now = Instant::now();
    let mut board = board(2, now);
    (0..50).for_each(|_| board.answered(0, S(5)));
    let mut pulse = |slow: Duration, times: usize| {
        for _ in 0..times {
            board.pulsed(1, Slot(100), MS(50), now);
            board.pulsed(0, Slot(100), slow, now);
        }
        (order(&mut board, now), board.members[0].slow)
    };
    assert_eq!(pulse(MS(400), 2), (vec![0, 1], false), "too few pulses to tell");
    assert_eq!(pulse(MS(400), 1), (vec![1, 0], true));
    assert!(pulse(MS(120), 50).1, "less than three times as slow, but more than twice");
    assert_eq!(pulse(MS(60), 20), (vec![1, 0], false));
}

#[test]
fn a_rate_limited_endpoint_is_left_alone_for_as_long_as_it_says() {
    let now = Instant::now();
    let mut board = board(2, now);
    board.limited(0, Some(S(60)), now);
    assert_eq!(order(&mut board, now + S(59)), [1]);
    assert!(!board.jobs(now + S(59)).contains(&Job::Pulse(0)), "not even in the background");
    board.limited(1, Some(S(30)), now);
    let plan = board.plan(now + S(1));
    assert_eq!((plan.ready, plan.limited), (vec![], Some((1, now + S(30)))), "the soonest is waited for");
    assert!(board.last_resort(now + S(1)).is_empty());
    assert_eq!(order(&mut board, now + S(30)), [1]);
    assert_eq!(order(&mut board, now + S(60)), [1, 0]);
    assert!(board.take_notices().is_empty(), "it is no failure");
}

#[test]
fn rests_that_nobody_tells_the_length_of_double_up_to_a_bound() {
    let mut now = Instant::now();
    let mut board = board(1, now);
    let mut rests = Vec::new();
    for _ in 0..8 {
        board.limited(0, None, now);
        let until = board.plan(now).limited.unwrap().1;
        rests.push(until.duration_since(now).as_secs());
        now = until;
    }
    assert_eq!(rests, [1, 2, 4, 8, 16, 30, 30, 30]);
    board.answered(0, MS(1));
    board.limited(0, None, now);
    assert_eq!(board.plan(now).limited, Some((0, now + S(1))));
}

#[test]
fn the_odd_cluster_out_is_refused_and_readmitted_once_it_names_the_right_one() {
    let now = Instant::now();
    let mut board = blank(3);
    board.roll_call(now);
    board.named(0, hash(9));
    assert_eq!(order(&mut board, now), [0], "nobody has said otherwise yet");
    board.named(1, hash(1));
    assert_eq!(board.take_notices(), [Notice::Refused { index: 1, genesis: hash(1), home: hash(9), others: vec![0] }]);
    board.named(2, hash(1));
    let refused = Notice::Refused { index: 0, genesis: hash(9), home: hash(1), others: vec![1, 2] };
    assert_eq!(board.take_notices(), [refused, Notice::Readmitted { index: 1 }], "the majority decides");
    assert_eq!(order(&mut board, now), [1, 2]);
    assert_eq!(board.healthy(now), [1, 2], "no transaction goes there either");
    assert!(board.last_resort(now).is_empty());
    assert!(!board.jobs(now + S(29)).contains(&Job::Genesis(0)));
    assert!(board.jobs(now + S(30)).contains(&Job::Genesis(0)), "it is asked again now and then");
    board.named(0, hash(1));
    assert_eq!(board.take_notices(), [Notice::Readmitted { index: 0 }]);
    assert_eq!(order(&mut board, now), [1, 0, 2]);
}

#[test]
fn an_endpoint_whose_circuit_was_open_names_its_cluster_anew() {
    let now = Instant::now();
    let mut board = board(2, now);
    board.failed(0, Fault::Dead, now, 0);
    board.answered(0, MS(1));
    assert_eq!(order(&mut board, now), [1], "a late answer does not bring it back");
    assert!(board.jobs(now + S(1)).contains(&Job::Genesis(0)));
    board.named(0, hash(9));
    assert_eq!(order(&mut board, now + S(1)), [1], "another chain has come up behind its URL");
}

#[test]
fn a_single_endpoint_that_comes_back_with_another_chain_is_refused() {
    let now = Instant::now();
    let mut board = board(1, now);
    board.failed(0, Fault::Dead, now, 0);
    assert_eq!(board.last_resort(now), [Job::Genesis(0)]);
    board.named(0, hash(2));
    assert!(order(&mut board, now).is_empty());
    assert!(board.take_notices().contains(&Notice::Refused { index: 0, genesis: hash(2), home: hash(1), others: vec![] }));
}

#[test]
fn of_three_the_one_with_an_absurd_slot_loses_its_place() {
    let now = Instant::now();
    let mut board = board(3, now);
    for (index, slot) in [(1, 100), (2, 101), (0, u64::MAX)] {
        board.read_from(index, Slot(slot), now);
    }
    assert_eq!(board.take_notices(), [Notice::Absurd { index: 0, slot: Slot(u64::MAX) }]);
    assert_eq!((order(&mut board, now), board.slots.floor()), (vec![1, 2, 0], Slot(101)));
    board.read_from(0, Slot(102), now);
    assert_eq!(board.slots.floor(), Slot(102));
}

#[test]
fn transactions_go_to_everybody_who_is_alive_on_the_right_cluster_and_not_rate_limited() {
    let now = Instant::now();
    let mut board = board(3, now);
    board.failed(0, Fault::Dead, now, 0);
    board.limited(1, Some(S(5)), now);
    assert_eq!(board.healthy(now), [2]);
    board.failed(2, Fault::Dead, now, 0);
    assert_eq!((board.healthy(now), board.healthy(now + S(5))), (vec![], vec![1]));
}

#[test]
fn pulses_are_taken_now_and_then_and_only_of_several_endpoints() {
    let now = Instant::now();
    let mut one = board(1, now);
    assert!(one.jobs(now + S(100)).is_empty());
    let mut two = board(2, now);
    assert_eq!(two.jobs(now + S(10)), [Job::Pulse(0), Job::Pulse(1)]);
    assert!(two.jobs(now + S(10)).is_empty());
    two.pulsed(0, Slot(5), MS(5), now + S(10));
    assert!(two.jobs(now + S(19)).is_empty());
    assert_eq!(two.jobs(now + S(20)), [Job::Pulse(0)]);
    assert_eq!(two.jobs(now + S(31)), [Job::Pulse(1)], "one that got lost is taken anew");
}

#[derive(Clone, Debug)]
enum Step {
    Answer(u64),
    Fail(u8),
    Outrun(u64),
    Limit(Option<u64>),
    Name(u8),
    Pulse(u64),
    Read(u64),
    Jobs,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0_u64..5_000).prop_map(Step::Answer),
        (0_u8..5).prop_map(Step::Fail),
        (0_u64..5_000).prop_map(Step::Outrun),
        proptest::option::of(0_u64..300).prop_map(Step::Limit),
        (1_u8..3).prop_map(Step::Name),
        any::<u64>().prop_map(Step::Pulse),
        (0_u64..10_000).prop_map(Step::Read),
        Just(Step::Jobs),
    ]
}

fn apply(board: &mut Board, index: usize, step: Step, now: Instant) {
    let faults = [Fault::Dead, Fault::Bad, Fault::Stalled, Fault::Outrun, Fault::Behind];
    match step {
        Step::Answer(ms) => board.answered(index, MS(ms)),
        Step::Fail(fault) => board.failed(index, faults[usize::from(fault)], now, 7),
        Step::Outrun(ms) => board.outrun(index, MS(ms), now, 7),
        Step::Limit(rest) => board.limited(index, rest.map(S), now),
        Step::Name(byte) => board.named(index, hash(byte)),
        Step::Pulse(slot) => board.pulsed(index, Slot(slot), MS(3), now),
        Step::Read(slot) => board.read_from(index, Slot(slot), now),
        Step::Jobs => drop(board.jobs(now)),
    }
}

proptest! {
    #[test]
    fn prop_whoever_is_asked_is_alive_on_the_right_cluster_and_not_rate_limited(
        endpoints in 1_usize..5, steps in proptest::collection::vec((0_usize..5, step(), 0_u64..40), 1..150)
    ) {
        let mut now = Instant::now();
        let mut board = blank(endpoints);
        board.roll_call(now);
        for (index, step, seconds) in steps {
            now += S(seconds);
            let first = board.current;
            let was_clean = board.members[first].is_usable() && !board.members[first].is_blemished();
            apply(&mut board, index % endpoints, step, now);
            let plan = board.plan(now);
            for asked in &plan.ready {
                let member = &board.members[*asked];
                prop_assert!(member.breaker.is_closed() && member.genesis == board.home && !member.is_limited(now));
            }
            let mut unique = plan.ready.clone();
            unique.sort_unstable();
            unique.dedup();
            prop_assert_eq!(unique.len(), plan.ready.len());
            prop_assert!(plan.ready.is_empty() || plan.limited.is_none());
            // Sticky: whoever was fit to be the first and still is, stays it.
            let member = &board.members[first];
            if was_clean && member.is_usable() && !member.is_blemished() && !member.is_limited(now) {
                prop_assert_eq!(board.current, first);
            }
            board.take_notices();
        }
    }

    #[test]
    fn prop_after_any_history_an_endpoint_that_answers_right_is_asked_again(
        steps in proptest::collection::vec((0_usize..2, step(), 0_u64..40), 1..100)
    ) {
        let mut now = Instant::now();
        let mut board = board(2, now);
        for (index, step, seconds) in steps {
            now += S(seconds);
            apply(&mut board, index, step, now);
        }
        now += S(400);
        let home = board.home.unwrap();
        for index in 0..2 {
            board.named(index, home);
        }
        prop_assert_eq!(board.plan(now).ready.len(), 2);
    }
}
