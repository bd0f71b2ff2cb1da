//! Runs on the programs' bytecode, from their creation to the last claim.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use psyche_chain::ops::{self, JoinQuestion, NewRun, NewTreasury, RunUpdate};
use psyche_chain::watch::{Watch, WatchConfig, WatchEvent};
use psyche_chain::{ChainError, CoordinatorView, ProgramName, Rpc, RunInfo, Wallet, watch_coordinator};
use psyche_messages::{Address, PeerKey, Phase, Points, Retry, RunId};
use psyche_protocol::instruction::{Args, WarmupWitnessArgs, WitnessArgs, WitnessMetadata};
use psyche_protocol::layout::{Bloom, Config, Progress, Witness, WitnessProof};
use psyche_protocol::machine;
use psyche_protocol::select::{Selection, participant_item};
use psyche_tests::tiny_model;

use crate::support::{chain, direct};

pub(crate) const EVERYONE: Address = Address([0; 32]);
pub(crate) const VERSION: &str = "1.2.3";

fn config() -> Config {
    Config {
        warmup_time: 600,
        cooldown_time: 1,
        max_round_train_time: 600,
        round_witness_time: 1,
        global_batch_size_warmup_tokens: 0,
        epoch_time: 3_600,
        total_steps: 3,
        init_min_clients: 2,
        min_clients: 2,
        witness_nodes: 2,
        global_batch_size_start: 4,
        global_batch_size_end: 4,
        verification_percent: 0,
        waiting_for_members_extra_time: 1,
    }
}

pub(crate) fn update() -> RunUpdate {
    let (config, model, progress) = (Some(config()), Some(tiny_model()), Some(Progress::new(0, 1, 0)));
    RunUpdate { config, model, progress, ..RunUpdate::default() }
}

pub(crate) fn new_run(run_id: &RunId, treasury: Option<NewTreasury>) -> NewRun {
    NewRun { run_id: run_id.clone(), client_version: VERSION.into(), join_authority: None, treasury }
}

fn bloom_of(signers: &[Address]) -> Bloom {
    let mut bloom = Bloom::new([1, 2, 3, 4, 5, 6, 7, 8]);
    for signer in signers {
        bloom.add(&participant_item(&signer.0));
    }
    bloom
}

/// Does what a node would: warmup statement, witness statement.
async fn testify(rpc: &Rpc, run: &RunInfo, view: &CoordinatorView, clients: &[&Wallet]) -> Result<()> {
    let account = &view.account;
    let heard = bloom_of(&clients.iter().map(|client| client.address()).collect::<Vec<_>>());
    for client in clients {
        let Some(index) = account.client_index(&client.address().0) else { bail!("{client:?} is no client") };
        let index = u64::try_from(index)?;
        let round = account.current_round();
        if round.witnesses.iter().any(|witness| witness.proof.index == index) {
            continue;
        }
        let statement =
            |proof| Witness { proof, participant_bloom: heard, broadcast_bloom: Bloom::new([9; 8]), broadcast_merkle: [7; 32] };
        if view.phase() == Phase::Warmup {
            let witness = statement(WitnessProof::new(0, index, true));
            ops::warmup_witness(rpc, client, run, &WarmupWitnessArgs { witness }).await?;
        } else {
            let selection = Selection::of_round(round, &account.state.coordinator.config).unwrap();
            let witness = statement(selection.witness_proof(index).unwrap());
            let metadata = WitnessMetadata::new(view.step().0);
            ops::witness(rpc, client, run, &WitnessArgs { witness, metadata }).await?;
        }
    }
    Ok(())
}

/// Plays all nodes until the run is finished.
pub(crate) async fn play(rpc: &Rpc, run: &RunInfo, clients: &[&Wallet]) -> Result<CoordinatorView> {
    for _ in 0..2_000 {
        let view = rpc.coordinator(run.account).await?;
        match view.phase() {
            Phase::Finished => return Ok(view),
            Phase::Warmup | Phase::RoundTrain => testify(rpc, run, &view, clients).await?,
            _ => {
                let (_slot, now) = rpc.clock().await?;
                if machine::would_tick(&view.account, now.0).is_some() {
                    ops::tick(rpc, clients[0], run).await?;
                } else {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }
    bail!("the run does not finish")
}

/// Every state that was seen.
async fn states_of(mut watch: Watch<CoordinatorView>) -> Result<Vec<CoordinatorView>> {
    let mut seen = Vec::new();
    loop {
        match watch.recv().await {
            WatchEvent::Anew(view) => bail!("nobody created the account anew: {view:?}"),
            WatchEvent::Lost(error) => return Err(error.into()),
            WatchEvent::Changed(view) => {
                let last = view.phase() == Phase::Finished;
                seen.push(view);
                if last {
                    return Ok(seen);
                }
            }
        }
    }
}

/// A state holds the effect of every transaction up to the slot at which it was read, and of no later one: that is what a node
/// rests on when it looks up in the history what it did not see.
async fn history_explains(rpc: &Rpc, run: &RunInfo, states: &[CoordinatorView]) -> Result<()> {
    for pair in states.windows(2) {
        let (before, after) = (&pair[0], &pair[1]);
        let calls = ops::calls_between(rpc, run, before.slot, after.slot, 500).await?;
        let Some(calls) = calls else { bail!("the history is cut") };
        let reports = calls.iter().filter(|call| WitnessArgs::decode(&call.data).is_ok()).count() as u64;
        let changes = after.account.nonce - before.account.nonce;
        let explained = reports <= changes && changes <= calls.len() as u64;
        ensure!(explained, "{reports} reports and {} calls for {changes} changes after {}", calls.len(), before.slot);
    }
    Ok(())
}

fn code(error: &ChainError) -> Option<u32> {
    error.program_code(ProgramName::Coordinator)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_treasury_run_lives_from_its_creation_to_the_last_claim() -> Result<()> {
    let (owner, first, second) = (Wallet::new(), Wallet::new(), Wallet::new());
    let chain = chain(&[&owner, &first, &second]).await?;
    let rpc = direct(&chain)?;
    let run_id: RunId = "first-light".parse()?;

    let mint = ops::create_mint(&rpc, &owner, 6).await?;
    ensure!(ops::token_decimals(&rpc, mint).await? == 6);
    ops::mint_to(&rpc, &owner, mint, owner.address(), Points(1_000)).await?;
    let run = ops::create_run(&rpc, &owner, &new_run(&run_id, Some(NewTreasury { mint, index: None }))).await?;
    ensure!(rpc.run_info(&run_id).await? == run);
    ops::update_run(&rpc, &owner, &run_id, &update()).await?;
    ops::set_future_epoch_rates(&rpc, &owner, &run_id, Some(100), None).await?;
    let grant = ops::authorization_create(&rpc, &owner, EVERYONE).await?;
    ensure!(ops::authorization_create(&rpc, &owner, EVERYONE).await? == grant, "creating it twice is creating it once");

    let watching = tokio::spawn(states_of(watch_coordinator(&rpc, run.account, WatchConfig::default())));
    ops::set_paused(&rpc, &owner, &run_id, false).await?;
    let (_, begun) = rpc.fetch_run(&run_id).await?;
    for client in [&first, &second] {
        let found = ops::find_grant(&rpc, &run, client.address(), None).await?.unwrap();
        ensure!(found.address == grant);
        ops::join_run(&rpc, client, &run, found.address, PeerKey(client.address().0)).await?;
    }
    let end = tokio::time::timeout(Duration::from_secs(60), play(&rpc, &run, &[&first, &second])).await??;
    ensure!(end.step().0 == 3);

    let states = tokio::time::timeout(Duration::from_secs(20), watching).await???;
    let phases: Vec<_> = states.iter().map(|view| (view.phase(), view.step().0)).collect();
    let milestones = [
        (Phase::WaitingForMembers, 1),
        (Phase::Warmup, 1),
        (Phase::RoundTrain, 1),
        (Phase::RoundTrain, 2),
        (Phase::Cooldown, 3),
        (Phase::Finished, 3),
    ];
    let mut rest = phases.iter();
    ensure!(milestones.iter().all(|wanted| rest.any(|seen| seen == wanted)), "{phases:?}");

    let calls = ops::calls_since(&rpc, &run, begun.slot, 500).await?;
    let witnesses = calls.iter().filter_map(|call| Some((call.user, WitnessArgs::decode(&call.data).ok()?)));
    let by_first = witnesses.filter(|(user, _)| *user == first.address()).map(|(_, args)| args.metadata.step);
    ensure!(by_first.collect::<Vec<_>>() == [1, 2], "the history tells who testified when, in order");
    ensure!(calls.is_sorted_by_key(|call| call.slot));
    let joined = states.iter().position(|view| view.phase() == Phase::Warmup).unwrap_or_default();
    history_explains(&rpc, &run, &states[joined..]).await?;

    claims(&rpc, &owner, &run, [&first, &second]).await?;
    Ok(chain.stop().await?)
}

/// Both have earned 50 points; the treasury is filled too late and with too little.
async fn claims(rpc: &Rpc, owner: &Wallet, run: &RunInfo, [first, second]: [&Wallet; 2]) -> Result<()> {
    let run_id = &run.run_id;
    let nothing = ops::claim_rewards(rpc, first, run_id, None).await?;
    ensure!((nothing.amount, nothing.signature, nothing.left) == (Points(0), None, Points(50)));
    ops::top_up(rpc, owner, run_id, Points(60)).await?;
    let points = ops::points(rpc, run, first.address()).await?;
    ensure!((points.earned, points.claimable, points.treasury) == (Points(50), Points(50), Points(60)), "{points:?}");
    let all = ops::claim_rewards(rpc, first, run_id, None).await?;
    ensure!((all.amount, all.claimed_in_all, all.left) == (Points(50), Points(50), Points(0)) && all.signature.is_some());
    let some = ops::claim_rewards(rpc, second, run_id, Some(Points(4))).await?;
    ensure!((some.amount, some.left) == (Points(4), Points(46)));
    let rest = ops::claim_rewards(rpc, second, run_id, None).await?;
    ensure!((rest.amount, rest.claimed_in_all, rest.left) == (Points(6), Points(10), Points(40)));
    let treasury = ops::treasury_of(rpc, run).await?.unwrap();
    ensure!(treasury.claimed == Points(60) && rpc.token_balance(treasury.collateral()).await? == Some(Points(0)));
    let refused = ops::top_up(rpc, first, run_id, Points(51)).await.unwrap_err();
    ensure!(matches!(refused, ChainError::NotPossible { .. }), "{refused}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_the_programs_are_typed_and_final() -> Result<()> {
    let (owner, stranger) = (Wallet::new(), Wallet::new());
    let chain = chain(&[&owner, &stranger]).await?;
    let rpc = direct(&chain)?;
    let run_id: RunId = "strict".parse()?;
    let run = ops::create_run(&rpc, &owner, &new_run(&run_id, None)).await?;
    let again = ops::create_run(&rpc, &owner, &new_run(&run_id, None)).await.unwrap_err();
    ensure!(matches!(again, ChainError::NotPossible { .. }), "{again}");

    // Nobody has been authorized: the grant's account does not exist.
    let nowhere = psyche_chain::instructions::coordinator::join_authorization(rpc.programs(), &run, EVERYONE);
    let refused = ops::join_run(&rpc, &stranger, &run, nowhere, PeerKey([1; 32])).await.unwrap_err();
    ensure!(code(&refused) == Some(3012) && refused.retry() == Retry::Never, "{refused}");

    let halted = ops::tick(&rpc, &stranger, &run).await.unwrap_err();
    ensure!(code(&halted) == Some(6015), "{halted}");
    let not_ready = ops::set_paused(&rpc, &owner, &run_id, false).await.unwrap_err();
    ensure!(matches!(code(&not_ready), Some(6004..=6006 | 6018)), "a run without configuration: {not_ready}");
    let foreign = ops::set_paused(&rpc, &stranger, &run_id, true).await.unwrap_err();
    ensure!(matches!(foreign, ChainError::NotPossible { .. }), "{foreign}");

    ops::update_run(&rpc, &owner, &run_id, &update()).await?;
    ops::set_paused(&rpc, &owner, &run_id, false).await?;
    let running = ops::update_run(&rpc, &owner, &run_id, &update()).await.unwrap_err();
    ensure!(code(&running) == Some(6001), "{running}");
    let missing = rpc.run_info(&"nowhere".parse()?).await.unwrap_err();
    ensure!(matches!(missing, ChainError::AccountMissing { what: "run", .. }));
    Ok(chain.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_learns_what_is_in_its_way_before_it_joins() -> Result<()> {
    let (owner, master, delegate) = (Wallet::new(), Wallet::new(), Wallet::new());
    let chain = chain(&[&owner, &master]).await?;
    let rpc = direct(&chain)?;
    let run_id: RunId = "gated".parse()?;
    let ask = async |authorizer| {
        let report = ops::can_join(&rpc, &run_id, delegate.address(), authorizer, Some(VERSION)).await?;
        anyhow::Ok((report.obstacle().map(|check| check.question), report))
    };
    ensure!(ask(None).await?.0 == Some(JoinQuestion::RunExists));
    ops::create_run(&rpc, &owner, &new_run(&run_id, None)).await?;
    ops::update_run(&rpc, &owner, &run_id, &update()).await?;
    let authorizer = Some(master.address());
    ensure!(ask(authorizer).await?.0 == Some(JoinQuestion::Authorized));

    ops::authorization_create(&rpc, &owner, master.address()).await?;
    ensure!(ask(authorizer).await?.0 == Some(JoinQuestion::Authorized), "the delegate is not named yet");
    let added = [delegate.address(), Wallet::new().address()];
    ops::authorization_delegate(&rpc, &master, owner.address(), false, &added).await?;
    ensure!(ops::authorization_delegate(&rpc, &master, owner.address(), false, &added).await?.is_empty());
    ensure!(ask(None).await?.0 == Some(JoinQuestion::Authorized), "without the authorizer nobody finds its grant");
    ensure!(ask(authorizer).await?.0 == Some(JoinQuestion::NotPaused));
    ops::set_paused(&rpc, &owner, &run_id, false).await?;
    ensure!(ask(authorizer).await?.0 == Some(JoinQuestion::Balance));

    rpc.airdrop(delegate.address(), psyche_messages::Lamports(crate::support::SOL)).await?;
    let (obstacle, report) = ask(authorizer).await?;
    ensure!(obstacle.is_none() && report.can_join(), "{:?}", report.checks);
    let other = ops::can_join(&rpc, &run_id, delegate.address(), authorizer, Some("another")).await?;
    ensure!(other.obstacle().unwrap().question == JoinQuestion::ClientVersion);
    ops::authorization_set_active(&rpc, &owner, master.address(), false).await?;
    ensure!(ask(authorizer).await?.0 == Some(JoinQuestion::Authorized), "the grant is switched off");
    Ok(chain.stop().await?)
}
