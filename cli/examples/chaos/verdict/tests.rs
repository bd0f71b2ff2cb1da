use psyche_messages::Digest;

use super::super::record::Trained;
use super::*;

/// A node that trained ten rounds of 10 s, 9 s of each, and applied them.
fn record() -> Record {
    let mut record = Record { position: Some((10, Phase::Finished, 2)), ..Record::default() };
    for step in 1..=10_u32 {
        let began = u64::from(step) * 10_000;
        record.phases.push((began, step, Phase::RoundTrain));
        record.phases.push((began + 9_500, step, Phase::RoundWitness));
        let trained = Trained { loss: 5.0 - f64::from(step) * 0.1, samples: 4, ended_ms: began + 9_000, took_ms: 9_000.0 };
        record.trained.insert(step, trained);
        record.held.entry(step).or_default().insert(Digest([1; 32]));
    }
    record
}

#[test]
fn nodes_that_agree_to_the_end_contradict_nothing() {
    assert_eq!(contradictions(&[record(), record()]), Vec::<String>::new());
}

#[test]
fn each_broken_promise_is_named() {
    let with = |change: fn(&mut Record)| {
        let mut other = record();
        change(&mut other);
        contradictions(&[record(), other]).join("; ")
    };
    let differs = with(|node| node.held.entry(4).or_default().extend([Digest([2; 32])]));
    assert!(differs.contains("digests differ after 1 steps, first after step 4"), "{differs}");
    let behind = with(|node| drop(node.held.remove(&10)));
    assert!(behind.contains("node 2 ends after step Some(9), the run after Some(10)"), "{behind}");
    let gone = with(|node| node.position = Some((9, Phase::RoundTrain, 2)));
    assert!(gone.contains("node 2 did not see the end"), "{gone}");
    let idle = with(|node| node.trained.clear());
    assert!(idle.contains("node 2 trained nothing"), "{idle}");
    let other = with(|node| node.snapshot = Some((10, "other".to_owned())));
    assert!(other.contains("snapshots are not one"), "{other}");
}

#[test]
fn a_loss_within_noise_holds_and_one_beyond_does_not() {
    let calm: Vec<f64> = (0..60_u32).map(|step| 5.0 - f64::from(step) * 0.01 + f64::from(step % 2) * 0.02).collect();
    let shifted = |by: f64| calm.iter().map(|loss| loss + by).collect::<Vec<_>>();
    assert!(compare(&calm, &shifted(0.05)).holds());
    assert!(!compare(&calm, &shifted(0.2)).holds());
}

#[test]
fn utilisation_is_training_time_by_the_time_of_rounds_that_follow_each_other() {
    let told = utilisation(&[record()]);
    assert!(told.is_some_and(|told| told.rounds == 9 && (told.utilisation - 0.9).abs() < 1e-9), "{told:?}");
    // Batches that reach over the end of their rounds count where they were trained: nine tenths still.
    let mut overlapping = record();
    overlapping.trained.values_mut().for_each(|trained| trained.ended_ms += 5_000);
    let told = utilisation(&[overlapping]);
    assert!(told.is_some_and(|told| (told.utilisation - (9.0 * 9.0 - 4.0) / 90.0).abs() < 1e-9), "{told:?}");
    assert_eq!(utilisation(&[Record::default()]), None);
}
