//! Coordinator runs for the tests: instructions in the account order of the ABI, and a run to try them on.

use psyche_protocol::accounts::CoordinatorInstance;
use psyche_protocol::instruction::{
    Args, CheckpointArgs, FreeCoordinatorArgs, HealthCheckArgs, InitCoordinatorArgs, JoinRunArgs, SetFutureEpochRatesArgs,
    SetPausedArgs, TickArgs, UpdateArgs, UpdateClientVersionArgs, WarmupWitnessArgs, WitnessArgs, WitnessMetadata,
};
use psyche_protocol::layout::{Bloom, Config, CoordinatorAccount, FixedString, Metadata, NodeIdentity, Witness, WitnessProof};
use psyche_protocol::model::{Architecture, Checkpoint, DataLocation, DataType, HubRepo, Llm, LrSchedule, Model, Optimizer};
use psyche_protocol::select::{Selection, participant_item};
use psyche_protocol::{F32Bits, F64Bits, Pubkey, ids, pda};
use solana_instruction::Instruction;
use solana_keypair::Keypair;

use super::authorizer;
use super::chain::{Chain, address, derive, instruction, key};

/// The wanted client version of every test's run.
pub(crate) const VERSION: &str = "1.0.0";

pub(crate) fn instance_of(run_id: &str) -> (Pubkey, u8) {
    derive(&pda::coordinator_instance(run_id), &ids::COORDINATOR)
}

/// The creation of a coordinator account by the system program.
pub(crate) fn allocate(chain: &Chain, payer: &Keypair, account: &Keypair, len: usize) -> Instruction {
    let lamports = chain.svm.minimum_balance_for_rent_exemption(len);
    let [from, to, owner] = [&key(payer), &key(account), &ids::COORDINATOR].map(address);
    solana_system_interface::instruction::create_account(&from, &to, lamports, len as u64, &owner)
}

pub(crate) fn config() -> Config {
    Config {
        warmup_time: 20,
        cooldown_time: 5,
        max_round_train_time: 30,
        round_witness_time: 5,
        global_batch_size_warmup_tokens: 0,
        epoch_time: 600,
        total_steps: 50,
        init_min_clients: 3,
        min_clients: 2,
        witness_nodes: 2,
        global_batch_size_start: 16,
        global_batch_size_end: 16,
        verification_percent: 0,
        waiting_for_members_extra_time: 2,
    }
}

pub(crate) fn hub(name: &str) -> Checkpoint {
    Checkpoint::Hub(HubRepo { repo_id: FixedString::new(name).unwrap(), revision: None })
}

pub(crate) fn model() -> Model {
    Model::Llm(Llm {
        max_seq_len: 64,
        cold_start_warmup_steps: 0,
        architecture: Architecture::HfLlama,
        checkpoint: hub("someone/something"),
        data_type: DataType::Pretraining,
        data_location: DataLocation::Local(FixedString::new("data").unwrap()),
        lr_schedule: LrSchedule::Constant { base_lr: F64Bits(4e-4f64.to_bits()), warmup_init_lr: F64Bits(0), warmup_steps: 10 },
        optimizer: Optimizer::Distro {
            clip_grad_norm: Some(F32Bits(1f32.to_bits())),
            weight_decay: None,
            compression_decay: F32Bits(0.999f32.to_bits()),
            compression_topk: 8,
            compression_chunk: 64,
            quantize_1bit: true,
        },
    })
}

pub(crate) fn metadata() -> Metadata {
    Metadata {
        name: FixedString::new("a run").unwrap(),
        description: FixedString::new("for tests").unwrap(),
        num_parameters: 1,
        vocab_size: 2,
    }
}

/// Everything that a run needs before it can be resumed.
pub(crate) fn configuration(config: Config) -> UpdateArgs {
    UpdateArgs { metadata: Some(metadata()), config: Some(config), model: Some(model()), progress: None }
}

/// The accounts of one run.
#[derive(Clone)]
pub(crate) struct RunKeys {
    pub(crate) instance: Pubkey,
    pub(crate) account: Pubkey,
}

impl RunKeys {
    pub(crate) fn new(run_id: &str, account: Pubkey) -> Self {
        Self { instance: instance_of(run_id).0, account }
    }

    /// An instruction of the owner set or of the open set: signer, instance, account.
    pub(crate) fn by<'a>(&self, signer: &Pubkey, args: &impl Args<'a>) -> Instruction {
        let accounts = [("s", *signer), ("", self.instance), ("w", self.account)];
        instruction(&ids::COORDINATOR, args, &accounts)
    }

    pub(crate) fn init(&self, payer: &Pubkey, args: &InitCoordinatorArgs<'_>) -> Instruction {
        let accounts = [("ws", *payer), ("w", self.instance), ("w", self.account), ("", ids::SYSTEM_PROGRAM)];
        instruction(&ids::COORDINATOR, args, &accounts)
    }

    pub(crate) fn free(&self, owner: &Pubkey, spill: &Pubkey) -> Instruction {
        let accounts = [("s", *owner), ("w", *spill), ("w", self.instance), ("w", self.account)];
        instruction(&ids::COORDINATOR, &FreeCoordinatorArgs, &accounts)
    }

    pub(crate) fn update(&self, owner: &Pubkey, args: UpdateArgs) -> Instruction {
        self.by(owner, &args)
    }

    pub(crate) fn set_version(&self, owner: &Pubkey, client_version: &str) -> Instruction {
        self.by(owner, &UpdateClientVersionArgs { client_version })
    }

    pub(crate) fn set_rates(&self, owner: &Pubkey, earning: Option<u64>, slashing: Option<u64>) -> Instruction {
        let args = SetFutureEpochRatesArgs { earning_rate_total_shared: earning, slashing_rate_per_client: slashing };
        self.by(owner, &args)
    }

    pub(crate) fn set_paused(&self, owner: &Pubkey, paused: bool) -> Instruction {
        self.by(owner, &SetPausedArgs { paused })
    }

    pub(crate) fn tick(&self, user: &Pubkey) -> Instruction {
        self.by(user, &TickArgs)
    }

    pub(crate) fn join(&self, user: &Pubkey, authorization: &Pubkey, client: NodeIdentity) -> Instruction {
        let accounts = [("s", *user), ("", *authorization), ("", self.instance), ("w", self.account)];
        instruction(&ids::COORDINATOR, &JoinRunArgs { client }, &accounts)
    }

    pub(crate) fn warmup_witness(&self, user: &Pubkey, index: u64) -> Instruction {
        self.by(user, &WarmupWitnessArgs { witness: report(WitnessProof::new(0, index, true), &[]) })
    }

    pub(crate) fn witness(&self, user: &Pubkey, witness: Witness) -> Instruction {
        self.by(user, &WitnessArgs { witness, metadata: WitnessMetadata::new(1) })
    }

    pub(crate) fn checkpoint(&self, user: &Pubkey, checkpoint: Checkpoint) -> Instruction {
        self.by(user, &CheckpointArgs { checkpoint })
    }

    pub(crate) fn health_check(&self, user: &Pubkey, args: HealthCheckArgs) -> Instruction {
        self.by(user, &args)
    }
}

/// A client's identity, its peer-to-peer key made up from its signer.
pub(crate) fn node(user: &Pubkey) -> NodeIdentity {
    let mut p2p_identity = user.map(|byte| byte ^ 0x55);
    // Half of all byte strings are no key.
    while !psyche_protocol::keys::is_public_key(&p2p_identity) {
        p2p_identity[31] = p2p_identity[31].wrapping_add(1);
    }
    NodeIdentity { signer: *user, p2p_identity }
}

/// A witness report that heard `heard`.
pub(crate) fn report(proof: WitnessProof, heard: &[Pubkey]) -> Witness {
    let mut participant_bloom = Bloom::new([1, 2, 3, 4, 5, 6, 7, 8]);
    for signer in heard {
        participant_bloom.add(&participant_item(signer));
    }
    Witness { proof, participant_bloom, broadcast_bloom: Bloom::new([9; 8]), broadcast_merkle: [3; 32] }
}

/// The witnesses of the current round: (client index, proof) in client order.
pub(crate) fn witnesses(account: &CoordinatorAccount) -> Vec<(usize, WitnessProof)> {
    let selection = Selection::of_round(account.current_round(), &account.state.coordinator.config).unwrap();
    (0..selection.clients())
        .filter_map(|index| selection.witness_proof(index))
        .filter(|proof| proof.witness == 1)
        .map(|proof| (usize::try_from(proof.index).unwrap(), proof))
        .collect()
}

/// A run on a chain, owned by a wallet, that anyone may join.
pub(crate) struct Owned {
    pub(crate) chain: Chain,
    pub(crate) owner: Keypair,
    pub(crate) run: RunKeys,
    pub(crate) authorization: Pubkey,
    pub(crate) clients: Vec<Keypair>,
}

impl Owned {
    /// Created, not configured.
    pub(crate) fn created(mut chain: Chain, run_id: &str) -> Self {
        let [owner, account] = [chain.user(), chain.new_key()];
        let run = RunKeys::new(run_id, key(&account));
        let allocate = allocate(&chain, &owner, &account, CoordinatorAccount::SIZE);
        let init = run.init(&key(&owner), &init_args(&key(&owner), run_id));
        chain.accept(&[&owner, &account], &[allocate, init]);
        let everyone = ids::SYSTEM_PROGRAM;
        let (authorization, _) = authorizer::authorization_of(&key(&owner), &everyone);
        let create = authorizer::create(&owner, &key(&owner), &everyone);
        let activate = authorizer::set_active(&key(&owner), &everyone, true);
        chain.accept(&[&owner], &[create, activate]);
        let clients = (0..4).map(|_| chain.user()).collect();
        Self { chain, owner, run, authorization, clients }
    }

    /// Configured, resumed, waiting for members.
    pub(crate) fn waiting(config: Config) -> Self {
        let mut this = Self::created(Chain::new(), "a run");
        let owner = key(&this.owner);
        let update = this.run.update(&owner, configuration(config));
        let resume = this.run.set_paused(&owner, false);
        this.chain.accept(&[&this.owner], &[update, resume]);
        this
    }

    /// In Warmup with three clients.
    pub(crate) fn warming_up(config: Config) -> Self {
        let mut this = Self::waiting(config);
        for client in 0..3 {
            this.accept_join(client);
        }
        this.chain.advance(2);
        this.accept_tick();
        this
    }

    /// In the first RoundTrain with three clients.
    pub(crate) fn training(config: Config) -> Self {
        let mut this = Self::warming_up(config);
        this.chain.advance(i64::try_from(config.warmup_time).unwrap());
        this.accept_tick();
        this
    }

    pub(crate) fn state(&self) -> Box<CoordinatorAccount> {
        CoordinatorAccount::load_boxed(&self.chain.data(&self.run.account)).unwrap()
    }

    pub(crate) fn join(&self, client: usize) -> Instruction {
        let user = key(&self.clients[client]);
        self.run.join(&user, &self.authorization, node(&user))
    }

    pub(crate) fn accept_join(&mut self, client: usize) -> u64 {
        let join = self.join(client);
        self.chain.accept(&[&self.clients[client]], &[join])
    }

    pub(crate) fn accept_tick(&mut self) -> u64 {
        let tick = self.run.tick(&key(&self.clients[3]));
        self.chain.accept(&[&self.clients[3]], &[tick])
    }

    /// Position among the tests' wallets of a client of the epoch.
    pub(crate) fn wallet(&self, signer: &Pubkey) -> usize {
        self.clients.iter().position(|wallet| key(wallet) == *signer).unwrap()
    }

    /// Every witness of the round reports having heard the clients `heard`.
    pub(crate) fn accept_witnesses(&mut self, heard: &[usize]) -> u64 {
        let state = self.state();
        let heard: Vec<Pubkey> = heard.iter().map(|client| key(&self.clients[*client])).collect();
        let mut most = 0;
        for (index, proof) in witnesses(&state) {
            let sender = state.clients()[index].id.signer;
            let wallet = self.wallet(&sender);
            let witness = self.run.witness(&sender, report(proof, &heard));
            most = most.max(self.chain.accept(&[&self.clients[wallet]], &[witness]));
        }
        most
    }

    pub(crate) fn instance(&self) -> (u8, Pubkey, Pubkey, Pubkey, String) {
        let data = self.chain.data(&self.run.instance);
        assert_eq!(data.len(), CoordinatorInstance::SIZE);
        let found = CoordinatorInstance::decode(&data).unwrap();
        (found.bump, found.main_authority, found.join_authority, found.coordinator_account, found.run_id.to_owned())
    }
}

pub(crate) fn init_args<'a>(owner: &Pubkey, run_id: &'a str) -> InitCoordinatorArgs<'a> {
    InitCoordinatorArgs { main_authority: *owner, join_authority: *owner, run_id, client_version: VERSION }
}
