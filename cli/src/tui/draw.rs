//! Draws a node's report. A pure function of it, the view and the lines of the log.

use psyche_actors::telemetry::{EndpointReport, NodeReport, PeerReport};
use psyche_messages::Phase;
use ratatui_core::layout::{Constraint, Layout, Rect};
use ratatui_core::style::{Color, Modifier, Style};
use ratatui_core::terminal::Frame;
use ratatui_core::text::{Line, Span};
use ratatui_widgets::block::Block;
use ratatui_widgets::clear::Clear;
use ratatui_widgets::gauge::LineGauge;
use ratatui_widgets::paragraph::Paragraph;
use ratatui_widgets::sparkline::Sparkline;

use super::view::{Pane, View};
use super::words::{NAME_MAX, bytes, clean, heights, percent, sol, time};

/// Sizes from which on all panes are shown; on a smaller screen only the chosen one is.
const WIDTH_MIN: u16 = 60;
const HEIGHT_MIN: u16 = 18;
const LINE_MAX: usize = 400;

const HELP: [&str; 8] = [
    "q, Ctrl-C   leave: finish the micro-batch, save, say goodbye",
    "            again: leave at once",
    "Tab, 1-4    choose a pane",
    "arrows      scroll it, also Page Up and Page Down",
    "Ctrl-Z      suspend; fg goes on",
    "?           this help",
    "",
    "A small terminal shows the chosen pane only.",
];

/// Draws all of it; `log` has the oldest line first.
pub(super) fn draw(frame: &mut Frame<'_>, view: &View, report: Option<&NodeReport>, log: &[String]) {
    let area = frame.area();
    let [head, phase, gauge, body, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(title(view, report)), head);
    frame.render_widget(Paragraph::new(phase_line(view, report)), phase);
    if let Some(report) = report {
        progress(frame, view, report, gauge);
    }
    if area.width < WIDTH_MIN || area.height < HEIGHT_MIN {
        pane(frame, view, view.focus, report, log, body);
    } else {
        let peers = report.map_or(0, |report| report.peer_list.len());
        let peers = u16::try_from(peers).unwrap_or(u16::MAX).clamp(2, (body.height / 4).max(2)).saturating_add(2);
        let upper = if body.height > 30 { 13 } else { 9 };
        let [upper, peers, events] =
            Layout::vertical([Constraint::Length(upper), Constraint::Length(peers), Constraint::Fill(1)]).areas(body);
        let [left, right] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(upper);
        for (which, place) in [(Pane::Training, left), (Pane::Chain, right), (Pane::Peers, peers), (Pane::Events, events)] {
            pane(frame, view, which, report, log, place);
        }
    }
    let foot_text = view.banner.as_deref().unwrap_or("q leave   Tab 1-4 panes   arrows scroll   ? help");
    let style = if view.banner.is_some() { bold(coloured(view, Color::Yellow)) } else { dim() };
    frame.render_widget(Paragraph::new(Span::styled(clean(foot_text, LINE_MAX), style)), foot);
    if view.help {
        help(frame, area);
    }
}

fn coloured(view: &View, colour: Color) -> Style {
    if view.coloured { Style::new().fg(colour) } else { Style::new() }
}

fn bold(style: Style) -> Style {
    style.add_modifier(Modifier::BOLD)
}

fn dim() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

fn title(view: &View, report: Option<&NodeReport>) -> Line<'static> {
    let Some(report) = report else { return Line::from(Span::styled("psyche  starting", bold(Style::new()))) };
    let ready = &report.readiness;
    let state = coloured(view, if ready.ready { Color::Green } else { Color::Yellow });
    let mut spans = vec![
        Span::styled(clean(&report.run_id, NAME_MAX), bold(Style::new())),
        Span::raw("  "),
        Span::styled(clean(&ready.state, NAME_MAX), bold(state)),
    ];
    if !ready.ready {
        let why: Vec<_> = ready.problems.iter().map(|problem| problem.problem.as_str()).take(3).collect();
        spans.push(Span::styled(format!(" (not ready: {})", clean(&why.join("; "), 200)), state));
    }
    let (up, version) = (time(report.uptime_seconds), clean(&report.version, NAME_MAX));
    spans.push(Span::styled(format!("  up {up}  version {version}"), dim()));
    Line::from(spans)
}

fn phase_line(view: &View, report: Option<&NodeReport>) -> Line<'static> {
    let known = report.and_then(|report| Some((report, report.phase?)));
    let Some((report, phase)) = known else { return Line::from("the run's state was not seen yet") };
    let mut text = String::new();
    match (report.phase_left_seconds, phase) {
        // It ends early where all results are there.
        (Some(left), Phase::RoundTrain | Phase::Warmup) => text.push_str(&format!("  at most {} left", time(left))),
        (Some(left), _) => text.push_str(&format!("  {} left", time(left))),
        (None, _) => {}
    }
    if let Some(epoch) = report.epoch {
        text.push_str(&format!("  epoch {epoch}"));
    }
    if let Some(round) = report.round {
        text.push_str(&format!("  round {}", u64::from(round) + 1));
    }
    if let (Some(step), Some(of)) = (report.step, report.total_steps) {
        text.push_str(&format!("  step {step} of {of}"));
    }
    if let Some(clients) = report.clients {
        text.push_str(&format!("  {clients} clients"));
    }
    Line::from(vec![Span::styled(phase.to_string(), bold(coloured(view, Color::Cyan))), Span::raw(text)])
}

fn progress(frame: &mut Frame<'_>, view: &View, report: &NodeReport, area: Rect) {
    let (Some(step), Some(of)) = (report.step, report.total_steps) else { return };
    let done = f64::from(step.0) / f64::from(of.max(1));
    let gauge = LineGauge::default().ratio(done.clamp(0.0, 1.0)).filled_style(coloured(view, Color::Cyan));
    frame.render_widget(gauge, area);
}

fn pane(frame: &mut Frame<'_>, view: &View, which: Pane, report: Option<&NodeReport>, log: &[String], area: Rect) {
    let name = match which {
        Pane::Training => "1 training",
        Pane::Chain => "2 chain",
        Pane::Peers => "3 peers",
        Pane::Events => "4 events",
    };
    let chosen = view.focus == which;
    let style = if chosen { bold(coloured(view, Color::Cyan)) } else { dim() };
    let block = Block::bordered().border_style(style).title(Span::styled(name, style));
    let inside = block.inner(area);
    frame.render_widget(block, area);
    let scroll = view.scroll.get(which.index()).copied().unwrap_or(0);
    let height = usize::from(inside.height);
    match (which, report) {
        (Pane::Events, _) => {
            let last = log.len().saturating_sub(scroll.min(log.len().saturating_sub(height)));
            let lines = log.iter().take(last).skip(last.saturating_sub(height)).map(|line| event(view, line));
            frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()), inside);
        }
        (Pane::Training, Some(report)) => training(frame, view, report, inside),
        (Pane::Chain, Some(report)) => scrolled(frame, chain(view, report), scroll, inside),
        (Pane::Peers, Some(report)) => scrolled(frame, peers(view, report), scroll, inside),
        (_, None) => {}
    }
}

/// The lines from `scroll` on, as many as there is room for; never past the end.
fn scrolled(frame: &mut Frame<'_>, lines: Vec<Line<'static>>, scroll: usize, area: Rect) {
    let height = usize::from(area.height);
    let skip = scroll.min(lines.len().saturating_sub(height));
    frame.render_widget(Paragraph::new(lines.into_iter().skip(skip).take(height).collect::<Vec<_>>()), area);
}

fn event(view: &View, line: &str) -> Line<'static> {
    let text = clean(line, LINE_MAX);
    let style = if text.contains("ERROR") {
        bold(coloured(view, Color::Red))
    } else if text.contains("WARN") || text.contains("  warning") {
        coloured(view, Color::Yellow)
    } else {
        Style::new()
    };
    Line::from(Span::styled(text, style))
}

fn training(frame: &mut Frame<'_>, view: &View, report: &NodeReport, area: Rect) {
    let devices: Vec<Line<'static>> = report
        .devices
        .iter()
        .map(|device| {
            let mut text = format!("{} × {}", clean(&device.device, NAME_MAX), device.ranks);
            if let (Some(used), Some(of)) = (device.memory_used_bytes, device.memory_bytes) {
                text.push_str(&format!(" {} of {}", bytes(used), bytes(of)));
            }
            if let Some(share) = device.utilisation {
                text.push_str(&format!(" {} busy", percent(share)));
            }
            Line::from(text)
        })
        .collect();
    let listed = u16::try_from(devices.len()).unwrap_or(u16::MAX).min((area.height / 3).max(1));
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
        (None, _) => "no batch was trained yet".to_owned(),
    };
    frame.render_widget(Paragraph::new(text), loss_text);
    curve(frame, coloured(view, Color::Green), report.history.iter().map(|batch| batch.loss), loss);
    if let Some(now) = report.tokens_per_second {
        frame.render_widget(Paragraph::new(format!("{now:.0} tokens/s")), speed_text);
    }
    curve(frame, coloured(view, Color::Blue), report.history.iter().map(|batch| batch.tokens_per_second), speed);
    let scroll = view.scroll.first().copied().unwrap_or(0);
    scrolled(frame, devices, scroll, below);
}

/// The newest values, the last one at the right edge of what is drawn.
fn curve(frame: &mut Frame<'_>, style: Style, values: impl Iterator<Item = f32> + Clone, area: Rect) {
    let skip = values.clone().count().saturating_sub(usize::from(area.width));
    frame.render_widget(Sparkline::default().data(heights(values.skip(skip))).max(1000).style(style), area);
}

fn chain(view: &View, report: &NodeReport) -> Vec<Line<'static>> {
    let (earned, claimed, claimable) = (report.earned, report.claimed, report.claimable);
    let mut lines = vec![Line::from(vec![
        Span::raw("points "),
        Span::styled(format!("{earned} earned, {claimable} claimable"), bold(coloured(view, Color::Green))),
        Span::raw(format!(", {claimed} claimed")),
    ])];
    let balance = report.lamports.map_or_else(|| "not read yet".to_owned(), sol);
    let address = clean(&report.address.to_string(), NAME_MAX);
    lines.push(Line::from(format!("wallet {balance}  {address}")));
    let slot = report.slot.map_or_else(|| "no slot was seen yet".to_owned(), |slot| format!("slot   {slot}"));
    lines.push(Line::from(slot));
    for one in &report.endpoints {
        lines.extend(endpoint(view, one));
    }
    let down = report.actors.iter().filter(|actor| actor.restarts > 0 || actor.up < actor.of);
    lines.extend(down.map(|actor| {
        let text =
            format!("actor {}: {} of {} run, {} restarts", clean(&actor.actor, NAME_MAX), actor.up, actor.of, actor.restarts);
        Line::from(Span::styled(text, coloured(view, Color::Yellow)))
    }));
    lines
}

fn endpoint(view: &View, one: &EndpointReport) -> [Line<'static>; 2] {
    let (word, colour) = if one.up { ("answers", Color::Green) } else { ("rests", Color::Red) };
    let first = if one.first { "> " } else { "  " };
    let latency = one.latency_ms.map_or_else(|| "? ms".to_owned(), |ms| format!("{ms} ms"));
    let lag = one.slot_lag.map_or_else(String::new, |lag| format!(", {lag} slots behind"));
    [
        Line::from(vec![
            Span::raw(format!("{first}{}  ", clean(&one.endpoint, NAME_MAX))),
            Span::styled(word, bold(coloured(view, colour))),
        ]),
        Line::from(format!("  {latency}{lag}, {}/{} failed", one.errors, one.requests)),
    ]
}

fn peers(view: &View, report: &NodeReport) -> Vec<Line<'static>> {
    if report.peer_list.is_empty() {
        return vec![Line::from("no peer was seen yet")];
    }
    // Who is here comes first.
    let (here, gone): (Vec<_>, Vec<_>) = report.peer_list.iter().partition(|peer| peer.connected);
    here.into_iter().chain(gone).map(|one| peer(view, one)).collect()
}

fn peer(view: &View, one: &PeerReport) -> Line<'static> {
    let name: String = clean(&one.peer.to_string(), 12);
    let (state, colour) = match (one.connected, one.member, one.relayed) {
        (false, ..) => ("gone", Color::DarkGray),
        (true, _, true) => ("relayed", Color::Yellow),
        (true, true, false) => ("member", Color::Green),
        (true, false, false) => ("guest", Color::Blue),
    };
    let agrees = match (one.agrees, one.compared_step) {
        (Some(true), Some(step)) => format!("same bits at {step}"),
        (Some(false), Some(step)) => format!("OTHER BITS at {step}"),
        _ => "not compared".to_owned(),
    };
    let rate = view.rates.get(&one.peer).copied().unwrap_or_default();
    let (down, up) = (bytes(rate.received), bytes(rate.sent));
    let text = format!("  {agrees:<18}  in {down}/s ({})  out {up}/s ({})", bytes(one.bytes_received), bytes(one.bytes_sent));
    let warns = one.agrees == Some(false);
    let style = if warns { bold(coloured(view, Color::Red)) } else { Style::new() };
    Line::from(vec![
        Span::raw(format!("{name:<12}  ")),
        Span::styled(format!("{state:<7}"), coloured(view, colour)),
        Span::styled(text, style),
    ])
}

fn help(frame: &mut Frame<'_>, area: Rect) {
    let width = 64.min(area.width);
    let height = 10.min(area.height);
    let place = Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    frame.render_widget(Clear, place);
    let lines: Vec<Line<'static>> = HELP.iter().map(|line| Line::from(*line)).collect();
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title("keys")), place);
}
