//! What people and scripts read: results go to stdout, everything else to stderr.

use std::fmt;
use std::io::{self, Write as _};

use anyhow::{Context as _, Result};
use serde::Serialize;

/// Writes a line of the command's result.
///
/// # Errors
/// If stdout is closed.
pub(crate) fn line(line: fmt::Arguments<'_>) -> io::Result<()> {
    text(&format!("{line}\n"))
}

/// Writes a whole page as it is.
///
/// # Errors
/// If stdout is closed.
pub(crate) fn text(page: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(page.as_bytes()).and_then(|()| out.flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => io::Error::new(error.kind(), ReaderGone),
        _ => error,
    })
}

/// Who read our stdout has what it wanted and went away, as `head` and `grep -q` do.
#[derive(Clone, Copy, Debug)]
struct ReaderGone;

impl fmt::Display for ReaderGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nobody reads the output any more")
    }
}

impl std::error::Error for ReaderGone {}

/// Whether a command ended only because nobody reads its result any more.
pub(crate) fn reader_gone(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.any(|error| error.get_ref().is_some_and(|inner| inner.is::<ReaderGone>()))
}

/// Writes the command's result as one JSON object.
///
/// # Errors
/// If stdout is closed.
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).context("failed to write the result as JSON")?;
    line(format_args!("{text}"))?;
    Ok(())
}

/// Writes the command's result as a line for people, or as an object for scripts.
///
/// # Errors
/// If stdout is closed.
pub(crate) fn either(as_json: bool, value: &impl Serialize, text: fmt::Arguments<'_>) -> Result<()> {
    if as_json {
        return json(value);
    }
    line(text)?;
    Ok(())
}

/// Tells the person at the terminal something. A closed stderr is nobody's loss.
pub(crate) fn note(text: fmt::Arguments<'_>) {
    let mut err = io::stderr().lock();
    let _closed = writeln!(err, "{text}");
}
