//! An owner makes a run with the command line, an operator joins it as the documentation says, trains, and claims.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Output;

use psyche_messages::Address;
use support::{LocalChain, command, text};

const RUN: &str = "seed";

const MODEL: &str = r#"{"architectures": ["LlamaForCausalLM"], "hidden_size": 32, "intermediate_size": 64,
"max_position_embeddings": 32, "model_type": "llama", "num_attention_heads": 2, "num_hidden_layers": 1,
"num_key_value_heads": 2, "rms_norm_eps": 0.00001, "rope_theta": 10000.0, "tie_word_embeddings": false,
"torch_dtype": "float32", "vocab_size": 300}"#;

const RUN_CONFIG: &str = include_str!("run.toml");

/// A folder, a chain, and the two people.
struct Scene {
    chain: LocalChain,
    folder: tempfile::TempDir,
}

impl Scene {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs a command line in the folder; the words are separated by blanks.
    fn run(&self, line: &str) -> Output {
        command().current_dir(self.folder.path()).args(line.split_whitespace()).output().unwrap()
    }

    fn owner(&self, line: &str) -> String {
        let rpc = self.chain.variables()[0].1;
        succeeded(&self.run(&format!("{line} --run-id {RUN} --rpc {rpc} --wallet-private-key-path owner.json")))
    }

    /// In lamports.
    fn balance(&self, wallet: Address) -> u64 {
        let rpc = self.chain.variables()[0].1;
        let told = succeeded(&self.run(&format!("wallet balance --rpc {rpc} --address {wallet} --json")));
        serde_json::from_str::<serde_json::Value>(&told).unwrap()["lamports"].as_u64().unwrap()
    }

    fn wallet(&self, name: &str) -> Address {
        let address = succeeded(&self.run(&format!("wallet new --out {name}.json")));
        let rpc = self.chain.variables()[0].1;
        succeeded(&self.run(&format!("wallet airdrop --rpc {rpc} --sol 20 --wallet-private-key-path {name}.json")));
        address.trim().parse().unwrap()
    }
}

fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "exit {:?}\n{}", output.status.code(), text(&output.stderr));
    text(&output.stdout)
}

fn write(path: &Path, content: &str) {
    std::fs::write(path, content).unwrap();
}

#[tokio::test]
async fn the_seed_pages_commands_work_from_an_empty_chain_to_claimed_rewards() {
    let scene = Scene { chain: LocalChain::start(), folder: tempfile::tempdir().unwrap() };
    let rpc = scene.chain.variables()[0].1;
    let (_owner, operator) = (scene.wallet("owner"), scene.wallet("operator"));
    let rpc_option = format!("--rpc {rpc} --wallet-private-key-path owner.json");
    let mint = succeeded(&scene.run(&format!("wallet create-token --supply 1 {rpc_option}")));
    let mint = mint.trim();

    // The owner.
    write(&scene.path("text.txt"), &"In the beginning God created the heaven and the earth.\n".repeat(80));
    write(&scene.path("config.json"), MODEL);
    write(&scene.path("run.toml"), RUN_CONFIG);
    succeeded(&scene.run("tokenize --text text.txt --vocab-size 300 --out tokens"));
    succeeded(&scene.run("init-model --config config.json --seed 7 --out model"));
    scene.owner(&format!("create-run --treasurer-collateral-mint {mint}"));
    scene.owner("update-config --config-path run.toml --name Seed");
    scene.owner("set-future-epoch-rates --earning-rate-points 700");
    scene.owner("treasurer-top-up-rewards --points 1000000");

    // Nobody may join yet, and the answer says why.
    let early = scene.run(&format!("can-join --rpc {rpc} --run-id {RUN} --authorizer {operator} --pubkey {operator}"));
    assert_eq!(early.status.code(), Some(5), "{}", text(&early.stderr));
    let grant = format!("join-authorization-create --rpc {rpc} --authorizer {operator}");
    succeeded(&scene.run(&format!("{grant} --wallet-private-key-path owner.json")));
    scene.owner("set-paused --resume");

    // The operator, with a .env file as the documentation has it; the primary provider is down, as providers are at times.
    succeeded(&scene.run(&format!("can-join --rpc {rpc} --run-id {RUN} --authorizer {operator} --pubkey {operator}")));
    let ws = scene.chain.variables()[1].1;
    write(
        &scene.path(".env"),
        &format!(
            "RPC=http://127.0.0.1:9\nWS_RPC=ws://127.0.0.1:9\nRPC_2=\"{rpc}\"\nWS_RPC_2=\"{ws}\"\nRUN_ID={RUN}\nNVIDIA_DRIVER_CAPABILITIES=all\n\
             DATA_PARALLELISM=1\nTENSOR_PARALLELISM=2\nMICRO_BATCH_SIZE=2\nAUTHORIZER={operator}\nDATA_PATH=tokens/tokens.bin\n\
             P2P_BIND=127.0.0.1\nLOGS=json\n"
        ),
    );
    let key = std::fs::read_to_string(scene.path("operator.json")).unwrap();
    // Two heads can't be split over three devices: refused before anything is joined.
    let mut odd = command();
    odd.current_dir(scene.folder.path()).args(["--env-file", ".env"]).env("RAW_WALLET_PRIVATE_KEY", &key);
    let odd = odd.env("TENSOR_PARALLELISM", "3").output().unwrap();
    assert_eq!(odd.status.code(), Some(16), "{}", text(&odd.stderr));
    assert!(text(&odd.stderr).contains("does not divide num_attention_heads 2"), "{}", text(&odd.stderr));

    let mut train = command();
    train.current_dir(scene.folder.path()).args(["--env-file", ".env"]).env("RAW_WALLET_PRIVATE_KEY", &key);
    let trained = tokio::time::timeout(std::time::Duration::from_secs(300), tokio::process::Command::from(train).output());
    let trained = trained.await.expect("the run ends").unwrap();
    succeeded(&trained);
    let log = text(&trained.stderr);
    assert!(log.contains("trained a batch") && !log.contains(key.trim()), "{log}");

    // Every transaction has cost what the operators' guide says; only the last ones may have gone uncounted.
    let log = std::fs::read_to_string(scene.path("psyche-data/events.jsonl")).unwrap();
    let confirmed = u64::try_from(log.matches("\"transaction_confirmed\"").count()).unwrap();
    let spent = 20_000_000_000 - scene.balance(operator);
    assert!(confirmed > 5 && spent.is_multiple_of(5_000), "{confirmed} transactions, {spent} lamports");
    assert!((confirmed..=confirmed + 5).contains(&(spent / 5_000)), "{confirmed} transactions, {spent} lamports");

    // Claimed once, and only once.
    let before = scene.balance(operator);
    let claim = format!("treasurer-claim-rewards --rpc {rpc} --run-id {RUN} --wallet-private-key-path operator.json");
    let claimed: serde_json::Value = serde_json::from_str(&succeeded(&scene.run(&format!("{claim} --json")))).unwrap();
    assert_eq!((&claimed["kind"], &claimed["amount"], &claimed["claimed_in_all"]), (&"paid".into(), &700.into(), &700.into()));
    let rent = before - scene.balance(operator) - 5_000;
    let guide = include_str!("../../docs/OPERATORS.md");
    assert!(
        guide.contains(&format!("{:.4} SOL of rent", rent as f64 / 1e9)),
        "the guide does not say that a claim pays {rent}"
    );
    let again = succeeded(&scene.run(&claim));
    assert!(again.contains("nothing to claim"), "{again}");
    let again: serde_json::Value = serde_json::from_str(&succeeded(&scene.run(&format!("{claim} --json")))).unwrap();
    assert_eq!((&again["kind"], &again["signature"]), (&"nothing_to_claim".into(), &serde_json::Value::Null));
}
