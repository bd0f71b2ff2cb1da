#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

use psyche_protocol::model as protocol;

use super::*;

pub(crate) const FULL: &str = r#"
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
    load::parse(text).unwrap_err()
}

#[test]
fn the_documented_file_is_read_in_full() {
    let run = load::parse(FULL).unwrap();
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
fn what_is_wrong_is_told_with_line_and_column() {
    // The replaced text, its replacement, where the problem lies, and a word of it.
    let cases = [
        ("cooldown_time = 30", "cooldown_time = 30\ncooldown_tiem = 3", "line 5, column 1", "cooldown_tiem"),
        ("min_clients = 2\ninit", "min_clients = 70000\ninit", "line 8, column 15", "70000"),
        ("epoch_time = 600", "epoch_time = -600", "line 5, column 14", "-600"),
        ("epoch_time = 600", "epoch_time = ", "line 5, column 14", ""),
        ("epoch_time = 600", "epoch_time = 600\nepoch_time = 601", "line 6, column 1", "duplicate"),
        ("some-org/some-model", &"m".repeat(65), "line 25, column 11", "65 bytes; the account holds 64"),
        ("architecture = \"HfLlama\"", "architecture = \"Gpt\"", "line 19, column 16", "Gpt"),
        ("base_lr = 4.0e-4", "base_lr = inf", "line 35, column 11", "not finite"),
        ("compression_decay = 0.999", "compression_decay = 1e300", "line 43, column 21", "not finite"),
        ("warmup_time = 30\ncooldown", "warmup_time = 600\ncooldown", "line 3, column 15", "shorter than epoch_time"),
        ("witness_nodes = 0", "witness_nodes = 3", "line 10, column 17", "witness_nodes"),
        ("total_steps = 5000\nverification", "verification", "line 2, column 1", "missing field `total_steps`"),
    ];
    for (what, instead, place, word) in cases {
        assert!(FULL.contains(what), "{what}");
        let refused = refusal(&FULL.replacen(what, instead, 1));
        assert!(refused.starts_with(place) && refused.contains(word), "{instead}: {refused}");
        assert!(!refused.contains('\n'), "{refused}");
    }
}

#[test]
fn several_broken_rules_are_told_at_once() {
    let refused = refusal(
        &FULL
            .replace("total_steps = 5000\nverification", "total_steps = 0\nverification")
            .replace("cooldown_time = 30", "cooldown_time = 0"),
    );
    assert!(refused.contains("total_steps") && refused.contains("cooldown_time"), "{refused}");
}

#[test]
fn what_may_be_left_out_counts_as_zero() {
    let text = FULL.replace("global_batch_size_warmup_tokens = 1000000\n", "").replace("cold_start_warmup_steps = 0\n", "");
    let run: RunConfig = toml::from_str(&text).unwrap();
    assert_eq!(run.config.global_batch_size_warmup_tokens, 0);
}

/// The reference in docs/RUNS.md, from the types themselves: every field under its type, with its comment.
fn reference() -> String {
    let mut page = String::new();
    let mut comment = String::new();
    for line in include_str!("../run_config.rs").lines() {
        let text = line.trim();
        let field = text.strip_prefix("pub(crate) ").unwrap_or(text).split_once(": ");
        if let Some(words) = text.strip_prefix("/// ") {
            comment.push_str(if comment.is_empty() { "" } else { " " });
            comment.push_str(words);
            continue;
        }
        let head = ["pub(crate) struct ", "pub(crate) enum "].iter().find_map(|kind| text.strip_prefix(kind));
        let name = match head {
            Some(head) => head.strip_suffix(" {"),
            // A variant with fields.
            None if line.starts_with("    ") && !line.starts_with("     ") => text.strip_suffix(" {"),
            None => None,
        };
        if let Some(name) = name.filter(|name| name.chars().all(char::is_alphanumeric)) {
            page.push_str(&format!("\n**{name}**\n\n"));
        } else if let Some((name, kind)) = field.filter(|_| line.starts_with("    ") && text.ends_with(','))
            && name.chars().all(|c| c.is_alphanumeric() || c == '_')
        {
            page.push_str(&format!("- `{name}` ({}). {comment}\n", in_words(kind.trim_end_matches(','))));
            assert!(!comment.is_empty(), "{name} has no comment");
        }
        comment.clear();
    }
    // Types without a field that one writes are left out.
    let mut parts = page.split("\n**").filter(|part| part.contains("\n- "));
    parts.by_ref().fold(String::new(), |page, part| format!("{page}\n**{part}"))
}

/// A field's type as a person writes its value.
fn in_words(kind: &str) -> String {
    if let Some(inner) = kind.strip_prefix("Option<").and_then(|kind| kind.strip_suffix('>')) {
        return format!("{}, may be left out", in_words(inner));
    }
    if let Some(len) = kind.strip_prefix("Text<").and_then(|kind| kind.strip_suffix('>')) {
        return format!("text of at most {len} bytes");
    }
    match kind {
        "u8" | "u16" | "u32" | "u64" => format!("whole number of {} bits", &kind[1..]),
        "Finite" | "Finite32" => "number".to_owned(),
        "[Finite32; 2]" => "two numbers".to_owned(),
        "bool" => "true or false".to_owned(),
        other => format!("one of {}", other.trim_start_matches("Box<").trim_end_matches('>')),
    }
}

#[test]
fn the_reference_for_owners_is_what_the_types_say() {
    let page = include_str!("../../../docs/RUNS.md");
    let (_, rest) = page.split_once("<!-- fields: begin -->\n").unwrap();
    let (fields, _) = rest.split_once("<!-- fields: end -->").unwrap();
    let reference = reference();
    assert!(fields == reference, "docs/RUNS.md is stale; between its marks belongs:\n{reference}");
}

#[test]
fn the_example_for_owners_is_read_in_full() {
    let page = include_str!("../../../docs/RUNS.md");
    let (_, rest) = page.split_once("```toml\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    let run = load::parse(example).unwrap();
    assert!(protocol::Model::from(&run.model).check());
}
