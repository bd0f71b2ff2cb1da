//! A node at work shows its health, metrics and status; what is said about metrics elsewhere is compared with what it exports.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may unwrap")]

mod support;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Output, Stdio};

use psyche_actors::telemetry::METRICS;
use serde_json::Value;
use support::training::{Node, run_toml};
use support::{Scene, command, text};

const RUN: &str = "seen";
/// A chain with a run that one client trains for as long as it likes, and what a node needs for that.
fn scene() -> Scene {
    let toml = run_toml(&[("warmup_time", "30"), ("epoch_time", "400"), ("total_steps", "100000")]);
    Scene::to_train(RUN, &toml, &["node"])
}

/// A collector of metrics: its URL, and the first request that it gets.
fn collector() -> (String, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let request = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut request, mut piece) = (Vec::new(), [0; 4096]);
        while !request.ends_with(b"}]}]}") {
            let read = stream.read(&mut piece).unwrap();
            assert!(read > 0, "the request ended early");
            request.extend_from_slice(&piece[..read]);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
        String::from_utf8(request).unwrap()
    });
    (url, request)
}

/// Stands for systemd: everything that a node tells it.
struct Systemd(UnixDatagram, String);

impl Systemd {
    fn listen(scene: &Scene) -> Self {
        let socket = UnixDatagram::bind(scene.path("notify")).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self(socket, String::new())
    }

    /// Whether a word was told by now.
    fn was_told(&mut self, word: &str) -> bool {
        let mut piece = [0; 1024];
        while let Ok(length) = self.0.recv(&mut piece) {
            self.1 += &text(&piece[..length]);
            self.1.push('\n');
        }
        self.1.lines().any(|line| line == word)
    }
}

fn start(scene: &Scene, collector: &str) -> Node {
    let mut command = scene.train(RUN, "node");
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", collector).env("OTEL_SERVICE_NAME", "node-of-the-test");
    command.env("NOTIFY_SOCKET", scene.path("notify")).env("WATCHDOG_USEC", "1500000");
    Node::start(command.stdout(Stdio::null()))
}

/// Code and body of an answer.
fn get(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// The value of a series, by its name and labels.
fn value(page: &str, series: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// Names of metrics in a text, without what histograms append.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_lowercase() && c != '_').filter(|word| word.starts_with("psyche_"));
    let plain =
        |word: &str| ["_bucket", "_count", "_sum"].iter().find_map(|end| word.strip_suffix(end)).unwrap_or(word).to_owned();
    words.map(plain).collect()
}

fn in_repository(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    std::fs::read_to_string(root.join(path)).unwrap()
}

/// Everything that names metrics names those of `page`, and explains all of them.
fn agrees_with_the_documentation(page: &str) {
    let exported: BTreeSet<String> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).map(Into::into).collect();
    let catalogue: BTreeSet<String> = METRICS.iter().map(|metric| metric.name.to_owned()).collect();
    assert_eq!(exported, catalogue, "a node that trains exports the whole catalogue");
    for file in ["docker/observability/alerts.yml", "docker/observability/grafana/psyche.json"] {
        let unknown: Vec<_> = named(&in_repository(file)).difference(&exported).cloned().collect();
        assert!(unknown.is_empty(), "{file} names {unknown:?}, which no node exports");
    }
    let guide = in_repository("docs/METRICS.md");
    for metric in METRICS {
        let row = format!("| `{}` | {} |", metric.name, format!("{:?}", metric.kind).to_lowercase());
        assert!(guide.contains(&row) && guide.contains(metric.help), "docs/METRICS.md has no row {row} or another meaning");
    }
}

fn status(scene: &Scene, options: &str) -> Output {
    let mut command = command();
    command.current_dir(scene.path("")).arg("status").args(options.split_whitespace()).envs(scene.chain.variables());
    command.output().unwrap()
}

/// What `status` prints, where it must succeed.
fn shown(scene: &Scene, options: &str) -> String {
    let output = status(scene, options);
    assert!(output.status.success(), "status {options}: {}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn a_node_shows_its_health_metrics_and_status_from_its_start_to_its_end() {
    let scene = scene();
    let (collector, pushed) = collector();
    let mut systemd = Systemd::listen(&scene);
    let mut node = start(&scene, &collector);
    let address = node.until("address", || scene.http_address("node"));
    let address = address.as_str();
    let mut refusals = 0;
    let page = node.until("applied step", || {
        assert_eq!(get(address, "/livez").0, 200);
        let (code, body) = get(address, "/readyz");
        let readiness: Value = serde_json::from_str(&body).unwrap();
        let page = get(address, "/metrics").1;
        assert_eq!(code, if readiness["ready"] == true { 200 } else { 503 }, "{body}");
        assert_eq!(code == 200, readiness["problems"].as_array().unwrap().is_empty(), "{body}");
        refusals += u32::from(code == 503);
        if readiness["state"] == "training" {
            assert_eq!(value(&page, "psyche_model_ready"), Some(1.0), "{body}");
        }
        let moved = |series: &str| value(&page, series).is_some_and(|value| value > 0.0);
        let series = ["psyche_steps_applied_total", "psyche_round_duration_seconds_count", "psyche_wallet_lamports"];
        (code == 200 && readiness["state"] == "training" && series.iter().all(|series| moved(series))).then_some(page)
    });
    assert!(refusals > 0, "the node was ready before it had joined");
    node.until("word for systemd", || systemd.was_told("READY=1").then_some(()));
    assert!(systemd.1.find("EXTEND_TIMEOUT_USEC=") < systemd.1.find("READY=1"), "{}", systemd.1);
    assert_eq!(systemd.1.matches("READY=1").count(), 1, "{}", systemd.1);
    systemd.1.clear();
    node.until("sign of life", || systemd.was_told("WATCHDOG=1").then_some(()));
    node.until("state", || systemd.was_told("STATUS=training").then_some(()));
    for series in [
        "psyche_steps_trained_total",
        "psyche_payload_bytes_total",
        "psyche_loss",
        "psyche_tokens_per_second",
        "psyche_ready",
        "psyche_tx_landed_total{kind=\"join\"}",
        "psyche_actor_up{actor=\"trainer\"}",
    ] {
        assert!(value(&page, series).is_some_and(|value| value > 0.0), "{series} is not there or has not moved: {page}");
    }
    agrees_with_the_documentation(&page);
    assert_eq!(get(address, "/nothing").0, 404);
    let pushed = pushed.join().unwrap();
    assert!(pushed.starts_with("POST /v1/metrics "), "{pushed}");
    assert!(pushed.contains("node-of-the-test") && pushed.contains("psyche_build_info"), "{pushed}");

    let told = shown(&scene, "--data-dir data-node");
    assert!(told.contains("state    training") && told.contains(&format!("run      {RUN}")), "{told}");
    assert_eq!(shown(&scene, "--data-dir data-node --ready"), "ready: training\n");
    let told: Value = serde_json::from_str(&shown(&scene, "--data-dir data-node --json")).unwrap();
    assert!(told["steps_applied"].as_u64().unwrap() > 0 && told["readiness"]["ready"] == true, "{told}");
    let told: Value = serde_json::from_str(&shown(&scene, &format!("--run-id {RUN} --json"))).unwrap();
    assert_eq!((&told["run_id"], told["clients"].as_u64()), (&RUN.into(), Some(1)), "{told}");
    let told = status(&scene, "--run-id nowhere");
    assert_eq!(told.status.code(), Some(4), "{}", text(&told.stderr));

    node.signal(libc::SIGTERM);
    assert_eq!(node.0.wait().unwrap().code(), Some(0));
    assert!(systemd.was_told("STOPPING=1"), "{}", systemd.1);
    let told = status(&scene, "--data-dir data-node");
    assert_eq!(told.status.code(), Some(7));
    assert!(text(&told.stderr).contains("--node"), "a remedy is named: {}", text(&told.stderr));

    let told = shown(&scene, "--replay data-node");
    for event in ["  started ", "  model_ready ", "  step_trained ", "  step_applied ", "  stopped "] {
        assert!(told.contains(event), "{event} in {told}");
    }
    let events = shown(&scene, "--replay data-node/events.jsonl --json");
    assert_eq!(events.lines().count(), told.lines().count());
    assert!(events.lines().all(|line| serde_json::from_str::<Value>(line).unwrap()["v"] == 1));
}

#[test]
fn what_can_not_be_looked_at_is_told_with_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let run = |options: &str| {
        let output = command().current_dir(folder.path()).arg("status").args(options.split(' ')).output().unwrap();
        (output.status.code(), text(&output.stderr))
    };
    // Taken, and then let go: nobody listens there.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (code, message) = run(&format!("--node {free}"));
    assert!(code == Some(7) && message.contains("--data-dir"), "{code:?} {message}");
    let (code, message) = run("--replay nothing-here");
    assert!(code == Some(3) && message.contains("events.jsonl"), "{code:?} {message}");
    assert_eq!(run("--replay x --watch").0, Some(2));
}

#[test]
fn an_address_that_is_taken_is_refused_before_anything_is_asked() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("id.json");
    assert!(command().args(["wallet", "new", "--out"]).arg(&key).output().unwrap().status.success());
    let mut train = command();
    train.current_dir(folder.path()).arg("train").env("WALLET_PRIVATE_KEY_PATH", &key);
    train.envs([("RPC", "http://127.0.0.1:1"), ("RUN_ID", RUN), ("DEVICE", "cpu")]);
    let output = train.env("METRICS_BIND", taken.local_addr().unwrap().to_string()).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("set it to a free address of this machine, or to off"), "{}", text(&output.stderr));
}
