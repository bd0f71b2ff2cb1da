//! # Purpose
//! Drives the round engine: turns what happens into its events, and carries its effects out.
//!
//! # In (message → reply)
//! [`Happened`] → nothing; [`GetStatus`] → [`RunStatus`].
//!
//! # Out
//! Transactions and readings to `RpcSupervisor`, messages and blobs to `GradientGossip`, device commands to the device
//! queue, events to the event log, the end of the run to whoever started the node.
//!
//! # State and invariants
//! The engine is the only state that decides anything. Device commands are carried out in the order of their effects.
//!
//! # Mailbox (bound, policy when full)
//! 256 messages; senders wait. Effects in flight are bounded by the engine, device commands by their queue.
//!
//! # Failure (how it dies, who restarts it)
//! A panic of the engine; the node's supervisor starts a fresh one, which joins the run anew.
//!
//! # Time
//! A timer every 200 ms; the chain's clock is read every second and interpolated in between.

mod checkpoints;
mod device;
mod effects;
mod manifests;
mod plan;
mod snapshots;
mod updates;

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, ActorFutureExt as _, Addr, AsyncContext as _, Context, Handler, WrapFuture as _};
use psyche_messages::{ChainTime, Command};
use psyche_net::NetHandle;
use tokio::sync::{Mutex, mpsc, watch};

pub use checkpoints::CheckpointFolder;
pub use device::{DeviceParts, DeviceQueue};
pub use manifests::ManifestShelf;
pub use plan::{Distro, PlanError, RunPlan};
pub use snapshots::{SnapshotError, on_disk};
pub use updates::{UpdateLog, UpdatesError};

use crate::clock::ChainClock;
use crate::engine::{Engine, Event, Now};
use crate::envelope::Ask;
use crate::event_log::EventLog;
use crate::gossip::{GradientGossip, HearAgain};
use crate::node::End;
use crate::rewards::RewardsActor;
use crate::rpc::{ReadClock, RpcSupervisor};
use crate::supervisor::Supervised;

/// Messages that may wait.
const MAILBOX_MAX: usize = 256;
/// How often the engine hears that time has passed.
const TIMER_INTERVAL: Duration = Duration::from_millis(200);
/// How often the chain's clock is read.
const CLOCK_INTERVAL: Duration = Duration::from_secs(1);

/// Something happened that the engine must know of.
#[derive(Debug)]
pub struct Happened(pub Event);

impl Command for Happened {
    type Reply = ();
}

/// Asks for [`RunStatus`].
#[derive(Debug)]
pub struct GetStatus;

impl Command for GetStatus {
    type Reply = RunStatus;
}

/// Where the node stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunStatus {
    /// Events that the engine has handled.
    pub events_handled: u64,
    /// Chain seconds per real second.
    pub chain_speed: f64,
}

/// The way to the run's actor for those who start before it; cheap to clone.
#[derive(Clone)]
pub struct RunLink(watch::Receiver<Option<Supervised<RunActor>>>);

impl RunLink {
    /// A link, and the means to say where it leads.
    #[must_use]
    pub fn unbound() -> (watch::Sender<Option<Supervised<RunActor>>>, Self) {
        let (bind, link) = watch::channel(None);
        (bind, Self(link))
    }

    /// The run's actor that runs now, if there is one yet.
    #[must_use]
    pub fn current(&self) -> Option<Addr<RunActor>> {
        self.0.borrow().as_ref().map(Supervised::addr)
    }

    /// Tells the run's actor, once there is one; waits for room in its mailbox.
    pub async fn tell(&self, happened: Happened) {
        let mut link = self.0.clone();
        let bound = link.wait_for(Option::is_some).await.map(|actor| actor.clone());
        let Ok(Some(run)) = bound else { return };
        if let Err(error) = run.ask(happened).await {
            tracing::warn!(actor = "run", %error, "an event was lost");
        }
    }
}

/// What the actor works with.
#[derive(Clone)]
pub struct Links {
    /// The chain.
    pub rpc: Supervised<RpcSupervisor>,
    /// The rewards.
    pub rewards: Supervised<RewardsActor>,
    /// The peers.
    pub gossip: Supervised<GradientGossip>,
    /// The devices.
    pub devices: DeviceQueue,
    /// The network, for the pages of update logs.
    pub net: NetHandle,
    /// Where checkpoints are written.
    pub checkpoints: CheckpointFolder,
    /// This node's update log.
    pub updates: Arc<Mutex<UpdateLog>>,
    /// What it announced as a witness.
    pub manifests: Arc<Mutex<ManifestShelf>>,
    /// What the run trains.
    pub plan: Arc<RunPlan>,
    /// Who listens.
    pub events: EventLog,
    /// Told when and how the node's part in the run ends.
    pub finished: mpsc::Sender<End>,
}

/// See the module.
pub struct RunActor {
    engine: Engine,
    links: Links,
    clock: ChainClock,
    origin: Instant,
    status: RunStatus,
}

impl RunActor {
    /// An actor around a fresh engine; `chain` is what the chain's clock shows now.
    #[must_use]
    pub fn new(engine: Engine, links: Links, chain: ChainTime) -> Self {
        let mut clock = ChainClock::default();
        clock.read(0, chain);
        Self { engine, links, clock, origin: Instant::now(), status: RunStatus::default() }
    }

    fn mono_ms(&self) -> u64 {
        // One, so that the reading at the origin lies in the past.
        1 + u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX - 1)
    }

    fn feed(&mut self, event: Event, ctx: &mut Context<Self>) {
        let mono_ms = self.mono_ms();
        let Some(chain) = self.clock.now(mono_ms) else { return };
        self.status.events_handled += 1;
        if !matches!(event, Event::Timer) {
            tracing::debug!(actor = "run", ?event, "event");
        }
        for effect in self.engine.step(Now { chain, mono_ms }, event) {
            tracing::debug!(actor = "run", ?effect, "effect");
            self.carry_out(effect, ctx);
        }
    }

    fn read_clock(&mut self, ctx: &mut Context<Self>) {
        let rpc = self.links.rpc.clone();
        let reading = async move { rpc.ask(ReadClock).await };
        let store = reading.into_actor(self).map(|reading, actor, _| {
            if let Ok(Ok((slot, chain))) = reading {
                actor.links.events.tally().saw_chain(slot, Instant::now());
                let mono_ms = actor.mono_ms();
                actor.clock.read(mono_ms, chain);
                actor.links.events.tally().saw_clock(chain, actor.clock.speed(), Instant::now());
            }
        });
        ctx.spawn(store);
    }
}

impl Actor for RunActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX_MAX);
        self.links.events.tally().engine_began();
        // A fresh engine knows nothing of what peers said to the one before it.
        let gossip = self.links.gossip.clone();
        ctx.spawn(async move { gossip.ask(HearAgain).await }.into_actor(self).map(|heard, _, _| {
            if let Err(error) = heard {
                tracing::warn!(actor = "run", %error, "repeated messages stay unheard");
            }
        }));
        ctx.run_interval(TIMER_INTERVAL, |actor, ctx| actor.feed(Event::Timer, ctx));
        ctx.run_interval(CLOCK_INTERVAL, Self::read_clock);
    }
}

impl Handler<Ask<Happened>> for RunActor {
    type Result = ();

    fn handle(&mut self, Ask(Happened(event)): Ask<Happened>, ctx: &mut Self::Context) {
        self.feed(event, ctx);
    }
}

impl Handler<Ask<GetStatus>> for RunActor {
    type Result = actix::MessageResult<Ask<GetStatus>>;

    fn handle(&mut self, _: Ask<GetStatus>, _: &mut Self::Context) -> Self::Result {
        actix::MessageResult(RunStatus { chain_speed: self.clock.speed(), ..self.status.clone() })
    }
}
