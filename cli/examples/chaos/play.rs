//! Plays a scenario with real processes: starts nodes, kills them, lets providers fail, and waits for the end.

use std::fs::OpenOptions;
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use psyche_messages::Phase;

use super::bridge::Counts;
use super::providers::Health;
use super::record::Record;
use super::scenario::Scenario;
use super::seeded::Seeded;
use super::stage::Stage;

/// How often processes and logs are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// The exit code of a node that comes back when the run is finished.
const RUN_IS_FINISHED: i32 = 11;
/// A provider is well for this long before the next one fails.
const PROVIDERS_WELL: Duration = Duration::from_secs(8);
/// How long a provider fails.
const PROVIDER_FAILS: Duration = Duration::from_secs(12);
/// Nobody is killed in the last steps, so that everybody who was killed has time to come back to be compared.
const QUIET_STEPS: u32 = 8;
/// A node that was killed stays away for up to this many milliseconds.
const AWAY_MS_MAX: u64 = 3_000;

/// What came of a scenario.
#[derive(Debug)]
pub(crate) struct Played {
    pub(crate) records: Vec<Record>,
    pub(crate) kills: u32,
    pub(crate) outages: u32,
    pub(crate) counts: Counts,
    /// What must not happen and did.
    pub(crate) broken: Vec<String>,
    pub(crate) wall: Duration,
}

enum Node {
    NotYet,
    Runs(Child),
    /// Killed; starts again then.
    Away(Instant),
    Ended,
}

struct Play<'a> {
    stage: &'a Stage,
    scenario: &'a Scenario,
    chance: Seeded,
    nodes: Vec<Node>,
    started: Instant,
    next_kill: Option<Instant>,
    next_outage: Option<(Instant, Option<usize>)>,
    kills: u32,
    outages: u32,
    broken: Vec<String>,
}

/// Plays `scenario` in `folder`. Call it on the main thread: nodes live as long as the thread that starts them.
pub(crate) fn play(scenario: &Scenario, program: &Path, folder: &Path) -> Result<Played> {
    let stage = Stage::new(scenario, program, folder)?;
    say(Instant::now(), "the run is created; the nodes start");
    let started = Instant::now();
    let mut play = Play {
        stage: &stage,
        scenario,
        chance: Seeded::new(scenario.seed),
        nodes: (0..scenario.nodes).map(|_| Node::NotYet).collect(),
        started,
        next_kill: None,
        next_outage: None,
        kills: 0,
        outages: 0,
        broken: Vec::new(),
    };
    let told = play.run();
    play.end();
    let records = play.records();
    let (kills, outages, broken) = (play.kills, play.outages, play.broken);
    told?;
    let counts = stage.end()?;
    Ok(Played { records: records?, kills, outages, counts, broken, wall: started.elapsed() })
}

fn say(started: Instant, text: &str) {
    use std::io::Write as _;
    // Nobody watches a closed stream.
    drop(writeln!(std::io::stderr(), "{:6.1} s  {text}", started.elapsed().as_secs_f64()));
}

impl Play<'_> {
    fn records(&self) -> Result<Vec<Record>> {
        (0..self.nodes.len()).map(|node| Record::read(&self.stage.node_folder(node).join("data"))).collect()
    }

    fn say(&self, text: &str) {
        say(self.started, text);
    }

    fn run(&mut self) -> Result<()> {
        let mut shown = None;
        let ends = self.started + Duration::from_secs(self.scenario.ends_within_s);
        loop {
            std::thread::park_timeout(LOOK_EVERY);
            let at = self.records()?.iter().filter_map(|record| record.position).max_by_key(|(step, ..)| *step);
            if at != shown
                && let Some((step, phase, clients)) = at
            {
                shown = at;
                self.say(&format!("step {step}/{} {phase}, {clients} clients", self.scenario.steps));
            }
            self.look_after()?;
            self.start_due(matches!(at, Some((step, ..)) if step > 1))?;
            if self.nodes.iter().all(|node| matches!(node, Node::Ended)) {
                return Ok(());
            }
            if !self.broken.is_empty() {
                return Ok(());
            }
            if Instant::now() > ends {
                self.broken.push(format!("the run did not finish within {} s", self.scenario.ends_within_s));
                return Ok(());
            }
            if let (Some(every), Some((step, phase, _))) = (self.scenario.kill_every_s, at) {
                let trains = step > 1 && phase != Phase::Finished && step + QUIET_STEPS <= self.scenario.steps;
                self.disturb(Duration::from_secs(every), trains)?;
            }
        }
    }

    /// Takes note of every process that has ended.
    fn look_after(&mut self) -> Result<()> {
        for (index, node) in self.nodes.iter_mut().enumerate() {
            let Node::Runs(child) = node else { continue };
            let Some(status) = child.try_wait().context("failed to look after a node")? else { continue };
            if !ended_well(status) {
                self.broken.push(format!("node {} ended by itself: {status}", index + 1));
            }
            *node = Node::Ended;
        }
        Ok(())
    }

    fn start_due(&mut self, trains: bool) -> Result<()> {
        for index in 0..self.nodes.len() {
            let late = self.scenario.late && index + 1 == self.nodes.len();
            let due = match &self.nodes[index] {
                Node::NotYet => !late || trains,
                Node::Away(until) => *until <= Instant::now(),
                Node::Runs(_) | Node::Ended => false,
            };
            if due {
                self.say(&format!("node {} starts", index + 1));
                let log = self.stage.node_folder(index).join("log.txt");
                let log = OpenOptions::new().create(true).append(true).open(&log).context("failed to open a log")?;
                let mut command = self.stage.train(index);
                let child = command.stdout(log.try_clone()?).stderr(log).spawn().context("failed to start a node")?;
                self.nodes[index] = Node::Runs(child);
            }
        }
        Ok(())
    }

    /// Kills a node and lets a provider fail, when it is time to.
    fn disturb(&mut self, every: Duration, trains: bool) -> Result<()> {
        let now = Instant::now();
        if trains && now >= *self.next_kill.get_or_insert(now + every) {
            self.next_kill = Some(now + every);
            self.kill_one()?;
        }
        let (at, failing) = *self.next_outage.get_or_insert((now + PROVIDERS_WELL, None));
        if now < at {
            return Ok(());
        }
        if let Some(number) = failing {
            self.say(&format!("provider {} is back", number + 1));
            self.stage.providers.set(number, Health::Up);
            self.next_outage = Some((now + PROVIDERS_WELL, None));
        } else if trains {
            let number = usize::try_from(self.chance.below(self.stage.providers.count() as u64))?;
            let health = if self.chance.below(2) == 0 { Health::Down } else { Health::Stalled };
            self.say(&format!("provider {} fails: {health:?}", number + 1));
            self.stage.providers.set(number, health);
            self.outages += 1;
            self.next_outage = Some((now + PROVIDER_FAILS, Some(number)));
        }
        Ok(())
    }

    fn kill_one(&mut self) -> Result<()> {
        let running: Vec<usize> = (0..self.nodes.len()).filter(|node| matches!(self.nodes[*node], Node::Runs(_))).collect();
        if running.is_empty() {
            return Ok(());
        }
        let index = running[usize::try_from(self.chance.below(running.len() as u64))?];
        let away = Duration::from_millis(self.chance.below(AWAY_MS_MAX));
        if let Node::Runs(child) = &mut self.nodes[index] {
            child.kill().context("failed to kill a node")?;
            let status = child.wait().context("failed to wait for a node that was killed")?;
            self.kills += 1;
            self.nodes[index] = Node::Away(Instant::now() + away);
            self.say(&format!("node {}: {status}", index + 1));
        }
        Ok(())
    }

    /// Nobody stays.
    fn end(&mut self) {
        for node in &mut self.nodes {
            if let Node::Runs(child) = node {
                // It may have ended just now.
                drop(child.kill());
                drop(child.wait());
            }
        }
    }
}

fn ended_well(status: ExitStatus) -> bool {
    matches!(status.code(), Some(0 | RUN_IS_FINISHED))
}
