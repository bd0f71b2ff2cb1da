//! Draws a look. A pure function of it, the view and the lines of the log.

mod node;
mod parts;
mod run;

use ratatui_core::layout::{Constraint, Layout, Rect};
use ratatui_core::style::Style;
use ratatui_core::terminal::Frame;
use ratatui_core::text::{Line, Span};
use ratatui_widgets::block::Block;
use ratatui_widgets::clear::Clear;
use ratatui_widgets::gauge::LineGauge;
use ratatui_widgets::paragraph::Paragraph;

use super::subject::{Look, Subject};
use super::view::{Pane, View};
use super::words::{LINE_MAX, NAME_MAX, clean, time};
use parts::{Mood, badge, bold, coloured, dim, event, scrolled};
use psyche_messages::Phase;

/// Sizes from which on all panes are shown; on a smaller screen only the chosen one is.
const WIDTH_MIN: u16 = 60;
const HEIGHT_MIN: u16 = 18;
/// Height of what is below the head from which on the upper panes are taller.
const TALL: u16 = 30;

const KEYS: [&str; 6] = [
    "Tab, 1-4   choose a pane; a small",
    "           terminal shows only that",
    "arrows     scroll it",
    "PgUp PgDn  Home End  likewise",
    "Ctrl-Z     suspend; fg goes on",
    "?          this help",
];
const LEAVE_A_NODE: [&str; 2] = ["q Ctrl-C   leave: save, say goodbye", "           again: leave at once"];
const LEAVE_A_WATCH: [&str; 1] = ["q Ctrl-C   stop watching"];
/// Width of the help.
const HELP_WIDTH: u16 = 40;

/// Draws all of it; `log` has the oldest line first.
pub(super) fn draw(frame: &mut Frame<'_>, view: &View, look: &Look, log: &[String]) {
    let area = frame.area();
    let [head, phase, gauge, body, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(area);
    let subject = look.subject.as_ref();
    let title = match subject {
        None => Line::from(Span::styled("psyche  starting", bold(Style::new()))),
        Some(Subject::Node(report)) => node::title(view, report),
        Some(Subject::Run(run)) => run::title(&run.report),
    };
    frame.render_widget(Paragraph::new(title), head);
    frame.render_widget(Paragraph::new(phase_line(subject)), phase);
    progress(frame, view, subject, gauge);
    let events = look.events.as_deref().unwrap_or(log);
    for (which, place) in places(area, body, subject) {
        pane(frame, view, which.unwrap_or(view.focus), subject, events, place);
    }
    frame.render_widget(Paragraph::new(foot_line(view, look)), foot);
    if view.help {
        help(frame, view, area);
    }
}

/// The panes that there is room for, and where; none stands for the chosen one.
fn places(area: Rect, body: Rect, subject: Option<&Subject>) -> Vec<(Option<Pane>, Rect)> {
    if area.width < WIDTH_MIN || area.height < HEIGHT_MIN {
        return vec![(None, body)];
    }
    let peers = match subject {
        None => 0,
        Some(Subject::Node(report)) => report.peer_list.len(),
        Some(Subject::Run(run)) => run.report.members.len(),
    };
    let peers = u16::try_from(peers).unwrap_or(u16::MAX).clamp(2, (body.height / 4).max(2)).saturating_add(2);
    let upper = if body.height > TALL { 13 } else { 9 };
    let [upper, peers, events] =
        Layout::vertical([Constraint::Length(upper), Constraint::Length(peers), Constraint::Fill(1)]).areas(body);
    let [left, right] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(upper);
    let panes = [(Pane::Training, left), (Pane::Chain, right), (Pane::Peers, peers), (Pane::Events, events)];
    panes.map(|(pane, place)| (Some(pane), place)).to_vec()
}

/// What matters most comes first: the end may be cut off.
fn phase_line(subject: Option<&Subject>) -> Line<'static> {
    let Some(stand) = subject.and_then(Subject::stand) else { return Line::from("the run's state was not seen yet") };
    let mut text = String::new();
    match (stand.left_seconds, stand.phase) {
        // It ends early where all results are there.
        (Some(left), Phase::RoundTrain | Phase::Warmup) => text.push_str(&format!("  at most {} left", time(left))),
        (Some(left), _) => text.push_str(&format!("  {} left", time(left))),
        (None, _) => {}
    }
    if let (Some(step), Some(of)) = (stand.step, stand.total_steps) {
        text.push_str(&format!("  step {step} of {of}"));
    }
    if let Some(epoch) = stand.epoch {
        text.push_str(&format!("  epoch {epoch}"));
    }
    if let Some(round) = stand.round {
        text.push_str(&format!("  round {}", u64::from(round) + 1));
    }
    match stand.clients {
        Some(1) => text.push_str("  1 client"),
        Some(clients) => text.push_str(&format!("  {clients} clients")),
        None => {}
    }
    Line::from(vec![Span::styled(stand.phase.to_string(), bold(Style::new())), Span::raw(text)])
}

fn progress(frame: &mut Frame<'_>, view: &View, subject: Option<&Subject>, area: Rect) {
    let Some(stand) = subject.and_then(Subject::stand) else { return };
    let (Some(step), Some(of)) = (stand.step, stand.total_steps) else { return };
    let done = f64::from(step.0) / f64::from(of.max(1));
    let gauge = LineGauge::default().ratio(done.clamp(0.0, 1.0)).filled_style(coloured(view, Mood::Good));
    frame.render_widget(gauge.unfilled_style(dim()).filled_symbol("━").unfilled_symbol("─"), area);
}

fn pane(frame: &mut Frame<'_>, view: &View, which: Pane, subject: Option<&Subject>, events: &[String], area: Rect) {
    let slot = match subject {
        Some(Subject::Node(report)) => report.slot,
        Some(Subject::Run(run)) => Some(run.report.slot),
        None => None,
    };
    let name = match (which, subject, slot) {
        (Pane::Training, Some(Subject::Run(_)), _) => "1 run".to_owned(),
        (Pane::Training, ..) => "1 training".to_owned(),
        (Pane::Chain, _, Some(slot)) => format!("2 chain, slot {slot}"),
        (Pane::Chain, _, None) => "2 chain, no slot yet".to_owned(),
        (Pane::Peers, Some(Subject::Run(_)), _) => "3 clients".to_owned(),
        (Pane::Peers, ..) => "3 peers".to_owned(),
        (Pane::Events, ..) => "4 events".to_owned(),
    };
    let style = if view.focus == which { bold(Style::new()) } else { dim() };
    let block = Block::bordered().border_style(style).title(Span::styled(name, style));
    let inside = block.inner(area);
    frame.render_widget(block, area);
    let lines = match (which, subject) {
        (Pane::Events, _) => {
            let height = usize::from(inside.height);
            let last = events.len() - view.scrolled(which, events.len(), height);
            let shown = events.iter().take(last).skip(last.saturating_sub(height));
            let lines = shown.map(|line| event(view, line, usize::from(inside.width)));
            frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()), inside);
            return;
        }
        (Pane::Training, Some(Subject::Node(report))) => return node::training(frame, view, report, inside),
        (Pane::Training, Some(Subject::Run(run))) => return run::training(frame, view, run, inside),
        (Pane::Chain, Some(Subject::Node(report))) => node::chain(view, report),
        (Pane::Chain, Some(Subject::Run(run))) => run::chain(view, &run.report),
        (Pane::Peers, Some(Subject::Node(report))) => node::peers(view, report, inside.width),
        (Pane::Peers, Some(Subject::Run(run))) => run::members(view, &run.report, inside.width),
        (_, None) => return,
    };
    scrolled(frame, view, which, lines, inside);
}

/// What is wrong or going on, or else the keys.
fn foot_line(view: &View, look: &Look) -> Line<'static> {
    let said = look.problem.as_deref().or(view.banner.as_deref());
    let Some(said) = said else {
        let leave = if view.watches { "q stop watching" } else { "q leave" };
        return Line::from(Span::styled(format!("{leave}   ? help   Tab 1-4 panes   arrows scroll"), dim()));
    };
    Line::from(Span::styled(clean(said, LINE_MAX), badge(view, Mood::Warning)))
}

fn help(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let leave: &[&str] = if view.watches { &LEAVE_A_WATCH } else { &LEAVE_A_NODE };
    let lines: Vec<Line<'static>> = leave.iter().chain(&KEYS).map(|line| Line::from(*line)).collect();
    let width = HELP_WIDTH.min(area.width);
    let height = u16::try_from(lines.len() + 2).unwrap_or(u16::MAX).min(area.height);
    let place = Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    frame.render_widget(Clear, place);
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title("keys")), place);
}

/// A stranger's name in a line.
fn name(text: &str) -> String {
    clean(text, NAME_MAX)
}
