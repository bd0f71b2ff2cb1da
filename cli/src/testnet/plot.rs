//! The loss over the steps, as an SVG: a line for each node, and the mean.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use plotters::prelude::*;

use super::board::{self, NodeBoard};

const SIZE: (u32, u32) = (960, 540);
/// Colours that people with any colour vision tell apart (after Okabe and Ito); nodes take them in turn.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(213, 94, 0),
    RGBColor(120, 120, 120),
];

/// Writes the plot to `path`.
///
/// # Errors
/// If no step was trained or the file cannot be written.
pub(crate) fn write(path: &Path, nodes: &[NodeBoard]) -> Result<()> {
    let mean: Vec<(u32, f64)> = board::losses(nodes).into_iter().map(|(step, loss)| (step.0, loss)).collect();
    let (Some(first), Some(last)) = (mean.first(), mean.last()) else { bail!("no step was trained") };
    let values = || nodes.iter().flat_map(|node| node.trained.values()).map(|trained| f64::from(trained.loss));
    let (low, high) = values().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), loss| (low.min(loss), high.max(loss)));
    if !(low.is_finite() && high.is_finite()) {
        bail!("a loss is not finite");
    }
    let margin = ((high - low) * 0.05).max(0.05);
    draw(path, nodes, &mean, first.0..last.0.max(first.0 + 1), low - margin..high + margin)
        .map_err(|error| anyhow::anyhow!("{error}"))
        .with_context(|| format!("failed to write {}", path.display()))
}

fn draw(
    path: &Path,
    nodes: &[NodeBoard],
    mean: &[(u32, f64)],
    steps: std::ops::Range<u32>,
    losses: std::ops::Range<f64>,
) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(16)
        .caption("Loss by step", ("sans-serif", 22))
        .x_label_area_size(40)
        .y_label_area_size(56)
        .build_cartesian_2d(steps, losses)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(BLACK.mix(0.12))
        .x_desc("step")
        .y_desc("loss (nats per token)")
        .label_style(("sans-serif", 15))
        .draw()?;
    for (index, node) in nodes.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let line = node.trained.iter().map(|(step, trained)| (step.0, f64::from(trained.loss)));
        chart
            .draw_series(LineSeries::new(line, colour.stroke_width(1)))?
            .label(format!("node {}", index + 1))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    chart
        .draw_series(LineSeries::new(mean.iter().copied(), BLACK.stroke_width(2)))?
        .label("mean")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], BLACK.stroke_width(2)));
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

    use psyche_messages::{Epoch, NodeEvent, Step};

    use super::*;

    fn node(losses: &[f32]) -> NodeBoard {
        let mut board = NodeBoard::default();
        for (step, loss) in (1..).zip(losses) {
            let (epoch, step) = (Epoch(0), Step(step));
            board.apply(NodeEvent::StepTrained {
                epoch,
                step,
                loss: *loss,
                samples: 1,
                tokens_per_second: 1.0,
                payload_bytes: 1,
            });
        }
        board
    }

    #[test]
    fn every_node_and_the_mean_are_in_the_plot() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("loss.svg");
        write(&path, &[node(&[8.0, 7.0, 6.0]), node(&[8.1, 7.2])]).unwrap();
        let svg = std::fs::read_to_string(path).unwrap();
        for text in ["<svg", "node 1", "node 2", "mean", "loss (nats per token)"] {
            assert!(svg.contains(text), "{text}");
        }
    }

    #[test]
    fn a_single_step_can_be_drawn_and_none_cannot() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("one.svg"), &[node(&[8.0])]).unwrap();
        assert!(write(&folder.path().join("none.svg"), &[NodeBoard::default()]).is_err());
        assert!(write(&folder.path().join("nan.svg"), &[node(&[f32::NAN])]).is_err());
    }
}
