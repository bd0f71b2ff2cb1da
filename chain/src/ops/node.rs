//! What a node says to its run.

use psyche_messages::{Address, PeerKey, Phase, Step};
use psyche_protocol::instruction::{CheckpointArgs, HealthCheckArgs, WarmupWitnessArgs, WitnessArgs};
use psyche_protocol::layout::NodeIdentity;
use psyche_protocol::machine;

use super::effect::{Effect, Place, names};
use crate::error::ChainError;
use crate::instructions::coordinator;
use crate::rpc::Rpc;
use crate::run::RunInfo;
use crate::transaction::{Compute, Plan, Submitted};
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
    until(rpc, wallet, run, "the join", &instructions, &Effect::Joined(wallet.address())).await
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
    let moved = Effect::Moved(Place::of(&before.account));
    let submitted = until(rpc, wallet, run, "the tick", &instructions, &moved).await?;
    let after = rpc.coordinator(run.account).await?;
    Ok(if moved.is_there(&after.account) {
        TickOutcome::Moved { from: before.phase(), to: after.phase(), step: after.step(), signature: submitted.signature() }
    } else {
        TickOutcome::NothingToDo { phase: after.phase(), step: after.step() }
    })
}

/// Testifies to what was received in the round that `run` is in.
///
/// # Errors
/// [`ChainError`] of the transaction.
pub async fn witness(rpc: &Rpc, wallet: &Wallet, run: &RunInfo, args: &WitnessArgs) -> Result<Submitted, ChainError> {
    let instructions = [coordinator::witness(rpc.programs(), run, wallet.address(), args)?];
    let step = rpc.coordinator(run.account).await?.step();
    let said = Effect::Witnessed { index: args.witness.proof.index, step };
    until(rpc, wallet, run, "the witness statement", &instructions, &said).await
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
) -> Result<Submitted, ChainError> {
    let instructions = [coordinator::warmup_witness(rpc.programs(), run, wallet.address(), args)?];
    let said = Effect::ready(&rpc.coordinator(run.account).await?.account, &args.witness);
    until(rpc, wallet, run, "the statement of being ready", &instructions, &said).await
}

/// Reports a client that does nothing.
///
/// # Errors
/// [`ChainError`] of the transaction.
pub async fn health_check(rpc: &Rpc, wallet: &Wallet, run: &RunInfo, args: &HealthCheckArgs) -> Result<Submitted, ChainError> {
    let instructions = [coordinator::health_check(rpc.programs(), run, wallet.address(), args)?];
    until(rpc, wallet, run, "the health check", &instructions, &Effect::Removed(Address(args.client.signer))).await
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
    let named = || async { Ok::<_, ChainError>(names(&rpc.coordinator(run.account).await?.account, &args.checkpoint)) };
    if named().await? {
        return Ok(CheckpointOutcome::AlreadyNamed);
    }
    let instructions = [coordinator::checkpoint(rpc.programs(), run, wallet.address(), args)?];
    let effect = Effect::Named(args.checkpoint);
    let signature = until(rpc, wallet, run, "the checkpoint", &instructions, &effect).await?.signature();
    Ok(if named().await? { CheckpointOutcome::Named { signature } } else { CheckpointOutcome::Ignored { signature } })
}

/// Brings `instructions` onto the chain until the run's account shows their effect.
async fn until(
    rpc: &Rpc,
    wallet: &Wallet,
    run: &RunInfo,
    purpose: &'static str,
    instructions: &[Instruction],
    effect: &Effect,
) -> Result<Submitted, ChainError> {
    let done = || async { Ok(effect.is_there(&rpc.coordinator(run.account).await?.account)) };
    rpc.submit_until(&plan(wallet, purpose, instructions), done).await
}

fn plan<'a>(wallet: &'a Wallet, purpose: &'static str, instructions: &'a [Instruction]) -> Plan<'a> {
    Plan { purpose, payer: wallet, signers: &[], instructions, compute: Compute::Simulated }
}
