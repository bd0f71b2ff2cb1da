//! Changes of a run's account that its counter does not tell.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use psyche_chain::instructions::{coordinator, system};
use psyche_chain::ops::{self, NewRun, RunUpdate};
use psyche_chain::{ChainError, Compute, CoordinatorView, Plan, RunEvent, RunInfo, RunWatch, Wallet, watch_run};
use psyche_protocol::instruction::InitCoordinatorArgs;
use psyche_protocol::layout::{CoordinatorAccount, LayoutFault};
use serde_json::json;

use crate::proxy::{Link, ask};
use crate::stage::{STEADY, Stage, VERSION, configure, watch_config};

const DEADLINE: Duration = Duration::from_secs(60);

/// Waits for an event that `wanted` makes something of.
async fn until<T>(watch: &mut RunWatch, mut wanted: impl FnMut(RunEvent) -> Option<T>) -> Result<T> {
    let mut seen = Vec::new();
    let found = tokio::time::timeout(DEADLINE, async {
        loop {
            let event = watch.recv().await;
            seen.push(format!("{event:?}"));
            if let Some(found) = wanted(event) {
                return found;
            }
        }
    });
    match found.await {
        Ok(found) => Ok(found),
        Err(_elapsed) => bail!("it does not come; seen were {seen:?}"),
    }
}

fn changed(event: RunEvent) -> Option<CoordinatorView> {
    match event {
        RunEvent::Changed(view) => Some(view),
        _ => None,
    }
}

async fn begin() -> Result<(Stage, RunWatch, CoordinatorView)> {
    let stage = Stage::start(STEADY, 1).await?;
    let mut watch = watch_run(&stage.rpc, stage.run.clone(), watch_config(stage.pace));
    let first = until(&mut watch, changed).await?;
    Ok((stage, watch, first))
}

async fn want(stage: &Stage, version: &str) -> Result<()> {
    let update = RunUpdate { client_version: Some(version.into()), ..RunUpdate::default() };
    ops::update_run(&stage.direct, &stage.owner, &stage.run.run_id, &update).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos_another_client_version_is_seen_although_the_counter_stands_still() -> Result<()> {
    let (stage, mut watch, first) = begin().await?;
    ensure!(first.account.state.client_version.as_str() == VERSION);
    let is = |version: &'static str| {
        move |event| changed(event).filter(|view| view.account.state.client_version.as_str() == version)
    };
    want(&stage, "2.0.0").await?;
    let second = until(&mut watch, is("2.0.0")).await?;
    ensure!(second.nonce() == first.nonce() && second.slot >= first.slot);
    // No websocket tells: a read does, on its timer.
    stage.sockets(Link::Down).await;
    want(&stage, "3.0.0").await?;
    let third = until(&mut watch, is("3.0.0")).await?;
    ensure!(third.nonce() == first.nonce() && third.slot >= second.slot);
    drop(watch);
    stage.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos_a_run_that_is_created_anew_elsewhere_is_followed_there() -> Result<()> {
    let (stage, mut watch, first) = begin().await?;
    let run_id = &stage.run.run_id;
    ops::close_run(&stage.direct, &stage.owner, run_id, None).await?;
    let lost = |event| matches!(event, RunEvent::Lost(ChainError::AccountMissing { .. })).then_some(());
    until(&mut watch, lost).await?;
    let new = NewRun { run_id: run_id.clone(), client_version: VERSION.into(), join_authority: None, treasury: None };
    let made = ops::create_run(&stage.direct, &stage.owner, &new).await?;
    ensure!(made.account != stage.run.account);
    let moved = |event| match event {
        RunEvent::Moved(info) => Some(info),
        _ => None,
    };
    ensure!(until(&mut watch, moved).await? == made && *watch.info() == made);
    let view = until(&mut watch, changed).await?;
    ensure!(view.nonce() < first.nonce(), "the counter begins anew");
    configure(&stage.direct, &stage.owner, run_id, 1).await?;
    until(&mut watch, |event| changed(event).filter(|seen| seen.nonce() > view.nonce())).await?;
    drop(watch);
    stage.stop().await
}

/// Creates the stage's run in `account`.
async fn create(stage: &Stage, account: &Wallet) -> Result<RunInfo> {
    let (rpc, owner, run_id) = (&stage.direct, stage.owner.address(), &stage.run.run_id);
    let programs = rpc.programs();
    let rent = rpc.rent_minimum(CoordinatorAccount::SIZE).await?;
    let len = CoordinatorAccount::SIZE as u64;
    let room = system::create_account(owner, account.address(), rent, len, programs.coordinator);
    let (run, version) = (run_id.as_str(), VERSION);
    let args = InitCoordinatorArgs { main_authority: owner.0, join_authority: owner.0, run_id: run, client_version: version };
    let init = coordinator::init(programs, owner, stage.run.instance, account.address(), &args)?;
    let (signers, instructions, compute) = ([account], [room, init], Compute::Simulated);
    let plan = Plan { purpose: "a run", payer: &stage.owner, signers: &signers, instructions: &instructions, compute };
    rpc.submit(&plan).await?;
    Ok(rpc.run_info(run_id).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos_a_run_that_is_created_anew_in_the_same_account_is_told_from_the_old_one() -> Result<()> {
    let (stage, watch, _) = begin().await?;
    drop(watch);
    let (account, run_id) = (Wallet::new(), &stage.run.run_id);
    ops::close_run(&stage.direct, &stage.owner, run_id, None).await?;
    let run = create(&stage, &account).await?;
    configure(&stage.direct, &stage.owner, run_id, 1).await?;

    let mut watch = watch_run(&stage.rpc, run.clone(), watch_config(stage.pace));
    let first = until(&mut watch, changed).await?;
    ensure!(first.nonce().0 > 0);
    ops::close_run(&stage.direct, &stage.owner, run_id, None).await?;
    ensure!(create(&stage, &account).await? == run, "same name, same account");
    let anew = |event| match event {
        RunEvent::Anew(view) => Some(view),
        RunEvent::Changed(view) => panic!("taken for the old one: {view:?}"),
        _ => None,
    };
    let view = until(&mut watch, anew).await?;
    ensure!(view.slot > first.slot);
    configure(&stage.direct, &stage.owner, run_id, 1).await?;
    until(&mut watch, |event| changed(event).filter(|seen| seen.nonce() > view.nonce())).await?;
    drop(watch);
    stage.stop().await
}

/// Overwrites the run's account, as only a local chain allows.
async fn overwrite(stage: &Stage, data: &[u8]) -> Result<()> {
    let hex: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
    let params = json!([stage.run.account.to_string(), {"data": hex}]);
    ask(stage.chain.rpc_address(), "surfnet_setAccount", params).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos_an_account_that_does_not_decode_is_an_error_with_offset_and_reason() -> Result<()> {
    let (stage, mut watch, first) = begin().await?;
    let good = stage.direct.account(stage.run.account).await?.unwrap().data;
    let mut bad = good.clone();
    // The version of the account's layout.
    bad[8] = 7;
    overwrite(&stage, &bad).await?;
    let lost = |event| match event {
        RunEvent::Lost(error) => Some(error),
        _ => None,
    };
    let error = until(&mut watch, lost).await?;
    let ChainError::AccountLayout { address, source } = &error else { bail!("{error:?}") };
    ensure!(*address == stage.run.account && (source.offset, source.what) == (8, LayoutFault::Version));
    let text = format!("{:#}", anyhow::Error::from(error));
    ensure!(text.contains("another version at offset 8"), "{text}");
    // The watch goes on, and takes up the account when it can be read again.
    overwrite(&stage, &good).await?;
    stage.resume().await?;
    let view = until(&mut watch, changed).await?;
    ensure!(view.nonce() > first.nonce());
    drop(watch);
    stage.stop().await
}
