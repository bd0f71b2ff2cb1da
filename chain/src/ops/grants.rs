//! Grants to join runs: a grantor (a run's join authority) permits a grantee, who may name keys that act for it.

use psyche_messages::Address;
use psyche_protocol::accounts::Authorization;
use psyche_protocol::ids;
use psyche_protocol::instruction::AuthorizationGranteeUpdateArgs;

use crate::Instruction;
use crate::addresses;
use crate::error::ChainError;
use crate::instructions::authorizer;
use crate::rpc::{AccountRead, Rpc};
use crate::run::RunInfo;
use crate::transaction::{Compute, Confirmed, Plan};
use crate::wallet::Wallet;

/// As a grantee: everyone.
pub const EVERYONE: Address = Address(ids::SYSTEM_PROGRAM);
/// Delegates that fit into one transaction beside everything else.
const DELEGATES_PER_TRANSACTION: usize = 25;

/// A grant as it is on chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Its address.
    pub address: Address,
    /// Who permits.
    pub grantor: Address,
    /// Who is permitted; [`EVERYONE`] for all.
    pub grantee: Address,
    /// Whether it holds.
    pub active: bool,
    /// Keys that act for the grantee.
    pub delegates: Vec<Address>,
}

impl Grant {
    fn decode(address: Address, read: &AccountRead, authorizer: Address) -> Result<Self, ChainError> {
        let what = "authorization";
        if read.owner != authorizer {
            return Err(ChainError::AccountOwner { what, address, owner: read.owner });
        }
        let found =
            Authorization::decode(&read.data).map_err(|source| ChainError::AccountMalformed { what, address, source })?;
        Ok(Self {
            address,
            grantor: Address(found.grantor),
            grantee: Address(found.grantee),
            active: found.active,
            delegates: found.delegates.iter().copied().map(Address).collect(),
        })
    }

    /// Whether `user` may join by it.
    #[must_use]
    pub fn lets_in(&self, user: Address) -> bool {
        self.active && (self.grantee == EVERYONE || self.grantee == user || self.delegates.contains(&user))
    }
}

/// The grant of `grantor` to `grantee`, if there is one.
///
/// # Errors
/// [`ChainError`] where no endpoint answers or the account is no grant.
pub async fn grant(rpc: &Rpc, grantor: Address, grantee: Address) -> Result<Option<Grant>, ChainError> {
    let address = addresses::authorization(rpc.programs(), grantor, grantee);
    let read = rpc.account(address).await?;
    read.map(|read| Grant::decode(address, &read, rpc.programs().authorizer)).transpose()
}

/// The grants by which `user` could join, valid or not: `authorizer`'s if given, everyone's, the user's own.
pub(super) async fn candidates(
    rpc: &Rpc,
    run: &RunInfo,
    user: Address,
    authorizer: Option<Address>,
) -> Result<Vec<Grant>, ChainError> {
    let mut grantees: Vec<Address> = authorizer.into_iter().collect();
    for other in [EVERYONE, user] {
        if !grantees.contains(&other) {
            grantees.push(other);
        }
    }
    let programs = rpc.programs();
    let places: Vec<Address> =
        grantees.iter().map(|grantee| addresses::authorization(programs, run.join_authority, *grantee)).collect();
    let reads = rpc.accounts(&places).await?;
    let found = places.iter().zip(&reads).filter_map(|(place, read)| Some((place, read.as_ref()?)));
    found.map(|(place, read)| Grant::decode(*place, read, programs.authorizer)).collect()
}

/// The first grant by which `user` may join `run`: `authorizer`'s if given, then everyone's, then the user's own.
///
/// # Errors
/// [`ChainError`] where no endpoint answers.
pub async fn find_grant(
    rpc: &Rpc,
    run: &RunInfo,
    user: Address,
    authorizer: Option<Address>,
) -> Result<Option<Grant>, ChainError> {
    let candidates = candidates(rpc, run, user, authorizer).await?;
    Ok(candidates.into_iter().find(|grant| grant.lets_in(user)))
}

/// Lets `grantee` join every run whose join authority is `wallet`. Does what is still missing: creates the grant, activates
/// it, or nothing. Returns the grant's address.
///
/// # Errors
/// [`ChainError`] of the transaction.
pub async fn authorization_create(rpc: &Rpc, wallet: &Wallet, grantee: Address) -> Result<Address, ChainError> {
    let (programs, grantor) = (rpc.programs(), wallet.address());
    let activate = authorizer::set_active(programs, grantor, grantee, true)?;
    let instructions = match grant(rpc, grantor, grantee).await? {
        Some(Grant { active: true, address, .. }) => return Ok(address),
        Some(_) => vec![activate],
        None => vec![authorizer::create(programs, grantor, grantee)?, activate],
    };
    let done = || async { Ok(grant(rpc, grantor, grantee).await?.is_some_and(|grant| grant.active)) };
    rpc.submit_until(&plan(wallet, "the authorization", &instructions), done).await?;
    Ok(addresses::authorization(programs, grantor, grantee))
}

/// Switches an existing grant of `wallet` on or off.
///
/// # Errors
/// [`ChainError`] of the transaction.
pub async fn authorization_set_active(
    rpc: &Rpc,
    wallet: &Wallet,
    grantee: Address,
    active: bool,
) -> Result<Confirmed, ChainError> {
    let instructions = [authorizer::set_active(rpc.programs(), wallet.address(), grantee, active)?];
    rpc.submit(&plan(wallet, "the change of the authorization", &instructions)).await
}

/// Names keys that act for `wallet` under the grant of `join_authority`, after forgetting the present ones if `clear`. Keys
/// that are named already are not named twice.
///
/// # Errors
/// [`ChainError::AccountMissing`] without a grant; [`ChainError`] of the transactions.
pub async fn authorization_delegate(
    rpc: &Rpc,
    wallet: &Wallet,
    join_authority: Address,
    clear: bool,
    added: &[Address],
) -> Result<Vec<Confirmed>, ChainError> {
    let grantee = wallet.address();
    let address = addresses::authorization(rpc.programs(), join_authority, grantee);
    let present = grant(rpc, join_authority, grantee).await?;
    let present = present.ok_or(ChainError::AccountMissing { what: "authorization", address })?;
    let mut missing: Vec<[u8; 32]> = Vec::new();
    for key in added {
        if (clear || !present.delegates.contains(key)) && !missing.contains(&key.0) {
            missing.push(key.0);
        }
    }
    let mut chunks: Vec<&[[u8; 32]]> = missing.chunks(DELEGATES_PER_TRANSACTION).collect();
    if chunks.is_empty() && clear {
        chunks.push(&[]);
    }
    let mut confirmed = Vec::new();
    for (index, chunk) in chunks.into_iter().enumerate() {
        let args = AuthorizationGranteeUpdateArgs { delegates_clear: clear && index == 0, delegates_added: chunk };
        let instructions = [authorizer::delegate(rpc.programs(), join_authority, grantee, &args)?];
        confirmed.push(rpc.submit(&plan(wallet, "the delegation", &instructions)).await?);
    }
    Ok(confirmed)
}

fn plan<'a>(wallet: &'a Wallet, purpose: &'static str, instructions: &'a [Instruction]) -> Plan<'a> {
    Plan { purpose, payer: wallet, signers: &[], instructions, compute: Compute::Simulated }
}
