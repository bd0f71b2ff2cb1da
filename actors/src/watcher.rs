//! # Purpose
//! One strictly monotonic view of the run's coordinator account, for everybody in the node.
//!
//! # In (message → reply)
//! [`GetCoordinator`] → the newest state, if any was seen.
//!
//! # Out
//! Every state that arrives, in order, to `RunActor` and `RewardsActor`; to the former also that the run was closed and
//! created anew, once it has rules again; a warning where the account can't be read.
//!
//! # State and invariants
//! The newest state. States never go backwards, ordered by nonce and slot; the watch underneath sees to that over all
//! endpoints, closes gaps by reading, and follows the run's instance, which says where its account is. A `RunActor` that
//! was restarted is told the newest state within a second, as it would otherwise know nothing until the next change.
//!
//! # Mailbox (bound, policy when full)
//! 64 messages; senders wait. A slow consumer slows only this actor: the watch keeps newest states and every change of phase.
//!
//! # Failure (how it dies, who restarts it)
//! When the watch ends or on a bug; the node's supervisor starts another, with a new watch.
//!
//! # Time
//! Looks once a second whether `RunActor` is another one.

use std::sync::Arc;
use std::time::Duration;

use actix::{
    Actor, ActorContext as _, ActorFutureExt as _, AsyncContext as _, Context, Handler, MessageResult, WrapFuture as _,
};
use psyche_chain::{CoordinatorView, Rpc, RunEvent, RunInfo, WatchConfig, watch_run};
use psyche_messages::{Command, NodeEvent, Phase};
use tokio::sync::Mutex;
use tokio::time::MissedTickBehavior;

use crate::chain_of;
use crate::engine::Event;
use crate::envelope::Ask;
use crate::event_log::EventLog;
use crate::rewards::{CoordinatorSeen, RewardsActor};
use crate::run::{Happened, RunLink};
use crate::supervisor::Supervised;

/// Messages that may wait.
const MAILBOX_MAX: usize = 64;
/// How often it is looked whether the run's actor is another one.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// What the operator is told of it.
const ANEW: &str = "the run was closed and created anew";

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
    /// The run.
    pub info: RunInfo,
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
    let mut watch = watch_run(&links.rpc, links.info.clone(), links.watch);
    let (mut told, mut replaced) = (links.run.current(), false);
    let mut look = tokio::time::interval(LOOK_INTERVAL);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let event = tokio::select! {
            event = watch.recv() => event,
            _ = look.tick() => {
                let current = links.run.current();
                if current != told {
                    told = current;
                    let again = newest.lock().await.clone();
                    if let Some(view) = again {
                        tell(&links, view).await;
                    }
                }
                continue;
            }
        };
        match event {
            RunEvent::Changed(view) if replaced => replace(&links, &view).await,
            RunEvent::Changed(view) => {
                *newest.lock().await = Some(view.clone());
                if let Err(error) = links.rewards.ask(CoordinatorSeen(Arc::clone(&view.account))).await {
                    tracing::warn!(actor = "watcher", %error, "the rewards missed a state");
                }
                tell(&links, view).await;
            }
            RunEvent::Moved(_) => {
                warn(&links, ANEW.to_owned());
                replaced = true;
            }
            RunEvent::Anew(view) => {
                if !std::mem::replace(&mut replaced, true) {
                    warn(&links, ANEW.to_owned());
                }
                replace(&links, &view).await;
            }
            RunEvent::Lost(error) => warn(&links, format!("the run's account can't be read: failed to {}", chain_of(&error))),
        }
    }
}

/// Says that the run is another one, once it has rules: a node that starts over must be able to take part in it.
async fn replace(links: &WatcherLinks, view: &CoordinatorView) {
    if view.phase() != Phase::Uninitialized {
        links.run.tell(Happened(Event::RunReplaced)).await;
    }
}

async fn tell(links: &WatcherLinks, CoordinatorView { slot, account }: CoordinatorView) {
    links.run.tell(Happened(Event::CoordinatorAdvanced { slot, account })).await;
}

fn warn(links: &WatcherLinks, message: String) {
    tracing::warn!(actor = "watcher", message);
    links.events.report(NodeEvent::Warning { message });
}
