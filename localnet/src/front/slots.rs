//! In which slot an account was changed last, as far as anybody can still ask.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crossbeam_channel::{Receiver, bounded};
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
#[derive(Debug, Default)]
pub(crate) struct AccountSlots(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    new: HashMap<Pubkey, u64>,
    old: HashMap<Pubkey, u64>,
}

impl AccountSlots {
    /// Notes a change of `account`.
    pub(crate) fn note(&self, account: Pubkey, slot: u64) {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.new.len() >= GENERATION_MAX {
            slots.old = std::mem::take(&mut slots.new);
        }
        slots.new.insert(account, slot);
    }

    /// The slot of the last change of `account`.
    pub(crate) fn of(&self, account: &Pubkey) -> Option<u64> {
        let slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slots.new.get(account).or_else(|| slots.old.get(account)).copied()
    }
}

/// Notes every change that `events` tells of, and hands the events on.
pub(crate) fn note_slots(
    events: Receiver<GeyserEvent>,
    slots: Arc<AccountSlots>,
) -> Result<Receiver<GeyserEvent>, LocalnetError> {
    let (pass, passed) = bounded(EVENTS_MAX);
    let work = move || {
        while let Ok(event) = events.recv() {
            match &event {
                GeyserEvent::UpdateAccount(update) => slots.note(update.pubkey, update.slot),
                // Accounts of failed transactions, whose payer pays, and of airdrops are told of nowhere else.
                GeyserEvent::NotifyTransaction(event) => {
                    let done = &event.transaction_with_status_meta;
                    let message = &done.transaction.message;
                    let keys = message.static_account_keys().iter().enumerate();
                    for (_, key) in
                        keys.filter(|(index, _)| message.is_maybe_writable_with_reserved_addresses(*index, NONE_RESERVED))
                    {
                        slots.note(*key, done.slot);
                    }
                }
                _ => {}
            }
            // The engine no longer listens once it ends.
            if pass.send(event).is_err() {
                return;
            }
        }
    };
    let thread = thread::Builder::new().name("localnet-slots".into());
    thread.spawn(work).map_err(|error| LocalnetError::Engine { reason: error.to_string() })?;
    Ok(passed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_change_counts_and_memory_is_bounded() {
        let slots = AccountSlots::default();
        let key = |number: u64| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&number.to_le_bytes());
            Pubkey::new_from_array(bytes)
        };
        slots.note(key(0), 1);
        slots.note(key(0), 2);
        assert_eq!((slots.of(&key(0)), slots.of(&key(1))), (Some(2), None));
        for number in 0..3 * GENERATION_MAX as u64 {
            slots.note(key(number), number);
        }
        assert_eq!(slots.of(&key(0)), None, "long gone");
        let last = 3 * GENERATION_MAX as u64 - 1;
        assert_eq!(slots.of(&key(last)), Some(last));
        let kept = slots.0.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(kept.new.len() + kept.old.len() <= 2 * GENERATION_MAX);
    }
}
