//! The held-out loss by tokens, as an SVG: the mean over the seeds of each contestant, and their range.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use plotters::prelude::*;

use super::table::{Run, by_contestant, mean_at};

const SIZE: (u32, u32) = (960, 540);
/// Colours that people with any colour vision tell apart (after Okabe and Ito); contestants take them in turn.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 0, 0),
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(213, 94, 0),
];

/// One contestant's line: tokens, mean, lowest and highest loss.
type Line = Vec<(u64, f64, f64, f64)>;

/// Writes the plot to `path`.
///
/// # Errors
/// If there is nothing to draw, a loss is not finite, or the file cannot be written.
pub(crate) fn write(path: &Path, runs: &[Run]) -> Result<()> {
    let lines: Vec<(String, Line)> = by_contestant(runs)
        .into_iter()
        .map(|(contestant, runs)| (format!("{}, rate {:e}", contestant.name(), contestant.lr()), line(&runs)))
        .collect();
    let all = || lines.iter().flat_map(|(_, line)| line);
    let (low, high) =
        all().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), point| (low.min(point.2), high.max(point.3)));
    let tokens = all().map(|point| point.0).max().unwrap_or(0);
    if !(low.is_finite() && high.is_finite()) {
        bail!("there is no finite loss to draw");
    }
    let margin = ((high - low) * 0.05).max(0.01);
    draw(path, &lines, tokens, low - margin..high + margin)
        .map_err(|error| anyhow::anyhow!("{error}"))
        .with_context(|| format!("failed to write {}", path.display()))
}

fn line(runs: &[&Run]) -> Line {
    let first = runs.first().map_or(&[][..], |run| &run.points);
    let point = |(index, point): (usize, &super::contest::Point)| {
        let losses = || runs.iter().filter_map(move |run| run.points.get(index)).map(|point| point.held_out);
        let (low, high) =
            losses().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), loss| (low.min(loss), high.max(loss)));
        Some((point.tokens, mean_at(runs, index)?, low, high))
    };
    first.iter().enumerate().filter_map(point).collect()
}

fn draw(
    path: &Path,
    lines: &[(String, Line)],
    tokens: u64,
    losses: std::ops::Range<f64>,
) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(16)
        .caption("Held-out loss by tokens", ("sans-serif", 22))
        .x_label_area_size(40)
        .y_label_area_size(56)
        .build_cartesian_2d(0..tokens.max(1), losses)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(BLACK.mix(0.12))
        .x_desc("tokens")
        .y_desc("loss (nats per token)")
        .label_style(("sans-serif", 15))
        .draw()?;
    for (index, (name, line)) in lines.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let band = line.iter().map(|point| (point.0, point.3)).chain(line.iter().rev().map(|point| (point.0, point.2)));
        chart.draw_series([Polygon::new(band.collect::<Vec<_>>(), colour.mix(0.15))])?;
        chart
            .draw_series(LineSeries::new(line.iter().map(|point| (point.0, point.1)), colour.stroke_width(2)))?
            .label(name)
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use super::super::contest::{Contestant, Point};
    use super::*;

    fn run(contestant: Contestant, losses: &[f64]) -> Run {
        let point = |(step, &held_out): (u32, &f64)| Point { step, tokens: u64::from(step) * 100, training: 7.0, held_out };
        Run { contestant, seed: 0, points: (1..).zip(losses).map(point).collect() }
    }

    #[test]
    fn every_contestant_is_in_the_plot() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("convergence.svg");
        let (adamw, distro) = (Contestant::AdamW { lr: 0.004 }, Contestant::Distro { senders: 4, lr: 0.001 });
        write(&path, &[run(adamw, &[8.0, 7.0]), run(distro, &[8.0, 7.1]), run(adamw, &[8.1, 7.2])]).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        for text in ["<svg", "AdamW, rate 4e-3", "DisTrO, 4 senders, rate 1e-3", "tokens"] {
            assert!(svg.contains(text), "{text}");
        }
        assert!(write(&path, &[]).is_err());
        assert!(write(&path, &[run(adamw, &[f64::NAN])]).is_err());
    }
}
