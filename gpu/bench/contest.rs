//! Contestants are processes that do a piece of work whenever they are told to, in turns: A B, B A, A B …
//!
//! Each is started with its job in one argument, answers `{"ready": true, …}`, and then each line `step` with a line of
//! JSON that holds the seconds of what it did by name under `times`. Taking turns inside one run, and dividing within
//! each round, keeps what else the machine does out of the ratios.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::error::BenchError;
use crate::stats::Spread;

/// Longest wait for a contestant: loading a large model, or compiling it.
const ANSWER_MAX: Duration = Duration::from_secs(300);
/// Longest line of an answer that is read.
const LINE_BYTES_MAX: u64 = 1 << 20;
/// Rounds that warm caches, allocators and compilers up and are not counted.
const WARM_UP: usize = 2;

/// What a contestant says of one piece of work.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub(crate) struct Answer {
    /// Seconds by name.
    pub(crate) times: BTreeMap<String, f64>,
    /// Mean cross entropy, where a step was trained.
    pub(crate) loss: Option<f64>,
    /// L2 norm of the gradient before clipping, likewise.
    pub(crate) gradient_norm: Option<f64>,
    /// An element of what was computed, where both sides must get the same.
    pub(crate) element: Option<f64>,
    /// Floating-point operations of the piece of work, where they are known.
    pub(crate) flop: Option<f64>,
}

/// How a contestant is started.
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) program: OsString,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) environment: Vec<(&'static str, OsString)>,
}

/// A contestant that waits for its turn. Dropping it ends it.
pub(crate) struct Contestant {
    pub(crate) name: String,
    /// What it said of itself at the start.
    pub(crate) ready: Value,
    child: Child,
    input: ChildStdin,
    lines: Receiver<std::io::Result<String>>,
}

impl Contestant {
    /// Starts the process and waits until it has loaded what it needs.
    ///
    /// # Errors
    /// A program that does not start, or that ends, fails or stays silent instead of saying that it is ready.
    pub(crate) fn start(entry: Entry) -> Result<Self, BenchError> {
        let Entry { name, program, arguments, environment } = entry;
        let mut command = Command::new(program);
        command.args(arguments).envs(environment).stdin(Stdio::piped()).stdout(Stdio::piped());
        let broken = |problem: &str| BenchError::Contestant { name: name.clone(), problem: problem.to_owned() };
        let mut child = command.spawn().map_err(|source| BenchError::Start { name: name.clone(), source })?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(broken("its pipes are missing"));
        };
        let (sender, lines) = sync_channel(1);
        std::thread::spawn(move || {
            let mut output = BufReader::new(output);
            while let Some(line) = next_line(&mut output) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut started = Self { name, ready: Value::Null, child, input, lines };
        started.ready = started.hear()?;
        if started.ready["ready"] == true { Ok(started) } else { Err(started.broken("it is not ready")) }
    }

    /// Has it do its work once.
    ///
    /// # Errors
    /// A contestant that ended, fell silent, or does not speak the language.
    pub(crate) fn step(&mut self) -> Result<Answer, BenchError> {
        let told = self.input.write_all(b"step\n").and_then(|()| self.input.flush());
        told.map_err(|error| self.broken(&error.to_string()))?;
        serde_json::from_value(self.hear()?).map_err(|error| self.broken(&error.to_string()))
    }

    fn hear<T: serde::de::DeserializeOwned>(&mut self) -> Result<T, BenchError> {
        match self.lines.recv_timeout(ANSWER_MAX) {
            Ok(Ok(line)) => serde_json::from_str(&line).map_err(|error| self.broken(&error.to_string())),
            Ok(Err(error)) => Err(self.broken(&error.to_string())),
            Err(RecvTimeoutError::Disconnected) => Err(self.broken("it ended; its reason stands above")),
            Err(RecvTimeoutError::Timeout) => Err(self.broken(&format!("silent for {} s", ANSWER_MAX.as_secs()))),
        }
    }

    fn broken(&self, problem: &str) -> BenchError {
        BenchError::Contestant { name: self.name.clone(), problem: problem.to_owned() }
    }
}

impl Drop for Contestant {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill, and waiting only collects it.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The next line, without what is beyond the limit; none at the end.
fn next_line(output: &mut impl BufRead) -> Option<std::io::Result<String>> {
    let mut line = String::new();
    match std::io::Read::take(&mut *output, LINE_BYTES_MAX).read_line(&mut line) {
        Ok(0) => None,
        Ok(_) => Some(Ok(line)),
        Err(error) => Some(Err(error)),
    }
}

/// What all contestants answered: by contestant, by round.
pub(crate) struct Results {
    rounds: Vec<Vec<Answer>>,
}

impl Results {
    /// The seconds of `what` by round; empty where there is no such contestant, or it does not measure it.
    pub(crate) fn seconds(&self, contestant: usize, what: &str) -> Vec<f64> {
        let answers = self.rounds.get(contestant).into_iter().flatten();
        answers.filter_map(|answer| answer.times.get(what).copied()).collect()
    }

    /// Seconds of `what`.
    pub(crate) fn time(&self, contestant: usize, what: &str) -> Option<Spread> {
        Spread::of(self.seconds(contestant, what))
    }

    /// Median seconds of `what`.
    pub(crate) fn median(&self, contestant: usize, what: &str) -> Option<f64> {
        self.time(contestant, what).map(|spread| spread.median)
    }

    /// Units per second, where one piece of work is so many `units`.
    pub(crate) fn rate(&self, contestant: usize, what: &str, units: f64) -> Option<Spread> {
        Spread::of(self.seconds(contestant, what).into_iter().map(|seconds| units / seconds))
    }

    /// How many times as fast as `peer` a contestant did `what`, round by round.
    pub(crate) fn speed_against(&self, contestant: usize, peer: usize, what: &str) -> Option<Spread> {
        Spread::of_ratios(&self.seconds(peer, what), &self.seconds(contestant, what))
    }
}

/// Lets the contestants take turns for `rounds` counted rounds. Every other round goes backwards, so that none always
/// comes first.
///
/// # Errors
/// The first contestant's that fails.
pub(crate) fn take_turns(contestants: &mut [Contestant], rounds: usize) -> Result<Results, BenchError> {
    let mut all: Vec<Vec<Answer>> = contestants.iter().map(|_| Vec::with_capacity(rounds)).collect();
    for round in 0..WARM_UP + rounds {
        let forwards = 0..contestants.len();
        let order: Vec<usize> = if round % 2 == 0 { forwards.collect() } else { forwards.rev().collect() };
        for index in order {
            let answer = contestants[index].step()?;
            if round >= WARM_UP {
                all[index].push(answer);
            }
        }
    }
    Ok(Results { rounds: all })
}

/// Has every contestant do its work once and compares the results with the last one's.
///
/// # Errors
/// Results that differ by more than `tolerance`, relative to the last contestant's.
pub(crate) fn agree(contestants: &mut [Contestant], tolerance: f64) -> Result<Vec<Answer>, BenchError> {
    let answers = contestants.iter_mut().map(Contestant::step).collect::<Result<Vec<_>, _>>()?;
    let Some((last, reference)) = contestants.last().zip(answers.last()) else { return Ok(answers) };
    for (contestant, answer) in contestants.iter().zip(&answers) {
        if let Some(problem) = disagreement(answer, reference, tolerance) {
            return Err(BenchError::Disagreement { name: contestant.name.clone(), peer: last.name.clone(), problem });
        }
    }
    Ok(answers)
}

fn disagreement(answer: &Answer, reference: &Answer, tolerance: f64) -> Option<String> {
    let values = [
        ("loss", answer.loss, reference.loss),
        ("gradient norm", answer.gradient_norm, reference.gradient_norm),
        ("element", answer.element, reference.element),
    ];
    values.into_iter().find_map(|(what, one, other)| match (one, other) {
        (Some(one), Some(other)) if (one - other).abs() <= tolerance * other.abs() => None,
        (None, None) => None,
        (one, other) => Some(format!("{what} {one:?} against {other:?}")),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

    use super::*;

    fn shell(name: &str, script: &str) -> Result<Contestant, BenchError> {
        Contestant::start(Entry {
            name: name.to_owned(),
            program: "sh".into(),
            arguments: vec!["-c".into(), script.into()],
            environment: vec![("SECONDS_OF_WORK", "0.5".into())],
        })
    }

    const READY: &str = r#"echo '{"ready": true}'; "#;

    #[test]
    fn contestants_take_turns_and_their_ratio_is_of_pairs() {
        let fast = shell("fast", &format!("{READY} while read line; do echo '{{\"times\": {{\"work\": 0.5}}}}'; done"));
        let slow = shell("slow", &format!("{READY} while read line; do echo '{{\"times\": {{\"work\": 2.0}}}}'; done"));
        let mut both = [fast.unwrap(), slow.unwrap()];
        let results = take_turns(&mut both, 3).unwrap();
        assert_eq!(results.seconds(0, "work"), [0.5; 3]);
        assert_eq!(results.speed_against(0, 1, "work").unwrap().median, 4.0);
        assert_eq!(results.rate(1, "work", 10.0).unwrap().median, 5.0);
        assert_eq!(results.rate(1, "rest", 10.0), None);
    }

    #[test]
    fn results_that_differ_stop_the_contest_and_say_in_what() {
        let answer = |loss| format!("{READY} while read line; do echo '{{\"times\": {{}}, \"loss\": {loss}}}'; done");
        let mut both = [shell("ours", &answer(2.0)).unwrap(), shell("theirs", &answer(2.001)).unwrap()];
        assert_eq!(agree(&mut both, 1e-2).unwrap().len(), 2);
        let error = agree(&mut both, 1e-4).unwrap_err().to_string();
        assert!(error.contains("compare ours with theirs: loss"), "{error}");
        let loss = |loss: Option<f64>| Answer { loss, ..Answer::default() };
        assert!(disagreement(&loss(Some(f64::NAN)), &loss(Some(1.0)), 0.1).is_some(), "NaN agrees with nothing");
        assert!(disagreement(&loss(None), &loss(Some(1.0)), 0.1).is_some(), "a missing loss agrees with none");
    }

    #[test]
    fn a_contestant_that_ends_or_babbles_is_an_error() {
        let ended = shell("ended", "exit 3").err().expect("it never says that it is ready").to_string();
        assert!(ended.contains("hear from ended: it ended"), "{ended}");
        let babbles = shell("babbles", "echo hello").err().expect("that is no JSON");
        assert!(matches!(babbles, BenchError::Contestant { .. }));
        let unready = shell("unready", "echo '{}'").err().expect("it does not say so").to_string();
        assert!(unready.contains("not ready"), "{unready}");
    }
}
