//! Puts a program onto a chain, or a new version of it, by transactions of the upgradeable loader.
//!
//! The bytes first go into a buffer account whose key follows from the wallet, the program and the bytes: an interrupted
//! deployment finds its buffer again, reads it back, and writes only what is missing.

use futures::StreamExt as _;
use futures::stream;
use psyche_messages::{Address, Lamports};
use sha2::{Digest as _, Sha256};
use solana_instruction::Instruction;
use solana_loader_v3_interface::instruction as loader;
use solana_loader_v3_interface::state::UpgradeableLoaderState as State;

use crate::addresses;
use crate::convert::key;
use crate::error::ChainError;
use crate::program_error::LOADER_V3;
use crate::rpc::{AccountRead, Rpc};
use crate::transaction::{Compute, Plan, Submitted};
use crate::wallet::Wallet;

/// Bytes of one write: with everything around them they fill a transaction.
const CHUNK_LEN: usize = 900;
/// Writes under way at once.
const WRITES: usize = 12;
/// How often the buffer is read back and completed before giving up.
const ROUNDS_MAX: u32 = 8;
/// Compute units of a write; the loader takes 2,370, the budget instructions 150 each.
const WRITE_COMPUTE: u32 = 5_000;
/// Longest program: an account's limit.
const ELF_LEN_MAX: usize = 10 * 1024 * 1024 - 45;
/// Bytes by which the chain lets a program grow at least.
const EXTENSION_MIN: usize = 10_240;

/// Which step of a deployment has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeployProgress {
    /// The chain holds exactly these bytes already; nothing is to be done.
    UpToDate,
    /// So many of the bytes are in the buffer.
    Written {
        /// Bytes in the buffer.
        bytes: usize,
        /// Bytes in all.
        total: usize,
    },
    /// The buffer is complete and becomes the program.
    Activating,
    /// The program is on the chain.
    Done,
}

/// Deploys `elf` as the program of the key `program`, or upgrades that program; `wallet` pays and is, or becomes, the
/// upgrade authority. `progress` hears of every step.
///
/// # Errors
/// [`ChainError::NotPossible`] for bytes that are no ELF or a program that somebody else controls; [`ChainError`] of the
/// transactions. Calling it again goes on where it stopped.
pub async fn deploy(
    rpc: &Rpc,
    wallet: &Wallet,
    program: &Wallet,
    elf: &[u8],
    progress: &(dyn Fn(DeployProgress) + Sync),
) -> Result<Address, ChainError> {
    let id = program.address();
    if elf.get(..4) != Some(b"\x7fELF".as_slice()) || elf.len() > ELF_LEN_MAX {
        return Err(refused("the bytes are no ELF of permissible size".into()));
    }
    let present = present_program(rpc, wallet, id).await?;
    if present.as_ref().is_some_and(|present| present.holds(elf)) {
        progress(DeployProgress::UpToDate);
        return Ok(id);
    }
    let buffer = Wallet::from_seed(&wallet.derive("deploy buffer", &[id.0, Sha256::digest(elf).into()].concat()));
    fill(rpc, wallet, &buffer, elf, progress).await?;
    progress(DeployProgress::Activating);
    match present {
        None => create(rpc, wallet, program, &buffer, elf).await?,
        Some(present) => upgrade(rpc, wallet, id, &buffer, elf, present.capacity()).await?,
    };
    if !deployed(rpc, wallet, id, elf).await? {
        return Err(refused("the chain does not hold the bytes that were deployed".into()));
    }
    progress(DeployProgress::Done);
    Ok(id)
}

const fn refused(reason: String) -> ChainError {
    ChainError::NotPossible { action: "deploy the program", reason }
}

/// The bytes of a program on the chain.
struct Present(AccountRead);

impl Present {
    fn bytes(&self) -> &[u8] {
        self.0.data.get(State::size_of_programdata_metadata()..).unwrap_or_default()
    }

    const fn capacity(&self) -> usize {
        self.0.data.len().saturating_sub(State::size_of_programdata_metadata())
    }

    /// Whether these are its bytes, but for zeros after them.
    fn holds(&self, elf: &[u8]) -> bool {
        let tail = self.bytes().strip_prefix(elf);
        tail.is_some_and(|tail| tail.iter().all(|byte| *byte == 0))
    }

    /// Layout: tag u32, slot u64, Option<Pubkey>.
    fn authority(&self) -> Option<Address> {
        let key: [u8; 32] = self.0.data.get(13..45)?.try_into().ok()?;
        (self.0.data.get(12) == Some(&1)).then_some(Address(key))
    }
}

/// The program at `id` if there is one, which `wallet` must control.
async fn present_program(rpc: &Rpc, wallet: &Wallet, id: Address) -> Result<Option<Present>, ChainError> {
    let Some(account) = rpc.account(id).await? else { return Ok(None) };
    if account.owner.0 != LOADER_V3 || !account.executable {
        return Err(refused(format!("{id} is taken by an account that is no upgradeable program")));
    }
    let address = addresses::program_data(id);
    let data = rpc.account(address).await?;
    let data = data.ok_or(ChainError::AccountMissing { what: "program's data", address })?;
    let present = Present(data);
    match present.authority() {
        Some(authority) if authority == wallet.address() => Ok(Some(present)),
        Some(authority) => Err(refused(format!("{id} is controlled by {authority}, not by {}", wallet.address()))),
        None => Err(refused(format!("{id} is final: nobody can upgrade it"))),
    }
}

/// Writes `elf` into the buffer, wherever it is not there yet.
async fn fill(
    rpc: &Rpc,
    wallet: &Wallet,
    buffer: &Wallet,
    elf: &[u8],
    progress: &(dyn Fn(DeployProgress) + Sync),
) -> Result<(), ChainError> {
    let total = elf.len();
    for _ in 0..ROUNDS_MAX {
        let written = buffered(rpc, wallet, buffer, total).await?;
        let missing: Vec<usize> = chunks(total).filter(|at| piece(&written, *at) != piece(elf, *at)).collect();
        let mut bytes = total - missing.iter().map(|at| piece(elf, *at).len()).sum::<usize>();
        progress(DeployProgress::Written { bytes, total });
        if missing.is_empty() {
            return Ok(());
        }
        let writes = missing.into_iter().map(|at| write(rpc, wallet, buffer.address(), at, piece(elf, at)));
        let mut writes = stream::iter(writes).buffer_unordered(WRITES);
        while let Some(result) = writes.next().await {
            match result {
                Ok(len) => bytes += len,
                // The next round finds out what did not arrive.
                Err(error) if !matches!(error.retry(), psyche_messages::Retry::Never) => continue,
                Err(error) => return Err(error),
            }
            progress(DeployProgress::Written { bytes, total });
        }
    }
    Err(refused(format!("the buffer {} could not be filled", buffer.address())))
}

fn chunks(total: usize) -> impl Iterator<Item = usize> {
    (0..total).step_by(CHUNK_LEN)
}

fn piece(bytes: &[u8], at: usize) -> &[u8] {
    bytes.get(at..bytes.len().min(at.saturating_add(CHUNK_LEN))).unwrap_or_default()
}

/// What the buffer holds; makes it where it is missing.
async fn buffered(rpc: &Rpc, wallet: &Wallet, buffer: &Wallet, len: usize) -> Result<Vec<u8>, ChainError> {
    let address = buffer.address();
    if let Some(account) = rpc.account(address).await? {
        if account.owner.0 != LOADER_V3 || account.data.len() != State::size_of_buffer(len) {
            return Err(refused(format!("the buffer {address} is in use for something else")));
        }
        return Ok(account.data.get(State::size_of_buffer_metadata()..).unwrap_or_default().to_vec());
    }
    let rent = rpc.rent_minimum(State::size_of_buffer(len)).await?;
    let (payer, buffer_key) = (key(wallet.address()), key(address));
    let create = loader::create_buffer(&payer, &buffer_key, &payer, rent.0, len).map_err(|_too_long| unbuilt())?;
    let made = async || Ok(rpc.account(address).await?.is_some());
    let signers = [buffer];
    rpc.submit_until(&plan(wallet, &signers, &create, Compute::Simulated), made).await?;
    Ok(vec![0; len])
}

const fn unbuilt() -> ChainError {
    ChainError::Build { purpose: "the deployment", reason: "the loader's instruction can't be encoded" }
}

async fn write(rpc: &Rpc, wallet: &Wallet, buffer: Address, at: usize, bytes: &[u8]) -> Result<usize, ChainError> {
    let offset = u32::try_from(at).map_err(|_too_long| unbuilt())?;
    let instructions = [loader::write(&key(buffer), &key(wallet.address()), offset, bytes.to_vec())];
    rpc.submit(&plan(wallet, &[], &instructions, Compute::Limit(WRITE_COMPUTE))).await?;
    Ok(bytes.len())
}

/// Whether the program at `id` is `elf` now.
async fn deployed(rpc: &Rpc, wallet: &Wallet, id: Address, elf: &[u8]) -> Result<bool, ChainError> {
    Ok(present_program(rpc, wallet, id).await?.is_some_and(|now| now.holds(elf)))
}

async fn create(rpc: &Rpc, wallet: &Wallet, program: &Wallet, buffer: &Wallet, elf: &[u8]) -> Result<Submitted, ChainError> {
    let Lamports(rent) = rpc.rent_minimum(State::size_of_program()).await?;
    let (payer, program_key, buffer_key) = (key(wallet.address()), key(program.address()), key(buffer.address()));
    let deploy = loader::deploy_with_max_program_len(&payer, &program_key, &buffer_key, &payer, rent, elf.len());
    let deploy = deploy.map_err(|_too_long| unbuilt())?;
    let signers = [program];
    let done = || deployed(rpc, wallet, program.address(), elf);
    rpc.submit_until(&plan(wallet, &signers, &deploy, Compute::Simulated), done).await
}

async fn upgrade(
    rpc: &Rpc,
    wallet: &Wallet,
    id: Address,
    buffer: &Wallet,
    elf: &[u8],
    capacity: usize,
) -> Result<Submitted, ChainError> {
    let (payer, address, id) = (key(wallet.address()), id, key(id));
    if let Some(more) = elf.len().checked_sub(capacity).filter(|more| *more > 0) {
        let more = u32::try_from(more.max(EXTENSION_MIN)).map_err(|_too_long| unbuilt())?;
        let extend = [loader::extend_program(&id, Some(&payer), more)];
        let grown = async || Ok(present_program(rpc, wallet, address).await?.is_some_and(|now| now.capacity() >= elf.len()));
        let extended = rpc.submit_to(&plan(wallet, &[], &extend, Compute::Simulated), grown).await?;
        // A program can't change twice in one slot.
        rpc.wait_for_slot(psyche_messages::Slot(extended.slot.0 + 2)).await?;
    }
    let upgrade = [loader::upgrade(&id, &key(buffer.address()), &payer, &payer)];
    let done = || deployed(rpc, wallet, address, elf);
    rpc.submit_until(&plan(wallet, &[], &upgrade, Compute::Simulated), done).await
}

fn plan<'a>(wallet: &'a Wallet, signers: &'a [&'a Wallet], instructions: &'a [Instruction], compute: Compute) -> Plan<'a> {
    Plan { purpose: "the deployment", payer: wallet, signers, instructions, compute }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_every_byte_once() {
        for total in [0, 1, CHUNK_LEN - 1, CHUNK_LEN, CHUNK_LEN + 1, 10 * CHUNK_LEN + 7] {
            let bytes: Vec<u8> = (0..total).map(|n| u8::try_from(n % 251).unwrap_or(0)).collect();
            let joined: Vec<u8> = chunks(total).flat_map(|at| piece(&bytes, at).to_vec()).collect();
            assert_eq!(joined, bytes);
        }
    }

    #[test]
    fn a_program_with_zeros_after_it_is_the_same_program() {
        let account = |tail: &[u8]| {
            let mut data = vec![0; State::size_of_programdata_metadata()];
            data.extend_from_slice(b"\x7fELF body");
            data.extend_from_slice(tail);
            let (slot, lamports) = (psyche_messages::Slot(1), Lamports(1));
            Present(AccountRead { slot, lamports, owner: Address(LOADER_V3), executable: false, data })
        };
        assert!(account(&[]).holds(b"\x7fELF body") && account(&[0, 0]).holds(b"\x7fELF body"));
        assert!(!account(&[1]).holds(b"\x7fELF body") && !account(&[]).holds(b"\x7fELF b0dy"));
        assert_eq!(account(&[]).authority(), None);
    }
}
