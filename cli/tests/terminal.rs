//! What a person at a terminal sees of a node, and that the terminal is theirs again whatever ends it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may unwrap")]

mod support;

use std::path::Path;
use std::process::{Command, Stdio};

use support::picture::svg;
use support::terminal::Terminal;
use support::training::{Node, run_toml};
use support::{Folder, Scene, command, silent_server, text};

const RUN: &str = "seen-by-people";
const BINARY: &str = env!("CARGO_BIN_EXE_psyche-solana-client");

/// A run that waits for a second client.
fn waiting() -> Scene {
    Scene::to_train(RUN, &run_toml(&[("min_clients", "2"), ("init_min_clients", "2")]), &["person"])
}

#[test]
fn a_node_that_is_starting_is_left_with_a_key() {
    let folder = Folder::new();
    assert!(folder.run("wallet new --out id.json").status.success());
    let mut settings = command();
    settings.current_dir(folder.path("")).env("RPC", silent_server()).env("METRICS_BIND", "off");
    settings.envs([("RUN_ID", RUN), ("WALLET_PRIVATE_KEY_PATH", "id.json"), ("DEVICE", "cpu")]);
    let terminal = Terminal::new((24, 80), &settings);
    terminal.start(&format!("{BINARY} train"));
    terminal.wait_for_view();
    terminal.keys("q");
    let (left, code) = terminal.ended();
    // The server's silence may be over before the key is read.
    let left_by_key = left.contains("Ctrl-C: stopped before the node was up") && code == 0;
    assert!(left_by_key || (left.contains("error: ") && code == 7), "{left}");
}

#[test]
fn the_terminal_is_as_it_was_whatever_signal_ends_the_node() {
    let scene = waiting();
    let terminal = Terminal::new((24, 80), &scene.train(RUN, "person"));
    for (signal, expected) in [
        (libc::SIGINT, 0),
        (libc::SIGTERM, 0),
        (libc::SIGHUP, 0),
        // What the node has no say in.
        (libc::SIGQUIT, 128 + libc::SIGQUIT),
        (libc::SIGABRT, 128 + libc::SIGABRT),
        (libc::SIGSEGV, 128 + libc::SIGSEGV),
    ] {
        terminal.start(BINARY);
        terminal.wait_for_view();
        terminal.wait_for_words(&["WaitingForMembers", "q leave"]);
        assert!(!terminal.is_cooked());
        terminal.signal(signal);
        let (left, code) = terminal.ended();
        assert_eq!(code, expected, "{signal}: {left}");
        assert_eq!(left.contains("0 batches trained") && left.contains("log.txt"), expected == 0, "{left}");
    }
}

#[test]
fn a_suspended_node_leaves_the_terminal_to_the_shell_and_takes_it_again_in_front() {
    let scene = waiting();
    let terminal = Terminal::new((24, 80), &scene.train(RUN, "person"));
    terminal.start(BINARY);
    terminal.wait_for_view();
    for _ in 0..2 {
        terminal.keys("\u{1a}");
        let left = terminal.given_back();
        assert!(left.contains("Stopped"), "{left}");
        assert!(terminal.ran("echo 6 times 7 is $((6 * 7))").0.contains("is 42"));
        terminal.start("fg");
        terminal.wait_for_view();
        terminal.wait_for_words(&["WaitingForMembers", "q leave"]);
    }
    // In the background it goes on, and neither draws nor reads keys.
    terminal.signal(libc::SIGTSTP);
    terminal.given_back();
    assert_eq!(terminal.ran("bg").1, 0);
    terminal.start("read keys; jobs");
    terminal.keys("q\n");
    let (jobs, _) = terminal.ended();
    assert!(jobs.contains("Running"), "{jobs}");
    terminal.start("fg");
    terminal.wait_for_view();
    terminal.wait_for_words(&["WaitingForMembers", "q leave"]);
    terminal.keys("q");
    let (left, code) = terminal.ended();
    assert!(left.contains("0 batches trained") && code == 0, "{left}");
}

#[test]
fn a_terminal_that_can_not_place_its_cursor_gets_plain_lines_and_one_without_colours_a_view_without_them() {
    let scene = waiting();
    let terminal = |name: &str, value: &str| {
        let terminal = Terminal::new((24, 80), scene.train(RUN, "person").env(name, value));
        terminal.start(BINARY);
        terminal.wait_for_job();
        terminal
    };
    for (name, value) in [("TERM", "dumb"), ("LOGS", "plain")] {
        let terminal = terminal(name, value);
        let said = terminal.wait_for_words(&["the node is up", "the run is in WaitingForMembers"]);
        assert!(terminal.is_cooked() && !said.contains("q leave"), "{said}");
        terminal.keys("\u{3}");
        assert_eq!(terminal.ended().1, 0);
    }
    for (value, coloured) in [("1", false), ("", true)] {
        let terminal = terminal("NO_COLOR", value);
        terminal.wait_for_words(&["WaitingForMembers", "q leave"]);
        let has_colour = |screen: &vt100::Screen| {
            let (rows, columns) = screen.size();
            let mut cells = (0..rows).flat_map(|row| (0..columns).filter_map(move |column| screen.cell(row, column)));
            cells.any(|cell| cell.fgcolor() != vt100::Color::Default || cell.bgcolor() != vt100::Color::Default)
        };
        assert_eq!(terminal.look(has_colour), coloured);
        terminal.keys("q");
        assert_eq!(terminal.ended().1, 0);
    }
}

#[test]
fn a_person_sees_a_real_run_with_a_peer_resizes_suspends_and_leaves_it_cleanly() {
    if let Some(path) = std::env::var_os("TUI_PICTURE") {
        return paint(Path::new(&path));
    }
    let toml = [("min_clients", "2"), ("init_min_clients", "2"), ("total_steps", "100000")];
    let scene = Scene::to_train(RUN, &run_toml(&toml), &["peer", "person"]);
    let owner = "--wallet-private-key-path owner.json";
    scene.good(&format!("set-future-epoch-rates --run-id {RUN} --earning-rate-points 1000 {owner}"));
    let log = std::fs::File::create(scene.path("peer.log")).unwrap();
    let mut peer = scene.train(RUN, "peer");
    let mut peer = Node::start(peer.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log));
    let listening = peer.until("address", || scene.listening("peer"));
    let mut settings = scene.train(RUN, "person");
    let terminal = Terminal::new((24, 80), settings.env("BOOTSTRAP_PEERS", listening));
    terminal.start(BINARY);
    terminal.wait_for_view();

    let endpoint = scene.chain.rpc();
    let screen = terminal.wait_for_words(&[
        RUN,
        "training",
        "epoch",
        "round",
        "of 100000",
        "2 clients",
        "loss",
        "tokens/s",
        "cpu ×1",
        " busy",
        " GiB",
        "points",
        " claimable",
        "SOL",
        endpoint,
        "answers",
        "member",
        "same bits at",
        "B/s",
        "trained a batch",
    ]);
    assert_eq!(screen.lines().count(), 24, "{screen}");
    // They come at an epoch's end.
    terminal.wait_for("points", |screen| {
        let text = screen.contents();
        let earned: u64 = text.split_once("points ")?.1.split_once(" earned")?.0.trim().parse().ok()?;
        (earned > 0).then_some(())
    });

    resizes_and_suspends(&terminal);

    terminal.keys("\u{3}");
    let (left, code) = terminal.ended();
    assert!(code == 0 && left.contains("batches trained") && left.contains("log.txt"), "{left}");
    let log = std::fs::read_to_string(scene.path("data-person/log.txt")).unwrap();
    assert!(log.contains("trained a batch") && !log.contains('\u{1b}'), "{log}");
    let plain = std::fs::read_to_string(scene.path("peer.log")).unwrap();
    assert!(plain.contains("trained a batch") && !plain.contains('\u{1b}'), "plain lines where there is no terminal: {plain}");

    // Two at once: the second one does not wait for what the first one asked for.
    terminal.start(BINARY);
    terminal.wait_for_words(&["loss", "trained a batch"]);
    terminal.keys("\u{3}\u{3}");
    let (left, code) = terminal.ended();
    assert!(code == 130 && left.contains("left by Ctrl-C"), "{left}");

    terminal.start(BINARY);
    terminal.wait_for_words(&["loss", "trained a batch"]);
    terminal.signal(libc::SIGTERM);
    let (left, code) = terminal.ended();
    assert!(code == 0 && left.contains("batches trained"), "{left}");
    watches(&terminal, &mut peer);
}

/// The view follows the terminal's size, and comes back in front.
fn resizes_and_suspends(terminal: &Terminal) {
    terminal.resize(40, 120);
    terminal.wait_for("larger picture", |screen| {
        let rows: Vec<_> = screen.rows(0, 120).collect();
        (rows.last()?.contains("q leave") && rows.get(38)?.contains('┘')).then_some(())
    });
    terminal.resize(12, 40);
    terminal.wait_for("small picture", |screen| {
        let rows: Vec<_> = screen.rows(0, 40).collect();
        (rows.last()?.contains("q leave") && rows.get(3)?.contains("4 events")).then_some(())
    });
    terminal.keys("2");
    terminal.wait_for_words(&["claimable"]);
    terminal.resize(24, 80);
    terminal.keys("\u{1a}");
    assert!(terminal.given_back().contains("Stopped"));
    terminal.start("fg");
    terminal.wait_for_view();
    terminal.wait_for_words(&["loss", "same bits at"]);
}

/// The picture for the guides, of a run with three nodes and two endpoints that has gone on for a while.
fn paint(path: &Path) {
    let clients = [("min_clients", "2"), ("init_min_clients", "3"), ("witness_nodes", "2"), ("total_steps", "600")];
    let batches = [("global_batch_size_start", "24"), ("global_batch_size_end", "24")];
    let scene = Scene::to_train("meadow", &run_toml(&[clients.as_slice(), &batches].concat()), &["ada", "bo", "person"]);
    scene.good("set-future-epoch-rates --run-id meadow --earning-rate-points 3000 --wallet-private-key-path owner.json");
    let endpoint = scene.chain.endpoint();
    let node = |who: &str, peers: String| {
        let mut train = scene.train("meadow", who);
        train.env("RPC_2", endpoint.rpc()).env("WS_RPC_2", endpoint.variables()[1].1).env("BOOTSTRAP_PEERS", peers);
        train
    };
    let quiet = |mut command: Command| Node::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()));
    let mut ada = quiet(node("ada", String::new()));
    let peers = ada.until("address", || scene.listening("ada"));
    let _bo = quiet(node("bo", peers.clone()));
    let terminal = Terminal::new((28, 104), &node("person", peers));
    terminal.start(BINARY);
    let svg = terminal.wait_for("much to see", |screen| {
        let text = screen.contents();
        let batches: u32 = text.split_once(" batches")?.0.rsplit_once(' ')?.1.parse().ok()?;
        let is_whole = screen.rows(0, 104).last()?.contains("q leave");
        (batches > 60 && is_whole && text.contains("RoundTrain")).then(|| svg(screen))
    });
    std::fs::write(path, svg).unwrap();
}

/// The run, on chain, and then the node of somebody else, which ends meanwhile.
fn watches(terminal: &Terminal, peer: &mut Node) {
    let of_run = format!("{BINARY} status --watch --run-id {RUN}");
    terminal.start(&of_run);
    terminal.wait_for_view();
    terminal.wait_for_words(&[RUN, "on chain", "steps/min", "points an epoch", "slot", "answers", "healthy", "watching since"]);
    terminal.keys("q");
    assert_eq!(terminal.ended().1, 0);
    terminal.start(&format!("LOGS=plain {of_run}"));
    let lines = terminal.wait_for("second line", |screen| {
        let text = screen.contents();
        (text.matches(&format!("run {RUN}  phase ")).count() > 1).then_some(text)
    });
    assert!(terminal.is_cooked() && !lines.contains("q stop"), "{lines}");
    terminal.keys("\u{3}");
    assert_eq!(terminal.ended().1, 0);

    let piped = terminal.ran(&format!("{of_run} --json | head -n 2")).0;
    assert_eq!(piped.matches("\"members\":[").count(), 2, "{piped}");

    terminal.start(&format!("{BINARY} status --watch --data-dir data-peer --node 127.0.0.1:0"));
    terminal.wait_for_view();
    terminal.wait_for_words(&[RUN, "step", "loss", "tokens/s", "cpu", "points", "claimable", "answers", "q stop watching"]);
    peer.signal(libc::SIGTERM);
    terminal.wait_for_words(&["not seen for", "loss"]);
    assert_eq!(peer.0.wait().unwrap().code(), Some(0));
    terminal.keys("q");
    assert_eq!(terminal.ended().1, 0);
    let (gone, code) = terminal.ran(&format!("{BINARY} status --watch --data-dir data-peer --node 127.0.0.1:0"));
    assert!(code == 7 && gone.contains("error: "), "what was never seen is not watched: {gone}");
}

#[test]
fn a_run_that_ends_or_refuses_gives_the_terminal_back_and_says_why() {
    let scene = Scene::to_train(RUN, &run_toml(&[]), &["person"]);
    let terminal = Terminal::new((24, 80), &scene.train(RUN, "person"));
    terminal.start(BINARY);
    terminal.wait_for_view();
    let (left, code) = terminal.ended();
    assert!(left.contains("the run is over for this node") && left.contains("batches trained") && code == 0, "{left}");
    let (refused, code) = terminal.ran(&format!("RUN_ID=nowhere {BINARY}"));
    assert!(refused.contains("error: ") && code == 4, "{refused}");
    // In a pipe there is nobody to draw for.
    let (piped, _) = terminal.ran(&format!("{BINARY} --logs tui 2>&1 | tee lines"));
    assert!(piped.contains("the run is over for this node"), "{piped}");
    let lines = std::fs::read(scene.path("lines")).unwrap();
    assert!(!lines.contains(&0x1b), "{}", text(&lines));
}
