//! Which wallets are at work in this process.
//!
//! A wallet is one client of a run: two nodes with the same one would train the same batches and outbid each other's
//! transactions. Data folders are locked by the system; wallets by this list, the only state that nodes of one process
//! share. Another process with the same wallet is found by `doctor`, which asks the run.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use psyche_messages::{Address, RunId};

use super::NodeError;
use crate::config::NodeConfig;

/// Wallet, run, and the program under which the run is.
type Part = (Address, RunId, Address);

static AT_WORK: Mutex<BTreeSet<Part>> = Mutex::new(BTreeSet::new());

/// A wallet's part in a run, until it is dropped.
#[derive(Debug)]
pub(super) struct Claim(Part);

impl Claim {
    /// Takes the wallet of `config` for its run.
    pub(super) fn of(config: &NodeConfig) -> Result<Self, NodeError> {
        let part = (config.wallet.address(), config.run_id.clone(), config.programs.coordinator);
        if AT_WORK.lock().unwrap_or_else(PoisonError::into_inner).insert(part.clone()) {
            return Ok(Self(part));
        }
        Err(NodeError::WalletInUse { wallet: part.0, run_id: part.1 })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        AT_WORK.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}
