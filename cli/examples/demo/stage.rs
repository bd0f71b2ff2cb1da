//! What stands before a node starts: a local chain in a process of its own, funded wallets, tokens, weights, and a run that anybody
//! may join. All of it by the commands that an owner types.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use psyche_chain::Wallet;

/// The run's name.
pub(crate) const RUN_ID: &str = "demo";

const MODEL: &str = r#"{"architectures": ["LlamaForCausalLM"], "hidden_size": 32, "intermediate_size": 64,
"max_position_embeddings": 32, "model_type": "llama", "num_attention_heads": 2, "num_hidden_layers": 1,
"num_key_value_heads": 2, "rms_norm_eps": 0.00001, "rope_theta": 10000.0, "tie_word_embeddings": false,
"torch_dtype": "float32", "vocab_size": 300}"#;
const TEXT: &str = "In the beginning God created the heaven and the earth.\n";

/// A chain with a run, in a folder. Dropping it ends the chain.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) folder: PathBuf,
    pub(crate) rpc: String,
    pub(crate) ws: String,
    program: PathBuf,
    chain: Child,
}

impl Drop for Stage {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.chain.kill());
        drop(self.chain.wait());
    }
}

impl Stage {
    /// Builds it in `folder`, which must be there, for up to `nodes` nodes, of which `first` wait for each other before the first
    /// epoch. An epoch takes `epoch_s` seconds of the chain's clock, of which eight are one.
    ///
    /// # Errors
    /// If a part of it can't be made.
    pub(crate) fn new(program: &Path, folder: &Path, nodes: usize, first: usize, epoch_s: u32) -> Result<Self> {
        let mut funds = Vec::new();
        for name in (1..=nodes).map(|node| format!("node-{node}")).chain(["owner".to_owned()]) {
            let wallet = Wallet::new();
            wallet.save(&folder.join(format!("{name}.json"))).context("failed to save a wallet")?;
            funds.extend(["--fund".to_owned(), wallet.address().to_string()]);
        }
        let (chain, rpc, ws) = start_chain(program, &funds)?;
        let stage = Self { folder: folder.to_owned(), rpc, ws, program: program.to_owned(), chain };
        stage.write("text.txt", &TEXT.repeat(80))?;
        stage.write("config.json", MODEL)?;
        stage.write("run.toml", &run_config(nodes, first, epoch_s))?;
        stage.good("tokenize --text text.txt --vocab-size 300 --out tokens")?;
        stage.good("init-model --config config.json --seed 7 --out model")?;
        for line in [
            "join-authorization-create --permissionless",
            "create-run",
            "update-config --config-path run.toml",
            "set-paused --resume",
        ] {
            stage.good(&format!("{line} --wallet-private-key-path owner.json"))?;
        }
        Ok(stage)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.path(name);
        std::fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))
    }

    /// The program, with the chain as its provider, and without this process's variables but those that every program needs.
    fn command(&self) -> Command {
        let mut command = clean(&self.program);
        command.current_dir(&self.folder).env("RPC", &self.rpc).env("WS_RPC", &self.ws).env("RUN_ID", RUN_ID);
        command
    }

    fn good(&self, line: &str) -> Result<()> {
        let output = self.command().args(line.split_whitespace()).output();
        let output = output.with_context(|| format!("failed to run {}", self.program.display()))?;
        ensure!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(())
    }

    /// The command that starts `node` as a process, which ends with the calling thread.
    pub(crate) fn train(&self, node: usize, bootstrap: &[String]) -> Command {
        let mut command = self.command();
        command
            .arg("train")
            .env("WALLET_PRIVATE_KEY_PATH", format!("node-{node}.json"))
            .env("DEVICE", "cpu:1")
            .env("OMP_NUM_THREADS", "1")
            .env("P2P_BIND", "127.0.0.1")
            .env("P2P_PORT", "0")
            .env("BOOTSTRAP_PEERS", bootstrap.join(","))
            .env("METRICS_BIND", "off")
            .env("LOGS", "plain")
            .env("DATA_DIR", self.data(node))
            .env("DATA_PATH", "tokens/tokens.bin")
            .env("MODELS_DIR", &self.folder);
        command
    }

    /// The folder for data of `node`.
    pub(crate) fn data(&self, node: usize) -> PathBuf {
        self.path(&format!("node-{node}"))
    }
}

fn start_chain(program: &Path, funds: &[String]) -> Result<(Child, String, String)> {
    let mut command = clean(program);
    command.args(["localnet", "--rpc-port", "0", "--ws-port", "0", "--chain-speed", "8"]).args(funds);
    let mut chain = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().context("failed to start the chain")?;
    let lines = chain.stdout.take().map(BufReader::new).into_iter().flat_map(BufRead::lines).take(2);
    let told: Vec<String> = lines.map_while(Result::ok).collect();
    let value = |name: &str| told.iter().find_map(|line| Some(line.strip_prefix(name)?.to_owned()));
    let (Some(rpc), Some(ws)) = (value("RPC="), value("WS_RPC=")) else {
        drop(chain.kill());
        bail!("the local chain did not start: {:?}", chain.wait());
    };
    Ok((chain, rpc, ws))
}

/// `program` with few variables. It is killed when the calling thread ends.
fn clean(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("OMP_WAIT_POLICY", "passive").stdin(Stdio::null());
    for name in ["PATH", "HOME", "LD_LIBRARY_PATH", "TMPDIR", "RUST_LOG", "RUST_BACKTRACE", "LLVM_PROFILE_FILE"] {
        command.envs(std::env::var_os(name).map(|value| (name, value)));
    }
    let parent = std::process::id();
    let prepare = move || {
        // SAFETY: prctl and getppid are async-signal-safe and touch no memory of ours.
        unsafe {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            // The parent may have died before the line above.
            if u32::try_from(libc::getppid()) != Ok(parent) {
                return Err(std::io::ErrorKind::BrokenPipe.into());
            }
        }
        Ok(())
    };
    // SAFETY: the closure runs between fork and exec and calls only async-signal-safe functions; it does not allocate.
    unsafe { command.pre_exec(prepare) };
    command
}

/// A run that goes on for as long as it is looked at. Rounds last at least half a second, so that a few of them are a while.
fn run_config(nodes: usize, first: usize, epoch_s: u32) -> String {
    format!(
        r#"[config]
warmup_time = {warmup}
cooldown_time = 4
epoch_time = {epoch_s}
max_round_train_time = 24
round_witness_time = 4
min_clients = 2
init_min_clients = {first}
witness_nodes = 0
global_batch_size_start = {batch}
global_batch_size_end = {batch}
total_steps = 10000
verification_percent = 0
waiting_for_members_extra_time = 4

[model.LLM]
architecture = "HfLlama"
data_type = "Pretraining"
max_seq_len = 32
data_location = {{ Local = "tokens" }}

[model.LLM.checkpoint.Hub]
repo_id = "model"

[model.LLM.lr_schedule.Constant]
base_lr = 1.0e-3
warmup_steps = 0
warmup_init_lr = 0.0

[model.LLM.optimizer.Distro]
compression_decay = 0.999
compression_chunk = 64
compression_topk = 8
quantize_1bit = true
"#,
        warmup = epoch_s - 4,
        batch = 2 * nodes,
    )
}
