//! The unit for systemd: what it says agrees with the program, and systemd itself understands it.
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

use std::path::Path;
use std::process::Command;

const UNIT: &str = include_str!("../../systemd/psyche-client.service");

/// The value of a setting that stands once.
fn setting(name: &str) -> &'static str {
    let mut values = UNIT.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let value = values.next().unwrap_or_else(|| panic!("no {name}"));
    assert!(values.next().is_none(), "{name} stands twice");
    value
}

#[test]
fn the_unit_waits_for_the_node_s_word_and_restarts_only_what_a_restart_can_help() {
    assert_eq!((setting("Type"), setting("NotifyAccess"), setting("Restart")), ("notify", "main", "on-failure"));
    // A sign of life comes every five seconds at least, and an actor may take five to answer.
    assert!(setting("WatchdogSec").parse::<u32>().unwrap() >= 30);
    let guide = include_str!("../../docs/OPERATORS.md");
    for code in setting("RestartPreventExitStatus").split(' ') {
        assert!(guide.contains(&format!("\n| {code} | ")), "the guide has no exit code {code}");
        // A crash, endpoints that are down, and what a node waits for anyway.
        assert!(!["0", "1", "7", "9", "12", "13", "14", "130"].contains(&code), "{code}");
    }
    for place in ["systemd/psyche-client.service", "/etc/psyche/node.env", "/usr/local/bin/psyche-solana-client"] {
        assert!(guide.contains(place), "the guide does not name {place}");
    }
    assert!(setting("ExecStart").starts_with("/usr/local/bin/psyche-solana-client train --env-file /etc/psyche/node.env"));
}

#[test]
fn systemd_understands_the_unit_where_it_is_installed() {
    let folder = tempfile::tempdir().unwrap();
    // The program and its folder as they are here.
    let binary = env!("CARGO_BIN_EXE_psyche-solana-client");
    let here = UNIT.replace("/usr/local/bin/psyche-solana-client", binary);
    assert!(here.contains(binary));
    let unit = folder.path().join("psyche-client.service");
    std::fs::write(&unit, here).unwrap();
    let analyzer = ["/usr/bin/systemd-analyze", "/bin/systemd-analyze"].into_iter().find(|path| Path::new(path).exists());
    let Some(analyzer) = analyzer else {
        eprintln!("systemd is not installed here: the unit was not verified");
        return;
    };
    let verified = Command::new(analyzer).arg("verify").arg("--man=no").arg(&unit).output().unwrap();
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    assert!(verified.status.success() && !said.contains("psyche-client.service"), "{said}");
}
