//! What must be seen at which size, and that nothing that a node or a stranger says breaks the picture.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

use std::collections::HashSet;

use proptest::prelude::*;
use psyche_actors::telemetry::{BatchReport, DeviceReport, EndpointReport, NodeReport, PeerReport, Problem, Readiness};
use psyche_messages::{Address, Epoch, PeerKey, Phase, Points, Slot, Step};
use ratatui_core::backend::TestBackend;
use ratatui_core::style::Color;
use ratatui_core::terminal::Terminal as Painted;
use ratatui_crossterm::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::view::{Asked, Pane, View};
use super::words::{clean, time};
use super::*;
use crate::run_report::{MemberReport, RunReport};
use terminal_of_a_person::Terminal;

#[path = "../../tests/support/terminal.rs"]
mod terminal_of_a_person;

const PEER: PeerKey = PeerKey([7; 32]);

fn peer(peer: PeerKey) -> PeerReport {
    let (bytes_sent, bytes_received) = (5 << 20, 3 << 20);
    let (compared_step, agrees) = (Some(Step(41)), Some(true));
    PeerReport { peer, connected: true, member: true, relayed: false, compared_step, agrees, bytes_sent, bytes_received }
}

fn report() -> NodeReport {
    NodeReport {
        version: "0.1.0".into(),
        run_id: "demo".into(),
        address: Address([1; 32]),
        peer: PEER,
        uptime_seconds: 3_700,
        readiness: Readiness { ready: true, state: "training".into(), problems: vec![] },
        phase: Some(Phase::RoundTrain),
        epoch: Some(Epoch(3)),
        step: Some(Step(42)),
        total_steps: Some(100),
        clients: Some(3),
        slot: Some(Slot(777)),
        model_step: Some(Step(41)),
        digest: None,
        loss: Some(2.5),
        tokens_per_second: Some(1234.0),
        steps_trained: 40,
        steps_skipped: 0,
        steps_applied: 40,
        desyncs: 0,
        peers: 2,
        blob_bytes_sent: 0,
        blob_bytes_received: 0,
        earned: Points(500),
        claimed: Points(200),
        claimable: Points(300),
        lamports: Some(1_500_000_000),
        endpoints: vec![EndpointReport {
            endpoint: "https://rpc.example:8899".into(),
            pair: 0,
            up: true,
            first: true,
            latency_ms: Some(12),
            slot_lag: Some(2),
            requests: 90,
            errors: 1,
        }],
        actors: vec![],
        events: vec![],
        round: Some(4),
        phase_left_seconds: Some(75),
        history: (0..40)
            .map(|n| BatchReport { step: Step(n), loss: 8.0 - 0.1 * n as f32, tokens_per_second: 1234.0 })
            .collect(),
        devices: vec![DeviceReport {
            device: "cpu".into(),
            ranks: 2,
            memory_bytes: Some(16 << 30),
            memory_used_bytes: Some(2 << 30),
            utilisation: Some(0.87),
        }],
        peer_list: vec![peer(PEER), peer(PeerKey([9; 32]))],
    }
}

/// The screen as text, a line for each row.
fn seen(width: u16, height: u16, view: &View, report: Option<&NodeReport>, log: &[String]) -> String {
    let subject = report.map(|report| Subject::Node(Box::new(report.clone())));
    drawn(width, height, view, &Look { subject, ..Look::default() }, log)
}

fn drawn(width: u16, height: u16, view: &View, look: &Look, log: &[String]) -> String {
    let mut terminal = Painted::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw::draw(frame, view, look, log)).unwrap();
    let buffer = terminal.backend().buffer();
    let rows = (0..height).map(|y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>() + "\n");
    rows.collect()
}

fn press(view: &mut View, code: KeyCode) -> Option<Asked> {
    view.key(KeyEvent::new(code, KeyModifiers::NONE))
}

#[test]
fn everything_that_an_operator_asks_for_is_seen_at_the_usual_size_and_on_a_large_screen() {
    let log: Vec<_> = (0..300).map(|n| format!("INFO line {n}")).collect();
    for (width, height) in [(80, 24), (200, 60)] {
        let screen = seen(width, height, &View::new(true, false), Some(&report()), &log);
        let wanted = [
            "demo",
            "training",
            "RoundTrain",
            "at most 1 min 15 s left",
            "epoch 3",
            "round 5",
            "step 42 of 100",
            "loss 2.5000",
            "1234 tokens/s",
            "█",
            "cpu ×2",
            "2.0 of 16.0 GiB",
            "87 % busy",
            "500 earned",
            "300 claimable, 200 claimed",
            "1.5000 SOL",
            "https://rpc.example:8899",
            "answers",
            "12 ms, 2 slots behind, 1/90 failed",
            "member",
            "same bits at 41",
            "in        0 B/s",
            "INFO line 299",
            "q leave",
        ];
        for words in wanted {
            assert!(screen.contains(words), "{words:?} at {width}×{height}:\n{screen}");
        }
    }
}

#[test]
fn a_small_screen_shows_the_chosen_pane_and_a_tiny_one_what_fits() {
    let (mut view, report) = (View::new(false, false), report());
    let log = vec!["WARN newest".to_owned()];
    assert!(seen(20, 5, &view, Some(&report), &log).contains("RoundTrain"));
    assert!(seen(40, 10, &view, Some(&report), &log).contains("WARN newest"));
    press(&mut view, KeyCode::Char('2'));
    let screen = seen(40, 10, &view, Some(&report), &log);
    assert!(screen.contains("500 earned") && !screen.contains("WARN newest"), "{screen}");
    for (width, height) in [(1, 1), (1, 60), (200, 1), (2, 2)] {
        view.help = !view.help;
        assert_eq!(seen(width, height, &view, Some(&report), &log).lines().count(), usize::from(height));
        assert_eq!(seen(width, height, &view, None, &[]).lines().count(), usize::from(height));
    }
}

#[test]
fn strangers_strings_reach_no_terminal_as_they_are() {
    let hostile = "\u{1b}[2J\u{7}\r\n\u{202e}evil\u{9b}31m".to_owned();
    let mut report = report();
    report.run_id = hostile.clone() + &"x".repeat(100_000);
    report.version.clone_from(&hostile);
    report.readiness = Readiness {
        ready: false,
        state: hostile.clone(),
        problems: vec![Problem { check: hostile.clone(), problem: hostile.clone() }],
    };
    report.endpoints[0].endpoint.clone_from(&hostile);
    report.devices[0].device.clone_from(&hostile);
    let mut view = View::new(true, false);
    view.banner = Some(hostile.clone());
    let screen = seen(200, 60, &view, Some(&report), std::slice::from_ref(&hostile));
    assert!(screen.contains("evil") && screen.chars().all(|c| c == '\n' || !c.is_control() && c != '\u{202e}'), "{screen:?}");
    assert_eq!(clean(&"é".repeat(9), 4), "éééé");
}

#[test]
fn hundreds_of_peers_are_scrolled_through_and_never_past_the_last() {
    let (mut view, mut report) = (View::new(true, false), report());
    let key = |n: u16| PeerKey([n.to_be_bytes(), n.to_be_bytes()].concat().repeat(8).try_into().unwrap());
    report.peer_list = (0..500).map(|n| peer(key(n))).collect();
    report.peer_list[499].agrees = Some(false);
    press(&mut view, KeyCode::Char('3'));
    assert!(!seen(80, 24, &view, Some(&report), &[]).contains("OTHER BITS"));
    for _ in 0..100 {
        press(&mut view, KeyCode::PageDown);
    }
    assert!(seen(80, 24, &view, Some(&report), &[]).contains("OTHER BITS at 41"));
    for _ in 0..2 {
        press(&mut view, KeyCode::PageUp);
    }
    assert!(!seen(80, 24, &view, Some(&report), &[]).contains("OTHER BITS"), "what was pressed past the end is forgotten");
}

#[test]
fn keys_choose_panes_scroll_and_ask_to_leave() {
    let mut view = View::new(true, false);
    assert_eq!(press(&mut view, KeyCode::Char('q')), Some(Asked::Leave));
    assert_eq!(view.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Some(Asked::Leave));
    assert_eq!(view.key(KeyEvent::new(KeyCode::Char('z'), KeyModifiers::CONTROL)), Some(Asked::Suspend));
    assert_eq!((view.focus, press(&mut view, KeyCode::Tab), view.focus), (Pane::Events, None, Pane::Training));
    press(&mut view, KeyCode::Char('4'));
    let mut log: Vec<_> = (0..100).map(|n| format!("line {n}.")).collect();
    view.saw_events(&log);
    seen(80, 24, &view, Some(&report()), &log);
    press(&mut view, KeyCode::PageUp);
    let screen = seen(80, 24, &view, Some(&report()), &log);
    assert!(screen.contains("line 89.") && !screen.contains("line 99."), "{screen}");
    // What is looked at stays where it is, however much is said meanwhile.
    log.extend((100..107).map(|n| format!("line {n}.")));
    view.saw_events(&log);
    assert_eq!(seen(80, 24, &view, Some(&report()), &log), screen);
    for (key, words) in
        [(KeyCode::Home, "line 0."), (KeyCode::End, "line 106."), (KeyCode::Right, "│"), (KeyCode::Left, "line 106.")]
    {
        press(&mut view, key);
        assert!(seen(80, 24, &view, Some(&report()), &log).contains(words), "{key:?}");
    }
    press(&mut view, KeyCode::Char('?'));
    assert!(seen(80, 24, &view, None, &log).contains("choose a pane"));
}

/// A run with clients in all states.
fn run() -> WatchedRun {
    let member = |n: u8, state: &str| MemberReport {
        address: Address([n; 32]),
        state: state.into(),
        earned: Points(u64::from(n) * 100),
        slashed: Points(u64::from(n) / 3),
    };
    let report = RunReport {
        run_id: "demo".parse().unwrap(),
        account: Address([3; 32]),
        slot: Slot(777),
        phase: Phase::RoundTrain,
        since: 0,
        phase_left_s: Some(75),
        epoch_left_s: Some(600),
        epoch: Epoch(3),
        round: Some(4),
        step: Step(42),
        total_steps: 100,
        clients: 2,
        pending: 1,
        min_clients: 2,
        batch_samples: 64,
        epoch_points: Points(1000),
        client_version: "0.1.0".into(),
        members: vec![member(1, "healthy"), member(2, "dropped"), member(3, "waiting")],
        endpoints: report().endpoints,
    };
    WatchedRun { report, speed: vec![10.0, 20.0, 30.0] }
}

#[test]
fn a_run_that_is_watched_shows_its_pace_its_clients_and_the_endpoints() {
    let (mut view, events) = (View::new(true, true), vec!["2026-11-23 06:48:48.297 the run is in RoundTrain".to_owned()]);
    let look = Look {
        subject: Some(Subject::Run(Box::new(run()))),
        events: Some(events),
        problem: Some("not seen for 9 s: no answer".into()),
    };
    for (width, height) in [(80, 24), (200, 60)] {
        let screen = drawn(width, height, &view, &look, &["never shown".to_owned()]);
        for words in [
            "demo  on chain",
            "RoundTrain  at most 1 min 15 s left  step 42 of 100  epoch 3  round 5  2 clients",
            "20.0 steps/min, 2 min 54 s to go",
            "10 min 00 s left",
            "at least 2, 1 wait to join",
            "64 samples",
            "1000 points an epoch",
            "2 chain, slot 777",
            "answers https://rpc.example:8899",
            "healthy",
            "dropped",
            "06:48:48 the run is in RoundTrain",
            "not seen for 9 s: no answer",
        ] {
            assert!(screen.contains(words), "{words:?} at {width}×{height}:\n{screen}");
        }
        assert!(!screen.contains("never shown"));
    }
    press(&mut view, KeyCode::Char('?'));
    assert!(drawn(80, 24, &view, &look, &[]).contains("stop watching"));
    for (width, height) in [(1, 1), (40, 12), (7, 200)] {
        assert_eq!(drawn(width, height, &view, &look, &[]).lines().count(), usize::from(height));
    }
}

#[test]
fn colours_can_be_read_on_light_and_dark_and_are_not_there_where_they_are_not_wanted() {
    let mut report = report();
    report.readiness.ready = false;
    report.endpoints[0].up = false;
    report.peer_list[0].agrees = Some(false);
    let log = ["2026-11-23T06:48:48.297546Z  WARN a::b: c".to_owned(), "2026-11-23T06:48:48.297546Z ERROR a::b: c".to_owned()];
    let looks = [Subject::Node(Box::new(report)), Subject::Run(Box::new(run()))];
    let looks = looks.map(|subject| Look { subject: Some(subject), problem: Some("late".into()), events: None });
    for (look, coloured) in looks.iter().flat_map(|look| [(look, true), (look, false)]) {
        let mut painted = Painted::new(TestBackend::new(120, 40)).unwrap();
        painted.draw(|frame| draw::draw(frame, &View::new(coloured, false), look, &log)).unwrap();
        let used: HashSet<_> = painted.backend().buffer().content().iter().map(|cell| (cell.fg, cell.bg)).collect();
        let readable = [
            (Color::Reset, Color::Reset),
            (Color::Green, Color::Reset),
            (Color::Red, Color::Reset),
            (Color::Magenta, Color::Reset),
            (Color::Black, Color::Yellow),
            (Color::White, Color::Red),
        ];
        assert!(used.iter().all(|pair| readable.contains(pair)), "{used:?}");
        assert_eq!(used.len() > 1, coloured, "{used:?}");
    }
}

#[test]
fn rates_are_what_moved_between_two_looks() {
    let (mut view, mut report, start) = (View::new(true, false), report(), Instant::now());
    view.saw(&report, start);
    report.peer_list[0].bytes_received += 4_000 * 1024;
    view.saw(&report, start + Duration::from_secs(4));
    assert_eq!(view.rates.get(&PEER).map(|rate| (rate.received, rate.sent)), Some((1_000 * 1024, 0)));
    assert!(seen(120, 30, &view, Some(&report), &[]).contains("in 1000.0 KiB/s"));
    assert_eq!([time(59), time(61), time(7_200), time(90_000)], ["59 s", "1 min 01 s", "2 h 00 min", "1 d 01 h"]);
}

#[test]
fn a_panic_gives_the_terminal_back_and_is_told_on_it() {
    const INSIDE: &str = "PANIC_IN_THE_VIEW";
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut stop, mut live) = (Stop::listen().unwrap(), Live::open(false).unwrap());
            live.show(&mut stop, || panic!("provoked by the test")).await;
        });
    }
    let (folder, exe) = (tempfile::tempdir().unwrap(), std::env::current_exe().unwrap());
    let mut settings = std::process::Command::new(&exe);
    let terminal = Terminal::new((24, 80), settings.current_dir(folder.path()).env(INSIDE, "1"));
    let name = "tui::tests::a_panic_gives_the_terminal_back_and_is_told_on_it";
    let (said, code) = terminal.ran(&format!("{} --exact {name} --nocapture", exe.display()));
    assert!(said.contains("provoked by the test") && said.contains("FAILED") && code == 101, "{code}: {said}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn prop_no_state_and_no_size_breaks_the_picture(
        (width, height) in (1_u16..160, 1_u16..70),
        texts in proptest::collection::vec(any::<String>(), 4),
        numbers in any::<[u64; 8]>(),
        losses in proptest::collection::vec(any::<f32>(), 0..300),
        peers in 0_u16..40,
        (scroll, focus, help) in (any::<usize>(), 0_usize..4, any::<bool>()),
    ) {
        let mut report = report();
        (report.run_id, report.version, report.readiness.state) = (texts[0].clone(), texts[1].clone(), texts[2].clone());
        (report.uptime_seconds, report.phase_left_seconds, report.lamports) = (numbers[0], Some(numbers[1]), Some(numbers[2]));
        (report.earned, report.claimable) = (Points(numbers[3]), Points(numbers[4]));
        report.total_steps = u32::try_from(numbers[5] % 7).ok();
        report.devices[0].memory_used_bytes = Some(numbers[6]);
        report.endpoints[0].latency_ms = Some(numbers[7]);
        report.loss = losses.first().copied();
        report.devices[0].utilisation = losses.last().copied();
        report.history = losses.iter().map(|&x| BatchReport { step: Step(1), loss: x, tokens_per_second: x }).collect();
        report.peer_list = (0..peers).map(|n| PeerReport { connected: n % 3 > 0, ..peer(PeerKey([n.to_be_bytes()[1]; 32])) }).collect();
        let mut view = View::new(width % 2 == 0, false);
        (view.focus, view.scroll, view.help) = (Pane::ALL[focus], [scroll; 4], help);
        let screen = seen(width, height, &view, Some(&report), &texts);
        prop_assert!(screen.chars().all(|c| c == '\n' || !c.is_control()));
    }
}
