//! The account's structures, field by field, padding included.
//!
//! Integers that encode enums or booleans are raw here; typed getters sit beside them.

use bytemuck::{Pod, Zeroable};

use super::{ClientState, FixedString, FixedVec, RunState};
use crate::Pubkey;
use crate::model::ModelRaw;

/// Most clients that one epoch, or the roster of all time, can hold.
pub const MAX_CLIENTS: usize = 256;
/// Epochs (steps of `next_active`) after which a member that has not come back may lose a roster place without points.
pub const ROSTER_IDLE_EPOCHS: u64 = 4;
/// Most witnesses that one round can hold.
pub const MAX_WITNESSES: usize = 32;
/// How many rounds the account remembers.
pub const STORED_ROUNDS: usize = 4;
/// Longest run id, in bytes.
pub const MAX_RUN_ID_LEN: usize = 32;
/// Longest client version, in bytes.
pub const MAX_CLIENT_VERSION_LEN: usize = 96;

/// What people read about a run. Its Borsh form is its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Metadata {
    /// Display name.
    pub name: FixedString<64>,
    /// A few sentences.
    pub description: FixedString<280>,
    /// Parameters of the model, for display.
    pub num_parameters: u64,
    /// Vocabulary of the model, for display.
    pub vocab_size: u64,
}

/// A run's rules. All times are seconds of the chain's clock. Its Borsh form is its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Config {
    /// Longest Warmup.
    pub warmup_time: u64,
    /// Length of Cooldown.
    pub cooldown_time: u64,
    /// Longest RoundTrain.
    pub max_round_train_time: u64,
    /// Length of RoundWitness.
    pub round_witness_time: u64,
    /// Tokens over which the global batch grows from start to end.
    pub global_batch_size_warmup_tokens: u64,
    /// When an epoch, counted from its Warmup, begins to end.
    pub epoch_time: u64,
    /// The run finishes at this step.
    pub total_steps: u32,
    /// Clients that an epoch needs to begin.
    pub init_min_clients: u16,
    /// Clients that an epoch needs to go on.
    pub min_clients: u16,
    /// Witnesses of a round; 0 means every client, at most 32.
    pub witness_nodes: u16,
    /// Samples of a round at the beginning.
    pub global_batch_size_start: u16,
    /// Samples of a round after the warm-up tokens.
    pub global_batch_size_end: u16,
    /// Share of clients that verify instead of training.
    pub verification_percent: u8,
    /// Seconds that WaitingForMembers lasts at least.
    pub waiting_for_members_extra_time: u8,
}

/// How far a run has come.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Progress {
    /// Epochs that have ended.
    pub epoch: u16,
    pub(crate) _pad: [u8; 2],
    /// The step in work, from 1.
    pub step: u32,
    /// First sample of the current epoch.
    pub epoch_start_data_index: u64,
}

impl Progress {
    /// Progress at these numbers.
    #[must_use]
    pub const fn new(epoch: u16, step: u32, epoch_start_data_index: u64) -> Self {
        Self { epoch, _pad: [0; 2], step, epoch_start_data_index }
    }
}

/// Who a client is. Two identities are the same client when their signers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct NodeIdentity {
    /// The key that signs the client's transactions.
    pub signer: Pubkey,
    /// The ed25519 key of the client's peer-to-peer identity.
    pub p2p_identity: Pubkey,
}

/// A client of the current epoch.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct EpochClient {
    /// Who it is.
    pub id: NodeIdentity,
    /// [`ClientState`] by number.
    pub state: u8,
    /// Its place in the roster, where a program of ours began the epoch; the deployed programs leave garbage here, so it
    /// is a hint and nothing more.
    pub(crate) roster_hint: u8,
    pub(crate) _pad: [u8; 2],
    /// Height of the round in which it left; 0 while it is here.
    pub exited_height: u32,
}

impl EpochClient {
    /// A healthy client.
    #[must_use]
    pub const fn new(id: NodeIdentity) -> Self {
        Self { id, state: ClientState::Healthy as u8, roster_hint: 0, _pad: [0; 2], exited_height: 0 }
    }

    /// Whether it takes part.
    #[must_use]
    pub const fn is_healthy(&self) -> bool {
        self.state == ClientState::Healthy as u8
    }

    /// Its state; a number without meaning reads as [`ClientState::Ejected`].
    #[must_use]
    pub fn client_state(&self) -> ClientState {
        ClientState::from_number(u32::from(self.state)).unwrap_or(ClientState::Ejected)
    }
}

/// A client that joined at least once.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct RosterClient {
    /// Who it is, with the peer-to-peer key of its latest join.
    pub id: NodeIdentity,
    pub(crate) unused: [u8; 8],
    /// Points earned in all epochs.
    pub earned: u64,
    /// Points lost by being ejected from epochs; they are deducted when points are claimed.
    pub slashed: u64,
    /// The epoch counter that its latest join was for.
    pub active: u64,
}

impl RosterClient {
    /// A client that joins for the first time.
    #[must_use]
    pub const fn new(id: NodeIdentity, active: u64) -> Self {
        Self { id, unused: [0; 8], earned: 0, slashed: 0, active }
    }

    /// Whether it has points on its account, of either kind.
    #[must_use]
    pub const fn has_points(&self) -> bool {
        self.earned != 0 || self.slashed != 0
    }
}

/// A claim of a place among a round's witnesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct WitnessProof {
    /// Position in the shuffled order.
    pub position: u64,
    /// Index into the epoch's clients.
    pub index: u64,
    /// 1 where the position makes a witness.
    pub witness: u8,
    pub(crate) _pad: [u8; 7],
}

impl WitnessProof {
    /// A proof with these fields.
    #[must_use]
    pub const fn new(position: u64, index: u64, witness: bool) -> Self {
        Self { position, index, witness: witness as u8, _pad: [0; 7] }
    }
}

/// A claim of a place in a round's committees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitteeProof {
    /// The committee.
    pub committee: super::Committee,
    /// Position in the shuffled order.
    pub position: u64,
    /// Index into the round's clients.
    pub index: u64,
}

/// A 1,024-bit Bloom filter with eight keys. Its Borsh form is its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Bloom {
    /// The starting values of the eight hashes.
    pub keys: [u64; 8],
    /// The bits, least significant first.
    pub bits: [u64; 16],
}

/// What a witness reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Witness {
    /// Its claim to be one.
    pub proof: WitnessProof,
    /// Whose results it received: digests of signer keys.
    pub participant_bloom: Bloom,
    /// Which results it received: commitments.
    pub broadcast_bloom: Bloom,
    /// Merkle root of the ordered commitments.
    pub broadcast_merkle: [u8; 32],
}

/// One round.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Round {
    /// Reports so far.
    pub witnesses: FixedVec<Witness, MAX_WITNESSES>,
    /// First sample of the round's global batch.
    pub data_index: u64,
    /// Seed of every selection in this round.
    pub random_seed: u64,
    /// Number of the round within its epoch, from 0.
    pub height: u32,
    /// How many clients the epoch had when the round began.
    pub clients_len: u16,
    /// Always 0.
    pub tie_breaker_tasks: u16,
}

/// Everything about the epoch in work.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct EpochState {
    /// A ring of rounds; `rounds_head` is the current one.
    pub rounds: [Round; STORED_ROUNDS],
    /// Clients in the roster's order when the epoch began.
    pub clients: FixedVec<EpochClient, MAX_CLIENTS>,
    /// Clients that left, in the order of leaving.
    pub exited_clients: FixedVec<EpochClient, MAX_CLIENTS>,
    /// Index of the current round.
    pub rounds_head: u32,
    /// First step of the epoch.
    pub start_step: u32,
    /// Step at which the epoch ends, 0 while that is open.
    pub last_step: u32,
    pub(crate) _pad: [u8; 4],
    /// When Warmup began.
    pub start_timestamp: u64,
    /// 1 until the first round has ended.
    pub first_round: u8,
    /// 1 in the first epoch after a pause.
    pub cold_start_epoch: u8,
    pub(crate) _pad_end: [u8; 6],
}

/// The run proper.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Coordinator {
    /// The run's name, unique per program.
    pub run_id: FixedString<MAX_RUN_ID_LEN>,
    /// [`RunState`] by number.
    pub run_state: u8,
    pub(crate) _pad: [u8; 7],
    /// What is trained, on what, and how.
    pub model: ModelRaw,
    /// The rules.
    pub config: Config,
    /// How far it has come.
    pub progress: Progress,
    /// The epoch in work.
    pub epoch_state: EpochState,
    /// When the current state began.
    pub run_state_start_unix_timestamp: u64,
    /// 1 when the owner wants a pause at the epoch's end.
    pub pending_pause: u8,
    pub(crate) _pad_end: [u8; 7],
}

/// Who joined, and what they earn.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct ClientsState {
    /// The roster. A place without points is given away once the roster is full and its holder has been gone for more than
    /// [`ROSTER_IDLE_EPOCHS`]; a place with points never is.
    pub clients: FixedVec<RosterClient, MAX_CLIENTS>,
    /// A client whose `active` equals this has joined for the next epoch.
    pub next_active: u64,
    /// Points shared by this epoch's finishers.
    pub current_earning_rate: u64,
    /// Points that each client ejected from this epoch loses; 0 where nobody is ejected.
    pub current_slashing_rate: u64,
    /// `current_earning_rate` of the next epoch.
    pub future_earning_rate: u64,
    /// `current_slashing_rate` of the next epoch.
    pub future_slashing_rate: u64,
}

/// The account's content between version and nonce.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct InstanceState {
    /// What people read.
    pub metadata: Metadata,
    /// The run.
    pub coordinator: Coordinator,
    /// The roster.
    pub clients_state: ClientsState,
    /// 1 until the epoch's Warmup has been noticed.
    pub is_warmup_first_tick: u8,
    /// 1 until the epoch's training has been noticed.
    pub is_training_first_tick: u8,
    /// The client version that the run wants.
    pub client_version: FixedString<MAX_CLIENT_VERSION_LEN>,
    pub(crate) _pad: [u8; 6],
}

impl Coordinator {
    /// What the run is doing; a number without meaning (impossible after loading) reads as Uninitialized, in
    /// which nothing can happen.
    #[must_use]
    pub fn state(&self) -> RunState {
        RunState::from_number(u32::from(self.run_state)).unwrap_or(RunState::Uninitialized)
    }
}
