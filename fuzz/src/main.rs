//! The long run: every target for a time, or those that are named. New inputs go to the corpora, findings to `fuzz/findings/`.
//!
//! `FUZZ_SECONDS` (60) for each target, `FUZZ_SEED` (of the clock).

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use psyche_fuzz::{Budget, TARGETS, campaign, folder, is_instrumented, read, save};

/// Longest input that is kept, and most inputs of one target: corpora are for people to carry about.
const KEPT_BYTES_MAX: usize = 2048;
const KEPT_MAX: usize = 64;

fn number(name: &str, default: u64) -> Result<u64, Box<dyn Error>> {
    match std::env::var(name) {
        Ok(text) => text.parse().map_err(|_| format!("{name} is no number").into()),
        Err(_) => Ok(default),
    }
}

fn run() -> Result<bool, Box<dyn Error>> {
    let mut out = std::io::stdout().lock();
    let seconds = number("FUZZ_SECONDS", 60)?;
    let seed = number("FUZZ_SEED", SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs())?;
    let names: Vec<String> = std::env::args().skip(1).collect();
    if !is_instrumented() {
        writeln!(out, "without coverage: only reasons of refusal are told apart (make fuzz compiles with counters)")?;
    }
    // What a decoder panics with is reported once, with the input.
    std::panic::set_hook(Box::new(|_| {}));
    let mut sound = true;
    for target in TARGETS.iter().filter(|target| names.is_empty() || names.iter().any(|name| name == target.name)) {
        let known = read(&folder(target.name))?;
        let budget = Budget { runs: u64::MAX, time: Some(Duration::from_secs(seconds)), seed };
        let report = campaign(target, &known, budget);
        let kept: Vec<_> = report.fresh.iter().filter(|input| input.len() <= KEPT_BYTES_MAX).collect();
        let room = KEPT_MAX.saturating_sub(known.len());
        // Early ones and late ones.
        let every = kept.len().div_ceil(room.max(1)).max(1);
        for input in kept.into_iter().step_by(every).take(room) {
            save(&folder(target.name), input)?;
        }
        let (name, runs, accepted) = (target.name, report.runs, report.accepted);
        let (fresh, reached) = (report.fresh.len(), report.reached);
        writeln!(out, "{name}: {runs} inputs, {accepted} accepted, {fresh} new, {reached} counters reached, seed {seed}")?;
        if let Some(finding) = report.finding {
            let path = save(&folder("../findings").join(name), &finding.input)?;
            writeln!(out, "{name}: FOUND {}: {}", path.display(), finding.what)?;
            sound = false;
        }
    }
    Ok(sound)
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _closed = writeln!(std::io::stderr(), "fuzz: {error}");
            ExitCode::from(2)
        }
    }
}
