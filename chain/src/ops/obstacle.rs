//! What stands in the way of an operation before anything is sent, by kind.

use psyche_messages::{Address, Phase};
use thiserror::Error;

/// Why an operation is not possible with this run and this wallet.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Obstacle {
    /// A treasury owns the run, and its program has no instruction that closes runs.
    #[error("the treasury {treasury} owns it, and the treasurer program can close no run")]
    TreasurerOwnsRun {
        /// The treasury.
        treasury: Address,
    },
    /// The run must be paused or finished first.
    #[error("it is in {phase}; pause it and wait for the end of the epoch")]
    NotHalted {
        /// What the run is doing.
        phase: Phase,
    },
    /// The run belongs to somebody else.
    #[error("it belongs to {owner}, not to {wallet}")]
    NotOwner {
        /// Who owns it.
        owner: Address,
        /// Who asked.
        wallet: Address,
    },
    /// Nobody pays for the run's points.
    #[error("the run has no treasury, so its points can't be paid")]
    NoTreasury,
    /// Nobody lets the wallet join.
    #[error("nobody has authorized {wallet}; ask the run's join authority {join_authority}")]
    NotAuthorized {
        /// Who wants to join.
        wallet: Address,
        /// Whose grants let clients join.
        join_authority: Address,
    },
}
