//! Which slot reads must not fall behind, and how far endpoints lag. Pure.
//!
//! Every read asks for a state at or after the *floor*, so that what a node sees never goes back. The floor must not be at
//! the mercy of one liar: a slot far beyond everybody else's would make every later read fail.
//!
//! - A slot that a read came from raises the floor, unless it lies more than [`LEAP`] beyond what most endpoints said of
//!   late; and a floor that turns out to lie so far beyond most of them is given up.
//! - A slot that was merely heard of (a notification, a transaction's status) raises it only if it lies less than that beyond
//!   a slot that some endpoint answered from.
//! - Where all endpoints stay behind a floor that was merely heard of for longer than [`PATIENCE`], it is lowered to the best
//!   slot that a read came from, and hearsay does not count for [`WARY`]. Where they stay behind that one for longer than
//!   [`PATIENCE_WITH_READS`], whoever answered from there has gone, or lied: it is lowered to what they reach.

use std::time::{Duration, Instant};

use psyche_messages::Slot;

/// No honest endpoint is so far ahead of the others: twenty minutes of blocks.
pub(crate) const LEAP: u64 = 3_000;
/// How long all endpoints may stay behind a slot that was merely heard of.
pub(crate) const PATIENCE: Duration = Duration::from_secs(4);
/// How long all endpoints may stay behind a slot that a read came from.
pub(crate) const PATIENCE_WITH_READS: Duration = Duration::from_secs(20);
/// How long hearsay does not count once it has proved wrong.
pub(crate) const WARY: Duration = Duration::from_secs(300);
/// What an endpoint said longer ago does not count against what another says.
const FRESH: Duration = Duration::from_secs(60);

/// The floor was lowered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lowered {
    /// What nobody reached.
    pub(crate) from: Slot,
    /// What reads ask for now.
    pub(crate) to: Slot,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Slots {
    /// For each endpoint the slot that it answered from last, and when.
    answered: Vec<Option<(Slot, Instant)>>,
    floor: Slot,
    /// The best slot that a read came from.
    read: Slot,
    behind_since: Option<Instant>,
    wary_until: Option<Instant>,
}

impl Slots {
    pub(crate) fn new(endpoints: usize) -> Self {
        Self { answered: vec![None; endpoints], floor: Slot(0), read: Slot(0), behind_since: None, wary_until: None }
    }

    /// The slot that reads ask for.
    pub(crate) const fn floor(&self) -> Slot {
        self.floor
    }

    /// Notes that `index` answered from `slot`, without asking that later reads reach it.
    pub(crate) fn observed(&mut self, index: usize, slot: Slot, now: Instant) {
        if let Some(answered) = self.answered.get_mut(index) {
            *answered = Some((slot, now));
        }
        let (below, all) = self.below(self.floor, now);
        if all > 1 && below * 2 > all {
            // Whoever was asked first lied, before anybody could contradict.
            self.floor = self.fresh(now).into_iter().rfind(|slot| !self.is_beyond_most(*slot, now)).unwrap_or(Slot(0));
            self.read = self.floor;
        }
    }

    /// Notes that a read of `index` came from `slot`; whether it may serve as the floor.
    pub(crate) fn read(&mut self, index: usize, slot: Slot, now: Instant) -> bool {
        self.observed(index, slot, now);
        if slot >= self.floor {
            self.behind_since = None;
        }
        let plausible = !self.is_far_ahead(slot, now);
        if plausible {
            self.floor = self.floor.max(slot);
            self.read = self.read.max(slot);
        }
        plausible
    }

    /// Notes a slot that was heard of.
    pub(crate) fn heard(&mut self, slot: Slot, now: Instant) {
        let best = self.answered.iter().flatten().map(|(slot, _)| *slot).max();
        let wary = self.wary_until.is_some_and(|until| now < until);
        if !wary && best.is_some_and(|best| slot.0.saturating_sub(best.0) < LEAP) {
            self.floor = self.floor.max(slot);
        }
    }

    /// Notes that every endpoint that could be asked is behind the floor.
    pub(crate) fn all_behind(&mut self, now: Instant) -> Option<Lowered> {
        let behind = now.saturating_duration_since(*self.behind_since.get_or_insert(now));
        let to = if self.floor > self.read && behind >= PATIENCE {
            self.wary_until = Some(now + WARY);
            self.read
        } else if behind >= PATIENCE_WITH_READS {
            let slots = self.answered.iter().flatten().map(|(slot, _)| *slot);
            slots.filter(|slot| *slot < self.floor).max().unwrap_or(Slot(0))
        } else {
            return None;
        };
        let lowered = Lowered { from: self.floor, to };
        (self.floor, self.read, self.behind_since) = (to, to, None);
        Some(lowered)
    }

    fn fresh(&self, now: Instant) -> Vec<Slot> {
        let is_fresh = |at: &Instant| now.saturating_duration_since(*at) <= FRESH;
        let mut slots: Vec<Slot> =
            self.answered.iter().flatten().filter(|(_, at)| is_fresh(at)).map(|(slot, _)| *slot).collect();
        slots.sort_unstable();
        slots
    }

    /// How many of those that answered of late are more than [`LEAP`] below `slot`, and how many answered.
    fn below(&self, slot: Slot, now: Instant) -> (usize, usize) {
        let fresh = self.fresh(now);
        (fresh.iter().filter(|other| slot.0.saturating_sub(other.0) > LEAP).count(), fresh.len())
    }

    /// Whether half of those that answered of late are far below `slot`: no reason to distrust it, but none to demand it.
    fn is_far_ahead(&self, slot: Slot, now: Instant) -> bool {
        let (below, all) = self.below(slot, now);
        below * 2 >= all.max(1)
    }

    /// Whether most of those that answered of late are far below what `index` said.
    pub(crate) fn is_absurd(&self, index: usize, now: Instant) -> bool {
        self.answered.get(index).copied().flatten().is_some_and(|(slot, _)| self.is_beyond_most(slot, now))
    }

    fn is_beyond_most(&self, slot: Slot, now: Instant) -> bool {
        let (below, all) = self.below(slot, now);
        below * 2 > all
    }

    /// How many slots `index` is behind the best plausible one; `None` where it has not answered of late, or where it and
    /// the others are so far apart that nobody can tell who is wrong.
    pub(crate) fn lag(&self, index: usize, now: Instant) -> Option<u64> {
        let (slot, at) = (*self.answered.get(index)?)?;
        if now.saturating_duration_since(at) > FRESH || self.is_far_ahead(slot, now) {
            return None;
        }
        let best = self.fresh(now).into_iter().filter(|other| !self.is_far_ahead(*other, now)).max()?;
        Some(best.0.saturating_sub(slot.0))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use proptest::prelude::*;

    use super::*;

    const ABSURD: Slot = Slot(u64::MAX - 5);
    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn reads_never_go_back() {
        let (mut slots, now) = (Slots::new(2), Instant::now());
        assert!(slots.read(0, Slot(100), now) && slots.read(1, Slot(90), now));
        assert_eq!(slots.floor(), Slot(100));
        slots.heard(Slot(110), now);
        assert_eq!(slots.floor(), Slot(110));
        assert_eq!((slots.lag(0, now), slots.lag(1, now)), (Some(0), Some(10)));
    }

    #[test]
    fn a_notification_with_an_absurd_slot_is_no_floor() {
        let (mut slots, now) = (Slots::new(1), Instant::now());
        slots.heard(Slot(5), now);
        assert_eq!(slots.floor(), Slot(0), "nobody has answered yet");
        slots.read(0, Slot(100), now);
        for slot in [ABSURD, Slot(100 + LEAP)] {
            slots.heard(slot, now);
            assert_eq!(slots.floor(), Slot(100));
        }
    }

    #[test]
    fn an_absurd_answer_is_no_floor_while_another_endpoint_disagrees() {
        let (mut slots, now) = (Slots::new(2), Instant::now());
        slots.read(0, Slot(100), now);
        assert!(!slots.read(1, ABSURD, now));
        assert_eq!(slots.floor(), Slot(100));
        assert!(slots.read(0, Slot(101), now), "the honest one goes on");
        assert_eq!(slots.floor(), Slot(101));
        assert!(!slots.is_absurd(0, now) && !slots.is_absurd(1, now), "of two, nobody can tell who is wrong");
    }

    #[test]
    fn of_three_the_odd_one_out_is_seen_in_either_direction() {
        let (mut slots, now) = (Slots::new(3), Instant::now());
        slots.read(0, Slot(50_000), now);
        slots.read(1, Slot(50_001), now);
        assert!(!slots.read(2, ABSURD, now));
        assert_eq!((slots.lag(0, now), slots.lag(1, now), slots.lag(2, now)), (Some(1), Some(0), None));
        assert_eq!([0, 1, 2].map(|index| slots.is_absurd(index, now)), [false, false, true]);
        slots.read(2, Slot(7), now);
        assert_eq!((slots.lag(0, now), slots.lag(2, now)), (Some(1), Some(49_994)));
    }

    #[test]
    fn a_liar_that_was_asked_first_is_overruled_once_two_others_have_answered() {
        let (mut slots, now) = (Slots::new(3), Instant::now());
        assert!(slots.read(0, ABSURD, now), "nobody has said otherwise yet");
        slots.observed(1, Slot(100), now);
        assert_eq!(slots.floor(), ABSURD, "one against one");
        slots.observed(2, Slot(101), now);
        assert_eq!(slots.floor(), Slot(101));
    }

    #[test]
    fn the_floor_is_lowered_to_what_was_reached_if_everybody_stays_behind() {
        let (mut slots, mut now) = (Slots::new(2), Instant::now());
        slots.read(0, Slot(100), now);
        slots.read(1, Slot(95), now);
        slots.heard(Slot(2_000), now);
        assert_eq!((slots.floor(), slots.all_behind(now)), (Slot(2_000), None));
        now += PATIENCE;
        assert_eq!(slots.all_behind(now), Some(Lowered { from: Slot(2_000), to: Slot(100) }));
        slots.heard(Slot(2_100), now);
        assert_eq!(slots.floor(), Slot(100), "hearsay has lost its credit");
        slots.read(0, Slot(101), now);
        assert_eq!(slots.floor(), Slot(101), "reads have not");
        slots.heard(Slot(130), now + WARY);
        assert_eq!(slots.floor(), Slot(130));
    }

    #[test]
    fn a_slot_that_a_read_came_from_is_given_up_only_after_a_long_wait() {
        let (mut slots, now) = (Slots::new(2), Instant::now());
        slots.read(0, Slot(1_000), now);
        slots.observed(1, Slot(900), now);
        assert_eq!(slots.all_behind(now), None);
        assert_eq!(slots.all_behind(now + PATIENCE_WITH_READS - S(1)), None);
        let lowered = slots.all_behind(now + PATIENCE_WITH_READS);
        assert_eq!(lowered, Some(Lowered { from: Slot(1_000), to: Slot(900) }));
        assert_eq!(slots.all_behind(now + PATIENCE_WITH_READS), None, "the wait begins anew");
    }

    #[test]
    fn one_answer_in_time_ends_the_wait() {
        let (mut slots, now) = (Slots::new(1), Instant::now());
        slots.read(0, Slot(100), now);
        slots.heard(Slot(110), now);
        assert_eq!(slots.all_behind(now), None);
        slots.read(0, Slot(110), now + S(1));
        assert_eq!(slots.all_behind(now + PATIENCE), None);
        assert_eq!(slots.floor(), Slot(110));
    }

    #[test]
    fn a_chain_that_went_on_unseen_is_followed_at_once() {
        let (mut slots, now) = (Slots::new(2), Instant::now());
        slots.read(0, Slot(100), now);
        slots.read(1, Slot(100), now);
        let later = now + FRESH + S(1);
        assert!(slots.read(1, Slot(900_000), later));
        assert_eq!(slots.floor(), Slot(900_000));
    }

    proptest! {
        #[test]
        fn prop_one_liar_of_three_never_raises_the_floor_far_beyond_the_honest_ones(
            steps in proptest::collection::vec((0_u8..4, any::<u64>(), 0_u64..5), 1..200)
        ) {
            let (mut slots, mut now, mut honest) = (Slots::new(3), Instant::now(), 1_000_000_u64);
            slots.read(0, Slot(honest), now);
            slots.read(1, Slot(honest), now);
            for (who, lie, seconds) in steps {
                now += S(seconds);
                honest += seconds * 3;
                // The honest ones are heard of often enough: surveys see to it.
                slots.observed(0, Slot(honest), now);
                slots.observed(1, Slot(honest), now);
                match who {
                    0 | 1 => { slots.read(usize::from(who), Slot(honest), now); }
                    2 => { slots.read(2, Slot(lie), now); }
                    _ => slots.observed(2, Slot(lie), now),
                }
                prop_assert!(slots.floor().0 <= honest + LEAP);
                prop_assert!(slots.lag(0, now).unwrap() <= LEAP);
            }
        }

        #[test]
        fn prop_everybody_behind_for_long_enough_is_never_the_end(
            heard in proptest::collection::vec(any::<u64>(), 0..20), honest in 0_u64..1 << 40
        ) {
            let (mut slots, mut now) = (Slots::new(1), Instant::now());
            slots.read(0, Slot(honest), now);
            for slot in heard {
                slots.heard(Slot(slot), now);
                let waited = (0..3).any(|_| {
                    let able = slots.floor() <= Slot(honest);
                    if !able { slots.all_behind(now); now += PATIENCE; }
                    able
                });
                prop_assert!(waited);
            }
        }
    }
}
