//! A run's account, watched from its first phase to its last by clients that only know that it is an account.

use std::mem::offset_of;

use anyhow::{Result, ensure};
use psyche_chain::Wallet;
use psyche_protocol::layout::{CoordinatorAccount, RunState};
use serde_json::{Value, json};

use crate::clients::{Client, start_all};
use crate::run::{create, play};
use crate::support::{chain, ours};

fn numbers(report: &Value, name: &str) -> Vec<u64> {
    report[name].as_array().into_iter().flatten().filter_map(Value::as_u64).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn all_clients_are_told_every_state_of_a_run_in_order_and_with_its_slot() -> Result<()> {
    let (owner, node) = (Wallet::new(), Wallet::new());
    let chain = chain(&[&owner, &node]).await?;
    let rpc = ours(&chain)?;
    let (run, _mint) = create(&rpc, &owner).await?;
    let before = rpc.coordinator(run.account).await?;
    let job = json!({
        "scenario": "follow", "rpc": chain.rpc_url(), "ws": chain.ws_url(), "coordinator": run.account.to_string(),
        "phase_offset": offset_of!(CoordinatorAccount, state.coordinator.run_state),
        "nonce_offset": offset_of!(CoordinatorAccount, nonce),
        "finished": RunState::Finished.number(),
    });
    let watching = start_all(&job).await?;
    play(&rpc, &owner, &node, &run).await?;
    let after = rpc.coordinator(run.account).await?;

    for (client, running) in Client::ALL.into_iter().zip(watching) {
        let report = running.done().await?;
        let (nonces, slots) = (numbers(&report, "nonces"), numbers(&report, "slots"));
        // Each instruction that changes the account advances the nonce by one: none was missed, none came twice.
        let all: Vec<u64> = (before.nonce().0 + 1..=after.nonce().0).collect();
        ensure!(nonces == all, "{client:?} saw {nonces:?} of {all:?}");
        ensure!(slots.is_sorted() && slots.first() > Some(&before.slot.0), "{client:?}: {slots:?} after {:?}", before.slot);
        ensure!(report["read_is_last_seen"] == true, "{client:?}: {report}");
        let mut phases = numbers(&report, "phases");
        phases.dedup();
        let (waits, warms, trains, witnesses, cools, ends) = (1, 2, 3, 4, 5, 6);
        ensure!(phases == [waits, warms, trains, witnesses, trains, witnesses, cools, ends], "{client:?}: {phases:?}");
    }
    Ok(chain.stop().await?)
}
