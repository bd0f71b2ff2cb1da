//! `status --watch`: a live view on a terminal, lines elsewhere.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use psyche_actors::telemetry::NodeReport;
use tokio::time::MissedTickBehavior;

use super::{Answer, Source, json, replay};
use crate::output;
use crate::run_report::RunReport;
use crate::signals::Stop;
use crate::tui::{Live, Look, Subject, WatchedRun};

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(2);
/// Things that happened which are remembered.
const EVENTS_MAX: usize = 256;
/// Looks between which the speed is remembered.
const SPEEDS_MAX: usize = 240;

/// Looks until somebody has seen enough. The first look must succeed; what fails later may come back.
pub(super) async fn run(source: &Source, as_json: bool, live: bool) -> Result<()> {
    let mut stop = Stop::listen()?;
    let first = tokio::select! {
        looked = source.look() => looked?,
        _ = stop.requested() => return Ok(()),
    };
    if live {
        return show(source, first, &mut stop).await;
    }
    tokio::select! {
        failed = print(source, first, as_json) => failed.map(|never| match never {}),
        _ = stop.requested() => Ok(()),
    }
}

/// A line for each look.
async fn print(source: &Source, first: Answer, as_json: bool) -> Result<Infallible> {
    let mut ticks = ticks();
    let mut looked = Ok(first);
    loop {
        match looked {
            Ok(answer) if as_json => output::text(&answer.json()?)?,
            Ok(answer) => output::text(&answer.line())?,
            Err(error) => output::note(format_args!("{error:#}")),
        }
        ticks.tick().await;
        looked = source.look().await;
    }
}

async fn show(source: &Source, first: Answer, stop: &mut Stop) -> Result<()> {
    let seen = Mutex::new(Seen::default());
    lock(&seen).saw(first, Instant::now());
    let mut live = Live::open(true)?;
    tokio::select! {
        never = follow(source, &seen) => match never {},
        _signal = live.show(stop, || lock(&seen).look()) => Ok(()),
    }
}

async fn follow(source: &Source, seen: &Mutex<Seen>) -> Infallible {
    let mut ticks = ticks();
    loop {
        ticks.tick().await;
        let looked = source.look().await;
        let mut seen = lock(seen);
        match looked {
            Ok(answer) => seen.saw(answer, Instant::now()),
            Err(error) => seen.problem = Some(format!("not seen for {{}}: {error:#}")),
        }
    }
}

/// The first one comes after the interval.
fn ticks() -> tokio::time::Interval {
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + INTERVAL, INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What was seen so far.
#[derive(Debug, Default)]
struct Seen {
    subject: Option<Subject>,
    at: Option<Instant>,
    events: VecDeque<String>,
    speed: VecDeque<f32>,
    /// Why the last look failed, with a place for how long ago the one before it was.
    problem: Option<String>,
}

impl Seen {
    fn saw(&mut self, answer: Answer, now: Instant) {
        let elapsed = self.at.map(|at| now.saturating_duration_since(at));
        match answer {
            Answer::Node(report) => {
                self.events = report.events.iter().map(replay::told).collect();
                self.subject = Some(Subject::Node(report));
            }
            Answer::Run(report) => self.saw_run(*report, elapsed),
        }
        (self.at, self.problem) = (Some(now), None);
    }

    fn saw_run(&mut self, report: RunReport, elapsed: Option<Duration>) {
        if let Some(Subject::Run(before)) = &self.subject {
            let before = &before.report;
            let events = changes(before, &report);
            #[expect(clippy::cast_precision_loss, reason = "the steps of two seconds")]
            let steps = report.step.0.saturating_sub(before.step.0) as f32;
            if let Some(elapsed) = elapsed.filter(|elapsed| !elapsed.is_zero()) {
                push(&mut self.speed, steps * 60.0 / elapsed.as_secs_f32(), SPEEDS_MAX);
            }
            events.into_iter().for_each(|event| push(&mut self.events, event, EVENTS_MAX));
        } else {
            push(&mut self.events, format!("{} watching since slot {}", replay::now(), report.slot), EVENTS_MAX);
        }
        let speed = self.speed.iter().copied().collect();
        self.subject = Some(Subject::Run(Box::new(WatchedRun { report, speed })));
    }

    fn look(&self) -> Look {
        let ago = self.at.map_or(0, |at| at.elapsed().as_secs());
        Look {
            subject: self.subject.clone(),
            events: Some(self.events.iter().cloned().collect()),
            problem: self.problem.as_ref().map(|problem| problem.replacen("{}", &format!("{ago} s"), 1)),
        }
    }
}

fn push<T>(list: &mut VecDeque<T>, one: T, max: usize) {
    if list.len() == max {
        list.pop_front();
    }
    list.push_back(one);
}

/// What happened to a run between two looks.
fn changes(before: &RunReport, now: &RunReport) -> Vec<String> {
    let (time, mut told) = (replay::now(), Vec::new());
    let mut tell = |text: String| told.push(format!("{time} {text}"));
    if now.epoch != before.epoch {
        tell(format!("epoch {} began at step {}", now.epoch, now.step));
    }
    if now.phase != before.phase {
        tell(format!("the run is in {}, step {}", now.phase, now.step));
    }
    for member in &now.members {
        let address = &member.address;
        match before.members.iter().find(|other| other.address == *address) {
            None => tell(format!("client {address} is {}", member.state)),
            Some(other) if other.state != member.state => {
                tell(format!("client {address} is {}, was {}", member.state, other.state));
            }
            Some(_) => {}
        }
    }
    for gone in before.members.iter().filter(|other| !now.members.iter().any(|member| member.address == other.address)) {
        tell(format!("client {} is gone", gone.address));
    }
    for (endpoint, was) in now.endpoints.iter().zip(&before.endpoints).filter(|(endpoint, was)| endpoint.up != was.up) {
        tell(format!("endpoint {} {}", was.endpoint, if endpoint.up { "answers again" } else { "rests" }));
    }
    told
}

impl Answer {
    /// One object in one line, so that a watch is a stream of lines.
    pub(super) fn json(&self) -> Result<String> {
        match self {
            Self::Node(report) => json(report),
            Self::Run(report) => json(report),
        }
    }

    /// In one line, for a log.
    fn line(&self) -> String {
        match self {
            Self::Node(report) => line(report),
            Self::Run(report) => report.line(),
        }
    }
}

fn line(report: &NodeReport) -> String {
    let mut line = format!("node {}  {}", report.run_id, report.readiness.state);
    let mut add = |text: String| {
        line.push_str("  ");
        line.push_str(&text);
    };
    if let (Some(phase), Some(epoch), Some(step), Some(of)) = (report.phase, report.epoch, report.step, report.total_steps) {
        add(format!("phase {phase}  epoch {epoch}  step {step} of {of}"));
    }
    if let (Some(loss), Some(speed)) = (report.loss, report.tokens_per_second) {
        add(format!("loss {loss:.4}  {speed:.0} tokens/s"));
    }
    add(format!("{} peers  {} points earned, {} claimable", report.peers, report.earned, report.claimable));
    crate::run_report::printable(&line) + "\n"
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests may unwrap")]

    use psyche_messages::{Address, Epoch, Phase, Points, Slot, Step};

    use super::*;
    use crate::run_report::MemberReport;

    fn member(n: u8, state: &str) -> MemberReport {
        MemberReport { address: Address([n; 32]), state: state.into(), earned: Points(0), slashed: Points(0) }
    }

    fn report(step: u32, phase: Phase, members: Vec<MemberReport>) -> RunReport {
        RunReport {
            run_id: "demo".parse().unwrap(),
            account: Address([3; 32]),
            slot: Slot(1),
            phase,
            since: 0,
            phase_left_s: Some(5),
            epoch_left_s: None,
            epoch: Epoch(1),
            round: None,
            step: Step(step),
            total_steps: 100,
            clients: members.len(),
            pending: 0,
            min_clients: 1,
            batch_samples: 4,
            epoch_points: Points(10),
            client_version: "0.1.0".into(),
            members,
            endpoints: Vec::new(),
        }
    }

    #[test]
    fn what_happens_to_a_run_between_two_looks_is_told_and_not_for_ever() {
        let (mut seen, start) = (Seen::default(), Instant::now());
        seen.saw(Answer::Run(Box::new(report(1, Phase::Warmup, vec![member(1, "waiting"), member(2, "healthy")]))), start);
        let next = report(5, Phase::RoundTrain, vec![member(1, "healthy"), member(4, "healthy")]);
        seen.saw(Answer::Run(Box::new(next)), start + Duration::from_secs(2));
        let look = seen.look();
        let events = look.events.unwrap();
        let told = |words: &str| events.iter().any(|event| event.contains(words));
        assert!(told("watching since slot 1") && told("the run is in RoundTrain, step 5"), "{events:#?}");
        assert!(told("is healthy, was waiting") && told("is gone"), "{events:#?}");
        assert_eq!(events.len(), 5, "{events:#?}");
        let Some(Subject::Run(run)) = look.subject else { panic!("it is a run") };
        assert_eq!(run.speed, [120.0], "steps a minute");
        for n in 2..2_000_u32 {
            let phase = if n % 2 == 0 { Phase::RoundTrain } else { Phase::RoundWitness };
            seen.saw(Answer::Run(Box::new(report(n, phase, vec![]))), start + Duration::from_secs(n.into()));
        }
        assert_eq!((seen.events.len(), seen.speed.len()), (EVENTS_MAX, SPEEDS_MAX));
    }
}
