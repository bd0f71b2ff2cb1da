//! What a node makes of its endpoints: a mismatch is a configuration failure before anything is joined, and what happens to
//! them later is told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may unwrap")]

use std::path::Path;
use std::time::Duration;

use actix::{Actor as _, System};
use psyche_actors::envelope::Ask;
use psyche_actors::event_log::EventLog;
use psyche_actors::rpc::{ActionContext, GetEndpointHealth, RpcSupervisor};
use psyche_actors::{NodeBuilder, NodeConfig, NodeError};
use psyche_chain::{Circuit, Cluster, Rpc, RpcConfig, RunInfo, Wallet};
use psyche_messages::{Address, EndpointState, NodeEvent, PeerKey};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const ONE: &str = "4uhcVJyU9pJkvQyS88uRDiswHXSCkY3zQawwpjk2NsNY";
const OTHER: &str = "EtWTRABZaYq6iMfeYKouRu166VU2xqa1wcaWoxPkrZBG";

/// A server that names `genesis` whatever it is asked, and closes the connection.
async fn server(genesis: &'static str) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _read = stream.read(&mut request).await;
            let body = format!(r#"{{"jsonrpc":"2.0","id":0,"result":"{genesis}"}}"#);
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            let _written = stream.write_all((head + &body).as_bytes()).await;
        }
    });
    (url, task)
}

fn node_config(folder: &Path, endpoints: &[(&str, String)]) -> NodeConfig {
    let key = folder.join("key.json");
    Wallet::new().save(&key).unwrap();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let mut variables = vec![
        ("RUN_ID".to_owned(), "demo".to_owned()),
        ("WALLET_PRIVATE_KEY_PATH".to_owned(), text(&key)),
        ("DATA_DIR".to_owned(), text(&folder.join("data"))),
    ];
    variables.extend(endpoints.iter().map(|(name, url)| ((*name).to_owned(), format!("{url}/v2/SECRET"))));
    NodeConfig::from_variables(variables).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_of_different_clusters_are_a_configuration_failure_that_names_them() {
    let folder = tempfile::tempdir().unwrap();
    let servers = [server(OTHER).await, server(ONE).await, server(ONE).await];
    let [odd, first, second] = servers.each_ref().map(|(url, _)| url.clone());
    let endpoints = [("RPC", odd.clone()), ("RPC_3", first.clone()), ("RPC_7", second.clone())];
    let started = NodeBuilder::from(node_config(folder.path(), &endpoints)).start().await;
    let Err(NodeError::Config(error)) = started else { panic!("the node started, or failed otherwise") };
    assert_eq!(error.violations.len(), 1);
    assert_eq!(error.violations[0].variable, "RPC");
    let problem = &error.violations[0].problem;
    for part in ["RPC_3, RPC_7", odd.as_str(), first.as_str(), second.as_str(), ONE, OTHER] {
        assert!(problem.contains(part), "{part} is not in: {problem}");
    }
    assert!(!problem.contains("SECRET"));
}

#[test]
fn the_supervisor_tells_how_endpoints_fare_and_reports_what_happens_to_them() {
    let runtime = System::new();
    runtime.block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let (url, task) = server(ONE).await;
        let config = node_config(folder.path(), &[("RPC", url.clone())]);
        let rpc = Rpc::new(RpcConfig::new(config.endpoints.clone())).unwrap();
        let nobody = Address([0; 32]);
        let run = RunInfo {
            run_id: config.run_id.clone(),
            instance: nobody,
            account: nobody,
            main_authority: nobody,
            join_authority: nobody,
        };
        let events = EventLog::open(None).unwrap();
        let mut heard = events.subscribe();
        let context = ActionContext::new(&config, &run, PeerKey([1; 32]));
        let actor = RpcSupervisor::new(rpc.clone(), context, events).start();
        rpc.genesis_hash().await.unwrap();
        let health = actor.send(Ask(GetEndpointHealth)).await.unwrap();
        assert_eq!(health.len(), 1);
        assert_eq!(
            (health[0].endpoint.as_str(), health[0].circuit, health[0].cluster),
            (url.as_str(), Circuit::Closed, Cluster::Ours)
        );
        task.abort();
        let _aborted = task.await;
        rpc.genesis_hash().await.unwrap_err();
        let event = tokio::time::timeout(Duration::from_secs(60), heard.recv()).await.unwrap().unwrap();
        assert_eq!(event, NodeEvent::EndpointChanged { endpoint: url, state: EndpointState::Resting });
        assert_eq!(actor.send(Ask(GetEndpointHealth)).await.unwrap()[0].circuit, Circuit::Open);
    });
}
