//! Amounts as people write them.

use std::fmt;
use std::str::FromStr;

use psyche_messages::{Lamports, Points};

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
        let lamports = whole.checked_mul(Lamports::PER_SOL).and_then(|whole| whole.checked_add(fraction));
        lamports.map(|lamports| Self(Lamports(lamports))).ok_or_else(refused)
    }
}

impl fmt::Display for Sol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.in_sol())
    }
}

/// Most decimals of an amount of tokens: more do not fit into 64 bits anyway.
const DECIMALS_MAX: usize = 18;

/// An amount of a token as people write it: a decimal number, such as 2.5. How many base units that is depends on the
/// token's decimals. Exact: no float is involved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tokens {
    whole: u64,
    fraction: String,
}

impl FromStr for Tokens {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || "a number of whole tokens from 0 is accepted, such as 100 or 2.5".to_owned();
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || fraction.len() > DECIMALS_MAX {
            return Err(refused());
        }
        let whole = whole.parse().map_err(|_| refused())?;
        Ok(Self { whole, fraction: fraction.trim_end_matches('0').to_owned() })
    }
}

impl fmt::Display for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let point = if self.fraction.is_empty() { "" } else { "." };
        write!(f, "{}{point}{}", self.whole, self.fraction)
    }
}

impl Tokens {
    /// The amount in base units of a token with `decimals`.
    ///
    /// # Errors
    /// If the token can't be split so finely, or the amount is larger than any token's supply.
    pub(crate) fn in_points(&self, decimals: u8) -> Result<Points, String> {
        let missing = usize::from(decimals).checked_sub(self.fraction.len());
        let missing = missing.ok_or_else(|| format!("{self} tokens: the token has {decimals} decimals"))?;
        let fraction = format!("{}{}", self.fraction, "0".repeat(missing));
        let fraction: u64 = if fraction.is_empty() { Some(0) } else { fraction.parse().ok() }.unwrap_or(u64::MAX);
        let unit = 10_u64.checked_pow(decimals.into());
        let units = unit.and_then(|unit| self.whole.checked_mul(unit)).and_then(|whole| whole.checked_add(fraction));
        units.map(Points).ok_or_else(|| format!("{self} tokens are more than a token can have"))
    }
}

impl Tokens {
    /// The amount with its unit.
    pub(crate) fn worded(&self) -> String {
        let one = self.whole == 1 && self.fraction.is_empty();
        format!("{self} token{}", if one { "" } else { "s" })
    }
}

/// `points` in whole tokens of `decimals`.
pub(crate) fn in_tokens(points: Points, decimals: u8) -> Tokens {
    let digits = format!("{:0>width$}", points.0, width = usize::from(decimals) + 1);
    let (whole, fraction) = digits.split_at(digits.len().saturating_sub(usize::from(decimals)));
    Tokens { whole: whole.parse().unwrap_or_default(), fraction: fraction.trim_end_matches('0').to_owned() }
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

    #[test]
    fn tokens_become_points_exactly_and_back() {
        for (text, decimals, points) in [("2.5", 6, 2_500_000), ("1", 0, 1), ("0.000001", 6, 1), ("7", 9, 7_000_000_000)] {
            let tokens: Tokens = text.parse().unwrap();
            assert_eq!(tokens.in_points(decimals), Ok(Points(points)), "{text}");
            assert_eq!(in_tokens(Points(points), decimals).to_string(), text);
        }
        assert_eq!(in_tokens(Points(u64::MAX), 0).to_string(), u64::MAX.to_string());
    }

    #[test]
    fn amounts_of_tokens_that_cannot_be_are_refused() {
        for text in ["", ".", "-1", "1e9", "+1", "1,5", "1.2.3", "99999999999999999999", "0.1234567890123456789"] {
            assert!(text.parse::<Tokens>().is_err(), "{text}");
        }
        assert!("0.1".parse::<Tokens>().unwrap().in_points(0).is_err(), "finer than the token");
        assert!("18446744073709551615".parse::<Tokens>().unwrap().in_points(1).is_err(), "more than there can be");
        assert_eq!("1.500".parse::<Tokens>().unwrap().in_points(1), Ok(Points(15)));
    }
}
