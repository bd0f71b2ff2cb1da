#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use psyche_messages::events::{EVENT_LOG_VERSION, LoggedEvent};
use psyche_messages::{Address, Epoch, NodeEvent, PeerKey, Step};

use super::*;

/// A network of `nodes` processes that run `script` instead of the node, in a folder of its own.
struct Rig {
    folder: tempfile::TempDir,
    plan: Plan,
    program: PathBuf,
}

impl Rig {
    fn new(nodes: u16, script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let node =
            |number| NodePlan { number, dp: 1, tp: 1, late: number == 3, folder: folder.path().join(format!("node-{number}")) };
        let nodes = (1..=nodes).map(node).collect();
        let plan = Plan { out: folder.path().to_path_buf(), nodes, steps: 4, chain_speed: 1.0 };
        Self { folder, plan, program }
    }

    /// Writes the events that the script copies into its log.
    fn events(&self, name: &str, events: &[NodeEvent]) {
        let line = |event: &NodeEvent| {
            let logged = LoggedEvent { v: EVENT_LOG_VERSION, unix_ms: 1, event: event.clone() };
            serde_json::to_string(&logged).unwrap() + "\n"
        };
        std::fs::write(self.folder.path().join(name), events.iter().map(line).collect::<String>()).unwrap();
    }

    async fn run(&self) -> Result<Vec<NodeBoard>> {
        let endpoint = Endpoint { rpc: "http://chain".to_owned(), ws: "ws://chain".to_owned() };
        let mut fleet = Fleet::new(self.program.clone(), self.plan.nodes.len());
        let mut progress = Progress::stderr(Instant::now());
        Network::new(&self.plan, &endpoint, Address([3; 32]), &mut fleet, &mut progress).run().await
    }
}

fn started(port: u16) -> NodeEvent {
    NodeEvent::Started {
        address: Address([1; 32]),
        peer: PeerKey([2; 32]),
        listen: vec![format!("/ip4/127.0.0.1/tcp/{port}")],
        dp: 1,
        tp: 1,
    }
}

fn phase(phase: Phase) -> NodeEvent {
    let (epoch, step) = (Epoch(0), Step(1));
    NodeEvent::PhaseChanged { epoch, step, phase, slot: 1.into(), since: 1.into(), clients: 1, total_steps: 4 }
}

const WELL: &str = "cat ../well >> data/events.jsonl";

#[tokio::test]
async fn nodes_start_one_after_another_and_know_who_was_there_before() {
    let rig = Rig::new(3, &format!("{WELL}; env | grep BOOTSTRAP_PEERS"));
    rig.events("well", &[started(7), phase(Phase::RoundTrain), phase(Phase::Finished)]);
    let boards = rig.run().await;
    // The first process finishes the run at once, so that there is nothing to start any more.
    assert_eq!(boards.unwrap().iter().map(|board| board.starts).collect::<Vec<_>>(), [1, 0, 0]);

    let rig = Rig::new(
        3,
        &format!(
            "{WELL}; env | grep BOOTSTRAP_PEERS; case $PWD in *3) cat ../end >> data/events.jsonl;; *) while ! grep -q finished ../node-3/data/events.jsonl 2>/dev/null; do :; done;; esac"
        ),
    );
    rig.events("well", &[started(7), phase(Phase::RoundTrain)]);
    rig.events("end", &[NodeEvent::Stopped { reason: "finished".to_owned() }, phase(Phase::Finished)]);
    let boards = rig.run().await.unwrap();
    assert_eq!(boards.iter().map(|board| board.starts).collect::<Vec<_>>(), [1, 1, 1]);
    let log = |number: usize| std::fs::read_to_string(rig.plan.nodes[number].log()).unwrap();
    assert_eq!(log(0), "BOOTSTRAP_PEERS=\n");
    assert_eq!(log(1), "BOOTSTRAP_PEERS=/ip4/127.0.0.1/tcp/7\n");
    assert_eq!(log(2), "BOOTSTRAP_PEERS=/ip4/127.0.0.1/tcp/7,/ip4/127.0.0.1/tcp/7\n");
}

#[tokio::test]
async fn a_node_that_fails_fails_the_network_with_the_end_of_its_log() {
    let rig = Rig::new(1, "echo the reason >&2; exit 3");
    let error = rig.run().await.unwrap_err().to_string();
    assert!(error.starts_with("node 1 ended with exit code 3; its log is "), "{error}");
    assert!(error.ends_with("\n    the reason"), "{error}");
}

#[tokio::test]
async fn a_node_that_leaves_early_fails_the_network() {
    let rig = Rig::new(1, WELL);
    rig.events("well", &[started(7), NodeEvent::Stopped { reason: "bored".to_owned() }]);
    let error = rig.run().await.unwrap_err().to_string();
    assert!(error.starts_with("node 1 ended before the run was finished: bored"), "{error}");
}

#[tokio::test]
async fn a_node_that_is_killed_is_started_again_but_not_for_ever() {
    let rig = Rig::new(1, &format!("if test -e killed; then {WELL}; else touch killed; kill -9 $$; fi"));
    rig.events("well", &[started(7), phase(Phase::Finished)]);
    assert_eq!(rig.run().await.unwrap()[0].starts, 1);

    let rig = Rig::new(1, "echo again; kill -9 $$");
    let error = rig.run().await.unwrap_err().to_string();
    assert!(error.starts_with("node 1 was killed by signal 9"), "{error}");
    let log = std::fs::read_to_string(rig.plan.nodes[0].log()).unwrap();
    assert_eq!(log.lines().count(), 1 + RESTARTS_MAX as usize);
}
