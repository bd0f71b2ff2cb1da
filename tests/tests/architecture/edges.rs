//! The crate graph: edges between our crates, and which of them may name the large dependencies.

use std::collections::{BTreeSet, HashMap, HashSet};

use cargo_metadata::{DependencyKind, Metadata, PackageId};

use crate::{assert_none, metadata};

const CLI: &str = "psyche-solana-client";
const TESTS: &str = "psyche-tests";

/// Each crate of ours and those of ours that it may name. Every other edge is refused, in every kind of dependency.
const EDGES: [(&str, &[&str]); 11] = [
    ("psyche-protocol", &[]),
    ("psyche-messages", &["psyche-protocol"]),
    ("psyche-chain", &["psyche-messages", "psyche-protocol"]),
    ("psyche-gpu", &["psyche-messages", "psyche-protocol"]),
    ("psyche-data", &["psyche-messages", "psyche-protocol"]),
    ("psyche-net", &["psyche-messages", "psyche-protocol"]),
    ("psyche-localnet", &["psyche-messages", "psyche-protocol"]),
    ("psyche-actors", &["psyche-messages", "psyche-protocol", "psyche-chain", "psyche-gpu", "psyche-data", "psyche-net"]),
    (
        CLI,
        &[
            "psyche-messages",
            "psyche-protocol",
            "psyche-chain",
            "psyche-gpu",
            "psyche-data",
            "psyche-net",
            "psyche-actors",
            "psyche-localnet",
        ],
    ),
    ("psyche-fuzz", &["psyche-messages", "psyche-protocol", "psyche-gpu", "psyche-net"]),
    (
        TESTS,
        &[
            "psyche-messages",
            "psyche-protocol",
            "psyche-chain",
            "psyche-gpu",
            "psyche-data",
            "psyche-net",
            "psyche-actors",
            "psyche-localnet",
            CLI,
        ],
    ),
];

/// Prefixes of foreign crates' names, and our crates that may name them.
const OWNERS: [(&[&str], &[&str]); 6] = [
    (&["actix"], &["psyche-actors", CLI, TESTS]),
    (&["tch", "torch-sys", "cudarc", "safetensors"], &["psyche-gpu"]),
    (&["solana-", "spl-"], &["psyche-chain", "psyche-localnet", TESTS]),
    (&["surfpool-", "litesvm"], &["psyche-localnet", TESTS]),
    (&["libp2p"], &["psyche-net"]),
    (&["tokenizers"], &["psyche-data"]),
];

/// Crates that may not even be reached through others: a crate of ours and the prefixes of what stays out of it.
const OUT_OF_REACH: [(&str, &[&str]); 6] = [
    ("psyche-protocol", &["tokio", "actix", "rand", "serde", "solana-", "libp2p", "tch"]),
    ("psyche-messages", &["tokio", "actix", "rand", "solana-", "libp2p", "tch"]),
    ("psyche-chain", &["actix", "libp2p", "tch", "tokenizers", "surfpool-", "litesvm"]),
    ("psyche-gpu", &["tokio", "actix", "solana-", "libp2p"]),
    ("psyche-data", &["actix", "solana-", "libp2p", "tch"]),
    ("psyche-net", &["actix", "solana-", "tch", "tokenizers"]),
];

fn starts_with_any(name: &str, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| name == *prefix || name.starts_with(&format!("{}-", prefix.trim_end_matches('-'))))
}

fn is_on_chain(target: &str) -> bool {
    target.contains("target_arch = \"bpf\"") && !target.contains("not(")
}

#[test]
fn crates_of_ours_name_only_the_crates_of_ours_that_they_may() {
    let metadata = metadata(&["--no-deps"]);
    let ours: HashMap<&str, &[&str]> = EDGES.into_iter().collect();
    let found: BTreeSet<&str> = metadata.packages.iter().map(|package| package.name.as_str()).collect();
    assert_eq!(found, ours.keys().copied().collect(), "members of the workspace and crates of this test");
    let mut violations = Vec::new();
    for package in &metadata.packages {
        for dependency in package.dependencies.iter().filter(|dependency| ours.contains_key(dependency.name.as_str())) {
            if !ours[package.name.as_str()].contains(&dependency.name.as_str()) {
                violations.push(format!("{} names {}", package.name, dependency.name));
            }
        }
    }
    assert_none("edges between crates go one way", &violations);
}

#[test]
fn large_dependencies_are_named_by_their_owners_alone() {
    let mut violations = Vec::new();
    for package in &metadata(&["--no-deps"]).packages {
        // The system calls that only exist on chain are no business of any node.
        for dependency in
            package.dependencies.iter().filter(|d| !d.target.as_ref().is_some_and(|t| is_on_chain(&t.to_string())))
        {
            for (prefixes, owners) in OWNERS {
                if starts_with_any(&dependency.name, prefixes) && !owners.contains(&package.name.as_str()) {
                    violations.push(format!("{} names {}", package.name, dependency.name));
                }
            }
        }
    }
    assert_none("foreign crates have owners", &violations);
}

#[test]
fn anyhow_stays_in_the_program_and_in_tests() {
    let mut violations = Vec::new();
    for package in &metadata(&["--no-deps"]).packages {
        let named = package.dependencies.iter().any(|d| d.name == "anyhow" && d.kind != DependencyKind::Development);
        if named && package.name.as_str() != CLI {
            violations.push(package.name.to_string());
        }
    }
    assert_none("libraries have typed errors", &violations);
}

#[test]
fn layers_do_not_reach_what_is_kept_out_of_them() {
    let metadata = metadata(&["--filter-platform", "x86_64-unknown-linux-gnu"]);
    let mut violations = Vec::new();
    for (ours, prefixes) in OUT_OF_REACH {
        for name in reach(&metadata, ours) {
            if starts_with_any(&name, prefixes) {
                violations.push(format!("{ours} reaches {name}"));
            }
        }
    }
    assert_none("layers are kept apart", &violations);
}

#[test]
fn a_node_for_production_builds_without_the_local_chain() {
    let metadata = metadata(&["--filter-platform", "x86_64-unknown-linux-gnu", "--no-default-features"]);
    let reached = reach(&metadata, CLI);
    assert!(reached.contains("psyche-actors"), "the walk over the graph found nothing");
    let chain: Vec<_> =
        reached.into_iter().filter(|name| starts_with_any(name, &["psyche-localnet", "surfpool-", "litesvm"])).collect();
    assert_none("the local chain is optional", &chain);
}

/// Names of all packages that `from` links, directly or not; what only tests need does not count.
fn reach(metadata: &Metadata, from: &str) -> BTreeSet<String> {
    let resolve = metadata.resolve.as_ref().unwrap();
    let nodes: HashMap<&PackageId, _> = resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let start = &metadata.workspace_packages().into_iter().find(|package| package.name.as_str() == from).unwrap().id;
    let mut seen = HashSet::from([start]);
    let mut open = vec![start];
    while let Some(id) = open.pop() {
        for dep in &nodes[id].deps {
            let linked = dep.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal);
            if linked && seen.insert(&dep.pkg) {
                open.push(&dep.pkg);
            }
        }
    }
    seen.remove(start);
    seen.into_iter().map(|id| metadata[id].name.to_string()).collect()
}
