//! Numbers and strangers' strings, as a terminal may show them.

/// Characters of a stranger's name.
pub(super) const NAME_MAX: usize = 64;

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

/// Values as heights from 0 to 1000: the lowest at 0, the highest at 1000. What is no number has no height.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 1000")]
pub(super) fn heights(values: impl Iterator<Item = f32> + Clone) -> Vec<Option<u64>> {
    let finite = values.clone().filter(|value| value.is_finite()).map(f64::from);
    let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    let span = (high - low).max(f64::MIN_POSITIVE);
    let height = |value: f32| value.is_finite().then(|| ((f64::from(value) - low) / span * 1000.0).clamp(0.0, 1000.0) as u64);
    values.map(height).collect()
}
