//! The figures of a comparison: all losses, and a table of the last ones.

use std::fmt::Write as _;

use super::contest::{Contestant, Point};

/// One contestant's run from one seed.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// Who ran.
    pub(crate) contestant: Contestant,
    /// From which seed.
    pub(crate) seed: u64,
    /// The losses.
    pub(crate) points: Vec<Point>,
}

/// The runs of each contestant, in the order in which they first ran.
pub(crate) fn by_contestant(runs: &[Run]) -> Vec<(Contestant, Vec<&Run>)> {
    let mut groups: Vec<(Contestant, Vec<&Run>)> = Vec::new();
    for run in runs {
        match groups.iter_mut().find(|(contestant, _)| *contestant == run.contestant) {
            Some((_, group)) => group.push(run),
            None => groups.push((run.contestant, vec![run])),
        }
    }
    groups
}

/// The mean of the held-out losses of `runs` at their point `index`.
pub(crate) fn mean_at(runs: &[&Run], index: usize) -> Option<f64> {
    let losses: Vec<f64> = runs.iter().filter_map(|run| run.points.get(index)).map(|point| point.held_out).collect();
    #[expect(clippy::cast_precision_loss, reason = "a handful of seeds")]
    let count = losses.len() as f64;
    (!losses.is_empty()).then(|| losses.iter().sum::<f64>() / count)
}

fn last(runs: &[&Run]) -> Vec<f64> {
    runs.iter().filter_map(|run| run.points.last()).map(|point| point.held_out).collect()
}

fn mean(losses: &[f64]) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a handful of seeds")]
    let count = losses.len() as f64;
    losses.iter().sum::<f64>() / count
}

/// Every loss of every run, a line each.
pub(crate) fn csv(runs: &[Run]) -> String {
    let mut text = "optimizer,rate,seed,step,tokens,training_loss,held_out_loss\n".to_owned();
    for run in runs {
        for point in &run.points {
            let (name, lr) = (run.contestant.name().replace(',', ""), run.contestant.lr());
            let Point { step, tokens, training, held_out } = point;
            let seed = run.seed;
            // Writing to a string can't fail.
            let _written = writeln!(text, "{name},{lr:e},{seed},{step},{tokens},{training:.5},{held_out:.5}");
        }
    }
    text
}

/// The held-out losses at the end: each seed's, their mean, and that against AdamW's best mean.
pub(crate) fn markdown(runs: &[Run]) -> String {
    let groups = by_contestant(runs);
    let adamw = groups.iter().filter(|(who, _)| matches!(who, Contestant::AdamW { .. })).map(|(_, runs)| mean(&last(runs)));
    let reference = adamw.min_by(f64::total_cmp);
    let mut text =
        "| optimizer | highest rate | tokens | held-out loss by seed | mean | against AdamW |\n|---|---|---|---|---|---|\n"
            .to_owned();
    for (contestant, runs) in &groups {
        let losses = last(runs);
        let tokens = runs.first().and_then(|run| run.points.last()).map_or(0, |point| point.tokens);
        let each: Vec<String> = losses.iter().map(|loss| format!("{loss:.3}")).collect();
        let against =
            reference.map_or_else(String::new, |reference| format!("{:+.1} %", 100.0 * (mean(&losses) / reference - 1.0)));
        let (name, lr, each) = (contestant.name(), contestant.lr(), each.join(", "));
        let _written = writeln!(text, "| {name} | {lr:e} | {tokens} | {each} | {:.3} | {against} |", mean(&losses));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(contestant: Contestant, seed: u64, held_out: f64) -> Run {
        let point = |step: u32, held_out| Point { step, tokens: u64::from(step) * 100, training: 7.0, held_out };
        Run { contestant, seed, points: vec![point(1, 8.0), point(2, held_out)] }
    }

    fn runs() -> Vec<Run> {
        let (adamw, distro) = (Contestant::AdamW { lr: 0.004 }, Contestant::Distro { senders: 4, lr: 0.001 });
        vec![run(adamw, 0, 4.0), run(distro, 0, 4.1), run(adamw, 1, 5.0), run(distro, 1, 5.08)]
    }

    #[test]
    fn the_table_has_means_over_seeds_and_the_distance_to_adamw() {
        let table = markdown(&runs());
        assert!(table.contains("| AdamW | 4e-3 | 200 | 4.000, 5.000 | 4.500 | +0.0 % |"), "{table}");
        assert!(table.contains("| DisTrO, 4 senders | 1e-3 | 200 | 4.100, 5.080 | 4.590 | +2.0 % |"), "{table}");
    }

    #[test]
    fn every_point_of_every_run_is_a_line_of_seven_fields() {
        let text = csv(&runs());
        assert_eq!(text.lines().count(), 1 + 8);
        assert!(text.lines().all(|line| line.split(',').count() == 7), "{text}");
    }

    #[test]
    fn means_are_taken_point_by_point() {
        let runs = runs();
        let groups = by_contestant(&runs);
        assert_eq!(groups.len(), 2);
        assert_eq!(mean_at(&groups[0].1, 0), Some(8.0));
        assert_eq!(mean_at(&groups[0].1, 1), Some(4.5));
        assert_eq!(mean_at(&groups[0].1, 2), None);
    }
}
