//! What docs/SECURITY.md promises is tested.

use std::collections::BTreeSet;
use std::fs;

use crate::sources::texts;
use crate::{assert_none, root};

/// Rows that the table of weaknesses has at least: one for each that is known of the reference client.
const ROWS_MIN: usize = 40;

/// The words in backquotes that are names of tests: those are sentences, of four words at least.
fn tests_named_in(text: &str) -> BTreeSet<&str> {
    let is_name = |name: &&str| {
        name.split('_').count() >= 4 && name.chars().all(|c| c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit())
    };
    text.split('`').skip(1).step_by(2).filter(is_name).collect()
}

#[test]
fn every_test_that_the_security_page_names_exists() {
    let page = fs::read_to_string(root().join("docs/SECURITY.md")).unwrap();
    let (_, table) = page.split_once("## Weaknesses of the reference client").unwrap();
    let table = table.split("\n## ").next().unwrap_or_default();
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| *")).skip(1).collect();
    let untested: Vec<_> = rows.iter().filter(|row| tests_named_in(row).is_empty()).map(|row| (*row).to_owned()).collect();
    assert_none("each weakness has a test that says why it can't happen here", &untested);
    assert!(rows.len() >= ROWS_MIN, "the table has {} rows", rows.len());

    let texts = texts();
    let code: Vec<&str> = texts
        .iter()
        .filter(|(path, _)| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|(_, text)| text.as_str())
        .collect();
    let exists = |name: &&&str| code.iter().any(|text| text.contains(&format!("fn {name}(")));
    let named = tests_named_in(&page);
    let missing: Vec<_> = named.iter().filter(|name| !exists(name)).map(|name| (*name).to_owned()).collect();
    assert_none("docs/SECURITY.md names tests that exist", &missing);
}
