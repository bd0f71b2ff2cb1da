//! What our files may hold.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{assert_none, root};

/// Folders that hold what was built, fetched or produced, at any depth.
const NOT_OURS: [&str; 5] = [".git", "target", ".libtorch", "testnet-out", "node_modules"];
/// Most lines of a source file, tests included.
const LINES_MAX: usize = 500;
/// Files larger than this are data, not text that anybody wrote.
const TEXT_BYTES_MAX: u64 = 1 << 20;

/// Written in two parts each, so that this file does not hold them.
const WORDS: [&str; 6] = [
    concat!("todo", "!("),
    concat!("unimplemented", "!("),
    concat!("#[", "ignore"),
    concat!(".do_", "send("),
    concat!("unbounded_", "channel("),
    concat!("#[allow(clippy::", "too_many_lines"),
];
const PLACES: [&str; 9] = [
    concat!("crates", ".io/"),
    concat!("index.crates", ".io"),
    concat!("pypi", ".org"),
    concat!("python", "hosted"),
    concat!("npmjs", ".org"),
    concat!("deb.", "debian.org"),
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/t", "mp/"),
];

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let kind = entry.file_type().unwrap();
        let name = entry.file_name();
        // In a linked worktree .git is a file.
        if NOT_OURS.iter().any(|skipped| name == *skipped) {
            continue;
        }
        if kind.is_dir() {
            files(&entry.path(), found);
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
}

/// Every file of the repository that is text, with its text.
pub(crate) fn texts() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    files(&root(), &mut found);
    let small = found.into_iter().filter(|path| fs::metadata(path).unwrap().len() <= TEXT_BYTES_MAX);
    let read: Vec<_> = small.filter_map(|path| fs::read_to_string(&path).ok().map(|text| (path, text))).collect();
    assert!(read.len() > 30, "the walk over the repository found {} files", read.len());
    read
}

fn is_rust(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "rs")
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

#[test]
fn source_files_stay_readable_in_size() {
    let long = |text: &String| text.lines().count() > LINES_MAX;
    let violations: Vec<_> =
        texts().iter().filter(|(path, text)| is_rust(path) && long(text)).map(|(path, _)| shown(path)).collect();
    assert_none("a source file has at most 500 lines", &violations);
}

#[test]
fn sources_hold_no_gaps_unbounded_queues_or_skipped_tests() {
    let mut violations = Vec::new();
    for (path, text) in texts().iter().filter(|(path, _)| is_rust(path)) {
        for (number, line) in text.lines().enumerate() {
            for word in WORDS.iter().filter(|word| line.contains(**word)) {
                violations.push(format!("{}:{}: {word}", shown(path), number + 1));
            }
        }
    }
    assert_none("some words have no place in sources", &violations);
}

#[test]
fn no_file_names_a_registry_host_or_a_folder_of_somebodys_machine() {
    let mut violations = Vec::new();
    for (path, text) in texts().iter().filter(|(path, _)| path.file_name().is_some_and(|name| name != "Cargo.lock")) {
        for (number, line) in text.lines().enumerate() {
            for place in PLACES.iter().filter(|place| line.contains(**place)) {
                violations.push(format!("{}:{}: {place}", shown(path), number + 1));
            }
        }
    }
    assert_none("the repository is the same everywhere", &violations);
}

/// Whether an actor of the node is defined here; tests may bring small ones of their own.
fn defines_an_actor(path: &Path, text: &str) -> bool {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    is_rust(path)
        && path.starts_with(root().join("actors/src"))
        && !path.ends_with("tests.rs")
        && code.contains("impl Actor for")
}

#[test]
fn every_actor_file_opens_with_its_purpose() {
    let headings = ["Purpose", "In", "Out", "State", "Mailbox", "Failure", "Time"];
    let violations: Vec<_> = texts()
        .iter()
        .filter(|(path, text)| defines_an_actor(path, text))
        .filter(|(_, text)| !headings.iter().all(|h| text.lines().any(|l| l.starts_with("//!") && l.contains(h))))
        .map(|(path, _)| shown(path))
        .collect();
    assert_none("an actor's file opens with Purpose, In, Out, State, Mailbox, Failure, Time", &violations);
}

#[test]
fn the_run_s_rules_need_no_operating_system() {
    let library = fs::read_to_string(root().join("protocol/src/lib.rs")).unwrap();
    assert!(library.contains("no_std"), "protocol/ is compiled into the on-chain programs too");
}

/// The strings that follow `before` in `text`, up to the next quotation mark.
fn quoted_after<'a>(text: &'a str, before: &str) -> Vec<&'a str> {
    text.split(before).skip(1).filter_map(|rest| rest.split('"').next()).collect()
}

#[test]
fn every_variable_and_event_is_in_the_operator_s_guide() {
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let guide = read("docs/OPERATORS.md");
    let environment = read("actors/src/config/environment/variables.rs");
    // "RPC_2, RPC_3, …" names more than one.
    let variables = quoted_after(&environment, "name: \"").into_iter().flat_map(|names| names.split(", "));
    let variables: Vec<_> =
        variables.filter(|name| name.chars().all(|c| c.is_ascii_uppercase() || "_23".contains(c))).collect();
    assert!(variables.contains(&"RUN_ID"), "the list of variables was not found: {variables:?}");
    let missing = variables.iter().filter(|name| !guide.contains(&format!("`{name}`")) && **name != "WS_RPC_3");
    assert_none("docs/OPERATORS.md explains every variable", &missing.map(|name| (*name).to_owned()).collect::<Vec<_>>());

    let events = read("messages/src/events.rs");
    let (_, body) = events.split_once("pub enum NodeEvent {").unwrap();
    let (body, _) = body.split_once("\n}").unwrap();
    let names = body.lines().filter_map(|line| line.strip_prefix("    ")?.strip_suffix(" {"));
    let missing: Vec<_> = names.map(snake_case).filter(|name| !guide.contains(&format!("`{name}`"))).collect();
    assert_none("docs/OPERATORS.md lists every event", &missing);
}

fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for (index, c) in name.char_indices() {
        if c.is_ascii_uppercase() && index > 0 {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}
