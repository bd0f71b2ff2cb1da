//! Devices as the operator names them: what is accepted, what is refused with which numbers, and what a process that trains
//! starts with.
#![cfg(feature = "localnet")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

mod support;

use std::process::Output;

use psyche_gpu::devices::{CudaReport, Machine};
use serde_json::Value;
use support::{Folder, Scene, command, text};

const MODEL: &str = r#"{"architectures": ["LlamaForCausalLM"], "hidden_size": 32, "intermediate_size": 64,
"max_position_embeddings": 32, "model_type": "llama", "num_attention_heads": 4, "num_hidden_layers": 1,
"num_key_value_heads": 4, "rms_norm_eps": 0.00001, "rope_theta": 10000.0, "tie_word_embeddings": false,
"torch_dtype": "float32", "vocab_size": 300}"#;

/// That `output` is the refusal of a configuration that holds all of `parts`.
fn assert_refused(what: &str, output: &Output, parts: &[&str]) {
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{what}\n{message}");
    assert!(output.stdout.is_empty(), "{what}\n{}", text(&output.stdout));
    for part in parts {
        assert!(message.contains(part), "{what}: {part:?} is not in:\n{message}");
    }
}

/// A folder with a key, and the start of a command line that needs nothing but devices. Nobody listens on port 9.
fn checks() -> (Folder, String) {
    let folder = Folder::new();
    assert!(folder.run("wallet new --out key.json").status.success());
    let common = "--run-id demo --rpc http://127.0.0.1:9 --wallet-private-key-path key.json";
    (folder, common.to_owned())
}

#[test]
fn devices_that_cannot_be_meant_are_refused_before_anybody_is_asked() {
    let (folder, common) = checks();
    let cases: [(&str, &[&str]); 8] = [
        ("--device cpu:0", &["DEVICE:", "1..=256"]),
        ("--device cpu:many", &["DEVICE:", "1..=256"]),
        ("--device cuda:0,0", &["DEVICE:", "once"]),
        ("--device cuda:first", &["DEVICE:", "cuda:0,1"]),
        ("--device tpu", &["DEVICE:", "auto, cpu, cpu:N, cuda"]),
        (
            "--device cpu:3 --data-parallelism 2 --tensor-parallelism 2",
            &[
                "DATA_PARALLELISM 2 × TENSOR_PARALLELISM 2 are 4 ranks",
                "3 CPU devices",
                "DATA_PARALLELISM=1 TENSOR_PARALLELISM=2",
            ],
        ),
        ("--device cpu:1 --data-parallelism 2", &["2 ranks", "1 CPU devices", "DATA_PARALLELISM=1 TENSOR_PARALLELISM=1"]),
        ("--device cpu --data-parallelism 64 --tensor-parallelism 64", &["64", "256"]),
    ];
    for (index, (devices, parts)) in cases.into_iter().enumerate() {
        // Both read it alike.
        let subcommand = if index % 2 == 0 { "check-config" } else { "train" };
        let line = format!("{subcommand} {common} {devices}");
        assert_refused(&line, &folder.run(&line), parts);
    }
}

#[test]
fn cuda_that_is_not_there_is_refused_with_what_is() {
    let (folder, common) = checks();
    let there = Machine::look().cuda;
    // No machine has this one.
    let line = format!("check-config {common} --device cuda:99");
    let part = if there.devices().is_empty() { there.to_string() } else { format!("{} here", there.devices().len()) };
    assert_refused(&line, &folder.run(&line), &["cuda:99", &part]);
    if there == CudaReport::NoDriver {
        let line = format!("train {common} --device cuda");
        assert_refused(&line, &folder.run(&line), &["use device cuda: no NVIDIA driver", "DEVICE=cpu"]);
    }
}

#[test]
fn a_configuration_that_can_work_says_where_each_rank_computes() {
    let (folder, common) = checks();
    let output = folder.run(&format!("check-config {common} --device cpu --data-parallelism 2 --json"));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let checked: Value = serde_json::from_slice(&output.stdout).unwrap();
    let placement = checked["placement"].as_array().unwrap();
    assert_eq!(placement.len(), 2);
    assert!(placement.iter().all(|seat| seat.as_str().unwrap().starts_with("cpu (")), "{checked}");
    let crowded = folder.run(&format!("check-config {common} --device cpu --data-parallelism 64 --tensor-parallelism 4"));
    assert!(crowded.status.success(), "{}", text(&crowded.stderr));
    assert!(text(&crowded.stderr).contains("warning: 256 CPU devices take turns"), "{}", text(&crowded.stderr));
}

#[test]
fn the_machines_devices_are_listed_for_people_and_for_scripts() {
    let output = command().arg("devices").output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let lines = text(&output.stdout);
    let machine = Machine::look();
    assert!(lines.lines().next().unwrap().starts_with("cpu "), "{lines}");
    assert!(lines.lines().nth(1).unwrap().contains(&machine.cuda.to_string()), "{lines}");
    assert_eq!(lines.lines().count(), 2 + machine.cuda.devices().len(), "{lines}");
    let listed: Value = serde_json::from_slice(&command().args(["devices", "--json"]).output().unwrap().stdout).unwrap();
    assert_eq!(listed["cpu"]["cores"].as_array().unwrap().len(), machine.cpu.cores.len());
    assert_eq!(listed["cuda"]["devices"].as_array().unwrap().len(), machine.cuda.devices().len());
    assert!(listed["cpu"]["memory_free_bytes"].as_u64().unwrap() > 0);
}

#[test]
fn devices_that_cuda_visible_devices_hides_are_not_there() {
    let output = command().args(["devices", "--json"]).env("CUDA_VISIBLE_DEVICES", "").output().unwrap();
    let listed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(listed["cuda"]["devices"], serde_json::json!([]));
    assert_eq!(listed["cuda"]["usable"], false);
}

#[test]
fn tensor_parallelism_that_does_not_divide_the_model_is_refused_before_anything_is_loaded() {
    let scene = Scene::with_run("here");
    scene.good("join-authorization-create --permissionless --wallet-private-key-path owner.json");
    // No weights and no tokens: nothing gets as far as to miss them.
    std::fs::create_dir(scene.path("model")).unwrap();
    std::fs::write(scene.path("model/config.json"), MODEL).unwrap();
    let line = "train --run-id here --wallet-private-key-path owner.json --device cpu --tensor-parallelism 3";
    let parts = ["tensor parallelism 3 does not divide", "num_attention_heads 4", "intermediate_size 64", "one of 1, 2, 4"];
    let output = scene.run(line);
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(16), "{message}");
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in:\n{message}");
    }
}

/// OpenMP's settings as it shows them when a process begins: the last one's, if it was started anew.
fn spin_count(output: &Output) -> (usize, String) {
    let shown = text(&output.stderr);
    let counts: Vec<&str> = shown.lines().filter_map(|line| line.trim().strip_prefix("GOMP_SPINCOUNT = ")).collect();
    (counts.len(), counts.last().expect("OpenMP shows its settings").trim_matches('\'').to_owned())
}

#[test]
fn a_process_that_trains_begins_with_threads_that_do_not_spin() {
    let run = |args: &[&str], variables: &[(&str, &str)]| {
        let mut command = command();
        command.env_remove("OMP_WAIT_POLICY").env("OMP_DISPLAY_ENV", "VERBOSE");
        command.args(args).envs(variables.iter().copied()).output().unwrap()
    };
    let started = run(&["train"], &[]);
    assert_eq!(started.status.code(), Some(3), "the same command goes on: {}", text(&started.stderr));
    assert_eq!(spin_count(&started), (2, "0".to_owned()), "started anew, once, with a passive policy");
    assert_eq!(spin_count(&run(&[], &[])), (2, "0".to_owned()), "`train` is what happens without a subcommand");
    // What somebody chose stays, and commands that do not train stay as they are.
    assert_eq!(spin_count(&run(&["train"], &[("OMP_WAIT_POLICY", "passive")])), (1, "0".to_owned()));
    assert_eq!(spin_count(&run(&["train"], &[("GOMP_SPINCOUNT", "7")])), (1, "7".to_owned()));
    assert_eq!(spin_count(&run(&["check-config"], &[])).0, 1);
}

#[test]
fn variables_that_are_read_at_the_start_count_in_a_file_too_and_its_keys_stay_out_of_the_environment() {
    let folder = Folder::new();
    folder.write("node.env", "GOMP_SPINCOUNT=11\nRUN_ID=demo\nRAW_WALLET_PRIVATE_KEY=hunter2\n", 0o600);
    let mut command = command();
    command.env_remove("OMP_WAIT_POLICY").env("OMP_DISPLAY_ENV", "VERBOSE").current_dir(folder.path(""));
    let output = command.args(["train", "--env-file", "node.env"]).output().unwrap();
    assert_eq!(spin_count(&output), (2, "11".to_owned()));
    let message = text(&output.stderr);
    // The new process has read the file as the old one did.
    assert!(message.contains("RAW_WALLET_PRIVATE_KEY:") && !message.contains("RUN_ID:"), "{message}");
    assert!(!message.contains("hunter2"), "{message}");
}
