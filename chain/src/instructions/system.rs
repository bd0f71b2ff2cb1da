//! The system program's instructions.

use psyche_messages::{Address, Lamports};
use solana_instruction::Instruction;
use solana_system_interface::instruction;

use crate::convert::key;

/// Creates `new` with `len` bytes for the program `owner`. Both `payer` and `new` sign.
#[must_use]
pub fn create_account(payer: Address, new: Address, lamports: Lamports, len: u64, owner: Address) -> Instruction {
    instruction::create_account(&key(payer), &key(new), lamports.0, len, &key(owner))
}

/// Moves lamports.
#[must_use]
pub fn transfer(from: Address, to: Address, lamports: Lamports) -> Instruction {
    instruction::transfer(&key(from), &key(to), lamports.0)
}
