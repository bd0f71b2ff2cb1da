//! Programs by loader transactions.

use std::sync::Mutex;

use anyhow::{Result, ensure};
use psyche_chain::{ChainError, Compute, DeployProgress, Instruction, Plan, ProgramName, Rpc, Wallet, addresses, deploy};
use psyche_messages::Address;

use crate::support::{chain, direct, elf};

/// Calls a program with nothing; our programs name the id that they were built for, so another one refuses with 4100.
async fn call(rpc: &Rpc, wallet: &Wallet, program: Address) -> ChainError {
    let program_id = program.0.into();
    let instructions = [Instruction { program_id, accounts: vec![], data: vec![0; 8] }];
    let compute = Compute::Simulated;
    let plan = Plan { purpose: "a call", payer: wallet, signers: &[], instructions: &instructions, compute };
    rpc.submit(&plan).await.unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_is_deployed_upgraded_and_grown_by_loader_transactions() -> Result<()> {
    let (wallet, program, stranger) = (Wallet::new(), Wallet::new(), Wallet::new());
    let chain = chain(&[&wallet, &stranger]).await?;
    let rpc = direct(&chain)?;
    let (small, large) = (elf("authorizer")?, elf("treasurer")?);
    let steps = Mutex::new(Vec::new());
    let note = |step| steps.lock().unwrap().push(step);

    let id = deploy(&rpc, &wallet, &program, &small, &note).await?;
    ensure!(id == program.address());
    let account = rpc.account(id).await?.unwrap();
    ensure!(account.executable);
    let wrong_id = psyche_chain::program_error::ProgramIds { authorizer: id, ..*rpc.programs() };
    ensure!(wrong_id.name(id) == ProgramName::Authorizer);
    let refused = call(&rpc, &wallet, id).await;
    ensure!(refused.program_code(ProgramName::Other(id)) == Some(4100), "it runs: {refused}");
    let seen = std::mem::take(&mut *steps.lock().unwrap());
    let total = small.len();
    ensure!(seen.first() == Some(&DeployProgress::Written { bytes: 0, total }));
    ensure!(seen.contains(&DeployProgress::Written { bytes: total, total }) && seen.last() == Some(&DeployProgress::Done));

    deploy(&rpc, &wallet, &program, &small, &note).await?;
    ensure!(std::mem::take(&mut *steps.lock().unwrap()) == [DeployProgress::UpToDate]);
    let refused = deploy(&rpc, &stranger, &program, &large, &note).await.unwrap_err();
    ensure!(matches!(refused, ChainError::NotPossible { .. }), "{refused}");

    deploy(&rpc, &wallet, &program, &large, &note).await?;
    let data = rpc.account(addresses::program_data(id)).await?.unwrap().data;
    ensure!(data[45..].starts_with(&large));
    let refused = call(&rpc, &wallet, id).await;
    ensure!(refused.program_code(ProgramName::Other(id)) == Some(4100), "it runs: {refused}");
    Ok(chain.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_deployment_goes_on_where_it_stopped() -> Result<()> {
    let (wallet, program) = (Wallet::new(), Wallet::new());
    let chain = chain(&[&wallet]).await?;
    let (rpc, bytes) = (direct(&chain)?, elf("treasurer")?);
    let (some, mut written) = tokio::sync::watch::channel(0);
    let note = |step| {
        if let DeployProgress::Written { bytes, .. } = step {
            some.send_replace(bytes);
        }
    };
    tokio::select! {
        finished = deploy(&rpc, &wallet, &program, &bytes, &note) => anyhow::bail!("finished at once: {finished:?}"),
        enough = written.wait_for(|written| *written > 10_000) => drop(enough?),
    }
    let first = Mutex::new(None);
    let note = |step| {
        first.lock().unwrap().get_or_insert(step);
    };
    deploy(&rpc, &wallet, &program, &bytes, &note).await?;
    let first = first.into_inner()?;
    ensure!(matches!(first, Some(DeployProgress::Written { bytes: 10_000.., .. })), "{first:?}");
    Ok(chain.stop().await?)
}
