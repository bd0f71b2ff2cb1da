//! Closing a run: its accounts go, their rent comes back.

use psyche_messages::{Address, Lamports, RunId};
use serde::Serialize;

use super::obstacle::Obstacle;
use super::rewards::treasury_of;
use crate::Signature;
use crate::error::ChainError;
use crate::instructions::coordinator;
use crate::rpc::Rpc;
use crate::transaction::{Compute, Plan};
use crate::wallet::Wallet;

const ACTION: &str = "close the run";

/// A run that is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RunClosed {
    /// What its accounts held.
    pub refunded: Lamports,
    /// Who got it.
    pub spill: Address,
    /// The transaction; `None` where another one of ours had closed it when this one would have been signed anew.
    #[serde(serialize_with = "super::signature_text")]
    pub signature: Option<Signature>,
}

/// Closes the run `run_id`, which `wallet` must own and which must be halted. Its rent goes to `spill`, or to the wallet.
///
/// # Errors
/// [`ChainError::Obstructed`] for a run of a treasury, somebody else's, or one that is not halted; [`ChainError`] of the
/// transaction.
pub async fn close_run(rpc: &Rpc, wallet: &Wallet, run_id: &RunId, spill: Option<Address>) -> Result<RunClosed, ChainError> {
    let (run, view) = rpc.fetch_run(run_id).await?;
    let refuse = |obstacle| Err(ChainError::Obstructed { action: ACTION, obstacle });
    if let Some(treasury) = treasury_of(rpc, &run).await? {
        return refuse(Obstacle::TreasurerOwnsRun { treasury: treasury.run });
    }
    if run.main_authority != wallet.address() {
        return refuse(Obstacle::NotOwner { owner: run.main_authority, wallet: wallet.address() });
    }
    if !view.account.halted() {
        return refuse(Obstacle::NotHalted { phase: view.phase() });
    }
    let spill = spill.unwrap_or_else(|| wallet.address());
    let held = rpc.accounts(&[run.instance, run.account]).await?;
    let refunded = held.iter().flatten().map(|account| account.lamports.0).fold(0, u64::saturating_add);
    let instructions = [coordinator::free(rpc.programs(), &run, spill)?];
    let compute = Compute::Simulated;
    let plan = Plan { purpose: "the closing of the run", payer: wallet, signers: &[], instructions: &instructions, compute };
    let gone = || async { Ok(rpc.account(run.instance).await?.is_none()) };
    let signature = rpc.submit_until(&plan, gone).await?.signature();
    Ok(RunClosed { refunded: Lamports(refunded), spill, signature })
}
