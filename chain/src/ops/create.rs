//! Creating a run.

use psyche_messages::{Address, RunId};
use psyche_protocol::instruction::{InitCoordinatorArgs, RunCreateArgs};
use psyche_protocol::layout::CoordinatorAccount;

use crate::addresses;
use crate::error::ChainError;
use crate::instructions::{coordinator, system, treasurer};
use crate::rpc::Rpc;
use crate::run::RunInfo;
use crate::transaction::{Compute, Plan};
use crate::wallet::Wallet;

/// A run that does not exist yet.
#[derive(Clone, Debug)]
pub struct NewRun {
    /// Its name.
    pub run_id: RunId,
    /// The version that its clients must have.
    pub client_version: String,
    /// Whose grants let clients join; the creator's where it is `None`.
    pub join_authority: Option<Address>,
    /// Who pays for points, if anybody.
    pub treasury: Option<NewTreasury>,
}

/// The treasury of a new run.
#[derive(Clone, Copy, Debug)]
pub struct NewTreasury {
    /// The token that it pays.
    pub mint: Address,
    /// Its index; follows from the run's name where it is `None`.
    pub index: Option<u64>,
}

/// Creates a run that `wallet` pays for and owns, itself or through a treasury.
///
/// # Errors
/// [`ChainError::NotPossible`] if a run of this name exists; [`ChainError`] of the transaction.
pub async fn create_run(rpc: &Rpc, wallet: &Wallet, new: &NewRun) -> Result<RunInfo, ChainError> {
    let programs = rpc.programs();
    let instance = addresses::instance(programs, &new.run_id);
    if rpc.account(instance).await?.is_some() {
        let reason = format!("a run {:?} exists already", new.run_id.as_str());
        return Err(ChainError::NotPossible { action: "create the run", reason });
    }
    let (account, owner) = (Wallet::new(), wallet.address());
    let rent = rpc.rent_minimum(CoordinatorAccount::SIZE).await?;
    let len = CoordinatorAccount::SIZE as u64;
    let room = system::create_account(owner, account.address(), rent, len, programs.coordinator);
    let join_authority = new.join_authority.unwrap_or(owner);
    let (run_id, client_version) = (new.run_id.as_str(), new.client_version.as_str());
    let (main_authority, init) = match new.treasury {
        None => {
            let args =
                InitCoordinatorArgs { main_authority: owner.0, join_authority: join_authority.0, run_id, client_version };
            (owner, coordinator::init(programs, owner, instance, account.address(), &args)?)
        }
        Some(NewTreasury { mint, index }) => {
            let index = index.unwrap_or_else(|| addresses::treasurer_index(&new.run_id));
            let args =
                RunCreateArgs { index, run_id, client_version, main_authority: owner.0, join_authority: join_authority.0 };
            let treasury = addresses::treasury_run(programs, index);
            (treasury, treasurer::run_create(programs, owner, mint, instance, account.address(), &args)?)
        }
    };
    let (signers, instructions) = ([&account], [room, init]);
    let plan = Plan {
        purpose: "the creation of the run",
        payer: wallet,
        signers: &signers,
        instructions: &instructions,
        compute: Compute::Simulated,
    };
    let made = RunInfo { run_id: new.run_id.clone(), instance, account: account.address(), main_authority, join_authority };
    rpc.submit_until(&plan, || async { Ok(rpc.account(made.account).await?.is_some()) }).await?;
    Ok(made)
}
