//! What is said about messages is about messages that the program prints.

use std::fs;
use std::path::Path;

use super::{read, root};

/// The sources of everything that a node is, without tests, with strings that span lines put together.
fn sources() -> String {
    fn collect(folder: &Path, found: &mut String) {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
            if path.is_dir() {
                if name != "tests" && name != "testnet" && name != "pages" {
                    collect(&path, found);
                }
            } else if name.ends_with(".rs") && !name.ends_with("tests.rs") && name != "pages.rs" {
                let text = fs::read_to_string(&path).unwrap();
                found.push_str(text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default());
            }
        }
    }
    let mut found = String::new();
    for krate in ["cli", "actors", "chain", "gpu", "net", "data", "messages"] {
        collect(&root().join(krate).join("src"), &mut found);
    }
    let mut joined = String::with_capacity(found.len());
    let mut pieces = found.split("\\\n");
    joined.push_str(pieces.next().unwrap_or_default());
    pieces.for_each(|piece| joined.push_str(piece.trim_start()));
    joined
}

/// How far the pieces of a message may lie apart: what is put in stands between them.
const APART_MAX: usize = 160;

/// Whether `pieces` stand in `sources` one after another.
fn printed(sources: &str, pieces: &[&str]) -> bool {
    let Some((first, others)) = pieces.split_first() else { return false };
    let follows = |start: usize| {
        others.iter().try_fold(start + first.len(), |end, piece| {
            let until =
                (end..=end + APART_MAX + piece.len()).rev().find(|until| sources.is_char_boundary(*until)).unwrap_or(end);
            sources.get(end..until.min(sources.len())).and_then(|window| Some(end + window.find(piece)? + piece.len()))
        })
    };
    sources.match_indices(first).any(|(start, _)| follows(start).is_some())
}

/// Words around others' errors: every refusal completes "failed to …".
const FRAME: &str = "failed to ";

#[test]
fn every_message_in_the_troubleshooting_table_is_one_that_the_program_prints() {
    let guide = read("docs/OPERATORS.md");
    let (_, table) = guide.split_once("| message | meaning | what to do |\n|---|---|---|\n").unwrap();
    let sources = sources();
    assert!(!printed(&sources, &["no such message"]) && !printed(&sources, &["no authorization lets", "no such message"]));
    let mut unknown = Vec::new();
    let mut messages = 0;
    for row in table.lines().take_while(|line| line.starts_with('|')) {
        let Some(message) = row.split('`').nth(1).filter(|_| row.starts_with("| `")) else { continue };
        messages += 1;
        let message = message.strip_prefix(FRAME).unwrap_or(message);
        // Whole, or in the pieces between what differs.
        let pieces: Vec<&str> = message.split('…').map(str::trim).filter(|piece| !piece.is_empty()).collect();
        if !printed(&sources, &pieces) {
            unknown.push(message.to_owned());
        }
    }
    assert!(messages > 40, "{messages}");
    assert!(unknown.is_empty(), "docs/OPERATORS.md explains messages that nothing prints: {unknown:#?}");
}
