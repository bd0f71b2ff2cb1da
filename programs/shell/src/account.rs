//! Checks of single accounts. Each returns the code that Anchor's account types give.

use pinocchio::{
    AccountView, Address,
    account::{Ref, RefMut},
    error::ProgramError,
};
use pinocchio_token::state::{Account as TokenAccount, Mint};
use psyche_protocol::books::treasurer::Purse;
use psyche_protocol::{Pubkey, hash::sha256, ids};

use crate::{code, create::canonical_bump};

/// Length of the discriminator in front of every account and instruction, in bytes.
const DISCRIMINATOR_LEN: usize = 8;

/// `refusal` unless `holds`.
#[inline(always)]
pub fn ensure(holds: bool, refusal: ProgramError) -> Result<(), ProgramError> {
    if holds { Ok(()) } else { Err(refusal) }
}

/// The account signed the transaction (or was signed for by the calling program).
pub fn signer(account: &AccountView) -> Result<(), ProgramError> {
    ensure(account.is_signer(), code::ACCOUNT_NOT_SIGNER)
}

/// The account may be written to.
pub fn writable(account: &AccountView) -> Result<(), ProgramError> {
    ensure(account.is_writable(), code::CONSTRAINT_MUT)
}

/// The account is the executable program `id`.
pub fn program(account: &AccountView, id: &Pubkey) -> Result<(), ProgramError> {
    ensure(account.address().as_array() == id, code::INVALID_PROGRAM_ID)?;
    ensure(account.executable(), code::INVALID_PROGRAM_EXECUTABLE)
}

/// The account is the system program.
pub fn system_program(account: &AccountView) -> Result<(), ProgramError> {
    program(account, pinocchio_system::ID.as_array())
}

/// The account is the SPL token program.
pub fn token_program(account: &AccountView) -> Result<(), ProgramError> {
    program(account, pinocchio_token::ID.as_array())
}

/// The account exists and belongs to the program `owner`.
pub fn exists(account: &AccountView, owner: &Address) -> Result<(), ProgramError> {
    if account.owned_by(owner) {
        return Ok(());
    }
    let absent = account.lamports() == 0 && account.owned_by(&pinocchio_system::ID);
    Err(if absent { code::ACCOUNT_NOT_INITIALIZED } else { code::ACCOUNT_OWNED_BY_WRONG_PROGRAM })
}

/// What the chain appends to the seeds of a derived address.
const PDA_MARKER: &[u8] = b"ProgramDerivedAddress";
/// More seeds than any of our addresses has.
const SEEDS_MAX: usize = 5;

/// The account lies at the address that `seeds` and `bump` derive from `program`.
///
/// That no key belongs to the address was found out when the account was created.
pub fn derived(account: &AccountView, seeds: &[&[u8]], bump: u8, program: &Address) -> Result<(), ProgramError> {
    let bump = [bump];
    let ends: [&[u8]; 3] = [&bump, program.as_ref(), PDA_MARKER];
    let mut parts: [&[u8]; SEEDS_MAX + 3] = [&[]; SEEDS_MAX + 3];
    for (part, seed) in parts.iter_mut().zip(seeds.iter().chain(&ends)) {
        *part = seed;
    }
    ensure(account.address().as_array() == &sha256(&parts), code::CONSTRAINT_SEEDS)
}

/// The account's data starts with `discriminator`.
fn is_a(data: &[u8], discriminator: &[u8; DISCRIMINATOR_LEN]) -> Result<(), ProgramError> {
    let found = data.first_chunk::<DISCRIMINATOR_LEN>().ok_or(code::ACCOUNT_DISCRIMINATOR_NOT_FOUND)?;
    ensure(found == discriminator, code::ACCOUNT_DISCRIMINATOR_MISMATCH)
}

/// The data of an account of the program `owner` and of the type that `discriminator` names.
pub fn read<'a>(account: &'a AccountView, owner: &Address, discriminator: &[u8; 8]) -> Result<Ref<'a, [u8]>, ProgramError> {
    exists(account, owner)?;
    let data = account.try_borrow()?;
    is_a(&data, discriminator)?;
    Ok(data)
}

/// As [`read`], for writing.
pub fn write<'a>(
    account: &'a mut AccountView,
    owner: &Address,
    discriminator: &[u8; 8],
) -> Result<RefMut<'a, [u8]>, ProgramError> {
    exists(account, owner)?;
    let data = account.try_borrow_mut()?;
    is_a(&data, discriminator)?;
    Ok(data)
}

/// The account lies at the associated token address of `owner` for `mint`.
pub fn associated(account: &AccountView, owner: &Address, mint: &Pubkey) -> Result<(), ProgramError> {
    let seeds: [&[u8]; 3] = [owner.as_ref(), &ids::TOKEN_PROGRAM, mint];
    let program = Address::new_from_array(ids::ASSOCIATED_TOKEN_PROGRAM);
    canonical_bump(account, &seeds, &program).map_err(|_| code::CONSTRAINT_ASSOCIATED)?;
    Ok(())
}

/// The account is an initialised mint of the SPL token program.
pub fn mint(account: &AccountView) -> Result<(), ProgramError> {
    exists(account, &pinocchio_token::ID)?;
    let data = Mint::from_account_view(account)?;
    ensure(data.is_initialized(), ProgramError::UninitializedAccount)
}

/// Reads an initialised account of the SPL token program.
pub fn tokens(account: &AccountView) -> Result<Purse, ProgramError> {
    exists(account, &pinocchio_token::ID)?;
    let data = TokenAccount::from_account_view(account)?;
    ensure(data.is_initialized(), ProgramError::UninitializedAccount)?;
    Ok(Purse {
        mint: data.mint().to_bytes(),
        owner: data.owner().to_bytes(),
        has_delegate: data.has_delegate(),
        is_native: data.is_native(),
        close_authority: data.close_authority().map(|closer| closer.to_bytes()),
    })
}
