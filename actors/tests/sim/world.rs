//! The scheduler: every node, every message and every transaction in one queue of virtual time.

use std::collections::BTreeMap;
use std::sync::Arc;

use psyche_actors::engine::{ChainAction, Effect, Event, FetchFault, FetchOutcome, Fetching, Now, SendId, SendOutcome};
use psyche_messages::events::ModelSource;
use psyche_messages::{BlobHash, RoundMessage, SignedRoundMessage, Slot, SnapshotAnnounced, Step};
use psyche_protocol::layout::CoordinatorAccount;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::chain::{Chain, address, clock, config, peer, time};
use super::checks::Checks;
use super::faults::Faults;
use super::node::Node;
use super::toy::{self, Blob, PAYLOAD_LEN};
use super::verbose;

/// The engine's pulse.
const TIMER_MS: u64 = 200;
/// How often a node reads the account, whatever it was told.
const POLL_MS: u64 = 2_000;
/// A run that has not finished by then never will.
const DEADLINE_MS: u64 = 900_000;

/// Something that is going to happen.
enum Happening {
    /// A life of a node is told something.
    Tell { node: usize, life: u32, event: Event },
    /// A node's pulse, and from time to time a reading of the account.
    Pulse { node: usize, life: u32 },
    /// The trainer of a node is done with its first command.
    TrainerDone { node: usize, life: u32, ticket: u64 },
    /// A transaction reaches the chain.
    Execute { node: usize, life: u32, id: SendId, action: ChainAction },
    /// A node dies.
    Die { node: usize },
    /// A node starts.
    Start { node: usize },
}

/// Everything.
pub(crate) struct World {
    pub nodes: Vec<Node>,
    pub chain: Chain,
    pub checks: Checks,
    faults: Faults,
    rng: ChaCha8Rng,
    now_ms: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    count: u64,
}

impl World {
    pub(crate) fn new(seed: u64, nodes: usize, faults: Faults) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let witness_nodes = if seed % 3 == 0 { 2 } else { 0 };
        let mut world = Self {
            nodes: (0..nodes).map(|_| Node::new()).collect(),
            chain: Chain::new(config(nodes, witness_nodes)),
            checks: Checks::default(),
            now_ms: 0,
            queue: BTreeMap::new(),
            count: 0,
            faults,
            rng: ChaCha8Rng::seed_from_u64(rng.random()),
        };
        for node in 0..nodes {
            let at_ms = rng.random_range(0..3_000);
            world.at(at_ms, Happening::Start { node });
        }
        if let Some((at_ms, pause_ms)) = world.faults.crash {
            let node = rng.random_range(0..nodes);
            world.at(at_ms, Happening::Die { node });
            world.at(at_ms + pause_ms, Happening::Start { node });
        }
        world
    }

    /// Runs until every node has finished.
    pub(crate) fn run(&mut self) {
        while self.nodes.iter().any(|node| !node.finished) {
            let ((at_ms, _), happening) = self.queue.pop_first().expect("pulses never end");
            self.now_ms = at_ms;
            assert!(at_ms < DEADLINE_MS, "the run does not finish: {:?}", self.stuck());
            self.happen(happening);
        }
        self.checks.compare_with_history(&self.chain);
        let last = Step(self.chain.account.state.coordinator.progress.step - 1);
        for (at, node) in self.nodes.iter().enumerate() {
            let step = node.model.as_ref().map(|(step, _)| *step);
            // Whoever died near the end has no parameters, and says so; nobody ends with other ones.
            let excused = step.is_none() && node.life > 1;
            assert!(excused || step == Some(last.0), "node {at} finished after step {step:?} of {last}");
        }
    }

    fn stuck(&self) -> Vec<String> {
        let mut lines: Vec<_> = self.nodes.iter().map(|node| format!("{:?}", node.engine)).collect();
        lines.push(format!("{:?} {:?}", self.chain.account.run_state(), self.chain.account.state.coordinator.progress));
        lines
    }

    fn at(&mut self, at_ms: u64, happening: Happening) {
        self.count += 1;
        self.queue.insert((at_ms, self.count), happening);
    }

    fn soon(&mut self, most_ms: u64, happening: Happening) {
        let at_ms = self.now_ms + self.rng.random_range(1..=most_ms.max(1));
        self.at(at_ms, happening);
    }

    fn faulty(&self) -> bool {
        self.now_ms < self.faults.until_ms
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.faulty() && self.rng.random_range(0..100) < percent
    }

    fn delay_ms(&self, ms: u64) -> u64 {
        if self.faulty() { ms } else { ms.min(300) }
    }

    fn connected(&self, one: usize, other: usize) -> bool {
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
            Happening::Die { node } => {
                if verbose() {
                    eprintln!("{:>7} node {node} dies", self.now_ms);
                }
                self.nodes[node].die();
                self.gone(node);
            }
            Happening::Start { node } => self.start(node),
        }
    }

    fn start(&mut self, node: usize) {
        if verbose() {
            eprintln!("{:>7} node {node} starts", self.now_ms);
        }
        self.nodes[node].start(node);
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

    fn send_state(&mut self, node: usize, account: Arc<CoordinatorAccount>) {
        let life = self.nodes[node].life;
        let event = Event::CoordinatorAdvanced { slot: Slot(clock(self.now_ms).slot), account };
        let delay_ms = self.delay_ms(self.faults.state_delay_ms);
        self.soon(delay_ms, Happening::Tell { node, life, event });
    }

    /// Tells a node something and does what its engine wants.
    fn tell(&mut self, node: usize, life: u32, event: Event) {
        if self.nodes[node].life != life {
            return;
        }
        let now = Now { chain: time(self.now_ms), mono_ms: self.now_ms };
        let Some(engine) = &mut self.nodes[node].engine else { return };
        let silent = matches!(event, Event::Timer);
        let told = verbose().then(|| format!("{event:?}"));
        let effects = engine.step(now, event);
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
    }

    fn perform(&mut self, node: usize, effect: Effect) {
        let life = self.nodes[node].life;
        match effect {
            Effect::LoadModel { .. }
            | Effect::ResetMomentum
            | Effect::Train { .. }
            | Effect::Apply { .. }
            | Effect::TakeSnapshot { .. } => self.command(node, effect),
            Effect::CancelTraining { round } => {
                self.nodes[node].cancelled = Some(round);
                let is_running =
                    matches!(self.nodes[node].commands.front(), Some(Effect::Train { round: r, .. }) if *r == round);
                if is_running {
                    self.nodes[node].ticket += 1;
                    let ticket = self.nodes[node].ticket;
                    self.soon(300, Happening::TrainerDone { node, life, ticket });
                }
            }
            Effect::Publish(message) => self.publish(node, message),
            Effect::Fetch { blob, providers, what, .. } => self.fetch(node, blob, &providers, &what),
            Effect::StoreManifest(manifest) => {
                let blob = toy::manifest_blob(&manifest);
                let event = Event::ManifestStored { round: manifest.round, blob, len: 100 };
                self.nodes[node].blobs.insert(blob, Blob::Manifest(manifest));
                self.soon(50, Happening::Tell { node, life, event });
            }
            Effect::RebuildWitnesses { round, .. } => {
                let event = Event::WitnessesRebuilt { round, witnesses: Some(self.chain.witnesses(round)) };
                self.soon(1_000, Happening::Tell { node, life, event });
            }
            Effect::Send { id, action } => self.soon(1_200, Happening::Execute { node, life, id, action }),
            Effect::SetMembers(_) | Effect::ForgetRoundsBefore(_) | Effect::Report(_) => {}
            Effect::Finished { .. } => self.nodes[node].finished = true,
        }
    }

    fn publish(&mut self, node: usize, message: RoundMessage) {
        if let RoundMessage::Result(result) = &message {
            self.checks.announce(result);
        }
        let signed = SignedRoundMessage { from: peer(node), message, signature: [node as u8; 64] };
        let life = self.nodes[node].life;
        self.soon(20, Happening::Tell { node, life, event: Event::Published(signed.clone()) });
        for other in 0..self.nodes.len() {
            if other == node || !self.connected(node, other) || self.chance(self.faults.drop) {
                continue;
            }
            let life = self.nodes[other].life;
            let delay_ms = self.delay_ms(self.faults.delay_ms);
            let copies = if self.chance(self.faults.duplicate) { 2 } else { 1 };
            for _ in 0..copies {
                self.soon(delay_ms, Happening::Tell { node: other, life, event: Event::Message(signed.clone()) });
            }
        }
    }

    fn fetch(&mut self, node: usize, blob: BlobHash, providers: &[psyche_messages::PeerKey], what: &Fetching) {
        let life = self.nodes[node].life;
        let served = (0..self.nodes.len())
            .filter(|other| providers.contains(&peer(*other)) && self.connected(node, *other))
            .find_map(|other| self.nodes[other].blobs.get(&blob).cloned());
        let served = if self.chance(self.faults.fail_fetch) { None } else { served };
        if let Some(blob_content) = &served {
            self.nodes[node].blobs.insert(blob, blob_content.clone());
        }
        let event = match (what, served) {
            (Fetching::Payload(_), Some(Blob::Payload(_))) => Event::Fetched { blob, outcome: FetchOutcome::Valid },
            (Fetching::Payload(_), _) => Event::Fetched { blob, outcome: FetchOutcome::Fault(FetchFault::Unavailable) },
            (Fetching::Manifest { .. }, Some(Blob::Manifest(manifest))) => {
                Event::ManifestFetched { blob, outcome: Ok(manifest) }
            }
            (Fetching::Manifest { .. }, _) => Event::ManifestFetched { blob, outcome: Err(FetchFault::Unavailable) },
        };
        let delay_ms = self.delay_ms(self.faults.delay_ms) * 2;
        self.soon(delay_ms, Happening::Tell { node, life, event });
    }

    fn execute(&mut self, node: usize, life: u32, id: SendId, action: &ChainAction) {
        let outcome = if self.chance(self.faults.fail_send) {
            SendOutcome::Failed
        } else {
            let outcome = self.chain.execute(node, action, self.now_ms);
            if verbose() {
                let state = self.chain.account.run_state();
                eprintln!("{:>7} chain: {} of node {node}: {outcome:?}, {state:?}", self.now_ms, action.purpose());
            }
            if outcome == SendOutcome::Confirmed {
                for other in 0..self.nodes.len() {
                    if !self.chance(self.faults.drop_state) {
                        let account = Arc::clone(&self.chain.account);
                        self.send_state(other, account);
                    }
                }
            }
            outcome
        };
        self.soon(800, Happening::Tell { node, life, event: Event::ChainSent { id, outcome } });
    }

    /// Queues a command for the trainer.
    fn command(&mut self, node: usize, effect: Effect) {
        if let Effect::Train { round, batch, .. } = &effect {
            self.checks.train(node, *round, *batch);
        }
        self.nodes[node].commands.push_back(effect);
        if self.nodes[node].commands.len() == 1 {
            self.start_command(node);
        }
    }

    fn start_command(&mut self, node: usize) {
        let most_ms = match self.nodes[node].commands.front() {
            Some(Effect::Train { .. }) => self.delay_ms(self.faults.training_ms).max(1_500),
            Some(Effect::LoadModel { .. }) => 4_000,
            Some(_) => 300,
            None => return,
        };
        self.nodes[node].ticket += 1;
        let (life, ticket) = (self.nodes[node].life, self.nodes[node].ticket);
        self.soon(most_ms, Happening::TrainerDone { node, life, ticket });
    }

    fn trainer_done(&mut self, node: usize, life: u32, ticket: u64) {
        if self.nodes[node].life != life || self.nodes[node].ticket != ticket {
            return;
        }
        let Some(command) = self.nodes[node].commands.pop_front() else { return };
        let event = self.outcome(node, command);
        self.start_command(node);
        if let Some(event) = event {
            self.soon(20, Happening::Tell { node, life, event });
        }
    }

    fn outcome(&mut self, node: usize, command: Effect) -> Option<Event> {
        match command {
            Effect::LoadModel { step, from } => {
                let others: Vec<_> = (0..self.nodes.len()).filter(|other| self.connected(node, *other)).collect();
                let served = |blob: &BlobHash| others.iter().find_map(|other| self.nodes[*other].blobs.get(blob).cloned());
                let Some(model) = Node::loaded(&from, served) else {
                    return Some(Event::ModelLoadFailed { reason: "nobody serves it".to_owned() });
                };
                let digest = model.digest();
                self.checks.hold(node, step, digest);
                self.nodes[node].model = Some((step.0, model));
                Some(Event::ModelLoaded { step, digest, source: ModelSource::Peers })
            }
            Effect::Train { round, .. } => {
                if self.nodes[node].cancelled == Some(round) {
                    return Some(Event::TrainingSkipped { round, reason: "cancelled".to_owned() });
                }
                let (_, model) = self.nodes[node].model.as_ref().expect("training needs parameters");
                let payload = toy::train(model, round, &address(node));
                let blob = BlobHash::of(&payload);
                self.nodes[node].blobs.insert(blob, Blob::Payload(payload));
                Some(Event::Trained { round, payload: blob, payload_len: PAYLOAD_LEN, loss: 1.0, tokens_per_second: 1.0 })
            }
            Effect::Apply { round, results, .. } => {
                self.checks.apply(node, round, &results);
                let payloads = results.iter().map(|result| match self.nodes[node].blobs.get(&result.payload) {
                    Some(Blob::Payload(payload)) => payload.clone(),
                    _ => panic!("node {node} applies a payload that it does not have"),
                });
                let payloads: Vec<_> = payloads.collect();
                let (step, model) = self.nodes[node].model.as_mut().expect("applying needs parameters");
                assert_eq!(*step + 1, round.step.0, "node {node} applies out of order");
                *step = round.step.0;
                model.apply(&payloads);
                let digest = model.digest();
                self.checks.hold(node, round.step, digest);
                Some(Event::Applied { round, digest })
            }
            Effect::TakeSnapshot { round } => {
                let (step, model) = self.nodes[node].model.clone().expect("a snapshot needs parameters");
                assert_eq!(step, round.step.0, "node {node} takes a snapshot of another step");
                let digest = model.digest();
                let index = BlobHash::of(format!("{model:?} {step}").as_bytes());
                self.nodes[node].blobs.insert(index, Blob::Snapshot(model));
                Some(Event::SnapshotReady(SnapshotAnnounced { round, digest, index, index_len: 10 }))
            }
            _ => None,
        }
    }
}
