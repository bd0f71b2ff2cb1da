//! A desk: the account of a run, a clock that the test turns, and the engine of client 0. The other clients are played by
//! the test.

use std::sync::Arc;

use psyche_messages::events::ModelSource;
use psyche_messages::{
    Address, BlobHash, ChainTime, Digest, DigestAnnounced, NodeEvent, PeerKey, ResultAnnounced, RoundKey, RoundMessage,
    SignedRoundMessage, Slot, Step,
};
use psyche_protocol::F64Bits;
use psyche_protocol::instruction::UpdateArgs;
use psyche_protocol::keys::is_public_key;
use psyche_protocol::layout::*;
use psyche_protocol::machine::{self, Clock};
use psyche_protocol::model::*;
use psyche_protocol::select::{Selection, merkle_root, participant_item};

use crate::engine::rules::{self, BloomOf};
use crate::engine::{Effect, Engine, EngineConfig, Event, FetchOutcome, Lie, Now, Patience};

const START: i64 = 1_700_000_000;
pub(super) const PAYLOAD_LEN: u32 = 8;
pub(super) const RUN_TAG: Address = Address([200; 32]);
pub(super) const DIGEST: Digest = Digest([1; 32]);

pub(super) const fn address(client: u8) -> Address {
    Address([client + 1; 32])
}

/// A key that the run accepts.
pub(super) fn peer(client: u8) -> PeerKey {
    let mut key = [client + 101; 32];
    while !is_public_key(&key) {
        key[31] = key[31].wrapping_add(1);
    }
    PeerKey(key)
}

pub(super) struct Desk {
    pub(super) account: Box<CoordinatorAccount>,
    pub(super) engine: Engine,
    pub(super) now_ms: u64,
    pub(super) clients: u8,
}

pub(super) fn engine() -> Engine {
    engine_of(0)
}

/// Client 0 with an update log of its own, from its first step to its last.
pub(super) fn engine_with_log(log: (Step, Step)) -> Engine {
    Engine::new(EngineConfig { updates: Some(log), ..config_of(0) })
}

pub(super) fn engine_of(client: u8) -> Engine {
    Engine::new(config_of(client))
}

fn config_of(client: u8) -> EngineConfig {
    EngineConfig {
        me: address(client),
        peer: peer(client),
        run_tag: RUN_TAG,
        payload_len: PAYLOAD_LEN,
        manifest_len_max: 1 << 16,
        index_len_max: 1 << 16,
        disk: None,
        updates: None,
        keeps_checkpoints: false,
        checkpoint_repo: None,
        manifests: Vec::new(),
        updates_len_max: 1 << 20,
        patience: Patience::default(),
    }
}

impl Desk {
    /// A run of `clients` clients that waits for them.
    pub(super) fn new(clients: u8) -> Self {
        let mut account = CoordinatorAccount::zeroed_boxed();
        account.discriminator = CoordinatorAccount::DISCRIMINATOR;
        account.version = CoordinatorAccount::VERSION;
        let update = UpdateArgs { config: Some(config(clients)), model: Some(model()), ..UpdateArgs::default() };
        machine::update(&mut account, &update).unwrap();
        let mut desk = Self { account, engine: engine(), now_ms: 0, clients };
        let clock = desk.clock();
        machine::set_paused(&mut desk.account, false, &clock).unwrap();
        desk
    }

    /// As [`Desk::new`], in the first round, with the engine's parameters loaded and compared.
    pub(super) fn in_training(clients: u8) -> Self {
        let mut desk = Self::new(clients);
        for client in 0..clients {
            desk.join(client);
        }
        desk.pass_s(3);
        desk.tick();
        desk.show();
        desk.tell(Event::ModelLoaded { step: Step(0), digest: DIGEST, source: ModelSource::Checkpoint });
        for client in 1..clients {
            desk.hear(client, digest(RoundKey::new(0, 0), DIGEST));
        }
        for client in 0..clients {
            desk.ready(client);
        }
        assert_eq!(desk.account.run_state(), RunState::RoundTrain);
        desk
    }

    pub(super) fn clock(&self) -> Clock {
        Clock { unix_timestamp: START + (self.now_ms / 1_000) as i64, slot: self.now_ms / 400 }
    }

    pub(super) fn pass_s(&mut self, seconds: u64) {
        self.now_ms += seconds * 1_000;
    }

    pub(super) fn tell(&mut self, event: Event) -> Vec<Effect> {
        let now = Now { chain: ChainTime(self.clock().unix_timestamp), mono_ms: self.now_ms };
        self.engine.step(now, event)
    }

    /// The engine sees the account as it is.
    pub(super) fn show(&mut self) -> Vec<Effect> {
        let account = Arc::from(CoordinatorAccount::load_boxed(self.account.as_bytes()).unwrap());
        self.tell(Event::CoordinatorAdvanced { slot: Slot(self.clock().slot), account })
    }

    /// Time passes, and the engine hears its pulse.
    pub(super) fn wait_ms(&mut self, ms: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        let end_ms = self.now_ms + ms;
        while self.now_ms < end_ms {
            self.now_ms += 200;
            effects.extend(self.tell(Event::Timer));
        }
        effects
    }

    pub(super) fn hear(&mut self, client: u8, message: RoundMessage) -> Vec<Effect> {
        self.tell(Event::Message(SignedRoundMessage { from: peer(client), message, signature: [client; 64] }))
    }

    pub(super) fn join(&mut self, client: u8) {
        let identity = NodeIdentity { signer: address(client).0, p2p_identity: peer(client).0 };
        let clock = self.clock();
        machine::join_run(&mut self.account, &identity, &clock).unwrap();
    }

    pub(super) fn tick(&mut self) {
        let clock = self.clock();
        machine::tick(&mut self.account, &clock).unwrap();
    }

    /// The owner pauses the run, or resumes it.
    pub(super) fn set_paused(&mut self, paused: bool) {
        let clock = self.clock();
        machine::set_paused(&mut self.account, paused, &clock).unwrap();
    }

    /// Everyone joins, and the epoch's first round begins.
    pub(super) fn begin_epoch(&mut self) {
        for client in 0..self.clients {
            self.join(client);
        }
        self.pass_s(3);
        self.tick();
        for client in 0..self.clients {
            self.ready(client);
        }
        assert_eq!(self.account.run_state(), RunState::RoundTrain);
    }

    fn ready(&mut self, client: u8) {
        let index = self.account.client_index(&address(client).0).unwrap() as u64;
        let empty = Bloom::new([0; 8]);
        let witness = Witness {
            proof: WitnessProof::new(0, index, true),
            participant_bloom: empty,
            broadcast_bloom: empty,
            broadcast_merkle: [0; 32],
        };
        let clock = self.clock();
        machine::warmup_witness(&mut self.account, &address(client).0, &witness, &clock).unwrap();
    }

    pub(super) fn round(&self) -> RoundKey {
        let progress = &self.account.state.coordinator.progress;
        RoundKey::new(progress.epoch, progress.step)
    }

    /// The result that a client may announce in the round in work.
    pub(super) fn result(&self, client: u8) -> ResultAnnounced {
        let coordinator = &self.account.state.coordinator;
        let round = coordinator.epoch_state.current_round();
        let selection = Selection::of_round(round, &coordinator.config).unwrap();
        let index = self.account.client_index(&address(client).0).unwrap();
        ResultAnnounced {
            round: self.round(),
            trainer: address(client),
            batch: rules::batches(coordinator, round, &selection)[index].unwrap(),
            payload: BlobHash::of(&[client, self.round().step.0 as u8]),
            payload_len: PAYLOAD_LEN,
        }
    }

    /// The report of a client that accepted `results`, and heard from the trainers of these and from `others`.
    pub(super) fn report(&self, client: u8, results: &[ResultAnnounced], others: &[u8]) -> Witness {
        let round = self.account.current_round();
        let selection = Selection::of_round(round, &self.account.state.coordinator.config).unwrap();
        let index = self.account.client_index(&address(client).0).unwrap();
        let mut leaves: Vec<_> = results.iter().map(|result| (result.batch.start(), result.commitment(&RUN_TAG))).collect();
        leaves.sort_unstable();
        let leaves: Vec<_> = leaves.into_iter().map(|(_, leaf)| leaf).collect();
        let trainers = results.iter().map(|result| result.trainer).chain(others.iter().map(|other| address(*other)));
        let participants = trainers.map(|signer| participant_item(&signer.0));
        let me = address(client);
        Witness {
            proof: selection.witness_proof(index as u64).unwrap(),
            participant_bloom: rules::bloom(&me, self.round(), BloomOf::Participants, participants),
            broadcast_bloom: rules::bloom(&me, self.round(), BloomOf::Broadcasts, leaves.iter().copied()),
            broadcast_merkle: merkle_root(&leaves),
        }
    }

    pub(super) fn submit(&mut self, client: u8, witness: &Witness) {
        let clock = self.clock();
        machine::witness(&mut self.account, &address(client).0, witness, &clock).unwrap();
    }

    /// Every client reports `results`, and the next round begins.
    pub(super) fn next_round(&mut self, results: &[ResultAnnounced]) {
        let everyone: Vec<_> = (0..self.clients).collect();
        for client in 0..self.clients {
            let report = self.report(client, results, &everyone);
            self.submit(client, &report);
        }
        self.pass_s(2);
        self.tick();
    }

    /// The engine trains its batch of the round in work, and its result is announced.
    pub(super) fn train(&mut self) -> ResultAnnounced {
        let result = self.result(0);
        let (round, payload, payload_len) = (result.round, result.payload, result.payload_len);
        self.tell(Event::Trained { round, payload, payload_len, loss: 1.0, tokens_per_second: 1.0 });
        let message = RoundMessage::Result(result.clone());
        self.tell(Event::Published(SignedRoundMessage { from: peer(0), message, signature: [0; 64] }));
        result
    }

    /// A client's result of the round in work is announced and fetched.
    pub(super) fn receive(&mut self, client: u8) -> ResultAnnounced {
        let result = self.result(client);
        self.hear(client, RoundMessage::Result(result.clone()));
        self.tell(Event::Fetched { blob: result.payload, outcome: FetchOutcome::Valid });
        result
    }

    /// Everyone's results of the round in work.
    pub(super) fn exchange(&mut self) -> Vec<ResultAnnounced> {
        let mut results = vec![self.train()];
        for client in 1..self.clients {
            results.push(self.receive(client));
        }
        results
    }
}

pub(super) fn digest(round: RoundKey, digest: Digest) -> RoundMessage {
    RoundMessage::Digest(DigestAnnounced { round, results: 0, digest })
}

/// The transactions among `effects`, by what they are for.
pub(super) fn sent(effects: &[Effect]) -> Vec<&'static str> {
    let purpose = |effect: &Effect| if let Effect::Send { action, .. } = effect { Some(action.purpose()) } else { None };
    effects.iter().filter_map(purpose).collect()
}

/// The rounds that `effects` train.
pub(super) fn trained(effects: &[Effect]) -> Vec<RoundKey> {
    let round = |effect: &Effect| if let Effect::Train { round, .. } = effect { Some(*round) } else { None };
    effects.iter().filter_map(round).collect()
}

/// The rounds that `effects` apply, with how many results.
pub(super) fn applied(effects: &[Effect]) -> Vec<(RoundKey, usize)> {
    let apply = |effect: &Effect| match effect {
        Effect::Apply { round, results, .. } => Some((*round, results.len())),
        _ => None,
    };
    effects.iter().filter_map(apply).collect()
}

/// The blobs that `effects` fetch, with their lengths.
pub(super) fn fetched(effects: &[Effect]) -> Vec<(BlobHash, u32)> {
    let fetch = |effect: &Effect| if let Effect::Fetch { blob, len, .. } = effect { Some((*blob, *len)) } else { None };
    effects.iter().filter_map(fetch).collect()
}

/// Whom `effects` blame for what.
pub(super) fn blamed(effects: &[Effect]) -> Vec<(PeerKey, Lie)> {
    let blame = |effect: &Effect| if let Effect::Blame { peer, lie } = effect { Some((*peer, *lie)) } else { None };
    effects.iter().filter_map(blame).collect()
}

/// Whether `effects` warn with these words.
pub(super) fn warned(effects: &[Effect], words: &str) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Report(NodeEvent::Warning { message }) if message.contains(words)))
}

fn config(clients: u8) -> Config {
    Config {
        warmup_time: 30,
        cooldown_time: 5,
        max_round_train_time: 20,
        round_witness_time: 2,
        global_batch_size_warmup_tokens: 0,
        epoch_time: 1_000,
        total_steps: 100,
        init_min_clients: u16::from(clients),
        min_clients: 2,
        witness_nodes: 0,
        global_batch_size_start: 16,
        global_batch_size_end: 16,
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
