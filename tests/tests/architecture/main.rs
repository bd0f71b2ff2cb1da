//! The rules of docs/ARCHITECTURE.md that a machine can check: who may depend on whom, what a file may hold, which
//! licences may be linked.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

mod edges;
mod licences;
mod manifests;
mod security;
mod sources;

use std::path::PathBuf;

use cargo_metadata::{Metadata, MetadataCommand};

/// The root of the repository.
fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// What cargo knows about the workspace, with `options` for `cargo metadata`. Never touches the network.
fn metadata(options: &[&str]) -> Metadata {
    let mut command = MetadataCommand::new();
    command.manifest_path(root().join("Cargo.toml"));
    command.other_options(["--locked", "--offline"].iter().chain(options).map(|s| (*s).to_owned()).collect::<Vec<_>>());
    command.exec().unwrap()
}

/// Fails with all `violations` at once, under the rule that they break.
fn assert_none(rule: &str, violations: &[String]) {
    assert!(violations.is_empty(), "{rule}\n  {}", violations.join("\n  "));
}
