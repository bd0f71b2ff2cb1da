//! Licences of everything that is linked, against the list in deny.toml. cargo-deny looks closer (it reads the licence
//! texts); this needs nothing but cargo.

use std::collections::BTreeSet;
use std::fs;

use crate::{assert_none, metadata, root};

/// The quoted strings of `allow = […]` in deny.toml.
fn allowed() -> BTreeSet<String> {
    let deny = fs::read_to_string(root().join("deny.toml")).unwrap();
    let (_, list) = deny.split_once("\nallow = [").unwrap();
    let (list, _) = list.split_once(']').unwrap();
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Whether an SPDX expression can be met with `allowed` licences: `or` of `and`s, with parentheses.
fn met(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = tokens.as_slice();
    let met = any(&mut rest, allowed);
    met && rest.is_empty()
}

fn any(rest: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    let mut met = all(rest, allowed);
    while rest.first() == Some(&"OR") {
        *rest = &rest[1..];
        // Not `||`: the right side is read in any case.
        met |= all(rest, allowed);
    }
    met
}

fn all(rest: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    let mut met = one(rest, allowed);
    while rest.first() == Some(&"AND") {
        *rest = &rest[1..];
        met &= one(rest, allowed);
    }
    met
}

fn one(rest: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    let Some((first, tail)) = rest.split_first() else { return false };
    *rest = tail;
    if *first == "(" {
        let met = any(rest, allowed);
        *rest = rest.split_first().map_or(&[], |(_, tail)| tail);
        return met;
    }
    if let [with, exception, tail @ ..] = *rest
        && *with == "WITH"
    {
        *rest = tail;
        return allowed.contains(&format!("{first} WITH {exception}"));
    }
    allowed.contains(first.trim_end_matches('+'))
}

#[test]
fn everything_that_is_linked_has_an_allowed_licence() {
    let allowed = allowed();
    assert!(allowed.contains("Apache-2.0"), "deny.toml was not understood: {allowed:?}");
    let mut violations = Vec::new();
    for package in metadata(&["--filter-platform", "x86_64-unknown-linux-gnu"]).packages {
        match &package.license {
            Some(expression) if !met(expression, &allowed) => violations.push(format!("{} {expression}", package.name)),
            // A licence file instead of an expression is cargo-deny's to read.
            None if package.license_file.is_none() && package.source.is_some() => {
                violations.push(format!("{} says nothing", package.name))
            }
            _ => {}
        }
    }
    assert_none("licences are on deny.toml's list", &violations);
}

#[test]
fn licence_expressions_are_read_as_written() {
    let allowed = BTreeSet::from(["MIT".to_owned(), "ISC".to_owned(), "Apache-2.0 WITH LLVM-exception".to_owned()]);
    for good in [
        "MIT",
        "MIT OR GPL-3.0",
        "GPL-3.0 OR MIT",
        "MIT/GPL-3.0",
        "(MIT OR X) AND ISC",
        "Apache-2.0 WITH LLVM-exception OR X",
        "ISC+",
    ] {
        assert!(met(good, &allowed), "{good}");
    }
    for bad in ["GPL-3.0", "MIT AND GPL-3.0", "(MIT OR ISC) AND X", "Apache-2.0", "MIT GPL-3.0", ""] {
        assert!(!met(bad, &allowed), "{bad}");
    }
}
