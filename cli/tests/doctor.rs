//! What `doctor` finds on a real chain: everything right, and each thing wrong with its line and its exit code; and which run
//! is joined where none is named.
#![cfg(feature = "localnet")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Output;

use psyche_chain::ProgramIds;
use psyche_protocol::layout::{CoordinatorAccount, RunState};
use serde_json::Value;
use support::{Folder, Scene, command, other_network, silent_server, text};

const MODEL: &str = r#"{"architectures": ["LlamaForCausalLM"], "hidden_size": 32, "intermediate_size": 64,
"max_position_embeddings": 32, "model_type": "llama", "num_attention_heads": 4, "num_hidden_layers": 1,
"num_key_value_heads": 4, "rms_norm_eps": 0.00001, "rope_theta": 10000.0, "tie_word_embeddings": false,
"torch_dtype": "float32", "vocab_size": 300}"#;

/// The variables of a node that has nothing wrong.
const GOOD: [(&str, &str); 6] = [
    ("RUN_ID", "open"),
    ("WALLET_PRIVATE_KEY_PATH", "joiner.json"),
    ("DEVICE", "cpu"),
    ("DATA_DIR", "data"),
    ("P2P_BIND", "127.0.0.1"),
    ("P2P_EXTERNAL", "/ip4/203.0.113.7/udp/4001/quic-v1"),
];

/// A run that everybody may join, with its model and data, and a wallet with funds.
fn scene() -> Scene {
    let scene = Scene::with_run("open");
    scene.good("join-authorization-create --permissionless --wallet-private-key-path owner.json");
    scene.good("set-paused --run-id open --resume --wallet-private-key-path owner.json");
    let _address = scene.wallet("joiner", "1");
    scene.write("config.json", MODEL, 0o644);
    scene.good("init-model --config config.json --seed 7 --out model");
    std::fs::create_dir(scene.path("tokens")).unwrap();
    std::fs::write(scene.path("tokens/tokens.bin"), [1, 0].repeat(4_000)).unwrap();
    scene
}

/// Runs `doctor` with `changes` to what is right.
fn doctor(scene: &Scene, options: &str, changes: &[(&str, &str)]) -> Output {
    let variables: Vec<_> = GOOD.iter().chain(changes).copied().collect();
    scene.run_with(&format!("doctor {options}"), &variables)
}

/// What `doctor --json` says with `changes`, and its exit code, which must be the answer's.
fn answer(scene: &Scene, changes: &[(&str, &str)]) -> (i32, Value) {
    let output = doctor(scene, "--json", changes);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)));
    let code = output.status.code().unwrap();
    assert_eq!(answer["exit_code"], code, "{answer}");
    assert_eq!(answer["ok"], code == 0, "{answer}");
    (code, answer)
}

/// The verdicts and words of one check.
fn lines<'a>(answer: &'a Value, check: &str) -> Vec<(&'a str, String)> {
    let lines = answer["checks"].as_array().unwrap().iter().filter(|line| line["check"] == check);
    lines.map(|line| (line["verdict"].as_str().unwrap(), format!("{}; {}", line["result"], line["remedy"]))).collect()
}

/// That `changes` make `check` come out as `verdict` with `words` in its line, and the process end with `code`.
fn assert_found(scene: &Scene, changes: &[(&str, &str)], code: i32, check: &str, verdict: &str, words: &str) {
    let (found, answer) = answer(scene, changes);
    assert_eq!(found, code, "{changes:?}\n{answer:#}");
    let lines = lines(&answer, check);
    assert!(lines.iter().any(|(is, text)| *is == verdict && text.contains(words)), "{words}: {lines:?}\n{answer:#}");
}

#[test]
fn with_everything_right_every_line_is_good_and_no_secret_is_shown() {
    let scene = scene();
    let rpc = format!("{}/?api-key=hunter2", scene.chain.rpc());
    let output = doctor(&scene, "", &[("RPC", &rpc)]);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{out}{err}");
    assert!(out.lines().all(|line| line.starts_with('✓')), "{out}");
    let checks = ["configuration", "key", "rpc", "cluster", "websocket", "clock", "run", "authorization", "version", "balance"];
    for check in checks.iter().chain(&["roster", "batch", "simulation", "devices", "memory", "data", "disk", "port", "nat"]) {
        assert!(out.lines().any(|line| line.split_whitespace().nth(1) == Some(check)), "{check}: {out}");
    }
    let key = std::fs::read_to_string(scene.path("joiner.json")).unwrap();
    for (shown, what) in [(&out, "stdout"), (&err, "stderr")] {
        assert!(!shown.contains("hunter2") && !shown.contains(&key[1..20]), "{what}: {shown}");
    }
    assert!(!scene.path("data").exists(), "nothing is made");
}

/// Changed variables, and what comes of them: exit code, check, verdict, words of its line.
type Case<'a> = (&'a [(&'a str, &'a str)], i32, &'a str, &'a str, &'a str);

#[tokio::test(flavor = "multi_thread")]
async fn each_thing_that_is_wrong_has_its_line_and_its_exit_code() {
    let scene = scene();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    scene.write("file", "", 0o644);
    let key = std::fs::read_to_string(scene.path("joiner.json")).unwrap();
    scene.write("loose.json", &key, 0o644);
    let (silent, other) = (silent_server(), other_network());
    let silent_ws = silent.replace("http", "ws");
    let rpc = scene.chain.rpc().to_owned();
    let cases: [Case<'_>; 13] = [
        (&[("MICRO_BATCH_SIZE", "hunter2")], 3, "configuration", "no", "MICRO_BATCH_SIZE"),
        (&[("WALLET_PRIVATE_KEY_PATH", "loose.json")], 3, "key", "no", "chmod 600"),
        (&[("WALLET_PRIVATE_KEY_PATH", "poor.json")], 6, "balance", "no", "send it some SOL"),
        (&[("RPC", "http://127.0.0.1:9")], 7, "rpc", "no", "127.0.0.1:9"),
        (&[("RPC", "http://127.0.0.1:9"), ("RPC_2", &rpc)], 0, "rpc", "warning", "127.0.0.1:9"),
        (&[("RPC_2", &other)], 3, "cluster", "no", "RPC_2"),
        (&[("WS_RPC", &silent_ws)], 0, "websocket", "warning", "WS_RPC_2"),
        (&[("RUN_ID", "nowhere")], 4, "run", "no", "nowhere"),
        (&[("P2P_PORT", &port)], 18, "port", "no", "P2P_PORT"),
        (&[("DATA_DIR", "file/data")], 17, "disk", "no", "DATA_DIR"),
        (&[("DEVICE", "cuda:99")], 3, "devices", "no", "cuda:99"),
        (&[("TENSOR_PARALLELISM", "3")], 16, "memory", "no", "does not divide"),
        (&[("P2P_EXTERNAL", "")], 0, "nat", "not_checked", "P2P_RELAY"),
    ];
    for (changes, code, check, verdict, words) in cases {
        assert_found(&scene, changes, code, check, verdict, words);
    }
    // So many samples of a model of 130 million parameters that no machine that tests this could hold them at once.
    let larger = MODEL.replace("\"hidden_size\": 32", "\"hidden_size\": 1024");
    let larger = larger.replace("\"intermediate_size\": 64", "\"intermediate_size\": 4096");
    scene.write("model/config.json", &larger.replace("\"num_hidden_layers\": 1", "\"num_hidden_layers\": 8"), 0o644);
    let many = [("MICRO_BATCH_SIZE", "65536")];
    assert_found(&scene, &many, 0, "memory", "warning", "the largest MICRO_BATCH_SIZE that fits is");
    // A model of some 27 billion parameters.
    let large = MODEL.replace("\"hidden_size\": 32", "\"hidden_size\": 4096");
    let large = large.replace("\"intermediate_size\": 64", "\"intermediate_size\": 16384");
    scene.write("model/config.json", &large.replace("\"num_hidden_layers\": 1", "\"num_hidden_layers\": 100"), 0o644);
    assert_found(&scene, &[], 16, "memory", "no", "TENSOR_PARALLELISM");
    scene.write("model/config.json", MODEL, 0o644);
    change_run(&scene).await;
}

/// The checks of an answer, each once, in its order.
fn order(answer: &Value) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for line in answer["checks"].as_array().unwrap() {
        let name = line["check"].as_str().unwrap();
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

/// The checks as the operators' guide lists them, in its order.
fn documented() -> Vec<&'static str> {
    let (_, table) = include_str!("../../docs/OPERATORS.md").split_once("| checks | what is looked at |\n|---|---|\n").unwrap();
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    rows.flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2)).collect()
}

#[test]
fn the_first_of_several_obstacles_gives_the_exit_code_in_the_documented_order() {
    let scene = scene();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    scene.write("file", "", 0o644);
    // In the order of the checks: key and variables, endpoints, the run, the balance, devices, disk, port.
    let wrong = [
        ("DATA_PARALLELISM", "0", 3),
        ("RPC", "http://127.0.0.1:9", 7),
        ("RUN_ID", "nowhere", 4),
        ("WALLET_PRIVATE_KEY_PATH", "poor.json", 6),
        ("DEVICE", "cuda:99", 3),
        ("DATA_DIR", "file/data", 17),
        ("P2P_PORT", &port, 18),
    ];
    let documented = documented();
    assert!(documented.len() > 15, "{documented:?}");
    for solved in 0..=wrong.len() {
        let left: Vec<_> = wrong[solved..].iter().map(|(name, value, _)| (*name, *value)).collect();
        let (code, answer) = answer(&scene, &left);
        assert_eq!(code, wrong.get(solved).map_or(0, |(_, _, code)| *code), "{left:?}\n{answer:#}");
        let mut expected = documented.iter();
        for check in order(&answer) {
            assert!(expected.any(|name| *name == check), "{check} comes later than docs/OPERATORS.md says: {answer:#}");
        }
    }
}

/// What the run's account can say against a join.
async fn change_run(scene: &Scene) {
    let info = scene.rpc().run_info(&"open".parse().unwrap()).await.unwrap();
    let fresh = scene.rpc().account(info.account).await.unwrap().unwrap().data;
    let set = |change: &dyn Fn(&mut CoordinatorAccount)| {
        let mut account = CoordinatorAccount::load_boxed(&fresh).unwrap();
        change(&mut account);
        scene.set_account(info.account, ProgramIds::default().coordinator, account.as_bytes());
    };
    set(&|account| assert!(account.state.client_version.set("9.9.9")));
    assert_found(scene, &[], 10, "version", "no", "9.9.9");
    set(&|account| account.state.coordinator.run_state = RunState::Paused.number());
    assert_found(scene, &[], 12, "phase", "no", "paused");
    set(&|account| account.state.coordinator.run_state = RunState::Finished.number());
    assert_found(scene, &[], 11, "finished", "no", "finished");
}

/// An endpoint whose clock is a day behind, and that refuses everything.
fn behind() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().take(1_000).flatten() {
            let _read = stream.read(&mut [0; 4096]);
            let head = "HTTP/1.1 429 Too Many Requests\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nRetry-After: 60\r\n";
            let _written = write!(stream, "{head}Content-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    format!("http://{address}")
}

#[test]
fn a_clock_that_is_off_and_a_rate_limit_are_told_and_what_needs_an_answer_is_not_checked() {
    let folder = Folder::new();
    assert!(folder.run("wallet new --out joiner.json").status.success());
    let mut command = command();
    command.current_dir(folder.path("")).args(["doctor", "--json"]).envs(GOOD).env("RPC", behind());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let (rpc, clock) = (lines(&answer, "rpc"), lines(&answer, "clock"));
    assert!(rpc[0].0 == "no" && rpc[0].1.contains("no more requests"), "{rpc:?}");
    assert!(clock[0].0 == "warning" && clock[0].1.contains("NTP"), "{clock:?}");
    for check in ["run", "balance", "memory"] {
        let lines = lines(&answer, check);
        assert!(lines.iter().all(|(is, text)| *is == "not_checked" && text.contains("not checked")), "{check}: {lines:?}");
    }
}

#[test]
fn a_configuration_that_cannot_be_read_is_told_whole() {
    let folder = Folder::new();
    let output = folder.run("doctor --micro-batch-size 0 --device tpu --rpc ftp://user:hunter2@host/key");
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(3), "{out}{err}");
    for part in ["✗ configuration  RPC:", "MICRO_BATCH_SIZE:", "DEVICE:", "✗ key", "wallet new", "- disk"] {
        assert!(out.contains(part), "{part:?}: {out}");
    }
    assert!(!out.contains("hunter2") && !err.contains("hunter2"), "{out}{err}");
    assert!(!out.contains("RUN_ID"), "a run need not be named: {out}");
}

#[test]
fn without_a_name_the_only_run_is_taken_and_several_or_none_are_told() {
    let scene = Scene::with_run("first");
    let _address = scene.wallet("joiner", "1");
    let unnamed: &[(&str, &str)] = &[("RUN_ID", "")];

    // None yet: nobody is let in, and the run is paused.
    let refused = scene.run_with("train", &[&GOOD[1..], unnamed].concat());
    let message = text(&refused.stderr);
    assert!(refused.status.code() == Some(5) && message.contains("first: neither everybody nor"), "{message}");

    let owner = "--wallet-private-key-path owner.json";
    scene.good(&format!("join-authorization-create --permissionless {owner}"));
    scene.good(&format!("set-paused --run-id first --resume {owner}"));
    let (_, taken) = answer(&scene, unnamed);
    assert_eq!(taken["run_id"], "first", "{taken:#}");
    assert!(lines(&taken, "run").iter().any(|(is, text)| *is == "yes" && text.contains("the only run")), "{taken:#}");
    // It is taken, and refused only for its model, which is not here.
    let trained = scene.run_with("train", &[&GOOD[1..], unnamed].concat());
    let message = text(&trained.stderr);
    assert!(message.contains("first is the only run") && message.contains("config.json"), "{message}");

    scene.good(&format!("create-run --run-id second {owner}"));
    scene.good(&format!("update-config --run-id second --config-path run.toml {owner}"));
    scene.good(&format!("set-paused --run-id second --resume {owner}"));
    let refused = scene.run_with("train", &[&GOOD[1..], unnamed].concat());
    let message = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(3), "{message}");
    assert!(message.contains("RUN_ID=first (") && message.contains("RUN_ID=second ("), "{message}");
    assert_found(&scene, unnamed, 3, "run", "no", "RUN_ID=second");
}

#[test]
fn train_refuses_early_with_the_words_of_doctor() {
    let scene = scene();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let cases: [(&str, &str, i32); 5] = [
        ("P2P_PORT", &port, 18),
        ("DATA_DIR", "run.toml/data", 17),
        ("WALLET_PRIVATE_KEY_PATH", "poor.json", 6),
        ("RUN_ID", "nowhere", 4),
        ("DEVICE", "cuda:99", 3),
    ];
    for change in cases {
        let (name, value, code) = change;
        let variables: Vec<_> = GOOD.iter().copied().chain([(name, value)]).collect();
        let trained = scene.run_with("train", &variables);
        let message = text(&trained.stderr);
        assert_eq!(trained.status.code(), Some(code), "{change:?}: {message}");
        let (_, answer) = answer(&scene, &[(name, value)]);
        let refused = answer["checks"].as_array().unwrap().iter().find(|line| line["verdict"] == "no").unwrap();
        let result = refused["result"].as_str().unwrap();
        assert!(message.contains(result), "{result}\nis not in\n{message}");
    }
}
