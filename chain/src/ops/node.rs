//! What a node says to its run.

use psyche_messages::{Address, PeerKey, Phase, Step};
use psyche_protocol::instruction::{CheckpointArgs, HealthCheckArgs, WarmupWitnessArgs, WitnessArgs};
use psyche_protocol::layout::{CoordinatorAccount, NodeIdentity};
use psyche_protocol::machine;
use psyche_protocol::model::Checkpoint;

use crate::error::ChainError;
use crate::instructions::coordinator;
use crate::rpc::Rpc;
use crate::run::{CoordinatorView, RunInfo};
use crate::transaction::{Compute, Confirmed, Plan, Submitted};
use crate::wallet::Wallet;
use crate::{Instruction, Signature};

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

/// How a tick came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TickOutcome {
    /// The run moved on.
    Moved {
        /// What it was doing.
        from: Phase,
        /// What it does now.
        to: Phase,
        /// The step in work now.
        step: Step,
        /// The transaction of ours that moved it; `None` where somebody else was faster.
        signature: Option<Signature>,
    },
    /// Its time has not come; nothing was sent.
    NothingToDo {
        /// What it goes on doing.
        phase: Phase,
        /// The step in work.
        step: Step,
    },
}

/// Moves `run` on where its time has come by the chain's clock. Where it has not, nothing is sent.
///
/// # Errors
/// [`ChainError`] of the transaction; a halted run refuses.
pub async fn tick(rpc: &Rpc, wallet: &Wallet, run: &RunInfo) -> Result<TickOutcome, ChainError> {
    let before = rpc.coordinator(run.account).await?;
    let (_slot, now) = rpc.clock().await?;
    if !before.account.halted() && machine::would_tick(&before.account, now.0).is_none() {
        return Ok(TickOutcome::NothingToDo { phase: before.phase(), step: before.step() });
    }
    let instructions = [coordinator::tick(rpc.programs(), run, wallet.address())?];
    let place = |view: &CoordinatorView| (view.phase(), view.epoch(), view.step());
    let moved = || async { Ok(place(&rpc.coordinator(run.account).await?) != place(&before)) };
    let submitted = rpc.submit_until(&plan(wallet, "the tick", &instructions), moved).await?;
    let after = rpc.coordinator(run.account).await?;
    Ok(if place(&after) == place(&before) {
        TickOutcome::NothingToDo { phase: after.phase(), step: after.step() }
    } else {
        TickOutcome::Moved { from: before.phase(), to: after.phase(), step: after.step(), signature: submitted.signature() }
    })
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

/// How naming a checkpoint came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointOutcome {
    /// The run names it now.
    Named {
        /// The transaction of ours that did it; `None` where it was done meanwhile.
        signature: Option<Signature>,
    },
    /// The run named it already; nothing was sent.
    AlreadyNamed,
    /// The program took the instruction and kept what it had: the kind does not fit the run's.
    Ignored {
        /// The transaction.
        signature: Option<Signature>,
    },
}

/// Names the run's newest checkpoint.
///
/// # Errors
/// [`ChainError`] of the transaction.
pub async fn checkpoint(
    rpc: &Rpc,
    wallet: &Wallet,
    run: &RunInfo,
    args: &CheckpointArgs,
) -> Result<CheckpointOutcome, ChainError> {
    let named = || async { Ok(names(&rpc.coordinator(run.account).await?.account, &args.checkpoint)) };
    if named().await? {
        return Ok(CheckpointOutcome::AlreadyNamed);
    }
    let instructions = [coordinator::checkpoint(rpc.programs(), run, wallet.address(), args)?];
    let signature = rpc.submit_until(&plan(wallet, "the checkpoint", &instructions), named).await?.signature();
    Ok(if named().await? { CheckpointOutcome::Named { signature } } else { CheckpointOutcome::Ignored { signature } })
}

/// Whether the run's weights are where `wanted` says; while its members hold them, whether they fall back to it.
#[must_use]
pub fn names(account: &CoordinatorAccount, wanted: &Checkpoint) -> bool {
    let found = account.state.coordinator.model.checkpoint.get();
    match (found, wanted) {
        (Some(Checkpoint::P2P(found)), Checkpoint::Hub(wanted)) => found == *wanted,
        (Some(Checkpoint::P2PGcs(found)), Checkpoint::Gcs(wanted)) => found == *wanted,
        (found, wanted) => found == Some(*wanted),
    }
}

async fn once(rpc: &Rpc, wallet: &Wallet, purpose: &'static str, instruction: Instruction) -> Result<Confirmed, ChainError> {
    rpc.submit(&plan(wallet, purpose, &[instruction])).await
}

fn plan<'a>(wallet: &'a Wallet, purpose: &'static str, instructions: &'a [Instruction]) -> Plan<'a> {
    Plan { purpose, payer: wallet, signers: &[], instructions, compute: Compute::Simulated }
}
