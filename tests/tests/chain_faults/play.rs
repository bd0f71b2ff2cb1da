//! Plays a run's clients, one transaction after the other, and writes down every change of phase as it happens.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use psyche_chain::{ChainError, CoordinatorView, Rpc, Wallet, ops};
use psyche_messages::{PeerKey, Phase, Slot};
use psyche_protocol::instruction::{Args as _, JoinRunArgs, WarmupWitnessArgs, WitnessArgs, WitnessMetadata};
use psyche_protocol::layout::{Bloom, Witness, WitnessProof};
use psyche_protocol::machine;
use psyche_protocol::select::{Selection, participant_item};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::record::{Change, Record};
use crate::stage::Stage;

/// A pause between two looks at a run in which nothing is to be done.
const LOOK: Duration = Duration::from_millis(15);

/// How the run goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gait {
    /// As fast as its rules allow.
    Free,
    /// A phase lasts until the node has seen it. This stands for phases that last longer than the pause between two reads,
    /// as all do on a real chain, and needs no clock.
    Seen,
    /// Not at all.
    Halt,
}

/// What the chain did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Truth {
    /// Every phase, in order.
    pub(crate) changes: Vec<Change>,
    /// The newest nonce.
    pub(crate) nonce: u64,
    /// Transactions that failed on the node's own way, and were tried again by what the chain showed.
    pub(crate) failures: Vec<String>,
    /// Nobody does anything at present.
    pub(crate) halted: bool,
}

/// The players. Dropping them stops them.
pub(crate) struct Play {
    gait: watch::Sender<Gait>,
    truth: watch::Receiver<Truth>,
    task: JoinHandle<Result<()>>,
}

impl Drop for Play {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Play {
    /// Starts to play on `stage`; the first client sends through the providers where `through_faults`, and everybody else
    /// past them.
    pub(crate) fn start(stage: &Stage, record: &Record, gait: Gait, through_faults: bool) -> Self {
        let (gait, gaits) = watch::channel(gait);
        let (write, truth) = watch::channel(Truth::default());
        let players = Players {
            direct: stage.direct.clone(),
            node: if through_faults { stage.rpc.clone() } else { stage.direct.clone() },
            clients: Arc::from(stage.clients.clone()),
            run: stage.run.clone(),
            grant: stage.grant,
            seen: record.nonce(),
        };
        Self { gait, truth, task: tokio::spawn(players.play(gaits, write)) }
    }

    pub(crate) fn go(&self, gait: Gait) {
        self.gait.send_replace(gait);
    }

    pub(crate) fn truth(&self) -> Truth {
        self.truth.borrow().clone()
    }

    /// What is true after [`Gait::Halt`] has taken effect.
    pub(crate) async fn settled(&mut self) -> Result<Truth> {
        ensure!(*self.gait.borrow() == Gait::Halt, "the run goes on");
        self.wait("rest", |truth| truth.halted).await?;
        Ok(self.truth())
    }

    /// Every client says what it has to say in the present state, past every fault.
    pub(crate) async fn say_what_is_due(stage: &Stage, view: &CoordinatorView) -> Result<()> {
        let players = Players {
            direct: stage.direct.clone(),
            node: stage.direct.clone(),
            clients: Arc::from(stage.clients.clone()),
            run: stage.run.clone(),
            grant: stage.grant,
            seen: watch::channel(0).1,
        };
        let mut view = view.clone();
        let before = Change::of(&view);
        while Change::of(&view).is_same_phase(&before) && players.speak(&view).await? {
            view = stage.direct.coordinator(stage.run.account).await?;
        }
        Ok(())
    }

    /// Waits until `count` more phases have begun.
    pub(crate) async fn phases(&mut self, count: usize) -> Result<()> {
        let wanted = self.truth().changes.len() + count;
        self.wait("phases", |truth| truth.changes.len() >= wanted).await
    }

    async fn wait(&mut self, what: &str, done: impl FnMut(&Truth) -> bool) -> Result<()> {
        let mut truth = self.truth.clone();
        let waited = tokio::time::timeout(Duration::from_secs(90), truth.wait_for(done)).await.map(|found| found.map(drop));
        match waited {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_gone)) => {
                (&mut self.task).await??;
                bail!("the players have left")
            }
            Err(_elapsed) => bail!("no more {what}: {:?}", self.truth()),
        }
    }
}

/// Who plays.
struct Players {
    direct: Rpc,
    node: Rpc,
    clients: Arc<[Wallet]>,
    run: psyche_chain::RunInfo,
    grant: psyche_messages::Address,
    seen: watch::Receiver<u64>,
}

impl Players {
    async fn play(mut self, mut gaits: watch::Receiver<Gait>, write: watch::Sender<Truth>) -> Result<()> {
        loop {
            let view = self.direct.coordinator(self.run.account).await?;
            let mut began = false;
            write.send_if_modified(|truth| {
                let change = Change::of(&view);
                began = truth.changes.last().is_none_or(|last| !last.is_same_phase(&change));
                if began {
                    truth.changes.push(change);
                }
                std::mem::replace(&mut truth.nonce, view.nonce().0) != view.nonce().0 || began
            });
            while *gaits.borrow_and_update() == Gait::Halt {
                write.send_modify(|truth| truth.halted = true);
                if gaits.changed().await.is_err() {
                    return Ok(());
                }
            }
            write.send_if_modified(|truth| std::mem::take(&mut truth.halted));
            if began && *gaits.borrow() == Gait::Seen {
                self.until_seen(view.nonce().0, &mut gaits).await?;
            }
            if let Err(error) = self.act(&view).await {
                let error = format!("{:#}", anyhow::Error::from(error));
                write.send_modify(|truth| truth.failures.push(error));
            }
        }
    }

    /// Waits until the node knows of `nonce`, or nobody cares any more.
    async fn until_seen(&mut self, nonce: u64, gaits: &mut watch::Receiver<Gait>) -> Result<()> {
        tokio::select! {
            seen = self.seen.wait_for(|seen| *seen >= nonce) => drop(seen.context("nobody watches")?),
            _other = gaits.wait_for(|gait| *gait != Gait::Seen) => {}
        }
        Ok(())
    }

    /// One transaction, if one is due.
    async fn act(&self, view: &CoordinatorView) -> Result<(), ChainError> {
        if self.speak(view).await? {
            return Ok(());
        }
        let (_slot, now) = self.direct.clock().await?;
        if machine::would_tick(&view.account, now.0).is_some() {
            return ops::tick(&self.direct, &self.clients[0], &self.run).await.map(drop);
        }
        tokio::time::sleep(LOOK).await;
        Ok(())
    }

    /// A client says what it has to say in this state; false if nobody has.
    async fn speak(&self, view: &CoordinatorView) -> Result<bool, ChainError> {
        for (index, client) in self.clients.iter().enumerate() {
            let rpc = if index == 0 { &self.node } else { &self.direct };
            let address = client.address();
            match view.phase() {
                Phase::WaitingForMembers if !view.account.is_pending(&address.0) => {
                    let peer = PeerKey(address.0);
                    return ops::join_run(rpc, client, &self.run, self.grant, peer).await.map(|_joined| true);
                }
                Phase::Warmup | Phase::RoundTrain => {
                    if let Some(witness) = testimony(view, client, &self.clients) {
                        return self.testify(rpc, client, view, witness).await.map(|()| true);
                    }
                }
                _ => {}
            }
        }
        Ok(false)
    }

    async fn testify(&self, rpc: &Rpc, client: &Wallet, view: &CoordinatorView, witness: Witness) -> Result<(), ChainError> {
        if view.phase() == Phase::Warmup {
            return ops::warmup_witness(rpc, client, &self.run, &WarmupWitnessArgs { witness }).await.map(drop);
        }
        let metadata = WitnessMetadata::new(view.step().0);
        ops::witness(rpc, client, &self.run, &WitnessArgs { witness, metadata }).await.map(drop)
    }
}

/// What `client` has still to say in this round.
fn testimony(view: &CoordinatorView, client: &Wallet, all: &[Wallet]) -> Option<Witness> {
    let account = &view.account;
    let index = u64::try_from(account.client_index(&client.address().0)?).ok()?;
    let round = account.current_round();
    if round.witnesses.iter().any(|witness| witness.proof.index == index) {
        return None;
    }
    let mut heard = Bloom::new([1, 2, 3, 4, 5, 6, 7, 8]);
    for one in all {
        heard.add(&participant_item(&one.address().0));
    }
    let proof = if view.phase() == Phase::Warmup {
        WitnessProof::new(0, index, true)
    } else {
        Selection::of_round(round, &account.state.coordinator.config).ok()?.witness_proof(index)?
    };
    Some(Witness { proof, participant_bloom: heard, broadcast_bloom: Bloom::new([9; 8]), broadcast_merkle: [7; 32] })
}

/// What the chain's history tells: nobody said the same thing twice.
pub(crate) async fn no_duplicates(stage: &Stage) -> Result<()> {
    let calls = ops::calls_since(&stage.direct, &stage.run, Slot(0), 2_000).await?;
    let (mut joined, mut witnessed) = (Vec::new(), Vec::new());
    for call in &calls {
        if JoinRunArgs::decode(&call.data).is_ok() {
            ensure!(!joined.contains(&call.user), "{} joined twice", call.user);
            joined.push(call.user);
        } else if WarmupWitnessArgs::decode(&call.data).is_ok() {
            // Whoever is ready has joined, and the training that follows makes everybody join anew.
            let at = joined.iter().position(|user| *user == call.user).context("somebody was ready twice")?;
            joined.remove(at);
        } else if let Ok(args) = WitnessArgs::decode(&call.data) {
            let said = (call.user, args.metadata.step);
            ensure!(!witnessed.contains(&said), "{said:?} was said twice");
            witnessed.push(said);
        }
    }
    ensure!(!witnessed.is_empty(), "nobody testified");
    Ok(())
}
