//! What a testnet consists of, worked out before anything is started: pure functions of the arguments.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use psyche_data::tokenize::TOKENS_FILE;
use psyche_data::{Shuffle, TokenConfig, TokenSize};
use psyche_gpu::exact::LrSchedule;
use psyche_gpu::optimizer::OptimizerConfig;
use psyche_messages::Address;

use super::args::{DEVICES_MAX, TestnetArgs};
use super::network::Endpoint;

/// The run's name on the local chain.
pub(crate) const RUN_ID: &str = "testnet";
/// Name of the checkpoint folder, under the folder that nodes get as MODELS_DIR.
const MODEL: &str = "model";
/// Seed of the initial weights.
pub(crate) const MODEL_SEED: u64 = 1;
/// Entries of the tokenizer's vocabulary.
pub(crate) const VOCAB_SIZE: u32 = 4096;
/// Tokens of a sample.
pub(crate) const SEQUENCE: u32 = 128;
/// Samples of a round for each node.
const SAMPLES_PER_NODE: u16 = 4;
/// Points that an epoch pays, shared by those who finish it: divisible by any number of nodes up to ten.
pub(crate) const POINTS_PER_EPOCH: u64 = 2520 * 1_000;
/// Nodes from which on the last one joins late.
const LATE_FROM: u16 = 3;
/// Steps without which nobody joins late: a round takes the chain a quarter of a second at the least, so that fewer of them
/// could all fit into the first epoch, and nothing would be left to train for who comes after it.
const LATE_STEPS_MIN: u32 = 40;

/// How one node is laid out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodePlan {
    /// Its number, from 1.
    pub(crate) number: u16,
    /// Data-parallel ranks.
    pub(crate) dp: u16,
    /// Tensor-parallel ranks.
    pub(crate) tp: u16,
    /// Whether it starts only when the first epoch trains.
    pub(crate) late: bool,
    /// Its folder.
    pub(crate) folder: PathBuf,
}

impl NodePlan {
    pub(crate) fn wallet(&self) -> PathBuf {
        self.folder.join("wallet.json")
    }

    /// The node's DATA_DIR.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub(crate) fn events(&self) -> PathBuf {
        self.data().join("events.jsonl")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.folder.join("log.txt")
    }
}

/// A whole testnet.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Absolute path of the folder that everything is in.
    pub(crate) out: PathBuf,
    /// The nodes, in the order in which they start.
    pub(crate) nodes: Vec<NodePlan>,
    /// Steps that the run trains.
    pub(crate) steps: u32,
    /// Chain seconds in a real one.
    pub(crate) chain_speed: f64,
}

impl Plan {
    /// The plan for `args`, under the absolute folder `out`.
    ///
    /// # Errors
    /// If --devices, --dp and --tp contradict each other.
    pub(crate) fn new(args: &TestnetArgs, out: &Path) -> Result<Self> {
        let layouts = layouts(args)?;
        let node = |number| {
            let (dp, tp) = layouts[usize::from(number - 1) % layouts.len()];
            let late = args.nodes >= LATE_FROM && args.steps >= LATE_STEPS_MIN && number == args.nodes;
            NodePlan { number, dp, tp, late, folder: out.join(format!("node-{number}")) }
        };
        let nodes = (1..=args.nodes).map(node).collect();
        Ok(Self { out: out.to_path_buf(), nodes, steps: args.steps, chain_speed: args.chain_speed })
    }

    pub(crate) fn text(&self) -> PathBuf {
        self.out.join("text")
    }

    pub(crate) fn model(&self) -> PathBuf {
        self.out.join(MODEL)
    }

    pub(crate) fn plot(&self) -> PathBuf {
        self.out.join("loss.svg")
    }

    pub(crate) fn report(&self) -> PathBuf {
        self.out.join("report.html")
    }

    /// The model at the end, with its tokenizer.
    pub(crate) fn trained(&self) -> PathBuf {
        self.out.join("trained")
    }

    pub(crate) fn summary(&self) -> PathBuf {
        self.out.join("summary.json")
    }

    pub(crate) fn run_toml(&self) -> PathBuf {
        self.out.join("run.toml")
    }

    /// Samples of a step.
    pub(crate) fn batch(&self) -> u16 {
        SAMPLES_PER_NODE * self.node_count()
    }

    /// The tokens as every node reads them: samples in the order of the text.
    pub(crate) fn tokens(&self) -> TokenConfig {
        TokenConfig {
            path: self.text().join(TOKENS_FILE),
            token_size: TokenSize::TwoBytes,
            seq_len: SEQUENCE,
            vocab_size: VOCAB_SIZE,
            shuffle: Shuffle::DontShuffle,
        }
    }

    /// The learning rates of [`Self::run_config`].
    pub(crate) const fn schedule(&self) -> LrSchedule {
        LrSchedule::Cosine { base: 2.0e-3, warmup_init: 5.0e-4, final_rate: 2.0e-4, warmup_steps: 2, total_steps: self.steps }
    }

    /// DisTrO's settings in [`Self::run_config`].
    pub(crate) const fn optimizer() -> OptimizerConfig {
        OptimizerConfig {
            compression_decay: 0.999,
            compression_chunk: 64,
            compression_topk: 8,
            quantize_1bit: true,
            clip_grad_norm: Some(1.0),
        }
    }

    fn node_count(&self) -> u16 {
        u16::try_from(self.nodes.len()).unwrap_or(u16::MAX)
    }

    /// Nodes that wait for each other before the first epoch.
    fn first(&self) -> u16 {
        u16::try_from(self.nodes.iter().filter(|node| !node.late).count()).unwrap_or(u16::MAX)
    }

    /// `real` seconds on the chain's clock, at least one.
    fn chain_seconds(&self, real: f64) -> u64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few thousand, and a cast saturates")]
        let seconds = (real * self.chain_speed).round() as u64;
        seconds.max(1)
    }

    /// The run's configuration, as an owner would write it.
    pub(crate) fn run_config(&self) -> String {
        let batch = self.batch();
        let epoch = self.epoch_seconds();
        format!(
            r#"[config]
warmup_time = {warmup}
cooldown_time = {cooldown}
epoch_time = {epoch_time}
max_round_train_time = {train}
round_witness_time = 1
min_clients = 1
init_min_clients = {first}
witness_nodes = 0
global_batch_size_start = {batch}
global_batch_size_end = {batch}
total_steps = {steps}
verification_percent = 0
waiting_for_members_extra_time = {extra}

[model.LLM]
architecture = "HfLlama"
data_type = "Pretraining"
max_seq_len = {SEQUENCE}
data_location = {{ Local = "{TOKENS_FILE}" }}

[model.LLM.checkpoint.Hub]
repo_id = "{MODEL}"

[model.LLM.lr_schedule.Cosine]
base_lr = 2.0e-3
warmup_steps = 2
warmup_init_lr = 5.0e-4
total_steps = {steps}
final_lr = 2.0e-4

[model.LLM.optimizer.Distro]
clip_grad_norm = 1.0
compression_decay = 0.999
compression_chunk = 64
compression_topk = 8
quantize_1bit = true
"#,
            warmup = self.chain_seconds(epoch * 0.9),
            cooldown = self.chain_seconds(1.5),
            epoch_time = self.chain_seconds(epoch) + 2,
            train = self.chain_seconds(epoch * 0.8),
            first = self.first(),
            steps = self.steps,
            extra = self.chain_seconds(1.5).min(255),
        )
    }

    /// How long an epoch lasts in real seconds: less than the fastest machine needs for all steps, so that whoever comes
    /// late has a second one to join, and not less than a slow machine needs for a round.
    fn epoch_seconds(&self) -> f64 {
        (f64::from(self.steps) * 0.2).clamp(8.0, 60.0)
    }

    /// The model's config.json: small enough for CPUs, wide enough for every layout to split its heads.
    pub(crate) fn model_config(&self) -> String {
        let heads = self.nodes.iter().map(|node| node.tp).max().unwrap_or(1).max(4).next_power_of_two();
        let hidden = 32 * heads;
        let config = serde_json::json!({
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": hidden,
            "intermediate_size": 3 * hidden,
            "num_hidden_layers": 4,
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
            "vocab_size": VOCAB_SIZE,
            "max_position_embeddings": SEQUENCE,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10_000.0,
            "tie_word_embeddings": false,
            "torch_dtype": "float32",
        });
        format!("{config:#}\n")
    }

    /// The variables under which `node` runs; `bootstrap` are addresses of members that run already.
    pub(crate) fn variables(
        &self,
        node: &NodePlan,
        chain: &Endpoint,
        authorizer: Address,
        bootstrap: &[String],
    ) -> Vec<(&'static str, String)> {
        let path = |path: PathBuf| path.to_string_lossy().into_owned();
        vec![
            ("RPC", chain.rpc.clone()),
            ("WS_RPC", chain.ws.clone()),
            ("RUN_ID", RUN_ID.to_owned()),
            ("AUTHORIZER", authorizer.to_string()),
            ("WALLET_PRIVATE_KEY_PATH", path(node.wallet())),
            ("DATA_PARALLELISM", node.dp.to_string()),
            ("TENSOR_PARALLELISM", node.tp.to_string()),
            ("MICRO_BATCH_SIZE", "2".to_owned()),
            ("DEVICE", format!("cpu:{}", node.dp * node.tp)),
            ("P2P_BIND", "127.0.0.1".to_owned()),
            ("P2P_PORT", "0".to_owned()),
            ("BOOTSTRAP_PEERS", bootstrap.join(",")),
            ("METRICS_BIND", "127.0.0.1:0".to_owned()),
            ("DATA_DIR", path(node.data())),
            ("DATA_PATH", path(self.text().join(TOKENS_FILE))),
            ("MODELS_DIR", path(self.out.clone())),
            ("CLAIM_REWARDS", "auto".to_owned()),
        ]
    }
}

/// The layouts that nodes take in turn.
fn layouts(args: &TestnetArgs) -> Result<Vec<(u16, u16)>> {
    let devices = args.devices;
    let one = match (args.dp, args.tp) {
        (Some(dp), Some(tp)) if dp * tp > DEVICES_MAX => {
            bail!("--dp {dp} times --tp {tp} are {} devices; at most {DEVICES_MAX} are accepted", dp * tp)
        }
        (Some(dp), Some(tp)) => (dp, tp),
        (Some(dp), None) if devices.is_multiple_of(dp) => (dp, devices / dp),
        (None, Some(tp)) if devices.is_multiple_of(tp) => (devices / tp, tp),
        (Some(n), None) | (None, Some(n)) => bail!("{devices} devices cannot be split {n} ways; set both --dp and --tp"),
        // Whatever a node's layout, it computes the same: so let them differ.
        (None, None) if devices == 1 => (1, 1),
        (None, None) => return Ok(vec![(devices, 1), (1, devices)]),
    };
    // Heads and rows are split evenly, and there is a power of two of them.
    if !one.1.is_power_of_two() {
        bail!("--tp {}: the demonstration's model splits over a power of two", one.1);
    }
    Ok(vec![one])
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
