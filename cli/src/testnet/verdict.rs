//! Whether the run did what it should, and the object that says so.

use std::time::Duration;

use psyche_messages::Points;
use serde::Serialize;

use super::board::{self, NodeBoard};
use super::plan::NodePlan;

/// What a node trained and earned.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct NodeSummary {
    pub(crate) address: String,
    pub(crate) dp: u16,
    pub(crate) tp: u16,
    pub(crate) steps_trained: usize,
    pub(crate) points: u64,
    pub(crate) claimed: u64,
    pub(crate) payload_bytes_mean: u64,
}

/// The whole run; a public format: fields are added, never renamed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Summary {
    /// Steps in which at least one node trained.
    pub(crate) steps: usize,
    pub(crate) epochs: usize,
    /// Mean loss of the first quarter of the steps.
    pub(crate) loss_first: Option<f64>,
    /// Mean loss of the last quarter of the steps.
    pub(crate) loss_last: Option<f64>,
    pub(crate) digests_equal: bool,
    pub(crate) nodes: Vec<NodeSummary>,
    pub(crate) wall_s: f64,
    /// Mean loss of AdamW's last quarter of the steps, where its curve was computed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) adamw_loss_last: Option<f64>,
    /// Why the run, or the computing of its report, did not come to its end; absent where it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<String>,
    /// The report's path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) report: Option<String>,
}

/// Points of a node as the chain has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    /// Earned, by the coordinator's account.
    pub(crate) earned: Points,
    /// Claimed, by the treasurer's account.
    pub(crate) claimed: Points,
}

/// Sums up what `boards` and the chain's `accounts` say, node by node in the order of `plan`.
pub(crate) fn summarize(plan: &[NodePlan], boards: &[NodeBoard], accounts: &[Account], wall: Duration) -> Summary {
    let losses: Vec<f64> = board::losses(boards).into_values().collect();
    let quarter = losses.len().div_ceil(4);
    let nodes = plan.iter().zip(boards).zip(accounts).map(|((plan, board), account)| NodeSummary {
        address: board.address.clone().unwrap_or_default(),
        dp: plan.dp,
        tp: plan.tp,
        steps_trained: board.trained.len(),
        points: account.earned.0,
        claimed: account.claimed.0,
        payload_bytes_mean: board.payload_bytes_mean(),
    });
    let epochs: std::collections::BTreeSet<_> = boards.iter().flat_map(|board| &board.epochs).collect();
    Summary {
        steps: losses.len(),
        epochs: epochs.len(),
        loss_first: mean(&losses[..quarter]),
        loss_last: last_quarter(&losses),
        digests_equal: board::disagreements(boards).is_empty() && boards.iter().any(|board| !board.applied.is_empty()),
        nodes: nodes.collect(),
        wall_s: (wall.as_secs_f64() * 10.0).round() / 10.0,
        adamw_loss_last: None,
        failure: None,
        report: None,
    }
}

/// Mean of the last quarter of `losses`.
pub(crate) fn last_quarter(losses: &[f64]) -> Option<f64> {
    mean(&losses[losses.len() - losses.len().div_ceil(4)..])
}

/// What the run fell short of; empty where it did all it should.
pub(crate) fn shortcomings(summary: &Summary, boards: &[NodeBoard]) -> Vec<String> {
    let mut found = Vec::new();
    match (summary.loss_first, summary.loss_last) {
        (Some(first), Some(last)) if last < first && summary.steps > 1 => {}
        (Some(first), Some(last)) => found.push(format!("the loss did not fall: {first:.4} at first, {last:.4} at last")),
        _ => found.push("no step was trained".to_owned()),
    }
    let disagreements = board::disagreements(boards);
    if let Some(step) = disagreements.first() {
        found.push(format!("digests differ after {} steps, first after step {step}", disagreements.len()));
    } else if !summary.digests_equal {
        found.push("no node applied a step".to_owned());
    }
    for (number, node) in (1..).zip(&summary.nodes) {
        if node.steps_trained == 0 {
            found.push(format!("node {number} trained nothing"));
        }
        if node.points == 0 {
            found.push(format!("node {number} earned nothing"));
        }
        if node.claimed != node.points {
            found.push(format!("node {number} earned {} points and claimed {}", node.points, node.claimed));
        }
    }
    found
}

/// The summary for people.
pub(crate) fn lines(summary: &Summary) -> Vec<String> {
    let loss = |loss: Option<f64>| loss.map_or_else(|| "-".to_owned(), |loss| format!("{loss:.3}"));
    let equal = if summary.digests_equal { "equal after every step" } else { "DIFFERENT" };
    let plural = if summary.epochs == 1 { "" } else { "s" };
    let mut lines = vec![
        format!("run      {} steps in {} epoch{plural}, {:.1} s", summary.steps, summary.epochs, summary.wall_s),
        format!("loss     {} at first, {} at last", loss(summary.loss_first), loss(summary.loss_last)),
        format!("digests  {equal}"),
    ];
    if let Some(adamw) = summary.adamw_loss_last {
        lines.push(format!("AdamW    {adamw:.3} at last, the same batches on one device"));
    }
    for (number, node) in (1..).zip(&summary.nodes) {
        lines.push(format!(
            "node {number}   {}x{} devices, {} steps, {} points earned, {} claimed, {} bytes an update, {}",
            node.dp, node.tp, node.steps_trained, node.points, node.claimed, node.payload_bytes_mean, node.address
        ));
    }
    lines
}

fn mean(values: &[f64]) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "steps are few")]
    let count = values.len() as f64;
    (!values.is_empty()).then(|| (values.iter().sum::<f64>() / count * 1e4).round() / 1e4)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use psyche_messages::{Digest, Epoch, NodeEvent, Step};

    use super::*;

    fn plans(count: u16) -> Vec<NodePlan> {
        (1..=count).map(|number| NodePlan { number, dp: 2, tp: 1, late: false, folder: PathBuf::new() }).collect()
    }

    /// A node whose loss goes from 8 down by `fall` a step, over eight steps.
    fn node(fall: f32, digest: u8) -> NodeBoard {
        let mut board = NodeBoard { address: Some("address".to_owned()), ..NodeBoard::default() };
        for step in 1..=8_u8 {
            board.apply(NodeEvent::StepTrained {
                epoch: Epoch(u16::from(step > 4)),
                step: Step(step.into()),
                loss: 8.0 - fall * f32::from(step),
                samples: 4,
                tokens_per_second: 1.0,
                payload_bytes: 100,
            });
            board.apply(NodeEvent::StepApplied {
                epoch: Epoch(0),
                step: Step(step.into()),
                results: 2,
                digest: Digest([digest; 32]),
            });
        }
        board
    }

    fn judge(boards: &[NodeBoard], accounts: &[Account]) -> (Summary, Vec<String>) {
        let plans = plans(u16::try_from(boards.len()).unwrap_or(0));
        let summary = summarize(&plans, boards, accounts, Duration::from_millis(12_345));
        let shortcomings = shortcomings(&summary, boards);
        (summary, shortcomings)
    }

    const PAID: Account = Account { earned: Points(5), claimed: Points(5) };

    #[test]
    fn a_good_run_has_no_shortcomings_and_keeps_its_public_form() {
        let (summary, shortcomings) = judge(&[node(0.5, 1), node(0.5, 1)], &[PAID, PAID]);
        assert_eq!(shortcomings, Vec::<String>::new());
        let node = r#"{"address":"address","dp":2,"tp":1,"steps_trained":8,"points":5,"claimed":5,"payload_bytes_mean":100}"#;
        assert_eq!(
            serde_json::to_string(&summary).ok(),
            Some(format!(
                r#"{{"steps":8,"epochs":2,"loss_first":7.25,"loss_last":4.25,"digests_equal":true,"nodes":[{node},{node}],"wall_s":12.3}}"#
            ))
        );
    }

    #[test]
    fn each_shortcoming_is_named() {
        let unpaid = Account { earned: Points(5), claimed: Points(4) };
        let nothing = Account::default();
        let cases = [
            (judge(&[node(-0.5, 1)], &[PAID]), "the loss did not fall"),
            (judge(&[node(0.0, 1)], &[PAID]), "the loss did not fall"),
            (judge(&[node(0.5, 1), node(0.5, 2)], &[PAID, PAID]), "digests differ after 8 steps, first after step 1"),
            (judge(&[node(0.5, 1)], &[unpaid]), "node 1 earned 5 points and claimed 4"),
            (judge(&[node(0.5, 1), NodeBoard::default()], &[PAID, PAID]), "node 2 trained nothing"),
            (judge(&[node(0.5, 1)], &[nothing]), "node 1 earned nothing"),
            (judge(&[NodeBoard::default()], &[PAID]), "no step was trained"),
        ];
        for ((_, found), expected) in cases {
            assert!(found.iter().any(|text| text.starts_with(expected)), "{expected}: {found:?}");
        }
    }

    #[test]
    fn a_run_without_any_applied_step_has_no_equal_digests() {
        let mut board = node(0.5, 1);
        board.applied.clear();
        let (summary, shortcomings) = judge(&[board], &[PAID]);
        assert!(!summary.digests_equal);
        assert_eq!(shortcomings, ["no node applied a step"]);
    }
}
