//! Endpoints that lead to different clusters.

use std::time::Duration;

use psyche_chain::{ChainError, Cluster, PairTrust, Rpc};
use psyche_messages::{EndpointState, Retry};

use crate::server::{Mood, OTHER, OURS, Server};
use crate::support::{WHO, balance, circuits, client, config, read_until, within};

async fn servers(clusters: &[&'static str]) -> Vec<Server> {
    let mut servers = Vec::new();
    for genesis in clusters {
        servers.push(Server::start().await.on(genesis));
    }
    servers
}

#[tokio::test]
async fn the_odd_one_out_is_refused_even_if_it_is_the_first_and_is_asked_nothing_else() {
    let servers = servers(&[OTHER, OURS, OURS]).await;
    let rpc = client(&servers);
    let mut events = rpc.endpoint_events();
    let error = rpc.check_clusters().await.unwrap_err();
    let text = error.to_string();
    for part in [servers[0].name(), servers[1].name(), servers[2].name(), OTHER.into(), OURS.into()] {
        assert!(text.contains(&part), "{text}");
    }
    assert!(matches!(&error, ChainError::WrongCluster(wrong) if wrong.pair == 0 && wrong.other_pairs == [1, 2]));
    assert_eq!(error.retry(), Retry::Never);
    for _ in 0..10 {
        balance(&rpc).await;
    }
    assert_eq!(servers[0].asked().iter().map(|asked| asked.method.as_str()).collect::<Vec<_>>(), ["getGenesisHash"]);
    assert_eq!(
        rpc.health().iter().map(|health| health.cluster).collect::<Vec<_>>(),
        [Cluster::Other, Cluster::Ours, Cluster::Ours]
    );
    // The verdict may have changed on the way, as the answers came in; the last word about the first one is this.
    let mut last = None;
    while let Ok(event) = events.try_recv() {
        if event.endpoint == servers[0].name() {
            last = Some(event.state);
        }
    }
    assert_eq!(last, Some(EndpointState::WrongCluster));
}

#[tokio::test]
async fn with_a_tie_the_first_configured_decides() {
    let servers = servers(&[OURS, OTHER]).await;
    let rpc = client(&servers);
    within(rpc.check_clusters()).await.unwrap_err();
    balance(&rpc).await;
    assert_eq!((servers[0].count("getBalance"), servers[1].count("getBalance")), (1, 0));
}

#[tokio::test]
async fn the_websocket_of_a_refused_pair_is_not_trusted_and_that_is_told() {
    let servers = servers(&[OURS, OTHER, OURS]).await;
    let rpc = client(&servers);
    let mut trust = rpc.pair_trust();
    assert_eq!(*trust.borrow_and_update(), [PairTrust::Unknown; 3]);
    assert!(!rpc.pair_trusted(0) && !rpc.pair_trusted(99));
    balance(&rpc).await;
    let wanted = [PairTrust::Trusted, PairTrust::Refused, PairTrust::Trusted];
    within(trust.wait_for(|trust| *trust == wanted)).await.unwrap();
    assert_eq!([0, 1, 2].map(|pair| rpc.pair_trusted(pair)), [true, false, true]);
}

#[tokio::test]
async fn an_endpoint_that_does_not_answer_is_no_mismatch_and_its_pair_can_not_be_verified() {
    let mut servers = servers(&[OURS, OTHER]).await;
    servers[1].down().await;
    let rpc = client(&servers);
    within(rpc.check_clusters()).await.unwrap();
    assert_eq!(*rpc.pair_trust().borrow(), [PairTrust::Trusted, PairTrust::Unverifiable]);
    servers[1].up().await;
    read_until(&rpc, "the refusal", || !rpc.pair_trusted(1)).await;
    assert_eq!(servers[1].count("getBalance"), 0);
}

#[tokio::test]
async fn a_refused_endpoint_is_used_again_once_it_names_the_right_cluster() {
    let servers = servers(&[OURS, OTHER]).await;
    let mut config = config(&servers);
    config.survey_every = Duration::from_millis(20);
    let rpc = Rpc::new(config).unwrap();
    within(rpc.check_clusters()).await.unwrap_err();
    servers[1].set_genesis(OURS);
    read_until(&rpc, "the readmission", || rpc.pair_trusted(1)).await;
    servers[0].turn(Mood::Slams);
    balance(&rpc).await;
    assert!(servers[1].count("getBalance") > 0);
}

#[tokio::test]
async fn another_chain_behind_the_url_of_an_endpoint_that_was_down_is_refused() {
    let mut servers = servers(&[OURS, OURS]).await;
    let rpc = client(&servers);
    balance(&rpc).await;
    servers[0].down().await;
    balance(&rpc).await;
    servers[0].set_genesis(OTHER);
    servers[0].up().await;
    let before = servers[0].count("getBalance");
    read_until(&rpc, "the refusal", || !rpc.pair_trusted(0)).await;
    servers[1].turn(Mood::Slams);
    within(rpc.balance(WHO)).await.unwrap_err();
    assert_eq!(servers[0].count("getBalance"), before, "better no answer than a wrong one");
}

#[tokio::test]
async fn a_single_endpoint_that_comes_back_with_another_chain_is_a_typed_error() {
    let mut servers = servers(&[OURS]).await;
    let rpc = client(&servers);
    balance(&rpc).await;
    servers[0].down().await;
    within(rpc.balance(WHO)).await.unwrap_err();
    servers[0].set_genesis(OTHER);
    servers[0].up().await;
    for _ in 0..3 {
        let error = within(rpc.balance(WHO)).await.unwrap_err();
        assert!(matches!(&error, ChainError::WrongCluster(wrong) if wrong.genesis == OTHER && wrong.expected == OURS));
    }
    assert_eq!(circuits(&rpc).len(), 1);
    assert_eq!(servers[0].count("getBalance"), 1);
}
