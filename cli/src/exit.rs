//! Exit codes, and how a failure becomes one.

use std::fmt;
use std::process::ExitCode;

/// What the process's exit code means; documented in `--help` and in docs/OPERATING.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Something failed; the message says what.
    Failure = 1,
    /// The configuration cannot work; every violation is listed.
    Configuration = 3,
    /// The run does not exist, or its account cannot be read.
    NoRun = 4,
    /// The wallet may not join the run.
    NotAuthorized = 5,
    /// The wallet has too little to pay for what it is to do.
    NoFunds = 6,
    /// No RPC endpoint answers.
    Unreachable = 7,
    /// The run wants another version of the client.
    OtherVersion = 10,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A failure that has an exit code of its own.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The code.
    pub(crate) exit: Exit,
    /// What happened, and what to do next.
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
