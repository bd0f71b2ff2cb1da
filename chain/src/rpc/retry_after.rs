//! The HTTP header Retry-After: seconds, or a date. Pure.

use std::time::{Duration, SystemTime};

/// Longest rest that a server can impose.
pub(crate) const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
/// Shortest rest: "0" must not become a tight loop.
pub(crate) const RETRY_AFTER_MIN: Duration = Duration::from_millis(100);

/// How long to leave the server alone, within bounds; `None` where the header is none. A date is compared with the server's
/// own clock if it sent one, since ours may be wrong, and with `now` otherwise.
pub(crate) fn parse(header: &str, server_date: Option<&str>, now: SystemTime) -> Option<Duration> {
    let header = header.trim();
    let rest = if !header.is_empty() && header.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are a very long time.
        Duration::from_secs(header.parse().unwrap_or(u64::MAX))
    } else {
        let until = httpdate::parse_http_date(header).ok()?;
        let now = server_date.and_then(|date| httpdate::parse_http_date(date.trim()).ok()).unwrap_or(now);
        until.duration_since(now).unwrap_or(Duration::ZERO)
    };
    Some(rest.clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn seconds_and_all_three_forms_of_dates_are_understood() {
        let now = at(784_111_777 - 30);
        for (header, seconds) in
            [("7", 7), (" 120 ", 120), (DATE, 30), ("Sunday, 06-Nov-94 08:49:37 GMT", 30), ("Sun Nov  6 08:49:37 1994", 30)]
        {
            assert_eq!(parse(header, None, now), Some(Duration::from_secs(seconds)), "{header}");
        }
    }

    #[test]
    fn a_date_is_read_by_the_clock_of_the_server_that_sent_it() {
        let rest = parse(DATE, Some("Sun, 06 Nov 1994 08:49:07 GMT"), at(2_000_000_000));
        assert_eq!(rest, Some(Duration::from_secs(30)));
    }

    #[test]
    fn rests_are_bounded_whatever_the_server_says() {
        let now = at(784_111_777);
        assert_eq!(parse("0", None, now), Some(RETRY_AFTER_MIN));
        assert_eq!(parse("301", None, now), Some(RETRY_AFTER_MAX));
        assert_eq!(parse("99999999999999999999999999", None, now), Some(RETRY_AFTER_MAX));
        assert_eq!(parse("Tue, 31 Dec 2999 23:59:59 GMT", None, now), Some(RETRY_AFTER_MAX));
        assert_eq!(parse("Thu, 01 Jan 1970 00:00:00 GMT", None, now), Some(RETRY_AFTER_MIN));
    }

    #[test]
    fn other_texts_say_nothing() {
        for header in ["", "soon", "-1", "1.5", "7 s", "Sun, 06 Nov 1994"] {
            assert_eq!(parse(header, None, at(0)), None, "{header}");
        }
    }

    proptest! {
        #[test]
        fn prop_no_header_makes_the_parser_panic_or_rest_beyond_its_bounds(header: String, date: Option<String>, now in 0_u64..1 << 40) {
            let rest = parse(&header, date.as_deref(), at(now));
            prop_assert!(rest.is_none_or(|rest| (RETRY_AFTER_MIN..=RETRY_AFTER_MAX).contains(&rest)));
        }
    }
}
