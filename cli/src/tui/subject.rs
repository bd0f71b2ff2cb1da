//! What a view shows.

use psyche_actors::telemetry::NodeReport;
use psyche_messages::{Epoch, Phase, Step};

use crate::run_report::RunReport;

/// What is looked at.
#[derive(Clone, Debug)]
pub(crate) enum Subject {
    /// A node, as it says of itself.
    Node(Box<NodeReport>),
    /// A run, as the chain says.
    Run(Box<WatchedRun>),
}

/// A run that was watched for a while.
#[derive(Clone, Debug)]
pub(crate) struct WatchedRun {
    /// How it stands.
    pub(crate) report: RunReport,
    /// Steps a minute between two looks, the latest one last.
    pub(crate) speed: Vec<f32>,
}

/// A look at it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Look {
    /// None while nothing was seen of it.
    pub(crate) subject: Option<Subject>,
    /// What happened to it, the oldest first; the process's own log where there is none.
    pub(crate) events: Option<Vec<String>>,
    /// Why what is shown is old.
    pub(crate) problem: Option<String>,
}

/// Where a run stands, whoever says it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stand {
    pub(super) phase: Phase,
    pub(super) left_seconds: Option<u64>,
    pub(super) epoch: Option<Epoch>,
    pub(super) round: Option<u32>,
    pub(super) step: Option<Step>,
    pub(super) total_steps: Option<u32>,
    pub(super) clients: Option<usize>,
}

impl Subject {
    /// Where its run stands, once that is known.
    pub(super) fn stand(&self) -> Option<Stand> {
        match self {
            Self::Node(report) => Some(Stand {
                phase: report.phase?,
                left_seconds: report.phase_left_seconds,
                epoch: report.epoch,
                round: report.round,
                step: report.step,
                total_steps: report.total_steps,
                clients: report.clients.map(usize::from),
            }),
            Self::Run(run) => Some(Stand {
                phase: run.report.phase,
                left_seconds: run.report.phase_left_s,
                epoch: Some(run.report.epoch),
                round: run.report.round,
                step: Some(run.report.step),
                total_steps: Some(run.report.total_steps),
                clients: Some(run.report.clients),
            }),
        }
    }
}
