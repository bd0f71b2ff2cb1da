//! Following a run: its coordinator account, and the instance that names it.
//!
//! A run can be closed and created anew under its name. Its coordinator account is then another one, of which the old one
//! says nothing: it is just gone. The instance, whose address follows from the run's name, says where the run is now; it is
//! read on the slow timer, and whenever the coordinator account is lost.

use std::sync::Arc;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{Watch, WatchConfig, WatchEvent};
use crate::error::ChainError;
use crate::rpc::Rpc;
use crate::run::{CoordinatorView, RunInfo, watch_coordinator};

/// What the watch of a run reports.
#[derive(Debug)]
pub enum RunEvent {
    /// The run has another state.
    Changed(CoordinatorView),
    /// The run's account was closed and created anew: nothing that was known of the run holds.
    Anew(CoordinatorView),
    /// The run was closed and created anew with another account, which is followed from now on.
    Moved(RunInfo),
    /// The run's account is missing or can't be decoded. Reported once, until it can be read again.
    Lost(ChainError),
}

/// A running watch of a run. Dropping it ends it.
#[derive(Debug)]
pub struct RunWatch {
    rpc: Rpc,
    config: WatchConfig,
    info: RunInfo,
    account: Watch<CoordinatorView>,
    named: watch::Receiver<RunInfo>,
    doubt: Arc<Notify>,
    _tasks: JoinSet<()>,
}

impl RunWatch {
    /// The next event. Never ends by itself. Safe to cancel.
    pub async fn recv(&mut self) -> RunEvent {
        loop {
            tokio::select! {
                event = self.account.recv() => return match event {
                    WatchEvent::Changed(view) => RunEvent::Changed(view),
                    WatchEvent::Anew(view) => RunEvent::Anew(view),
                    WatchEvent::Lost(error) => {
                        self.doubt.notify_one();
                        RunEvent::Lost(error)
                    }
                },
                // An error would mean that the task is gone that reads the instance; it lives as long as this watch.
                Ok(()) = self.named.changed() => {
                    let info = self.named.borrow_and_update().clone();
                    if info != self.info {
                        return self.follow(info);
                    }
                }
            }
        }
    }

    fn follow(&mut self, info: RunInfo) -> RunEvent {
        if info.account != self.info.account {
            self.account = watch_coordinator(&self.rpc, info.account, self.config);
        }
        self.info = info.clone();
        RunEvent::Moved(info)
    }

    /// The run as it is followed now.
    #[must_use]
    pub const fn info(&self) -> &RunInfo {
        &self.info
    }

    /// The watch of the run's account.
    #[must_use]
    pub const fn account(&self) -> &Watch<CoordinatorView> {
        &self.account
    }
}

/// Follows the run `info` over all websockets of `rpc`'s endpoints. Must be called within a tokio runtime.
#[must_use]
pub fn watch_run(rpc: &Rpc, info: RunInfo, config: WatchConfig) -> RunWatch {
    let account = watch_coordinator(rpc, info.account, config);
    let (name, named) = watch::channel(info.clone());
    let doubt = Arc::new(Notify::new());
    let mut tasks = JoinSet::new();
    tasks.spawn(read_instance(rpc.clone(), config, name, Arc::clone(&doubt)));
    RunWatch { rpc: rpc.clone(), config, info, account, named, doubt, _tasks: tasks }
}

async fn read_instance(rpc: Rpc, config: WatchConfig, name: watch::Sender<RunInfo>, doubt: Arc<Notify>) {
    // While the run is gone nobody knows when it comes back.
    let mut pause = config.refresh;
    loop {
        tokio::select! {
            () = doubt.notified() => {}
            () = sleep(pause) => {}
        }
        let known = name.borrow().clone();
        match rpc.run_info(&known.run_id).await {
            Ok(found) => {
                name.send_if_modified(|info| std::mem::replace(info, found.clone()) != found);
                pause = config.refresh;
            }
            Err(error) => {
                tracing::debug!(run_id = known.run_id.as_str(), %error, "the run's instance is not read");
                pause = config.poll;
            }
        }
        // Whoever is in doubt all the time is answered at the pace of polling.
        sleep(config.poll).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD as BASE64;
    use proptest::prelude::*;
    use psyche_messages::{Address, Lamports, Slot};
    use psyche_protocol::layout::{CoordinatorAccount, LayoutFault};
    use psyche_protocol::machine;
    use solana_account_decoder_client_types::{UiAccount, UiAccountData, UiAccountEncoding};

    use super::*;
    use crate::rpc::AccountRead;
    use crate::watch::Watched as _;

    const COORDINATOR: Address = Address([7; 32]);

    fn good() -> Vec<u8> {
        let mut account = CoordinatorAccount::zeroed_boxed();
        account.discriminator = CoordinatorAccount::DISCRIMINATOR;
        account.version = CoordinatorAccount::VERSION;
        account.as_bytes().to_vec()
    }

    /// Decodes, and looks at everything that a watch and its consumers look at.
    fn decode(data: Vec<u8>) -> Result<(), ChainError> {
        let read = AccountRead { slot: Slot(1), lamports: Lamports(1), owner: COORDINATOR, executable: false, data };
        let view = CoordinatorView::decode(Address([1; 32]), &read, COORDINATOR)?;
        let shown = format!("{view:?} {:?} {:?}", view.since(), view.account.state.client_version.as_str());
        assert!(!shown.is_empty() && !view.is_phase_change(&view));
        let _next = machine::would_tick(&view.account, 1_700_000_000);
        Ok(())
    }

    /// The offset and reason of a failure; both are in its text, which names no bytes.
    fn offence(data: Vec<u8>) -> Option<(usize, LayoutFault)> {
        match decode(data) {
            Ok(()) => None,
            Err(ChainError::AccountLayout { source, .. }) => {
                assert!(source.to_string().contains(&format!("at offset {}", source.offset)));
                Some((source.offset, source.what))
            }
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn a_good_account_decodes_and_a_bad_byte_is_named_by_its_place() {
        assert_eq!(offence(good()), None);
        for (at, what) in [(0, LayoutFault::Discriminator), (8, LayoutFault::Version)] {
            let mut bytes = good();
            bytes[at] ^= 0x80;
            assert_eq!(offence(bytes), Some((at, what)));
        }
        assert_eq!(offence(Vec::new()).unwrap().1, LayoutFault::Size);
    }

    proptest! {
        #[test]
        fn prop_random_bytes_are_an_error_with_an_offset(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            prop_assert_eq!(offence(bytes).unwrap().1, LayoutFault::Size);
        }

        #[test]
        fn prop_an_account_of_random_bytes_never_crashes_a_watch(seed: u64, headed: bool) {
            let mut random = proptest::test_runner::TestRng::from_seed(
                proptest::test_runner::RngAlgorithm::ChaCha, &[seed.to_le_bytes(); 4].concat(),
            );
            let mut bytes = vec![0; CoordinatorAccount::SIZE];
            random.fill_bytes(&mut bytes);
            if headed {
                bytes[..16].copy_from_slice(&good()[..16]);
            }
            prop_assert!(offence(bytes).is_none_or(|(offset, _)| offset < CoordinatorAccount::SIZE));
        }

        #[test]
        fn prop_mutated_accounts_decode_or_say_where_they_do_not(
            changes in proptest::collection::vec((0..CoordinatorAccount::SIZE, any::<u8>()), 1..40),
            cut in proptest::option::of(0..CoordinatorAccount::SIZE)
        ) {
            let mut bytes = good();
            for (at, byte) in changes {
                bytes[at] = byte;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut);
            }
            prop_assert!(offence(bytes).is_none_or(|(offset, _)| offset < CoordinatorAccount::SIZE));
        }

        #[test]
        fn prop_what_a_server_calls_an_account_is_unpacked_or_refused(
            text in prop_oneof![".*", proptest::collection::vec(any::<u8>(), 0..300).prop_map(|bytes| BASE64.encode(bytes))],
            owner in ".{0,50}",
            encoding in prop_oneof![
                Just(UiAccountEncoding::Base64), Just(UiAccountEncoding::Base64Zstd), Just(UiAccountEncoding::Base58)
            ]
        ) {
            let data = UiAccountData::Binary(text, encoding);
            let account = UiAccount { lamports: 1, data, owner, executable: false, rent_epoch: 0, space: None };
            prop_assert!(AccountRead::unpack(Slot(1), account).is_none_or(|read| read.data.len() <= 10 * 1024 * 1024));
        }
    }
}
