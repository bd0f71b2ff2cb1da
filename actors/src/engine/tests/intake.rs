//! Messages of peers.

use psyche_messages::{Address, BatchInterval, BlobHash, RoundMessage};

use super::desk::{Desk, PAYLOAD_LEN, address, peer, warned};
use crate::engine::{Effect, Event};

fn fetched(effects: &[Effect]) -> Vec<BlobHash> {
    let blob = |effect: &Effect| if let Effect::Fetch { blob, .. } = effect { Some(*blob) } else { None };
    effects.iter().filter_map(blob).collect()
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
fn two_results_of_one_trainer_void_each_other() {
    let mut desk = Desk::in_training(3);
    desk.show();
    desk.exchange();
    let mut second = desk.result(1);
    second.payload = BlobHash([99; 32]);
    let effects = desk.hear(1, RoundMessage::Result(second.clone()));
    assert!(warned(&effects, "announced two results"));
    assert!(fetched(&effects).is_empty());
    assert!(!warned(&desk.hear(1, RoundMessage::Result(second)), "announced two results"), "warned twice");
    desk.next_round(&[]);
    desk.show();
    desk.exchange();
    // The others' results are vouched for, the liar's is not, and the time is waited out for it.
    let effects = desk.wait_ms(16_000);
    let manifest = effects.iter().find_map(|effect| match effect {
        Effect::StoreManifest(manifest) => Some(manifest.clone()),
        _ => None,
    });
    let trainers: Vec<_> = manifest.unwrap().entries.iter().map(|entry| entry.result.trainer).collect();
    assert_eq!(trainers.len(), 2);
    assert!(trainers.contains(&address(0)) && trainers.contains(&address(2)));
}
