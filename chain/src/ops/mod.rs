//! What nodes and commands do with a run, each in one call: the reads that it needs, the transaction, and what comes of it.
//!
//! - [`create`]: a new run, with or without a treasury.
//! - [`owner`]: what a run's owner changes. A treasury run is recognised by its main authority, so no caller needs to know.
//! - [`grants`]: who may join.
//! - [`can_join`](mod@can_join): whether a wallet would get in, check by check.
//! - [`node`]: joining, ticks, witness statements.
//! - [`rewards`]: points, claims, the treasury.
//! - [`history`]: what was said to a run in past transactions.
//! - [`list`], [`dump`]: all runs in short, one run or one wallet in full.
//! - [`effect`]: is it done already?
//! - [`close`]: the end of a run. [`simulate`]: a join that is only pretended.

pub mod can_join;
pub mod close;
pub mod create;
pub mod dump;
pub mod effect;
pub mod grants;
pub mod history;
pub mod list;
pub mod node;
mod obstacle;
pub mod owner;
pub mod rewards;
pub mod simulate;

use serde::Serializer;

use crate::Signature;

pub use can_join::{GrantedBy, JoinAnswer, JoinCheck, JoinQuestion, JoinReport, accepts_version, can_join};
pub use close::{RunClosed, close_run};
pub use create::{NewRun, NewTreasury, create_run};
pub use dump::{RunDump, UserDump, dump_run, dump_user};
pub use effect::{Described, Effect, Place};
pub use grants::{
    AuthorizationDeleted, Grant, authorization_close, authorization_create, authorization_delegate, authorization_delete,
    authorization_read, authorization_set_active, find_grant,
};
pub use history::{CoordinatorCall, calls_between, calls_since};
pub use list::{RunFilter, RunSummary, list_runs};
pub use node::{CheckpointOutcome, TickOutcome, checkpoint, health_check, join_run, tick, warmup_witness, witness};
pub use obstacle::Obstacle;
pub use owner::{RunUpdate, set_future_epoch_rates, set_paused, update_run};
pub use rewards::{
    ClaimKind, Claimed, RunPoints, Treasury, claim_rewards, create_mint, mint_to, points, token_decimals, top_up, treasury_of,
};
pub use simulate::{JoinSimulation, simulate_join};

/// A signature as people and explorers write it.
#[expect(clippy::ref_option, reason = "serde passes fields so")]
fn signature_text<S: Serializer>(signature: &Option<Signature>, serializer: S) -> Result<S::Ok, S::Error> {
    match signature {
        Some(signature) => serializer.collect_str(signature),
        None => serializer.serialize_none(),
    }
}
