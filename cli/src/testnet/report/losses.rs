//! Loss against step: the run, its nodes, and the reference.

use std::fmt::Write as _;

use super::html::{escaped, figure};

const SIZE: (f64, f64) = (900.0, 380.0);
/// Left, top, right, bottom.
const MARGIN: (f64, f64, f64, f64) = (64.0, 14.0, 16.0, 46.0);
/// Points of a line; of more, neighbours are averaged.
pub(crate) const POINTS_MAX: usize = 400;

/// A line of the chart.
#[derive(Debug)]
pub(crate) struct Series {
    /// For the legend.
    pub(crate) name: String,
    /// Of the style sheet: colour, width and dashes.
    pub(crate) class: String,
    /// Step and loss, by step.
    pub(crate) points: Vec<(u32, f64)>,
}

/// The chart with its legend; none if there is nothing to draw.
pub(crate) fn chart(series: &[Series], description: &str) -> Option<String> {
    let series: Vec<Series> = series.iter().filter_map(thinned).collect();
    let points = || series.iter().flat_map(|line| &line.points);
    let (first, last) = (points().map(|point| point.0).min()?, points().map(|point| point.0).max()?);
    let low = points().map(|point| point.1).fold(f64::INFINITY, f64::min);
    let high = points().map(|point| point.1).fold(f64::NEG_INFINITY, f64::max);
    let pad = ((high - low) * 0.05).max(0.01);
    let area = Area { steps: (f64::from(first), f64::from(last.max(first + 1))), losses: (low - pad, high + pad) };
    let mut svg = axes(&area);
    for line in &series {
        let mut path = String::new();
        for (index, (step, loss)) in line.points.iter().enumerate() {
            let (x, y) = (area.x(f64::from(*step)), area.y(*loss));
            let _written = write!(path, "{}{x:.1} {y:.1}", if index == 0 { 'M' } else { 'L' });
        }
        if let [(step, loss)] = line.points[..] {
            let (x, y) = (area.x(f64::from(step)), area.y(loss));
            let _written = write!(path, "M{:.1} {y:.1}L{:.1} {y:.1}", x - 2.0, x + 2.0);
        }
        let name = escaped(&line.name);
        let _written = writeln!(svg, "<path class=\"line {}\" d=\"{path}\"><title>{name}</title></path>", line.class);
    }
    let legend: String = series.iter().map(|line| swatch(&line.class, &line.name)).collect();
    let chart = figure("loss-chart", ("Loss by step", description), SIZE, &svg);
    Some(format!("{chart}<ul class=\"legend\">{legend}</ul>\n"))
}

/// An entry of the legend: the line as it is drawn, and its name.
fn swatch(class: &str, name: &str) -> String {
    format!(
        "<li><svg class=\"swatch\" viewBox=\"0 0 32 12\" aria-hidden=\"true\"><path class=\"line {class}\" \
         d=\"M1 6L31 6\" /></svg>{}</li>",
        escaped(name)
    )
}

/// With finite losses only, and no more points than can be seen; none if nothing is left.
fn thinned(series: &Series) -> Option<Series> {
    let points: Vec<_> = series.points.iter().copied().filter(|(_, loss)| loss.is_finite()).collect();
    let size = points.len().div_ceil(POINTS_MAX).max(1);
    let mean = |part: &[(u32, f64)]| {
        #[expect(clippy::cast_precision_loss, reason = "steps are few")]
        let count = part.len() as f64;
        (part[part.len() / 2].0, part.iter().map(|(_, loss)| loss).sum::<f64>() / count)
    };
    let points: Vec<_> = points.chunks(size).map(mean).collect();
    (!points.is_empty()).then(|| Series { name: series.name.clone(), class: series.class.clone(), points })
}

struct Area {
    steps: (f64, f64),
    losses: (f64, f64),
}

impl Area {
    fn x(&self, step: f64) -> f64 {
        let share = (step - self.steps.0) / (self.steps.1 - self.steps.0);
        MARGIN.0 + share * (SIZE.0 - MARGIN.0 - MARGIN.2)
    }

    fn y(&self, loss: f64) -> f64 {
        let share = (loss - self.losses.0) / (self.losses.1 - self.losses.0);
        SIZE.1 - MARGIN.3 - share * (SIZE.1 - MARGIN.1 - MARGIN.3)
    }
}

fn axes(area: &Area) -> String {
    let mut svg = String::new();
    let (left, right, bottom) = (MARGIN.0, SIZE.0 - MARGIN.2, SIZE.1 - MARGIN.3);
    for loss in ticks(area.losses, 6) {
        let y = area.y(loss);
        let _written = writeln!(
            svg,
            "<path class=\"grid\" d=\"M{left} {y:.1}H{right}\" /><text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" \
             text-anchor=\"end\">{loss:.*}</text>",
            left - 8.0,
            y + 4.0,
            decimals(area.losses, 6)
        );
    }
    for step in ticks(area.steps, 10).into_iter().filter(|step| step.fract() == 0.0) {
        let x = area.x(step);
        let _written =
            writeln!(svg, "<text class=\"tick\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{step}</text>", bottom + 18.0);
    }
    let (middle, height) = ((left + right) / 2.0, (MARGIN.1 + bottom) / 2.0);
    let _written = writeln!(
        svg,
        "<path class=\"axis\" d=\"M{left} {bottom}H{right}\" /><text class=\"label\" x=\"{middle}\" y=\"{:.1}\" \
         text-anchor=\"middle\">step</text><text class=\"label\" transform=\"translate(16 {height}) rotate(-90)\" \
         text-anchor=\"middle\">loss (nats per token)</text>",
        SIZE.1 - 8.0
    );
    svg
}

/// About `count` round numbers between the ends.
pub(crate) fn ticks((low, high): (f64, f64), count: u32) -> Vec<f64> {
    let step = stride((low, high), count);
    let first = (low / step).ceil();
    (0..=count * 3)
        .map(|index| (first + f64::from(index)) * step)
        .take_while(|tick| *tick <= high + step * 1e-9)
        .map(|tick| if tick.abs() < step * 1e-9 { 0.0 } else { tick })
        .collect()
}

/// 1, 2 or 5 times a power of ten.
fn stride((low, high): (f64, f64), count: u32) -> f64 {
    let rough = ((high - low) / f64::from(count)).max(1e-9);
    let power = 10_f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * power >= rough).unwrap_or(10.0);
    factor * power
}

/// Digits after the point that tell ticks apart.
fn decimals(range: (f64, f64), count: u32) -> usize {
    let digits = -stride(range, count).log10().floor();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 9")]
    let digits = digits.clamp(0.0, 9.0) as usize;
    digits
}
