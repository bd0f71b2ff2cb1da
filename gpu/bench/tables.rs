//! The tables that need no GPU: ours against PyTorch, layouts of devices, all-reduce against gloo.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::contest::{Contestant, Entry, Results, agree, take_turns};
use crate::error::BenchError;
use crate::setting::{Job, Reduction, Size};
use crate::table::{Table, ratio, spread};

/// Loss and gradient norm of one step may differ by this much between implementations, relative.
const TOLERANCE_F32: f64 = 1e-4;
const TOLERANCE_BF16: f64 = 2e-2;
/// The size of an all-reduce: 21 MB of f32.
const REDUCED_ELEMENTS: usize = 5_250_000;

/// The contestants of [`step`].
const OURS: usize = 0;
const PEER: usize = 1;
const ADAMW: usize = 2;

pub(crate) const PASSES: &str = "forward and backward";
pub(crate) const WHOLE: &str = "whole step";

/// Where a command works and how long it takes.
pub(crate) struct Place {
    /// A folder for weights.
    pub(crate) work: PathBuf,
    /// Counted rounds of each contest.
    pub(crate) rounds: usize,
    pub(crate) size: Size,
}

/// How far two implementations may be apart.
pub(crate) fn tolerance(precision: &str) -> f64 {
    if precision == "f32" { TOLERANCE_F32 } else { TOLERANCE_BF16 }
}

/// Ours, as a process that does `job`.
pub(crate) fn ours(name: &str, command: &str, job: &impl Serialize) -> Result<Entry, BenchError> {
    let program = std::env::current_exe().map_err(BenchError::Pipe)?;
    Ok(entry(name, program.into(), vec![command.into(), serde_json::to_string(job)?.into()]))
}

/// A peer: one of the Python scripts, as a process that does `job`.
pub(crate) fn peer(name: &str, script: &str, job: &impl Serialize) -> Result<Entry, BenchError> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let python = variable("PYTHON").ok_or(BenchError::Environment { what: "Python", variable: "PYTHON" })?;
    let folder = variable("PSYCHE_BENCH_PEERS")
        .ok_or(BenchError::Environment { what: "the peers' scripts", variable: "PSYCHE_BENCH_PEERS" })?;
    let script = Path::new(&folder).join(script).into();
    Ok(entry(name, python, vec!["-s".into(), "-B".into(), script, serde_json::to_string(job)?.into()]))
}

fn entry(name: &str, program: OsString, arguments: Vec<OsString>) -> Entry {
    // libgomp's spinning barrier collapses as soon as something else wants a core; it is passive for both sides alike.
    Entry { name: name.to_owned(), program, arguments, environment: vec![("OMP_WAIT_POLICY", "passive".into())] }
}

/// Starts all entries, has them agree on a first step, and lets them take turns.
pub(crate) fn contest(entries: Vec<Entry>, tolerance: f64, rounds: usize) -> Result<Results, BenchError> {
    let mut contestants = entries.into_iter().map(Contestant::start).collect::<Result<Vec<_>, _>>()?;
    agree(&mut contestants, tolerance)?;
    take_turns(&mut contestants, rounds)
}

/// A training step on one device against PyTorch eager, by precision and threads: the passes alone, and the whole step.
///
/// # Errors
/// A contestant that fails; losses or gradients that don't agree.
pub(crate) fn step(place: &Place, threads: &[usize]) -> Result<[Table; 2], BenchError> {
    let weights = place.size.weights(&place.work)?;
    let tokens = place.size.tokens() as f64;
    let rounds = format!("tokens/s, median (quartiles) of {} rounds in turns; ratio: ours / PyTorch", place.rounds);
    let mut passes =
        Table::new(format!("Forward and backward passes, {rounds}"), &["precision, threads", "ours", "PyTorch eager", "ratio"]);
    let head =
        ["precision, threads", "ours, DisTrO", "ours, fused AdamW", "PyTorch, fused AdamW", "ratio, DisTrO", "ratio, AdamW"];
    let mut whole = Table::new(format!("Whole training step, {rounds}"), &head);
    for precision in ["f32", "bf16"] {
        for &threads in threads {
            let job = Job::new(place.size, weights.clone(), "cpu", precision, threads);
            let mut entries = vec![ours("ours", "train", &job)?, peer("PyTorch eager", "eager.py", &job)?];
            if precision == "f32" {
                // Ours has no f32 masters of bf16 weights, so that in bf16 it would do less than the peer.
                entries.push(ours("ours with AdamW", "train", &Job { adamw: true, ..job })?);
            }
            let results = contest(entries, tolerance(precision), place.rounds)?;
            let rate = |who, what| spread(results.rate(who, what, tokens), 1.0);
            let against = |who, what| ratio(results.speed_against(who, PEER, what));
            let name = || format!("{precision}, {threads}");
            passes.row([name(), rate(OURS, PASSES), rate(PEER, PASSES), against(OURS, PASSES)]);
            let rates = [OURS, ADAMW, PEER].map(|who| rate(who, WHOLE));
            let ratios = [OURS, ADAMW].map(|who| against(who, WHOLE));
            whole.row([name()].into_iter().chain(rates).chain(ratios));
        }
    }
    Ok([passes, whole])
}

/// The same step on one device with one and two threads, and on two devices; in f32.
///
/// # Errors
/// As [`step`].
pub(crate) fn layouts(place: &Place) -> Result<Table, BenchError> {
    const LAYOUTS: [(&str, usize, usize, usize); 4] = [
        ("one device, 1 thread", 1, 1, 1),
        ("one device, 2 threads", 1, 1, 2),
        ("DP 2, 1 thread each", 2, 1, 1),
        ("TP 2, 1 thread each", 1, 2, 1),
    ];
    const PARTS: [&str; 6] = ["spread", PASSES, "collect", "encode", "apply", "digest"];
    let weights = place.size.weights(&place.work)?;
    let entry = |(name, data_parallel, tensor_parallel, threads): (&str, usize, usize, usize)| {
        let job = Job::new(place.size, weights.clone(), "cpu", "f32", threads);
        ours(name, "train", &Job { data_parallel, tensor_parallel, ..job })
    };
    let entries = LAYOUTS.map(entry).into_iter().collect::<Result<Vec<_>, _>>()?;
    let results = contest(entries, TOLERANCE_F32, place.rounds)?;
    let title = format!(
        "The same step by layout, f32, median (quartiles) of {} rounds in turns; speed: against one device with 1 thread",
        place.rounds
    );
    let head = ["layout", "tokens/s", "speed", "ms: spread", PASSES, "collect", "encode", "apply", "digest"];
    let mut table = Table::new(title, &head);
    for (index, (name, ..)) in LAYOUTS.iter().enumerate() {
        let mut row = vec![(*name).to_owned(), spread(results.rate(index, WHOLE, place.size.tokens() as f64), 1.0)];
        row.push(ratio(results.speed_against(index, 0, WHOLE)));
        row.extend(PARTS.map(|part| match results.median(index, part) {
            Some(seconds) => crate::table::number(1e3 * seconds),
            None => "not measured".to_owned(),
        }));
        table.row(row);
    }
    Ok(table)
}

/// An all-reduce of 21 MB between two threads against gloo between two processes.
///
/// # Errors
/// A contestant that fails, sums that differ.
pub(crate) fn all_reduce(rounds: usize) -> Result<Table, BenchError> {
    let mut table = Table::new(
        format!("All-reduce of f32 between two ranks, ms, median (quartiles) of {rounds} rounds in turns; ratio: gloo / ours"),
        &["bytes", "ours, two threads", "gloo, two processes", "ratio"],
    );
    for elements in [REDUCED_ELEMENTS, 256 * 1024, 4096] {
        // Small ones are repeated more often: a round should be long enough to measure.
        let job = Reduction { ranks: 2, elements, repeats: (REDUCED_ELEMENTS / elements).clamp(4, 64) };
        let entries = vec![ours("ours", "reduce", &job)?, peer("gloo", "gloo.py", &job)?];
        let results = contest(entries, 0.0, rounds)?;
        let what = "all-reduce";
        let mut row = vec![crate::table::number(4.0 * elements as f64)];
        row.extend([0, 1].map(|who| spread(results.time(who, what), 1e3)));
        row.push(ratio(results.speed_against(0, 1, what)));
        table.row(row);
    }
    Ok(table)
}
