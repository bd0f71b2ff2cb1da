//! The scheduler: every node, every message and every transaction in one queue of virtual time.

use std::collections::BTreeMap;
use std::sync::Arc;

use psyche_actors::engine::{ChainAction, Event, Now, SendId};
use psyche_messages::Step;
use psyche_protocol::layout::{Config, CoordinatorAccount, RunState};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::chain::{Chain, config, peer, time};
use super::checks::Checks;
use super::costs::{Costs, thread_ns};
use super::faults::{Faults, Lie};
use super::node::Node;
use super::verbose;

/// The engine's pulse.
const TIMER_MS: u64 = 200;
/// How often a node reads the account, whatever it was told.
const POLL_MS: u64 = 2_000;
/// A run that has not finished by then never will.
const DEADLINE_MS: u64 = 900_000;

/// The longest time without a new step once faults have stopped: two epochs with their Warmup and Cooldown, so about ten
/// rounds.
const STILL_MS_MAX: u64 = 200_000;
/// Most rounds that an engine remembers: eight that have been, the one in work, and what is announced ahead.
const ROUNDS_MAX: usize = 14;

/// Something that is going to happen.
pub(crate) enum Happening {
    /// A life of a node is told something.
    Tell { node: usize, life: u32, event: Event },
    /// A node's pulse, and from time to time a reading of the account.
    Pulse { node: usize, life: u32 },
    /// The trainer of a node is done with its first command.
    TrainerDone { node: usize, life: u32, ticket: u64 },
    /// A transaction reaches the chain.
    Execute { node: usize, life: u32, id: SendId, action: ChainAction },
    /// A transaction reaches the chain after it was given up for lost.
    Land { node: usize, action: ChainAction },
    /// A node leaves of its own will.
    Go { node: usize },
    /// A node dies.
    Die { node: usize },
    /// A node starts.
    Start { node: usize },
    /// The network divides, or is whole again.
    Part { together: bool },
    /// The owner pauses the run, and some time after that resumes it.
    Pause,
    /// The owner looks whether the run is paused, to resume it.
    Resume,
}

/// Everything.
pub(crate) struct World {
    pub nodes: Vec<Node>,
    pub chain: Chain,
    pub checks: Checks,
    pub faults: Faults,
    /// Where they are counted.
    pub costs: Option<Costs>,
    pub now_ms: u64,
    rng: ChaCha8Rng,
    queue: BTreeMap<(u64, u64), Happening>,
    count: u64,
    trace: Trace,
    /// The step in work, and since when it is, or faults have stopped.
    moved: (u32, u64),
}

/// A number that any difference between two runs makes another.
struct Trace(u64);

impl Trace {
    const fn note(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

impl World {
    pub(crate) fn new(seed: u64, nodes: usize, faults: Faults) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        // With fewer witnesses than clients, training begins before everyone is ready.
        let witness_nodes = if seed.is_multiple_of(3) && faults.until_ms > 0 { 2 } else { 0 };
        let mut world = Self {
            nodes: (0..nodes).map(|_| Node::new()).collect(),
            chain: Chain::new(Config { total_steps: faults.steps, ..config(nodes, witness_nodes) }),
            checks: Checks::new(),
            costs: None,
            now_ms: 0,
            queue: BTreeMap::new(),
            count: 0,
            trace: Trace(seed),
            moved: (0, 0),
            faults,
            rng: ChaCha8Rng::seed_from_u64(rng.random()),
        };
        for node in 0..nodes {
            let visit = world.faults.visits.iter().find(|visit| visit.node == node).copied();
            let at_ms = rng.random_range(0..3_000);
            let at_ms = world.faults.late.filter(|_| node == 0).unwrap_or(at_ms);
            world.at(at_ms + visit.map_or(0, |visit| visit.from_ms), Happening::Start { node });
            if let Some(until_ms) = visit.and_then(|visit| visit.until_ms) {
                world.at(until_ms, Happening::Go { node });
            }
            if let Some(again_ms) = visit.and_then(|visit| visit.again_ms) {
                world.at(again_ms, Happening::Start { node });
            }
        }
        world.plan_faults(rng.random_range(0..nodes));
        world
    }

    fn plan_faults(&mut self, victim: usize) {
        let faults = self.faults.clone();
        if let Some((at_ms, pause_ms)) = faults.crash {
            self.at(at_ms, Happening::Die { node: victim });
            self.at(at_ms + pause_ms, Happening::Start { node: victim });
        }
        if let Some((at_ms, pause_ms)) = faults.crash_of_all {
            self.checks.may_begin_again = true;
            for node in 0..self.nodes.len() {
                self.at(at_ms, Happening::Die { node });
                self.at(at_ms + pause_ms + 300 * node as u64, Happening::Start { node });
            }
        }
        if faults.flip.is_some() || faults.lie.is_some() {
            self.checks.excused.insert(self.nodes.len() - 1);
        }
        if faults.is_mixed && faults.lie.is_some() {
            // A liar and a member that is cut off may be too many for a quorum of what is left of a small epoch.
            self.checks.may_begin_again = true;
        }
        if faults.no_history {
            self.checks.excused.extend(0..self.nodes.len());
            self.checks.all_excused = true;
        }
        if let Some((at_ms, for_ms)) = faults.partition {
            self.at(at_ms, Happening::Part { together: false });
            self.at(at_ms + for_ms, Happening::Part { together: true });
        }
        if let Some(at_ms) = faults.pause {
            self.at(at_ms, Happening::Pause);
        }
    }

    /// Names everything that happened so far, in its order.
    pub(crate) const fn trace(&self) -> u64 {
        self.trace.0
    }

    /// Runs until every node has finished.
    pub(crate) fn run(&mut self) {
        let liar = self.faults.lie.map(|_| self.nodes.len() - 1);
        let waits = |(at, node): (usize, &Node)| !node.finished && !node.gone && Some(at) != liar;
        while self.nodes.iter().enumerate().any(waits) {
            let ((at_ms, _), happening) = self.queue.pop_first().expect("pulses never end");
            self.now_ms = at_ms;
            self.trace.note(at_ms);
            self.check_progress();
            assert!(at_ms < DEADLINE_MS, "the run does not finish: {:?}", self.stuck());
            self.happen(happening);
        }
        let all_excused = self.checks.all_excused;
        if !all_excused {
            self.checks.compare_with_history(&self.chain);
        }
        if std::env::var_os("SIM_STATS").is_some() {
            eprintln!("{} s, {}", self.now_ms / 1_000, self.checks.summary(&self.chain));
        }
        let last = Step(self.chain.account.state.coordinator.progress.step - 1);
        let stayed = |(at, node): &(usize, &Node)| Some(*at) != liar && !node.gone;
        for (at, node) in self.nodes.iter().enumerate().filter(stayed) {
            let held = node.model.as_ref().map(|(step, model)| (Step(*step), model.digest()));
            // Whoever died near the end has no parameters, and says so; nobody ends with other ones.
            let late = self.faults.visits.iter().any(|visit| visit.node == at && visit.from_ms > 0);
            let excused = held.is_none() && (node.life > 1 || late);
            // When everyone dies in the last epoch, nobody may be left who can tell its results; then all end alike.
            let any = self.nodes.iter().find_map(|node| node.model.as_ref());
            let any = any.map(|(step, model)| (Step(*step), model.digest()));
            // Whoever was dropped from the epoch is not believed, even if it alone wrote down what was applied last.
            let is_told = |(at, node): (usize, &Node)| {
                let holds = node.model.as_ref().is_some_and(|(step, _)| Step(*step) == last);
                self.chain.is_client(at) && (holds || node.ledger.range().is_some_and(|(_, end, _)| end >= last))
            };
            let told = !self.checks.may_begin_again || self.nodes.iter().enumerate().any(is_told);
            let right = self.checks.right(last).map(|digest| (last, digest)).filter(|_| !all_excused && told);
            let right = right.or_else(|| any.filter(|_| all_excused || self.checks.may_begin_again));
            // Nobody waits for those who are not in the epoch: they end with what they have, if it was right once.
            let was_right = |(step, digest)| self.checks.right(step) == Some(digest);
            let outside = !self.chain.is_client(at) && held.is_some_and(was_right);
            assert!(excused || outside || held == right, "node {at} finished with {held:?} instead of {right:?}");
        }
    }

    /// Once faults have stopped, rounds follow each other: nothing holds the run up for longer than two epochs last.
    fn check_progress(&mut self) {
        let step = self.chain.account.state.coordinator.progress.step;
        if step != self.moved.0 || self.now_ms < self.faults.last_ms() {
            self.moved = (step, self.now_ms);
        }
        let ended = self.chain.account.run_state() == RunState::Finished;
        let still_ms = self.now_ms - self.moved.1;
        assert!(ended || still_ms <= STILL_MS_MAX, "no step for {still_ms} ms without faults: {:?}", self.stuck());
    }

    /// What an engine remembers has bounds that no peer can move.
    fn check_memory(&self, node: usize) {
        let Some(engine) = &self.nodes[node].engine else { return };
        let (held, nodes) = (engine.held(), self.nodes.len());
        assert!(held.rounds <= ROUNDS_MAX, "node {node} holds {held:?}");
        assert!(held.announcements <= ROUNDS_MAX * (5 * nodes + 3 * nodes * nodes), "node {node} holds {held:?}");
        assert!(held.early <= 8 * nodes && held.repeated <= 32, "node {node} holds {held:?}");
        assert!(held.fetches <= ROUNDS_MAX * 4 * nodes, "node {node} holds {held:?}");
        assert!(held.digests <= 2 * ROUNDS_MAX * (nodes + 1), "node {node} holds {held:?}");
        assert!(held.snapshots <= 2 * ROUNDS_MAX * nodes + 32, "node {node} holds {held:?}");
    }

    fn stuck(&self) -> Vec<String> {
        let mut lines: Vec<_> = self.nodes.iter().map(|node| format!("{:?}", node.engine)).collect();
        lines.push(format!("{:?} {:?}", self.chain.account.run_state(), self.chain.account.state.coordinator.progress));
        lines
    }

    pub(crate) fn at(&mut self, at_ms: u64, happening: Happening) {
        self.count += 1;
        self.queue.insert((at_ms, self.count), happening);
    }

    pub(crate) fn soon(&mut self, most_ms: u64, happening: Happening) {
        self.within(self.now_ms, most_ms, happening);
    }

    /// At most `most_ms` after `from_ms`: when that is.
    pub(crate) fn within(&mut self, from_ms: u64, most_ms: u64, happening: Happening) -> u64 {
        let at_ms = from_ms + self.rng.random_range(1..=most_ms.max(1));
        self.at(at_ms, happening);
        at_ms
    }

    fn faulty(&self) -> bool {
        self.now_ms < self.faults.until_ms
    }

    pub(crate) fn chance(&mut self, percent: u32) -> bool {
        self.faulty() && self.rng.random_range(0..100) < percent
    }

    pub(crate) fn coin(&mut self) -> bool {
        self.rng.random()
    }

    pub(crate) fn delay_ms(&self, ms: u64) -> u64 {
        if self.faulty() { ms } else { ms.min(300) }
    }

    pub(crate) fn connected(&self, one: usize, other: usize) -> bool {
        let apart = self
            .faults
            .partition
            .is_some_and(|(from_ms, for_ms)| (from_ms..from_ms + for_ms).contains(&self.now_ms) && (one < 2) != (other < 2));
        !apart && self.nodes[one].engine.is_some() && self.nodes[other].engine.is_some()
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Tell { node, life, event } => self.tell(node, life, event),
            Happening::Pulse { node, life } => self.pulse(node, life),
            Happening::TrainerDone { node, life, ticket } => self.trainer_done(node, life, ticket),
            Happening::Execute { node, life, id, action } => self.execute(node, life, id, &action),
            Happening::Land { node, action } => self.land(node, &action),
            Happening::Go { node } => {
                self.die(node);
                self.nodes[node].gone = true;
            }
            Happening::Die { node } => self.die(node),
            Happening::Start { node } => self.start(node),
            Happening::Part { together } => self.part(together),
            Happening::Pause => {
                // A run that is paused after its last step could only be resumed with more steps to do.
                let (progress, config) = (&self.chain.account.state.coordinator.progress, self.chain.config());
                if !self.chain.account.halted() && progress.step.saturating_add(2) < config.total_steps {
                    self.chain.set_paused(true, self.now_ms);
                    self.send_states();
                    self.at(self.now_ms + 1_000, Happening::Resume);
                }
            }
            Happening::Resume if self.chain.account.run_state() == RunState::Paused => {
                self.chain.set_paused(false, self.now_ms);
                self.send_states();
            }
            Happening::Resume => self.at(self.now_ms + 3_000, Happening::Resume),
        }
    }

    fn die(&mut self, node: usize) {
        if verbose() {
            eprintln!("{:>7} node {node} dies", self.now_ms);
        }
        if self.faults.keeps_disk && !self.faults.lost_disks.contains(&node) && self.faults.crash_of_all.is_some() {
            self.checks.keep(self.nodes[node].kept_step());
        }
        self.nodes[node].die();
        self.gone(node);
    }

    fn start(&mut self, node: usize) {
        // Whoever was told to come back while it was there has nothing to do.
        if self.nodes[node].engine.is_some() {
            return;
        }
        self.nodes[node].gone = false;
        if verbose() {
            eprintln!("{:>7} node {node} starts", self.now_ms);
        }
        let keeps_disk = self.faults.keeps_disk && !self.faults.lost_disks.contains(&node);
        self.nodes[node].start(node, keeps_disk);
        let life = self.nodes[node].life;
        self.soon(TIMER_MS, Happening::Pulse { node, life });
        for other in 0..self.nodes.len() {
            if other != node && self.connected(node, other) {
                let other_life = self.nodes[other].life;
                self.soon(500, Happening::Tell { node, life, event: Event::PeerConnected(peer(other)) });
                let event = Event::PeerConnected(peer(node));
                self.soon(500, Happening::Tell { node: other, life: other_life, event });
            }
        }
    }

    fn part(&mut self, together: bool) {
        for one in 0..2 {
            for other in 2..self.nodes.len() {
                for (node, peer) in [(one, peer(other)), (other, peer(one))] {
                    let life = self.nodes[node].life;
                    let event = if together { Event::PeerConnected(peer) } else { Event::PeerDisconnected(peer) };
                    self.soon(1_500, Happening::Tell { node, life, event });
                }
            }
        }
    }

    fn gone(&mut self, node: usize) {
        for other in 0..self.nodes.len() {
            let life = self.nodes[other].life;
            self.soon(2_000, Happening::Tell { node: other, life, event: Event::PeerDisconnected(peer(node)) });
        }
    }

    fn pulse(&mut self, node: usize, life: u32) {
        if self.nodes[node].life != life || self.nodes[node].engine.is_none() {
            return;
        }
        self.at(self.now_ms + TIMER_MS, Happening::Pulse { node, life });
        if self.rng.random_range(0..POLL_MS / TIMER_MS) == 0 {
            let account = Arc::clone(&self.chain.account);
            self.send_state(node, account);
        }
        self.tell(node, life, Event::Timer);
    }

    pub(crate) fn send_state(&mut self, node: usize, account: Arc<CoordinatorAccount>) {
        let life = self.nodes[node].life;
        if self.faults.is_blind(node, self.now_ms) {
            return;
        }
        let event = Event::CoordinatorAdvanced { slot: self.chain.read_at(self.now_ms), account };
        let delay_ms = self.delay_ms(self.faults.state_delay_ms);
        self.soon(delay_ms, Happening::Tell { node, life, event });
    }

    /// Tells a node something and does what its engine wants.
    fn tell(&mut self, node: usize, life: u32, event: Event) {
        if self.nodes[node].life != life {
            return;
        }
        let now = Now { chain: time(self.now_ms), mono_ms: self.now_ms };
        if self.nodes[node].engine.is_none() {
            return;
        }
        let silent = matches!(event, Event::Timer);
        let told = verbose().then(|| format!("{event:?}"));
        if let Event::Message(signed) = &event
            && self.faults.lie == Some(Lie::Replay)
            && node + 1 == self.nodes.len()
        {
            self.nodes[node].hear(signed.clone());
        }
        let Some(engine) = &mut self.nodes[node].engine else { return };
        let state = matches!(event, Event::CoordinatorAdvanced { .. });
        let before_ns = self.costs.as_ref().map(|_| thread_ns());
        let effects = engine.step(now, event);
        if let (Some(costs), Some(before_ns)) = (&mut self.costs, before_ns) {
            costs.engine_ns += thread_ns() - before_ns;
            costs.states += u64::from(state);
        }
        self.trace.note((node as u64) << 32 | effects.len() as u64);
        self.check_memory(node);
        if let Some(told) = told
            && !(silent && effects.is_empty())
        {
            eprintln!("{:>7} node {node} <- {told}", self.now_ms);
            for effect in &effects {
                eprintln!("{:>7} node {node}    -> {effect:?}", self.now_ms);
            }
        }
        for effect in effects {
            self.perform(node, effect);
        }
        let held = self.nodes[node].model.as_ref().map(|(step, model)| (Step(*step), model.digest()));
        let in_work = Step(self.chain.account.state.coordinator.progress.step);
        self.checks.watch_health(node, held, in_work);
    }
}
