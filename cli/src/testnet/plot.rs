//! The loss over the steps, as an SVG: a line for each node, and the mean.

use std::path::Path;

use anyhow::Result;
use plotters::style::BLACK;

use super::board::{self, NodeBoard};
use crate::chart::{self, COLOURS, Line};

/// Writes the plot to `path`.
///
/// # Errors
/// If no step was trained, a loss is not finite, or the file cannot be written.
pub(crate) fn write(path: &Path, nodes: &[NodeBoard]) -> Result<()> {
    let line = |name: String, colour, width, points| Line { name, colour, width, points, range: Vec::new() };
    let of_node = |(index, (node, colour)): (usize, (&NodeBoard, _))| {
        let points = node.trained.iter().map(|(step, trained)| (u64::from(step.0), f64::from(trained.loss)));
        line(format!("node {}", index + 1), colour, 1, points.collect())
    };
    let mean = board::losses(nodes).into_iter().map(|(step, loss)| (u64::from(step.0), loss)).collect();
    let nodes = nodes.iter().zip(COLOURS.into_iter().cycle()).enumerate().map(of_node);
    let lines: Vec<_> = nodes.chain([line("mean".to_owned(), BLACK, 2, mean)]).collect();
    chart::write(path, "Loss by step", "step", &lines)
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
