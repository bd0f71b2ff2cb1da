#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    nonce: u64,
    phase: u8,
    slot: Slot,
}

impl Watched for State {
    fn nonce(&self) -> u64 {
        self.nonce
    }

    fn is_phase_change(&self, previous: &Self) -> bool {
        self.phase != previous.phase
    }

    fn at_slot(&mut self, slot: Slot) {
        self.slot = slot;
    }
}

const ENVELOPE: Envelope = Envelope { lamports: Lamports(1), owner: Address([2; 32]), executable: false };

/// A state of `nonce` whose bytes say nothing else.
fn plain(nonce: u64) -> (State, Fingerprint) {
    let byte = u8::try_from(nonce).unwrap();
    (State { nonce, phase: byte / 10, slot: Slot(0) }, [byte; 32])
}

/// Offers a state; what is delivered, and its slot.
fn offer(merger: &mut Merger<State>, nonce: u64, slot: u64, read_after: Option<usize>) -> Verdict<u64> {
    offer_at(merger, nonce, slot, slot, read_after)
}

/// As [`offer`], from a websocket that had spoken of `heartbeat`.
fn offer_at(merger: &mut Merger<State>, nonce: u64, slot: u64, heartbeat: u64, read_after: Option<usize>) -> Verdict<u64> {
    let (state, print) = plain(nonce);
    match merger.offer(state, Seen { slot: Slot(slot), print, envelope: ENVELOPE, heartbeat: Slot(heartbeat), read_after }) {
        Verdict::News(state, kind) => Verdict::News(state.slot.0, kind),
        Verdict::Known => Verdict::Known,
        Verdict::Doubtful => Verdict::Doubtful,
    }
}

const fn update(slot: u64) -> Verdict<u64> {
    Verdict::News(slot, Kind::Update)
}

const fn phase(slot: u64) -> Verdict<u64> {
    Verdict::News(slot, Kind::PhaseChange)
}

#[test]
fn duplicates_and_older_states_are_no_news() {
    let mut merger = Merger::default();
    assert_eq!(offer(&mut merger, 5, 100, None), phase(100));
    assert_eq!(offer(&mut merger, 5, 101, None), Verdict::Known);
    assert_eq!(offer(&mut merger, 4, 99, Some(1)), Verdict::Known);
    assert_eq!(offer(&mut merger, 6, 102, None), update(102));
    assert_eq!(offer(&mut merger, 10, 103, None), phase(103));
    assert_eq!(offer(&mut merger, 6, 108, None), Verdict::Known, "an endpoint that lags repeats what was delivered");
}

#[test]
fn a_higher_nonce_is_news_even_with_an_old_slot() {
    let mut merger = Merger::default();
    assert_eq!(offer(&mut merger, 5, 100, Some(0)), phase(100));
    assert_eq!(offer(&mut merger, 6, 40, None), update(100), "the slot never goes back");
}

#[test]
fn a_notification_never_goes_back_but_asks_for_a_read() {
    let mut merger = Merger::default();
    assert_eq!(offer(&mut merger, 5, 100, None), phase(100));
    assert_eq!(offer(&mut merger, 4, 105, None), Verdict::Doubtful);
}

#[test]
fn an_account_made_anew_is_believed_from_a_fresh_read_only() {
    let mut merger = Merger::default();
    assert_eq!(offer(&mut merger, 5, 100, None), phase(100));
    assert_eq!(offer(&mut merger, 6, 40, None), update(100));
    assert_eq!(offer(&mut merger, 5, 110, Some(1)), Verdict::Known, "this read began before nonce 6 was seen");
    assert_eq!(offer(&mut merger, 0, 111, Some(2)), Verdict::News(111, Kind::Anew));
}

#[test]
fn a_read_from_before_the_last_heartbeat_takes_nothing_back() {
    let mut merger = Merger::default();
    assert_eq!(offer(&mut merger, 5, 100, Some(0)), phase(100));
    assert_eq!(offer_at(&mut merger, 8, 90, 130, None), update(100), "stamped with the slot of its subscription");
    assert_eq!(offer(&mut merger, 7, 120, Some(2)), Verdict::Known, "an endpoint that lags, but not behind the stamp");
    assert_eq!(offer(&mut merger, 7, 131, Some(2)), Verdict::News(131, Kind::Anew));
}

#[test]
fn an_absurd_heartbeat_does_not_blind() {
    let mut merger = Merger::default();
    assert_eq!(offer_at(&mut merger, 8, 100, u64::MAX, None), phase(100));
    assert_eq!(offer(&mut merger, 0, 20_000, Some(1)), Verdict::News(20_000, Kind::Anew));
}

#[test]
fn what_is_still_said_about_the_old_account_is_not_believed() {
    let mut merger = Merger::default();
    assert_eq!(offer(&mut merger, 15, 100, None), phase(100));
    assert_eq!(offer(&mut merger, 0, 111, Some(1)), Verdict::News(111, Kind::Anew));
    assert_eq!(offer(&mut merger, 16, 109, None), Verdict::Doubtful, "an endpoint that lags knows the old account only");
    assert_eq!(offer(&mut merger, 1, 111, Some(2)), update(111), "a read is about the new one");
    assert_eq!(offer(&mut merger, 2, 112, None), update(112));
}

#[test]
fn other_bytes_under_the_same_nonce_are_news_from_a_later_slot() {
    let mut merger = Merger::default();
    assert_eq!(offer(&mut merger, 5, 100, None), phase(100));
    let mut other = |byte: u8, slot, read_after| {
        let (state, _) = plain(5);
        merger.offer(state, Seen { slot: Slot(slot), print: [byte; 32], envelope: ENVELOPE, heartbeat: Slot(slot), read_after })
    };
    assert_eq!(other(9, 100, None), Verdict::Doubtful, "the slot says nothing, so it is read");
    assert!(matches!(other(9, 101, Some(1)), Verdict::News(_, Kind::Update)));
    assert_eq!(other(5, 101, Some(2)), Verdict::Known, "the old bytes do not come back");
    assert_eq!(other(5, 102, Some(1)), Verdict::Known, "this read began before the new bytes were seen");
    assert!(matches!(other(8, 103, None), Verdict::News(..)));
}

#[test]
fn a_loss_is_reported_once_until_the_account_is_back() {
    let mut merger = Merger::default();
    assert_eq!(offer(&mut merger, 5, 100, None), phase(100));
    assert!(!merger.lose(Slot(99), 1, false), "this read is older than what was seen");
    assert!(!merger.lose(Slot(101), 0, false), "this read began earlier than what was seen");
    assert!(merger.lose(Slot(101), 1, false));
    assert!(!merger.lose(Slot(102), 1, false));
    assert_eq!(offer(&mut merger, 5, 103, Some(1)), Verdict::Known);
    assert!(merger.lose(Slot(104), 1, false), "it was readable in between");
}

#[test]
fn an_account_that_was_gone_is_another_one_whatever_its_counter_says() {
    let mut merger = Merger::default();
    assert!(merger.lose(Slot(90), 0, true), "the first thing that is known may be that there is nothing");
    assert_eq!(offer(&mut merger, 5, 100, Some(0)), phase(100));
    assert!(merger.lose(Slot(103), 1, true));
    assert_eq!(offer(&mut merger, 6, 104, None), Verdict::Doubtful, "it may be about the old one");
    assert_eq!(offer(&mut merger, 5, 102, Some(1)), Verdict::Doubtful, "an endpoint that lags");
    assert_eq!(offer(&mut merger, 6, 104, Some(1)), Verdict::News(104, Kind::Anew));
    assert_eq!(offer(&mut merger, 7, 105, None), update(105));
}

#[test]
fn a_state_leaps_if_a_phase_may_lie_before_it() {
    let mut merger = Merger::default();
    assert!(!merger.leaps(&plain(50).0), "nothing is known");
    assert_eq!(offer(&mut merger, 15, 100, None), phase(100));
    assert!(!merger.leaps(&plain(19).0) && !merger.leaps(&plain(3).0) && merger.leaps(&plain(20).0));
    assert_eq!(offer(&mut merger, 19, 100, None), update(100));
    assert!(!merger.leaps(&plain(20).0), "nothing can come before the next one");
}

proptest! {
    #[test]
    fn prop_notifications_in_any_order_give_a_rising_sequence(
        seen in proptest::collection::vec((0_u64..50, 0_u64..1_000), 1..100)
    ) {
        let mut merger = Merger::default();
        let mut last = None;
        for (nonce, slot) in &seen {
            if let Verdict::News(at, _) = offer(&mut merger, *nonce, *slot, None) {
                if let Some((last_nonce, last_slot)) = last {
                    prop_assert!(*nonce > last_nonce && at >= last_slot);
                }
                last = Some((*nonce, at));
            }
        }
        prop_assert_eq!(last.unwrap().0, seen.iter().map(|(nonce, _)| *nonce).max().unwrap());
    }

    /// Many endpoints tell the same history, each at its own pace and with repetitions, and reads come in between.
    #[test]
    fn prop_every_phase_change_is_delivered_once_whatever_the_endpoints_repeat(
        order in proptest::collection::vec((0_usize..3, 1_usize..4, any::<bool>()), 1..200)
    ) {
        let mut merger = Merger::default();
        let mut told = [0_u64; 3];
        let mut phases = Vec::new();
        for (endpoint, steps, again) in order {
            for _ in 0..steps {
                let nonce = told[endpoint];
                if nonce > 60 {
                    continue;
                }
                told[endpoint] = if again && nonce > 0 { nonce - 1 } else { nonce + 1 };
                let read_after = (endpoint == 2).then(|| merger.delivered());
                // A read is of the slot that its state is from; a websocket's stamp may be as old as its subscription.
                let slot = if endpoint == 1 { 0 } else { nonce };
                if let Verdict::News(_, kind) = offer_at(&mut merger, nonce, slot, nonce, read_after) {
                    prop_assert_ne!(kind, Kind::Anew);
                    if kind == Kind::PhaseChange {
                        phases.push(nonce / 10);
                    }
                }
            }
        }
        prop_assert!(phases.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", phases);
    }
}
