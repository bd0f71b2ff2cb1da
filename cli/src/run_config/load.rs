//! Reading the file: what is wrong is said with line and column.

use std::ops::Range;
use std::path::Path;

use anyhow::Result;
use toml::de::{DeTable, DeValue};

use super::RunConfig;
use crate::exit::{Exit, Failure};

/// Largest file that is read, in bytes.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// Reads a run's TOML and checks what the program would refuse.
///
/// # Errors
/// With file, line and column, and what is accepted there.
pub(crate) fn load(path: &Path) -> Result<RunConfig> {
    let refused = |message: String| Failure::new(Exit::Configuration, message);
    let unreadable = |error: std::io::Error| refused(format!("failed to read {}: {error}", path.display()));
    let length = std::fs::metadata(path).map_err(unreadable)?.len();
    if length > CONFIG_BYTES_MAX {
        let message = format!("{} has {length} bytes; at most {CONFIG_BYTES_MAX} are accepted", path.display());
        return Err(refused(message).into());
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    Ok(parse(&text).map_err(|problem| refused(format!("{}, {problem}", path.display())))?)
}

/// Reads `text`; a problem begins with its line and column.
pub(super) fn parse(text: &str) -> Result<RunConfig, String> {
    let config: RunConfig = toml::from_str(text).map_err(|error| {
        let words = plain(error.message());
        format!("{}: {words}", place(text, error.span()))
    })?;
    check(&config).map_err(|(keys, problem)| format!("{}: {problem}", place(text, find(text, keys))))?;
    Ok(config)
}

/// The reader's words, on one line and without the names of our types.
fn plain(message: &str) -> String {
    let mut words = message.replace('\n', " ");
    for (name, max) in [("u8", u64::from(u8::MAX)), ("u16", u16::MAX.into()), ("u32", u32::MAX.into()), ("u64", u64::MAX)] {
        if let Some(before) = words.strip_suffix(&format!("expected {name}")) {
            words = format!("{before}a whole number from 0 to {max} is accepted");
        }
    }
    words
}

/// Line and column of a range of bytes, both counted from 1; the column in characters.
fn place(text: &str, span: Option<Range<usize>>) -> String {
    let Some(before) = span.and_then(|span| text.get(..span.start)) else { return "line 1, column 1".to_owned() };
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}")
}

/// Where the value at `keys` stands.
fn find(text: &str, keys: &[&str]) -> Option<Range<usize>> {
    let table = DeTable::parse(text).ok()?;
    let (mut at, mut inside) = (table.span(), table.into_inner());
    for key in keys {
        let (_, value) = inside.into_iter().find(|(name, _)| name.get_ref() == key)?;
        at = value.span();
        inside = match value.into_inner() {
            DeValue::Table(table) => table,
            _ => DeTable::new(),
        };
    }
    Some(at)
}

/// What the program would refuse: where, and in words.
type Broken = (&'static [&'static str], String);

fn check(run: &RunConfig) -> Result<(), Broken> {
    let config = &run.config;
    let batch_end: &[&str] = &["config", "global_batch_size_end"];
    let rules: [(bool, &[&str], &str); 13] = [
        (config.warmup_time < config.epoch_time, &["config", "warmup_time"], "warmup_time must be shorter than epoch_time"),
        (config.max_round_train_time > 0, &["config", "max_round_train_time"], "max_round_train_time must not be 0"),
        (
            config.max_round_train_time < config.epoch_time,
            &["config", "max_round_train_time"],
            "max_round_train_time must be shorter than epoch_time",
        ),
        (config.round_witness_time > 0, &["config", "round_witness_time"], "round_witness_time must not be 0"),
        (config.cooldown_time > 0, &["config", "cooldown_time"], "cooldown_time must not be 0"),
        (
            config.waiting_for_members_extra_time > 0,
            &["config", "waiting_for_members_extra_time"],
            "waiting_for_members_extra_time must not be 0",
        ),
        (config.total_steps > 0, &["config", "total_steps"], "total_steps must not be 0"),
        (config.min_clients >= 1, &["config", "min_clients"], "min_clients must not be 0"),
        (
            config.min_clients <= config.init_min_clients,
            &["config", "init_min_clients"],
            "init_min_clients must not be smaller than min_clients",
        ),
        (config.init_min_clients <= 256, &["config", "init_min_clients"], "init_min_clients must not exceed 256"),
        (
            config.witness_nodes <= config.min_clients.min(32),
            &["config", "witness_nodes"],
            "witness_nodes must not exceed min_clients, nor 32",
        ),
        (config.global_batch_size_start > 0, &["config", "global_batch_size_start"], "global_batch_size_start must not be 0"),
        (
            config.global_batch_size_start <= config.global_batch_size_end,
            batch_end,
            "global_batch_size_end must not be smaller than global_batch_size_start",
        ),
    ];
    let broken: Vec<_> = rules.into_iter().filter(|(holds, ..)| !holds).collect();
    if let Some((_, keys, _)) = broken.first() {
        let words: Vec<_> = broken.iter().map(|(_, _, rule)| *rule).collect();
        return Err((keys, words.join("; ")));
    }
    if !psyche_protocol::layout::Config::from(config).check() {
        return Err((&["config"], "the coordinator program would refuse [config]".into()));
    }
    if !psyche_protocol::model::Model::from(&run.model).check() {
        let words = "the coordinator program would refuse [model]: name a checkpoint, data and an optimizer";
        return Err((&["model"], words.into()));
    }
    Ok(())
}
