#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

use psyche_protocol::model as protocol;

use super::*;

const FULL: &str = r#"
[config]
warmup_time = 30
cooldown_time = 30
epoch_time = 600
max_round_train_time = 30
round_witness_time = 1
min_clients = 2
init_min_clients = 2
witness_nodes = 0
global_batch_size_start = 16
global_batch_size_end = 64
global_batch_size_warmup_tokens = 1000000
total_steps = 5000
verification_percent = 0
waiting_for_members_extra_time = 3

[model.LLM]
architecture = "HfLlama"
data_type = "Pretraining"
max_seq_len = 512
cold_start_warmup_steps = 0

[model.LLM.checkpoint.Hub]
repo_id = "some-org/some-model"

[model.LLM.data_location.Http]
token_size_in_bytes = "TwoBytes"
shuffle = "DontShuffle"
[model.LLM.data_location.Http.location.Gcp]
bucket_name = "some-bucket"
filter_directory = "some/folder"

[model.LLM.lr_schedule.Cosine]
base_lr = 4.0e-4
warmup_steps = 250
warmup_init_lr = 0.0
total_steps = 5000
final_lr = 4.0e-5

[model.LLM.optimizer.Distro]
clip_grad_norm = 1.0
compression_decay = 0.999
compression_chunk = 64
compression_topk = 8
quantize_1bit = true
"#;

fn refusal(text: &str) -> String {
    toml::from_str::<RunConfig>(text).unwrap_err().to_string()
}

#[test]
fn the_documented_file_is_read_in_full() {
    let run: RunConfig = toml::from_str(FULL).unwrap();
    let model = protocol::Model::from(&run.model);
    let llm = model.llm();
    let protocol::Checkpoint::Hub(repo) = llm.checkpoint else { panic!("{:?}", llm.checkpoint) };
    assert_eq!(repo.repo_id.as_str(), "some-org/some-model");
    let protocol::LrSchedule::Cosine(decay) = llm.lr_schedule else { panic!("{:?}", llm.lr_schedule) };
    assert_eq!(f64::from_bits(decay.base_lr.0), 4.0e-4);
    assert_eq!(decay.total_steps, 5000);
    let config = psyche_protocol::layout::Config::from(&run.config);
    assert!(config.check() && model.check());
    assert_eq!(config.epoch_time, 600);
}

#[test]
fn unknown_keys_are_refused_with_their_line() {
    let refused = refusal(&FULL.replace("cooldown_time = 30", "cooldown_time = 30\ncooldown_tiem = 3"));
    assert!(refused.contains("cooldown_tiem") && refused.contains("line 5"), "{refused}");
}

#[test]
fn missing_keys_are_named() {
    let refused = refusal(&FULL.replace("total_steps = 5000\nverification", "verification"));
    assert!(refused.contains("total_steps"), "{refused}");
}

#[test]
fn values_out_of_range_and_long_texts_are_refused_with_their_line() {
    let refused = refusal(&FULL.replace("min_clients = 2\ninit", "min_clients = 70000\ninit"));
    assert!(refused.contains("line 8"), "{refused}");
    let refused = refusal(&FULL.replace("some-org/some-model", &"m".repeat(65)));
    assert!(refused.contains("65 bytes") && refused.contains("holds 64"), "{refused}");
}

#[test]
fn what_may_be_left_out_counts_as_zero() {
    let text = FULL.replace("global_batch_size_warmup_tokens = 1000000\n", "").replace("cold_start_warmup_steps = 0\n", "");
    let run: RunConfig = toml::from_str(&text).unwrap();
    assert_eq!(run.config.global_batch_size_warmup_tokens, 0);
}
