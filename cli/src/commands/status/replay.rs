//! Walks through an event log.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use psyche_actors::event_log::Replay;
use psyche_messages::events::LoggedEvent;
use serde_json::Value;

use super::printable;
use crate::exit::{Exit, Failure};
use crate::output;

pub(super) fn run(path: &Path, as_json: bool) -> Result<()> {
    let failed = |error: std::io::Error| {
        let path = path.display();
        let message = format!("failed to read the event log {path}: {error}; name a node's data folder, or its events.jsonl");
        anyhow::Error::from(Failure::new(Exit::Configuration, message))
    };
    let mut replay = Replay::open(path).map_err(failed)?;
    let (mut events, mut span) = (0_u64, None);
    while let Some(logged) = replay.next_event().map_err(failed)? {
        events += 1;
        let first = span.map_or(logged.unix_ms, |(first, _)| first);
        span = Some((first, logged.unix_ms));
        if as_json {
            output::text(&super::json(&logged)?)?;
        } else {
            output::line(format_args!("{}", told(&logged)))?;
        }
    }
    let (first, last) = span.unwrap_or_default();
    let seconds = last.saturating_sub(first) / 1000;
    output::note(format_args!("{events} events in {seconds} s"));
    if replay.unreadable() > 0 {
        output::note(format_args!("{} lines were no events and left out", replay.unreadable()));
    }
    Ok(())
}

/// An event in one line: when, what, and its fields by name, so that events of later versions are shown as well.
pub(super) fn told(logged: &LoggedEvent) -> String {
    let mut line = utc(logged.unix_ms);
    let Ok(Value::Object(mut fields)) = serde_json::to_value(&logged.event) else { return line };
    if let Some(Value::String(name)) = fields.remove("event") {
        line.push_str(&format!("  {name:<21}"));
    }
    for (name, value) in fields {
        let value = match value {
            Value::String(text) if !text.contains(' ') => text,
            other => other.to_string(),
        };
        line.push_str(&format!(" {name}={value}"));
    }
    printable(line.trim_end())
}

/// This moment as people write it.
pub(super) fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    utc(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A moment as people write it, in universal time.
fn utc(unix_ms: u64) -> String {
    let (days, ms) = (unix_ms / 86_400_000, unix_ms % 86_400_000);
    let (year, month, day) = date(days);
    let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!("{year:04}-{month:02}-{day:02} {hours:02}:{minutes:02}:{seconds:02}.{:03}", ms % 1000)
}

/// Year, month and day that lie `days` after the first of January 1970, in the Gregorian calendar. Years are counted from
/// March on, so that a leap day is a year's last one.
const fn date(days: u64) -> (u64, u64, u64) {
    const DAYS_TO_1970: u64 = 719_468;
    const DAYS_OF_400_YEARS: u64 = 146_097;
    // No clock of this machine reaches the year 200,000; the sum can't overflow.
    let days = days.saturating_add(DAYS_TO_1970);
    let (era, day) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + later, month, day)
}

#[cfg(test)]
mod tests {
    use psyche_messages::NodeEvent;
    use psyche_messages::events::EVENT_LOG_VERSION;

    use super::*;

    #[test]
    fn moments_are_told_in_universal_time() {
        assert_eq!(utc(0), "1970-01-01 00:00:00.000");
        assert_eq!(utc(951_782_400_000), "2000-02-29 00:00:00.000");
        assert_eq!(utc(1_798_761_599_999), "2026-12-31 23:59:59.999");
        assert!(!utc(u64::MAX).is_empty());
    }

    #[test]
    fn an_event_is_one_line_that_no_terminal_obeys() {
        let message = "a\u{1b}[2Jb\nc".to_owned();
        let told = told(&LoggedEvent { v: EVENT_LOG_VERSION, unix_ms: 5, event: NodeEvent::Warning { message } });
        assert!(told.starts_with("1970-01-01 00:00:00.005  warning"), "{told}");
        assert!(told.chars().all(|c| !c.is_control()), "{told}");
    }
}
