//! Keeps actors running.
//!
//! actix catches no panics and never restarts an actor whose handler panicked, so the node does it: an actor is made by a
//! factory, watched, and made anew after a backoff while its restart budget lasts. Whoever talks to a supervised actor goes
//! through [`Supervised`], which always knows the present address.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Handler, MailboxError};
use psyche_messages::{Backoff, Command};
use thiserror::Error;
use tokio::sync::mpsc;

use crate::envelope::Ask;

/// How often a supervisor looks whether its actor is alive.
const WATCH_INTERVAL: Duration = Duration::from_millis(200);

/// Why a command got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AskError {
    /// The actor died before it answered; its supervisor is about to restart it.
    #[error("get an answer: the {actor} actor stopped")]
    Stopped {
        /// Name of the actor.
        actor: &'static str,
    },
}

/// An actor died more often than its budget allows: the node cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("keep the {actor} actor running: it died {deaths} times within {window:?}")]
pub struct GaveUp {
    /// Name of the actor.
    pub actor: &'static str,
    /// Deaths within the window.
    pub deaths: usize,
    /// The window.
    pub window: Duration,
}

/// How often an actor may be restarted.
#[derive(Clone, Copy, Debug)]
pub struct RestartPolicy {
    /// Restarts allowed within `window`.
    pub restarts_max: usize,
    /// The window.
    pub window: Duration,
    /// Pause before each restart.
    pub backoff: Backoff,
}

/// Deaths within the policy's window.
#[derive(Debug)]
struct RestartBudget {
    policy: RestartPolicy,
    deaths: VecDeque<Instant>,
}

impl RestartBudget {
    const fn new(policy: RestartPolicy) -> Self {
        Self { policy, deaths: VecDeque::new() }
    }

    /// Records a death at `now`: the pause before the restart, or `None` where the budget is spent.
    fn died(&mut self, now: Instant, jitter: u16) -> Option<Duration> {
        while self.deaths.front().is_some_and(|first| now.duration_since(*first) > self.policy.window) {
            self.deaths.pop_front();
        }
        let attempt = u32::try_from(self.deaths.len()).unwrap_or(u32::MAX);
        self.deaths.push_back(now);
        (self.deaths.len() <= self.policy.restarts_max).then(|| self.policy.backoff.delay(attempt, jitter))
    }
}

/// How a supervised actor fares, for whoever watches the node.
#[derive(Debug)]
pub struct Vitals {
    name: &'static str,
    up: AtomicBool,
    given_up: AtomicBool,
    restarts: AtomicU64,
    waiting: AtomicU64,
}

impl Vitals {
    const fn new(name: &'static str) -> Self {
        Self {
            name,
            up: AtomicBool::new(true),
            given_up: AtomicBool::new(false),
            restarts: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
        }
    }

    /// The actor's name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Whether it runs.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Whether it died too often to be restarted.
    #[must_use]
    pub fn given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }

    /// How often it was restarted.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }

    /// Messages to it that wait or are being answered.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }
}

/// Counts a message for as long as somebody waits for its answer.
struct Waiting<'a>(&'a Vitals);

impl<'a> Waiting<'a> {
    fn new(vitals: &'a Vitals) -> Self {
        vitals.waiting.fetch_add(1, Ordering::Relaxed);
        Self(vitals)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A supervised actor. Cheap to clone.
pub struct Supervised<A: Actor> {
    vitals: Arc<Vitals>,
    current: Arc<RwLock<Addr<A>>>,
}

impl<A: Actor> Clone for Supervised<A> {
    fn clone(&self) -> Self {
        Self { vitals: Arc::clone(&self.vitals), current: Arc::clone(&self.current) }
    }
}

impl<A: Actor> Supervised<A> {
    /// Starts the actor with `factory` and keeps it running as `policy` allows; a spent budget is told to `fatal`.
    /// Needs a tokio runtime.
    pub fn start(
        name: &'static str,
        policy: RestartPolicy,
        factory: impl Fn() -> Addr<A> + Send + Sync + 'static,
        fatal: mpsc::Sender<GaveUp>,
    ) -> Self {
        let current = Arc::new(RwLock::new(factory()));
        let watched = Self { vitals: Arc::new(Vitals::new(name)), current };
        tokio::spawn(watched.clone().watch(policy, factory, fatal));
        watched
    }

    /// The address of the actor that runs now.
    #[must_use]
    pub fn addr(&self) -> Addr<A> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How the actor fares, over its restarts.
    #[must_use]
    pub fn vitals(&self) -> Arc<Vitals> {
        Arc::clone(&self.vitals)
    }

    /// Sends `command` and waits for its reply. Waits for room in the mailbox too.
    ///
    /// # Errors
    /// [`AskError`] if the actor dies before it answers.
    pub async fn ask<C>(&self, command: C) -> Result<C::Reply, AskError>
    where
        C: Command,
        A: Handler<Ask<C>>,
        A::Context: ToEnvelope<A, Ask<C>>,
    {
        let _waiting = Waiting::new(&self.vitals);
        match self.addr().send(Ask(command)).await {
            Ok(reply) => Ok(reply),
            Err(MailboxError::Closed | MailboxError::Timeout) => Err(AskError::Stopped { actor: self.vitals.name }),
        }
    }

    async fn watch(self, policy: RestartPolicy, factory: impl Fn() -> Addr<A> + Send + Sync, fatal: mpsc::Sender<GaveUp>) {
        let mut budget = RestartBudget::new(policy);
        let mut ticks = tokio::time::interval(WATCH_INTERVAL);
        while Arc::strong_count(&self.current) > 1 && !fatal.is_closed() {
            ticks.tick().await;
            if self.addr().connected() {
                continue;
            }
            self.vitals.up.store(false, Ordering::Relaxed);
            let Some(pause) = budget.died(Instant::now(), rand::random()) else {
                self.vitals.given_up.store(true, Ordering::Relaxed);
                let gave_up = GaveUp { actor: self.vitals.name, deaths: budget.deaths.len(), window: policy.window };
                tracing::error!(actor = self.vitals.name, deaths = gave_up.deaths, "an actor died too often");
                // A closed channel means that the node stops already.
                let _stopping = fatal.send(gave_up).await;
                return;
            };
            let delay_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(actor = self.vitals.name, delay_ms, "an actor died and is restarted");
            tokio::time::sleep(pause).await;
            let restarted = factory();
            *self.current.write().unwrap_or_else(PoisonError::into_inner) = restarted;
            self.vitals.restarts.fetch_add(1, Ordering::Relaxed);
            self.vitals.up.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use actix::{Arbiter, Context};

    use super::*;

    fn policy(restarts_max: usize) -> RestartPolicy {
        let backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(40), 200, 0).unwrap();
        RestartPolicy { restarts_max, window: Duration::from_secs(60), backoff }
    }

    #[test]
    fn pauses_grow_until_the_budget_is_spent_and_recover_after_the_window() {
        let mut budget = RestartBudget::new(policy(3));
        let start = Instant::now();
        let pauses: Vec<_> = (0..4).map(|_| budget.died(start, 0).map(|pause| pause.as_millis())).collect();
        assert_eq!(pauses, [Some(10), Some(20), Some(40), None]);
        let later = start + Duration::from_secs(61);
        assert_eq!(budget.died(later, 0), Some(Duration::from_millis(10)));
    }

    struct Fragile;

    impl Actor for Fragile {
        type Context = Context<Self>;
    }

    struct Divide(u32);

    impl Command for Divide {
        type Reply = u32;
    }

    impl Handler<Ask<Divide>> for Fragile {
        type Result = u32;

        fn handle(&mut self, Ask(Divide(by)): Ask<Divide>, _: &mut Self::Context) -> u32 {
            assert_ne!(by, 0, "provoked by the test");
            100 / by
        }
    }

    fn fragile(arbiter: &Arbiter) -> Addr<Fragile> {
        Fragile::start_in_arbiter(&arbiter.handle(), |_| Fragile)
    }

    #[test]
    fn an_actor_that_panics_is_restarted_and_answers_again() {
        actix::System::new().block_on(async {
            let (fatal, mut gave_up) = mpsc::channel(1);
            let arbiter = Arbiter::new();
            let supervised = Supervised::start("fragile", policy(2), move || fragile(&arbiter), fatal);
            assert_eq!(supervised.ask(Divide(4)).await, Ok(25));
            assert_eq!(supervised.ask(Divide(0)).await, Err(AskError::Stopped { actor: "fragile" }));
            let answer = tokio::time::timeout(Duration::from_secs(20), async {
                loop {
                    if let Ok(answer) = supervised.ask(Divide(5)).await {
                        return answer;
                    }
                    tokio::task::yield_now().await;
                }
            });
            assert_eq!(answer.await.unwrap(), 20);
            let vitals = supervised.vitals();
            assert_eq!((vitals.restarts(), vitals.waiting(), vitals.given_up()), (1, 0, false));
            assert!(gave_up.try_recv().is_err());
        });
    }

    #[test]
    fn an_actor_that_dies_too_often_is_given_up() {
        actix::System::new().block_on(async {
            let (fatal, mut gave_up) = mpsc::channel(1);
            let arbiter = Arbiter::new();
            let supervised = Supervised::start("fragile", policy(1), move || fragile(&arbiter), fatal);
            let verdict = tokio::time::timeout(Duration::from_secs(20), async {
                loop {
                    tokio::select! {
                        verdict = gave_up.recv() => return verdict,
                        _dead = supervised.ask(Divide(0)) => tokio::task::yield_now().await,
                    }
                }
            });
            assert_eq!(verdict.await.unwrap().map(|verdict| verdict.actor), Some("fragile"));
            assert!(supervised.vitals().given_up() && !supervised.vitals().is_up());
        });
    }
}
