//! Endpoints that lag, and slots that are lies.

use std::time::Duration;

use psyche_chain::Rpc;
use psyche_messages::Slot;

use crate::server::{Mood, Server};
use crate::support::{WHO, balance, client, config, read_until, within};

const ABSURD: u64 = u64::MAX / 2;

#[tokio::test]
async fn every_read_asks_for_a_state_no_older_than_any_that_was_seen() {
    let one = Server::start().await;
    let rpc = client([&one]);
    balance(&rpc).await;
    let before = one.asked().len();
    rpc.balance(WHO).await.unwrap();
    rpc.account(WHO).await.unwrap();
    rpc.accounts(&[WHO, WHO]).await.unwrap();
    rpc.token_balance(WHO).await.unwrap();
    rpc.block_height().await.unwrap();
    rpc.signatures(WHO, None, 5).await.unwrap();
    let reads = &one.asked()[before..];
    assert_eq!(reads.len(), 6);
    assert!(reads.iter().all(|asked| asked.min_slot == Some(1_000)), "{reads:?}");
}

#[tokio::test]
async fn a_lagging_primary_is_passed_over_and_then_not_started_at() {
    let (one, two) = (Server::start().await, Server::start().await);
    two.set_slot(1_100);
    let rpc = client([&one, &two]);
    balance(&rpc).await;
    rpc.note_slot(Slot(1_100));
    for _ in 0..10 {
        assert_eq!(balance(&rpc).await, 1_100);
    }
    assert_eq!((one.count("getBalance"), rpc.current()), (3, 1), "twice is enough to tell");
    assert_eq!(rpc.seen_slot(), Slot(1_100));
}

#[tokio::test]
async fn a_lagging_primary_is_found_out_by_surveys_though_it_answers() {
    let (one, two) = (Server::start().await, Server::start().await);
    let mut config = config([&one, &two]);
    config.survey_every = Duration::from_millis(20);
    let rpc = Rpc::new(config).unwrap();
    balance(&rpc).await;
    two.set_slot(1_100);
    read_until(&rpc, "the change of place", || rpc.current() == 1).await;
    assert!(rpc.health()[0].is_lagging);
    one.set_slot(1_101);
    read_until(&rpc, "the recovery", || !rpc.health()[0].is_lagging).await;
    assert_eq!(rpc.current(), 1, "but the other one keeps its place");
}

#[tokio::test]
async fn a_state_from_before_what_was_seen_is_no_answer_even_from_an_endpoint_that_ignores_the_question() {
    let (one, two) = (Server::start().await, Server::start().await);
    two.set_slot(1_050);
    one.ignore_min_slots();
    let rpc = client([&one, &two]);
    balance(&rpc).await;
    rpc.note_slot(Slot(1_050));
    for _ in 0..5 {
        assert_eq!(balance(&rpc).await, 1_050, "state never goes backwards");
    }
}

#[tokio::test]
async fn endpoints_that_lag_by_a_moment_are_waited_for() {
    let one = Server::start().await;
    let rpc = client([&one]);
    balance(&rpc).await;
    rpc.note_slot(Slot(1_005));
    let call = tokio::spawn({
        let rpc = rpc.clone();
        async move { rpc.balance(WHO).await }
    });
    crate::support::until("a second try", || one.count("getBalance") >= 3).await;
    one.set_slot(1_006);
    assert_eq!(within(call).await.unwrap().unwrap().0, 1_006);
}

#[tokio::test]
async fn an_endpoint_that_lagged_by_a_moment_is_asked_again_beside_one_that_hangs() {
    let (one, two) = (Server::start().await, Server::start().await);
    let mut config = config([&one, &two]);
    (config.hedge_after_min, config.hedge_after_max) = (Duration::from_millis(50), Duration::from_millis(50));
    let rpc = Rpc::new(config).unwrap();
    rpc.check_clusters().await.unwrap();
    two.turn(Mood::Hangs);
    one.next([Mood::Code(-32_016)]);
    assert_eq!(balance(&rpc).await, 1_000);
    assert_eq!((one.count("getBalance"), two.count("getBalance")), (2, 1));
}

#[tokio::test]
async fn a_notification_with_an_absurd_slot_does_not_blind_the_node() {
    let one = Server::start().await;
    let rpc = client([&one]);
    balance(&rpc).await;
    for slot in [ABSURD, u64::MAX] {
        rpc.note_slot(Slot(slot));
        assert_eq!(balance(&rpc).await, 1_000);
    }
    assert_eq!(one.count("getBalance"), 3, "it was not even asked for");
}

#[tokio::test]
async fn a_slot_that_nobody_ever_reaches_blinds_the_node_for_a_moment_only_and_only_once() {
    let (one, two) = (Server::start().await, Server::start().await);
    let rpc = client([&one, &two]);
    balance(&rpc).await;
    rpc.note_slot(Slot(3_000));
    assert_eq!(balance(&rpc).await, 1_000, "the floor was lowered to what was reached");
    assert_eq!(rpc.seen_slot(), Slot(1_000));
    let asked = one.count("getBalance") + two.count("getBalance");
    rpc.note_slot(Slot(3_001));
    assert_eq!(balance(&rpc).await, 1_000);
    assert_eq!(one.count("getBalance") + two.count("getBalance"), asked + 1, "hearsay has lost its credit");
}

#[tokio::test]
async fn an_endpoint_that_answers_from_an_absurd_slot_does_not_lock_the_others_out() {
    let (one, two) = (Server::start().await, Server::start().await);
    let mut config = config([&one, &two]);
    config.survey_every = Duration::from_millis(20);
    let rpc = Rpc::new(config).unwrap();
    read_until(&rpc, "a survey", || two.count("getSlot") > 0).await;
    one.set_slot(ABSURD);
    assert_eq!(balance(&rpc).await, ABSURD);
    assert_eq!(rpc.seen_slot(), Slot(1_000), "nobody is asked to reach that");
    one.turn(Mood::Slams);
    assert_eq!(balance(&rpc).await, 1_000);
}

#[tokio::test]
async fn of_three_endpoints_the_one_with_an_absurd_slot_is_not_asked_first() {
    let servers = [Server::start().await, Server::start().await, Server::start().await];
    let mut config = config(&servers);
    config.survey_every = Duration::from_millis(20);
    let rpc = Rpc::new(config).unwrap();
    servers[0].set_slot(ABSURD);
    read_until(&rpc, "the change of place", || rpc.current() != 0).await;
    assert_eq!((balance(&rpc).await, rpc.seen_slot()), (1_000, Slot(1_000)));
}
