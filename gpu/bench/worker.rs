//! Our side of a contest: a process that trains, or reduces, whenever it is told to.

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use psyche_gpu::GpuError;
use psyche_gpu::mesh::{self, Collective, MeshRank, Topology};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::error::BenchError;
use crate::node::Node;
use crate::setting::{Job, Reduction};

/// Trains a step, for each line of the input: with DisTrO, applies its own result and takes the digest.
///
/// # Errors
/// A job that can't be done, a broken pipe.
pub(crate) fn train(job: &str) -> Result<(), BenchError> {
    let job: Job = serde_json::from_str(job)?;
    let node = Node::new(&job)?;
    serve(&json!({"ready": true, "parameters": node.parameters()}), |number| {
        let step = node.train(number)?;
        let (loss, norm) = (step.trained.loss, step.trained.gradient_norm);
        if job.adamw {
            let times = json!({"whole step": step.train.as_secs_f64()});
            return Ok(json!({"loss": loss, "gradient_norm": norm, "times": times}));
        }
        let payload = step.trained.payload.as_deref().map(Arc::from);
        let apply = node.apply(number, &Arc::new(payload.into_iter().collect()))?;
        let (_, digest) = node.digest()?;
        let phases = step.durations;
        let times = [
            ("spread", phases.spread),
            ("forward and backward", phases.model),
            ("collect", phases.collect),
            ("encode", phases.encode),
            ("apply", apply),
            ("digest", digest),
            ("whole step", step.train + apply),
        ];
        let times: BTreeMap<&str, f64> = times.map(|(name, time)| (name, time.as_secs_f64())).into_iter().collect();
        Ok(json!({"loss": loss, "gradient_norm": norm, "times": times}))
    })
}

/// Reduces a tensor of ones among threads, for each line of the input.
///
/// # Errors
/// As [`train`].
pub(crate) fn reduce(job: &str) -> Result<(), BenchError> {
    let job: Reduction = serde_json::from_str(job)?;
    psyche_gpu::devices::init_threads(1);
    let topology = Topology::new(1, job.ranks)?;
    let ranks = mesh::mesh(topology, Duration::from_secs(60)).into_iter();
    let ranks: Vec<_> = ranks.map(|rank| reducer(rank, job)).collect();
    serve(&json!({"ready": true}), |_| {
        let gone = || GpuError::Plan { step: 0, problem: "a rank's thread is gone".to_owned() };
        for (commands, _) in &ranks {
            commands.send(()).map_err(|_| gone())?;
        }
        let answers = ranks.iter().map(|(_, answers)| answers.recv().map_err(|_| gone())?);
        let answers = answers.collect::<Result<Vec<(f64, f64)>, GpuError>>()?;
        let slowest = answers.iter().map(|&(seconds, _)| seconds).fold(0.0, f64::max);
        Ok(json!({"element": answers[0].1, "times": {"all-reduce": slowest}}))
    })
}

type Reducer = (SyncSender<()>, Receiver<Result<(f64, f64), GpuError>>);

/// A rank's thread: answers with the mean seconds of one all-reduce and an element of the result.
fn reducer(rank: MeshRank, job: Reduction) -> Reducer {
    let (commands, inbox) = sync_channel::<()>(1);
    let (outbox, answers) = sync_channel(1);
    std::thread::spawn(move || {
        let work = || -> Result<(f64, f64), GpuError> {
            let mut tensor = Tensor::f_ones([job.elements as i64], (Kind::Float, Device::Cpu))?;
            rank.agree(())?;
            let started = Instant::now();
            let group = rank.tensor_group();
            for _ in 0..job.repeats {
                group.all_reduce(&mut tensor, mesh::Reduction::Sum)?;
            }
            let seconds = started.elapsed().as_secs_f64() / job.repeats as f64;
            Ok((seconds, tensor.f_double_value(&[job.elements as i64 / 2])?))
        };
        while inbox.recv().is_ok() && outbox.send(work()).is_ok() {}
    });
    (commands, answers)
}

/// Says `ready`, then answers each line `step` until the input ends.
#[expect(clippy::print_stdout, reason = "the pipe to the process that asks")]
fn serve(ready: &Value, mut step: impl FnMut(u64) -> Result<Value, BenchError>) -> Result<(), BenchError> {
    println!("{ready}");
    for (number, line) in (0..).zip(std::io::stdin().lock().lines()) {
        let line = line.map_err(BenchError::Pipe)?;
        if line.trim() != "step" {
            return Err(BenchError::Arguments("expected the line step on the standard input".to_owned()));
        }
        println!("{}", step(number)?);
        std::io::stdout().flush().map_err(BenchError::Pipe)?;
    }
    Ok(())
}
