//! Dead, hanging, broken and missing endpoints.

use std::time::Duration;

use psyche_chain::{ChainError, Circuit, EndpointError, EndpointPair, Rpc, RpcConfig};
use psyche_messages::{Address, EndpointState, Lamports, Retry};

use crate::server::{Mood, Server};
use crate::support::{WHO, balance, circuits, client, config, read_until, until, within};

#[tokio::test]
async fn everybody_names_its_cluster_before_anything_else_and_only_once() {
    let (one, two) = (Server::start().await, Server::start().await);
    let rpc = client([&one, &two]);
    for _ in 0..5 {
        balance(&rpc).await;
    }
    for server in [&one, &two] {
        assert_eq!(server.asked()[0].method, "getGenesisHash");
        assert_eq!(server.count("getGenesisHash"), 1);
    }
    assert_eq!((one.count("getBalance"), two.count("getBalance")), (5, 0), "the choice is sticky");
}

#[tokio::test]
async fn a_hanging_primary_is_outrun_by_a_hedge_cancelled_and_not_started_at_again() {
    let (one, two) = (Server::start().await, Server::start().await);
    two.set_slot(2_000);
    let mut config = config([&one, &two]);
    (config.hedge_after_min, config.hedge_after_max) = (Duration::from_millis(500), Duration::from_millis(500));
    let rpc = Rpc::new(config).unwrap();
    rpc.check_clusters().await.unwrap();
    one.turn(Mood::Hangs);
    assert_eq!(balance(&rpc).await, 2_000);
    until("the loser's cancellation", || one.cancelled() == 1).await;
    let (asked, answered) = (one.count("getBalance"), two.count("getBalance"));
    for _ in 0..30 {
        assert_eq!((balance(&rpc).await, rpc.current()), (2_000, 1));
    }
    assert_eq!(two.count("getBalance"), answered + 30, "every call starts at the one that answers");
    // Where this machine itself stalls, the other one may be asked as well, until its circuit opens.
    assert!(one.count("getBalance") <= asked + 3);
}

#[tokio::test]
async fn a_lone_endpoint_whose_connection_broke_without_a_word_is_asked_over_another_one() {
    let one = Server::start().await;
    let mut config = config([&one]);
    (config.hedge_after_min, config.hedge_after_max) = (Duration::from_millis(50), Duration::from_millis(50));
    let rpc = Rpc::new(config).unwrap();
    rpc.check_clusters().await.unwrap();
    // Only the first request hangs.
    one.next([Mood::Hangs]);
    balance(&rpc).await;
    assert_eq!((one.count("getBalance"), circuits(&rpc)), (2, vec![Circuit::Closed]));
    until("the first one's cancellation", || one.cancelled() == 1).await;
}

#[tokio::test]
async fn a_primary_that_hangs_from_the_beginning_costs_no_call_its_time_out() {
    let (one, two) = (Server::start().await, Server::start().await);
    one.turn(Mood::Hangs);
    let rpc = client([&one, &two]);
    for _ in 0..10 {
        balance(&rpc).await;
    }
    assert_eq!((one.count("getGenesisHash"), one.count("getBalance"), two.count("getBalance")), (1, 0, 10));
}

#[tokio::test]
async fn no_call_starts_at_a_dead_primary_until_a_probe_was_answered() {
    let (one, two) = (Server::start().await, Server::start().await);
    let rpc = client([&one, &two]);
    balance(&rpc).await;
    one.turn(Mood::Slams);
    balance(&rpc).await;
    let asked = one.count("getBalance");
    read_until(&rpc, "three probes", || one.count("getGenesisHash") >= 4).await;
    assert_eq!(one.count("getBalance"), asked, "only probes go there");
    one.turn(Mood::Well);
    read_until(&rpc, "the circuit's closing", || circuits(&rpc) == [Circuit::Closed; 2]).await;
    assert_eq!(one.count("getBalance"), asked, "and the one that answered meanwhile keeps its place");
    two.turn(Mood::Slams);
    balance(&rpc).await;
    assert_eq!((one.count("getBalance"), rpc.current()), (asked + 1, 0));
}

#[tokio::test]
async fn an_endpoint_that_refuses_connections_is_left_and_found_again() {
    let (mut one, mut two) = (Server::start().await, Server::start().await);
    let rpc = client([&one, &two]);
    let mut events = rpc.endpoint_events();
    balance(&rpc).await;
    one.down().await;
    balance(&rpc).await;
    let opened = events.recv().await.unwrap();
    assert_eq!((opened.endpoint, opened.state), (one.name(), EndpointState::Resting));
    one.up().await;
    read_until(&rpc, "the circuit's closing", || circuits(&rpc) == [Circuit::Closed; 2]).await;
    let closed = events.recv().await.unwrap();
    assert_eq!((closed.endpoint, closed.state), (one.name(), EndpointState::InUse));
    two.down().await;
    balance(&rpc).await;
    assert_eq!(rpc.current(), 0);
}

#[tokio::test]
async fn with_everybody_down_calls_fail_typed_and_the_first_one_after_it_succeeds() {
    let (mut one, mut two) = (Server::start().await, Server::start().await);
    let mut config = config([&one, &two]);
    // No probe in the background can be what brings them back.
    (config.cooldown, config.cooldown_max) = (Duration::from_secs(600), Duration::from_secs(600));
    let rpc = Rpc::new(config).unwrap();
    balance(&rpc).await;
    one.down().await;
    two.down().await;
    for _ in 0..3 {
        let error = within(rpc.balance(WHO)).await.unwrap_err();
        assert!(matches!(error, ChainError::Unreachable { .. }) && matches!(error.retry(), Retry::After(_)), "{error:?}");
    }
    assert_eq!(circuits(&rpc), [Circuit::Open; 2]);
    two.up().await;
    balance(&rpc).await;
    assert_eq!((circuits(&rpc), rpc.current()), (vec![Circuit::Open, Circuit::Closed], 1));
}

#[tokio::test]
async fn a_herd_of_calls_during_an_outage_probes_each_endpoint_once_at_a_time() {
    let one = Server::start().await;
    let rpc = client([&one]);
    balance(&rpc).await;
    one.turn(Mood::Slams);
    rpc.balance(WHO).await.unwrap_err();
    let before = one.count("getGenesisHash");
    one.turn(Mood::Hangs);
    let calls: Vec<_> = (0..50)
        .map(|_| {
            let rpc = rpc.clone();
            tokio::spawn(async move { rpc.balance(WHO).await })
        })
        .collect();
    until("a probe", || one.count("getGenesisHash") > before).await;
    one.turn(Mood::Well);
    for call in calls {
        within(call).await.unwrap().unwrap();
    }
    // One herd, one probe; those of the background in between are one at a time as well.
    assert!(one.count("getGenesisHash") <= before + 3, "{}", one.count("getGenesisHash") - before);
}

#[tokio::test]
async fn broken_answers_move_on_and_a_series_of_them_opens_the_circuit() {
    for mood in [Mood::Babbles, Mood::Status(502, String::new()), Mood::Code(-32_005)] {
        let (one, two) = (Server::start().await, Server::start().await);
        let rpc = client([&one, &two]);
        balance(&rpc).await;
        one.turn(mood.clone());
        for _ in 0..10 {
            balance(&rpc).await;
        }
        assert_eq!((one.count("getBalance"), two.count("getBalance")), (2, 10), "{mood:?}");
        // What answers badly for long is given up: the second one now fails for good, and the first still babbles.
        two.turn(Mood::Slams);
        rpc.balance(WHO).await.unwrap_err();
        rpc.balance(WHO).await.unwrap_err();
        assert!(circuits(&rpc).iter().all(|circuit| *circuit != Circuit::Closed), "{mood:?}");
    }
}

#[tokio::test]
async fn errors_are_told_apart_by_code_whatever_their_text_says() {
    let (one, two) = (Server::start().await, Server::start().await);
    let rpc = client([&one, &two]);
    balance(&rpc).await;
    one.next([Mood::Code(-32_602)]);
    let refused = rpc.balance(WHO).await.unwrap_err();
    assert!(matches!(refused, ChainError::Refused { code: -32_602, .. }) && refused.retry() == Retry::Never);
    assert_eq!(two.count("getBalance"), 0, "what everybody would refuse is asked once");
    one.next([Mood::Code(-32_601)]);
    balance(&rpc).await;
    assert_eq!((two.count("getBalance"), rpc.current()), (1, 0), "what one can't do another may; it keeps its place");
}

#[tokio::test]
async fn an_account_that_does_not_exist_takes_one_request_to_report() {
    let (one, two) = (Server::start().await, Server::start().await);
    let rpc = client([&one, &two]);
    assert_eq!(rpc.account(WHO).await.unwrap(), None);
    assert_eq!((one.count("getAccountInfo"), two.count("getAccountInfo")), (1, 0));
}

#[tokio::test]
async fn a_call_has_a_deadline_in_all_whatever_its_endpoints_do() {
    let (one, two) = (Server::start().await, Server::start().await);
    let mut config = config([&one, &two]);
    (config.hedge_after_min, config.hedge_after_max) = (Duration::from_millis(1), Duration::from_millis(50));
    config.call_timeout = Duration::from_secs(2);
    let rpc = Rpc::new(config).unwrap();
    rpc.check_clusters().await.unwrap();
    one.turn(Mood::Hangs);
    two.turn(Mood::Hangs);
    let error = within(rpc.balance(WHO)).await.unwrap_err();
    assert!(matches!(error, ChainError::Timeout { .. }) && matches!(error.retry(), Retry::After(_)), "{error:?}");
    assert_eq!((one.count("getBalance"), two.count("getBalance")), (1, 1));
}

#[tokio::test]
async fn a_single_answer_has_a_time_out_and_the_next_endpoint_takes_over() {
    let (one, two) = (Server::start().await, Server::start().await);
    let mut config = config([&one, &two]);
    config.request_timeout = Duration::from_millis(300);
    let rpc = Rpc::new(config).unwrap();
    balance(&rpc).await;
    one.turn(Mood::Hangs);
    // Airdrops are not hedged: what is asked for twice comes twice.
    within(rpc.airdrop(WHO, Lamports(1))).await.unwrap();
    assert_eq!((one.count("requestAirdrop"), two.count("requestAirdrop")), (1, 1));
    assert_eq!(circuits(&rpc)[1], Circuit::Closed);
    assert_ne!(circuits(&rpc)[0], Circuit::Closed);
}

#[tokio::test]
async fn a_pair_without_one_half_serves_what_it_has() {
    let server = Server::start().await;
    let deaf = EndpointPair::parse("", "ws://127.0.0.1:9").unwrap();
    let rpc = Rpc::new(RpcConfig::new(vec![deaf.clone(), server.pair()])).unwrap();
    balance(&rpc).await;
    assert_eq!(rpc.health().len(), 1);
    assert_eq!(rpc.health()[0].pair, 1);
    assert!(rpc.pair_trusted(0), "there is nobody to ask which cluster it is on");
    let refused = Rpc::new(RpcConfig::new(vec![deaf]));
    assert!(matches!(refused.unwrap_err(), ChainError::Endpoint(EndpointError::NoRpc)));
}

#[tokio::test]
async fn the_thirty_third_endpoint_is_refused_and_thirty_two_are_served() {
    let server = Server::start().await;
    let rpc = Rpc::new(RpcConfig::new(vec![server.pair(); 32])).unwrap();
    balance(&rpc).await;
    assert_eq!((server.count("getGenesisHash"), server.count("getBalance")), (32, 1));
    let refused = Rpc::new(RpcConfig::new(vec![server.pair(); 33])).unwrap_err();
    assert!(matches!(refused, ChainError::Endpoint(EndpointError::Count { given: 33 })));
}

#[tokio::test]
async fn nothing_that_is_shown_holds_the_key_in_an_endpoint_s_url() {
    let (one, mut two) = (Server::start().await, Server::start().await);
    let rpc = client([&one, &two]);
    let mut events = rpc.endpoint_events();
    balance(&rpc).await;
    let mut shown = Vec::new();
    two.down().await;
    for mood in [Mood::Slams, Mood::Babbles, Mood::Status(401, String::new()), Mood::Status(500, String::new())] {
        one.turn(mood);
        let error = rpc.accounts(&[WHO, Address([8; 32])]).await.unwrap_err();
        shown.push(format!("{error} {error:?} {:?}", rpc));
    }
    shown.push(format!("{:?} {:?}", rpc.health(), events.recv().await.unwrap()));
    let shown = shown.concat();
    assert!(shown.contains(&one.name()) && !shown.contains("SECRET"), "{shown}");
}

#[tokio::test]
async fn health_tells_latency_errors_lag_and_who_is_first() {
    let (one, two) = (Server::start().await, Server::start().await);
    let mut config = config([&one, &two]);
    config.survey_every = Duration::from_millis(20);
    let rpc = Rpc::new(config).unwrap();
    assert!(rpc.health().iter().all(|health| health.latency_ms.is_none() && health.slot_lag.is_none()));
    two.set_slot(990);
    read_until(&rpc, "a survey", || rpc.health().iter().all(|health| health.slot_lag.is_some())).await;
    for _ in 0..8 {
        balance(&rpc).await;
    }
    let health = rpc.health();
    assert!(health[0].is_first && !health[1].is_first);
    assert_eq!((health[0].slot_lag, health[1].slot_lag), (Some(0), Some(10)));
    assert!(health[0].latency_ms.is_some() && health[0].p95_ms.is_some() && health[0].error_rate == 0.0);
    two.set_slot(1_000);
    one.turn(Mood::Slams);
    balance(&rpc).await;
    let health = rpc.health();
    assert!(health[0].error_rate > 0.0 && health[1].is_first, "{health:?}");
}
