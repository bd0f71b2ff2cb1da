//! A node, as it says of itself.

use psyche_actors::telemetry::{DeviceReport, NodeReport, PeerReport};
use ratatui_core::layout::{Constraint, Layout, Rect};
use ratatui_core::style::Style;
use ratatui_core::terminal::Frame;
use ratatui_core::text::{Line, Span};
use ratatui_widgets::paragraph::Paragraph;

use super::name;
use super::parts::{Mood, badge, bold, coloured, curve, dim, endpoint, scrolled};
use crate::tui::view::{Pane, View};
use crate::tui::words::{bytes, bytes_of, clean, percent, short, sol, time};

/// Width of the peers from which on their totals are shown.
const WIDE: u16 = 112;
/// Width below which only the most important things of a peer are shown.
const NARROW: u16 = 74;

pub(super) fn title(view: &View, report: &NodeReport) -> Line<'static> {
    let ready = &report.readiness;
    let mut spans = vec![Span::styled(name(&report.run_id), bold(Style::new())), Span::raw("  ")];
    if ready.ready {
        spans.push(Span::styled(name(&ready.state), bold(coloured(view, Mood::Good))));
    } else {
        let why: Vec<_> = ready.problems.iter().map(|problem| problem.problem.as_str()).take(3).collect();
        spans.push(Span::styled(name(&ready.state), badge(view, Mood::Warning)));
        if !why.is_empty() {
            spans.push(Span::raw(format!(" not ready: {}", clean(&why.join("; "), 200))));
        }
    }
    let (up, version) = (time(report.uptime_seconds), name(&report.version));
    spans.push(Span::styled(format!("  up {up}  version {version}"), dim()));
    Line::from(spans)
}

pub(super) fn training(frame: &mut Frame<'_>, view: &View, report: &NodeReport, area: Rect) {
    let listed = u16::try_from(report.devices.len()).unwrap_or(u16::MAX).clamp(1, (area.height / 3).max(1));
    let [loss_text, loss, speed_text, speed, below] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Fill(2),
        Constraint::Length(1),
        Constraint::Fill(1),
        Constraint::Length(listed),
    ])
    .areas(area);
    let first = report.history.first().map(|batch| batch.loss);
    let text = match (report.loss, first) {
        (Some(now), Some(first)) => format!("loss {now:.4}  (was {first:.4})  {} batches", report.steps_trained),
        (Some(now), None) => format!("loss {now:.4}"),
        (None, _) => "loss –  no batch was trained yet".to_owned(),
    };
    frame.render_widget(Paragraph::new(text), loss_text);
    curve(frame, coloured(view, Mood::Good), report.history.iter().map(|batch| batch.loss), loss);
    if let Some(now) = report.tokens_per_second {
        frame.render_widget(Paragraph::new(format!("{now:.0} tokens/s")), speed_text);
    }
    curve(frame, coloured(view, Mood::Other), report.history.iter().map(|batch| batch.tokens_per_second), speed);
    scrolled(frame, view, Pane::Training, report.devices.iter().map(device).collect(), below);
}

/// What is not known of a device is a dash.
fn device(device: &DeviceReport) -> Line<'static> {
    let memory = bytes_of(device.memory_used_bytes, device.memory_bytes);
    let busy = device.utilisation.map_or_else(|| "–".to_owned(), percent);
    Line::from(format!("{} ×{}  {memory}  {busy} busy", name(&device.device), device.ranks))
}

pub(super) fn chain(view: &View, report: &NodeReport) -> Vec<Line<'static>> {
    let (earned, claimed, claimable) = (report.earned, report.claimed, report.claimable);
    let mut lines = vec![
        Line::from(vec![Span::raw("points "), Span::styled(format!("{earned} earned"), bold(coloured(view, Mood::Good)))]),
        Line::from(format!("       {claimable} claimable, {claimed} claimed")),
    ];
    let balance = report.lamports.map_or_else(|| "not read yet".to_owned(), sol);
    lines.push(Line::from(format!("wallet {balance}  {}", short(&report.address.to_string()))));
    for one in &report.endpoints {
        lines.extend(endpoint(view, one));
    }
    let down = report.actors.iter().filter(|actor| actor.restarts > 0 || actor.up < actor.of);
    lines.extend(down.map(|actor| {
        let text = format!("actor {}: {} of {} run, {} restarts", name(&actor.actor), actor.up, actor.of, actor.restarts);
        Line::from(Span::styled(text, badge(view, Mood::Warning)))
    }));
    lines
}

pub(super) fn peers(view: &View, report: &NodeReport, width: u16) -> Vec<Line<'static>> {
    if report.peer_list.is_empty() {
        return vec![Line::from("no peer was seen yet")];
    }
    // Who is here comes first.
    let (here, gone): (Vec<_>, Vec<_>) = report.peer_list.iter().partition(|peer| peer.connected);
    here.into_iter().chain(gone).map(|one| peer(view, one, width)).collect()
}

fn peer(view: &View, one: &PeerReport, width: u16) -> Line<'static> {
    let (state, style) = match (one.connected, one.member, one.relayed) {
        (false, ..) => ("gone", dim()),
        (true, _, true) => ("relayed", coloured(view, Mood::Other)),
        (true, true, false) => ("member", coloured(view, Mood::Good)),
        (true, false, false) => ("guest", Style::new()),
    };
    let (agrees, warning) = match (one.agrees, one.compared_step) {
        (Some(true), Some(step)) => (format!("same bits at {step}"), Style::new()),
        (Some(false), Some(step)) => (format!("OTHER BITS at {step}"), badge(view, Mood::Bad)),
        _ => ("not compared".to_owned(), dim()),
    };
    let rate = view.rates.get(&one.peer).copied().unwrap_or_default();
    let (down, up) = (bytes(rate.received) + "/s", bytes(rate.sent) + "/s");
    let peer = one.peer.to_string();
    if width < NARROW {
        let differs = one.agrees == Some(false);
        return Line::from(vec![
            Span::raw(clean(&peer, 6) + " "),
            Span::styled(format!("{state:<7} "), style),
            Span::styled(if differs { agrees } else { String::new() }, warning),
            Span::raw(format!("in {down} out {up}")),
        ]);
    }
    let mut text = format!("  in {down:>12}  out {up:>12}");
    if width >= WIDE {
        text.push_str(&format!("  received {:>10}, sent {:>10}", bytes(one.bytes_received), bytes(one.bytes_sent)));
    }
    Line::from(vec![
        Span::raw(format!("{:<10}  ", clean(&peer, 10))),
        Span::styled(format!("{state:<7}"), style),
        Span::raw("  "),
        Span::styled(format!("{agrees:<18}"), warning),
        Span::raw(text),
    ])
}
