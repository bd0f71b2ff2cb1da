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
//! Earned and lost points as the newest state of the account says, claimed points as the participant's account says, and what
//! the treasury holds. At most one claim is under way; the next one begins by reading what is left, so nothing is claimed
//! twice.
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
use psyche_chain::ops::{self, ClaimKind, Claimed, RunPoints};
use psyche_chain::{ChainError, Rpc, RunInfo, Wallet};
use psyche_messages::{Command, NodeEvent, Points};
use psyche_protocol::layout::{CoordinatorAccount, RosterClient};
use tokio::sync::Mutex;

use crate::chain_of;
use crate::config::ClaimPolicy;
use crate::envelope::Ask;
use crate::event_log::EventLog;
use crate::telemetry::{Membership, Schedule, TxKind, TxOutcome};

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
    /// Lost again.
    pub slashed: Points,
    /// Claimed in all.
    pub claimed: Points,
    /// What the treasury held when it was looked at last; `None` before that.
    pub treasury: Option<Points>,
}

impl Standing {
    /// Earned, neither lost nor claimed yet.
    #[must_use]
    pub const fn claimable(&self) -> Points {
        Points(self.earned.0.saturating_sub(self.slashed.0).saturating_sub(self.claimed.0))
    }

    /// Notes what the roster says; whether that is news.
    fn note_roster(&mut self, member: Option<&RosterClient>) -> bool {
        let (earned, slashed) = member.map_or((0, 0), |member| (member.earned, member.slashed));
        let before = core::mem::replace(self, Self { earned: Points(earned), slashed: Points(slashed), ..*self });
        *self != before
    }

    /// Notes what was read at the treasury; whether that is news for somebody who counts points. Claims never shrink, so an
    /// older answer changes nothing.
    fn note_treasury(&mut self, points: &RunPoints) -> bool {
        self.treasury = Some(points.treasury);
        let news = points.claimed > self.claimed;
        self.claimed = self.claimed.max(points.claimed);
        news
    }

    /// Notes how a claim came out.
    fn note_claim(&mut self, claimed: &Claimed) {
        self.claimed = self.claimed.max(claimed.claimed_in_all);
        self.treasury = Some(Points(claimed.before.treasury.0.saturating_sub(claimed.amount.0)));
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
                self.standing.note_claim(claimed);
                self.tell(claimed);
                if let Some(signature) = &claimed.signature {
                    self.links.events.tally().transaction(TxKind::Claim, TxOutcome::Landed);
                    let signature = signature.to_string();
                    self.links.events.report(NodeEvent::RewardsClaimed { amount: claimed.amount, signature });
                    self.report();
                }
            }
            Err(error) => {
                self.links.events.tally().transaction(TxKind::Claim, TxOutcome::of(error));
                tracing::warn!(actor = "rewards", error = %chain_of(error), "could not claim rewards");
            }
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

    /// Says plainly where a treasury holds too little.
    fn tell(&self, claimed: &Claimed) {
        if matches!(claimed.kind, ClaimKind::PaidInPart | ClaimKind::TreasuryEmpty) {
            let (paid, left, lacks) = (claimed.amount, claimed.left, claimed.treasury_lacks);
            tracing::warn!(actor = "rewards", %paid, %left, %lacks, "the run's treasury holds too little to pay all points");
        }
    }

    /// Reads anew what was claimed, here or elsewhere, and what the treasury holds.
    fn refresh(&self, ctx: &mut Context<Self>) {
        let links = self.links.clone();
        let read = async move { ops::points(&links.rpc, &links.run, links.wallet.address()).await };
        ctx.spawn(read.into_actor(self).map(|read, actor, _| match read {
            Ok(points) => {
                // Before the account was seen, its first state brings the report.
                if actor.standing.note_treasury(&points) && actor.standing.earned > Points(0) {
                    actor.report();
                }
            }
            Err(error) => tracing::warn!(actor = "rewards", error = %chain_of(&error), "could not read what was claimed"),
        }));
    }

    fn report(&self) {
        let Standing { earned, claimed, slashed, .. } = self.standing;
        if slashed > Points(0) {
            tracing::warn!(actor = "rewards", %slashed, "points were lost for absence");
        }
        self.links.events.report(NodeEvent::PointsChanged { earned, claimed });
    }
}

impl Actor for RewardsActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX_MAX);
        // What was claimed before this process began.
        self.refresh(ctx);
    }
}

impl Handler<Ask<CoordinatorSeen>> for RewardsActor {
    type Result = ();

    fn handle(&mut self, Ask(CoordinatorSeen(account)): Ask<CoordinatorSeen>, ctx: &mut Self::Context) {
        let wallet = self.links.wallet.address();
        let member = account.client_index(&wallet.0).is_some();
        let membership = Membership { member, pending: account.is_pending(&wallet.0) };
        let news = self.standing.note_roster(account.roster_client(&wallet.0));
        self.links.events.tally().saw_membership(membership, self.standing.slashed);
        self.links.events.tally().saw_schedule(Schedule::of(&account.state.coordinator));
        if !news {
            return;
        }
        self.report();
        if self.links.policy == ClaimPolicy::Automatic && self.standing.claimable() > Points(0) {
            let claim = self.claim().into_actor(self);
            ctx.spawn(claim.map(|outcome, actor, _| actor.claimed(&outcome)));
        } else {
            self.refresh(ctx);
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

#[cfg(test)]
mod tests {
    use psyche_protocol::layout::NodeIdentity;

    use super::*;

    fn member(earned: u64, slashed: u64) -> RosterClient {
        let id = NodeIdentity { signer: [1; 32], p2p_identity: [2; 32] };
        let mut member = RosterClient::new(id, 3);
        (member.earned, member.slashed) = (earned, slashed);
        member
    }

    fn points(claimed: u64, treasury: u64) -> RunPoints {
        RunPoints { claimed: Points(claimed), treasury: Points(treasury), ..RunPoints::default() }
    }

    #[test]
    fn points_are_news_once() {
        let mut standing = Standing::default();
        assert!(!standing.note_roster(None));
        assert!(standing.note_roster(Some(&member(50, 0))) && !standing.note_roster(Some(&member(50, 0))));
        assert!(standing.note_roster(Some(&member(50, 20))), "what is lost is news, too");
        assert_eq!(standing.claimable(), Points(30));
    }

    #[test]
    fn an_older_answer_unclaims_nothing() {
        let mut standing = Standing::default();
        assert!(standing.note_roster(Some(&member(100, 0))));
        assert!(standing.note_treasury(&points(40, 500)));
        assert!(!standing.note_treasury(&points(0, 540)));
        assert_eq!((standing.claimed, standing.claimable()), (Points(40), Points(60)));
    }

    #[test]
    fn more_lost_than_earned_leaves_nothing_to_claim() {
        let standing = Standing { earned: Points(10), slashed: Points(30), ..Standing::default() };
        assert_eq!(standing.claimable(), Points(0));
    }
}
