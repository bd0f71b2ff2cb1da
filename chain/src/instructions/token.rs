//! Instructions of the SPL token program and of the associated token account program, as their bytes are documented.

use psyche_messages::{Address, Points};
use psyche_protocol::ids;
use solana_instruction::{AccountMeta, Instruction};

use super::{payer, read, signer, written};
use crate::addresses;
use crate::convert::key;

/// Bytes of a mint.
pub const MINT_LEN: usize = 82;

const INITIALIZE_MINT_2: u8 = 20;
const MINT_TO: u8 = 7;
const TRANSFER: u8 = 3;
const CREATE_IDEMPOTENT: u8 = 1;

fn token(accounts: Vec<AccountMeta>, data: Vec<u8>) -> Instruction {
    Instruction { program_id: key(Address(ids::TOKEN_PROGRAM)), accounts, data }
}

/// Makes the account `mint` (of [`MINT_LEN`] bytes, owned by the token program) a mint without freeze authority.
#[must_use]
pub fn initialize_mint(mint: Address, decimals: u8, authority: Address) -> Instruction {
    let mut data = vec![INITIALIZE_MINT_2, decimals];
    data.extend_from_slice(&authority.0);
    data.push(0);
    token(vec![written(mint)], data)
}

/// Mints `amount` base units into the token account `to`.
#[must_use]
pub fn mint_to(mint: Address, to: Address, authority: Address, amount: Points) -> Instruction {
    let mut data = vec![MINT_TO];
    data.extend_from_slice(&amount.0.to_le_bytes());
    token(vec![written(mint), written(to), signer(authority)], data)
}

/// Moves `amount` base units between token accounts; `owner` owns the first.
#[must_use]
pub fn transfer(from: Address, to: Address, owner: Address, amount: Points) -> Instruction {
    let mut data = vec![TRANSFER];
    data.extend_from_slice(&amount.0.to_le_bytes());
    token(vec![written(from), written(to), signer(owner)], data)
}

/// Creates `owner`'s associated token account for `mint` unless it exists.
#[must_use]
pub fn create_associated(payer_address: Address, owner: Address, mint: Address) -> Instruction {
    let accounts = vec![
        payer(payer_address),
        written(addresses::associated_token(owner, mint)),
        read(owner),
        read(mint),
        read(Address(ids::SYSTEM_PROGRAM)),
        read(Address(ids::TOKEN_PROGRAM)),
    ];
    let program_id = key(Address(ids::ASSOCIATED_TOKEN_PROGRAM));
    Instruction { program_id, accounts, data: vec![CREATE_IDEMPOTENT] }
}
