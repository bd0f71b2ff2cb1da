//! The scripts around the benchmarks do what they say where there is no GPU, and what runs on one is tried on the CPU.
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

use std::path::Path;
use std::process::{Command, Output};

use psyche_gpu::devices::cuda_report;

fn device_script(arguments: &[&str]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/device.sh");
    let mut command = Command::new(script);
    command.args(arguments).env("PSYCHE_GPU_BENCH", env!("CARGO_BIN_EXE_psyche-gpu-bench")).env("ROUNDS", "1");
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_dry_run_trains_beside_pytorch_and_prints_every_table() {
    let done = device_script(&["--dry-run"]);
    let (tables, log) = (text(&done.stdout), text(&done.stderr));
    assert!(done.status.success(), "{log}\nWithout PyTorch here, `make python` fetches it.");
    let rows: Vec<Vec<&str>> =
        tables.lines().filter(|line| line.starts_with('|')).map(|line| line.split('|').map(str::trim).collect()).collect();
    let row = |name: &str| {
        let row = rows.iter().find(|row| row[1] == name);
        row.unwrap_or_else(|| panic!("no row {name} in {tables}\n{log}")).clone()
    };
    for step in ["0", "1", "2"] {
        assert_eq!(row(step)[4], "the same", "{tables}");
    }
    for who in ["ours", "PyTorch eager", "torch.compile"] {
        assert!(row(who)[2].starts_with(|first: char| first.is_ascii_digit()), "{who} was not measured: {tables}");
        assert!(row(who)[3].ends_with('%'), "{who} has no share of the peak: {tables}");
    }
    for part in ["spread", "forward and backward", "collect", "encode", "apply", "digest", "**codec and apply**"] {
        assert!(row(part)[3].ends_with('%'), "{part} has no share of the step: {tables}");
    }
}

#[test]
fn a_machine_without_a_gpu_is_told_from_a_failure() {
    if !cuda_report().devices().is_empty() {
        return println!("there is a CUDA device here, on which device.sh would measure");
    }
    let done = device_script(&[]);
    assert_eq!(done.status.code(), Some(3), "{}", text(&done.stderr));
    assert!(text(&done.stderr).contains("no GPU here"), "{}", text(&done.stderr));
    assert!(done.stdout.is_empty(), "no table without a measurement");
}

#[test]
fn unknown_commands_are_refused_with_the_known_ones() {
    let script = device_script(&["--fast"]);
    assert_eq!(script.status.code(), Some(2));
    assert!(text(&script.stderr).contains("--dry-run"));
    let tool = Command::new(env!("CARGO_BIN_EXE_psyche-gpu-bench")).args(["sing", "--rounds", "1"]).output().unwrap();
    assert_eq!(tool.status.code(), Some(1));
    assert!(text(&tool.stderr).contains("failed to read the arguments: there is no command \"sing\""), "{tool:?}");
    let rounds = Command::new(env!("CARGO_BIN_EXE_psyche-gpu-bench")).args(["step", "--rounds", "0"]).output().unwrap();
    assert!(text(&rounds.stderr).contains("--rounds must be in 1..=1000"), "{rounds:?}");
}
