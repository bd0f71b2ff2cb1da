//! Numbers and strangers' strings, as a terminal may show them.

/// Characters of a stranger's name.
pub(super) const NAME_MAX: usize = 64;
/// Characters of a line.
pub(super) const LINE_MAX: usize = 1000;

/// `text` without what a terminal would obey or what turns the direction of writing, and at most `max` characters of it.
pub(super) fn clean(text: &str, max: usize) -> String {
    let harmless = |c: char| match c {
        c if c.is_control() => '?',
        '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' => '?',
        c => c,
    };
    text.chars().take(max).map(harmless).collect()
}

/// Bytes in the largest unit that leaves a whole number.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut tenths, mut unit) = (u128::from(bytes) * 10, 0);
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    if unit == 0 { format!("{bytes} B") } else { format!("{}.{} {name}", tenths / 10, tenths % 10) }
}

/// A time in its two largest units.
pub(super) fn time(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min {:02} s", seconds % 60),
        (0, hours, minutes) => format!("{hours} h {minutes:02} min"),
        (days, hours, _) => format!("{days} d {hours:02} h"),
    }
}

/// Lamports as SOL.
pub(super) fn sol(lamports: u64) -> String {
    format!("{}.{:04} SOL", lamports / 1_000_000_000, lamports % 1_000_000_000 / 100_000)
}

/// A share from 0 to 1 in hundredths.
pub(super) fn percent(share: f32) -> String {
    if share.is_finite() { format!("{:.0} %", share.clamp(0.0, 1.0) * 100.0) } else { "?".to_owned() }
}

/// Values as heights up to 1000: the lowest at an eighth, so that it is seen, the highest at 1000; all of them halfway where
/// they are the same. What is no number has no height.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 125 to 1000")]
pub(super) fn heights(values: &[f32]) -> Vec<Option<u64>> {
    let finite = values.iter().filter(|value| value.is_finite()).map(|value| f64::from(*value));
    let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    let place = |value: f32| if high > low { (f64::from(value) - low) / (high - low) } else { 0.5 };
    let height = |value: f32| 125 + (place(value) * 875.0).clamp(0.0, 875.0) as u64;
    values.iter().map(|value| value.is_finite().then(|| height(*value))).collect()
}

/// All of `values` in at most `width` places: means of as many as it takes, without what is no number.
pub(super) fn resampled(values: &[f32], width: usize) -> Vec<f32> {
    if values.len() <= width || width == 0 {
        return values.iter().rev().take(width).rev().copied().collect();
    }
    let mean = |place: usize| {
        let part = values.get(place * values.len() / width..(place + 1) * values.len() / width).unwrap_or_default();
        let (sum, count) = part
            .iter()
            .filter(|value| value.is_finite())
            .fold((0.0, 0_u16), |(sum, count), value| (sum + f64::from(*value), count.saturating_add(1)));
        #[expect(clippy::cast_possible_truncation, reason = "a mean of such numbers")]
        let mean = (sum / f64::from(count)) as f32;
        mean
    };
    (0..width).map(mean).collect()
}

/// How much of it is used, in the unit of the whole; a dash for what is not known.
pub(super) fn bytes_of(used: Option<u64>, whole: Option<u64>) -> String {
    match (used, whole) {
        (Some(used), Some(whole)) => {
            let whole = bytes(whole);
            let unit = whole.rsplit_once(' ').map_or("B", |(_, unit)| unit);
            let shift = ["B", "KiB", "MiB", "GiB", "TiB"].iter().position(|other| *other == unit).unwrap_or(0) * 10;
            let tenths = (u128::from(used) * 10) >> shift;
            format!("{}.{} of {whole}", tenths / 10, tenths % 10)
        }
        (None, Some(whole)) => format!("– of {}", bytes(whole)),
        (Some(used), None) => bytes(used),
        (None, None) => "–".to_owned(),
    }
}

/// A long name by its two ends.
pub(super) fn short(name: &str) -> String {
    let name = clean(name, NAME_MAX);
    let count = name.chars().count();
    if count <= 14 {
        return name;
    }
    let (head, tail): (String, String) = (name.chars().take(8).collect(), name.chars().skip(count - 4).collect());
    format!("{head}…{tail}")
}

/// `text` in at most `width` characters, the last one an ellipsis where something is left out.
pub(super) fn elided(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain((width > 0).then_some('…')).collect()
}

/// A line of a log in its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment<'a> {
    /// Hours, minutes and seconds; empty where the line has no time.
    pub(super) time: &'a str,
    /// The level's name; empty where it has none.
    pub(super) level: &'a str,
    /// What happened, without the place in the program.
    pub(super) text: &'a str,
}

/// A line as the logger or the event log's reader writes it, or anything else as it is.
pub(super) fn moment(line: &str) -> Moment<'_> {
    const LEVELS: [&str; 5] = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR"];
    let is_date = |date: &str| date.len() == 10 && date.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    let time = line.get(..10).filter(|date| is_date(date)).and_then(|_date| line.get(11..19));
    let Some(time) = time else { return Moment { time: "", level: "", text: line } };
    let rest = line.get(19..).unwrap_or_default();
    let rest = rest.split_once(' ').map_or("", |(_fraction, rest)| rest).trim_start();
    let Some(level) = LEVELS.into_iter().find(|level| rest.strip_prefix(level).is_some_and(|rest| rest.starts_with(' ')))
    else {
        let level = if rest.starts_with("warning ") { "WARN" } else { "" };
        return Moment { time, level, text: rest };
    };
    let mut text = rest.get(level.len()..).unwrap_or_default().trim_start();
    // Spans with their fields, and the module.
    while text.split_whitespace().next().is_some_and(|word| word.contains('{')) {
        let Some((_span, after)) = text.split_once("}: ") else { break };
        text = after;
    }
    let is_of_module = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b':';
    if let Some((_module, after)) = text.split_once(": ").filter(|(module, _)| module.bytes().all(is_of_module)) {
        text = after;
    }
    Moment { time, level, text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_log_is_told_by_its_time_its_level_and_what_happened() {
        let told = |line| {
            let Moment { time, level, text } = moment(line);
            (time, level, text)
        };
        let logged = "2026-11-23T06:48:48.297546Z  INFO psyche_actors::event_log: trained a batch epoch=26 loss=0.11";
        assert_eq!(told(logged), ("06:48:48", "INFO", "trained a batch epoch=26 loss=0.11"));
        let in_span = "2026-11-23T06:48:48.297546Z  WARN node{name=\"a: b\"}: psyche_net::driver: slow: 3 s";
        assert_eq!(told(in_span), ("06:48:48", "WARN", "slow: 3 s"));
        assert_eq!(told("2026-11-23 06:48:48.297  warning message=x"), ("06:48:48", "WARN", "warning message=x"));
        for other in ["", "2026", "panicked at: x", "2026-11-23é06:48:48.297", "[W] torch: something", "2026-11-23T06:48:48"] {
            let Moment { time, text, .. } = moment(other);
            assert!(other.ends_with(text) && (time.is_empty() || other.contains(time)), "{other}");
        }
    }

    #[test]
    fn long_histories_and_texts_fit() {
        let falling: Vec<f32> = (0..240_u8).rev().map(f32::from).collect();
        let few = resampled(&falling, 38);
        assert_eq!(few.len(), 38);
        assert!(few.is_sorted_by(|a, b| a > b), "{few:?}");
        assert_eq!(resampled(&[1.0, f32::NAN, 3.0, 5.0], 2), [1.0, 4.0]);
        assert_eq!(resampled(&[1.0, 2.0], 5), [1.0, 2.0]);
        assert!(resampled(&[1.0, 2.0], 0).is_empty());
        assert_eq!(heights(&[2.0, 2.0, f32::NAN, 2.0]), [Some(562), Some(562), None, Some(562)]);
        assert_eq!(heights(&[0.0, 4.0]), [Some(125), Some(1000)]);
        assert_eq!((elided("abcdef", 4), elided("abc", 3), elided("abc", 0)), ("abc…".into(), "abc".into(), String::new()));
        assert_eq!(short("4vJ9JU1bJJE96FWSJKvHsmmFADCg4gpZQff4P3bkLKi"), "4vJ9JU1b…kLKi");
    }

    #[test]
    fn what_is_not_known_is_a_dash() {
        assert_eq!(bytes_of(Some(3 << 29), Some(16 << 30)), "1.5 of 16.0 GiB");
        assert_eq!(bytes_of(None, Some(139 << 30)), "– of 139.0 GiB");
        assert_eq!((bytes_of(None, None), bytes_of(Some(5), None)), ("–".into(), "5 B".into()));
        assert_eq!(bytes_of(Some(u64::MAX), Some(0)), "18446744073709551615.0 of 0 B");
    }
}
