//! Messages of peers.

use psyche_messages::{Address, BatchInterval, BlobHash, Evidence, ManifestEntry, ResultAnnounced, RoundMessage};
use psyche_protocol::layout::ClientState;

use super::desk::{Desk, PAYLOAD_LEN, RUN_TAG, address, peer, warned};
use crate::engine::{Effect, Event};

fn fetched(effects: &[Effect]) -> Vec<BlobHash> {
    let blob = |effect: &Effect| if let Effect::Fetch { blob, .. } = effect { Some(*blob) } else { None };
    effects.iter().filter_map(blob).collect()
}

/// Whom this node accuses before everybody.
fn accused(effects: &[Effect]) -> Vec<Address> {
    let accused = |effect: &Effect| match effect {
        Effect::Publish(RoundMessage::Evidence(evidence)) => Some(evidence.first.result.trainer),
        _ => None,
    };
    effects.iter().filter_map(accused).collect()
}

/// For whose results this node vouches as soon as its own batch of the round in work is trained.
fn vouched(desk: &mut Desk) -> Vec<Address> {
    let ResultAnnounced { round, payload, payload_len, .. } = desk.result(0);
    let effects = desk.tell(Event::Trained { round, payload, payload_len, loss: 1.0, tokens_per_second: 1.0 });
    let manifest = effects.iter().find_map(|effect| match effect {
        Effect::StoreManifest(manifest) => Some(manifest),
        _ => None,
    });
    manifest.unwrap().entries.iter().map(|entry| entry.result.trainer).collect()
}

fn entry(client: u8, result: &ResultAnnounced) -> ManifestEntry {
    ManifestEntry { from: peer(client), result: result.clone(), signature: [client; 64] }
}

#[test]
fn a_clients_result_for_its_batch_is_fetched_from_it_first() {
    let mut desk = Desk::in_training(3);
    desk.tell(Event::PeerConnected(peer(2)));
    desk.show();
    let result = desk.result(1);
    let effects = desk.hear(1, RoundMessage::Result(result.clone()));
    let providers = effects.iter().find_map(|effect| match effect {
        Effect::Fetch { blob, providers, len, .. } if *blob == result.payload && *len == PAYLOAD_LEN => Some(providers.clone()),
        _ => None,
    });
    assert_eq!(providers, Some(vec![peer(1), peer(2)]));
    assert!(fetched(&desk.hear(1, RoundMessage::Result(result))).is_empty(), "fetched twice");
}

#[test]
fn a_result_that_breaks_a_rule_is_not_fetched() {
    let mut desk = Desk::in_training(3);
    desk.show();
    let good = desk.result(1);
    let cases = [
        ("another's batch", 1, {
            let mut bad = good.clone();
            bad.batch = desk.result(2).batch;
            bad
        }),
        ("a part of the batch", 1, {
            let mut bad = good.clone();
            bad.batch = BatchInterval::new(bad.batch.start(), bad.batch.start()).unwrap();
            bad
        }),
        ("a wrong length", 1, {
            let mut bad = good.clone();
            bad.payload_len += 1;
            bad
        }),
        ("another's name", 2, good.clone()),
        ("a stranger's name", 1, {
            let mut bad = good.clone();
            bad.trainer = Address([77; 32]);
            bad
        }),
        ("an old epoch", 1, {
            let mut bad = good.clone();
            bad.round.epoch.0 += 1;
            bad
        }),
        ("a stranger's key", 60, good.clone()),
    ];
    for (case, from, result) in cases {
        assert!(fetched(&desk.hear(from, RoundMessage::Result(result))).is_empty(), "{case}");
    }
    assert_eq!(fetched(&desk.hear(1, RoundMessage::Result(good.clone()))), [good.payload]);
}

#[test]
fn a_message_that_is_ahead_of_the_chain_is_kept_until_the_chain_shows_its_round() {
    let mut desk = Desk::in_training(3);
    desk.show();
    desk.exchange();
    desk.next_round(&[]);
    let ahead = desk.result(1);
    assert!(fetched(&desk.hear(1, RoundMessage::Result(ahead.clone()))).is_empty());
    assert_eq!(fetched(&desk.show()), [ahead.payload]);
}

#[test]
fn a_late_result_of_the_round_before_counts_although_another_client_left_in_between() {
    let mut desk = Desk::in_training(4);
    desk.show();
    desk.exchange();
    desk.next_round(&[]);
    desk.show();
    let late = desk.result(3);
    let left = desk.account.client_index(&address(2).0).unwrap();
    let before = desk.account.client_index(&address(3).0).unwrap();
    desk.account.state.coordinator.epoch_state.clients.as_mut_slice()[left].state = ClientState::Dropped as u8;
    desk.train();
    desk.next_round(&[]);
    desk.show();
    assert_ne!(desk.account.client_index(&address(3).0), Some(before), "the others moved up");
    // What it was to train follows from the clients of its own round, and not from those of now.
    assert_eq!(fetched(&desk.hear(3, RoundMessage::Result(late.clone()))), [late.payload]);
}

#[test]
fn two_results_of_one_trainer_void_each_other() {
    let mut desk = Desk::in_training(3);
    desk.show();
    desk.exchange();
    let mut second = desk.result(1);
    second.payload = BlobHash([99; 32]);
    let effects = desk.hear(1, RoundMessage::Result(second.clone()));
    assert!(warned(&effects, "announced two results"));
    assert_eq!(accused(&effects), [address(1)]);
    assert!(fetched(&effects).is_empty());
    assert!(!warned(&desk.hear(1, RoundMessage::Result(second)), "announced two results"), "warned twice");
    desk.next_round(&[]);
    desk.show();
    // The others' results are vouched for at once: the liar is not waited for.
    let trainers = vouched(&mut desk);
    assert_eq!(trainers.len(), 2);
    assert!(trainers.contains(&address(0)) && trainers.contains(&address(2)));
}

/// What is wrong with evidence, and how it gets that way.
type Forgery = (&'static str, fn(&mut ManifestEntry));

/// A first and another result of client 1, as a peer that heard both shows them.
fn evidence(desk: &Desk) -> (ResultAnnounced, Evidence) {
    let first = desk.result(1);
    let second = ResultAnnounced { payload: BlobHash([99; 32]), ..first.clone() };
    let evidence = Evidence::of(entry(1, &first), entry(1, &second), &RUN_TAG).unwrap();
    (first, evidence)
}

#[test]
fn what_another_node_found_out_about_a_liar_voids_the_result_here_too() {
    let mut desk = Desk::in_training(3);
    desk.show();
    desk.exchange();
    let (_, evidence) = evidence(&desk);
    let effects = desk.hear(2, RoundMessage::Evidence(Box::new(evidence.clone())));
    assert!(warned(&effects, "announced two results"));
    assert!(accused(&effects).is_empty(), "gossip reaches everybody already");
    assert!(desk.hear(2, RoundMessage::Evidence(Box::new(evidence))).is_empty(), "it is no news the second time");
    desk.next_round(&[]);
    desk.show();
    let trainers = vouched(&mut desk);
    assert!(trainers.len() == 2 && !trainers.contains(&address(1)));
}

#[test]
fn evidence_convicts_whoever_is_heard_of_only_through_it_and_nobody_where_it_breaks_a_rule() {
    let mut desk = Desk::in_training(3);
    desk.show();
    let (first, good) = evidence(&desk);
    let changed = |change: fn(&mut ManifestEntry)| {
        let mut bad = good.clone();
        change(&mut bad.first);
        change(&mut bad.second);
        bad
    };
    let cases: [Forgery; 4] = [
        ("a stranger's key", |entry| entry.from = peer(60)),
        ("another's key", |entry| entry.from = peer(2)),
        ("a stranger", |entry| entry.result.trainer = Address([77; 32])),
        ("a wrong length", |entry| entry.result.payload_len += 1),
    ];
    for (case, change) in cases {
        let effects = desk.hear(2, RoundMessage::Evidence(Box::new(changed(change))));
        assert!(!warned(&effects, "announced two results"), "{case}");
    }
    assert!(warned(&desk.hear(2, RoundMessage::Evidence(Box::new(good))), "announced two results"));
    assert!(fetched(&desk.hear(1, RoundMessage::Result(first))).is_empty(), "a convict's result is not fetched");
}

#[test]
fn evidence_that_is_ahead_of_the_chain_is_kept_until_the_chain_shows_its_round() {
    let mut desk = Desk::in_training(3);
    desk.show();
    desk.exchange();
    desk.next_round(&[]);
    let (_, evidence) = evidence(&desk);
    assert!(!warned(&desk.hear(2, RoundMessage::Evidence(Box::new(evidence))), "announced two results"));
    assert!(warned(&desk.show(), "announced two results"));
}
