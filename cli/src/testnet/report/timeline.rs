//! A band for each node: what it did when.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::html::{escaped, figure, table};
use super::lane::{Doing, Mark, coarse};
use super::losses::ticks;
use super::record::NodeRecord;

const WIDTH: f64 = 900.0;
const LEFT: f64 = 72.0;
const RIGHT: f64 = 12.0;
/// Of a node's band: bar, ticks below, gap.
const BAND: f64 = 44.0;
const BAR: f64 = 24.0;
/// Pixels of time; more is not to be seen.
const COLUMNS: usize = 800;

/// The figure, its legend, and the same in numbers; none if no node did anything.
pub(crate) fn chart(records: &[NodeRecord]) -> Option<String> {
    let spans = || records.iter().flat_map(|record| record.lane.spans());
    let (from, to) = (spans().map(|span| span.from).min()?, spans().map(|span| span.to).max()?);
    let time = Time { from, to: to.max(from + 1) };
    let height = BAND * records.len() as f64 + 48.0;
    let mut svg = time.axis(height);
    for (index, record) in records.iter().enumerate() {
        svg.push_str(&band(index, record, &time));
    }
    let description = format!(
        "{} nodes over {:.1} seconds; the table below has the seconds of each activity.",
        records.len(),
        seconds(time.to - time.from)
    );
    let chart = figure("timeline-chart", ("What each node did when", &description), (WIDTH, height), &svg);
    Some(format!("{chart}{}{}", legend(records), sums(records)))
}

struct Time {
    from: u64,
    to: u64,
}

impl Time {
    fn x(&self, at: u64) -> f64 {
        let share = seconds(at.clamp(self.from, self.to) - self.from) / seconds(self.to - self.from);
        LEFT + share * (WIDTH - LEFT - RIGHT)
    }

    fn axis(&self, height: f64) -> String {
        let mut svg = String::new();
        let bottom = height - 36.0;
        for tick in ticks((0.0, seconds(self.to - self.from)), 10) {
            let x = LEFT + tick / seconds(self.to - self.from) * (WIDTH - LEFT - RIGHT);
            let _written = writeln!(
                svg,
                "<path class=\"grid\" d=\"M{x:.1} 4V{bottom:.1}\" /><text class=\"tick\" x=\"{x:.1}\" y=\"{:.1}\" \
                 text-anchor=\"middle\">{}</text>",
                bottom + 16.0,
                short(tick)
            );
        }
        let _written = writeln!(
            svg,
            "<text class=\"label\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">seconds since the first node was up</text>",
            (LEFT + WIDTH - RIGHT) / 2.0,
            height - 4.0
        );
        svg
    }
}

fn band(index: usize, record: &NodeRecord, time: &Time) -> String {
    let top = BAND * index as f64 + 8.0;
    let mut svg = format!("<g><title>{}</title>\n", escaped(&spoken(index, record)));
    let _written = writeln!(
        svg,
        "<text class=\"label\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">node {}</text>",
        LEFT - 10.0,
        top + BAR / 2.0 + 4.0,
        index + 1
    );
    // One path for each activity keeps long runs small.
    let mut paths: BTreeMap<Doing, String> = BTreeMap::new();
    for span in coarse(record.lane.spans(), COLUMNS) {
        let (x, width) = (time.x(span.from), (time.x(span.to) - time.x(span.from)).max(0.3));
        let _written = write!(paths.entry(span.doing).or_default(), "M{x:.1} {top:.0}h{width:.1}v{BAR}h-{width:.1}z");
    }
    for (doing, path) in paths {
        let _written = writeln!(svg, "<path class=\"{}\" d=\"{path}\" />", doing.class());
    }
    #[expect(clippy::cast_possible_truncation, reason = "tenths of a pixel")]
    let applies: BTreeSet<i64> = record.lane.applies.iter().map(|at| (time.x(*at) * 2.0).round() as i64).collect();
    let mut path = String::new();
    for x in applies {
        let _written = write!(path, "M{} {:.0}v6", x as f64 / 2.0, top + BAR + 2.0);
    }
    if !path.is_empty() {
        let _written = writeln!(svg, "<path class=\"apply\" d=\"{path}\" />");
    }
    for (at, mark) in &record.lane.marks {
        svg.push_str(&sign(*mark, time.x(*at), top));
    }
    svg.push_str("</g>\n");
    svg
}

/// A mark on a band.
fn sign(mark: Mark, x: f64, top: f64) -> String {
    let (bottom, middle) = (top + BAR, top + BAR / 2.0);
    match mark {
        Mark::Died => {
            let (left, right, up, down) = (x - 6.0, x + 6.0, middle - 6.0, middle + 6.0);
            format!(
                "<path class=\"died\" d=\"M{left:.1} {up:.1}L{right:.1} {down:.1}M{left:.1} {down:.1}L{right:.1} {up:.1}\" />\n"
            )
        }
        Mark::Restarted => {
            format!("<path class=\"again\" d=\"M{x:.1} {middle:.1}l-8 -6v12z\" />\n")
        }
        Mark::Joined => format!("<path class=\"joined\" d=\"M{x:.1} {:.1}l-4 -6h8z\" />\n", top + 1.0),
        Mark::ModelReady => format!("<circle class=\"ready\" cx=\"{x:.1}\" cy=\"{:.1}\" r=\"3\" />\n", bottom - 5.0),
        Mark::EndpointDown => format!("<path class=\"lost\" d=\"M{x:.1} {top:.1}v{BAR}\" />\n"),
    }
}

/// What stands out, for those who don't see the picture.
fn spoken(index: usize, record: &NodeRecord) -> String {
    let number = |wanted: Mark| record.lane.marks.iter().filter(|(_, mark)| *mark == wanted).count();
    format!(
        "Node {}: joined {} times, died {} times, gave up an endpoint {} times, applied {} steps.",
        index + 1,
        number(Mark::Joined),
        number(Mark::Died),
        number(Mark::EndpointDown),
        record.board.applied.len()
    )
}

fn legend(records: &[NodeRecord]) -> String {
    let mut entries = String::new();
    let mut entry = |drawing: &str, name: &str| {
        let _written = write!(
            entries,
            "<li><svg class=\"swatch\" viewBox=\"0 0 32 12\" aria-hidden=\"true\">{drawing}</svg>{}</li>",
            escaped(name)
        );
    };
    for doing in Doing::ALL {
        if records.iter().flat_map(|record| record.lane.spans()).any(|span| span.doing == doing) {
            entry(&format!("<path class=\"{}\" d=\"M2 0h28v12h-28z\" />", doing.class()), doing.name());
        }
    }
    entry("<path class=\"apply\" d=\"M16 3v6\" />", "a step's results applied");
    let marks: BTreeSet<Mark> = records.iter().flat_map(|record| &record.lane.marks).map(|(_, mark)| *mark).collect();
    for mark in marks {
        let (name, down) = match mark {
            Mark::Died => ("killed, or died", -6),
            Mark::Restarted => ("started again", -6),
            Mark::Joined => ("joined an epoch", 8),
            Mark::ModelReady => ("has the model", -13),
            Mark::EndpointDown => ("an endpoint given up", -6),
        };
        entry(&format!("<g transform=\"translate(0 {down})\">{}</g>", sign(mark, 16.0, 0.0)), name);
    }
    format!("<ul class=\"legend\">{entries}</ul>\n")
}

fn sums(records: &[NodeRecord]) -> String {
    let seen: Vec<Doing> =
        Doing::ALL.into_iter().filter(|doing| records.iter().any(|record| record.lane.sums().contains_key(doing))).collect();
    let head: Vec<&str> = std::iter::once("node").chain(seen.iter().map(|doing| doing.name())).collect();
    let row = |(index, record): (usize, &NodeRecord)| {
        let sums = record.lane.sums();
        let cells = seen.iter().map(|doing| format!("{:.1}", seconds(sums.get(doing).copied().unwrap_or(0))));
        std::iter::once(format!("node {}", index + 1)).chain(cells).collect()
    };
    let rows: Vec<Vec<String>> = records.iter().enumerate().map(row).collect();
    table("Seconds of each activity", &head, &rows)
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1e3
}

/// Without needless decimals.
fn short(number: f64) -> String {
    let text = format!("{number:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
