//! A run as it is on chain: who owns it, where its account is, what state it is in.

use std::sync::Arc;

use psyche_messages::{Address, ChainTime, Epoch, Nonce, Phase, RunId, Slot, Step};
use psyche_protocol::accounts::CoordinatorInstance;
use psyche_protocol::layout::{CoordinatorAccount, RunState};

use crate::addresses;
use crate::error::ChainError;
use crate::rpc::{AccountRead, Rpc};
use crate::watch::{Watch, WatchConfig, Watched, watch_account};

/// What never changes about a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunInfo {
    /// Its name.
    pub run_id: RunId,
    /// Its instance, derived from its name.
    pub instance: Address,
    /// Its coordinator account.
    pub account: Address,
    /// Who owns it; a treasury run's address where a treasurer pays.
    pub main_authority: Address,
    /// Whose grants let clients join.
    pub join_authority: Address,
}

/// The phase that a run's state means.
pub(crate) const fn phase_of(state: RunState) -> Phase {
    match state {
        RunState::Uninitialized => Phase::Uninitialized,
        RunState::WaitingForMembers => Phase::WaitingForMembers,
        RunState::Warmup => Phase::Warmup,
        RunState::RoundTrain => Phase::RoundTrain,
        RunState::RoundWitness => Phase::RoundWitness,
        RunState::Cooldown => Phase::Cooldown,
        RunState::Finished => Phase::Finished,
        RunState::Paused => Phase::Paused,
    }
}

/// A coordinator account as it was at a slot. Cloning is cheap.
#[derive(Clone)]
pub struct CoordinatorView {
    /// The latest slot at which it was seen like this.
    pub slot: Slot,
    /// The account.
    pub account: Arc<CoordinatorAccount>,
}

/// Seconds of the chain's clock until the epoch's time is up and the run ends it with the steps in work; `None` between
/// epochs. A run that falls short of clients, or that its owner pauses, ends it earlier.
#[must_use]
pub fn epoch_left(account: &CoordinatorAccount, now: ChainTime) -> Option<u64> {
    let coordinator = &account.state.coordinator;
    if !matches!(coordinator.state(), RunState::Warmup | RunState::RoundTrain | RunState::RoundWitness) {
        return None;
    }
    let end = coordinator.epoch_state.start_timestamp.saturating_add(coordinator.config.epoch_time);
    Some(end.saturating_sub(u64::try_from(now.0).unwrap_or(0)))
}

/// A time as people say it.
#[must_use]
pub fn about(seconds: u64) -> String {
    match seconds {
        0..=90 => format!("{seconds} s"),
        91..=5_400 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{}.{} h", seconds / 3_600, seconds % 3_600 / 360),
    }
}

impl std::fmt::Debug for CoordinatorView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("CoordinatorView");
        debug.field("slot", &self.slot).field("nonce", &self.nonce()).field("phase", &self.phase());
        debug.field("epoch", &self.epoch()).field("step", &self.step()).finish()
    }
}

impl CoordinatorView {
    /// Decodes what was read at `address`.
    ///
    /// # Errors
    /// [`ChainError::AccountOwner`] or [`ChainError::AccountLayout`].
    pub fn decode(address: Address, read: &AccountRead, coordinator: Address) -> Result<Self, ChainError> {
        if read.owner != coordinator {
            return Err(ChainError::AccountOwner { what: "coordinator account", address, owner: read.owner });
        }
        let account =
            CoordinatorAccount::load_boxed(&read.data).map_err(|source| ChainError::AccountLayout { address, source })?;
        Ok(Self { slot: read.slot, account: Arc::from(account) })
    }

    /// The counter of the account's changes.
    #[must_use]
    pub fn nonce(&self) -> Nonce {
        Nonce(self.account.nonce)
    }

    /// The run's phase.
    #[must_use]
    pub fn phase(&self) -> Phase {
        phase_of(self.account.state.coordinator.state())
    }

    /// The epoch.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        Epoch(self.account.state.coordinator.progress.epoch)
    }

    /// The step.
    #[must_use]
    pub fn step(&self) -> Step {
        Step(self.account.state.coordinator.progress.step)
    }

    /// When the phase began, by the chain's clock.
    #[must_use]
    pub fn since(&self) -> ChainTime {
        ChainTime(i64::try_from(self.account.state.coordinator.run_state_start_unix_timestamp).unwrap_or(i64::MAX))
    }
}

impl Watched for CoordinatorView {
    fn nonce(&self) -> u64 {
        self.account.nonce
    }

    fn is_phase_change(&self, previous: &Self) -> bool {
        (self.phase(), self.epoch(), self.step()) != (previous.phase(), previous.epoch(), previous.step())
    }

    fn at_slot(&mut self, slot: Slot) {
        self.slot = slot;
    }
}

impl Rpc {
    /// What never changes about the run `run_id`.
    ///
    /// # Errors
    /// [`ChainError::AccountMissing`] if there is no such run.
    pub async fn run_info(&self, run_id: &RunId) -> Result<RunInfo, ChainError> {
        let address = addresses::instance(self.programs(), run_id);
        let read = self.account(address).await?;
        let read = read.ok_or(ChainError::AccountMissing { what: "run", address })?;
        if read.owner != self.programs().coordinator {
            return Err(ChainError::AccountOwner { what: "run", address, owner: read.owner });
        }
        let instance = CoordinatorInstance::decode(&read.data).map_err(|source| ChainError::AccountMalformed {
            what: "run",
            address,
            source,
        })?;
        Ok(RunInfo {
            run_id: run_id.clone(),
            instance: address,
            account: Address(instance.coordinator_account),
            main_authority: Address(instance.main_authority),
            join_authority: Address(instance.join_authority),
        })
    }

    /// The coordinator account at `address`.
    ///
    /// # Errors
    /// [`ChainError`] if it is missing, or is no coordinator account.
    pub async fn coordinator(&self, address: Address) -> Result<CoordinatorView, ChainError> {
        let read = self.account(address).await?;
        let read = read.ok_or(ChainError::AccountMissing { what: "coordinator account", address })?;
        CoordinatorView::decode(address, &read, self.programs().coordinator)
    }

    /// The run `run_id` and its state.
    ///
    /// # Errors
    /// As [`Rpc::run_info`] and [`Rpc::coordinator`].
    pub async fn fetch_run(&self, run_id: &RunId) -> Result<(RunInfo, CoordinatorView), ChainError> {
        let info = self.run_info(run_id).await?;
        let view = self.coordinator(info.account).await?;
        Ok((info, view))
    }
}

/// Follows the coordinator account at `address`. Must be called within a tokio runtime.
#[must_use]
pub fn watch_coordinator(rpc: &Rpc, address: Address, config: WatchConfig) -> Watch<CoordinatorView> {
    let coordinator = rpc.programs().coordinator;
    watch_account(rpc, address, move |read| CoordinatorView::decode(address, &read, coordinator), config)
}
