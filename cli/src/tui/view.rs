//! What the person at the terminal chose to see, and what follows from two looks at a node: rates.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use psyche_actors::telemetry::NodeReport;
use psyche_messages::PeerKey;
use ratatui_crossterm::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::words::LINE_MAX;

/// Time between two looks of which the rates of peers are the difference.
const RATE_WINDOW: Duration = Duration::from_secs(3);

/// Characters by which events move sideways.
const SIDEWAYS: usize = 10;

/// A part of the screen, by its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pane {
    /// Loss, speed, devices.
    Training,
    /// Points, wallet, endpoints.
    Chain,
    /// Peers.
    Peers,
    /// Events and logs.
    Events,
}

impl Pane {
    pub(super) const ALL: [Self; 4] = [Self::Training, Self::Chain, Self::Peers, Self::Events];

    pub(super) const fn index(self) -> usize {
        match self {
            Self::Training => 0,
            Self::Chain => 1,
            Self::Peers => 2,
            Self::Events => 3,
        }
    }
}

/// What a key asks for that the view can't do itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// To leave.
    Leave,
    /// To be suspended.
    Suspend,
}

/// Bytes a second from and to a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rate {
    pub(super) sent: u64,
    pub(super) received: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct View {
    pub(super) focus: Pane,
    pub(super) help: bool,
    pub(super) coloured: bool,
    /// Whether it only watches what goes on without it.
    pub(super) watches: bool,
    /// Characters of events that are left of the screen.
    pub(super) sideways: usize,
    /// Lines by which a pane is scrolled: from the top, and for events from the bottom.
    pub(super) scroll: [usize; 4],
    /// The most that a pane could be scrolled by when it was drawn.
    most: [Cell<usize>; 4],
    /// The newest event that was seen.
    newest: Option<String>,
    /// What is going on beside the run, such as why it waits for the end.
    pub(super) banner: Option<String>,
    pub(super) rates: BTreeMap<PeerKey, Rate>,
    before: Option<(Instant, BTreeMap<PeerKey, Rate>)>,
}

impl View {
    pub(super) fn new(coloured: bool, watches: bool) -> Self {
        let (rates, before, sideways) = (BTreeMap::new(), None, 0);
        let (scroll, most, newest) = ([0; 4], Default::default(), None);
        let (focus, help, banner) = (Pane::Events, false, None);
        Self { focus, help, coloured, watches, sideways, scroll, most, newest, banner, rates, before }
    }

    /// Follows a key; what it asks for otherwise.
    pub(super) fn key(&mut self, key: KeyEvent) -> Option<Asked> {
        if key.kind == KeyEventKind::Release {
            return None;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if control => return Some(Asked::Leave),
            KeyCode::Char('z') if control => return Some(Asked::Suspend),
            KeyCode::Char('q') => return Some(Asked::Leave),
            KeyCode::Char('?') => self.help = !self.help,
            KeyCode::Esc => self.help = false,
            KeyCode::Tab => self.turn(1),
            KeyCode::BackTab => self.turn(Pane::ALL.len() - 1),
            KeyCode::Char('1') => self.focus = Pane::Training,
            KeyCode::Char('2') => self.focus = Pane::Chain,
            KeyCode::Char('3') => self.focus = Pane::Peers,
            KeyCode::Char('4') => self.focus = Pane::Events,
            KeyCode::Up => self.move_by(1, true),
            KeyCode::PageUp => self.move_by(10, true),
            KeyCode::Down => self.move_by(1, false),
            KeyCode::PageDown => self.move_by(10, false),
            KeyCode::Home => self.move_by(usize::MAX, true),
            KeyCode::End => self.move_by(usize::MAX, false),
            KeyCode::Left => self.sideways = self.sideways.saturating_sub(SIDEWAYS),
            KeyCode::Right => self.sideways = (self.sideways + SIDEWAYS).min(LINE_MAX),
            _ => {}
        }
        None
    }

    fn turn(&mut self, by: usize) {
        let next = (self.focus.index() + by) % Pane::ALL.len();
        self.focus = Pane::ALL.get(next).copied().unwrap_or(Pane::Events);
    }

    fn move_by(&mut self, lines: usize, up: bool) {
        // Events begin at their end: up is away from it.
        let away = up == (self.focus == Pane::Events);
        let at = self.focus.index();
        if let (Some(scroll), Some(most)) = (self.scroll.get_mut(at), self.most.get(at)) {
            let from = (*scroll).min(most.get());
            *scroll = if away { from.saturating_add(lines).min(most.get()) } else { from.saturating_sub(lines) };
        }
    }

    /// By how many of its `lines` a pane with room for `height` is scrolled: never past the last one.
    pub(super) fn scrolled(&self, pane: Pane, lines: usize, height: usize) -> usize {
        let most = lines.saturating_sub(height);
        if let Some(kept) = self.most.get(pane.index()) {
            kept.set(most);
        }
        self.scroll.get(pane.index()).copied().unwrap_or(0).min(most)
    }

    /// Takes new events into account: whoever looks at old ones goes on seeing them.
    pub(super) fn saw_events(&mut self, events: &[String]) {
        let at = Pane::Events.index();
        if let (Some(scroll @ 1..), Some(newest)) = (self.scroll.get_mut(at), &self.newest) {
            let before = events.iter().rposition(|event| event == newest);
            *scroll += before.map_or(0, |before| events.len() - 1 - before);
        }
        self.newest = events.last().cloned();
    }

    /// Takes a look at `now` into the rates.
    pub(super) fn saw(&mut self, report: &NodeReport, now: Instant) {
        let elapsed = self.before.as_ref().map(|(then, _)| now.saturating_duration_since(*then));
        if elapsed.is_some_and(|elapsed| elapsed < RATE_WINDOW) {
            return;
        }
        let totals: BTreeMap<_, _> = report
            .peer_list
            .iter()
            .map(|peer| (peer.peer, Rate { sent: peer.bytes_sent, received: peer.bytes_received }))
            .collect();
        if let (Some(elapsed), Some((_, before))) = (elapsed, &self.before) {
            let ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
            let rate = |now: u64, then: u64| now.saturating_sub(then).saturating_mul(1000) / ms;
            self.rates = totals
                .iter()
                .map(|(peer, total)| {
                    let then = before.get(peer).copied().unwrap_or(*total);
                    (*peer, Rate { sent: rate(total.sent, then.sent), received: rate(total.received, then.received) })
                })
                .collect();
        }
        self.before = Some((now, totals));
    }
}
