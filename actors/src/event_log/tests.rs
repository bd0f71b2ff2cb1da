#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

use std::fs;
use std::path::PathBuf;

use super::*;

fn warning(number: u32) -> NodeEvent {
    NodeEvent::Warning { message: format!("number {number}") }
}

fn read_all(path: &Path) -> (Vec<NodeEvent>, u64) {
    let mut replay = Replay::open(path).unwrap();
    let mut events = Vec::new();
    while let Some(logged) = replay.next_event().unwrap() {
        events.push(logged.event);
    }
    (events, replay.unreadable())
}

#[test]
fn events_are_appended_and_heard() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let event = NodeEvent::Warning { message: "disk \"almost\" full".into() };
    for _ in 0..2 {
        let log = EventLog::open(Some(&path)).unwrap();
        let mut listener = log.subscribe();
        log.report(event.clone());
        assert_eq!(listener.try_recv().unwrap(), event);
    }
    assert_eq!(read_all(&path), (vec![event.clone(), event], 0));
}

#[test]
fn a_full_log_begins_anew_keeps_a_bounded_number_of_files_and_replays_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let bounds = Bounds { file_bytes_max: 1000, full_files_max: 3 };
    let log = EventLog::open_within(Some(&path), bounds).unwrap();
    (0..200).for_each(|number| log.report(warning(number)));
    let files: Vec<PathBuf> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 4, "{files:?}");
    assert!(files.iter().all(|file| fs::metadata(file).unwrap().len() <= 1000), "{files:?}");
    let (events, unreadable) = read_all(folder.path());
    assert!(events.len() > 20, "{}", events.len());
    let first = 200 - u32::try_from(events.len()).unwrap();
    assert_eq!((events, unreadable), ((first..200).map(warning).collect(), 0), "the newest ones, none of them lost");
}

#[test]
fn a_line_that_a_crash_cut_short_spoils_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    EventLog::open(Some(&path)).unwrap().report(warning(1));
    let mut text = fs::read(&path).unwrap();
    text.extend_from_slice(br#"{"v":1,"unix_ms":5,"ev"#);
    fs::write(&path, text).unwrap();
    EventLog::open(Some(&path)).unwrap().report(warning(2));
    assert_eq!(read_all(&path), (vec![warning(1), warning(2)], 1));
}

#[test]
fn a_log_that_is_not_there_is_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(Replay::open(folder.path()).unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_listener_that_lags_is_told_how_much_it_missed_and_holds_nobody_up() {
    let log = EventLog::open(None).unwrap();
    let (ended, end) = tokio::sync::watch::channel(false);
    let mut events = Events::new(log.subscribe(), end);
    let more = u32::try_from(LISTENER_LAG_MAX).unwrap() + 10;
    for number in 0..more {
        log.report(warning(number));
    }
    ended.send_replace(true);
    let mut heard = Vec::new();
    while let Some(next) = futures::executor::block_on(events.next()) {
        heard.push(next);
    }
    assert!(matches!(heard[0], Heard::Missed(10)), "{:?}", heard[0]);
    assert_eq!(heard.len(), 1 + LISTENER_LAG_MAX);
    assert!(matches!(heard.last(), Some(Heard::Event(last)) if *last == warning(more - 1)));
}

#[test]
fn that_a_node_stops_is_the_last_that_is_heard_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let log = EventLog::open(Some(&path)).unwrap();
    let stopped = NodeEvent::Stopped { reason: "the test".into() };
    for event in [warning(1), stopped.clone(), warning(2), stopped.clone()] {
        log.report(event);
    }
    assert_eq!(read_all(&path), (vec![warning(1), stopped], 0));
}
