//! Amounts as people write them.

use std::fmt;
use std::str::FromStr;

use psyche_messages::Lamports;

/// Lamports in a SOL.
const LAMPORTS_PER_SOL: u64 = 1_000_000_000;

/// An amount of native tokens, written as a decimal number of SOL. Exact: no float is involved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sol(pub(crate) Lamports);

impl FromStr for Sol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || "a number of SOL with at most nine decimals is accepted, such as 0.5".to_owned();
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        if fraction.len() > 9 || !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
            return Err(refused());
        }
        let whole: u64 = whole.parse().map_err(|_| refused())?;
        let fraction: u64 = format!("{fraction:0<9}").parse().map_err(|_| refused())?;
        let lamports = whole.checked_mul(LAMPORTS_PER_SOL).and_then(|whole| whole.checked_add(fraction));
        lamports.map(|lamports| Self(Lamports(lamports))).ok_or_else(refused)
    }
}

impl fmt::Display for Sol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, fraction) = (self.0.0 / LAMPORTS_PER_SOL, self.0.0 % LAMPORTS_PER_SOL);
        let decimals = format!("{fraction:09}");
        let decimals = decimals.trim_end_matches('0');
        if decimals.is_empty() { write!(f, "{whole}") } else { write!(f, "{whole}.{decimals}") }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use super::*;

    #[test]
    fn amounts_are_read_exactly_and_written_shortly() {
        for (text, lamports) in [("1", 1_000_000_000), ("0.5", 500_000_000), ("2.000000001", 2_000_000_001), ("0", 0)] {
            let sol: Sol = text.parse().unwrap();
            assert_eq!(sol.0, Lamports(lamports));
            assert_eq!(sol.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for text in ["", ".", "-1", "1e9", "1.0000000001", "99999999999999999999", "1.2.3", "1,5"] {
            assert!(text.parse::<Sol>().is_err(), "{text}");
        }
    }
}
