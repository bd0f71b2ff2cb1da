//! Commands that the guides show and no other test types. `cli/src/pages/proofs.rs` says which test runs which command.
#![cfg(feature = "localnet")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

mod support;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use support::{Folder, LocalChain, Scene, command, text};

const MODEL: &str = r#"{"architectures": ["LlamaForCausalLM"], "hidden_size": 32, "intermediate_size": 64,
"max_position_embeddings": 32, "model_type": "llama", "num_attention_heads": 2, "num_hidden_layers": 1,
"num_key_value_heads": 2, "rms_norm_eps": 0.00001, "rope_theta": 10000.0, "tie_word_embeddings": false,
"torch_dtype": "float32", "vocab_size": 300}"#;

/// What a command in a folder without any chain prints; it must succeed.
fn good(folder: &Folder, line: &str) -> String {
    let output = folder.run(line);
    assert!(output.status.success(), "{line}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// A process that prints and goes on; gone when dropped.
struct Talker(Child, std::io::Lines<BufReader<std::process::ChildStdout>>);

impl Talker {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self(child, lines)
    }

    /// The rest of the next line that begins so.
    fn line(&mut self, start: &str) -> String {
        let found = self.1.by_ref().find_map(|line| Some(line.unwrap().strip_prefix(start)?.to_owned()));
        found.unwrap_or_else(|| panic!("no line begins with {start:?}"))
    }

    /// Ctrl-C: the exit code.
    fn interrupted(mut self) -> Option<i32> {
        // SAFETY: the child is ours and has not been waited for.
        assert_eq!(unsafe { libc::kill(i32::try_from(self.0.id()).unwrap(), libc::SIGINT) }, 0);
        self.0.wait().unwrap().code()
    }
}

impl Drop for Talker {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

#[test]
fn tools_that_need_no_chain_do_what_the_guides_say() {
    let folder = Folder::new();
    let made = good(&folder, "create-static-p2p-identity --save-path identity.key");
    let shown = good(&folder, "show-static-p2p-identity --identity-secret-key-path identity.key");
    assert!(made.trim().starts_with("12D3Koo") && made == shown, "{made}{shown}");
    good(&folder, "wallet new --out id.json");
    let derived = good(&folder, "show-static-p2p-identity --run-id my-run --wallet-private-key-path id.json");
    let other = good(&folder, "show-static-p2p-identity --run-id another --wallet-private-key-path id.json");
    assert!(derived.trim().starts_with("12D3Koo") && derived != other && derived != shown, "{derived}{other}");

    folder.write("text.txt", &"In the beginning God created the heaven and the earth.\n".repeat(80), 0o600);
    folder.write("config.json", MODEL, 0o600);
    good(&folder, "tokenize --text text.txt --vocab-size 300 --out tokens");
    good(&folder, "init-model --config config.json --seed 7 --out model");
    let write = "generate --checkpoint model --prompt In --tokens 4 --tokenizer tokens/tokenizer.json";
    let written = good(&folder, write);
    assert!(written.contains("In") && written == good(&folder, write), "{written}");

    let event = r#"{"v":1,"unix_ms":1700000000000,"event":"stopped","reason":"SIGTERM"}"#;
    std::fs::create_dir(folder.path("psyche-data")).unwrap();
    folder.write("psyche-data/events.jsonl", &format!("{event}\n"), 0o600);
    assert!(good(&folder, "status --replay psyche-data").contains("stopped"));
    assert_eq!(good(&folder, "status --replay psyche-data --json"), format!("{event}\n"));
}

#[test]
fn a_chain_gets_programs_and_an_endpoint_as_the_guides_say() {
    let folder = Folder::new();
    let wallet = good(&folder, "wallet new --out owner.json");
    let chain = LocalChain::start_with(&["--fund", wallet.trim()]);
    let balance = folder.run(&format!("wallet balance --rpc {} --address {} --json", chain.rpc(), wallet.trim()));
    let balance: Value = serde_json::from_slice(&balance.stdout).unwrap();
    assert_eq!(balance["lamports"], 100_000_000_000_u64, "{balance}");

    let program = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("programs/elf/authorizer.so");
    std::fs::copy(program, folder.path("authorizer.so")).unwrap();
    let rpc = chain.rpc();
    let deploy = format!(
        "deploy --program authorizer.so --program-keypair authorizer.json --rpc {rpc} --wallet-private-key-path owner.json"
    );
    let id = good(&folder, &deploy);
    assert_eq!(good(&folder, &deploy), id, "what is there stays");

    // Another endpoint of the same chain.
    let port = |url: &str| url.rsplit_once(':').unwrap().1.to_owned();
    let mut endpoint = command();
    endpoint.args(["localnet-endpoint", "--rpc-port", "0", "--ws-port", "0"]);
    endpoint.args(["--chain-rpc-port", &port(rpc), "--chain-ws-port", &port(chain.variables()[1].1)]);
    let mut endpoint = Talker::start(endpoint);
    let url = endpoint.line("RPC=");
    assert_eq!(good(&folder, &format!("list-runs --rpc {url} --state waiting-for-members --json")).trim(), "[]");
    assert_eq!(endpoint.interrupted(), Some(0));
    assert_eq!(folder.run(&format!("list-runs --rpc {url}")).status.code(), Some(7));
}

#[test]
fn a_run_is_watched_until_ctrl_c() {
    let scene = Scene::with_run("watched");
    let mut watch = command();
    watch.args(["status", "--run-id", "watched", "--watch"]).envs(scene.chain.variables());
    let mut watch = Talker::start(watch);
    for _look in 0..2 {
        let line = watch.line("run ");
        assert!(line.contains("watched") && line.contains("phase Uninitialized"), "{line}");
    }
    assert_eq!(watch.interrupted(), Some(0));
}

#[test]
fn optimizers_are_compared_as_the_guides_say() {
    let folder = Folder::new();
    let told =
        good(&folder, "compare-optimizers --steps 4 --seeds 1 --batch 2 --senders 1 --adamw-lr 1e-3,2e-3 --out compared");
    assert!(told.contains("AdamW") && told.contains("DisTrO"), "{told}");
    assert!(std::fs::read_dir(folder.path("compared")).unwrap().count() > 0);
}
