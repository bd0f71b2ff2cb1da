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

const RUN: &str = "embedded";

const MODEL: &str = r#"{"architectures": ["LlamaForCausalLM"], "hidden_size": 32, "intermediate_size": 64,
"max_position_embeddings": 32, "model_type": "llama", "num_attention_heads": 2, "num_hidden_layers": 1,
"num_key_value_heads": 2, "rms_norm_eps": 0.00001, "rope_theta": 10000.0, "tie_word_embeddings": false,
"torch_dtype": "float32", "vocab_size": 300}"#;

/// A chain with a run that begins with `clients` clients and ends after `steps` steps, a wallet with funds for each of
/// `wallets`, and what they need to train.
fn scene(clients: u16, steps: u32, wallets: &[&str]) -> Scene {
    let scene = Scene::empty();
    scene.wallet("owner", "20");
    for wallet in wallets {
        scene.wallet(wallet, "5");
    }
    scene.write("text.txt", &"In the beginning God created the heaven and the earth.\n".repeat(80), 0o600);
    scene.write("config.json", MODEL, 0o600);
    let toml = support::RUN_TOML.replace("min_clients = 1", &format!("min_clients = {clients}"));
    let toml = toml.replace("total_steps = 5", &format!("total_steps = {steps}"));
    scene.write("run.toml", &toml, 0o600);
    scene.good("tokenize --text text.txt --vocab-size 300 --out tokens");
    scene.good("init-model --config config.json --seed 7 --out model");
    let owner = "--wallet-private-key-path owner.json";
    scene.good(&format!("join-authorization-create --permissionless {owner}"));
    scene.good(&format!("create-run --run-id {RUN} {owner}"));
    scene.good(&format!("update-config --run-id {RUN} --config-path run.toml {owner}"));
    scene.good(&format!("set-paused --run-id {RUN} --resume {owner}"));
    scene
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
