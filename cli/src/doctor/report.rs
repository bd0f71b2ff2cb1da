//! What was found, as people and scripts read it.

use psyche_messages::{Address, RunId};
use serde::Serialize;

use crate::exit::Exit;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// Fine.
    Yes,
    /// In the way of training.
    No,
    /// Not in the way, but worth knowing.
    Warning,
    /// It could not be found out.
    NotChecked,
}

impl Verdict {
    pub(crate) const fn mark(self) -> &'static str {
        match self {
            Self::Yes => "✓",
            Self::No => "✗",
            Self::Warning => "!",
            Self::NotChecked => "-",
        }
    }
}

/// One check: what, result, remedy.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Line {
    /// What was checked.
    pub(crate) check: &'static str,
    /// How it came out.
    pub(crate) verdict: Verdict,
    /// What the process would exit with if this were all that is in the way.
    pub(crate) exit_code: u8,
    /// What was found.
    pub(crate) result: String,
    /// What to do about it.
    pub(crate) remedy: Option<String>,
    #[serde(skip)]
    pub(crate) exit: Option<Exit>,
}

impl Line {
    fn new(check: &'static str, verdict: Verdict, result: &str, remedy: Option<&str>, exit: Option<Exit>) -> Self {
        let exit_code = exit.map_or(0, |exit| exit as u8);
        Self { check, verdict, exit_code, result: one_line(result), remedy: remedy.map(one_line), exit }
    }

    pub(crate) fn fine(check: &'static str, result: impl AsRef<str>) -> Self {
        Self::new(check, Verdict::Yes, result.as_ref(), None, None)
    }

    pub(crate) fn warning(check: &'static str, result: impl AsRef<str>, remedy: &str) -> Self {
        Self::new(check, Verdict::Warning, result.as_ref(), Some(remedy), None)
    }

    pub(crate) fn failed(check: &'static str, exit: Exit, result: impl AsRef<str>, remedy: &str) -> Self {
        Self::new(check, Verdict::No, result.as_ref(), Some(remedy), Some(exit))
    }

    pub(crate) fn not_checked(check: &'static str, why: impl AsRef<str>) -> Self {
        Self::new(check, Verdict::NotChecked, why.as_ref(), None, None)
    }

    /// What could not be found out and must be known: nobody can say that nothing is in the way.
    pub(crate) fn unknown(check: &'static str, exit: Exit, why: impl AsRef<str>) -> Self {
        Self::new(check, Verdict::NotChecked, why.as_ref(), None, Some(exit))
    }

    /// A refusal whose sentence holds its remedy, behind a semicolon.
    pub(crate) fn refused(check: &'static str, exit: Exit, sentence: &str) -> Self {
        let (result, remedy) = sentence.split_once("; ").map_or((sentence, None), |(result, rest)| (result, Some(rest)));
        Self::new(check, Verdict::No, result, remedy.or(Some(default_remedy(exit))), Some(exit))
    }

    /// As `train` says it.
    pub(crate) fn sentence(&self) -> String {
        match &self.remedy {
            Some(remedy) => format!("{}; {remedy}", self.result),
            None => self.result.clone(),
        }
    }
}

/// What helps, where a refusal's sentence does not say it.
const fn default_remedy(exit: Exit) -> &'static str {
    match exit {
        Exit::NoRun => "check RUN_ID, and of which network RPC is",
        Exit::OtherVersion => "install the version that the run wants",
        Exit::TooLarge => "raise TENSOR_PARALLELISM, or use larger devices",
        Exit::Disk => "name another folder as DATA_DIR, or give this user the right to write there",
        Exit::Unreachable => "check RPC, or name another provider as RPC_2",
        Exit::Configuration => "correct it, and run doctor again",
        _ => "see the exit codes in docs/OPERATORS.md",
    }
}

/// Strangers' text, and causes that span lines, without what a terminal would obey.
fn one_line(text: &str) -> String {
    text.replace("\n  ", " ").chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Everything that was found.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// The run that was looked at.
    pub(crate) run_id: Option<RunId>,
    /// The wallet, if there is one.
    pub(crate) wallet: Option<Address>,
    /// The checks, from what everything else needs to what nothing needs.
    pub(crate) lines: Vec<Line>,
}

/// The report as scripts read it.
#[derive(Debug, Serialize)]
pub(crate) struct Answer<'a> {
    /// Whether nothing is in the way.
    ok: bool,
    /// What the process exits with.
    exit_code: u8,
    run_id: Option<&'a RunId>,
    wallet: Option<Address>,
    checks: &'a [Line],
}

impl Report {
    /// What is in the way; the first of it decides the exit code.
    pub(crate) fn obstacles(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| line.exit.is_some())
    }

    pub(crate) fn answer(&self) -> Answer<'_> {
        let exit_code = self.obstacles().next().map_or(0, |line| line.exit_code);
        Answer { ok: exit_code == 0, exit_code, run_id: self.run_id.as_ref(), wallet: self.wallet, checks: &self.lines }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_obstacle_decides_and_warnings_do_not() {
        let lines = vec![
            Line::warning("websocket", "silent", "name another"),
            Line::refused("disk", Exit::Disk, "failed to use the folder; name another"),
            Line::failed("port", Exit::Port, "taken", "name another"),
        ];
        let report = Report { lines, ..Report::default() };
        assert_eq!(report.answer().exit_code, Exit::Disk as u8);
        assert_eq!(report.lines[1].remedy.as_deref(), Some("name another"));
    }

    #[test]
    fn what_strangers_wrote_stays_on_its_line() {
        assert_eq!(Line::fine("run", "a\u{1b}[2J\nb").result, "a [2J b");
    }
}
