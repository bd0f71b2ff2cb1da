//! No private key is ever printed: not in errors, not in logs at their most talkative, not where somebody gave it in the wrong
//! place.
#![cfg(feature = "localnet")]
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use support::{LocalChain, command, text};

/// Characters of a key in a row that are a leak.
const LEAK: usize = 16;

/// A key in the forms that people have it in.
struct Key {
    path: PathBuf,
    json: String,
    base58: String,
}

impl Key {
    fn new(folder: &Path) -> Self {
        let path = folder.join("key.json");
        let made = command().args(["wallet", "new", "--out"]).arg(&path).output().unwrap();
        assert!(made.status.success(), "{}", text(&made.stderr));
        let json = std::fs::read_to_string(&path).unwrap();
        let bytes: Vec<u8> = serde_json::from_str(&json).unwrap();
        let key = Self { path, json, base58: bs58::encode(&bytes).into_string() };
        key.assert_unseen("wallet new", &[&made.stdout, &made.stderr]);
        key
    }

    /// The numbers of its secret half; the other half is its address.
    fn secret_json(&self) -> &str {
        let end = self.json.match_indices(',').nth(31).unwrap().0;
        &self.json[1..end]
    }

    fn assert_unseen(&self, what: &str, outputs: &[&Vec<u8>]) {
        for output in outputs {
            // However it is spaced out.
            let output = text(output).replace([' ', '\n'], "");
            for secret in [self.secret_json(), &self.base58] {
                let pieces = secret.as_bytes().windows(LEAK).map(|piece| str::from_utf8(piece).unwrap());
                for piece in pieces {
                    assert!(!output.contains(piece), "{what} shows {piece:?} of a key");
                }
            }
        }
    }
}

/// The same key with one number changed, so that its halves do not fit.
fn broken(json: &str) -> String {
    let mut bytes: Vec<u8> = serde_json::from_str(json).unwrap();
    bytes[63] ^= 1;
    format!("{bytes:?}")
}

#[test]
fn no_command_prints_any_part_of_a_key_whatever_goes_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let (key, chain) = (Key::new(folder.path()), LocalChain::start());
    let nowhere = "http://user:password@127.0.0.1:9/path?api-key=password";
    std::fs::write(folder.path().join("bad.env"), format!("RAW_WALLET_PRIVATE_KEY {}\n", key.json)).unwrap();
    let truncated = &key.json[..key.json.len() - 8];
    let broken = broken(&key.json);
    let good = [key.json.as_str(), &key.base58];
    let bad = [truncated, &broken, &key.base58[..key.base58.len() - 1]];
    let data = folder.path().join("data").to_string_lossy().into_owned();
    let lines: Vec<Vec<&str>> = vec![
        vec!["wallet", "address"],
        vec!["wallet", "balance", "--rpc", nowhere],
        vec!["create-run", "--run-id", "run"],
        vec!["create-run", "--run-id", "run", "--rpc", nowhere],
        vec!["can-join", "--run-id", "nowhere", "--json"],
        vec!["treasurer-claim-rewards", "--run-id", "nowhere"],
        vec!["join-authorization-create", "--permissionless"],
        vec!["json-dump-user", "--run-id", "nowhere"],
        vec!["train", "--run-id", "nowhere", "--data-dir", &data],
        vec!["check-config", "--run-id", "nowhere", "--json"],
    ];
    for form in good.into_iter().chain(bad) {
        // A key that can't be read is refused before anything else happens.
        for line in lines.iter().take(if bad.contains(&form) { 1 } else { lines.len() }) {
            let output = command()
                .args(line)
                .current_dir(folder.path())
                .envs(chain.variables())
                .envs([("RAW_WALLET_PRIVATE_KEY", form), ("RUST_LOG", "trace"), ("RUST_BACKTRACE", "1")])
                .output()
                .unwrap();
            let what = line.join(" ");
            key.assert_unseen(&what, &[&output.stdout, &output.stderr]);
            let shown = text(&output.stdout) + &text(&output.stderr);
            assert!(!shown.contains("password"), "{what} shows an endpoint's key\n{shown}");
        }
        // In the wrong place.
        let misplaced: [&[&str]; 6] = [
            &["can-join", "--run-id", "run", "--pubkey", form],
            &["can-join", "--run-id", form, "--pubkey", form],
            &["join-authorization-create", "--authorizer", form],
            &["wallet", "address", form],
            &["wallet", "balance", "--rpc", form],
            &[form],
        ];
        for line in misplaced {
            let output = command().args(line).envs(chain.variables()).env("RUST_LOG", "trace").output().unwrap();
            assert!(!output.status.success());
            key.assert_unseen(line[0], &[&output.stdout, &output.stderr]);
        }
    }
    let output = command().args(["wallet", "address", "--env-file", "bad.env"]).current_dir(folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    key.assert_unseen("a bad --env-file", &[&output.stdout, &output.stderr]);
}

#[test]
fn a_key_file_is_made_for_its_owner_alone_and_refused_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let key = Key::new(folder.path());
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&key.path), 0o600);
    for open in [0o644, 0o640, 0o660, 0o606] {
        std::fs::set_permissions(&key.path, std::fs::Permissions::from_mode(open)).unwrap();
        for line in [vec!["wallet", "address"], vec!["check-config", "--run-id", "run", "--rpc", "http://127.0.0.1:9"]] {
            let output = command().args(&line).env("WALLET_PRIVATE_KEY_PATH", &key.path).output().unwrap();
            let err = text(&output.stderr);
            assert_eq!(output.status.code(), Some(3), "{err}");
            assert!(err.contains(&format!("chmod 600 {}", key.path.display())), "{err}");
        }
    }
}

#[test]
fn a_key_in_the_environment_is_read_as_json_and_as_base58_and_gives_way_to_a_file_that_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let key = Key::new(folder.path());
    let address = |line: &[&str], raw: &str| {
        let output = command().args(line).env("RAW_WALLET_PRIVATE_KEY", raw).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let ours = address(&["wallet", "address"], &key.json);
    assert_eq!(address(&["wallet", "address"], &key.base58), ours);
    let other_folder = tempfile::tempdir().unwrap();
    let other = Key::new(other_folder.path());
    let named = ["wallet", "address", "--wallet-private-key-path", key.path.to_str().unwrap()];
    assert_eq!(address(&named, &other.json), ours);
}
