//! Tests of what the documentation says: commands, variables, messages, links. docs/CLI.md and the reference of variables are
//! made of the types themselves.

#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod commands;
mod links;
mod messages;
mod proofs;
mod shell;
mod variables;

use std::fs;
use std::path::{Path, PathBuf};

/// A page of documentation.
pub(super) struct Page {
    /// Its path in the repository.
    pub(super) path: String,
    pub(super) text: String,
}

/// A fenced block.
pub(super) struct Block {
    /// What stands behind the fence.
    pub(super) language: String,
    /// Its lines; those that end in a backslash are joined with the next one.
    pub(super) lines: Vec<String>,
}

pub(super) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

pub(super) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// README.md, CONTRIBUTING.md, and every page in docs/.
pub(super) fn pages() -> Vec<Page> {
    let mut paths = vec!["README.md".to_owned(), "CONTRIBUTING.md".to_owned()];
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".md") {
            paths.push(format!("docs/{name}"));
        }
    }
    paths.sort();
    assert!(paths.len() > 10, "{paths:?}");
    paths.into_iter().map(|path| Page { text: read(&path), path }).collect()
}

impl Page {
    pub(super) fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut open: Option<Block> = None;
        for line in self.text.lines() {
            if let Some(language) = line.trim_start().strip_prefix("```") {
                match open.take() {
                    Some(block) => blocks.push(block),
                    None => open = Some(Block { language: language.trim().to_owned(), lines: Vec::new() }),
                }
            } else if let Some(block) = &mut open {
                match block.lines.last_mut().filter(|last| last.ends_with('\\')) {
                    Some(last) => {
                        last.truncate(last.len() - 1);
                        last.push_str(line.trim_start());
                    }
                    None => block.lines.push(line.to_owned()),
                }
            }
        }
        assert!(open.is_none(), "{}: a block has no end", self.path);
        blocks
    }

    /// The text without its fenced blocks.
    pub(super) fn prose(&self) -> String {
        let mut inside = false;
        let outside = |line: &&str| {
            let fence = line.trim_start().starts_with("```");
            inside ^= fence;
            !fence && !inside
        };
        self.text.lines().filter(outside).fold(String::new(), |prose, line| prose + line + "\n")
    }

    /// What stands between backticks in the prose.
    pub(super) fn spans(&self) -> Vec<String> {
        let prose = self.prose();
        prose.lines().flat_map(|line| line.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
    }
}
