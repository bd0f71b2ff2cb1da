//! A run, as the chain says.

use ratatui_core::layout::{Constraint, Layout, Rect};
use ratatui_core::style::Style;
use ratatui_core::terminal::Frame;
use ratatui_core::text::{Line, Span};
use ratatui_widgets::paragraph::Paragraph;

use super::name;
use super::parts::{Mood, badge, bold, coloured, curve, dim, endpoint, scrolled};
use crate::run_report::{MemberReport, RunReport};
use crate::tui::subject::WatchedRun;
use crate::tui::view::{Pane, View};
use crate::tui::words::{short, time};

/// Width of the clients from which on their whole addresses are shown.
const WIDE: u16 = 90;

pub(super) fn title(report: &RunReport) -> Line<'static> {
    Line::from(vec![
        Span::styled(name(report.run_id.as_str()), bold(Style::new())),
        Span::raw("  on chain"),
        Span::styled(format!("  for clients of version {}", name(&report.client_version)), dim()),
    ])
}

/// How fast it goes, and what it asks of its clients.
pub(super) fn training(frame: &mut Frame<'_>, view: &View, run: &WatchedRun, area: Rect) {
    let report = &run.report;
    let [speed_text, speed, below] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Fill(1),
        Constraint::Length(area.height.saturating_sub(2).min(4)),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(pace(run)), speed_text);
    curve(frame, coloured(view, Mood::Other), run.speed.iter().copied(), speed);
    let left = report.epoch_left_s.map_or_else(|| "–".to_owned(), time);
    let lines = vec![
        Line::from(format!("epoch   {left} left")),
        Line::from(format!("clients at least {}, {} wait to join", report.min_clients, report.pending)),
        Line::from(format!("batch   {} samples a step", report.batch_samples)),
        Line::from(format!("pays    {} points an epoch", report.epoch_points)),
    ];
    scrolled(frame, view, Pane::Training, lines, below);
}

/// Steps a minute over what was watched, and how long the rest takes at that speed.
fn pace(run: &WatchedRun) -> String {
    let measured: Vec<f32> = run.speed.iter().copied().filter(|speed| speed.is_finite()).collect();
    if measured.is_empty() {
        return "speed is measured while it is watched".to_owned();
    }
    #[expect(clippy::cast_precision_loss, reason = "a few hundred values")]
    let mean = measured.iter().sum::<f32>() / measured.len() as f32;
    let rest = f64::from(run.report.total_steps.saturating_sub(run.report.step.0));
    if mean <= 0.0 {
        return "0 steps/min".to_owned();
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive number of seconds; it saturates")]
    let seconds = (rest / f64::from(mean) * 60.0) as u64;
    format!("{mean:.1} steps/min, {} to go", time(seconds))
}

pub(super) fn chain(view: &View, report: &RunReport) -> Vec<Line<'static>> {
    let mut lines = vec![Line::from(format!("account {}", short(&report.account.to_string())))];
    for one in &report.endpoints {
        lines.extend(endpoint(view, one));
    }
    lines
}

pub(super) fn members(view: &View, report: &RunReport, width: u16) -> Vec<Line<'static>> {
    if report.members.is_empty() {
        return vec![Line::from("nobody has joined")];
    }
    report.members.iter().map(|one| member(view, one, width)).collect()
}

fn member(view: &View, one: &MemberReport, width: u16) -> Line<'static> {
    let style = match one.state.as_str() {
        "healthy" => coloured(view, Mood::Good),
        "waiting" => Style::new(),
        _ => badge(view, Mood::Warning),
    };
    let address = one.address.to_string();
    let address = if width < WIDE { short(&address) } else { address };
    let slashed = if one.slashed.0 > 0 { format!(", {} slashed", one.slashed) } else { String::new() };
    Line::from(vec![
        Span::raw(format!("{address}  ")),
        Span::styled(format!("{:<9}", name(&one.state)), style),
        Span::raw(format!("  {} points{slashed}", one.earned)),
    ])
}
