//! Two nodes in one process.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use psyche_actors::rpc::GetEndpointHealth;
use psyche_actors::telemetry::MetricsBind;
use psyche_actors::{Events, Heard, Node, Outcome};
use psyche_messages::{Digest, NodeEvent, Phase, Step};

use crate::{alone, node, scene};

/// What belongs to the process, and must be afterwards what it was before.
#[derive(Debug, PartialEq)]
struct Process {
    variables: Vec<(OsString, OsString)>,
    folder: PathBuf,
    /// Signals that are caught, blocked or ignored.
    signals: Vec<String>,
    has_subscriber: bool,
}

impl Process {
    fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let of_signals = |line: &&str| ["SigBlk", "SigIgn", "SigCgt"].iter().any(|name| line.starts_with(name));
        Self {
            variables: std::env::vars_os().collect(),
            folder: std::env::current_dir().unwrap(),
            signals: status.lines().filter(of_signals).map(str::to_owned).collect(),
            has_subscriber: tracing::dispatcher::has_been_set(),
        }
    }
}

/// How many results each step had that a node applied, and the parameters' digest after it; once the node has ended.
async fn applied(mut events: Events) -> BTreeMap<Step, (u16, Digest)> {
    let mut digests = BTreeMap::new();
    while let Some(heard) = events.next().await {
        match heard {
            Heard::Event(NodeEvent::StepApplied { step, results, digest, .. }) => drop(digests.insert(step, (results, digest))),
            Heard::Event(_) => {}
            other => panic!("a listener that listens misses nothing: {other:?}"),
        }
    }
    digests
}

fn finished(outcome: &Outcome) {
    assert!(matches!(outcome, Outcome::Finished { .. }), "{outcome:?}");
}

#[test]
fn two_nodes_in_one_process_train_together_to_the_end_and_leave_the_process_as_it_was() {
    let _alone = alone();
    let scene = scene(2, 6, &["one", "two"]);
    // Some wait for nobody's runtime, some for the host's: one of each.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let hooked = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&hooked);
    std::panic::set_hook(Box::new(move |_| {
        counts.fetch_add(1, Ordering::Relaxed);
    }));
    let before = Process::now();

    let digests = runtime.block_on(async {
        let any = MetricsBind::At("127.0.0.1:0".parse().unwrap());
        let one = node(&scene, "one", Vec::new()).telemetry(any).start().await.unwrap();
        let own = node(&scene, "two", one.listening()).runtime(tokio::runtime::Handle::current());
        let two = own.start().await.unwrap();
        assert_ne!((one.address(), one.peer()), (two.address(), two.peer()));
        assert!(one.http().is_some() && two.http().is_none());
        for node in [&one, &two] {
            let (metrics, address) = (node.metrics().text(), node.address().to_string());
            assert_eq!(metrics.matches("psyche_node_info{").count(), 1, "{metrics}");
            assert!(metrics.contains(&address), "a node exports what is its own: {metrics}");
            assert_eq!(node.status().address, node.address());
            assert!(node.health().await.live);
            let endpoints = node.actors().rpc.ask(GetEndpointHealth).await.unwrap();
            assert_eq!(endpoints.len(), 1, "its actors answer: {endpoints:?}");
        }
        let listeners = [&one, &two].map(|node| tokio::spawn(applied(node.events())));
        let ends = tokio::join!(one.wait(), two.wait());
        finished(&ends.0);
        finished(&ends.1);
        // Who asks again, or for a stop that comes too late, hears the same.
        finished(&one.stop("too late").await);
        let [of_one, of_two] = listeners;
        let digests = (of_one.await.unwrap(), of_two.await.unwrap());
        let (one, two) = (one.status(), two.status());
        assert_eq!((one.phase, one.model_step), (Some(Phase::Finished), two.model_step));
        assert_eq!(one.digest, two.digest);
        assert!(one.steps_trained > 0 && two.steps_trained > 0, "both take part: {} {}", one.steps_trained, two.steps_trained);
        digests
    });
    assert!(digests.0.len() >= 5, "{digests:?}");
    assert!(digests.0.values().any(|(results, _)| *results == 2), "each applies the other's results: {digests:?}");
    assert_eq!(digests.0, digests.1, "after every step both have the same parameters");

    assert_eq!(Process::now(), before);
    assert!(std::panic::catch_unwind(|| panic!("provoked by the test")).is_err());
    assert!(hooked.load(Ordering::Relaxed) > 0, "the host's hook is still the one");
    drop(std::panic::take_hook());
    // What the nodes held is free again at once.
    runtime.block_on(async {
        let again: Node = node(&scene, "one", Vec::new()).start().await.unwrap();
        finished(&again.wait().await);
    });
}
