//! Benchmarks that hold a training step against others: PyTorch, other layouts of devices, gloo, and a GPU's peak.
//!
//! Contestants are processes that take turns within one run (`contest`); ours are this program with another command. It
//! prints tables in Markdown. `gpu/bench/bench.sh` and `gpu/bench/device.sh` start it with what it needs around it.

use std::process::ExitCode;

use device::Setting;
use error::BenchError;
use setting::Size;
use tables::Place;

mod contest;
mod device;
mod error;
mod node;
mod setting;
mod stats;
mod table;
mod tables;
mod worker;

const USAGE: &str = "psyche-gpu-bench COMMAND [--work FOLDER] [--rounds N] [--size tiny|small|1b]
  step         tokens/s against PyTorch eager, f32 and bf16, 1 and 2 threads
  layouts      one device against DP 2 and TP 2
  all-reduce   shared memory against gloo
  device       a 1B model on the first CUDA device against PyTorch, parts of the step, bits against the CPU's
  dry-run      the same with a tiny model on the CPU
  train JOB, reduce JOB   a contestant, started by the commands above";
const ROUNDS_MAX: usize = 1000;

struct Options {
    work: Option<std::path::PathBuf>,
    rounds: usize,
    size: Size,
}

impl Options {
    fn of(mut arguments: impl Iterator<Item = String>) -> Result<Self, BenchError> {
        let refuse = |problem: String| BenchError::Arguments(format!("{problem}\n{USAGE}"));
        let mut options = Self { work: None, rounds: 8, size: Size::Small };
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or_else(|| refuse(format!("{name} has no value")))?;
            match name.as_str() {
                "--work" => options.work = Some(value.into()),
                "--rounds" => match value.parse() {
                    Ok(rounds) if (1..=ROUNDS_MAX).contains(&rounds) => options.rounds = rounds,
                    _ => return Err(refuse(format!("--rounds must be in 1..={ROUNDS_MAX}"))),
                },
                "--size" => options.size = Size::of(&value).ok_or_else(|| refuse("--size is tiny, small or 1b".to_owned()))?,
                _ => return Err(refuse(format!("there is no option {name}"))),
            }
        }
        Ok(options)
    }

    fn place(self) -> Result<Place, BenchError> {
        let work = self.work.ok_or_else(|| BenchError::Arguments("--work FOLDER is missing".to_owned()))?;
        Ok(Place { work, rounds: self.rounds, size: self.size })
    }
}

#[expect(clippy::print_stdout, reason = "a benchmark's report")]
fn run() -> Result<(), BenchError> {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().unwrap_or_default();
    let mut job = || arguments.next().ok_or_else(|| BenchError::Arguments(format!("{command} has no job")));
    match command.as_str() {
        "train" => return worker::train(&job()?),
        "reduce" => return worker::reduce(&job()?),
        _ => {}
    }
    let options = Options::of(arguments)?;
    match command.as_str() {
        "step" => tables::step(&options.place()?, &[1, 2])?.iter().for_each(|table| println!("{table}")),
        "layouts" => println!("{}", tables::layouts(&options.place()?)?),
        "all-reduce" => println!("{}", tables::all_reduce(options.rounds)?),
        "device" | "dry-run" => {
            let place = options.place()?;
            let setting = Setting::new(place.work, place.rounds, command == "dry-run");
            device::measure(&setting, |table| println!("{table}"))?;
        }
        _ => return Err(BenchError::Arguments(format!("there is no command {command:?}\n{USAGE}"))),
    }
    Ok(())
}

#[expect(clippy::print_stderr, reason = "a benchmark's report")]
fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: failed to {}", error.chain());
            ExitCode::FAILURE
        }
    }
}
