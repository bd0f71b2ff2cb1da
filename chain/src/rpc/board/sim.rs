//! The board in simulated time: what sticking to an endpoint, hedging and resting are worth, against asking in a fixed order
//! with a time-out. One call after the other, each 200 ms after the last one's end. The figures stand in
//! docs/decisions/0010-endpoint-health.md.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests may unwrap, and this one tells its figures")]

use super::*;
use crate::rpc::hedge::hedge_after;

const MS: fn(u64) -> Duration = Duration::from_millis;
const TIMEOUT: Duration = Duration::from_secs(10);
const CALLS: u64 = 10_000;

/// SplitMix64: the same numbers everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// How an endpoint behaves: how long its answer takes, or that there is none.
#[derive(Clone, Copy, Debug)]
enum Nature {
    /// 40 to 80 ms; one answer in so many takes 3 s more.
    Stalls(u64),
    /// As above, but silent between these minutes.
    Silent(u64, u64),
}

struct World {
    now: Duration,
    random: Random,
    natures: [Nature; 2],
    requests: u64,
}

impl World {
    fn new(natures: [Nature; 2]) -> Self {
        Self { now: Duration::ZERO, random: Random(7), natures, requests: 0 }
    }

    /// How long endpoint `index` takes for a request at `at`; `None` if it does not answer in time.
    fn ask(&mut self, index: usize, at: Duration) -> Option<Duration> {
        self.requests += 1;
        let fast = MS(40 + self.random.below(41));
        let stalls = self.random.below(1_000);
        match self.natures[index] {
            Nature::Stalls(one_in) => Some(fast + if stalls < 1_000 / one_in { MS(3_000) } else { Duration::ZERO }),
            Nature::Silent(from, to) if (from * 60..to * 60).contains(&at.as_secs()) => None,
            Nature::Silent(..) => Some(fast),
        }
    }

    /// The first configured endpoint, then the other one.
    fn in_fixed_order(&mut self) -> Duration {
        match self.ask(0, self.now) {
            Some(elapsed) => elapsed,
            None => TIMEOUT + self.ask(1, self.now + TIMEOUT).unwrap(),
        }
    }

    /// As a call does it.
    fn by_the_board(&mut self, board: &mut Board, start: Instant) -> Duration {
        let now = start + self.now;
        for job in board.jobs(now) {
            let (Job::Genesis(index) | Job::Pulse(index)) = job;
            match (job, self.ask(index, self.now)) {
                (Job::Genesis(_), Some(_)) => board.named(index, Hash::default()),
                (Job::Pulse(_), Some(elapsed)) => board.pulsed(index, Slot(1), elapsed, now),
                (_, None) => board.failed(index, Fault::Dead, now + TIMEOUT, 0),
            }
        }
        let ready = board.plan(now).ready;
        board.hedges.earn();
        let first = self.ask(ready[0], self.now);
        let hedge_at = hedge_after(board.members[ready[0]].latency.p95(), MS(100), MS(2_000));
        let second = ready.get(1).filter(|_| first.is_none_or(|first| first > hedge_at) && board.hedges.spend());
        let second = second.map(|second| (*second, self.ask(*second, self.now + hedge_at).map(|elapsed| hedge_at + elapsed)));
        match (first, second) {
            (Some(first), None | Some((_, None))) => {
                board.answered(ready[0], first);
                first
            }
            (Some(first), Some((_, Some(other)))) if first <= other => {
                board.answered(ready[0], first);
                first
            }
            (_, Some((index, Some(other)))) => {
                board.answered(index, other - hedge_at);
                board.outrun(ready[0], other, now + other, 0);
                other
            }
            (None, _) => {
                board.failed(ready[0], Fault::Dead, now + TIMEOUT, 0);
                TIMEOUT + self.ask(ready[1], self.now + TIMEOUT).unwrap()
            }
        }
    }

    /// The latencies of all calls in ms, the fastest first, and the requests for each hundred calls.
    fn run(mut self, with_board: bool) -> (Vec<u128>, u64) {
        let start = Instant::now();
        let mut board = Board::new(2, Backoff::new(MS(1_000), MS(60_000), 200, 0).unwrap(), MS(10_000), MS(20_000));
        board.roll_call(start);
        (0..2).for_each(|index| board.named(index, Hash::default()));
        let mut latencies = Vec::new();
        for _ in 0..CALLS {
            let took = if with_board { self.by_the_board(&mut board, start) } else { self.in_fixed_order() };
            latencies.push(took.as_millis());
            self.now += took + MS(200);
        }
        latencies.sort_unstable();
        (latencies, self.requests * 100 / CALLS)
    }
}

fn figures(name: &str, (latencies, requests): &(Vec<u128>, u64)) -> (u128, u128) {
    let at = |permille: usize| latencies[latencies.len() * permille / 1_000];
    let (p50, p99, p999, worst) = (at(500), at(990), at(999), latencies[latencies.len() - 1]);
    println!("{name}: p50 {p50} ms, p99 {p99} ms, p99.9 {p999} ms, worst {worst} ms, {requests} requests for 100 calls");
    (p99, worst)
}

#[test]
fn sim_hedging_cuts_the_tail_of_endpoints_that_stall_now_and_then() {
    let natures = [Nature::Stalls(50), Nature::Stalls(50)];
    let fixed = World::new(natures).run(false);
    let board = World::new(natures).run(true);
    let (fixed_p99, _) = figures("stalls, fixed order", &fixed);
    let (board_p99, _) = figures("stalls, board", &board);
    assert!(board_p99 * 5 < fixed_p99);
    assert!(board.1 <= fixed.1 + 15, "hedges and pulses stay a small part of the load");
}

#[test]
fn sim_a_primary_that_hangs_for_minutes_costs_two_calls_and_not_all_of_them() {
    let natures = [Nature::Silent(5, 15), Nature::Silent(0, 0)];
    let fixed = World::new(natures).run(false);
    let board = World::new(natures).run(true);
    let (_, fixed_worst) = figures("silence, fixed order", &fixed);
    let (_, board_worst) = figures("silence, board", &board);
    let slow = |(latencies, _): &(Vec<u128>, u64)| latencies.iter().filter(|ms| **ms > 150).count();
    println!("silence: {} slow calls in fixed order, {} with the board", slow(&fixed), slow(&board));
    assert!(board_worst * 10 < fixed_worst && slow(&board) <= 2 && slow(&fixed) > 20);
}
