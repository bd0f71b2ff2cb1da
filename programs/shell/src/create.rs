//! Creation and growth of accounts that the programs own.

use core::mem::MaybeUninit;

use pinocchio::{
    AccountView, Address, ProgramResult, Resize,
    cpi::{Seed, Signer},
    error::ProgramError,
    sysvars::{get_sysvar_unchecked, rent::RENT_ID},
};
use pinocchio_system::instructions::{Allocate, Assign, CreateAccount, Transfer};

use crate::{account::ensure, code};

/// Bytes that the chain's rent counts beside an account's data.
const STORAGE_OVERHEAD: u64 = 128;
/// The longest account that the chain allows, in bytes.
const DATA_LEN_MAX: usize = 10 << 20;
/// Limits that the chain sets to the seeds of an address, the bump included.
const SEEDS_MAX: usize = 16;
const SEED_LEN_MAX: usize = 32;
/// The bits of 1.0 and 2.0 as f64: the only exemption thresholds that any cluster has had.
const THRESHOLD_ONE: u64 = 0x3ff0_0000_0000_0000;
const THRESHOLD_TWO: u64 = 0x4000_0000_0000_0000;

/// The balance that exempts an account of `len` bytes from rent, in lamports.
///
/// Clusters state the same price as 6,960 lamports × 1.0 or as 3,480 × 2.0, depending on their age.
pub fn rent_exempt_lamports(len: usize) -> Result<u64, ProgramError> {
    let mut rent = [0u8; 16];
    // SAFETY: `rent` has room for the 16 bytes asked for.
    unsafe { get_sysvar_unchecked(rent.as_mut_ptr(), &RENT_ID, 0, rent.len())? };
    let [price, threshold] = [0, 8].map(|at| u64::from_le_bytes(core::array::from_fn(|i| rent[at + i])));
    let years = match threshold {
        THRESHOLD_ONE => 1,
        THRESHOLD_TWO => 2,
        _ => return Err(ProgramError::UnsupportedSysvar),
    };
    // Far from overflow for every price that lets an account of the greatest length exist at all.
    ensure(len <= DATA_LEN_MAX && price <= u64::MAX >> 26, ProgramError::ArithmeticOverflow)?;
    Ok((STORAGE_OVERHEAD + len as u64) * price * years)
}

/// The canonical bump of a program-derived address.
///
/// Refuses with "constraint seeds" where the seeds give another address than the account's.
pub fn canonical_bump(account: &AccountView, seeds: &[&[u8]], program: &Address) -> Result<u8, ProgramError> {
    // The search would burn the whole compute budget on a seed that is too long for every bump.
    ensure(seeds.iter().all(|seed| seed.len() <= SEED_LEN_MAX), ProgramError::MaxSeedLengthExceeded)?;
    let (address, bump) = find(seeds, program).ok_or(ProgramError::InvalidSeeds)?;
    ensure(&address == account.address(), code::CONSTRAINT_SEEDS)?;
    Ok(bump)
}

#[cfg(any(target_os = "solana", target_arch = "bpf"))]
fn find(seeds: &[&[u8]], program: &Address) -> Option<(Address, u8)> {
    Address::try_find_program_address(seeds, program)
}

/// The search is a syscall: there is none to make on the host.
#[cfg(not(any(target_os = "solana", target_arch = "bpf")))]
fn find(_: &[&[u8]], _: &Address) -> Option<(Address, u8)> {
    None
}

/// The seeds of a program-derived address with its bump, as a signature of the program.
pub fn with_seeds<T>(seeds: &[&[u8]], bump: u8, sign: impl FnOnce(&Signer) -> T) -> T {
    let bump = [bump];
    let mut signed = [const { MaybeUninit::<Seed>::uninit() }; SEEDS_MAX];
    let count = seeds.len().min(SEEDS_MAX - 1);
    for (slot, seed) in signed.iter_mut().zip(&seeds[..count]) {
        slot.write(Seed::from(*seed));
    }
    signed[count].write(Seed::from(&bump));
    // SAFETY: the first `count` seeds and the bump behind them were just written.
    let signed = unsafe { core::slice::from_raw_parts(signed.as_ptr().cast::<Seed>(), count + 1) };
    sign(&Signer::from(signed))
}

/// Creates an account of `space` bytes at its canonical address, paid by `payer`, and returns the bump.
///
/// An address that somebody sent lamports to before is no obstacle; one in use is refused.
pub fn create_derived(
    account: &AccountView,
    payer: &AccountView,
    (program, seeds): (&Address, &[&[u8]]),
    space: usize,
) -> Result<u8, ProgramError> {
    let bump = canonical_bump(account, seeds, program)?;
    let in_use = !account.owned_by(&pinocchio_system::ID) || !account.is_data_empty();
    ensure(!in_use, code::ACCOUNT_ALREADY_IN_USE)?;
    let lamports = rent_exempt_lamports(space)?;
    let space = space as u64;
    with_seeds(seeds, bump, |signer| {
        let signers = core::slice::from_ref(signer);
        if account.lamports() == 0 {
            return CreateAccount { from: payer, to: account, lamports, space, owner: program }.invoke_signed(signers);
        }
        top_up(account, payer, lamports)?;
        Allocate { account, space }.invoke_signed(signers)?;
        Assign { account, owner: program }.invoke_signed(signers)
    })?;
    Ok(bump)
}

/// Sends what `account` lacks to hold `lamports`.
fn top_up(account: &AccountView, payer: &AccountView, lamports: u64) -> ProgramResult {
    match lamports.checked_sub(account.lamports()) {
        Some(missing) if missing > 0 => Transfer { from: payer, to: account, lamports: missing }.invoke(),
        _ => Ok(()),
    }
}

/// Changes the length of an account that the program owns. `payer` keeps it exempt from rent as it grows, and gets
/// back what it no longer needs as it shrinks.
pub fn resize(account: &mut AccountView, payer: &mut AccountView, len: usize) -> ProgramResult {
    let lamports = rent_exempt_lamports(len)?;
    if len > account.data_len() {
        top_up(account, payer, lamports)?;
    } else if let Some(surplus) = account.lamports().checked_sub(lamports) {
        move_lamports(account, payer, surplus)?;
    }
    account.resize(len)
}

/// Moves lamports out of an account that the program owns.
fn move_lamports(from: &mut AccountView, to: &mut AccountView, lamports: u64) -> ProgramResult {
    let left = from.lamports().checked_sub(lamports).ok_or(ProgramError::InsufficientFunds)?;
    let sum = to.lamports().checked_add(lamports).ok_or(ProgramError::ArithmeticOverflow)?;
    from.set_lamports(left);
    to.set_lamports(sum);
    Ok(())
}

/// Closes an account that the program owns; `spill` gets its lamports.
pub fn close(account: &mut AccountView, spill: &mut AccountView) -> ProgramResult {
    ensure(account.address() != spill.address(), code::CONSTRAINT_RAW)?;
    move_lamports(account, spill, account.lamports())?;
    // Length and owner go too, so that nothing can bring the account back within the same transaction.
    account.close()
}
