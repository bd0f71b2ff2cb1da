#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

use super::*;

fn key() -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.json");
    Wallet::new().save(&path).unwrap();
    std::fs::read_to_string(path).unwrap()
}

fn read(pairs: &[(&str, &str)]) -> Result<NodeConfig, ConfigError> {
    let key = key();
    let base = [("RPC", "http://127.0.0.1:8899"), ("RUN_ID", "demo"), ("RAW_WALLET_PRIVATE_KEY", key.as_str())];
    let pairs = base.iter().chain(pairs).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    NodeConfig::from_variables(pairs)
}

fn refused(pairs: &[(&str, &str)]) -> Vec<String> {
    read(pairs).unwrap_err().violations.into_iter().map(|violation| violation.variable).collect()
}

#[test]
fn the_least_configuration_has_sensible_defaults() {
    let config = read(&[]).unwrap();
    assert_eq!(config.mesh, MeshShape { dp: 1, tp: 1, micro_batch: 1 });
    assert_eq!(config.claim, ClaimPolicy::Manual);
    assert_eq!(config.snapshots_kept.get(), 2);
    assert_eq!(config.p2p.port, 0);
    assert_eq!(config.programs, ProgramIds::default());
}

#[test]
fn the_seed_pages_variables_are_understood_with_quotes_and_blanks() {
    let config = read(&[
        ("WS_RPC", " \"ws://127.0.0.1:8900\" "),
        ("RPC_2", "https://api.devnet.solana.com"),
        ("WS_RPC_2", "wss://api.devnet.solana.com"),
        ("NVIDIA_DRIVER_CAPABILITIES", "all"),
        ("DATA_PARALLELISM", "2"),
        ("TENSOR_PARALLELISM", "'4'"),
        ("MICRO_BATCH_SIZE", "8"),
        ("AUTHORIZER", "11111111111111111111111111111111"),
    ])
    .unwrap();
    assert_eq!(config.endpoints.len(), 2);
    assert!(config.endpoints.iter().all(|pair| pair.ws.is_some()));
    assert_eq!(config.mesh, MeshShape { dp: 2, tp: 4, micro_batch: 8 });
    assert_eq!(config.authorizer, Some(Address([0; 32])));
}

#[test]
fn a_repository_for_checkpoints_needs_a_folder_and_a_name() {
    assert_eq!(refused(&[("CHECKPOINT_REPO", "a/b")]), ["CHECKPOINT_REPO"]);
    for wrong in ["a", "a/", "a/b/c", "a b/c"] {
        assert_eq!(refused(&[("CHECKPOINT_REPO", wrong), ("CHECKPOINT_DIR", "out")]), ["CHECKPOINT_REPO"], "{wrong}");
    }
    let config = read(&[("CHECKPOINT_REPO", "org/model-1.0"), ("CHECKPOINT_DIR", "out")]).unwrap();
    assert_eq!(config.checkpoint_repo.unwrap().repo_id.as_str(), "org/model-1.0");
    assert_eq!(config.checkpoint_dir.unwrap(), std::path::Path::new("out"));
}

#[test]
fn how_devices_compute_is_left_to_them_unless_it_is_set() {
    let compute = |pairs: &[(&str, &str)]| read(pairs).unwrap().compute;
    assert_eq!(compute(&[]), ComputeConfig::default());
    assert_eq!(compute(&[("PRECISION", "auto"), ("ACTIVATION_CHECKPOINTING", "false")]), ComputeConfig::default());
    let set = compute(&[("PRECISION", "'bf16'"), ("ACTIVATION_CHECKPOINTING", " yes ")]);
    assert_eq!(set, ComputeConfig { precision: Some(Precision::Bf16), checkpointing: true, skips_spikes: true });
    assert!(!compute(&[("SKIP_LOSS_SPIKES", "off")]).skips_spikes);
    assert_eq!(compute(&[("PRECISION", "f32"), ("ACTIVATION_CHECKPOINTING", "1")]).precision, Some(Precision::F32));
    let names = ["PRECISION", "ACTIVATION_CHECKPOINTING", "SKIP_LOSS_SPIKES"];
    let wrong = [("PRECISION", "f16"), ("ACTIVATION_CHECKPOINTING", "maybe"), ("SKIP_LOSS_SPIKES", "2")];
    assert_eq!(refused(&wrong), names);
    let seat = |device: &str| {
        let spec: DeviceSpec = device.parse().unwrap();
        let machine = Machine { cuda: psyche_gpu::devices::CudaReport::NoDriver, ..Machine::look() };
        spec.place(Topology::new(1, 1).unwrap(), &machine, || Ok(())).unwrap().seats.remove(0)
    };
    assert_eq!(ComputeConfig::default().precision_on(&seat("cpu")), Precision::F32);
    assert_eq!(set.precision_on(&seat("cpu")), Precision::Bf16);
}

#[test]
fn a_device_that_cannot_be_meant_is_refused_with_its_reason() {
    for (device, reason) in [("cpu:0", "1..=256"), ("cuda:1,1", "once"), ("tpu", "no such kind")] {
        let error = read(&[("DEVICE", device)]).unwrap_err();
        assert_eq!(error.violations[0].variable, "DEVICE");
        assert!(error.violations[0].problem.contains(reason), "{error}");
    }
    assert_eq!(read(&[("DEVICE", "cuda:2,0")]).unwrap().device, DeviceSpec::Cuda(Some(vec![2, 0])));
}

#[test]
fn priority_fees_have_a_floor_and_a_cap() {
    let (floor, cap) = ("PRIORITY_FEE_FLOOR_MICRO_LAMPORTS", "PRIORITY_FEE_CAP_MICRO_LAMPORTS");
    assert_eq!(read(&[]).unwrap().fees, FeeBounds::default());
    let fees = read(&[(floor, "7"), (cap, " '9' ")]).unwrap().fees;
    assert_eq!((fees.floor_micro_lamports, fees.cap_micro_lamports), (7, 9));
    assert_eq!(refused(&[(floor, "10"), (cap, "9")]), [cap]);
    assert_eq!(refused(&[(floor, "-1"), (cap, "much")]), [floor, cap]);
    let alone = fees_from([(cap.to_owned(), "5".to_owned())]).unwrap();
    assert_eq!(alone.cap_micro_lamports, 5);
}

#[test]
fn later_pairs_win_and_blank_ones_count_as_unset() {
    assert_eq!(read(&[("RUN_ID", "other")]).unwrap().run_id.as_str(), "other");
    assert_eq!(refused(&[("RUN_ID", " ")]), ["RUN_ID"]);
    assert_eq!(read(&[("RPC_2", "")]).unwrap().endpoints.len(), 1);
}

#[test]
fn endpoints_are_read_by_one_function_for_nodes_and_commands() {
    let variables = [("RPC", "http://a"), ("WS_RPC_3", "wss://c"), ("RPC", "http://later")];
    let read = endpoints_from(variables.map(|(name, value)| (name.to_owned(), value.to_owned()))).unwrap();
    assert_eq!(read.pairs.iter().map(ToString::to_string).collect::<Vec<_>>(), ["http://later", "wss://c"]);
    assert_eq!(read.names, ["RPC", "WS_RPC_3"]);
    assert_eq!(read.missing.len(), 2);
    let error = endpoints_from([("RPC_2".to_owned(), "tcp://secret.example/secret".to_owned())]).unwrap_err();
    let problem = "has the scheme tcp; http://host or https://host is accepted".to_owned();
    assert_eq!(error.violations, [Violation { variable: "RPC_2".into(), problem }]);
}

#[test]
fn every_violation_is_reported_at_once_and_no_value_is() {
    let error = read(&[
        ("RPC", "ftp://secret.example"),
        ("DATA_PARALLELISM", "0"),
        ("TENSOR_PARALLELISM", "secret"),
        ("CLAIM_REWARDS", "secret"),
        ("P2P_PORT", "65536"),
        ("BOOTSTRAP_PEERS", "/ip4/127.0.0.1/tcp/1,secret"),
    ])
    .unwrap_err();
    let names: Vec<_> = error.violations.iter().map(|violation| violation.variable.as_str()).collect();
    let expected =
        ["RPC", "DATA_PARALLELISM", "TENSOR_PARALLELISM", "P2P_PORT", "BOOTSTRAP_PEERS", "BOOTSTRAP_PEERS", "CLAIM_REWARDS"];
    assert_eq!(names, expected);
    assert!(!error.to_string().contains("secret"), "{error}");
}

#[test]
fn a_missing_wallet_and_a_bad_one_are_told_apart() {
    let none = NodeConfig::from_variables([("RUN_ID".into(), "demo".into()), ("RPC".into(), "http://localhost".into())]);
    assert_eq!(none.unwrap_err().violations[0].variable, "WALLET_PRIVATE_KEY_PATH");
    assert_eq!(refused(&[("RAW_WALLET_PRIVATE_KEY", "[1,2]")]), ["RAW_WALLET_PRIVATE_KEY"]);
}

#[test]
fn every_variable_that_is_read_is_documented() {
    let source = include_str!("environment.rs");
    let fields = source.split("struct Environment {").nth(1).unwrap().split('}').next().unwrap();
    for field in fields.lines().filter_map(|line| line.trim().split_once(": Option")).map(|(name, _)| name.to_uppercase()) {
        assert!(VARIABLES.iter().any(|variable| variable.name == field), "{field}");
    }
    let collector = include_str!("../telemetry/otlp/settings.rs");
    let endpoints = ["RPC", "WS_RPC", "RPC_2, RPC_3, …", "WS_RPC_2, WS_RPC_3, …"];
    // What the driver, OpenMP, the container toolkit and the logger read.
    let others = ["CUDA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "RUST_LOG"];
    for Variable { name, .. } in VARIABLES {
        let is_field = fields.contains(&format!(" {}: Option", name.to_lowercase()));
        let is_collectors = collector.contains(&format!("= \"{name}\";"));
        assert!(is_field || is_collectors || endpoints.contains(name) || others.contains(name), "nothing reads {name}");
    }
}

#[test]
fn a_documented_default_is_what_holds_where_the_variable_is_not_set() {
    let key = key();
    let pushed = [("RAW_WALLET_PRIVATE_KEY", key.as_str()), ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")];
    let unset = format!("{:?}", read(&pushed).unwrap());
    let mut compared = 0;
    for variable in VARIABLES {
        if let Unset::Is(value) = variable.unset {
            let set = read(&[pushed[0], pushed[1], (variable.name, value)]).unwrap();
            assert_eq!(format!("{set:?}"), unset, "{}", variable.name);
            compared += 1;
        }
    }
    assert!(compared > 15, "{compared}");
    // What is compared does tell settings apart.
    for other in [("DEVICE", "cpu"), ("SNAPSHOTS_KEPT", "3"), ("OTEL_EXPORTER_OTLP_TIMEOUT", "9"), ("OTEL_SERVICE_NAME", "x")] {
        assert_ne!(format!("{:?}", read(&[pushed[0], pushed[1], other]).unwrap()), unset, "{other:?}");
    }
}

#[test]
fn relays_are_addresses_and_the_word_serve() {
    let id = psyche_net::identity::peer_name(&psyche_net::peer_key_of(&psyche_messages::Secret::new([1; 32]))).unwrap();
    let relay = format!("/ip4/203.0.113.1/tcp/4001/p2p/{id}");
    let p2p = read(&[("P2P_RELAY", &format!(" serve , {relay}")), ("P2P_EXTERNAL", "/ip4/203.0.113.2/tcp/4001")]).unwrap().p2p;
    assert_eq!((p2p.serves_relay, p2p.relays, p2p.external.len()), (true, vec![relay.clone()], 1));
    let p2p = read(&[("P2P_RELAY", &relay)]).unwrap().p2p;
    assert!(!p2p.serves_relay);
    assert_eq!(refused(&[("P2P_RELAY", "server"), ("P2P_EXTERNAL", "here")]), ["P2P_RELAY", "P2P_EXTERNAL"]);
    assert_eq!(refused(&[("P2P_RELAY", &format!("{relay}/p2p-circuit/p2p/{id}"))]), ["P2P_RELAY"]);
    assert_eq!(refused(&[("P2P_RELAY", &vec![relay; psyche_net::RELAYS_MAX + 1].join(","))]), ["P2P_RELAY"]);
}

#[test]
fn an_identity_is_read_from_its_file_or_its_variable_and_never_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("identity");
    let made = psyche_net::identity::create_identity(&path).unwrap();
    let path = path.to_str().unwrap();
    assert_eq!(read(&[]).unwrap().identity.map(|seed| *seed.expose()), None);
    let read_path = read(&[("IDENTITY_SECRET_KEY_PATH", path)]).unwrap();
    assert_eq!(read_path.identity.map(|seed| *seed.expose()), Some(*made.expose()));
    let raw = read(&[("IDENTITY_SECRET_KEY_PATH", path), ("RAW_IDENTITY_SECRET_KEY", &"01".repeat(32))]).unwrap();
    assert_eq!(raw.identity.map(|seed| *seed.expose()), Some([1; 32]), "as with the wallet, the key itself wins");
    let error = read(&[("RAW_IDENTITY_SECRET_KEY", "hush")]).unwrap_err();
    assert!(error.to_string().contains("RAW_IDENTITY_SECRET_KEY") && !error.to_string().contains("hush"), "{error}");
    assert_eq!(refused(&[("IDENTITY_SECRET_KEY_PATH", "/nowhere")]), ["IDENTITY_SECRET_KEY_PATH"]);
}

#[test]
fn health_and_metrics_are_served_where_the_operator_says_or_nowhere() {
    let bound = |value| read(&[("METRICS_BIND", value)]).unwrap().metrics;
    assert_eq!((bound(""), bound("off")), (MetricsBind::Default, MetricsBind::Off));
    assert_eq!(bound("'0.0.0.0:7000'"), MetricsBind::At("0.0.0.0:7000".parse().unwrap()));
    assert_eq!(refused(&[("METRICS_BIND", "9464"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector")]).len(), 2);
    let pushed = read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")]).unwrap();
    assert!(pushed.otlp.is_some() && read(&[]).unwrap().otlp.is_none());
}
