//! What nodes and commands do with a run, each in one call: the reads that it needs, the transaction, and what comes of it.
//!
//! - [`create`]: a new run, with or without a treasury.
//! - [`owner`]: what a run's owner changes. A treasury run is recognised by its main authority, so no caller needs to know.
//! - [`grants`]: who may join.
//! - [`can_join`](mod@can_join): whether a wallet would get in, check by check.
//! - [`node`]: joining, ticks, witness statements.
//! - [`rewards`]: points, claims, the treasury.
//! - [`history`]: what was said to a run in past transactions.

pub mod can_join;
pub mod create;
pub mod grants;
pub mod history;
pub mod node;
pub mod owner;
pub mod rewards;

pub use can_join::{JoinAnswer, JoinCheck, JoinQuestion, JoinReport, accepts_version, can_join};
pub use create::{NewRun, NewTreasury, create_run};
pub use grants::{Grant, authorization_create, authorization_delegate, authorization_set_active, find_grant};
pub use history::{CoordinatorCall, calls_since};
pub use node::{checkpoint, health_check, join_run, tick, warmup_witness, witness};
pub use owner::{RunUpdate, set_future_epoch_rates, set_paused, update_run};
pub use rewards::{
    Claimed, RunPoints, Treasury, claim_rewards, create_mint, mint_to, points, token_decimals, top_up, treasury_of,
};
