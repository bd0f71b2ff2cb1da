//! Losses as lines in an SVG.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use plotters::prelude::*;

const SIZE: (u32, u32) = (960, 540);
/// Colours that people with any colour vision tell apart (after Okabe and Ito).
pub(crate) const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(213, 94, 0),
    RGBColor(86, 180, 233),
    RGBColor(120, 120, 120),
];

/// One line of a chart.
#[derive(Debug)]
pub(crate) struct Line {
    /// What the legend calls it.
    pub(crate) name: String,
    /// Its colour.
    pub(crate) colour: RGBColor,
    /// Its width in pixels.
    pub(crate) width: u32,
    /// Where it is (a step, a number of tokens), and the loss there.
    pub(crate) points: Vec<(u64, f64)>,
    /// At the same places the lowest and the highest loss, where there are several.
    pub(crate) range: Vec<(u64, f64, f64)>,
}

impl Line {
    fn losses(&self) -> impl Iterator<Item = f64> {
        let range = self.range.iter().flat_map(|&(_, low, high)| [low, high]);
        self.points.iter().map(|&(_, loss)| loss).chain(range)
    }
}

/// Writes a chart of `lines` to `path`; `along` is what the horizontal axis counts.
///
/// # Errors
/// If there is nothing to draw, a loss is not finite, or the file cannot be written.
pub(crate) fn write(path: &Path, caption: &str, along: &str, lines: &[Line]) -> Result<()> {
    let losses = || lines.iter().flat_map(Line::losses);
    let places = || lines.iter().flat_map(|line| &line.points).map(|point| point.0);
    let (Some(first), Some(last)) = (places().min(), places().max()) else { bail!("there is nothing to draw") };
    if !losses().all(f64::is_finite) {
        bail!("a loss is not finite");
    }
    let (low, high) = losses().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), loss| (low.min(loss), high.max(loss)));
    let margin = ((high - low) * 0.05).max(0.01);
    draw(path, (caption, along), lines, (first..last.max(first + 1), low - margin..high + margin))
        .map_err(|error| anyhow::anyhow!("{error}"))
        .with_context(|| format!("failed to write {}", path.display()))
}

fn draw(
    path: &Path,
    (caption, along): (&str, &str),
    lines: &[Line],
    (places, losses): (std::ops::Range<u64>, std::ops::Range<f64>),
) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(16)
        .caption(caption, ("sans-serif", 22))
        .x_label_area_size(40)
        .y_label_area_size(56)
        .build_cartesian_2d(places, losses)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(BLACK.mix(0.12))
        .x_desc(along)
        .y_desc("loss (nats per token)")
        .label_style(("sans-serif", 15))
        .draw()?;
    for line in lines {
        let colour = line.colour;
        if !line.range.is_empty() {
            let (upper, lower) = (line.range.iter(), line.range.iter().rev());
            let band = upper.map(|&(at, _, high)| (at, high)).chain(lower.map(|&(at, low, _)| (at, low)));
            chart.draw_series([Polygon::new(band.collect::<Vec<_>>(), colour.mix(0.15))])?;
        }
        chart
            .draw_series(LineSeries::new(line.points.iter().copied(), colour.stroke_width(line.width)))?
            .label(&line.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.9))
        .border_style(BLACK.mix(0.3))
        .label_font(("sans-serif", 15))
        .draw()?;
    area.present()?;
    Ok(())
}
