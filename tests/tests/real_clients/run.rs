//! A run with a treasury and one node, from its creation to its end.

use anyhow::{Context, Result, bail};
use psyche_chain::ops::{self, NewRun, NewTreasury, RunUpdate};
use psyche_chain::{CoordinatorView, Rpc, RunInfo, Wallet};
use psyche_messages::{Address, PeerKey, Phase, Points, RunId};
use psyche_protocol::instruction::{WarmupWitnessArgs, WitnessArgs, WitnessMetadata};
use psyche_protocol::layout::{Bloom, Config, Progress, Witness, WitnessProof};
use psyche_protocol::machine;
use psyche_protocol::select::{Selection, participant_item};
use psyche_tests::tiny_model;

use crate::support::until;

/// What the node earns in the run's only epoch.
pub(crate) const EARNED: u64 = 1_234_567;
/// Tokens that there are.
pub(crate) const SUPPLY: u64 = 5_000_000;
/// Of the token.
pub(crate) const DECIMALS: u8 = 6;
/// More rounds than any run here has.
const TURNS_MAX: usize = 50;

fn update() -> RunUpdate {
    let config = Config {
        warmup_time: 600,
        cooldown_time: 1,
        max_round_train_time: 600,
        round_witness_time: 1,
        global_batch_size_warmup_tokens: 0,
        epoch_time: 3_600,
        total_steps: 3,
        init_min_clients: 1,
        min_clients: 1,
        witness_nodes: 1,
        global_batch_size_start: 4,
        global_batch_size_end: 4,
        verification_percent: 0,
        waiting_for_members_extra_time: 1,
    };
    RunUpdate {
        config: Some(config),
        model: Some(tiny_model()),
        progress: Some(Progress::new(0, 1, 0)),
        ..RunUpdate::default()
    }
}

/// Creates a token and a run with a filled treasury, which is paused.
pub(crate) async fn create(rpc: &Rpc, owner: &Wallet) -> Result<(RunInfo, Address)> {
    let run_id: RunId = "for-real".parse()?;
    let mint = ops::create_mint(rpc, owner, DECIMALS).await?;
    ops::mint_to(rpc, owner, mint, owner.address(), Points(SUPPLY)).await?;
    let treasury = Some(NewTreasury { mint, index: None });
    let new = NewRun { run_id: run_id.clone(), client_version: "1.2.3".into(), join_authority: None, treasury };
    let run = ops::create_run(rpc, owner, &new).await?;
    ops::update_run(rpc, owner, &run_id, &update()).await?;
    ops::set_future_epoch_rates(rpc, owner, &run_id, Some(EARNED), None).await?;
    ops::top_up(rpc, owner, &run_id, Points(2 * EARNED)).await?;
    Ok((run, mint))
}

/// Opens the run and does what `node` would until the run is finished. Nothing is claimed.
pub(crate) async fn play(rpc: &Rpc, owner: &Wallet, node: &Wallet, run: &RunInfo) -> Result<()> {
    let grant = ops::authorization_create(rpc, owner, node.address()).await?;
    ops::set_paused(rpc, owner, &run.run_id, false).await?;
    // Any key of the right kind will do for the peer.
    ops::join_run(rpc, node, run, grant, PeerKey(node.address().0)).await?;
    for _ in 0..TURNS_MAX {
        let view = until("the node's turn", async || {
            let view = rpc.coordinator(run.account).await?;
            let (_slot, now) = rpc.clock().await?;
            let due =
                view.phase() == Phase::Finished || owes_statement(&view) || machine::would_tick(&view.account, now.0).is_some();
            Ok(due.then_some(view))
        });
        let view = view.await?;
        if view.phase() == Phase::Finished {
            return Ok(());
        }
        if owes_statement(&view) {
            testify(rpc, node, run, &view).await?;
        } else {
            ops::tick(rpc, node, run).await?;
        }
    }
    bail!("the run does not finish")
}

/// Whether the round waits for what the node has to say.
fn owes_statement(view: &CoordinatorView) -> bool {
    matches!(view.phase(), Phase::Warmup | Phase::RoundTrain) && view.account.current_round().witnesses.is_empty()
}

async fn testify(rpc: &Rpc, node: &Wallet, run: &RunInfo, view: &CoordinatorView) -> Result<()> {
    let account = &view.account;
    let index = u64::try_from(account.client_index(&node.address().0).context("the node is no client")?)?;
    let mut heard = Bloom::new([1, 2, 3, 4, 5, 6, 7, 8]);
    heard.add(&participant_item(&node.address().0));
    let statement =
        |proof| Witness { proof, participant_bloom: heard, broadcast_bloom: Bloom::new([9; 8]), broadcast_merkle: [7; 32] };
    if view.phase() == Phase::Warmup {
        let witness = statement(WitnessProof::new(0, index, true));
        ops::warmup_witness(rpc, node, run, &WarmupWitnessArgs { witness }).await?;
    } else {
        let selection = Selection::of_round(account.current_round(), &account.state.coordinator.config).unwrap();
        let witness = statement(selection.witness_proof(index).context("the only node is witness")?);
        ops::witness(rpc, node, run, &WitnessArgs { witness, metadata: WitnessMetadata::new(view.step().0) }).await?;
    }
    Ok(())
}
