//! What the person at the terminal chose to see, and what follows from two looks at a node: rates.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use psyche_actors::telemetry::NodeReport;
use psyche_messages::PeerKey;
use ratatui_crossterm::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// Time between two looks of which the rates of peers are the difference.
const RATE_WINDOW: Duration = Duration::from_secs(3);

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
    /// Lines by which a pane is scrolled: from the top, and for events from the bottom.
    pub(super) scroll: [usize; 4],
    /// What is going on beside the run, such as why it waits for the end.
    pub(super) banner: Option<String>,
    pub(super) rates: BTreeMap<PeerKey, Rate>,
    before: Option<(Instant, BTreeMap<PeerKey, Rate>)>,
}

impl View {
    pub(super) fn new(coloured: bool) -> Self {
        let (rates, before) = (BTreeMap::new(), None);
        Self { focus: Pane::Events, help: false, coloured, scroll: [0; 4], banner: None, rates, before }
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
        if let Some(scroll) = self.scroll.get_mut(self.focus.index()) {
            *scroll = if away { scroll.saturating_add(lines) } else { scroll.saturating_sub(lines) };
        }
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
