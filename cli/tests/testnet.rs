//! Whole networks of real processes: `testnet` as a person runs it.
#![cfg(feature = "localnet")]
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::time::{interval, timeout};

/// A loaded machine may take several times as long as an idle one.
const ENDS_WITHIN: Duration = Duration::from_secs(400);
const LOOK_EVERY: Duration = Duration::from_millis(50);

struct Testnet {
    child: Child,
    out: PathBuf,
    /// Keeps the folder until the test has ended.
    _folder: tempfile::TempDir,
}

fn start(options: &str) -> Testnet {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let child = Command::new(env!("CARGO_BIN_EXE_psyche-solana-client"))
        .args(["testnet", "--json", "--out"])
        .arg(&out)
        .args(options.split_whitespace())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    Testnet { child, out, _folder: folder }
}

impl Testnet {
    fn events(&self, node: u16) -> Vec<Value> {
        let path = self.out.join(format!("node-{node}/data/events.jsonl"));
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn count(&self, node: u16, event: &str) -> usize {
        self.events(node).iter().filter(|line| line["event"] == event).count()
    }

    fn pid(&self, node: u16) -> libc::pid_t {
        std::fs::read_to_string(self.out.join(format!("node-{node}/pid"))).unwrap().trim().parse().unwrap()
    }

    /// Waits until `reached` holds; fails if the testnet ends before.
    async fn wait_until(&mut self, what: &str, reached: impl Fn(&Self) -> bool) {
        let mut look = interval(LOOK_EVERY);
        let waited = timeout(ENDS_WITHIN, async {
            while !reached(self) {
                assert!(self.child.try_wait().unwrap().is_none(), "the testnet ended before {what}");
                look.tick().await;
            }
        });
        assert!(waited.await.is_ok(), "waited too long until {what}");
    }

    async fn end(self) -> (Output, tempfile::TempDir) {
        let output = timeout(ENDS_WITHIN, self.child.wait_with_output()).await.unwrap().unwrap();
        (output, self._folder)
    }
}

fn signal(pid: libc::pid_t, signal: libc::c_int) {
    // SAFETY: kill has no memory effects.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "signal {signal} to {pid}");
}

fn runs(pid: libc::pid_t) -> bool {
    // A process that has ended and was not waited for still has a folder, and says so.
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// The object on stdout, after checking what every good run must say.
fn good_summary(output: &Output, nodes: usize) -> Value {
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{err}");
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["digests_equal"], true);
    assert!(summary["loss_last"].as_f64().unwrap() < summary["loss_first"].as_f64().unwrap(), "{summary}");
    let list = summary["nodes"].as_array().unwrap();
    assert_eq!(list.len(), nodes);
    for node in list {
        assert!(node["points"].as_u64().unwrap() > 0, "{summary}");
        assert_eq!(node["points"], node["claimed"], "{summary}");
        assert!(node["steps_trained"].as_u64().unwrap() > 0, "{summary}");
        assert!(node["payload_bytes_mean"].as_u64().unwrap() > 0, "{summary}");
        assert!((32..=44).contains(&node["address"].as_str().unwrap().len()), "{summary}");
    }
    summary
}

/// The report and the summary of a run that failed, after checking that both say why.
fn failed_because(out: &Path, why: &str) -> (String, Value) {
    let report = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert!(report.contains(&format!("FAILED: {why}")), "{why}");
    let summary: Value = serde_json::from_slice(&std::fs::read(out.join("summary.json")).unwrap()).unwrap();
    assert!(summary["failure"].as_str().unwrap().starts_with(why), "{summary}");
    (report, summary)
}

fn left_behind(out: &Path) -> Vec<String> {
    let names = std::fs::read_dir(out).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_small_network_learns_agrees_and_claims() {
    let testnet = start("--nodes 2 --devices 2 --steps 8");
    let out = testnet.out.clone();
    let (output, _folder) = testnet.end().await;
    let summary = good_summary(&output, 2);
    assert!(summary["steps"].as_u64().unwrap() >= 6, "{summary}");
    let layouts: Vec<_> = summary["nodes"].as_array().unwrap().iter().map(|n| (n["dp"].as_u64(), n["tp"].as_u64())).collect();
    assert_eq!(layouts, [(Some(2), Some(1)), (Some(1), Some(2))]);
    let saved: Value = serde_json::from_slice(&std::fs::read(out.join("summary.json")).unwrap()).unwrap();
    assert_eq!(saved, summary);
    let svg = std::fs::read_to_string(out.join("loss.svg")).unwrap();
    assert!(svg.contains("<svg") && svg.contains("node 2"), "the plot shows every node");
    assert_eq!(summary["report"], out.join("report.html").to_str().unwrap());
    let report = std::fs::read_to_string(out.join("report.html")).unwrap();
    let tile = |value: String| format!("<dd class=\"\">{value}</dd>");
    let points: u64 = summary["nodes"].as_array().unwrap().iter().map(|node| node["claimed"].as_u64().unwrap()).sum();
    assert!(report.replace(' ', "").contains(&tile(points.to_string()).replace(' ', "")), "{points}");
    for value in [
        summary["steps"].to_string(),
        format!("{:.3}", summary["loss_first"].as_f64().unwrap()),
        format!("{:.3}", summary["loss_last"].as_f64().unwrap()),
    ] {
        assert!(report.contains(&tile(value.clone())), "{value} of {summary}");
    }
    assert!(report.contains("AdamW on one device (reference)") && summary["adamw_loss_last"].as_f64().is_some(), "{summary}");
    assert!(report.contains("The weights after step"), "the trained model writes");
    let generate = |seed: &str| {
        let trained = out.join("trained");
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_psyche-solana-client"));
        command.args(["generate", "--prompt", "In the beginning", "--tokens", "12", "--seed", seed]);
        let output = command.arg("--checkpoint").arg(trained).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let text = generate("5");
    assert!(text.starts_with("In the beginning") && text == generate("5"), "{text}");
    assert!(left_behind(&out).contains(&"node-1".to_owned()));
    for wallet in ["owner.json", "operator.json", "node-1/wallet.json", "node-2/wallet.json"] {
        let mode = std::fs::metadata(out.join(wallet)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{wallet} is its owner's alone");
    }
}

#[tokio::test]
async fn a_node_that_is_killed_in_a_round_comes_back_and_the_run_goes_on() {
    let mut testnet = start("--nodes 2 --devices 1 --steps 24 --no-reference");
    testnet.wait_until("node 2 trains", |net| net.count(2, "step_trained") >= 2).await;
    let killed = testnet.pid(2);
    signal(killed, libc::SIGKILL);
    testnet.wait_until("node 2 is up again", |net| net.count(2, "started") == 2).await;
    assert_ne!(testnet.pid(2), killed);
    let trained_before = testnet.count(2, "step_trained");
    testnet.wait_until("node 2 trains again", |net| net.count(2, "step_trained") > trained_before).await;
    let (output, _folder) = testnet.end().await;
    good_summary(&output, 2);
}

#[tokio::test]
async fn ctrl_c_stops_every_node_and_says_where_the_logs_are() {
    let mut testnet = start("--nodes 2 --devices 1 --steps 1000");
    testnet.wait_until("both nodes are up", |net| net.count(2, "started") == 1).await;
    let pids = [testnet.pid(1), testnet.pid(2)];
    let out = testnet.out.clone();
    signal(libc::pid_t::try_from(testnet.child.id().unwrap()).unwrap(), libc::SIGINT);
    let (output, _folder) = testnet.end().await;
    assert!(!output.status.success());
    assert!(output.stdout.is_empty(), "an interrupted run has no summary");
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(err.contains(&*out.to_string_lossy()), "{err}");
    assert!(!pids.into_iter().any(runs), "{err}");
    failed_because(&out, "stopped by Ctrl-C");
}

#[tokio::test]
async fn a_run_whose_node_leaves_in_the_middle_fails_with_a_report_of_what_happened() {
    let mut testnet = start("--nodes 2 --devices 1 --steps 1000");
    testnet.wait_until("a node trained", |net| net.count(2, "step_applied") >= 2).await;
    let out = testnet.out.clone();
    signal(testnet.pid(2), libc::SIGTERM);
    let (output, _folder) = testnet.end().await;
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && err.contains("report.html"), "{err}");
    let (report, summary) = failed_because(&out, "node 2");
    assert!(report.contains("before the run was finished"), "{err}");
    assert!(report.contains("loss-chart-t") && report.contains("timeline-chart-t"), "what was trained is drawn");
    assert!(report.contains("By the chain&#39;s accounts"), "the chain was asked while it ran");
    assert!(summary["steps"].as_u64().unwrap() >= 2, "{summary}");
}

#[tokio::test]
async fn nodes_do_not_outlive_a_testnet_that_is_killed() {
    let mut testnet = start("--nodes 1 --devices 1 --steps 1000");
    testnet.wait_until("the node is up", |net| net.count(1, "started") == 1).await;
    let node = testnet.pid(1);
    assert!(runs(node));
    testnet.child.start_kill().unwrap();
    let (_output, _folder) = testnet.end().await;
    let mut look = interval(LOOK_EVERY);
    let gone = timeout(Duration::from_secs(10), async {
        while runs(node) {
            look.tick().await;
        }
    });
    assert!(gone.await.is_ok(), "node {node} still runs");
}

#[tokio::test]
async fn a_folder_with_other_files_and_an_impossible_layout_are_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("thesis.tex"), "x").unwrap();
    for (options, reason) in [(vec!["--devices", "1"], "--out"), (vec!["--devices", "4", "--dp", "3"], "--dp and --tp")] {
        let run = Command::new(env!("CARGO_BIN_EXE_psyche-solana-client"))
            .args(["testnet", "--out"])
            .arg(folder.path())
            .args(options)
            .output();
        let output = timeout(Duration::from_secs(60), run).await.unwrap().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && err.contains(reason), "{err}");
    }
    assert_eq!(left_behind(folder.path()), ["thesis.tex"]);
}
