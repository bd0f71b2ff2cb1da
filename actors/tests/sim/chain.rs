//! The chain: the real state machine on one account.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use psyche_actors::engine::history::{Gap, Past};
use psyche_actors::engine::{ChainAction, SendOutcome};
use psyche_messages::{Address, ChainTime, Nonce, PeerKey, RoundKey, Slot, Step};
use psyche_protocol::F64Bits;
use psyche_protocol::instruction::{HealthCheckArgs, UpdateArgs};
use psyche_protocol::keys::is_public_key;
use psyche_protocol::layout::{
    Architecture, Config, CoordinatorAccount, DataType, FixedString, NodeIdentity, RunState, Witness,
};
use psyche_protocol::machine::{self, Clock};
use psyche_protocol::model::{Checkpoint, DataLocation, HubRepo, Llm, LrSchedule, Model, Optimizer};

const START: i64 = 1_700_000_000;

/// The chain with one run on it.
pub(crate) struct Chain {
    pub account: Arc<CoordinatorAccount>,
    /// All witnesses of every round that ever was, with the nonce of the state that showed them first.
    witnesses: BTreeMap<RoundKey, Vec<(Nonce, Witness)>>,
    /// How many clients every round had.
    clients: BTreeMap<RoundKey, usize>,
    /// What endpoints tell of the transactions that succeeded.
    history: Vec<Transaction>,
    /// The newest slot. Every transaction has one of its own, so that a state holds all up to the slot at which it is read.
    slot: u64,
}

/// A transaction of old, as endpoints tell it.
struct Transaction {
    slot: Slot,
    past: Past,
    /// The step that a report names. The program takes any.
    claimed: Option<Step>,
}

pub(crate) fn identity(node: usize) -> NodeIdentity {
    NodeIdentity { signer: address(node).0, p2p_identity: peer(node).0 }
}

pub(crate) const fn address(node: usize) -> Address {
    let mut address = [node as u8; 32];
    address[0] = 1;
    address[1] = (node >> 8) as u8;
    Address(address)
}

/// A key that the run accepts.
pub(crate) fn peer(node: usize) -> PeerKey {
    PEERS[node]
}

/// Most nodes of a simulation.
const NODES_MAX: usize = 256;

static PEERS: LazyLock<Vec<PeerKey>> = LazyLock::new(|| {
    let key = |node: usize| {
        let mut key = [node as u8; 32];
        key[0] = 100;
        while !is_public_key(&key) {
            key[31] = key[31].wrapping_add(1);
        }
        PeerKey(key)
    };
    (0..NODES_MAX).map(key).collect()
});

pub(crate) fn clock(now_ms: u64) -> Clock {
    Clock { unix_timestamp: time(now_ms).0, slot: 1_000 + now_ms / 400 }
}

pub(crate) const fn time(now_ms: u64) -> ChainTime {
    ChainTime(START + (now_ms / 1_000) as i64)
}

pub(crate) fn config(nodes: usize, witness_nodes: u16) -> Config {
    Config {
        warmup_time: 25,
        cooldown_time: 6,
        max_round_train_time: 16,
        round_witness_time: 2,
        global_batch_size_warmup_tokens: 128 * 200,
        epoch_time: 60,
        total_steps: 16,
        init_min_clients: nodes.min(3) as u16,
        min_clients: 2,
        witness_nodes,
        global_batch_size_start: nodes as u16,
        global_batch_size_end: 3 * nodes as u16 + 1,
        verification_percent: 0,
        waiting_for_members_extra_time: 3,
    }
}

fn model() -> Model {
    Model::Llm(Llm {
        max_seq_len: 128,
        cold_start_warmup_steps: 0,
        architecture: Architecture::HfLlama,
        checkpoint: Checkpoint::Hub(HubRepo { repo_id: FixedString::new("weights").unwrap(), revision: None }),
        data_type: DataType::Pretraining,
        data_location: DataLocation::Dummy,
        lr_schedule: LrSchedule::Constant { base_lr: F64Bits(1), warmup_init_lr: F64Bits(0), warmup_steps: 0 },
        optimizer: Optimizer::Distro {
            clip_grad_norm: None,
            weight_decay: None,
            compression_decay: psyche_protocol::F32Bits(0),
            compression_topk: 4,
            compression_chunk: 32,
            quantize_1bit: true,
        },
    })
}

impl Chain {
    /// A run that waits for members.
    pub(crate) fn new(config: Config) -> Self {
        let mut account = CoordinatorAccount::zeroed_boxed();
        account.discriminator = CoordinatorAccount::DISCRIMINATOR;
        account.version = CoordinatorAccount::VERSION;
        let update = UpdateArgs { config: Some(config), model: Some(model()), ..UpdateArgs::default() };
        machine::update(&mut account, &update).unwrap();
        machine::set_future_epoch_rates(&mut account, Some(EARNING_RATE), Some(SLASHING_RATE)).unwrap();
        machine::set_paused(&mut account, false, &clock(0)).unwrap();
        Self { account: account.into(), witnesses: BTreeMap::new(), clients: BTreeMap::new(), history: Vec::new(), slot: 0 }
    }

    /// Executes a transaction.
    pub(crate) fn execute(&mut self, node: usize, action: &ChainAction, now_ms: u64) -> SendOutcome {
        let mut account = (*self.account).clone_boxed();
        let (clock, from) = (clock(now_ms), address(node).0);
        let before = self.round();
        let outcome = match action {
            ChainAction::Join => machine::join_run(&mut account, &identity(node), &clock),
            ChainAction::Tick => machine::tick(&mut account, &clock),
            ChainAction::WarmupWitness(witness) => machine::warmup_witness(&mut account, &from, witness, &clock),
            ChainAction::Witness { witness, .. } => machine::witness(&mut account, &from, witness, &clock),
            ChainAction::Checkpoint(repo) => machine::checkpoint(&mut account, &from, &Checkpoint::Hub(*repo), &clock),
            ChainAction::HealthCheck { target, proof } => {
                let client = account.roster_client(&target.0).unwrap().id;
                machine::health_check(&mut account, &from, &HealthCheckArgs { client, proof: *proof }, &clock)
            }
        };
        if outcome.is_err() {
            return SendOutcome::Refused;
        }
        let (past, claimed) = match action {
            ChainAction::Witness { witness, metadata } => (Past::Witness(witness.clone()), Some(metadata.step)),
            _ => (Past::Other, None),
        };
        self.note(past, claimed, now_ms);
        if let (Some(round), ChainAction::Witness { witness, .. }) = (before, action) {
            self.witnesses.entry(round).or_default().push((Nonce(account.nonce), **witness));
        }
        self.account = account.into();
        if let Some(round) = self.round() {
            self.witnesses.entry(round).or_default();
            let clients = usize::from(self.account.current_round().clients_len);
            self.clients.insert(round, clients);
        }
        SendOutcome::Confirmed
    }

    fn note(&mut self, past: Past, claimed: Option<Step>, now_ms: u64) {
        self.slot = clock(now_ms).slot.max(self.slot + 1);
        self.history.push(Transaction { slot: Slot(self.slot), past, claimed });
    }

    /// The slot of a state that is read now.
    pub(crate) fn read_at(&mut self, now_ms: u64) -> Slot {
        self.slot = clock(now_ms).slot.max(self.slot);
        Slot(self.slot)
    }

    /// What endpoints tell of a gap.
    pub(crate) fn past(&self, gap: &Gap) -> Vec<Past> {
        let lies_in = |told: &&Transaction| gap.after.slot < told.slot && told.slot <= gap.until.slot;
        self.history.iter().filter(lies_in).map(|told| told.past.clone()).collect()
    }

    /// The reports that name the step of `round`, whenever they were made.
    pub(crate) fn claimed(&self, round: RoundKey) -> Vec<Witness> {
        let claims = |told: &&Transaction| told.claimed == Some(round.step);
        let report = |told: &Transaction| if let Past::Witness(witness) = &told.past { Some(**witness) } else { None };
        self.history.iter().filter(claims).filter_map(report).collect()
    }

    /// The owner pauses or resumes the run.
    pub(crate) fn set_paused(&mut self, paused: bool, now_ms: u64) {
        let mut account = (*self.account).clone_boxed();
        machine::set_paused(&mut account, paused, &clock(now_ms)).unwrap();
        self.account = account.into();
        self.note(Past::Other, None, now_ms);
    }

    /// The round in work.
    pub(crate) fn round(&self) -> Option<RoundKey> {
        let progress = &self.account.state.coordinator.progress;
        matches!(self.account.run_state(), RunState::RoundTrain | RunState::RoundWitness)
            .then(|| RoundKey::new(progress.epoch, progress.step))
    }

    /// Every round that ever was.
    pub(crate) fn rounds(&self) -> Vec<RoundKey> {
        self.witnesses.keys().copied().collect()
    }

    /// How many clients a round had.
    pub(crate) fn clients(&self, round: RoundKey) -> usize {
        self.clients.get(&round).copied().unwrap_or(0)
    }

    /// Whether a node is in the epoch, and healthy.
    pub(crate) fn is_client(&self, node: usize) -> bool {
        self.account.clients().iter().any(|client| client.id.signer == address(node).0 && client.is_healthy())
    }

    /// All witnesses of a round.
    pub(crate) fn witnesses(&self, round: RoundKey) -> Vec<Witness> {
        self.witnesses.get(&round).into_iter().flatten().map(|(_, witness)| *witness).collect()
    }

    /// Points that a node has earned and lost.
    pub(crate) fn points(&self, node: usize) -> (u64, u64) {
        self.account.roster_client(&address(node).0).map_or((0, 0), |member| (member.earned, member.slashed))
    }

    pub(crate) fn config(&self) -> &Config {
        &self.account.state.coordinator.config
    }
}

/// Points that the finishers of an epoch share, and that each ejected client loses.
pub(crate) const EARNING_RATE: u64 = 1_000;
pub(crate) const SLASHING_RATE: u64 = 50;

/// A copy on the heap without a detour over the stack.
trait CloneBoxed {
    fn clone_boxed(&self) -> Box<CoordinatorAccount>;
}

impl CloneBoxed for CoordinatorAccount {
    fn clone_boxed(&self) -> Box<CoordinatorAccount> {
        CoordinatorAccount::load_boxed(self.as_bytes()).unwrap()
    }
}
