//! Tables in Markdown, to be pasted into docs/BENCHMARKS.md.

use std::fmt;

use crate::stats::Spread;

/// A table with a title.
pub(crate) struct Table {
    title: String,
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(title: impl Into<String>, head: &[&str]) -> Self {
        Self { title: title.into(), head: head.iter().map(|&cell| cell.to_owned()).collect(), rows: Vec::new() }
    }

    /// Adds a row; it is cut or filled up to the width of the head.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let mut row: Vec<String> = cells.into_iter().collect();
        row.resize(self.head.len(), String::new());
        self.rows.push(row);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{}\n", self.title)?;
        writeln!(f, "| {} |", self.head.join(" | "))?;
        writeln!(f, "|{}", "---|".repeat(self.head.len()))?;
        self.rows.iter().try_for_each(|row| writeln!(f, "| {} |", row.join(" | ")))
    }
}

/// A number with its thousands apart and as many digits as its size deserves.
pub(crate) fn number(value: f64) -> String {
    if value.abs() < 1000.0 {
        let digits = if value.abs() < 10.0 { 2 } else { usize::from(value.abs() < 100.0) };
        return format!("{value:.digits$}");
    }
    let digits = format!("{:.0}", value.abs());
    let grouped: Vec<&str> = (0..digits.len().div_ceil(3))
        .rev()
        .map(|group| {
            let end = digits.len() - 3 * group;
            &digits[end.saturating_sub(3)..end]
        })
        .collect();
    format!("{}{}", if value < 0.0 { "-" } else { "" }, grouped.join(","))
}

/// A median with its quartiles, each times `factor`.
pub(crate) fn spread(spread: Option<Spread>, factor: f64) -> String {
    match spread {
        Some(Spread { low, median, high }) => {
            let (from, to) = if factor * low <= factor * high { (low, high) } else { (high, low) };
            format!("{} ({} to {})", number(factor * median), number(factor * from), number(factor * to))
        }
        None => "not measured".to_owned(),
    }
}

/// A ratio with its quartiles.
pub(crate) fn ratio(spread: Option<Spread>) -> String {
    match spread {
        Some(Spread { low, median, high }) => format!("**{median:.2}** ({low:.2} to {high:.2})"),
        None => "not measured".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_about_three_digits_and_group_their_thousands() {
        let shown = [0.123, 9.876, 98.76, 987.6, 9_876.5, 1_234_567.0, -1_234.0].map(number);
        assert_eq!(shown, ["0.12", "9.88", "98.8", "988", "9,876", "1,234,567", "-1,234"]);
    }

    #[test]
    fn a_table_is_markdown_with_a_title_and_full_rows() {
        let mut table = Table::new("Steps", &["who", "tokens/s"]);
        table.row(["ours".to_owned(), spread(Some(Spread { low: 1.0, median: 2.0, high: 3.0 }), 1.0)]);
        table.row(["a peer".to_owned()]);
        let expected = "\nSteps\n\n| who | tokens/s |\n|---|---|\n| ours | 2.00 (1.00 to 3.00) |\n| a peer |  |\n";
        assert_eq!(table.to_string(), expected);
    }
}
