//! What our manifests look like.

use std::fs;

use crate::{assert_none, metadata};

/// The lines of a manifest's dependency tables that neither carry a reason nor stand in a block that opens with one. What
/// only tests need explains itself there.
fn without_reason(manifest: &str) -> Vec<&str> {
    let mut inside = false;
    let mut reason_above = false;
    let mut found = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            let table = line.trim_matches(['[', ']']);
            inside = table.ends_with("dependencies") && !table.ends_with("dev-dependencies");
        } else if line.is_empty() {
            reason_above = false;
        } else if line.starts_with('#') {
            reason_above = true;
        } else if inside && !reason_above && !line.contains('#') && !line.starts_with("psyche-") {
            found.push(line);
        }
    }
    found
}

#[test]
fn every_dependency_says_why_it_is_there() {
    let mut violations = Vec::new();
    for package in metadata(&["--no-deps"]).packages {
        let manifest = fs::read_to_string(&package.manifest_path).unwrap();
        violations.extend(without_reason(&manifest).into_iter().map(|line| format!("{}: {line}", package.name)));
    }
    assert_none("a dependency carries its reason, behind it or above its block", &violations);
}

#[test]
fn a_line_without_a_reason_is_found() {
    let manifest = "[dependencies]\n# why\na = \"1\"\nb = \"1\"\n\nc = \"1\"\nd = \"1\" # why\n[lib]\nname = \"x\"\n";
    assert_eq!(without_reason(manifest), ["c = \"1\""]);
}

#[test]
fn every_crate_takes_versions_lints_and_edition_from_the_workspace() {
    let mut violations = Vec::new();
    for package in metadata(&["--no-deps"]).packages {
        let manifest = fs::read_to_string(&package.manifest_path).unwrap();
        for line in
            ["version.workspace = true", "edition.workspace = true", "license.workspace = true", "[lints]\nworkspace = true"]
        {
            if !manifest.contains(line) {
                violations.push(format!("{}: {}", package.name, line.replace('\n', " ")));
            }
        }
    }
    assert_none("what is shared stands in the workspace's manifest", &violations);
}
