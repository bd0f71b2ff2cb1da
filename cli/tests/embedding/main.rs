//! Nodes inside of other programs: the library as docs/EMBEDDING.md promises it, on a local chain.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may unwrap")]

#[path = "../../../actors/examples/embed.rs"]
mod embed;
mod nodes;
mod refusals;
mod service;
#[path = "../support/mod.rs"]
mod support;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use psyche_actors::NodeBuilder;
use psyche_actors::config::P2pConfig;
use support::Scene;
use support::training::run_toml;

const RUN: &str = "embedded";

/// A chain with a run that begins with `clients` clients and ends after `steps` steps, a wallet with funds for each of
/// `wallets`, and what they need to train.
fn scene(clients: u16, steps: u32, wallets: &[&str]) -> Scene {
    let (clients, steps) = (clients.to_string(), steps.to_string());
    let changes = [("min_clients", clients.as_str()), ("init_min_clients", &clients), ("total_steps", &steps)];
    Scene::to_train(RUN, &run_toml(&changes), wallets)
}

/// A node of the scene's, configured in code.
fn node(scene: &Scene, wallet: &str, bootstrap: Vec<String>) -> NodeBuilder {
    let [(_, rpc), (_, ws)] = scene.chain.variables();
    NodeBuilder::new()
        .run_id(RUN)
        .endpoint(rpc, ws)
        .wallet_file(scene.path(&format!("{wallet}.json")))
        .data_dir(scene.path(&format!("data-{wallet}")))
        .data_path(scene.path("tokens/tokens.bin"))
        .models_dir(scene.path(""))
        .devices("cpu:1".parse().unwrap())
        .p2p(P2pConfig { bind: IpAddr::V4(Ipv4Addr::LOCALHOST), bootstrap, ..P2pConfig::default() })
}

/// One test at a time compares or loads the whole process, whatever runs the tests.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
