//! # Purpose
//! Follows what the wallet has earned and claimed in the run, reports it, and claims it on demand or by itself.
//!
//! # In (message → reply)
//! [`CoordinatorSeen`] → nothing; [`GetPoints`] → [`Standing`]; [`ClaimRewards`] → the amount claimed; [`SettleRewards`] →
//! nothing, once everything that is claimed by itself is claimed.
//!
//! # Out
//! Changes of points and claims to the event log.
//!
//! # State and invariants
//! Earned points as the newest state of the account says, claimed points as the participant's account says. At most one
//! claim is under way.
//!
//! # Mailbox (bound, policy when full)
//! 64 messages; senders wait.
//!
//! # Failure (how it dies, who restarts it)
//! Only a bug kills it; the node's supervisor starts another, which reads everything anew. A failed claim is logged, and
//! tried again at the next change.
//!
//! # Time
//! None of its own.

use std::sync::Arc;

use actix::{
    Actor, ActorFutureExt as _, AsyncContext as _, Context, Handler, MessageResult, ResponseActFuture, WrapFuture as _,
};
use psyche_chain::ops::{self, Claimed};
use psyche_chain::{ChainError, Rpc, RunInfo, Wallet};
use psyche_messages::{Command, NodeEvent, Points};
use psyche_protocol::layout::CoordinatorAccount;
use tokio::sync::Mutex;

use crate::chain_of;
use crate::config::ClaimPolicy;
use crate::envelope::Ask;
use crate::event_log::EventLog;

/// Messages that may wait.
const MAILBOX_MAX: usize = 64;

/// The newest state of the coordinator account.
pub struct CoordinatorSeen(pub Arc<CoordinatorAccount>);

/// Asks for [`Standing`].
#[derive(Clone, Copy, Debug)]
pub struct GetPoints;

/// Claims what can be claimed.
#[derive(Clone, Copy, Debug)]
pub struct ClaimRewards;

/// Claims what can be claimed if rewards are claimed by themselves: the run is over.
#[derive(Clone, Copy, Debug)]
pub struct SettleRewards;

impl Command for SettleRewards {
    type Reply = ();
}
impl Command for CoordinatorSeen {
    type Reply = ();
}
impl Command for GetPoints {
    type Reply = Standing;
}
impl Command for ClaimRewards {
    type Reply = Result<Points, ChainError>;
}

/// What the wallet has earned and claimed, as far as is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Earned in all.
    pub earned: Points,
    /// Claimed in all.
    pub claimed: Points,
}

impl Standing {
    /// Earned and not claimed yet.
    #[must_use]
    pub const fn claimable(&self) -> Points {
        Points(self.earned.0.saturating_sub(self.claimed.0))
    }
}

/// What the actor works with; kept by the supervisor's factory over restarts.
#[derive(Clone)]
pub struct RewardsLinks {
    /// The chain.
    pub rpc: Rpc,
    /// Who earns and claims.
    pub wallet: Wallet,
    /// Where.
    pub run: RunInfo,
    /// When.
    pub policy: ClaimPolicy,
    /// Who listens.
    pub events: EventLog,
}

/// See the module.
pub struct RewardsActor {
    links: RewardsLinks,
    standing: Standing,
    /// Held by the claim under way.
    claiming: Arc<Mutex<()>>,
}

impl RewardsActor {
    /// An actor that knows nothing yet.
    #[must_use]
    pub fn new(links: RewardsLinks) -> Self {
        Self { links, standing: Standing::default(), claiming: Arc::default() }
    }

    fn claimed(&mut self, outcome: &Result<Claimed, ChainError>) {
        match outcome {
            Ok(claimed) => {
                self.standing.claimed = claimed.claimed_in_all;
                if let Some(signature) = &claimed.signature {
                    let signature = signature.to_string();
                    self.links.events.report(NodeEvent::RewardsClaimed { amount: claimed.amount, signature });
                    self.report();
                }
            }
            Err(error) => tracing::warn!(actor = "rewards", error = %chain_of(error), "could not claim rewards"),
        }
    }

    /// Claims after whatever claim is under way, which may leave nothing.
    fn claim(&self) -> impl Future<Output = Result<Claimed, ChainError>> + use<> {
        let (links, claiming) = (self.links.clone(), Arc::clone(&self.claiming));
        async move {
            let _turn = claiming.lock().await;
            ops::claim_rewards(&links.rpc, &links.wallet, &links.run.run_id, None).await
        }
    }

    fn report(&self) {
        let Standing { earned, claimed } = self.standing;
        self.links.events.report(NodeEvent::PointsChanged { earned, claimed });
    }
}

impl Actor for RewardsActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX_MAX);
        // What was claimed before this process began.
        let links = self.links.clone();
        let read = async move { ops::points(&links.rpc, &links.run, links.wallet.address()).await };
        ctx.spawn(read.into_actor(self).map(|read, actor, _| match read {
            Ok(points) if points.claimed > actor.standing.claimed => {
                actor.standing.claimed = points.claimed;
                // Otherwise the account was not seen yet, and its first state brings the report.
                if actor.standing.earned > Points(0) {
                    actor.report();
                }
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(actor = "rewards", error = %chain_of(&error), "could not read what was claimed"),
        }));
    }
}

impl Handler<Ask<CoordinatorSeen>> for RewardsActor {
    type Result = ();

    fn handle(&mut self, Ask(CoordinatorSeen(account)): Ask<CoordinatorSeen>, ctx: &mut Self::Context) {
        let wallet = self.links.wallet.address();
        let earned = account.roster_client(&wallet.0).map_or(0, |client| client.earned);
        if Points(earned) == self.standing.earned {
            return;
        }
        self.standing.earned = Points(earned);
        self.report();
        if self.links.policy == ClaimPolicy::Automatic {
            let claim = self.claim().into_actor(self);
            ctx.spawn(claim.map(|outcome, actor, _| actor.claimed(&outcome)));
        }
    }
}

impl Handler<Ask<GetPoints>> for RewardsActor {
    type Result = MessageResult<Ask<GetPoints>>;

    fn handle(&mut self, _: Ask<GetPoints>, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.standing)
    }
}

impl Handler<Ask<ClaimRewards>> for RewardsActor {
    type Result = ResponseActFuture<Self, Result<Points, ChainError>>;

    fn handle(&mut self, _: Ask<ClaimRewards>, _: &mut Self::Context) -> Self::Result {
        Box::pin(self.claim().into_actor(self).map(|outcome, actor, _| {
            actor.claimed(&outcome);
            outcome.map(|claimed| claimed.amount)
        }))
    }
}

impl Handler<Ask<SettleRewards>> for RewardsActor {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, _: Ask<SettleRewards>, _: &mut Self::Context) -> Self::Result {
        if self.links.policy == ClaimPolicy::Manual {
            return Box::pin(async {}.into_actor(self));
        }
        Box::pin(self.claim().into_actor(self).map(|outcome, actor, _| actor.claimed(&outcome)))
    }
}
