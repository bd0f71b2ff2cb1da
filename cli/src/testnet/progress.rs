//! What a person sees while the network runs: a block that is redrawn on a terminal, single lines elsewhere.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write};
use std::time::{Duration, Instant};

use owo_colors::OwoColorize as _;

use super::board::{self, NodeBoard};
use super::plan::NodePlan;

/// Away from a terminal a line is written at most this often, apart from what happens to nodes.
const LINE_EVERY: Duration = Duration::from_secs(2);
/// On a terminal the block is redrawn at most this often.
const BLOCK_EVERY: Duration = Duration::from_millis(200);
/// Longest line of the block: a line that wraps could not be redrawn.
const COLUMNS_MAX: usize = 110;

/// Writes progress to a stream, usually stderr.
#[derive(Debug)]
pub(crate) struct Progress<W: Write> {
    out: W,
    terminal: bool,
    started: Instant,
    last: Option<Instant>,
    /// Lines of the block that stands at the bottom of the terminal.
    block: usize,
}

impl Progress<io::Stderr> {
    /// Progress on stderr.
    pub(crate) fn stderr(started: Instant) -> Self {
        let out = io::stderr();
        let terminal = out.is_terminal();
        Self { out, terminal, started, last: None, block: 0 }
    }
}

impl<W: Write> Progress<W> {
    /// Something worth a line that stays.
    pub(crate) fn say(&mut self, text: &str) {
        self.clear();
        let elapsed = self.started.elapsed().as_secs_f64();
        let line = if self.terminal {
            format!("{} {text}", format_args!("{elapsed:6.1} s").dimmed())
        } else {
            format!("{elapsed:6.1} s {text}")
        };
        self.write(&format!("{line}\n"));
    }

    /// Shows where everything stands, if it is time to.
    pub(crate) fn show(&mut self, now: Instant, plan: &[NodePlan], boards: &[NodeBoard]) {
        let every = if self.terminal { BLOCK_EVERY } else { LINE_EVERY };
        if self.last.is_some_and(|last| now.duration_since(last) < every) || board::position(boards).is_none() {
            return;
        }
        self.last = Some(now);
        let elapsed = now.duration_since(self.started);
        if self.terminal {
            self.clear();
            let lines = block(elapsed, plan, boards);
            self.block = lines.len();
            self.write(&(lines.join("\n") + "\n"));
        } else {
            self.write(&(line(elapsed, boards) + "\n"));
        }
    }

    /// Removes the block.
    pub(crate) fn clear(&mut self) {
        if self.block > 0 {
            self.write(&format!("\x1b[{}A\x1b[J", self.block));
            self.block = 0;
        }
    }

    fn write(&mut self, text: &str) {
        // Nobody watches a closed stream.
        let _closed = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
    }
}

/// One line for the whole network.
fn line(elapsed: Duration, boards: &[NodeBoard]) -> String {
    let mut text = format!("{:6.1} s", elapsed.as_secs_f64());
    if let Some(at) = board::position(boards) {
        let _infallible = write!(text, " epoch {} step {}/{} {}", at.epoch, at.step, at.total_steps, at.phase);
        let _infallible = write!(text, " clients {}", at.clients);
    }
    if let Some((_, loss)) = board::losses(boards).last_key_value() {
        let _infallible = write!(text, " loss {loss:.3}");
    }
    let tokens = boards.iter().filter_map(|node| node.tokens_per_second).fold(0.0, |sum, tokens| sum + tokens);
    let _infallible = write!(text, " {tokens:.0} tokens/s");
    if let Some((step, digest)) = boards.iter().filter_map(NodeBoard::newest_digest).max_by_key(|(step, _)| *step) {
        let equal = if board::disagreements(boards).is_empty() { "equal" } else { "DIFFERENT" };
        let _infallible = write!(text, " digest {step}:{} {equal}", digest.short());
    }
    // The worst connected node is the one to know of.
    if let Some(peers) = boards.iter().filter(|node| node.address.is_some()).map(|node| node.peers).min() {
        let _infallible = write!(text, " peers {peers}");
    }
    let points: u64 = boards.iter().map(|node| node.earned.0).sum();
    let _infallible = write!(text, " points {points}");
    text
}

/// The line for the whole network and one for each node.
fn block(elapsed: Duration, plan: &[NodePlan], boards: &[NodeBoard]) -> Vec<String> {
    let nodes = plan.iter().zip(boards).map(|(plan, node)| node_line(plan, node));
    std::iter::once(line(elapsed, boards)).chain(nodes).map(|text| text.chars().take(COLUMNS_MAX).collect()).collect()
}

fn node_line(plan: &NodePlan, node: &NodeBoard) -> String {
    let mut text = format!("  node {} {}x{}", plan.number, plan.dp, plan.tp);
    if node.address.is_none() {
        text.push_str(if plan.late { " comes later" } else { " starts" });
        return text;
    }
    if let Some((step, trained)) = node.trained.last_key_value() {
        let _infallible = write!(text, " step {step} loss {:.3}", trained.loss);
    } else if node.model.is_some() {
        text.push_str(" waits for its first batch");
    } else {
        text.push_str(" has no model yet");
    }
    if let Some(tokens) = node.tokens_per_second {
        let _infallible = write!(text, " {tokens:.0} tokens/s");
    }
    if let Some((step, digest)) = node.newest_digest() {
        let _infallible = write!(text, " digest {step}:{}", digest.short());
    }
    let _infallible = write!(text, " peers {} points {} claimed {}", node.peers, node.earned, node.claimed);
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use std::path::PathBuf;

    use psyche_messages::{Digest, Epoch, NodeEvent, Phase, Points, Step};

    use super::*;

    fn plan() -> Vec<NodePlan> {
        let node = |number, late| NodePlan { number, dp: 2, tp: 1, late, folder: PathBuf::new() };
        vec![node(1, false), node(2, true)]
    }

    fn boards() -> Vec<NodeBoard> {
        let mut first = NodeBoard { address: Some("a".to_owned()), ..NodeBoard::default() };
        let (epoch, step) = (Epoch(1), Step(7));
        let events = [
            NodeEvent::PhaseChanged {
                epoch,
                step,
                phase: Phase::RoundTrain,
                slot: 3.into(),
                since: 4.into(),
                clients: 2,
                total_steps: 40,
            },
            NodeEvent::StepTrained { epoch, step, loss: 6.25, samples: 4, tokens_per_second: 1234.4, payload_bytes: 9 },
            NodeEvent::StepApplied { epoch, step: Step(5), results: 2, digest: Digest([0xab; 32]) },
            NodeEvent::PeersChanged { connected: 1 },
            NodeEvent::PointsChanged { earned: Points(30), claimed: Points(10) },
        ];
        for event in events {
            first.apply(event);
        }
        vec![first, NodeBoard::default()]
    }

    fn progress(terminal: bool) -> Progress<Vec<u8>> {
        Progress { out: Vec::new(), terminal, started: Instant::now(), last: None, block: 0 }
    }

    #[test]
    fn the_line_says_where_the_run_stands() {
        let text = line(Duration::from_millis(1_500), &boards());
        let expected = "   1.5 s epoch 1 step 7/40 RoundTrain clients 2 loss 6.250 1234 tokens/s digest 5:abababab equal peers 1 points 30";
        assert_eq!(text, expected);
    }

    #[test]
    fn the_block_has_a_line_for_each_node() {
        let lines = block(Duration::ZERO, &plan(), &boards());
        assert_eq!(lines[1], "  node 1 2x1 step 7 loss 6.250 1234 tokens/s digest 5:abababab peers 1 points 30 claimed 10");
        assert_eq!(lines[2], "  node 2 2x1 comes later");
    }

    #[test]
    fn away_from_a_terminal_lines_are_rare_and_plain() {
        let mut progress = progress(false);
        let start = progress.started;
        for ms in [0, 500, 1_999, 2_000, 2_100] {
            progress.show(start + Duration::from_millis(ms), &plan(), &boards());
        }
        progress.say("node 2 joined");
        let text = String::from_utf8(progress.out).unwrap();
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(!text.contains('\x1b'), "{text}");
    }

    #[test]
    fn on_a_terminal_the_block_replaces_the_last_one() {
        let mut progress = progress(true);
        let start = progress.started;
        progress.show(start, &plan(), &boards());
        progress.show(start + BLOCK_EVERY, &plan(), &boards());
        progress.clear();
        let text = String::from_utf8(progress.out).unwrap();
        assert_eq!(text.matches("\x1b[3A\x1b[J").count(), 2, "{text:?}");
    }
}
