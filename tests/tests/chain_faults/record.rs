//! What a node sees of a run, and how that compares to what the chain did.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use psyche_chain::{CoordinatorView, RunEvent, WatchConfig, watch_run};
use psyche_messages::{Epoch, Phase, Slot, Step};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::play::{Play, Truth};
use crate::stage::{Stage, watch_config};

/// How soon a node must be up to date after a fault, by the chain's clock.
const FRESH_WITHIN_MS: u64 = 5_000;
/// How long a test waits for what must happen before it says that it does not.
const DEADLINE: Duration = Duration::from_secs(60);

/// A state of a run, told from others by its phase and counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) phase: Phase,
    pub(crate) epoch: Epoch,
    pub(crate) step: Step,
    pub(crate) nonce: u64,
    pub(crate) slot: Slot,
}

impl Change {
    pub(crate) fn of(view: &CoordinatorView) -> Self {
        let (phase, epoch, step) = (view.phase(), view.epoch(), view.step());
        Self { phase, epoch, step, nonce: view.nonce().0, slot: view.slot }
    }

    pub(crate) fn is_same_phase(&self, other: &Self) -> bool {
        self.name() == other.name()
    }

    fn name(&self) -> (Phase, Epoch, Step) {
        (self.phase, self.epoch, self.step)
    }
}

/// Follows a run as a node does and writes everything down.
pub(crate) struct Record {
    states: Arc<Mutex<Vec<Change>>>,
    trouble: Arc<Mutex<Vec<String>>>,
    connected: watch::Receiver<usize>,
    nonce: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

impl Drop for Record {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Record {
    /// Starts to watch through the providers.
    pub(crate) fn start(stage: &Stage) -> Self {
        Self::with(stage, watch_config(stage.pace))
    }

    pub(crate) fn with(stage: &Stage, config: WatchConfig) -> Self {
        let mut watch = watch_run(&stage.rpc, stage.run.clone(), config);
        let states: Arc<Mutex<Vec<Change>>> = Arc::default();
        let trouble: Arc<Mutex<Vec<String>>> = Arc::default();
        let (tell, nonce) = watch::channel(0);
        let (count, connected) = watch::channel(0);
        let (write, note) = (Arc::clone(&states), Arc::clone(&trouble));
        let task = tokio::spawn(async move {
            loop {
                let event = tokio::select! {
                    event = watch.recv() => Some(event),
                    () = tokio::time::sleep(Duration::from_millis(20)) => None,
                };
                let up = watch.account().connected();
                count.send_if_modified(|count| std::mem::replace(count, up) != up);
                match event {
                    Some(RunEvent::Changed(view)) => {
                        write.lock().unwrap_or_else(PoisonError::into_inner).push(Change::of(&view));
                        tell.send_replace(view.nonce().0);
                    }
                    Some(other) => note.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{other:?}")),
                    None => {}
                }
            }
        });
        Self { states, trouble, connected, nonce, task }
    }

    /// The newest nonce that was seen, as it changes.
    pub(crate) fn nonce(&self) -> watch::Receiver<u64> {
        self.nonce.clone()
    }

    /// Waits until so many websockets are subscribed.
    pub(crate) async fn connected(&self, count: usize) -> Result<()> {
        let mut connected = self.connected.clone();
        let waited = tokio::time::timeout(DEADLINE, connected.wait_for(|up| *up == count)).await.map(|found| found.map(drop));
        waited.with_context(|| format!("{count} websockets are not reached"))??;
        Ok(())
    }

    /// Waits until `nonce` was seen.
    pub(crate) async fn sees(&self, nonce: u64) -> Result<()> {
        let mut seen = self.nonce.clone();
        let waited = tokio::time::timeout(DEADLINE, seen.wait_for(|seen| *seen >= nonce)).await.map(|found| found.map(drop));
        waited.with_context(|| format!("nonce {nonce} is not seen; the last was {}", *self.nonce.borrow()))??;
        Ok(())
    }

    /// To be called when a fault has just ended: what is true now must be known within five seconds of the chain's clock.
    pub(crate) async fn is_soon_fresh(&self, stage: &Stage, play: &Play) -> Result<()> {
        self.soon_knows(stage, play.truth().nonce).await
    }

    /// `nonce` is known within five seconds of the chain's clock.
    pub(crate) async fn soon_knows(&self, stage: &Stage, nonce: u64) -> Result<()> {
        let since = stage.slot().await?;
        self.sees(nonce).await?;
        let took_ms = (stage.slot().await? - since) * stage.pace.slot_ms;
        ensure!(took_ms <= FRESH_WITHIN_MS, "nonce {nonce} was known only {took_ms} ms of chain time after the fault");
        Ok(())
    }

    /// Everything that was seen.
    pub(crate) fn states(&self) -> Vec<Change> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Everything that was reported beside states.
    pub(crate) fn trouble(&self) -> Vec<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether it saw every phase of `truth` once and in order, but for those that began and ended within `dark` slots, and
    /// never went backwards.
    pub(crate) fn must_match(&self, truth: &Truth, dark: Option<(u64, u64)>) -> Result<()> {
        self.must_match_phases(&truth.changes, dark)
    }

    /// As [`Record::must_match`].
    pub(crate) fn must_match_phases(&self, truth: &[Change], dark: Option<(u64, u64)>) -> Result<()> {
        let states = self.states();
        ensure!(self.trouble().is_empty(), "{:?}", self.trouble());
        for pair in states.windows(2) {
            ensure!(pair[0].nonce <= pair[1].nonce && pair[0].slot <= pair[1].slot, "backwards: {pair:?}");
            ensure!(pair[0].nonce < pair[1].nonce, "seen twice: {pair:?}");
        }
        let mut seen: Vec<Change> = states;
        seen.dedup_by(|next, before| before.is_same_phase(next));
        // The watch begins before the run does.
        let start = truth.first().context("nothing happened")?.name();
        seen.drain(..seen.iter().position(|change| change.name() == start).context("the beginning was not seen")?);
        let visible = |at: usize| {
            let (Some((from, to)), Some(next)) = (dark, truth.get(at + 1)) else { return true };
            truth[at].slot.0 <= from || next.slot.0 > to
        };
        let must: Vec<_> = (0..truth.len()).filter(|at| visible(*at)).map(|at| truth[at].name()).collect();
        let can: Vec<_> = truth.iter().map(Change::name).collect();
        let seen: Vec<_> = seen.iter().map(Change::name).collect();
        let missed: Vec<_> = must.iter().filter(|name| !seen.contains(name)).collect();
        ensure!(missed.is_empty(), "missed {missed:?} of {can:?}; seen {seen:?}");
        let mut rest = can.iter();
        ensure!(seen.iter().all(|name| rest.any(|real| real == name)), "seen {seen:?} where {can:?} happened");
        Ok(())
    }
}
