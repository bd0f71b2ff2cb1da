//! What a node did when, from its events: a row of spans without gaps, and marks on it.

use std::collections::BTreeMap;

use psyche_messages::{NodeEvent, Phase};

/// Spans that are kept; beyond, short ones go into their neighbours.
const SPANS_MAX: usize = 40_000;
/// Marks that are kept of each kind.
const MARKS_MAX: usize = 200;
/// Steps whose application is marked.
const APPLIES_MAX: usize = 40_000;
/// A batch takes no longer: more is an error in the log.
const TRAINS_MAX_MS: u64 = 3_600_000;

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Doing {
    /// It has not seen the run yet.
    Starting,
    /// The run waits for members.
    WaitingForMembers,
    /// Models are loaded.
    Warmup,
    /// It trains its batch.
    Training,
    /// Its batch is done, or it has none; results are exchanged and applied.
    Exchanging,
    /// Late witnesses are collected.
    Witnessing,
    /// The epoch is over.
    Cooldown,
    /// The run is paused, or not configured.
    Paused,
    /// The run is finished.
    Finished,
    /// Its process is not there.
    Down,
}

impl Doing {
    pub(crate) const ALL: [Self; 10] = [
        Self::Starting,
        Self::WaitingForMembers,
        Self::Warmup,
        Self::Training,
        Self::Exchanging,
        Self::Witnessing,
        Self::Cooldown,
        Self::Paused,
        Self::Finished,
        Self::Down,
    ];

    /// For legends and tables.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starts",
            Self::WaitingForMembers => "waits for members",
            Self::Warmup => "warmup",
            Self::Training => "trains",
            Self::Exchanging => "waits for results",
            Self::Witnessing => "witness phase",
            Self::Cooldown => "cooldown",
            Self::Paused => "paused",
            Self::Finished => "finished",
            Self::Down => "not running",
        }
    }

    /// Of the style sheet.
    pub(crate) const fn class(self) -> &'static str {
        match self {
            Self::Starting => "d-start",
            Self::WaitingForMembers => "d-wait",
            Self::Warmup => "d-warm",
            Self::Training => "d-train",
            Self::Exchanging => "d-exch",
            Self::Witnessing => "d-wit",
            Self::Cooldown => "d-cool",
            Self::Paused => "d-pause",
            Self::Finished => "d-fin",
            Self::Down => "d-down",
        }
    }

    const fn in_phase(phase: Phase) -> Self {
        match phase {
            Phase::WaitingForMembers => Self::WaitingForMembers,
            Phase::Warmup => Self::Warmup,
            Phase::RoundTrain => Self::Exchanging,
            Phase::RoundWitness => Self::Witnessing,
            Phase::Cooldown => Self::Cooldown,
            Phase::Finished => Self::Finished,
            Phase::Uninitialized | Phase::Paused => Self::Paused,
        }
    }
}

/// A stretch of time, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) doing: Doing,
}

/// A moment that stands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mark {
    /// Its process ended without a word: it was killed, or died.
    Died,
    /// It was started again.
    Restarted,
    /// It joined an epoch.
    Joined,
    /// It had the model.
    ModelReady,
    /// An endpoint of the chain was given up.
    EndpointDown,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lane {
    spans: Vec<Span>,
    /// Since when it does what it does now.
    current: Option<(u64, Doing)>,
    last: u64,
    /// Milliseconds of each activity.
    pub(crate) marks: Vec<(u64, Mark)>,
    /// When steps were applied.
    pub(crate) applies: Vec<u64>,
}

impl Lane {
    /// Takes in an event; the machine's clock may jump back, time here does not.
    pub(crate) fn add(&mut self, unix_ms: u64, event: &NodeEvent, sequence: u32) {
        let at = unix_ms.max(self.last);
        match event {
            NodeEvent::Started { .. } => self.started(at),
            NodeEvent::PhaseChanged { phase, .. } => self.turn(at, Doing::in_phase(*phase)),
            NodeEvent::StepTrained { samples, tokens_per_second, .. } => {
                self.trained(at, duration_ms(*samples, sequence, *tokens_per_second));
            }
            NodeEvent::StepApplied { .. } if self.applies.len() < APPLIES_MAX => self.applies.push(at),
            NodeEvent::Joined { .. } => self.mark(at, Mark::Joined),
            NodeEvent::ModelReady { .. } => self.mark(at, Mark::ModelReady),
            NodeEvent::EndpointChanged { state, .. } if *state != psyche_messages::events::EndpointState::InUse => {
                self.mark(at, Mark::EndpointDown);
            }
            NodeEvent::Stopped { .. } => self.turn(at, Doing::Down),
            _ => {}
        }
        self.last = at;
    }

    /// The log ends: so does what was going on.
    pub(crate) fn end(&mut self) {
        if let Some((from, doing)) = self.current.take()
            && doing != Doing::Down
        {
            self.push(Span { from, to: self.last, doing });
        }
    }

    /// The spans, oldest first.
    pub(crate) fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Milliseconds by activity.
    pub(crate) fn sums(&self) -> BTreeMap<Doing, u64> {
        let mut sums = BTreeMap::new();
        for span in &self.spans {
            *sums.entry(span.doing).or_default() += span.to - span.from;
        }
        sums
    }

    fn started(&mut self, at: u64) {
        match self.current.take() {
            None if self.spans.is_empty() => {}
            Some((from, Doing::Down)) => {
                self.push(Span { from, to: at, doing: Doing::Down });
                self.mark(at, Mark::Restarted);
            }
            current => {
                // It said nothing before it ended: what it did last, it did until its last event.
                if let Some((from, doing)) = current {
                    self.push(Span { from, to: self.last, doing });
                }
                self.mark(self.last, Mark::Died);
                self.push(Span { from: self.last, to: at, doing: Doing::Down });
                self.mark(at, Mark::Restarted);
            }
        }
        self.current = Some((at, Doing::Starting));
    }

    fn turn(&mut self, at: u64, doing: Doing) {
        if let Some((from, before)) = self.current.take() {
            self.push(Span { from, to: at, doing: before });
        }
        self.current = Some((at, doing));
    }

    /// A batch was done at `at` that took `took`.
    fn trained(&mut self, at: u64, took: u64) {
        let Some((from, doing)) = self.current else { return };
        let mut begin = at.saturating_sub(took);
        if begin >= from {
            self.push(Span { from, to: begin, doing });
        } else {
            // It trained on while the run went from one phase to the next.
            while let Some(last) = self.spans.last_mut() {
                if matches!(last.doing, Doing::Down | Doing::Training | Doing::Starting) {
                    begin = begin.max(last.to);
                    break;
                }
                if last.from < begin {
                    last.to = begin;
                    break;
                }
                self.spans.pop();
            }
            if self.spans.is_empty() {
                begin = begin.max(from);
            }
        }
        self.push(Span { from: begin, to: at, doing: Doing::Training });
        self.current = Some((at, doing));
    }

    fn mark(&mut self, at: u64, mark: Mark) {
        if self.marks.iter().filter(|(_, other)| *other == mark).count() < MARKS_MAX {
            self.marks.push((at, mark));
        }
    }

    fn push(&mut self, span: Span) {
        if span.to <= span.from {
            return;
        }
        match self.spans.last_mut() {
            Some(last) if last.doing == span.doing && last.to == span.from => last.to = span.to,
            _ => self.spans.push(span),
        }
        if self.spans.len() > SPANS_MAX {
            self.spans = coarse(&self.spans, SPANS_MAX / 4);
        }
    }
}

/// How long a batch took.
fn duration_ms(samples: u64, sequence: u32, tokens_per_second: f32) -> u64 {
    #[expect(clippy::cast_precision_loss, reason = "tokens of a batch are few")]
    let tokens = samples.saturating_mul(u64::from(sequence)) as f64;
    let ms = tokens / f64::from(tokens_per_second) * 1e3;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast saturates, and the bound is below")]
    let ms = if ms.is_finite() { ms as u64 } else { 0 };
    ms.min(TRAINS_MAX_MS)
}

/// At most about `columns` spans: every column of time shows what took most of it.
pub(crate) fn coarse(spans: &[Span], columns: usize) -> Vec<Span> {
    let (Some(first), Some(last)) = (spans.first(), spans.last()) else { return Vec::new() };
    if spans.len() <= columns {
        return spans.to_vec();
    }
    let width = (last.to - first.from).div_ceil(columns.max(1) as u64).max(1);
    let mut merged: Vec<Span> = Vec::new();
    let mut next = 0;
    let mut from = first.from;
    while from < last.to {
        let to = from.saturating_add(width).min(last.to);
        while spans.get(next).is_some_and(|span| span.to <= from) {
            next += 1;
        }
        let mut shares: BTreeMap<Doing, u64> = BTreeMap::new();
        for span in spans[next..].iter().take_while(|span| span.from < to) {
            *shares.entry(span.doing).or_default() += span.to.min(to) - span.from.max(from);
        }
        if let Some((&doing, _)) = shares.iter().max_by_key(|(_, share)| **share) {
            match merged.last_mut() {
                Some(span) if span.doing == doing && span.to == from => span.to = to,
                _ => merged.push(Span { from, to, doing }),
            }
        }
        from = to;
    }
    merged
}
