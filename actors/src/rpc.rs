//! # Purpose
//! The node's link to Solana: turns actions into transactions, sees them through, and reads.
//!
//! # In (message → reply)
//! [`SubmitAction`] → the confirmation, or nothing where it was done already; [`ReadClock`] → slot and chain time; [`RebuildWitnesses`] → the witnesses of a round; [`GetEndpointHealth`] → how every endpoint fares.
//!
//! # Out
//! Replies, and to the event log an event for every endpoint that is given up or comes back. The client underneath asks the
//! endpoint that answers well, fails over, and re-sends until a transaction is confirmed or can't be any more.
//!
//! # State and invariants
//! None that would be lost: what is under way lives in the replies' futures, what is known of the endpoints in the client,
//! which outlives the actor.
//!
//! # Mailbox (bound, policy when full)
//! 128 messages; senders wait. Requests run beside each other; the engine never has two of one kind under way.
//!
//! # Failure (how it dies, who restarts it)
//! Only a bug kills it; the node's supervisor starts another around the same client.
//!
//! # Time
//! Time-outs are the client's.

mod actions;

use std::sync::Arc;

use actix::{Actor, AsyncContext as _, Context, Handler, MessageResult, ResponseFuture, WrapFuture as _};
use psyche_chain::{ChainError, Confirmed, EndpointEvent, EndpointHealth, Rpc};
use psyche_messages::{ChainTime, Command, NodeEvent, Slot};
use psyche_protocol::layout::Witness;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

pub use actions::ActionContext;

use crate::chain_of;
use crate::engine::ChainAction;
use crate::engine::history::Gap;
use crate::envelope::Ask;
use crate::event_log::EventLog;
use crate::telemetry::{TxKind, TxOutcome};

/// Messages that may wait.
const MAILBOX_MAX: usize = 128;

/// Sends a transaction and sees it through.
#[derive(Debug)]
pub struct SubmitAction(pub ChainAction);

/// Asks for the chain's clock.
#[derive(Clone, Copy, Debug)]
pub struct ReadClock;

/// Asks the transaction history for the witnesses of a round: everything that was done for the run in a gap.
#[derive(Clone, Debug)]
pub struct RebuildWitnesses(pub Arc<Gap>);

/// Asks how the JSON-RPC endpoints fare.
#[derive(Clone, Copy, Debug)]
pub struct GetEndpointHealth;

impl Command for SubmitAction {
    type Reply = Result<Option<Confirmed>, ChainError>;
}
impl Command for ReadClock {
    type Reply = Result<(Slot, ChainTime), ChainError>;
}
impl Command for RebuildWitnesses {
    type Reply = Option<Vec<Witness>>;
}

impl Command for GetEndpointHealth {
    type Reply = Vec<EndpointHealth>;
}

/// See the module.
pub struct RpcSupervisor {
    rpc: Rpc,
    context: ActionContext,
    events: EventLog,
}

impl RpcSupervisor {
    /// An actor that talks through `rpc`, signs as `context` says, and reports to `events`.
    #[must_use]
    pub const fn new(rpc: Rpc, context: ActionContext, events: EventLog) -> Self {
        Self { rpc, context, events }
    }
}

impl Actor for RpcSupervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX_MAX);
        let (changes, events) = (self.rpc.endpoint_events(), self.events.clone());
        ctx.spawn(report(changes, events).into_actor(self));
    }
}

/// Reports what happens to endpoints for as long as the client lives.
async fn report(mut changes: broadcast::Receiver<EndpointEvent>, events: EventLog) {
    loop {
        match changes.recv().await {
            Ok(EndpointEvent { endpoint, state }) => events.report(NodeEvent::EndpointChanged { endpoint, state }),
            Err(RecvError::Lagged(missed)) => tracing::warn!(actor = "rpc", missed, "changes of endpoints went unreported"),
            Err(RecvError::Closed) => return,
        }
    }
}

impl Handler<Ask<SubmitAction>> for RpcSupervisor {
    type Result = ResponseFuture<<SubmitAction as Command>::Reply>;

    fn handle(&mut self, Ask(SubmitAction(action)): Ask<SubmitAction>, _: &mut Self::Context) -> Self::Result {
        let (rpc, context, events) = (self.rpc.clone(), self.context.clone(), self.events.clone());
        Box::pin(async move {
            let kind = TxKind::of(&action);
            let outcome = context.submit(&rpc, action).await;
            match &outcome {
                Ok(Some(_)) => events.tally().transaction(kind, TxOutcome::Landed),
                Ok(None) => {}
                Err(error) => events.tally().transaction(kind, TxOutcome::of(error)),
            }
            outcome
        })
    }
}

impl Handler<Ask<ReadClock>> for RpcSupervisor {
    type Result = ResponseFuture<<ReadClock as Command>::Reply>;

    fn handle(&mut self, _: Ask<ReadClock>, _: &mut Self::Context) -> Self::Result {
        let rpc = self.rpc.clone();
        Box::pin(async move { rpc.clock().await })
    }
}

impl Handler<Ask<GetEndpointHealth>> for RpcSupervisor {
    type Result = MessageResult<Ask<GetEndpointHealth>>;

    fn handle(&mut self, _: Ask<GetEndpointHealth>, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.rpc.health())
    }
}

impl Handler<Ask<RebuildWitnesses>> for RpcSupervisor {
    type Result = ResponseFuture<Option<Vec<Witness>>>;

    fn handle(&mut self, Ask(RebuildWitnesses(gap)): Ask<RebuildWitnesses>, _: &mut Self::Context) -> Self::Result {
        let (rpc, context) = (self.rpc.clone(), self.context.clone());
        Box::pin(async move {
            let rebuilt = context.rebuild_witnesses(&rpc, &gap).await;
            rebuilt.unwrap_or_else(|error| {
                tracing::warn!(actor = "rpc", error = %chain_of(&error), "could not read the transaction history");
                None
            })
        })
    }
}
