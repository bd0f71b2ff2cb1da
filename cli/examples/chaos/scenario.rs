//! What is run: how many nodes, on which network, with what happening to them.

use super::bridge::Shape;

/// The run's name.
pub(crate) const RUN_ID: &str = "chaos";
/// Entries of the tokenizer's vocabulary.
pub(crate) const VOCABULARY: u32 = 1024;
/// Tokens of a sample.
pub(crate) const SEQUENCE: u32 = 64;
/// 50 Mbit/s, 80 ms there and back, one frame in a hundred lost.
pub(crate) const SHAPE: Shape = Shape { delay_ns: 40_000_000, loss_per_million: 10_000, rate_bits: 50_000_000 };

/// A run of the network.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    /// Nodes, each on a host of its own.
    pub(crate) nodes: u8,
    /// Whether the last of them starts only when the others train.
    pub(crate) late: bool,
    pub(crate) seed: u64,
    /// Steps of the run.
    pub(crate) steps: u32,
    /// Samples of a round for each node.
    pub(crate) samples: u32,
    /// Real seconds of an epoch.
    pub(crate) epoch_s: f64,
    /// Real seconds after which a round goes on without those who have not trained.
    pub(crate) train_s: f64,
    /// How many seconds the chain's clock advances in a real one.
    pub(crate) chain_speed: f64,
    pub(crate) shape: Shape,
    /// Real seconds from one kill to the next, where processes are killed and providers fail.
    pub(crate) kill_every_s: Option<u64>,
    /// Real seconds within which it must end.
    pub(crate) ends_within_s: u64,
}

impl Scenario {
    /// `real` seconds on the chain's clock, at least one.
    fn chain_s(&self, real: f64) -> u64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few thousand, and a cast saturates")]
        let seconds = (real * self.chain_speed).round() as u64;
        seconds.max(1)
    }

    pub(crate) fn run_config(&self) -> String {
        let batch = self.samples * u32::from(self.nodes);
        format!(
            r#"[config]
warmup_time = {warmup}
cooldown_time = {short}
epoch_time = {epoch}
max_round_train_time = {train}
round_witness_time = 1
min_clients = 1
init_min_clients = {first}
witness_nodes = 0
global_batch_size_start = {batch}
global_batch_size_end = {batch}
total_steps = {steps}
verification_percent = 0
waiting_for_members_extra_time = {short}

[model.LLM]
architecture = "HfLlama"
data_type = "Pretraining"
max_seq_len = {SEQUENCE}
data_location = {{ Local = "tokens.bin" }}

[model.LLM.checkpoint.Hub]
repo_id = "model"

[model.LLM.lr_schedule.Cosine]
base_lr = 2.0e-3
warmup_steps = 2
warmup_init_lr = 5.0e-4
total_steps = {steps}
final_lr = 2.0e-4

[model.LLM.optimizer.Distro]
clip_grad_norm = 1.0
compression_decay = 0.98
compression_chunk = 16
compression_topk = 16
quantize_1bit = true
"#,
            warmup = self.chain_s(20.0),
            short = self.chain_s(2.0),
            epoch = self.chain_s(self.epoch_s),
            train = self.chain_s(self.train_s),
            first = self.nodes - u8::from(self.late),
            steps = self.steps,
        )
    }

    /// The model's config.json: small, so that the rounds' time is the network's.
    #[expect(clippy::unused_self, reason = "beside the run's configuration")]
    pub(crate) fn model_config(&self) -> String {
        let config = serde_json::json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 128, "intermediate_size": 384,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": VOCABULARY,
            "max_position_embeddings": SEQUENCE, "rms_norm_eps": 1e-5, "rope_theta": 10_000.0, "tie_word_embeddings": false,
            "torch_dtype": "float32",
        });
        format!("{config:#}\n")
    }
}
