//! Whether the actors answer. Ranks are left out: their threads compute for as long as a micro-batch takes, and the engine
//! waits for them by its own deadlines.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use actix::dev::ToEnvelope;
use actix::{Actor, Context, Handler};
use futures::future::join_all;
use psyche_messages::Command;

use crate::envelope::Ask;
use crate::gossip::GradientGossip;
use crate::rewards::RewardsActor;
use crate::rpc::RpcSupervisor;
use crate::run::RunActor;
use crate::supervisor::{AskError, Supervised};
use crate::watcher::CoordinatorWatcher;

/// Asks an actor for nothing but an answer.
#[derive(Clone, Copy, Debug)]
pub struct Ping;

impl Command for Ping {
    type Reply = ();
}

macro_rules! answers {
    ($($actor:ty),*) => {
        $(impl Handler<Ask<Ping>> for $actor {
            type Result = ();

            fn handle(&mut self, _: Ask<Ping>, _: &mut Context<Self>) {}
        })*
    };
}

answers!(RunActor, RpcSupervisor, GradientGossip, RewardsActor, CoordinatorWatcher);

type Answer = Pin<Box<dyn Future<Output = Result<(), AskError>> + Send>>;

/// A way to ask one actor.
pub(crate) struct Probe {
    actor: &'static str,
    ask: Box<dyn Fn() -> Answer + Send + Sync>,
}

/// The actors that must answer. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Pulse(Arc<[Probe]>);

impl Pulse {
    pub(crate) fn new(probes: Vec<Probe>) -> Self {
        Self(probes.into())
    }

    pub(crate) fn of<A>(actor: &Supervised<A>) -> Probe
    where
        A: Actor + Handler<Ask<Ping>>,
        A::Context: ToEnvelope<A, Ask<Ping>>,
    {
        let (name, actor) = (actor.vitals().name(), actor.clone());
        let ask = move || -> Answer {
            let actor = actor.clone();
            Box::pin(async move { actor.ask(Ping).await })
        };
        Probe { actor: name, ask: Box::new(ask) }
    }

    /// Asks all of them at once; the name of one that does not answer in time, if there is one.
    pub(super) async fn feel(&self, patience: Duration) -> Result<(), &'static str> {
        let answers = self.0.iter().map(|probe| async move {
            match tokio::time::timeout(patience, (probe.ask)()).await {
                // An actor that died is its supervisor's business, which restarts it.
                Ok(Ok(()) | Err(AskError::Stopped { .. })) => Ok(()),
                Err(_elapsed) => Err(probe.actor),
            }
        });
        join_all(answers).await.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use std::sync::mpsc::{Receiver, sync_channel};

    use actix::{Addr, Arbiter};
    use psyche_messages::Backoff;
    use tokio::sync::mpsc;

    use super::*;
    use crate::supervisor::RestartPolicy;

    /// An actor that can be kept from answering.
    struct Sleeper;

    impl Actor for Sleeper {
        type Context = Context<Self>;
    }

    answers!(Sleeper);

    /// Holds the actor's thread until the other end is dropped.
    struct Hold(Receiver<()>);

    impl Command for Hold {
        type Reply = ();
    }

    impl Handler<Ask<Hold>> for Sleeper {
        type Result = ();

        fn handle(&mut self, Ask(Hold(until)): Ask<Hold>, _: &mut Context<Self>) {
            let _dropped = until.recv();
        }
    }

    fn sleeper() -> Supervised<Sleeper> {
        let arbiter = Arbiter::new();
        let backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(40), 200, 0).unwrap();
        let policy = RestartPolicy { restarts_max: 1, window: Duration::from_secs(60), backoff };
        let factory = move || -> Addr<Sleeper> { Sleeper::start_in_arbiter(&arbiter.handle(), |_| Sleeper) };
        Supervised::start("sleeper", policy, factory, mpsc::channel(1).0)
    }

    #[test]
    fn an_actor_whose_thread_is_held_is_named_and_forgiven_once_it_answers_again() {
        actix::System::new().block_on(async {
            let sleeper = sleeper();
            let pulse = Pulse::new(vec![Pulse::of(&sleeper)]);
            let long = Duration::from_secs(60);
            assert_eq!(pulse.feel(long).await, Ok(()));
            let (hold, held) = sync_channel(1);
            let holding = tokio::spawn({
                let sleeper = sleeper.clone();
                async move { sleeper.ask(Hold(held)).await }
            });
            // The mailbox is served in order: until the actor has taken this message, it answers.
            while pulse.feel(Duration::from_millis(50)).await.is_ok() {}
            assert_eq!(pulse.feel(Duration::from_millis(50)).await, Err("sleeper"));
            drop(hold);
            assert_eq!(holding.await.unwrap(), Ok(()));
            assert_eq!(pulse.feel(long).await, Ok(()));
        });
    }
}
