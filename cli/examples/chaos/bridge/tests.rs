#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

use super::*;

/// 80 ms there and back, 1 %, 50 Mbit/s.
const SHAPE: Shape = Shape { delay_ns: 40_000_000, loss_per_million: 10_000, rate_bits: 50_000_000 };

fn frame(to: [u8; 6], len: usize) -> Vec<u8> {
    let mut frame = vec![0; len];
    frame[..6].copy_from_slice(&to);
    frame
}

fn arrivals(bridge: &mut Bridge) -> Vec<(u64, usize)> {
    let mut seen = Vec::new();
    while let Some(at) = bridge.next_ns() {
        while let Some((port, _)) = bridge.due(at) {
            seen.push((at, port));
        }
    }
    seen
}

#[test]
fn a_frame_arrives_after_half_the_round_trip_and_its_own_length_and_not_before() {
    let mut bridge = Bridge::new(&[false, false], Shape { loss_per_million: 0, ..SHAPE }, 1);
    bridge.take(5, 0, &frame(Bridge::address(1), 1250));
    let at = 5 + 40_000_000 + 200_000;
    assert_eq!(bridge.next_ns(), Some(at));
    assert!(bridge.due(at - 1).is_none());
    assert_eq!(bridge.due(at).unwrap().0, 1);
    assert_eq!(bridge.counts(), Counts { carried: 1, carried_bytes: 1250, ..Counts::default() });
}

#[test]
fn one_frame_in_a_hundred_is_lost_and_the_same_ones_for_the_same_seed() {
    let lost = |seed| {
        let mut bridge = Bridge::new(&[false, false], SHAPE, seed);
        let mut lost = Vec::new();
        for number in 0..100_000_u64 {
            let before = bridge.counts().lost;
            bridge.take(number * 1_000_000, 0, &frame(Bridge::address(1), 64));
            while bridge.due(number * 1_000_000).is_some() {}
            if bridge.counts().lost > before {
                lost.push(number);
            }
        }
        lost
    };
    let first = lost(7);
    // 1,000 are expected; six standard deviations are 189.
    assert!((811..=1189).contains(&first.len()), "{}", first.len());
    assert_eq!(first, lost(7));
    assert_ne!(first, lost(8));
}

#[test]
fn a_downlink_passes_no_more_than_its_rate_and_drops_what_it_can_t_keep() {
    let mut bridge = Bridge::new(&[false, false, false], Shape { loss_per_million: 0, ..SHAPE }, 1);
    // Two senders with 50 Mbit/s each, for a second.
    for number in 0..5_000_u64 {
        for from in [0, 1] {
            bridge.take(number * 200_000, from, &frame(Bridge::address(2), 1250));
        }
    }
    let counts = bridge.counts();
    let seen = arrivals(&mut bridge);
    let (first, last) = (seen.first().unwrap().0, seen.last().unwrap().0);
    let bits = (seen.len() as u64 - 1) * 10_000;
    assert_eq!(bits * 1_000_000_000 / (last - first), 50_000_000);
    assert_eq!(seen.len() as u64 + counts.overflowed, 10_000);
    assert!((4_000..=4_600).contains(&counts.overflowed), "{counts:?}");
}

#[test]
fn what_goes_to_or_comes_from_a_near_host_passes_at_once_and_whole() {
    let everything = Shape { loss_per_million: 1_000_000, ..SHAPE };
    let mut bridge = Bridge::new(&[true, false, false], everything, 1);
    bridge.take(0, 0, &frame(Bridge::address(1), 1000));
    bridge.take(0, 2, &frame(Bridge::address(0), 1000));
    bridge.take(0, 1, &frame(Bridge::address(2), 1000));
    let ports: Vec<_> = std::iter::from_fn(|| bridge.due(0)).map(|(port, _)| port).collect();
    assert_eq!(ports, [0, 1]);
    assert_eq!((bridge.counts().near, bridge.counts().lost), (2, 1));
}

#[test]
fn a_broadcast_reaches_all_others_and_what_is_no_frame_nobody() {
    let mut bridge = Bridge::new(&[false; 4], Shape { loss_per_million: 0, ..SHAPE }, 1);
    bridge.take(0, 1, &frame([0xff; 6], 64));
    bridge.take(0, 1, &[0xff; HEADER - 1]);
    bridge.take(0, 1, &frame(Bridge::address(9), 64));
    let mut ports: Vec<_> = arrivals(&mut bridge).into_iter().map(|(_, port)| port).collect();
    ports.sort_unstable();
    assert_eq!(ports, [0, 2, 3]);
}
