//! The coordinator account, used in place (ABI section 1.2).
//!
//! *Purpose*: one `repr(C)` structure of plain old data over the account's 119,160 bytes, explicit about every
//! padding byte. [`CoordinatorAccount::load`] checks length, discriminator, version, every list length and every
//! enum number once; afterwards no getter can fail or read out of range.

mod containers;
mod state;
mod tags;
mod validate;
mod view;

use core::fmt;
use core::mem::offset_of;

use bytemuck::{Pod, Zeroable};

pub use containers::{FixedString, FixedVec};
pub use state::*;
pub use tags::{Architecture, ClientState, Committee, DataType, RunState, TokenSize};

/// The account, byte for byte.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct CoordinatorAccount {
    /// [`CoordinatorAccount::DISCRIMINATOR`].
    pub discriminator: [u8; 8],
    /// [`CoordinatorAccount::VERSION`].
    pub version: u64,
    /// The content.
    pub state: InstanceState,
    /// Grows with every change but one (a new client version).
    pub nonce: u64,
}

/// What is wrong with an account's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayoutError {
    /// Offset of the offending bytes from the start of the account.
    pub offset: usize,
    /// The offence.
    pub what: LayoutFault,
}

/// The kinds of [`LayoutError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayoutFault {
    /// The account has another length.
    Size,
    /// The memory is not aligned to eight bytes; a copy helps (`load_boxed`).
    Alignment,
    /// Another kind of account.
    Discriminator,
    /// Another version of this account.
    Version,
    /// A list is longer than its capacity.
    Length,
    /// An enum number, option tag or boolean without meaning.
    Tag,
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.what {
            LayoutFault::Size => "wrong length",
            LayoutFault::Alignment => "unaligned memory",
            LayoutFault::Discriminator => "another kind of account",
            LayoutFault::Version => "another version",
            LayoutFault::Length => "list beyond its capacity",
            LayoutFault::Tag => "number without meaning",
        };
        write!(f, "read the coordinator account: {what} at offset {}", self.offset)
    }
}

impl core::error::Error for LayoutError {}

impl CoordinatorAccount {
    /// The account's length.
    pub const SIZE: usize = 119_160;
    /// First eight bytes of `sha256("account:CoordinatorAccount")`.
    pub const DISCRIMINATOR: [u8; 8] = [0xef, 0x21, 0xb1, 0x37, 0x2c, 0x9b, 0x56, 0x2b];
    /// The only version that these rules know.
    pub const VERSION: u64 = 1;

    /// The account in `data`, checked.
    ///
    /// # Errors
    /// [`LayoutError`] says where and what; [`LayoutFault::Alignment`] off chain calls for `load_boxed`.
    pub fn load(data: &[u8]) -> Result<&Self, LayoutError> {
        check_size(data)?;
        let account: &Self = bytemuck::try_from_bytes(data).map_err(|_| unaligned())?;
        account.validate()?;
        Ok(account)
    }

    /// The account in `data`, checked, to be changed in place.
    ///
    /// # Errors
    /// As [`CoordinatorAccount::load`].
    pub fn load_mut(data: &mut [u8]) -> Result<&mut Self, LayoutError> {
        check_size(data)?;
        let account: &mut Self = bytemuck::try_from_bytes_mut(data).map_err(|_| unaligned())?;
        account.validate()?;
        Ok(account)
    }

    /// A checked copy of the account in `data`, wherever that lies in memory.
    ///
    /// # Errors
    /// As [`CoordinatorAccount::load`], but never for alignment.
    #[cfg(not(any(target_os = "solana", target_arch = "bpf")))]
    pub fn load_boxed(data: &[u8]) -> Result<alloc::boxed::Box<Self>, LayoutError> {
        check_size(data)?;
        let mut account = Self::zeroed_boxed();
        bytemuck::bytes_of_mut(&mut *account).copy_from_slice(data);
        account.validate()?;
        Ok(account)
    }

    /// All zero bytes, on the heap without a detour over the stack.
    #[cfg(not(any(target_os = "solana", target_arch = "bpf")))]
    #[must_use]
    pub fn zeroed_boxed() -> alloc::boxed::Box<Self> {
        let layout = core::alloc::Layout::new::<Self>();
        // SAFETY: the layout has a size above zero, and zero bytes are a valid account as it is plain old data.
        unsafe {
            let memory = alloc::alloc::alloc_zeroed(layout).cast::<Self>();
            if memory.is_null() {
                alloc::alloc::handle_alloc_error(layout);
            }
            alloc::boxed::Box::from_raw(memory)
        }
    }

    /// The account's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        bytemuck::bytes_of(self)
    }
}

const fn unaligned() -> LayoutError {
    LayoutError { offset: 0, what: LayoutFault::Alignment }
}

const fn check_size(data: &[u8]) -> Result<(), LayoutError> {
    if data.len() == CoordinatorAccount::SIZE {
        Ok(())
    } else {
        Err(LayoutError { offset: data.len(), what: LayoutFault::Size })
    }
}

/// Asserts a field's offset at compile time.
macro_rules! at {
    ($($offset:literal: $type:ty, $($field:tt).+;)+) => {
        $(const _: () = assert!(offset_of!($type, $($field).+) == $offset);)+
    };
}

at! {
    0: CoordinatorAccount, discriminator;
    8: CoordinatorAccount, version;
    16: CoordinatorAccount, state.metadata.name;
    80: CoordinatorAccount, state.metadata.description;
    360: CoordinatorAccount, state.metadata.num_parameters;
    368: CoordinatorAccount, state.metadata.vocab_size;
    376: CoordinatorAccount, state.coordinator.run_id;
    408: CoordinatorAccount, state.coordinator.run_state;
    416: CoordinatorAccount, state.coordinator.model;
    424: CoordinatorAccount, state.coordinator.model.max_seq_len;
    428: CoordinatorAccount, state.coordinator.model.cold_start_warmup_steps;
    432: CoordinatorAccount, state.coordinator.model.architecture;
    436: CoordinatorAccount, state.coordinator.model.checkpoint.tag;
    440: CoordinatorAccount, state.coordinator.model.checkpoint.payload;
    572: CoordinatorAccount, state.coordinator.model.data_type;
    576: CoordinatorAccount, state.coordinator.model.data_location.tag;
    580: CoordinatorAccount, state.coordinator.model.data_location.payload;
    880: CoordinatorAccount, state.coordinator.model.lr_schedule.tag;
    888: CoordinatorAccount, state.coordinator.model.lr_schedule.payload;
    936: CoordinatorAccount, state.coordinator.model.optimizer.tag;
    940: CoordinatorAccount, state.coordinator.model.optimizer.payload;
    968: CoordinatorAccount, state.coordinator.config;
    1032: CoordinatorAccount, state.coordinator.progress.epoch;
    1036: CoordinatorAccount, state.coordinator.progress.step;
    1040: CoordinatorAccount, state.coordinator.progress.epoch_start_data_index;
    1048: CoordinatorAccount, state.coordinator.epoch_state.rounds;
    57_496: CoordinatorAccount, state.coordinator.epoch_state.clients;
    75_936: CoordinatorAccount, state.coordinator.epoch_state.exited_clients;
    94_376: CoordinatorAccount, state.coordinator.epoch_state.rounds_head;
    94_380: CoordinatorAccount, state.coordinator.epoch_state.start_step;
    94_384: CoordinatorAccount, state.coordinator.epoch_state.last_step;
    94_392: CoordinatorAccount, state.coordinator.epoch_state.start_timestamp;
    94_400: CoordinatorAccount, state.coordinator.epoch_state.first_round;
    94_401: CoordinatorAccount, state.coordinator.epoch_state.cold_start_epoch;
    94_408: CoordinatorAccount, state.coordinator.run_state_start_unix_timestamp;
    94_416: CoordinatorAccount, state.coordinator.pending_pause;
    94_424: CoordinatorAccount, state.clients_state.clients;
    119_008: CoordinatorAccount, state.clients_state.next_active;
    119_016: CoordinatorAccount, state.clients_state.current_earning_rate;
    119_024: CoordinatorAccount, state.clients_state.current_slashing_rate;
    119_032: CoordinatorAccount, state.clients_state.future_earning_rate;
    119_040: CoordinatorAccount, state.clients_state.future_slashing_rate;
    119_048: CoordinatorAccount, state.is_warmup_first_tick;
    119_049: CoordinatorAccount, state.is_training_first_tick;
    119_050: CoordinatorAccount, state.client_version;
    119_152: CoordinatorAccount, nonce;

    48: Config, total_steps;
    52: Config, init_min_clients;
    54: Config, min_clients;
    56: Config, witness_nodes;
    58: Config, global_batch_size_start;
    60: Config, global_batch_size_end;
    62: Config, verification_percent;
    63: Config, waiting_for_members_extra_time;

    14_088: Round, data_index;
    14_096: Round, random_seed;
    14_104: Round, height;
    14_108: Round, clients_len;
    14_110: Round, tie_breaker_tasks;

    8: Witness, proof.index;
    16: Witness, proof.witness;
    24: Witness, participant_bloom;
    216: Witness, broadcast_bloom;
    408: Witness, broadcast_merkle;

    64: EpochClient, state;
    68: EpochClient, exited_height;
    64: RosterClient, unused;
    72: RosterClient, earned;
    80: RosterClient, slashed;
    88: RosterClient, active;
}

const _: () = assert!(size_of::<CoordinatorAccount>() == CoordinatorAccount::SIZE);
const _: () = assert!(size_of::<Metadata>() == 360 && size_of::<Config>() == 64 && size_of::<Progress>() == 16);
const _: () = assert!(size_of::<Round>() == 14_112 && size_of::<Witness>() == 440 && size_of::<Bloom>() == 192);
const _: () = assert!(size_of::<EpochClient>() == 72 && size_of::<RosterClient>() == 96);
