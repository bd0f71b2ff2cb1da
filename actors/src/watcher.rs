//! # Purpose
//! One strictly monotonic view of the run's coordinator account, for everybody in the node.
//!
//! # In (message → reply)
//! [`GetCoordinator`] → the newest state, if any was seen.
//!
//! # Out
//! Every state that arrives, in order, to `RunActor` and `RewardsActor`; a warning where the account can't be read.
//!
//! # State and invariants
//! The newest state. States never go backwards, ordered by nonce and slot; the watch underneath sees to that over all
//! endpoints, and closes gaps by reading.
//!
//! # Mailbox (bound, policy when full)
//! 64 messages; senders wait. A slow consumer slows only this actor: the watch keeps newest states and every change of phase.
//!
//! # Failure (how it dies, who restarts it)
//! When the watch ends or on a bug; the node's supervisor starts another, with a new watch.
//!
//! # Time
//! None of its own.

use std::sync::Arc;

use actix::{
    Actor, ActorContext as _, ActorFutureExt as _, AsyncContext as _, Context, Handler, MessageResult, WrapFuture as _,
};
use psyche_chain::{CoordinatorView, Rpc, WatchConfig, WatchEvent, watch_coordinator};
use psyche_messages::{Address, Command, NodeEvent};
use tokio::sync::Mutex;

use crate::chain_of;
use crate::engine::Event;
use crate::envelope::Ask;
use crate::event_log::EventLog;
use crate::rewards::{CoordinatorSeen, RewardsActor};
use crate::run::{Happened, RunLink};
use crate::supervisor::Supervised;

/// Messages that may wait.
const MAILBOX_MAX: usize = 64;

/// Asks for the newest state.
#[derive(Clone, Copy, Debug)]
pub struct GetCoordinator;

impl Command for GetCoordinator {
    type Reply = Option<CoordinatorView>;
}

/// What the actor works with; kept by the supervisor's factory over restarts.
#[derive(Clone)]
pub struct WatcherLinks {
    /// The chain.
    pub rpc: Rpc,
    /// The run's coordinator account.
    pub account: Address,
    /// How it is watched.
    pub watch: WatchConfig,
    /// Who hears of every state.
    pub run: RunLink,
    /// Who hears of every state, too.
    pub rewards: Supervised<RewardsActor>,
    /// Who hears that the account can't be read.
    pub events: EventLog,
}

/// See the module.
pub struct CoordinatorWatcher {
    links: WatcherLinks,
    newest: Newest,
}

type Newest = Arc<Mutex<Option<CoordinatorView>>>;

impl CoordinatorWatcher {
    /// An actor that starts to watch when it starts.
    #[must_use]
    pub fn new(links: WatcherLinks) -> Self {
        Self { links, newest: Arc::default() }
    }
}

impl Actor for CoordinatorWatcher {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX_MAX);
        let follow = follow(self.links.clone(), Arc::clone(&self.newest)).into_actor(self);
        ctx.spawn(follow.map(|(), _, ctx| ctx.stop()));
    }
}

impl Handler<Ask<GetCoordinator>> for CoordinatorWatcher {
    type Result = MessageResult<Ask<GetCoordinator>>;

    fn handle(&mut self, _: Ask<GetCoordinator>, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.newest.try_lock().ok().and_then(|newest| newest.clone()))
    }
}

/// Passes states on for as long as the actor lives.
async fn follow(links: WatcherLinks, newest: Newest) {
    let mut watch = watch_coordinator(&links.rpc, links.account, links.watch);
    loop {
        let view = match watch.recv().await {
            WatchEvent::Changed(view) => view,
            WatchEvent::Lost(error) => {
                let message = format!("the run's account can't be read: failed to {}", chain_of(&error));
                tracing::warn!(actor = "watcher", message);
                links.events.report(NodeEvent::Warning { message });
                continue;
            }
        };
        *newest.lock().await = Some(view.clone());
        let CoordinatorView { slot, account } = view;
        if let Err(error) = links.rewards.ask(CoordinatorSeen(Arc::clone(&account))).await {
            tracing::warn!(actor = "watcher", %error, "the rewards missed a state");
        }
        links.run.tell(Happened(Event::CoordinatorAdvanced { slot, account })).await;
    }
}
