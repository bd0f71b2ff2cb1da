//! One sequence out of many sources. Pure.
//!
//! A state is newer if its nonce is higher, whatever slot came with it: some servers stamp notifications with an old slot.
//! The same nonce with other bytes counts only from a later slot (one instruction does not advance the nonce). A lower
//! nonce is believed only from a read that was begun after the last delivery and comes from a later slot than any that was
//! heard of by then: then the account was created anew, or the chain took a fork back. What can be neither believed nor
//! explained asks for such a read.

use std::cmp::Ordering;
use std::collections::VecDeque;

use psyche_messages::{Address, Lamports, Slot};
use sha2::{Digest as _, Sha256};

use super::Watched;
use crate::rpc::AccountRead;

/// Delivered states that are recognised when an endpoint that lags brings them once more.
const REMEMBERED: usize = 64;
/// How far a heartbeat may be ahead of the accounts' slots and still be believed: some servers stamp notifications with the
/// slot at which the subscription began, but reads come every few seconds.
const HEARTBEAT_AHEAD_MAX: u64 = 10_000;

/// What one source saw.
pub(super) enum Observation {
    /// A read: the account or that there is none, at a slot, and how many states were delivered when the read began.
    Read {
        /// The answer's slot.
        slot: Slot,
        /// The account.
        account: Option<AccountRead>,
        /// States delivered before.
        after: usize,
    },
    /// A websocket's word.
    Told {
        /// The account; its slot may be old.
        account: AccountRead,
        /// The newest slot that the websocket had spoken of by then.
        heartbeat: Slot,
    },
}

/// Tells equal bytes from others.
pub(super) type Fingerprint = [u8; 32];

/// Tells equal bytes from others.
pub(super) fn fingerprint(account: &AccountRead) -> Fingerprint {
    Sha256::digest(&account.data).into()
}

/// What an account is besides its bytes. A state may depend on it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Envelope {
    lamports: Lamports,
    owner: Address,
    executable: bool,
}

impl Envelope {
    pub(super) const fn of(account: &AccountRead) -> Self {
        Self { lamports: account.lamports, owner: account.owner, executable: account.executable }
    }
}

/// Where and when a state was seen.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    pub(super) slot: Slot,
    pub(super) print: Fingerprint,
    pub(super) envelope: Envelope,
    /// A slot that the chain had reached by then.
    pub(super) heartbeat: Slot,
    /// For a read: how many states were delivered when it began. `None` for a notification.
    pub(super) read_after: Option<usize>,
}

/// What becomes of an observation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict<T> {
    /// It is the next state.
    News(T, Kind),
    /// It is known, or older than what is known.
    Known,
    /// Only a read can tell what it means.
    Doubtful,
}

/// How a state follows the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It may be skipped where newer ones exist.
    Update,
    /// It must not be skipped.
    PhaseChange,
    /// It must not be skipped, and what was known before is void.
    Anew,
}

struct Last<T> {
    state: T,
    slot: Slot,
    /// The slot that the chain had reached when the state was seen: no older read may contradict it.
    floor: Slot,
    print: Fingerprint,
    envelope: Envelope,
}

impl<T> Last<T> {
    /// The same state, seen later: what is older than this can't be news either.
    fn seen_again(&mut self, seen: &Seen) {
        self.slot = self.slot.max(seen.slot);
        self.floor = self.floor.max(self.slot);
        self.envelope = seen.envelope;
    }
}

/// Remembers the newest state.
pub(super) struct Merger<T> {
    last: Option<Last<T>>,
    remembered: VecDeque<Fingerprint>,
    /// The slot at which the account was found to be made anew: what a notification says of earlier slots is about the old
    /// one.
    anew_at: Option<Slot>,
    delivered: usize,
    lost: bool,
    /// A read found no account: whatever comes next is another one.
    gone: bool,
}

impl<T> Default for Merger<T> {
    fn default() -> Self {
        Self { last: None, remembered: VecDeque::new(), anew_at: None, delivered: 0, lost: false, gone: false }
    }
}

impl<T: Watched> Merger<T> {
    /// Whether this is the account of the newest state once more, as every further websocket brings it: then there is
    /// nothing to decode.
    pub(super) fn repeats(&mut self, seen: &Seen) -> bool {
        let same = |last: &&mut Last<T>| last.print == seen.print && last.envelope == seen.envelope;
        let Some(last) = self.last.as_mut().filter(|_| !self.gone).filter(same) else { return false };
        last.seen_again(seen);
        self.lost = false;
        true
    }

    /// Judges a decoded state.
    pub(super) fn offer(&mut self, state: T, seen: Seen) -> Verdict<T> {
        let Some(last) = &mut self.last else { return self.deliver(state, seen, Kind::PhaseChange) };
        if self.gone {
            let fresh = seen.read_after == Some(self.delivered) && seen.slot > last.floor;
            return if fresh { self.deliver(state, seen, Kind::Anew) } else { Verdict::Doubtful };
        }
        let (nonce, known) = (state.nonce(), last.state.nonce());
        if nonce == known && seen.print == last.print {
            last.seen_again(&seen);
            self.lost = false;
            return Verdict::Known;
        }
        let later = seen.slot > last.slot;
        let fresh = seen.read_after == Some(self.delivered) && seen.slot > last.floor;
        let told = seen.read_after.is_none();
        let old_account = told && self.anew_at.is_some_and(|at| seen.slot <= at);
        let news = match nonce.cmp(&known) {
            Ordering::Greater => !old_account,
            Ordering::Equal => fresh || (told && later),
            Ordering::Less => fresh,
        };
        if news {
            let phase_change = state.is_phase_change(&last.state);
            let kind = match (nonce < known, phase_change) {
                (true, _) => Kind::Anew,
                (false, true) => Kind::PhaseChange,
                (false, false) => Kind::Update,
            };
            return self.deliver(state, seen, kind);
        }
        // A read that is no news was overtaken by what came meanwhile; so was a notification of a state that was delivered.
        if !told || self.remembered.contains(&seen.print) { Verdict::Known } else { Verdict::Doubtful }
    }

    /// Whether a phase may lie between the newest state and `state` that is about to be told.
    pub(super) fn leaps(&self, state: &T) -> bool {
        let ahead = |last: &Last<T>| state.nonce() > last.state.nonce().saturating_add(1) && state.is_phase_change(&last.state);
        self.last.as_ref().is_some_and(ahead)
    }

    fn deliver(&mut self, mut state: T, seen: Seen, kind: Kind) -> Verdict<T> {
        let slot = self.last.as_ref().map_or(seen.slot, |last| last.slot.max(seen.slot));
        if kind == Kind::Anew {
            self.anew_at = Some(slot);
            self.remembered.clear();
        }
        if self.remembered.len() == REMEMBERED {
            self.remembered.pop_front();
        }
        self.remembered.push_back(seen.print);
        state.at_slot(slot);
        self.gone = false;
        let floor = seen.heartbeat.min(Slot(slot.0.saturating_add(HEARTBEAT_AHEAD_MAX))).max(slot);
        self.last = Some(Last { state: state.clone(), slot, floor, print: seen.print, envelope: seen.envelope });
        self.delivered += 1;
        self.lost = false;
        Verdict::News(state, kind)
    }

    /// Notes that a read of `slot` begun after `after` deliveries found no account that decodes, and none at all where it is
    /// `missing`; true where this is to be told.
    pub(super) fn lose(&mut self, slot: Slot, after: usize, missing: bool) -> bool {
        let overtaken = after != self.delivered || self.last.as_ref().is_some_and(|last| slot <= last.floor);
        if overtaken {
            return false;
        }
        if let Some(last) = self.last.as_mut().filter(|_| missing) {
            self.gone = true;
            last.floor = last.floor.max(slot);
        }
        !std::mem::replace(&mut self.lost, true)
    }

    /// How many states were delivered.
    pub(super) const fn delivered(&self) -> usize {
        self.delivered
    }
}

#[cfg(test)]
mod tests;
