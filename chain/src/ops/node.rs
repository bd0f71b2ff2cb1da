//! What a node says to its run.

use psyche_messages::{Address, PeerKey};
use psyche_protocol::instruction::{CheckpointArgs, HealthCheckArgs, WarmupWitnessArgs, WitnessArgs};
use psyche_protocol::layout::NodeIdentity;

use crate::Instruction;
use crate::error::ChainError;
use crate::instructions::coordinator;
use crate::rpc::Rpc;
use crate::run::RunInfo;
use crate::transaction::{Compute, Confirmed, Plan, Submitted};
use crate::wallet::Wallet;

/// Joins `run` for its next epoch by the grant at `authorization` ([`super::find_grant`]).
///
/// # Errors
/// [`ChainError`] of the transaction.
pub async fn join_run(
    rpc: &Rpc,
    wallet: &Wallet,
    run: &RunInfo,
    authorization: Address,
    peer: PeerKey,
) -> Result<Submitted, ChainError> {
    let signer = wallet.address().0;
    let client = NodeIdentity { signer, p2p_identity: peer.0 };
    let instructions = [coordinator::join_run(rpc.programs(), run, authorization, client)?];
    let joined = || async { Ok(rpc.coordinator(run.account).await?.account.is_pending(&signer)) };
    rpc.submit_until(&plan(wallet, "the join", &instructions), joined).await
}

/// Moves `run` on where its time has come. Others may have done so first; then a program refuses, or nothing happens.
///
/// # Errors
/// [`ChainError`] of the transaction.
pub async fn tick(rpc: &Rpc, wallet: &Wallet, run: &RunInfo) -> Result<Confirmed, ChainError> {
    once(rpc, wallet, "the tick", coordinator::tick(rpc.programs(), run, wallet.address())?).await
}

/// Testifies to what was received in a round. Rounds are short, so it is signed once.
///
/// # Errors
/// [`ChainError`] of the transaction.
pub async fn witness(rpc: &Rpc, wallet: &Wallet, run: &RunInfo, args: &WitnessArgs) -> Result<Confirmed, ChainError> {
    let instruction = coordinator::witness(rpc.programs(), run, wallet.address(), args)?;
    once(rpc, wallet, "the witness statement", instruction).await
}

/// Testifies to being ready in Warmup.
///
/// # Errors
/// [`ChainError`] of the transaction.
pub async fn warmup_witness(
    rpc: &Rpc,
    wallet: &Wallet,
    run: &RunInfo,
    args: &WarmupWitnessArgs,
) -> Result<Confirmed, ChainError> {
    let instruction = coordinator::warmup_witness(rpc.programs(), run, wallet.address(), args)?;
    once(rpc, wallet, "the statement of being ready", instruction).await
}

/// Reports a client that does nothing.
///
/// # Errors
/// [`ChainError`] of the transaction.
pub async fn health_check(rpc: &Rpc, wallet: &Wallet, run: &RunInfo, args: &HealthCheckArgs) -> Result<Confirmed, ChainError> {
    let instruction = coordinator::health_check(rpc.programs(), run, wallet.address(), args)?;
    once(rpc, wallet, "the health check", instruction).await
}

/// Names the run's newest checkpoint.
///
/// # Errors
/// [`ChainError`] of the transaction.
pub async fn checkpoint(rpc: &Rpc, wallet: &Wallet, run: &RunInfo, args: &CheckpointArgs) -> Result<Confirmed, ChainError> {
    let instruction = coordinator::checkpoint(rpc.programs(), run, wallet.address(), args)?;
    once(rpc, wallet, "the checkpoint", instruction).await
}

async fn once(rpc: &Rpc, wallet: &Wallet, purpose: &'static str, instruction: Instruction) -> Result<Confirmed, ChainError> {
    rpc.submit(&plan(wallet, purpose, &[instruction])).await
}

fn plan<'a>(wallet: &'a Wallet, purpose: &'static str, instructions: &'a [Instruction]) -> Plan<'a> {
    Plan { purpose, payer: wallet, signers: &[], instructions, compute: Compute::Simulated }
}
