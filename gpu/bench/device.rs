//! The tables of a machine with a GPU: a 1B model's step against PyTorch, what the codec takes of it, and whether the GPU
//! applies results by the same bits as the CPU.
//!
//! A dry run goes through the same code with a tiny model on the CPU.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;

use crate::contest::{Contestant, Entry, Results, agree, take_turns};
use crate::error::BenchError;
use crate::node::Node;
use crate::setting::{Job, Size};
use crate::stats::Spread;
use crate::table::{Table, number, ratio, spread};
use crate::tables::{PASSES, WHOLE, ours, peer, tolerance};

/// Steps whose results are applied on both sides.
const APPLIED_STEPS: u64 = 3;
/// Each of them counts as the results of so many senders, in turn, so that votes are tied and outvoted too.
const SENDERS: usize = 3;

/// What is measured where.
pub(crate) struct Setting {
    pub(crate) work: PathBuf,
    pub(crate) rounds: usize,
    device: &'static str,
    size: Size,
    precision: &'static str,
    /// The back end of `torch.compile`.
    compiler: &'static str,
    threads: usize,
    /// Edge of the matrices whose product shows the device's peak, and products of a round.
    peak: (usize, usize),
    compared: &'static [Size],
}

impl Setting {
    /// The first CUDA device, or with `dry_run` a tiny model on the CPU.
    pub(crate) fn new(work: PathBuf, rounds: usize, dry_run: bool) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        if dry_run {
            let (compiler, compared) = ("aot_eager", &[Size::Tiny] as &[Size]);
            let (device, size, precision, peak) = ("cpu", Size::Tiny, "bf16", (256, 4));
            return Self { work, rounds, device, size, precision, compiler, threads: 1, peak, compared };
        }
        let (compiler, compared) = ("inductor", &[Size::Small, Size::Billion] as &[Size]);
        let (device, size, precision, peak) = ("cuda:0", Size::Billion, "bf16", (8192, 20));
        Self { work, rounds, device, size, precision, compiler, threads, peak, compared }
    }
}

/// Measures everything and hands each table to `print` as soon as it is there.
///
/// # Errors
/// A contestant that fails, but for `torch.compile`, whose row then says so; results that don't agree.
pub(crate) fn measure(setting: &Setting, mut print: impl FnMut(Table)) -> Result<(), BenchError> {
    for &size in setting.compared {
        print(same_bits(setting, size)?);
    }
    let peak = peak(setting)?;
    let weights = setting.size.weights(&setting.work)?;
    let job = Job::new(setting.size, weights, setting.device, setting.precision, setting.threads);
    let mut contestants =
        vec![Contestant::start(ours("ours", "train", &job)?)?, Contestant::start(peer("PyTorch eager", "eager.py", &job)?)?];
    agree(&mut contestants, tolerance(setting.precision))?;
    let refused = compiled(setting, &job).and_then(try_once).map(|compiled| contestants.push(compiled)).err();
    let results = take_turns(&mut contestants, setting.rounds)?;
    let names: Vec<&str> = contestants.iter().map(|contestant| contestant.name.as_str()).collect();
    let mut table = steps(setting, &names, &results, peak);
    if let Some(error) = refused {
        table.row(["torch.compile".to_owned(), format!("failed: {}", error.chain())]);
    }
    print(table);
    print(shares(&results));
    Ok(())
}

fn compiled(setting: &Setting, job: &Job) -> Result<Entry, BenchError> {
    peer("torch.compile", "eager.py", &Job { compile: Some(setting.compiler.to_owned()), ..job.clone() })
}

/// A contestant that has done its work once: only then is it known whether it compiles.
fn try_once(entry: Entry) -> Result<Contestant, BenchError> {
    let mut contestant = Contestant::start(entry)?;
    contestant.step()?;
    Ok(contestant)
}

/// The most operations per second that a large bf16 matrix product reached.
fn peak(setting: &Setting) -> Result<f64, BenchError> {
    let (edge, products) = setting.peak;
    let job = json!({"device": setting.device, "edge": edge, "products": products, "threads": setting.threads});
    let mut contestants = [Contestant::start(peer("matrix product", "eager.py", &job)?)?];
    let results = take_turns(&mut contestants, setting.rounds)?;
    let flop = 2.0 * (edge as f64).powi(3);
    Ok(results.seconds(0, "product").into_iter().map(|seconds| flop / seconds).fold(0.0, f64::max))
}

fn steps(setting: &Setting, names: &[&str], results: &Results, peak: f64) -> Table {
    let (sequence, samples, micro_batch) = setting.size.batch();
    let title = format!(
        "Training step of the {} model on {}, {}, sequence {sequence}, {samples} samples in passes of {micro_batch}; median \
         (quartiles) of {} rounds in turns. MFU: share of {} TFLOP/s, the most that a bf16 matrix product of {} reached; {} \
         GFLOP per token",
        setting.size.name(),
        setting.device,
        setting.precision,
        setting.rounds,
        number(peak / 1e12),
        setting.peak.0,
        number(setting.size.flop_per_token() / 1e9),
    );
    let head = ["who", "tokens/s, forward and backward", "MFU", "ours / it", "tokens/s, whole step", "ours / it"];
    let mut table = Table::new(title, &head);
    let tokens = setting.size.tokens() as f64;
    for (index, name) in names.iter().enumerate() {
        let passes = results.rate(index, PASSES, tokens);
        let share = passes.map(|rate| rate.median * setting.size.flop_per_token() / peak);
        table.row([
            (*name).to_owned(),
            spread(passes, 1.0),
            share.map_or_else(|| "not measured".to_owned(), |share| format!("{:.1} %", 100.0 * share)),
            ratio(results.speed_against(0, index, PASSES)),
            spread(results.rate(index, WHOLE, tokens), 1.0),
            ratio(results.speed_against(0, index, WHOLE)),
        ]);
    }
    table
}

/// Where our step's time goes.
fn shares(results: &Results) -> Table {
    const PARTS: [&str; 6] = ["spread", PASSES, "collect", "encode", "apply", "digest"];
    let mut table = Table::new("Parts of our step; the codec and the apply are what DisTrO adds", &["part", "ms", "share"]);
    let whole = results.seconds(0, WHOLE);
    let mut add = |name: &str, seconds: &[f64]| {
        let share = Spread::of_ratios(seconds, &whole).map_or(f64::NAN, |share| 100.0 * share.median);
        table.row([name.to_owned(), spread(Spread::of(seconds.iter().copied()), 1e3), format!("{share:.2} %")]);
    };
    PARTS.iter().for_each(|part| add(part, &results.seconds(0, part)));
    let (encode, apply) = (results.seconds(0, "encode"), results.seconds(0, "apply"));
    let both: Vec<f64> = encode.iter().zip(&apply).map(|(encode, apply)| encode + apply).collect();
    add("**codec and apply**", &both);
    table
}

/// Applies the same results on the device and on the CPU, and compares all bits of the weights after each step.
fn same_bits(setting: &Setting, size: Size) -> Result<Table, BenchError> {
    let weights = size.weights(&setting.work)?;
    let on = |device: &str, threads| Node::new(&Job::new(size, weights.clone(), device, setting.precision, threads));
    let (device, host) = (on(setting.device, setting.threads)?, on("cpu", setting.threads.max(2))?);
    let mut table = Table::new(
        format!("Exact apply of the {} model's results, {} against the CPU", size.name(), setting.device),
        &["step", "senders", "digest on the device", "on the CPU"],
    );
    let mut payloads: Vec<Arc<[u8]>> = Vec::new();
    for step in 0..APPLIED_STEPS {
        payloads.extend(device.train(step)?.trained.payload.map(Arc::from));
        let senders = Arc::new(payloads[payloads.len().saturating_sub(SENDERS)..].to_vec());
        device.apply(step, &senders)?;
        host.apply(step, &senders)?;
        let (one, other) = (device.digest()?.0, host.digest()?.0);
        if one != other {
            let problem = format!("digests {} and {} after step {step}", hex(&one), hex(&other));
            let (name, peer) = (setting.device.to_owned(), "the CPU".to_owned());
            return Err(BenchError::Disagreement { name, peer, problem });
        }
        table.row([step.to_string(), senders.len().to_string(), hex(&one), "the same".to_owned()]);
    }
    Ok(table)
}

/// The first bytes of a digest.
fn hex(digest: &[u8; 32]) -> String {
    digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}
