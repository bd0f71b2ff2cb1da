//! What is said about messages is about messages that the program prints.

use std::fmt::Write as _;
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
                found.push_str(text.split("#[cfg(test)]").next().unwrap_or_default());
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

/// The text of every string in `sources`, one a line, with `…` for what is put in.
fn strings(sources: &str) -> String {
    let mut out = String::new();
    let mut rest = sources;
    while let Some((_, after)) = rest.split_once('"') {
        let mut end = 0;
        let mut escaped = false;
        for (at, c) in after.char_indices() {
            end = at;
            if c == '"' && !escaped {
                break;
            }
            escaped = c == '\\' && !escaped;
        }
        let mut depth = 0_u32;
        let mut text = String::new();
        for c in after[..end].chars() {
            match c {
                '{' => {
                    depth += 1;
                    if depth == 1 {
                        text.push('…');
                    }
                }
                '}' => depth = depth.saturating_sub(1),
                c if depth == 0 => text.push(c),
                _ => {}
            }
        }
        let _infallible = writeln!(out, "{text}");
        rest = after.get(end + 1..).unwrap_or_default();
    }
    out
}

/// Words around others' errors: every refusal completes "failed to …".
const FRAME: &str = "failed to ";

#[test]
fn every_message_in_the_troubleshooting_table_is_one_that_the_program_prints() {
    let guide = read("docs/OPERATORS.md");
    let (_, table) = guide.split_once("| message | meaning | what to do |\n|---|---|---|\n").unwrap();
    let strings = strings(&sources());
    assert!(strings.contains("no authorization lets it in"), "strings are found in the sources");
    let mut unknown = Vec::new();
    let mut messages = 0;
    for row in table.lines().take_while(|line| line.starts_with('|')) {
        let Some(message) = row.split('`').nth(1).filter(|_| row.starts_with("| `")) else { continue };
        messages += 1;
        let message = message.strip_prefix(FRAME).unwrap_or(message);
        // Whole, or in the pieces between what differs, which must stand in one string.
        let pieces: Vec<&str> = message.split('…').map(str::trim).filter(|piece| !piece.is_empty()).collect();
        let holds = |line: &&str| pieces.iter().all(|piece| line.contains(piece));
        if !strings.lines().any(|line| holds(&line)) {
            unknown.push(message.to_owned());
        }
    }
    assert!(messages > 40, "{messages}");
    assert!(unknown.is_empty(), "docs/OPERATORS.md explains messages that nothing prints: {unknown:#?}");
}
