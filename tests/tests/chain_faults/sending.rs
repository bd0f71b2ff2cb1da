//! Transactions get lost, or their confirmations do, or somebody else is faster.

use anyhow::{Result, ensure};
use psyche_chain::{CoordinatorView, Rpc, Submitted, ops};
use psyche_messages::{PeerKey, Phase};
use psyche_protocol::machine;

use crate::play::{Gait, Play, no_duplicates};
use crate::proxy::Faults;
use crate::record::{Change, Record};
use crate::stage::{MANY_SLOTS, STEADY, Stage, client};

/// A run that waits for its only client, and a node that watches it.
async fn waiting() -> Result<(Stage, Record)> {
    let stage = Stage::start(MANY_SLOTS, 1).await?;
    let record = Record::start(&stage);
    record.connected(2).await?;
    stage.resume().await?;
    Ok((stage, record))
}

async fn join(stage: &Stage) -> Result<Submitted> {
    let wallet = &stage.clients[0];
    let peer = PeerKey(wallet.address().0);
    Ok(ops::join_run(&stage.rpc, wallet, &stage.run, stage.grant, peer).await?)
}

/// The fault is over: the client's join had its effect once, the node knows of it within five seconds, and misses nothing of
/// what the run does next.
async fn end(stage: Stage, record: Record) -> Result<()> {
    let joined = stage.direct.coordinator(stage.run.account).await?;
    ensure!(joined.account.is_pending(&stage.clients[0].address().0));
    record.soon_knows(&stage, joined.nonce().0).await?;
    let mut play = Play::start(&stage, &record, Gait::Free, true);
    play.phases(5).await?;
    play.go(Gait::Halt);
    let truth = play.settled().await?;
    record.sees(truth.nonce).await?;
    record.must_match(&truth, None)?;
    no_duplicates(&stage).await?;
    drop((record, play));
    stage.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos_a_blockhash_expires_in_flight() -> Result<()> {
    let (stage, record) = waiting().await?;
    let swallow = Faults { swallows_transactions: true, ..Faults::default() };
    stage.all(swallow).await;
    let height = stage.direct.block_height().await?;
    let lost = async {
        // The first one can't land any more when 150 blocks have passed; then a second one is signed.
        let signatures = async || -> usize { stage.endpoints[1].http.transactions().len() };
        while signatures().await < 2 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        ensure!(stage.direct.block_height().await? > height + 150, "it was signed anew before the first had expired");
        let view = stage.direct.coordinator(stage.run.account).await?;
        ensure!(!view.account.is_pending(&stage.clients[0].address().0), "nothing has landed so far");
        stage.all(Faults::default()).await;
        record.soon_knows(&stage, view.nonce().0).await
    };
    let (joined, lost) = tokio::join!(join(&stage), lost);
    lost?;
    ensure!(matches!(joined?, Submitted::Confirmed(_)));
    end(stage, record).await
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos_the_transaction_lands_but_its_confirmation_is_lost() -> Result<()> {
    let (stage, record) = waiting().await?;
    stage.all(Faults { swallows_statuses: true, ..Faults::default() }).await;
    let submitted = join(&stage).await?;
    ensure!(matches!(submitted, Submitted::Confirmed(_) | Submitted::AlreadyDone), "{submitted:?}");
    ensure!(stage.endpoints[0].http.transactions().len() == 1, "it was signed once");
    stage.all(Faults::default()).await;
    end(stage, record).await
}

/// Ticks when it is time, from two nodes at once, until the run waits for somebody to say something.
async fn both_tick(stage: &Stage, nodes: &[Rpc; 2], phases: &mut Vec<Change>) -> Result<CoordinatorView> {
    loop {
        let view = stage.direct.coordinator(stage.run.account).await?;
        let change = Change::of(&view);
        if phases.last().is_none_or(|last| !last.is_same_phase(&change)) {
            phases.push(change);
        }
        let somebodys_turn = match view.phase() {
            Phase::WaitingForMembers => view.account.state.clients_state.pending().count() < 2,
            Phase::Warmup | Phase::RoundTrain => true,
            _ => false,
        };
        if somebodys_turn {
            return Ok(view);
        }
        let (_slot, now) = stage.direct.clock().await?;
        if machine::would_tick(&view.account, now.0).is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(15)).await;
            continue;
        }
        let tick = |at: usize| ops::tick(&nodes[at], &stage.clients[at], &stage.run);
        let (first, second) = tokio::join!(tick(0), tick(1));
        ensure!(first.is_ok() || second.is_ok(), "{first:?} {second:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos_two_nodes_send_the_same_tick() -> Result<()> {
    let stage = Stage::start(STEADY, 2).await?;
    let record = Record::start(&stage);
    record.connected(2).await?;
    let nodes = [client(vec![stage.endpoints[0].pair()?])?, client(vec![stage.endpoints[1].pair()?])?];
    let mut phases = vec![Change::of(&stage.direct.coordinator(stage.run.account).await?)];
    stage.resume().await?;
    let mut steps = Vec::new();
    while phases.len() < 12 {
        let view = both_tick(&stage, &nodes, &mut phases).await?;
        steps.push(view.step());
        Play::say_what_is_due(&stage, &view).await?;
    }
    let view = both_tick(&stage, &nodes, &mut phases).await?;
    record.soon_knows(&stage, view.nonce().0).await?;
    // Two ticks for one transition: no round is skipped.
    ensure!(steps.windows(2).all(|pair| pair[1].0 - pair[0].0 <= 1), "{steps:?}");
    record.must_match_phases(&phases, None)?;
    no_duplicates(&stage).await?;
    drop(record);
    stage.stop().await
}
