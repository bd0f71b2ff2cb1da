//! The held-out loss by tokens, as an SVG: the mean over the seeds of each contestant, and their range.

use std::path::Path;

use anyhow::Result;
use plotters::style::BLACK;

use super::table::{Run, by_contestant, mean_at};
use crate::chart::{self, COLOURS, Line};

/// Writes the plot to `path`.
///
/// # Errors
/// If there is nothing to draw, a loss is not finite, or the file cannot be written.
pub(crate) fn write(path: &Path, runs: &[Run]) -> Result<()> {
    // The first one is what the others are compared with.
    let colours = [BLACK].into_iter().chain(COLOURS.into_iter().cycle());
    let lines = by_contestant(runs).into_iter().zip(colours).map(|((contestant, runs), colour)| {
        let name = format!("{}, rate {:e}", contestant.name(), contestant.lr());
        let (points, range) = points(&runs);
        Line { name, colour, width: 2, points, range }
    });
    chart::write(path, "Held-out loss by tokens", "tokens", &lines.collect::<Vec<_>>())
}

/// Losses by tokens, and the lowest and highest by tokens.
type Points = (Vec<(u64, f64)>, Vec<(u64, f64, f64)>);

/// The mean over the seeds, and the range.
fn points(runs: &[&Run]) -> Points {
    let first = runs.first().map_or(&[][..], |run| &run.points);
    let point = |(index, point): (usize, &super::contest::Point)| {
        let losses = || runs.iter().filter_map(move |run| run.points.get(index)).map(|point| point.held_out);
        let (low, high) =
            losses().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), loss| (low.min(loss), high.max(loss)));
        Some(((point.tokens, mean_at(runs, index)?), (point.tokens, low, high)))
    };
    first.iter().enumerate().filter_map(point).unzip()
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
