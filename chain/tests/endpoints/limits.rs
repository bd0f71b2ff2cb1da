//! "Too many requests".

use std::time::Duration;

use psyche_chain::{ChainError, Rpc};
use psyche_messages::Retry;

use crate::server::{Mood, Server};
use crate::support::{WHO, balance, client, config, within};

fn limited(retry_after: &str) -> Mood {
    Mood::Status(429, format!("retry-after: {retry_after}\r\n"))
}

#[tokio::test]
async fn an_endpoint_that_asks_to_be_left_alone_is_while_another_answers() {
    let dates = "Sun, 06 Nov 1994 08:59:37 GMT\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT";
    for header in ["60", dates, "99999999999999999999"] {
        let (one, two) = (Server::start().await, Server::start().await);
        let rpc = client([&one, &two]);
        balance(&rpc).await;
        one.turn(limited(header));
        for _ in 0..20 {
            balance(&rpc).await;
        }
        assert_eq!((one.count("getBalance"), two.count("getBalance")), (2, 20), "{header}");
        let rest = rpc.health()[0].rate_limited_ms.unwrap();
        assert!((30_000..=300_000).contains(&rest), "{header}: {rest}");
    }
}

#[tokio::test]
async fn where_everybody_is_rate_limited_the_soonest_is_waited_for() {
    let (one, two) = (Server::start().await, Server::start().await);
    two.set_slot(2_000);
    let rpc = client([&one, &two]);
    balance(&rpc).await;
    one.next([limited("200")]);
    two.next([limited("1")]);
    assert_eq!(balance(&rpc).await, 2_000, "the second one's rest is the shorter one");
    assert_eq!((one.count("getBalance"), two.count("getBalance")), (2, 2), "nobody was asked while it rested");
}

#[tokio::test]
async fn a_rest_beyond_the_call_s_deadline_is_not_waited_for() {
    let one = Server::start().await;
    let mut config = config([&one]);
    config.call_timeout = Duration::from_secs(100);
    let rpc = Rpc::new(config).unwrap();
    balance(&rpc).await;
    one.turn(limited("200"));
    for _ in 0..3 {
        let error = within(rpc.balance(WHO)).await.unwrap_err();
        assert!(matches!(error, ChainError::Http { status: 429, retry_after: Some(_), .. }), "{error:?}");
        assert!(matches!(error.retry(), Retry::After(_)));
    }
    assert_eq!(one.count("getBalance"), 2, "it was asked once, and then left alone");
}

#[tokio::test]
async fn an_endpoint_that_is_rate_limited_from_the_beginning_is_asked_for_its_cluster_later() {
    let (one, two) = (Server::start().await, Server::start().await);
    one.turn(limited("100"));
    let rpc = client([&one, &two]);
    balance(&rpc).await;
    assert_eq!((one.count("getGenesisHash"), one.count("getBalance"), two.count("getBalance")), (1, 0, 1));
    let alone = Server::start().await;
    alone.turn(limited("1"));
    let rpc = client([&alone]);
    let call = tokio::spawn({
        let rpc = rpc.clone();
        async move { rpc.balance(WHO).await }
    });
    crate::support::until("the first refusal", || alone.count("getGenesisHash") == 1).await;
    alone.turn(Mood::Well);
    within(call).await.unwrap().unwrap();
    assert_eq!((alone.count("getGenesisHash"), alone.count("getBalance")), (2, 1));
}

#[tokio::test]
async fn a_refusal_in_json_and_an_overload_that_names_its_end_count_as_rate_limits() {
    for mood in [Mood::Code(429), Mood::Code(-32_429), Mood::Status(503, "retry-after: 60\r\n".into())] {
        let (one, two) = (Server::start().await, Server::start().await);
        let rpc = client([&one, &two]);
        balance(&rpc).await;
        one.next([mood.clone()]);
        balance(&rpc).await;
        assert_eq!((one.count("getBalance"), two.count("getBalance")), (2, 1));
        assert!(rpc.health()[0].rate_limited_ms.is_some(), "{mood:?}");
    }
}
