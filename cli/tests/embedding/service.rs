//! The example, as a process of its own.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use psyche_actors::telemetry::NodeReport;
use serde_json::Value;

use crate::support::{Scene, isolated};
use crate::{RUN, embed, scene};

/// Set where this binary is to be the service.
const IS_SERVICE: &str = "PSYCHE_TEST_SERVICE";

/// The example's own `main`, in the process that the other test starts.
#[test]
fn the_service_itself() {
    if std::env::var_os(IS_SERVICE).is_some() {
        // As a host does, if it wants to see anything.
        tracing_subscriber::fmt().with_ansi(false).init();
        let ended = embed::main();
        assert!(ended.is_ok(), "{ended:?}");
    }
}

/// A service at work; gone when dropped.
struct Service {
    child: Child,
    address: String,
    log: Option<JoinHandle<Vec<String>>>,
}

impl Drop for Service {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Service {
    fn start(scene: &Scene) -> Self {
        let mut command = isolated(std::env::current_exe().unwrap());
        command.args(["--exact", "service::the_service_itself", "--nocapture"]).env(IS_SERVICE, "1");
        command.current_dir(scene.path("")).envs(scene.chain.variables()).env("LISTEN", "127.0.0.1:0");
        command.envs([("RUN_ID", RUN), ("WALLET_PRIVATE_KEY_PATH", "one.json"), ("DEVICE", "cpu"), ("DATA_DIR", "data")]);
        command.envs([("P2P_BIND", "127.0.0.1"), ("DATA_PATH", "tokens/tokens.bin")]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let place = format!(" trains {RUN}: http://");
        let address = lines.find_map(|line| Some(line.unwrap().split_once(&place)?.1.to_owned()));
        // Read as it comes, so that it is never held up.
        let log = Some(std::thread::spawn(move || lines.map_while(Result::ok).collect()));
        Self { child, address: address.expect("the service says where it is"), log }
    }

    fn connect(&self, method: &str, path: &str) -> BufReader<TcpStream> {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", self.address);
        stream.write_all(head.as_bytes()).unwrap();
        BufReader::new(stream)
    }

    /// Code and body of an answer.
    fn ask(&self, method: &str, path: &str) -> (u16, String) {
        let mut answer = String::new();
        self.connect(method, path).read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }
}

/// The events' names, as they come.
fn names(events: BufReader<TcpStream>) -> impl Iterator<Item = String> {
    events.lines().map_while(Result::ok).filter_map(|line| {
        let event: Value = serde_json::from_str(line.strip_prefix("data: ")?).unwrap();
        Some(event["event"].as_str()?.to_owned())
    })
}

#[test]
fn the_example_trains_answers_over_http_tells_events_and_exits_with_zero_when_it_is_stopped() {
    let scene = scene(1, 100_000, &["one"]);
    let mut service = Service::start(&scene);
    let mut events = names(service.connect("GET", "/training/events"));
    let applied = events.by_ref().take_while(|name| name != "step_applied").collect::<Vec<_>>();
    assert!(applied.iter().any(|name| name == "step_trained"), "{applied:?}");

    let deadline = Instant::now() + Duration::from_secs(60);
    while service.ask("GET", "/health").0 != 200 {
        assert!(Instant::now() < deadline, "{}", service.ask("GET", "/health").1);
    }
    let health: Value = serde_json::from_str(&service.ask("GET", "/health").1).unwrap();
    assert_eq!((&health["live"], &health["readiness"]["ready"]), (&Value::Bool(true), &Value::Bool(true)), "{health}");
    let (code, status) = service.ask("GET", "/training/status");
    let status: NodeReport = serde_json::from_str(&status).unwrap();
    assert_eq!((code, status.run_id.as_str(), status.address), (200, RUN, scene.address("one")));
    assert!(status.steps_trained > 0 && status.loss.is_some_and(f32::is_finite), "{status:?}");
    let (code, metrics) = service.ask("GET", "/metrics");
    assert!(code == 200 && metrics.contains("psyche_steps_applied_total"), "{metrics}");
    assert_eq!(service.ask("GET", "/elsewhere").0, 404);
    assert_eq!(service.ask("GET", "/training/stop").0, 405, "who only looks stops nothing");

    let (code, stopped) = service.ask("POST", "/training/stop");
    assert_eq!((code, stopped.trim()), (200, r#"{"stopped":"asked to over HTTP"}"#));
    assert_eq!(events.last().as_deref(), Some("stopped"), "streams end with the node, and tell its end");
    assert!(service.child.wait().unwrap().success());
    let log = std::fs::read_to_string(scene.path("data/events.jsonl")).unwrap();
    assert!(log.lines().last().unwrap().contains("asked to over HTTP"), "{log}");
}

#[test]
fn the_example_leaves_cleanly_at_sigterm() {
    let scene = scene(2, 5, &["one"]);
    let mut service = Service::start(&scene);
    let id = service.child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    assert!(service.child.wait().unwrap().success());
    let log = std::fs::read_to_string(scene.path("data/events.jsonl")).unwrap();
    assert!(log.lines().last().unwrap().contains("SIGTERM"), "{log}");
    let lines = service.log.take().unwrap().join().unwrap();
    let of_actors: Vec<_> = lines.iter().filter(|line| line.contains(" psyche_actors::")).collect();
    assert!(of_actors.iter().any(|line| line.contains("the node stops")), "{lines:#?}");
    for line in of_actors {
        assert!(line.contains("node{name=\"embedded\"}"), "every thread of the node's is in its span: {line}");
    }
}
