//! What both kinds of picture are made of. The colours are three that can be read on light and on dark backgrounds, and
//! badges that bring their own; everything that they say is said in words as well.

use psyche_actors::telemetry::EndpointReport;
use ratatui_core::layout::Rect;
use ratatui_core::style::{Color, Modifier, Style};
use ratatui_core::terminal::Frame;
use ratatui_core::text::{Line, Span};
use ratatui_widgets::paragraph::Paragraph;
use ratatui_widgets::sparkline::Sparkline;

use super::name;
use crate::tui::view::{Pane, View};
use crate::tui::words::{LINE_MAX, clean, elided, heights, moment, resampled};

/// What a colour means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    Good,
    Bad,
    Warning,
    /// Nothing but that it is something else.
    Other,
}

pub(super) fn coloured(view: &View, mood: Mood) -> Style {
    match mood {
        _ if !view.coloured => Style::new(),
        Mood::Good => Style::new().fg(Color::Green),
        Mood::Bad => Style::new().fg(Color::Red),
        Mood::Warning => badge(view, mood),
        Mood::Other => Style::new().fg(Color::Magenta),
    }
}

/// A piece of text on a ground of its own.
pub(super) fn badge(view: &View, mood: Mood) -> Style {
    match mood {
        _ if !view.coloured => bold(Style::new()),
        Mood::Bad => bold(Style::new().fg(Color::White).bg(Color::Red)),
        Mood::Good | Mood::Warning | Mood::Other => Style::new().fg(Color::Black).bg(Color::Yellow),
    }
}

pub(super) fn bold(style: Style) -> Style {
    style.add_modifier(Modifier::BOLD)
}

pub(super) fn dim() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

/// The lines of a pane, as far as it is scrolled and as many as there is room for.
pub(super) fn scrolled(frame: &mut Frame<'_>, view: &View, which: Pane, lines: Vec<Line<'static>>, area: Rect) {
    let height = usize::from(area.height);
    let skip = view.scrolled(which, lines.len(), height);
    frame.render_widget(Paragraph::new(lines.into_iter().skip(skip).take(height).collect::<Vec<_>>()), area);
}

/// A line of a log: when, how bad, what.
pub(super) fn event(view: &View, line: &str, width: usize) -> Line<'static> {
    let told = moment(line);
    let level = match told.level {
        "ERROR" => Some(("ERROR", badge(view, Mood::Bad))),
        "WARN" => Some(("WARN", badge(view, Mood::Warning))),
        _ => None,
    };
    let mut spans = vec![Span::styled(clean(told.time, LINE_MAX), dim())];
    if let Some((word, style)) = level {
        spans.extend([Span::raw(" "), Span::styled(word, style)]);
    }
    if !told.time.is_empty() {
        spans.push(Span::raw(" "));
    }
    let used: usize = spans.iter().map(|span| span.content.chars().count()).sum();
    let text: String = clean(told.text, LINE_MAX).chars().skip(view.sideways).collect();
    spans.push(Span::raw(elided(&text, width.saturating_sub(used))));
    Line::from(spans)
}

/// All values, as means of as many as it takes to fit, the newest one at the right edge.
pub(super) fn curve(frame: &mut Frame<'_>, style: Style, values: impl Iterator<Item = f32>, area: Rect) {
    let values = resampled(&values.collect::<Vec<_>>(), usize::from(area.width));
    frame.render_widget(Sparkline::default().data(heights(&values)).max(1000).style(style), area);
}

/// An endpoint of the chain.
pub(super) fn endpoint(view: &View, one: &EndpointReport) -> [Line<'static>; 2] {
    let (word, style) = if one.up { ("answers", bold(coloured(view, Mood::Good))) } else { ("rests", badge(view, Mood::Bad)) };
    let first = if one.first { "> " } else { "  " };
    let latency = one.latency_ms.map_or_else(|| "– ms".to_owned(), |ms| format!("{ms} ms"));
    let lag = one.slot_lag.map_or_else(String::new, |lag| format!(", {lag} slots behind"));
    [
        Line::from(vec![Span::raw(first), Span::styled(word, style), Span::raw(format!(" {}", name(&one.endpoint)))]),
        Line::from(format!("  {latency}{lag}, {} failed", share(one.errors, one.requests))),
    ]
}

/// How many of all, in hundredths where there are many.
fn share(some: u64, all: u64) -> String {
    if all < 100 {
        return format!("{some}/{all}");
    }
    let tenths = u128::from(some) * 1000 / u128::from(all);
    format!("{}.{} %", tenths / 10, tenths % 10)
}
