//! The running network: starts nodes one after another, follows what they report, and ends when the run has.

use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use psyche_messages::{Address, Phase};
use tokio::time::{MissedTickBehavior, interval};

use super::board::{self, NodeBoard};
use super::fleet::{self, Fleet};
use super::follow::Follower;
use super::plan::{NodePlan, Plan};
use super::progress::Progress;

/// How often logs and processes are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A network in which no node reports anything for this long has stalled.
const STALLED_AFTER: Duration = Duration::from_secs(180);
/// How often a node that was killed is started again, as a container engine would.
const RESTARTS_MAX: u32 = 3;
/// How much of a failed node's log is shown.
const TAIL_LINES: usize = 5;
const TAIL_BYTES: u64 = 4096;

/// Where nodes find the chain.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) rpc: String,
    pub(crate) ws: String,
}

/// All nodes, from outside.
pub(crate) struct Network<'a> {
    plan: &'a Plan,
    endpoint: &'a Endpoint,
    /// Under whose authorization nodes join.
    authorizer: Address,
    fleet: &'a mut Fleet,
    progress: &'a mut Progress<io::Stderr>,
    nodes: Vec<Watched>,
    /// What each node reported so far.
    boards: Vec<NodeBoard>,
    last_event: Instant,
    phase: Option<Phase>,
}

struct Watched {
    follower: Follower,
    started: bool,
    restarts: u32,
}

impl<'a> Network<'a> {
    pub(crate) fn new(
        plan: &'a Plan,
        endpoint: &'a Endpoint,
        authorizer: Address,
        fleet: &'a mut Fleet,
        progress: &'a mut Progress<io::Stderr>,
    ) -> Self {
        let watch = |node: &NodePlan| Watched { follower: Follower::new(node.events()), started: false, restarts: 0 };
        let nodes: Vec<_> = plan.nodes.iter().map(watch).collect();
        let boards = nodes.iter().map(|_| NodeBoard::default()).collect();
        Self { plan, endpoint, authorizer, fleet, progress, nodes, boards, last_event: Instant::now(), phase: None }
    }

    /// Runs the network until the run is finished and every node has ended well; returns what each reported.
    ///
    /// # Errors
    /// If a node fails, is killed too often or ends too early, or nothing happens for too long.
    pub(crate) async fn run(mut self) -> Result<Vec<NodeBoard>> {
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            self.read_events()?;
            for (index, status) in self.fleet.ended().context("failed to look after the nodes")? {
                // What it wrote just before it ended.
                self.read_events()?;
                self.on_end(index, status)?;
            }
            if self.finished() && !self.fleet.any_running() {
                self.tell_unread();
                return Ok(self.boards);
            }
            self.start_next()?;
            if self.last_event.elapsed() > STALLED_AFTER {
                bail!("no node reported anything for {} seconds; see their logs", STALLED_AFTER.as_secs());
            }
            self.progress.show(Instant::now(), &self.plan.nodes, &self.boards);
        }
    }

    fn finished(&self) -> bool {
        self.phase == Some(Phase::Finished)
    }

    /// An event log that could not be read whole makes every figure below doubtful.
    fn tell_unread(&mut self) {
        for (plan, node) in self.plan.nodes.iter().zip(&self.nodes) {
            let unread = node.follower.unread();
            if unread > 0 {
                self.progress.say(&format!("{unread} lines of {} are no events", plan.events().display()));
            }
        }
    }

    fn read_events(&mut self) -> Result<()> {
        for ((plan, node), board) in self.plan.nodes.iter().zip(&mut self.nodes).zip(&mut self.boards) {
            let events = node.follower.poll().with_context(|| format!("failed to read {}", plan.events().display()))?;
            for event in events {
                self.last_event = Instant::now();
                if let Some(news) = board.apply(event) {
                    self.progress.say(&format!("node {} {news}", plan.number));
                }
            }
        }
        let Some(at) = board::position(&self.boards) else { return Ok(()) };
        if self.phase != Some(at.phase) {
            self.phase = Some(at.phase);
            match at.phase {
                Phase::Warmup => self.progress.say(&format!("epoch {} begins with {} nodes", at.epoch, at.clients)),
                Phase::Cooldown => self.progress.say(&format!("epoch {} ends at step {}", at.epoch, at.step)),
                Phase::Finished => self.progress.say("the run is finished"),
                _ => {}
            }
        }
        Ok(())
    }

    /// Starts the next node if the one before it is up, and the late one if the first epoch trains.
    fn start_next(&mut self) -> Result<()> {
        let Some(index) = self.nodes.iter().position(|node| !node.started) else { return Ok(()) };
        let before_is_up = index == 0 || self.boards[index - 1].address.is_some();
        let trains = matches!(self.phase, Some(Phase::RoundTrain | Phase::RoundWitness));
        if self.finished() || !before_is_up || (self.plan.nodes[index].late && !trains) {
            return Ok(());
        }
        self.start(index)
    }

    fn start(&mut self, index: usize) -> Result<()> {
        let node = &self.plan.nodes[index];
        let others = self.boards.iter().enumerate().filter(|(other, _)| *other != index);
        let bootstrap: Vec<String> = others.flat_map(|(_, board)| board.listen.iter().cloned()).collect();
        let variables = self.plan.variables(node, self.endpoint, self.authorizer, &bootstrap);
        self.fleet.start(index, node, &variables)?;
        self.nodes[index].started = true;
        self.last_event = Instant::now();
        let late = if node.late { ", late" } else { "" };
        let say = format!("node {} starts with {} x {} devices{late}", node.number, node.dp, node.tp);
        self.progress.say(&say);
        Ok(())
    }

    fn on_end(&mut self, index: usize, status: ExitStatus) -> Result<()> {
        let node = &self.plan.nodes[index];
        let how = fleet::describe(status);
        if status.success() {
            if self.finished() {
                return Ok(());
            }
            let reason = self.boards[index].stopped.clone().unwrap_or_else(|| "it did not say why".to_owned());
            bail!("node {} {how} before the run was finished: {reason}; its log is {}", node.number, node.log().display());
        }
        let restarts = &mut self.nodes[index].restarts;
        if status.code().is_none() && *restarts < RESTARTS_MAX {
            *restarts += 1;
            self.progress.say(&format!("node {} {how}", node.number));
            return self.start(index);
        }
        bail!("node {} {how}; its log is {}{}", node.number, node.log().display(), tail(&node.log()));
    }
}

/// The last lines of a log, indented, or nothing where it can't be read.
fn tail(path: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].iter().map(|line| format!("\n    {line}")).collect()
}

#[cfg(test)]
#[path = "network_tests.rs"]
mod tests;
