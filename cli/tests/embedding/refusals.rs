//! What a host can do wrong, and hears.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::executor::block_on;
use psyche_actors::config::P2pConfig;
use psyche_actors::telemetry::MetricsBind;
use psyche_actors::{NodeBuilder, NodeError, Outcome};
use psyche_messages::Secret;

use crate::support::{Scene, silent_server};
use crate::{RUN, alone, node, scene};

#[test]
fn everything_that_is_wrong_with_a_configuration_in_code_is_told_at_once() {
    let wrong = NodeBuilder::new()
        .run_id("")
        .endpoint("tcp://secret.example/secret", "")
        .wallet_key(&Secret::new("secret".to_owned()))
        .parallelism(0, 65)
        .micro_batch(0)
        .checkpoints("out", Some("secret"));
    let error = wrong.clone().build().unwrap_err();
    let mut variables: Vec<_> = error.violations.iter().map(|violation| violation.variable.as_str()).collect();
    variables.sort_unstable();
    let expected = [
        "CHECKPOINT_REPO",
        "DATA_PARALLELISM",
        "MICRO_BATCH_SIZE",
        "RAW_WALLET_PRIVATE_KEY",
        "RPC",
        "RUN_ID",
        "TENSOR_PARALLELISM",
    ];
    assert_eq!(variables, expected, "{error}");
    assert!(!error.to_string().contains("secret"), "{error}");
    let NodeError::Config(same) = block_on(wrong.start()).unwrap_err() else { panic!("it started") };
    assert_eq!(same, error);
    let nothing = NodeBuilder::new().build().unwrap_err();
    let missing: Vec<_> = nothing.violations.iter().map(|violation| violation.variable.as_str()).collect();
    assert_eq!(missing, ["RPC", "RUN_ID", "WALLET_PRIVATE_KEY_PATH"]);
}

#[test]
fn what_code_sets_anew_is_right_whatever_the_variables_said() {
    let scene = Scene::empty();
    scene.good("wallet new --out key.json");
    let variables = [("MICRO_BATCH_SIZE", "none"), ("P2P_PORT", "many"), ("RPC", "http://127.0.0.1:1"), ("DEVICE", "tpu")];
    let read = NodeBuilder::from_variables(variables.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(read.clone().build().unwrap_err().violations.len(), 5);
    let ready = read
        .run_id(RUN)
        .wallet_file(scene.path("key.json"))
        .micro_batch(4)
        .p2p(P2pConfig::default())
        .devices("cpu".parse().unwrap())
        .endpoint("http://127.0.0.1:2", "ws://127.0.0.1:3")
        .build()
        .unwrap();
    let config = ready.config();
    assert_eq!((config.mesh.micro_batch, config.endpoints.len()), (4, 2));
    assert_eq!(config.endpoint_names, ["RPC", "RPC_2"]);
}

#[test]
fn an_endpoint_that_nobody_answers_at_keeps_a_node_from_starting() {
    let scene = Scene::empty();
    scene.good("wallet new --out one.json");
    let [(_, _), (_, ws)] = scene.chain.variables();
    let node = NodeBuilder::new()
        .run_id(RUN)
        .endpoint("http://127.0.0.1:1", ws)
        .wallet_file(scene.path("one.json"))
        .data_dir(scene.path("data"))
        .devices("cpu:1".parse().unwrap());
    let error = block_on(node.start()).unwrap_err();
    assert!(matches!(error, NodeError::Chain(_)), "{error:?}");
    let no_run = NodeBuilder::new()
        .run_id("nowhere")
        .endpoint(scene.chain.rpc(), ws)
        .wallet_file(scene.path("one.json"))
        .data_dir(scene.path("data"))
        .devices("cpu:1".parse().unwrap());
    let error = block_on(no_run.start()).unwrap_err();
    assert!(matches!(error, NodeError::NoRun { .. }), "the folder is free, and the run is not there: {error:?}");
}

#[test]
fn a_folder_and_a_wallet_are_one_nodes_until_it_has_ended() {
    let _alone = alone();
    let scene = scene(2, 5, &["one", "two"]);
    // A host without any runtime.
    let first = block_on(node(&scene, "one", Vec::new()).start()).unwrap();
    let folder = node(&scene, "two", Vec::new()).data_dir(scene.path("data-one"));
    let error = block_on(folder.start()).unwrap_err();
    assert!(matches!(error, NodeError::FolderInUse { .. }), "{error:?}");
    let wallet = node(&scene, "one", Vec::new()).data_dir(scene.path("data-other"));
    let error = block_on(wallet.clone().start()).unwrap_err();
    assert!(matches!(&error, NodeError::WalletInUse { wallet, .. } if *wallet == first.address()), "{error:?}");
    let outcome = block_on(first.stop("the test"));
    assert!(matches!(&outcome, Outcome::Stopped { reason } if reason == "the test"), "{outcome:?}");
    assert!(!block_on(first.health()).live, "what has ended is not alive");
    // At once, since the end was waited for.
    let second = block_on(node(&scene, "two", Vec::new()).data_dir(scene.path("data-one")).start()).unwrap();
    let third = block_on(wallet.start()).unwrap();
    // Handles that are dropped stop their nodes without being waited for.
    let mut events = second.events();
    drop((second, third));
    while block_on(events.next()).is_some() {}
    let log = std::fs::read_to_string(scene.path("data-one/events.jsonl")).unwrap();
    assert!(log.contains("its handle was dropped"), "{log}");
}

#[test]
fn a_node_whose_hosts_runtime_ends_says_so_and_gives_everything_back() {
    let _alone = alone();
    let scene = scene(2, 5, &["one"]);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let node_of = |runtime: &tokio::runtime::Runtime| node(&scene, "one", Vec::new()).runtime(runtime.handle().clone());
    let first = block_on(node_of(&runtime).start()).unwrap();
    runtime.shutdown_background();
    let Outcome::Failed(error) = block_on(first.wait()) else { panic!("it ended well") };
    assert!(matches!(*error, NodeError::RuntimeGone), "{error:?}");

    // A host that forgets its node: the handle goes with the task that holds it.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let second = block_on(node_of(&runtime).start()).unwrap();
    drop(runtime.spawn(async move { second.wait().await }));
    drop(runtime);
    let deadline = Instant::now() + Duration::from_secs(60);
    let third = loop {
        match block_on(node(&scene, "one", Vec::new()).start()) {
            Ok(third) => break third,
            Err(NodeError::FolderInUse { .. } | NodeError::WalletInUse { .. }) => assert!(Instant::now() < deadline),
            Err(error) => panic!("{error:?}"),
        }
        std::thread::yield_now();
    };
    assert!(matches!(block_on(third.stop("the test")), Outcome::Stopped { .. }));
}

#[test]
fn a_start_that_is_called_off_holds_nothing() {
    let scene = Scene::empty();
    scene.good("wallet new --out one.json");
    let silent = silent_server();
    let starting = |rpc: &str| {
        NodeBuilder::new()
            .run_id(RUN)
            .endpoint(rpc, "")
            .wallet_file(scene.path("one.json"))
            .data_dir(scene.path("data"))
            .devices("cpu:1".parse().unwrap())
            .start()
    };
    // Asked once, and dropped before anybody answers.
    assert!(starting(&silent).now_or_never().is_none());
    let deadline = Instant::now() + Duration::from_secs(60);
    while let Err(error) = block_on(starting(scene.chain.rpc())) {
        match error {
            NodeError::FolderInUse { .. } | NodeError::WalletInUse { .. } => assert!(Instant::now() < deadline),
            NodeError::NoRun { .. } => return,
            error => panic!("{error:?}"),
        }
        std::thread::yield_now();
    }
    panic!("a node started without its run");
}

#[test]
fn ports_that_another_node_has_are_refused_by_what_they_are_for() {
    let _alone = alone();
    let scene = scene(2, 5, &["one", "two"]);
    let first = node(&scene, "one", Vec::new()).telemetry(MetricsBind::At("127.0.0.1:0".parse().unwrap()));
    let first = block_on(first.start()).unwrap();
    let metrics = MetricsBind::At(first.http().unwrap());
    let error = block_on(node(&scene, "two", Vec::new()).telemetry(metrics).start()).unwrap_err();
    assert!(matches!(error, NodeError::Metrics(_)), "{error:?}");
    let listening = first.listening();
    let port = listening.iter().find_map(|address| address.split("/udp/").nth(1)?.split('/').next()?.parse().ok()).unwrap();
    let p2p = P2pConfig { bind: IpAddr::V4(Ipv4Addr::LOCALHOST), port, ..P2pConfig::default() };
    let error = block_on(node(&scene, "two", Vec::new()).p2p(p2p).start()).unwrap_err();
    assert!(matches!(error, NodeError::Net(_)), "{error:?}");
    assert!(matches!(block_on(first.stop("the test")), Outcome::Stopped { .. }));
}
