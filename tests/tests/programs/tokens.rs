//! SPL tokens for the tests, through the token program itself.

use psyche_protocol::{Pubkey, ids};
use solana_instruction::Instruction;
use solana_keypair::Keypair;

use super::chain::{Chain, address, derive, key, metas};

const MINT_LEN: usize = 82;
const INITIALIZE_MINT_2: u8 = 20;
const MINT_TO: u8 = 7;
const APPROVE: u8 = 4;
const REVOKE: u8 = 5;
const SET_AUTHORITY: u8 = 6;
const CLOSE_ACCOUNT: u8 = 3;
const DECIMALS: u8 = 6;

/// The associated token account of `owner` for `mint`.
pub(crate) fn associated(owner: &Pubkey, mint: &Pubkey) -> Pubkey {
    derive(&[owner, &ids::TOKEN_PROGRAM, mint], &ids::ASSOCIATED_TOKEN_PROGRAM).0
}

fn token(accounts: &[(&str, Pubkey)], data: Vec<u8>) -> Instruction {
    Instruction { program_id: address(&ids::TOKEN_PROGRAM), accounts: metas(accounts), data }
}

/// A mint whose authority is `payer`.
pub(crate) fn create_mint(chain: &mut Chain, payer: &Keypair) -> Pubkey {
    let mint = chain.new_key();
    let lamports = chain.svm.minimum_balance_for_rent_exemption(MINT_LEN);
    let [from, to, owner] = [&key(payer), &key(&mint), &ids::TOKEN_PROGRAM].map(address);
    let create = solana_system_interface::instruction::create_account(&from, &to, lamports, MINT_LEN as u64, &owner);
    let data = [&[INITIALIZE_MINT_2, DECIMALS], &key(payer)[..], &[0]].concat();
    chain.accept(&[payer, &mint], &[create, token(&[("w", key(&mint))], data)]);
    key(&mint)
}

/// Creates the associated token account of `owner`.
pub(crate) fn create_associated(chain: &mut Chain, payer: &Keypair, owner: &Pubkey, mint: &Pubkey) -> Pubkey {
    let account = associated(owner, mint);
    let accounts =
        [("ws", key(payer)), ("w", account), ("", *owner), ("", *mint), ("", ids::SYSTEM_PROGRAM), ("", ids::TOKEN_PROGRAM)];
    let create = Instruction { program_id: address(&ids::ASSOCIATED_TOKEN_PROGRAM), accounts: metas(&accounts), data: vec![1] };
    chain.accept(&[payer], &[create]);
    account
}

pub(crate) fn mint_to(chain: &mut Chain, authority: &Keypair, mint: &Pubkey, account: &Pubkey, amount: u64) {
    let data = [&[MINT_TO][..], &amount.to_le_bytes()].concat();
    chain.accept(&[authority], &[token(&[("w", *mint), ("w", *account), ("s", key(authority))], data)]);
}

/// Lets `delegate` spend from `owner`'s account.
pub(crate) fn approve(chain: &mut Chain, owner: &Keypair, account: &Pubkey, delegate: &Pubkey) {
    let data = [&[APPROVE][..], &1u64.to_le_bytes()].concat();
    chain.accept(&[owner], &[token(&[("w", *account), ("", *delegate), ("s", key(owner))], data)]);
}

/// Takes back what [`approve`] gave.
pub(crate) fn revoke(chain: &mut Chain, owner: &Keypair, account: &Pubkey) {
    chain.accept(&[owner], &[token(&[("w", *account), ("s", key(owner))], vec![REVOKE])]);
}

/// Lets `closer` close `owner`'s account.
pub(crate) fn set_close_authority(chain: &mut Chain, owner: &Keypair, account: &Pubkey, closer: &Pubkey) {
    let data = [&[SET_AUTHORITY, CLOSE_ACCOUNT, 1][..], closer].concat();
    chain.accept(&[owner], &[token(&[("w", *account), ("s", key(owner))], data)]);
}

/// Tokens in an account.
pub(crate) fn amount(chain: &Chain, account: &Pubkey) -> u64 {
    chain.data(account).get(64..72).map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().unwrap()))
}
