//! Instructions of the programs that a node speaks to (ABI section 1.3), with their accounts in the order that the programs
//! expect. Where the ABI leaves open whether an account is written, it is passed as writable: programs refuse too little,
//! never too much.

pub mod authorizer;
pub mod coordinator;
pub mod system;
pub mod token;
pub mod treasurer;

use psyche_messages::Address;
use psyche_protocol::instruction::Args;
use solana_instruction::{AccountMeta, Instruction};

use crate::convert::key;
use crate::error::ChainError;

const fn signer(address: Address) -> AccountMeta {
    AccountMeta { pubkey: key(address), is_signer: true, is_writable: false }
}

const fn payer(address: Address) -> AccountMeta {
    AccountMeta { pubkey: key(address), is_signer: true, is_writable: true }
}

const fn written(address: Address) -> AccountMeta {
    AccountMeta { pubkey: key(address), is_signer: false, is_writable: true }
}

const fn read(address: Address) -> AccountMeta {
    AccountMeta { pubkey: key(address), is_signer: false, is_writable: false }
}

fn build<'a, A: Args<'a>>(
    name: &'static str,
    program: Address,
    accounts: Vec<AccountMeta>,
    args: &A,
) -> Result<Instruction, ChainError> {
    let data = args.to_vec().map_err(|source| ChainError::Encode { instruction: name, source })?;
    Ok(Instruction { program_id: key(program), accounts, data })
}

#[cfg(test)]
mod tests;
