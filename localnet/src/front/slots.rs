//! In which slot an account was changed last, as far as anybody can still ask.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crossbeam_channel::{Receiver, Select, Sender, TryRecvError, bounded};
use solana_pubkey::Pubkey;
use surfpool_core::surfnet::GeyserEvent;

use crate::error::LocalnetError;

/// Accounts in one generation; a notification is on its way for milliseconds, so two of these are plenty.
const GENERATION_MAX: usize = 16_384;
/// The engine's own bound for the channel that this stands in.
const EVENTS_MAX: usize = 1_024;

/// Of reserved accounts nobody watches a change.
const NONE_RESERVED: Option<&HashSet<Pubkey>> = None;

/// The last changes of up to twice 16,384 accounts; the older half is forgotten when the newer is full.
///
/// The engine tells of a change before it notifies subscribers, so whoever asks first takes note of what waits to be read:
/// a notification is never ahead of what is known here.
#[derive(Debug)]
pub(crate) struct AccountSlots {
    known: Mutex<Generations>,
    events: Receiver<GeyserEvent>,
    pass: Sender<GeyserEvent>,
}

#[derive(Debug, Default)]
struct Generations {
    new: HashMap<Pubkey, u64>,
    old: HashMap<Pubkey, u64>,
}

impl Generations {
    fn note(&mut self, account: Pubkey, slot: u64) {
        if self.new.len() >= GENERATION_MAX {
            self.old = std::mem::take(&mut self.new);
        }
        self.new.insert(account, slot);
    }

    fn note_all(&mut self, event: &GeyserEvent) {
        match event {
            GeyserEvent::UpdateAccount(update) => self.note(update.pubkey, update.slot),
            // Accounts of failed transactions, whose payer pays, and of airdrops are told of nowhere else.
            GeyserEvent::NotifyTransaction(event) => {
                let done = &event.transaction_with_status_meta;
                let message = &done.transaction.message;
                let keys = message.static_account_keys().iter().enumerate();
                for (_, key) in
                    keys.filter(|(index, _)| message.is_maybe_writable_with_reserved_addresses(*index, NONE_RESERVED))
                {
                    self.note(*key, done.slot);
                }
            }
            _ => {}
        }
    }
}

impl AccountSlots {
    /// Stands between the engine and whoever reads its `events`, who reads those that this gives back.
    pub(crate) fn between(events: Receiver<GeyserEvent>) -> (Self, Receiver<GeyserEvent>) {
        let (pass, passed) = bounded(EVENTS_MAX);
        (Self { known: Mutex::default(), events, pass }, passed)
    }

    /// The slot of the last change of `account`.
    pub(crate) fn of(&self, account: &Pubkey) -> Option<u64> {
        let known = self.read().0;
        known.new.get(account).or_else(|| known.old.get(account)).copied()
    }

    /// Takes note of what waits. False once nothing can come any more.
    fn read(&self) -> (std::sync::MutexGuard<'_, Generations>, bool) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match self.events.try_recv() {
                Ok(event) => {
                    known.note_all(&event);
                    // The engine's reader is gone once the engine ends; what it still tells must not pile up.
                    let _unread = self.pass.send(event).is_err();
                }
                Err(TryRecvError::Empty) => return (known, true),
                Err(TryRecvError::Disconnected) => return (known, false),
            }
        }
    }
}

/// Keeps `slots` and the engine's reader up to date while nobody asks.
pub(crate) fn keep_reading(slots: Arc<AccountSlots>) -> Result<(), LocalnetError> {
    let work = move || {
        loop {
            let mut waiting = Select::new();
            waiting.recv(&slots.events);
            // Only waits; what is there is taken by `read`, so that nobody holds an event that is not noted yet.
            let _operation = waiting.ready();
            if !slots.read().1 {
                return;
            }
        }
    };
    let thread = thread::Builder::new().name("localnet-slots".into());
    thread.spawn(work).map(|_thread| ()).map_err(|error| LocalnetError::Engine { reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use super::*;

    use surfpool_core::types::GeyserAccountUpdate;

    fn key(number: u64) -> Pubkey {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        Pubkey::new_from_array(bytes)
    }

    #[test]
    fn the_last_change_counts_and_memory_is_bounded() {
        let mut known = Generations::default();
        for number in 0..3 * GENERATION_MAX as u64 {
            known.note(key(number), number);
        }
        assert!(!known.new.contains_key(&key(0)) && !known.old.contains_key(&key(0)), "long gone");
        assert!(known.new.len() + known.old.len() <= 2 * GENERATION_MAX);
        known.note(key(7), 1);
        known.note(key(7), 2);
        assert_eq!(known.new[&key(7)], 2);
    }

    #[test]
    fn what_waits_to_be_read_is_known_and_passed_on() {
        let (engine, events) = bounded(4);
        let (slots, passed) = AccountSlots::between(events);
        assert_eq!(slots.of(&key(1)), None);
        for slot in [5, 6] {
            let update = GeyserAccountUpdate::block_update(key(1), Default::default(), slot, 0);
            engine.send(GeyserEvent::UpdateAccount(update)).unwrap();
        }
        assert_eq!(slots.of(&key(1)), Some(6));
        assert_eq!(passed.len(), 2);
        drop(engine);
        assert!(!slots.read().1 && slots.of(&key(1)) == Some(6));
    }
}
