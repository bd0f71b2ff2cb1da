//! What people and scripts read: results go to stdout, everything else to stderr.

use std::fmt;
use std::io::{self, Write as _};

use anyhow::{Context as _, Result};
use serde::Serialize;

/// Writes a line of the command's result.
///
/// # Errors
/// If stdout is closed.
pub(crate) fn line(text: fmt::Arguments<'_>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// Writes a whole page as it is.
///
/// # Errors
/// If stdout is closed.
pub(crate) fn text(page: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(page.as_bytes())?;
    out.flush()
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
