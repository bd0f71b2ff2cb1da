//! A network at play: nodes as processes of `psyche-solana-client train`, or inside of this one, and their journal.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use psyche_actors::config::P2pConfig;
use psyche_actors::node::Drill;
use psyche_actors::{Node, NodeBuilder};
use psyche_messages::NodeEvent;
use tokio::runtime::Runtime;

use super::journal::Journal;
use super::stage::{RUN_ID, Stage};

/// How often logs and processes are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A loaded machine may take several times as long as an idle one.
const HAPPENS_WITHIN: Duration = Duration::from_secs(180);

enum Player {
    Absent,
    Process(Child),
    Inside(Box<Node>),
}

impl Drop for Player {
    fn drop(&mut self) {
        if let Self::Process(child) = self {
            // It may have ended by itself.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// See the module. Nodes count from one.
pub(crate) struct Play<'a> {
    players: Vec<Player>,
    runtime: Runtime,
    pub(crate) stage: Stage,
    pub(crate) journal: Journal<'a>,
}

/// What is played: how many nodes there may be, how many of them wait for each other, and how long an epoch is in seconds of the
/// chain's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    pub(crate) nodes: usize,
    pub(crate) first: usize,
    pub(crate) epoch_s: u32,
}

impl<'a> Play<'a> {
    /// Builds the stage in `folder`; nobody is on it yet.
    ///
    /// # Errors
    /// If a part of it can't be made.
    pub(crate) fn new(program: &Path, folder: &Path, setting: Setting, out: &'a mut dyn Write) -> Result<Self> {
        let Setting { nodes, first, epoch_s } = setting;
        let stage = Stage::new(program, folder, nodes, first, epoch_s)?;
        let journal = Journal::new((1..=nodes).map(|node| stage.data(node).join("events.jsonl")), out);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("failed to make a runtime")?;
        let players = (0..nodes).map(|_| Player::Absent).collect();
        Ok(Self { players, runtime, stage, journal })
    }

    /// Starts `node` as a process of its own, and waits until it is up.
    ///
    /// # Errors
    /// If it does not come up.
    pub(crate) fn start_process(&mut self, node: usize) -> Result<()> {
        let log = self.stage.path(&format!("node-{node}.log"));
        let log = OpenOptions::new().create(true).append(true).open(log).context("failed to open a log")?;
        let mut command = self.stage.train(node, &self.journal.addresses(node));
        let output = log.try_clone().context("failed to open a log")?;
        let child = command.stdout(output).stderr(log).spawn().context("failed to start a node")?;
        self.players[node - 1] = Player::Process(child);
        self.until_up(node)
    }

    /// Starts `node` inside of this process, and waits until it is up.
    ///
    /// # Errors
    /// If it does not come up.
    pub(crate) fn start_inside(&mut self, node: usize, drill: Option<Drill>) -> Result<()> {
        let bootstrap = self.journal.addresses(node);
        let mut builder = NodeBuilder::new()
            .run_id(RUN_ID)
            .endpoint(&self.stage.rpc, &self.stage.ws)
            .wallet_file(self.stage.path(&format!("node-{node}.json")))
            .data_dir(self.stage.data(node))
            .data_path(self.stage.path("tokens/tokens.bin"))
            .models_dir(&self.stage.folder)
            .devices("cpu:1".parse().context("failed to name a device")?)
            .log_name(&format!("node {node}"))
            .p2p(P2pConfig { bind: IpAddr::V4(Ipv4Addr::LOCALHOST), bootstrap, ..P2pConfig::default() });
        if let Some(drill) = drill {
            builder = builder.drill(drill);
        }
        let started = self.runtime.block_on(builder.start());
        let started = started.map_err(|error| anyhow::anyhow!("failed to {}", psyche_actors::chain_of(&error)))?;
        self.players[node - 1] = Player::Inside(Box::new(started));
        self.until_up(node)
    }

    fn until_up(&mut self, node: usize) -> Result<()> {
        let starts = |journal: &Journal| journal.of(node).iter().filter(|e| matches!(e, NodeEvent::Started { .. })).count();
        let before = starts(&self.journal);
        self.until(&format!("node {node} is up"), |journal| starts(journal) > before)
    }

    /// The node that was started inside of this process.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn inside(&self, node: usize) -> Result<(&Node, &Runtime)> {
        match &self.players[node - 1] {
            Player::Inside(inside) => Ok((inside, &self.runtime)),
            Player::Absent | Player::Process(_) => bail!("node {node} is not inside of this process"),
        }
    }

    /// Kills the process of `node` with SIGKILL.
    ///
    /// # Errors
    /// If it has no process.
    pub(crate) fn kill(&mut self, node: usize) -> Result<()> {
        let Player::Process(child) = &mut self.players[node - 1] else { bail!("node {node} is no process of its own") };
        child.kill().context("failed to kill a node")?;
        child.wait().context("failed to wait for a node")?;
        self.players[node - 1] = Player::Absent;
        self.journal.read()
    }

    /// Waits until `reached` holds.
    ///
    /// # Errors
    /// If a node stops meanwhile, or it takes far too long.
    pub(crate) fn until(&mut self, what: &str, reached: impl Fn(&Journal) -> bool) -> Result<()> {
        let deadline = Instant::now() + HAPPENS_WITHIN;
        loop {
            self.journal.read()?;
            if reached(&self.journal) {
                return Ok(());
            }
            for (node, player) in (1..).zip(&mut self.players) {
                let ended = match player {
                    Player::Absent => false,
                    Player::Process(child) => child.try_wait().context("failed to look after a node")?.is_some(),
                    Player::Inside(_) => matches!(self.journal.of(node).last(), Some(NodeEvent::Stopped { .. })),
                };
                if ended {
                    bail!("node {node} ended before {what}; logs are under {}", self.stage.folder.display());
                }
            }
            if Instant::now() > deadline {
                bail!("it took too long until {what}; logs are under {}", self.stage.folder.display());
            }
            std::thread::park_timeout(LOOK_EVERY);
        }
    }

    /// Ends the play: nodes inside of this process leave, processes are killed.
    pub(crate) fn end(&mut self) {
        let players = std::mem::take(&mut self.players);
        let inside = players.iter().filter_map(|player| if let Player::Inside(node) = player { Some(node) } else { None });
        let leave = inside.map(|node| node.stop("the demonstration is over"));
        let _outcomes = self.runtime.block_on(futures::future::join_all(leave));
    }
}
