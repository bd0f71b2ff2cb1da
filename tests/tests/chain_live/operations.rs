//! What owners and operators ask of runs: lists, dumps, ends.

use anyhow::{Result, ensure};
use psyche_chain::ops::{
    self, AuthorizationDeleted, CheckpointOutcome, ClaimKind, JoinSimulation, NewTreasury, Obstacle, RunFilter, TickOutcome,
};
use psyche_chain::{ChainError, ProgramName, Wallet};
use psyche_messages::{Address, PeerKey, Phase, Points, RunId};
use psyche_protocol::instruction::CheckpointArgs;
use psyche_protocol::layout::FixedString;
use psyche_protocol::model::{Checkpoint, HubRepo};

use crate::run::{EVERYONE, VERSION, new_run, update};
use crate::support::{chain, direct};

#[tokio::test(flavor = "multi_thread")]
async fn runs_are_listed_by_phase_and_authority_without_fetching_them() -> Result<()> {
    let (owner, other) = (Wallet::new(), Wallet::new());
    let chain = chain(&[&owner, &other]).await?;
    let rpc = direct(&chain)?;
    ensure!(ops::list_runs(&rpc, &RunFilter::default()).await?.is_empty());
    let names: [RunId; 3] = ["beta".parse()?, "alpha".parse()?, "gamma".parse()?];
    for (name, wallet) in names.iter().zip([&owner, &owner, &other]) {
        ops::create_run(&rpc, wallet, &new_run(name, None)).await?;
        ops::update_run(&rpc, wallet, name, &update()).await?;
    }
    ops::set_paused(&rpc, &owner, &names[0], false).await?;
    let list = async |filter: RunFilter| {
        let runs = ops::list_runs(&rpc, &filter).await?;
        anyhow::Ok(runs.into_iter().map(|run| run.run_id.to_string()).collect::<Vec<_>>())
    };
    ensure!(list(RunFilter::default()).await? == ["alpha", "beta", "gamma"]);
    let waiting = RunFilter { phase: Some(Phase::WaitingForMembers), ..RunFilter::default() };
    ensure!(list(waiting).await? == ["beta"]);
    let of_other = RunFilter { main_authority: Some(other.address()), ..RunFilter::default() };
    ensure!(list(of_other).await? == ["gamma"]);
    let joined = RunFilter { join_authority: Some(owner.address()), ..waiting };
    ensure!(list(joined).await? == ["beta"]);
    ensure!(list(RunFilter { join_authority: Some(other.address()), ..waiting }).await?.is_empty());

    let all = ops::list_runs(&rpc, &RunFilter::default()).await?;
    let (info, view) = rpc.fetch_run(&names[0]).await?;
    let beta = &all[1];
    ensure!((beta.account, beta.instance, beta.main_authority) == (info.account, info.instance, owner.address()));
    ensure!((beta.phase, beta.epoch, beta.step) == (view.phase(), view.epoch(), view.step()));
    ensure!((beta.total_steps, beta.min_clients, beta.init_min_clients, beta.clients) == (3, 2, 2, 0), "{beta:?}");
    ensure!(beta.client_version == VERSION);
    Ok(chain.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_halted_run_is_closed_and_its_rent_comes_back() -> Result<()> {
    let (owner, other, spill) = (Wallet::new(), Wallet::new(), Wallet::new());
    let chain = chain(&[&owner, &other]).await?;
    let rpc = direct(&chain)?;
    let (run_id, paid): (RunId, RunId) = ("short-lived".parse()?, "paid".parse()?);
    ops::create_run(&rpc, &owner, &new_run(&run_id, None)).await?;
    ops::update_run(&rpc, &owner, &run_id, &update()).await?;
    ops::set_paused(&rpc, &owner, &run_id, false).await?;
    let obstacle = async |wallet: &Wallet, run: &RunId| match ops::close_run(&rpc, wallet, run, None).await {
        Err(ChainError::Obstructed { obstacle, .. }) => Ok(obstacle),
        other => anyhow::bail!("{other:?}"),
    };
    let running = Obstacle::NotHalted { phase: Phase::WaitingForMembers };
    ensure!(obstacle(&owner, &run_id).await? == running);
    ops::set_paused(&rpc, &owner, &run_id, true).await?;
    let foreign = Obstacle::NotOwner { owner: owner.address(), wallet: other.address() };
    ensure!(obstacle(&other, &run_id).await? == foreign);
    let closed = ops::close_run(&rpc, &owner, &run_id, Some(spill.address())).await?;
    ensure!(closed.refunded.0 > 830_000_000 && closed.signature.is_some(), "{closed:?}");
    ensure!(rpc.balance(spill.address()).await? == closed.refunded);
    let gone = rpc.run_info(&run_id).await.unwrap_err();
    ensure!(matches!(gone, ChainError::AccountMissing { what: "run", .. }));

    let mint = ops::create_mint(&rpc, &owner, 6).await?;
    let run = ops::create_run(&rpc, &owner, &new_run(&paid, Some(NewTreasury { mint, index: None }))).await?;
    ensure!(obstacle(&owner, &paid).await? == Obstacle::TreasurerOwnsRun { treasury: run.main_authority });
    Ok(chain.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_tells_what_the_chain_tells() -> Result<()> {
    let (owner, user) = (Wallet::new(), Wallet::new());
    let chain = chain(&[&owner, &user]).await?;
    let rpc = direct(&chain)?;
    let run_id: RunId = "open-book".parse()?;
    let mint = ops::create_mint(&rpc, &owner, 6).await?;
    ops::mint_to(&rpc, &owner, mint, owner.address(), Points(1_000)).await?;
    let run = ops::create_run(&rpc, &owner, &new_run(&run_id, Some(NewTreasury { mint, index: None }))).await?;
    ops::update_run(&rpc, &owner, &run_id, &update()).await?;
    ops::set_future_epoch_rates(&rpc, &owner, &run_id, Some(300), Some(7)).await?;
    ops::top_up(&rpc, &owner, &run_id, Points(700)).await?;
    let grant = ops::authorization_create(&rpc, &owner, user.address()).await?;
    ops::set_paused(&rpc, &owner, &run_id, false).await?;
    ops::join_run(&rpc, &user, &run, grant, PeerKey(user.address().0)).await?;

    let dump = ops::dump_run(&rpc, &run_id).await?;
    ensure!((dump.phase, dump.client_version.as_str()) == (Phase::WaitingForMembers, VERSION));
    let treasury = dump.treasury.unwrap();
    ensure!((treasury.funded, treasury.owed, treasury.surplus) == (Points(700), Points(0), Points(700)));
    ensure!((treasury.missing, treasury.epochs_funded, treasury.decimals) == (Points(0), Some(2), Some(6)));
    ensure!((dump.rates.future_earning, dump.rates.future_slashing) == (Points(300), Points(7)));
    ensure!(dump.roster.len() == 1 && dump.roster[0].wallet == user.address() && dump.roster[0].joined);
    let json = serde_json::to_value(&dump)?;
    ensure!(json["config"]["total_steps"] == 3 && json["phase"] == "WaitingForMembers", "{json}");
    ensure!(json["model"]["LLM"]["checkpoint"]["Hub"]["repo_id"] == "models/tiny", "{json}");

    let member = ops::dump_user(&rpc, &run_id, user.address(), None).await?;
    ensure!(member.in_roster && member.joined && member.grant.as_ref().map(|grant| grant.address) == Some(grant));
    ensure!(member.points.treasury == Points(700) && member.in_epoch.is_none() && member.balance.0 > 0);
    let stranger = ops::dump_user(&rpc, &run_id, Wallet::new().address(), Some(user.address())).await?;
    ensure!(!stranger.in_roster && stranger.grant.is_none() && stranger.other_grants.len() == 1);
    let claimed = ops::claim_rewards(&rpc, &user, &run_id, None).await?;
    ensure!((claimed.kind, claimed.signature) == (ClaimKind::NothingToClaim, None));
    Ok(chain.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_is_taken_back_as_far_as_the_program_allows() -> Result<()> {
    let (owner, master) = (Wallet::new(), Wallet::new());
    let chain = chain(&[&owner, &master]).await?;
    let rpc = direct(&chain)?;
    ensure!(ops::authorization_delete(&rpc, &owner, EVERYONE, None).await? == AuthorizationDeleted::Absent);
    ops::authorization_create(&rpc, &owner, EVERYONE).await?;
    let rent = ops::authorization_read(&rpc, owner.address(), EVERYONE).await?.unwrap().rent;
    let gone = ops::authorization_delete(&rpc, &owner, EVERYONE, None).await?;
    ensure!(matches!(gone, AuthorizationDeleted::Closed { refunded, signature: Some(_) } if refunded == rent), "{gone:?}");
    ensure!(ops::authorization_read(&rpc, owner.address(), EVERYONE).await?.is_none());

    let grantee = master.address();
    ops::authorization_create(&rpc, &owner, grantee).await?;
    ops::authorization_delegate(&rpc, &master, owner.address(), false, &[Wallet::new().address()]).await?;
    let kept = ops::authorization_delete(&rpc, &owner, grantee, None).await?;
    let AuthorizationDeleted::Deactivated { closable_from, delegates: 1, signature: Some(_) } = kept else {
        anyhow::bail!("{kept:?}")
    };
    ensure!(closable_from > rpc.clock().await?.1, "its delegates are left in peace");
    let again = ops::authorization_delete(&rpc, &owner, grantee, None).await?;
    ensure!(matches!(again, AuthorizationDeleted::Deactivated { signature: None, .. }), "{again:?}");
    let early = ops::authorization_close(&rpc, &owner, grantee, None).await.unwrap_err();
    ensure!(early.program_code(ProgramName::Authorizer) == Some(6001), "{early}");
    Ok(chain.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chain_has_the_last_word_about_a_join_without_a_key() -> Result<()> {
    let (owner, user) = (Wallet::new(), Wallet::new());
    let chain = chain(&[&owner, &user]).await?;
    let rpc = direct(&chain)?;
    let run_id: RunId = "rehearsed".parse()?;
    let run = ops::create_run(&rpc, &owner, &new_run(&run_id, None)).await?;
    ops::update_run(&rpc, &owner, &run_id, &update()).await?;
    ops::set_paused(&rpc, &owner, &run_id, false).await?;
    let nowhere: Address = psyche_chain::instructions::coordinator::join_authorization(rpc.programs(), &run, EVERYONE);
    let refused = ops::simulate_join(&rpc, &run, user.address(), nowhere, None).await?;
    let JoinSimulation::Refused(refused) = refused else { anyhow::bail!("{refused:?}") };
    ensure!(refused.program_code(ProgramName::Coordinator) == Some(3012), "{refused}");
    let grant = ops::authorization_create(&rpc, &owner, EVERYONE).await?;
    let accepted = ops::simulate_join(&rpc, &run, user.address(), grant, None).await?;
    ensure!(matches!(accepted, JoinSimulation::Accepted { units } if units > 0), "{accepted:?}");
    let poor = ops::simulate_join(&rpc, &run, Wallet::new().address(), grant, None).await?;
    ensure!(matches!(poor, JoinSimulation::Refused(ChainError::InsufficientFunds { .. })), "{poor:?}");
    ensure!(!rpc.coordinator(run.account).await?.account.is_pending(&user.address().0), "nothing happened");
    Ok(chain.stop().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn ticks_and_checkpoints_tell_whether_they_did_anything() -> Result<()> {
    let (owner, first, second) = (Wallet::new(), Wallet::new(), Wallet::new());
    let chain = chain(&[&owner, &first, &second]).await?;
    let rpc = direct(&chain)?;
    let run_id: RunId = "told".parse()?;
    let run = ops::create_run(&rpc, &owner, &new_run(&run_id, None)).await?;
    ops::update_run(&rpc, &owner, &run_id, &update()).await?;
    ops::set_paused(&rpc, &owner, &run_id, false).await?;
    let before = rpc.balance(owner.address()).await?;
    let idle = ops::tick(&rpc, &owner, &run).await?;
    ensure!(matches!(idle, TickOutcome::NothingToDo { phase: Phase::WaitingForMembers, .. }), "{idle:?}");
    ensure!(rpc.balance(owner.address()).await? == before, "nothing was sent");
    let grant = ops::authorization_create(&rpc, &owner, EVERYONE).await?;
    for client in [&first, &second] {
        ops::join_run(&rpc, client, &run, grant, PeerKey(client.address().0)).await?;
    }
    crate::support::until("the start of the epoch", async || {
        let moved = ops::tick(&rpc, &owner, &run).await?;
        let phase = rpc.coordinator(run.account).await?.phase();
        Ok((matches!(moved, TickOutcome::Moved { .. }) || phase == Phase::Warmup).then_some(()))
    })
    .await?;
    let repo = |name| Checkpoint::Hub(HubRepo { repo_id: FixedString::new(name).unwrap(), revision: None });
    let same = ops::checkpoint(&rpc, &first, &run, &CheckpointArgs { checkpoint: repo("models/tiny") }).await?;
    ensure!(same == CheckpointOutcome::AlreadyNamed);
    Ok(chain.stop().await?)
}
