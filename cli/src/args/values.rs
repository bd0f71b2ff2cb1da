//! How values on the command line are read: what is refused is said in a sentence that names what is accepted.

use clap::builder::BoolishValueParser;
use psyche_messages::{Address, RunId};

/// An address.
pub(crate) fn address(text: &str) -> Result<Address, String> {
    text.trim().parse().map_err(|_none| "an address is 32 bytes in base58; `wallet address` prints a wallet's".to_owned())
}

/// A run's name.
pub(crate) fn run_id(text: &str) -> Result<RunId, String> {
    text.parse().map_err(|_none| format!("a run's name has 1 to 32 bytes and no NUL; this has {} bytes", text.len()))
}

/// A number of points, which are base units of the reward token.
pub(crate) fn points(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_none| "a whole number of points (base units of the reward token) from 0 is accepted".to_owned())
}

/// A number of points to move.
pub(crate) fn some_points(text: &str) -> Result<u64, String> {
    match points(text)? {
        0 => Err("at least 1 point is accepted".to_owned()),
        some => Ok(some),
    }
}

/// A switch that a variable can set too.
pub(crate) fn switch() -> BoolishValueParser {
    BoolishValueParser::new()
}
