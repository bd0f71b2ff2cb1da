//! The rules of a training run, as bytes and as pure functions.
//!
//! *Purpose*: everything that the on-chain programs and every node must agree on to the bit, in one crate that
//! both compile: account layouts, Borsh arguments, program addresses' seeds, the state machine, and the
//! deterministic selections (witnesses, committees, batches).
//!
//! *Rules of the house*: `no_std`; nothing that runs on chain allocates; no floats (learning rates and the like
//! are carried as [`F32Bits`] and [`F64Bits`]); no input, however hostile, causes a panic; and nothing that
//! LLVM's BPF back end lacks is used (128-bit products go through [`num::wide_mul`]).
//!
//! | Module | What it holds |
//! |---|---|
//! | [`ids`] | program ids, the join scope |
//! | [`layout`] | the 119,160-byte coordinator account, used in place |
//! | [`model`] | typed model description, to and from the raw layout and Borsh |
//! | [`accounts`] | the Borsh accounts: instance, authorization, treasury run, participant |
//! | [`pda`] | seeds of every derived address |
//! | [`instruction`] | discriminators and arguments of every instruction |
//! | [`books`] | the state machines of the authorizer and the treasurer |
//! | [`machine`] | the state machine: one function per instruction, and what a tick would do |
//! | [`select`] | seeds, shuffle, committees, witnesses, batch assignment, blooms, quorum, Merkle root, health |
//! | [`codec`] | bounded Borsh reading and writing |
//! | [`hash`] | SHA-256: a syscall on chain, a crate elsewhere |
//! | [`keys`] | which peer-to-peer keys are keys at all |
#![no_std]
#![allow(unexpected_cfgs, reason = "target_os = \"solana\" is known to the official toolchain only")]

#[cfg(not(target_endian = "little"))]
compile_error!("account bytes are little-endian and used in place");

#[cfg(not(any(target_os = "solana", target_arch = "bpf")))]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod accounts;
pub mod books;
pub mod codec;
pub mod hash;
pub mod ids;
pub mod instruction;
pub mod keys;
pub mod layout;
pub mod machine;
pub mod model;
pub mod num;
pub mod pda;
pub mod select;

pub use num::{F32Bits, F64Bits};

/// A public key or program address: 32 bytes.
pub type Pubkey = [u8; 32];
