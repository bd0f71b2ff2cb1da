//! Grants to join runs: a grantor (a run's join authority) permits a grantee, who may name keys that act for it.

use psyche_messages::{Address, ChainTime, Lamports};
use psyche_protocol::accounts::Authorization;
use psyche_protocol::ids;
use psyche_protocol::instruction::AuthorizationGranteeUpdateArgs;
use serde::Serialize;

use crate::addresses;
use crate::error::ChainError;
use crate::instructions::authorizer;
use crate::rpc::{AccountRead, Rpc};
use crate::run::RunInfo;
use crate::transaction::{Compute, Confirmed, Plan};
use crate::wallet::Wallet;
use crate::{Instruction, Signature};

/// As a grantee: everyone.
pub const EVERYONE: Address = Address(ids::SYSTEM_PROGRAM);
/// How long a grant with delegates stays after its grantor's last change, in seconds of the chain's clock.
const CLOSING_DELAY_S: i64 = 30 * 24 * 60 * 60;
/// Delegates that fit into one transaction beside everything else.
const DELEGATES_PER_TRANSACTION: usize = 25;

/// A grant as it is on chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
    /// When the grantor changed it last.
    pub grantor_updated: ChainTime,
    /// What its account holds, and gives back when it is closed.
    pub rent: Lamports,
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
            grantor_updated: ChainTime(found.grantor_update_unix_timestamp),
            rent: read.lamports,
        })
    }

    /// Whether `user` may join by it.
    #[must_use]
    pub fn lets_in(&self, user: Address) -> bool {
        self.active && self.concerns(user)
    }

    /// Whether `user` may join by it once it is active.
    #[must_use]
    pub fn concerns(&self, user: Address) -> bool {
        self.grantee == EVERYONE || self.grantee == user || self.delegates.contains(&user)
    }

    /// From when on it may be closed, once it is inactive: its delegates are left in peace for a while.
    #[must_use]
    pub const fn closable_from(&self) -> ChainTime {
        if self.delegates.is_empty() {
            ChainTime(i64::MIN)
        } else {
            ChainTime(self.grantor_updated.0.saturating_add(CLOSING_DELAY_S))
        }
    }
}

/// The grant of `grantor` to `grantee`, if there is one.
///
/// # Errors
/// [`ChainError`] where no endpoint answers or the account is no grant.
pub async fn authorization_read(rpc: &Rpc, grantor: Address, grantee: Address) -> Result<Option<Grant>, ChainError> {
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
    let instructions = match authorization_read(rpc, grantor, grantee).await? {
        Some(Grant { active: true, address, .. }) => return Ok(address),
        Some(_) => vec![activate],
        None => vec![authorizer::create(programs, grantor, grantee)?, activate],
    };
    let done = || async { Ok(authorization_read(rpc, grantor, grantee).await?.is_some_and(|grant| grant.active)) };
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
    let grantor = wallet.address();
    let instructions = [authorizer::set_active(rpc.programs(), grantor, grantee, active)?];
    let switched =
        || async { Ok(authorization_read(rpc, grantor, grantee).await?.is_some_and(|grant| grant.active == active)) };
    rpc.submit_to(&plan(wallet, "the change of the authorization", &instructions), switched).await
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
    let present = authorization_read(rpc, join_authority, grantee).await?;
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
    let mut expected = present.delegates;
    for (index, chunk) in chunks.into_iter().enumerate() {
        let args = AuthorizationGranteeUpdateArgs { delegates_clear: clear && index == 0, delegates_added: chunk };
        let instructions = [authorizer::delegate(rpc.programs(), join_authority, grantee, &args)?];
        if args.delegates_clear {
            expected.clear();
        }
        expected.extend(chunk.iter().copied().map(Address));
        let named = || async {
            Ok(authorization_read(rpc, join_authority, grantee).await?.is_some_and(|grant| grant.delegates == expected))
        };
        confirmed.push(rpc.submit_to(&plan(wallet, "the delegation", &instructions), named).await?);
    }
    Ok(confirmed)
}

/// What became of a grant that was to go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum AuthorizationDeleted {
    /// There was none.
    Absent,
    /// It is gone.
    Closed {
        /// What its account held; it went to the spill account.
        refunded: Lamports,
        /// The transaction, if it was ours.
        #[serde(serialize_with = "super::signature_text")]
        signature: Option<Signature>,
    },
    /// It lets nobody in any more. Its account stays for a while, since it names delegates.
    Deactivated {
        /// From when on it can be closed.
        closable_from: ChainTime,
        /// How many keys it names.
        delegates: usize,
        /// The transaction; `None` where it was inactive already.
        #[serde(serialize_with = "super::signature_text")]
        signature: Option<Signature>,
    },
}

/// Takes back the grant of `wallet` to `grantee`: it lets nobody in any more, and where the program's conditions allow it,
/// its account is closed in the same transaction. Its rent goes to `spill`, or to the wallet.
///
/// # Errors
/// [`ChainError`] of the transaction.
pub async fn authorization_delete(
    rpc: &Rpc,
    wallet: &Wallet,
    grantee: Address,
    spill: Option<Address>,
) -> Result<AuthorizationDeleted, ChainError> {
    let (programs, grantor) = (rpc.programs(), wallet.address());
    let Some(found) = authorization_read(rpc, grantor, grantee).await? else { return Ok(AuthorizationDeleted::Absent) };
    // Deactivating counts as a change, so a grant with delegates is closed by a later call.
    if found.delegates.is_empty() || !found.active && rpc.clock().await?.1 >= found.closable_from() {
        return authorization_close(rpc, wallet, grantee, spill).await;
    }
    let mut signature = None;
    let mut left = found;
    if left.active {
        let instructions = [authorizer::set_active(programs, grantor, grantee, false)?];
        let inactive = || async { Ok(authorization_read(rpc, grantor, grantee).await?.is_none_or(|grant| !grant.active)) };
        let submitted = rpc.submit_until(&plan(wallet, "the end of the authorization", &instructions), inactive).await?;
        signature = submitted.signature();
        match authorization_read(rpc, grantor, grantee).await? {
            Some(now) => left = now,
            None => return Ok(AuthorizationDeleted::Absent),
        }
    }
    let (closable_from, delegates) = (left.closable_from(), left.delegates.len());
    Ok(AuthorizationDeleted::Deactivated { closable_from, delegates, signature })
}

/// Closes the account of `wallet`'s grant to `grantee`, deactivating it first where it is active; its rent goes to `spill`, or
/// to the wallet.
///
/// # Errors
/// [`ChainError::Program`] with the authorizer's code 6001 where delegates keep it for a while; [`ChainError`] of the
/// transaction.
pub async fn authorization_close(
    rpc: &Rpc,
    wallet: &Wallet,
    grantee: Address,
    spill: Option<Address>,
) -> Result<AuthorizationDeleted, ChainError> {
    let (programs, grantor) = (rpc.programs(), wallet.address());
    let Some(found) = authorization_read(rpc, grantor, grantee).await? else { return Ok(AuthorizationDeleted::Absent) };
    let mut instructions = Vec::new();
    if found.active {
        instructions.push(authorizer::set_active(programs, grantor, grantee, false)?);
    }
    instructions.push(authorizer::close(programs, grantor, grantee, spill.unwrap_or(grantor))?);
    let gone = || async { Ok(authorization_read(rpc, grantor, grantee).await?.is_none()) };
    let submitted = rpc.submit_until(&plan(wallet, "the closing of the authorization", &instructions), gone).await?;
    Ok(AuthorizationDeleted::Closed { refunded: found.rent, signature: submitted.signature() })
}

fn plan<'a>(wallet: &'a Wallet, purpose: &'static str, instructions: &'a [Instruction]) -> Plan<'a> {
    Plan { purpose, payer: wallet, signers: &[], instructions, compute: Compute::Simulated }
}
