//! A run on a local chain that is trained by nodes in processes of their own.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{RUN_TOML, Scene, command};

/// A model that trains in milliseconds, as `init-model` reads it.
pub(crate) const MODEL: &str = r#"{"architectures": ["LlamaForCausalLM"], "hidden_size": 32, "intermediate_size": 64,
"max_position_embeddings": 32, "model_type": "llama", "num_attention_heads": 2, "num_hidden_layers": 1,
"num_key_value_heads": 2, "rms_norm_eps": 0.00001, "rope_theta": 10000.0, "tie_word_embeddings": false,
"torch_dtype": "float32", "vocab_size": 300}"#;

/// What it is trained on.
pub(crate) const TEXT: &str = "In the beginning God created the heaven and the earth.\n";

/// How long a node and its chain may take for anything, on a machine that does much else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(240);

/// The run's file with other values for some of its names.
pub(crate) fn run_toml(changes: &[(&str, &str)]) -> String {
    let line = |line: &str| {
        let name = line.split(" = ").next();
        let change = changes.iter().find(|(changed, _)| name == Some(changed));
        change.map_or_else(|| line.to_owned(), |(name, value)| format!("{name} = {value}")) + "\n"
    };
    let toml: String = RUN_TOML.lines().map(line).collect();
    assert!(changes.iter().all(|(name, value)| toml.contains(&format!("\n{name} = {value}\n"))), "{toml}");
    toml
}

impl Scene {
    /// With a run of `toml` that goes on, a wallet with funds for each of `wallets`, and what they need to train it.
    pub(crate) fn to_train(run: &str, toml: &str, wallets: &[&str]) -> Self {
        let scene = Self::empty();
        scene.wallet("owner", "20");
        for wallet in wallets {
            scene.wallet(wallet, "5");
        }
        scene.write("text.txt", &TEXT.repeat(80), 0o600);
        scene.write("config.json", MODEL, 0o600);
        scene.write("run.toml", toml, 0o600);
        scene.good("tokenize --text text.txt --vocab-size 300 --out tokens");
        scene.good("init-model --config config.json --seed 7 --out model");
        let owner = "--wallet-private-key-path owner.json";
        scene.good(&format!("join-authorization-create --permissionless {owner}"));
        scene.good(&format!("create-run --run-id {run} {owner}"));
        scene.good(&format!("update-config --run-id {run} --config-path run.toml {owner}"));
        scene.good(&format!("set-paused --run-id {run} --resume {owner}"));
        scene
    }

    /// The variables of a node of the wallet `who`, whose data is in the folder `data-WHO`.
    pub(crate) fn node_variables(&self, run: &str, who: &str) -> Vec<(&'static str, String)> {
        let mut variables: Vec<_> = self.chain.variables().map(|(name, value)| (name, value.to_owned())).into();
        variables.extend([
            ("RUN_ID", run.to_owned()),
            ("WALLET_PRIVATE_KEY_PATH", format!("{who}.json")),
            ("DATA_DIR", format!("data-{who}")),
            ("DATA_PATH", "tokens/tokens.bin".to_owned()),
            ("DEVICE", "cpu".to_owned()),
            ("P2P_BIND", "127.0.0.1".to_owned()),
            ("METRICS_BIND", "127.0.0.1:0".to_owned()),
        ]);
        variables
    }

    /// `train` with the wallet `who`.
    pub(crate) fn train(&self, run: &str, who: &str) -> Command {
        let mut command = command();
        command.current_dir(self.path("")).arg("train").envs(self.node_variables(run, who));
        command
    }

    /// Where a running node of `who` is asked, once it has noted it.
    pub(crate) fn http_address(&self, who: &str) -> Option<String> {
        let noted = std::fs::read_to_string(self.path(&format!("data-{who}/http-address"))).ok()?;
        noted.ends_with('\n').then(|| noted.trim().to_owned())
    }

    /// Where a node of `who` listens for peers, once it has said so in its event log: for `BOOTSTRAP_PEERS`.
    pub(crate) fn listening(&self, who: &str) -> Option<String> {
        let log = std::fs::read_to_string(self.path(&format!("data-{who}/events.jsonl"))).ok()?;
        let started = log.lines().find(|line| line.contains("\"started\""))?;
        let started: Value = serde_json::from_str(started).ok()?;
        let addresses = started["listen"].as_array()?.iter().map(|address| address.as_str().unwrap());
        Some(addresses.collect::<Vec<_>>().join(","))
    }
}

/// A node in a process of its own; gone when dropped.
pub(crate) struct Node(pub(crate) Child);

impl Node {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }

    pub(crate) fn signal(&self, signal: libc::c_int) {
        // SAFETY: takes no pointers; the child is ours and was not waited for.
        assert_eq!(unsafe { libc::kill(i32::try_from(self.0.id()).unwrap(), signal) }, 0);
    }

    /// Looks again and again until `look` finds something.
    pub(crate) fn until<T>(&mut self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(self.0.try_wait().unwrap().is_none(), "the node ended before {what}");
            assert!(Instant::now() < deadline, "no {what}");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}
