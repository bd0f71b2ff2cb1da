//! What people and scripts read: results go to stdout, everything else to stderr.

use std::fmt;
use std::io::{self, Write as _};

/// Writes a line of the command's result.
///
/// # Errors
/// If stdout is closed.
pub(crate) fn line(text: fmt::Arguments<'_>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// Tells the person at the terminal something. A closed stderr is nobody's loss.
pub(crate) fn note(text: fmt::Arguments<'_>) {
    let mut err = io::stderr().lock();
    let _closed = writeln!(err, "{text}");
}
