//! A run on a desk: the account, a clock that the test turns, and clients that know the rules.
#![allow(clippy::unwrap_used, dead_code, reason = "tests may unwrap; not every test uses every helper")]

pub(crate) mod invariants;

use bytemuck::Zeroable;
use psyche_protocol::F64Bits;
use psyche_protocol::Pubkey;
use psyche_protocol::instruction::{HealthCheckArgs, UpdateArgs};
use psyche_protocol::keys::is_public_key;
use psyche_protocol::layout::*;
use psyche_protocol::machine::{self, Clock, CoordinatorError};
use psyche_protocol::model::*;
use psyche_protocol::select::{Selection, participant_item, unhealthy_clients};

pub(crate) const START: i64 = 1_700_000_000;

pub(crate) fn identity(client: u8) -> NodeIdentity {
    let mut p2p_identity = [0x80; 32];
    p2p_identity[0] = client;
    NodeIdentity { signer: [client; 32], p2p_identity: peer_key(p2p_identity) }
}

/// The next valid key after these bytes: half of all are none.
pub(crate) fn peer_key(mut bytes: Pubkey) -> Pubkey {
    while !is_public_key(&bytes) {
        bytes[31] = bytes[31].wrapping_add(1);
    }
    bytes
}

pub(crate) fn config() -> Config {
    Config {
        warmup_time: 30,
        cooldown_time: 5,
        max_round_train_time: 20,
        round_witness_time: 2,
        global_batch_size_warmup_tokens: 0,
        epoch_time: 100,
        total_steps: 1000,
        init_min_clients: 2,
        min_clients: 2,
        witness_nodes: 0,
        global_batch_size_start: 16,
        global_batch_size_end: 16,
        verification_percent: 0,
        waiting_for_members_extra_time: 3,
    }
}

pub(crate) fn model() -> Model {
    Model::Llm(Llm {
        max_seq_len: 128,
        cold_start_warmup_steps: 0,
        architecture: Architecture::HfLlama,
        checkpoint: Checkpoint::Hub(HubRepo { repo_id: FixedString::new("weights").unwrap(), revision: None }),
        data_type: DataType::Pretraining,
        data_location: DataLocation::Local(FixedString::new("data").unwrap()),
        lr_schedule: LrSchedule::Constant { base_lr: F64Bits(1e-3f64.to_bits()), warmup_init_lr: F64Bits(0), warmup_steps: 10 },
        optimizer: Optimizer::Distro {
            clip_grad_norm: None,
            weight_decay: None,
            compression_decay: psyche_protocol::F32Bits(0.999f32.to_bits()),
            compression_topk: 8,
            compression_chunk: 64,
            quantize_1bit: true,
        },
    })
}

pub(crate) struct Run {
    pub(crate) account: Box<CoordinatorAccount>,
    pub(crate) clock: Clock,
}

impl Run {
    /// A run that waits for members, with these rules.
    pub(crate) fn new(config: Config) -> Self {
        let mut run = Self::unconfigured();
        let update = UpdateArgs { config: Some(config), model: Some(model()), ..UpdateArgs::default() };
        machine::update(&mut run.account, &update).unwrap();
        machine::set_paused(&mut run.account, false, &run.clock).unwrap();
        assert_eq!(run.state(), RunState::WaitingForMembers);
        run
    }

    pub(crate) fn unconfigured() -> Self {
        let mut account = Box::new(CoordinatorAccount::zeroed());
        machine::init(bytemuck::bytes_of_mut(&mut *account), "a-run", "v1").unwrap();
        Self { account, clock: Clock { unix_timestamp: START, slot: 1000 } }
    }

    pub(crate) fn state(&self) -> RunState {
        self.account.run_state()
    }

    pub(crate) fn step(&self) -> u32 {
        self.account.state.coordinator.progress.step
    }

    pub(crate) fn wait(&mut self, seconds: i64) {
        self.clock.unix_timestamp += seconds;
        self.clock.slot += seconds.unsigned_abs() * 2;
    }

    /// Waits, then ticks.
    pub(crate) fn tick_after(&mut self, seconds: i64) -> RunState {
        self.wait(seconds);
        machine::tick(&mut self.account, &self.clock).unwrap();
        self.state()
    }

    pub(crate) fn join(&mut self, client: u8) -> Result<(), CoordinatorError> {
        machine::join_run(&mut self.account, &identity(client), &self.clock)
    }

    pub(crate) fn index(&self, client: u8) -> Option<u64> {
        self.account.client_index(&[client; 32]).map(|index| index as u64)
    }

    /// Everyone joins, and Warmup begins.
    pub(crate) fn warmup(&mut self, clients: &[u8]) {
        for client in clients {
            self.join(*client).unwrap();
        }
        if self.state() == RunState::WaitingForMembers {
            assert_eq!(self.tick_after(3), RunState::Warmup);
        }
        assert_eq!(self.state(), RunState::Warmup);
    }

    /// Everyone joins and is ready, and training begins.
    pub(crate) fn train(&mut self, clients: &[u8]) {
        self.warmup(clients);
        self.wait(1);
        for client in clients {
            self.ready(*client).unwrap();
        }
        assert_eq!(self.state(), RunState::RoundTrain);
    }

    pub(crate) fn ready(&mut self, client: u8) -> Result<(), CoordinatorError> {
        let index = self.index(client).unwrap_or(u64::MAX);
        let report = report(WitnessProof::new(0, index, true), &[]);
        machine::warmup_witness(&mut self.account, &[client; 32], &report, &self.clock)
    }

    /// The report of a client that heard from `heard`.
    pub(crate) fn report_of(&self, client: u8, heard: &[u8]) -> Witness {
        let selection = Selection::of_round(self.account.current_round(), &self.account.state.coordinator.config).unwrap();
        let proof = selection.witness_proof(self.index(client).unwrap()).unwrap();
        report(proof, heard)
    }

    pub(crate) fn witness(&mut self, client: u8, heard: &[u8]) -> Result<(), CoordinatorError> {
        let report = self.report_of(client, heard);
        machine::witness(&mut self.account, &[client; 32], &report, &self.clock)
    }

    /// One round in which `present` train and witness, having heard `present`.
    pub(crate) fn round(&mut self, present: &[u8]) -> RunState {
        self.wait(4);
        for client in present {
            self.witness(*client, present).unwrap();
        }
        if self.state() == RunState::RoundTrain {
            assert_eq!(self.tick_after(20), RunState::RoundWitness);
        }
        self.tick_after(2)
    }

    /// Sends every health check that is due, from `client`.
    pub(crate) fn health_checks(&mut self, client: u8) -> usize {
        let due: Vec<_> = unhealthy_clients(&self.account.state.coordinator).collect();
        for (id, proof) in &due {
            let args = HealthCheckArgs { client: *id, proof: *proof };
            machine::health_check(&mut self.account, &[client; 32], &args, &self.clock).unwrap();
        }
        due.len()
    }

    pub(crate) fn earned(&self, client: u8) -> u64 {
        self.account.roster_client(&[client; 32]).map_or(0, |member| member.earned)
    }

    pub(crate) fn slashed(&self, client: u8) -> u64 {
        self.account.roster_client(&[client; 32]).map_or(0, |member| member.slashed)
    }

    pub(crate) fn send_checkpoint(&mut self, client: u8, checkpoint: &Checkpoint) -> Result<(), CoordinatorError> {
        machine::checkpoint(&mut self.account, &[client; 32], checkpoint, &self.clock)
    }

    pub(crate) fn set_paused(&mut self, paused: bool) -> Result<(), CoordinatorError> {
        machine::set_paused(&mut self.account, paused, &self.clock)
    }

    pub(crate) fn checkpoint(&self) -> Checkpoint {
        self.account.state.coordinator.model.get().unwrap().llm().checkpoint
    }
}

pub(crate) fn report(proof: WitnessProof, heard: &[u8]) -> Witness {
    let mut participant_bloom = Bloom::new([1, 2, 3, 4, 5, 6, 7, 8]);
    for client in heard {
        let signer: Pubkey = [*client; 32];
        participant_bloom.add(&participant_item(&signer));
    }
    let broadcast_bloom = Bloom::new([9, 10, 11, 12, 13, 14, 15, 16]);
    Witness { proof, participant_bloom, broadcast_bloom, broadcast_merkle: [7; 32] }
}
