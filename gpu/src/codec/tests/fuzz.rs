//! Hostile bytes, many of them: whatever is accepted must be what an honest sender would have written.

use rand_chacha::rand_core::RngCore;

use super::*;

const ROUNDS: u64 = 20_000;

struct Fuzzer {
    rng: ChaCha8Rng,
}

impl Fuzzer {
    fn below(&mut self, bound: usize) -> usize {
        self.rng.next_u64() as usize % bound.max(1)
    }

    /// One change of a kind that broken or hostile senders make; `other` is another valid payload,
    /// of the length that `bytes` has.
    fn mutate(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        let at = self.below(bytes.len());
        let run = at..(at + 1 + self.below(24)).min(bytes.len());
        match self.below(9) {
            0 => bytes.truncate(at),
            1 => bytes.extend((0..=self.below(8)).map(|byte| byte as u8)),
            2 => bytes[run].fill(0),
            3 => bytes[run].fill(0xff),
            4 => bytes[run.clone()].copy_from_slice(&other[run]),
            5 => bytes[run].reverse(),
            6 => self.rng.fill_bytes(&mut bytes[run]),
            7 => drop(bytes.splice(run, [])),
            _ => {
                let bit = self.below(8);
                bytes[at] ^= 1 << bit;
            }
        }
        if bytes.is_empty() {
            bytes.push(0);
        }
    }
}

/// Encodes again what was accepted.
fn again(layout: &Layout, valid: &ValidPayload<'_>) -> Vec<u8> {
    let encode = |index| {
        let part = layout.whole(index).unwrap();
        let selection = valid.decode(&part).unwrap();
        let k = layout.parameters()[index].k();
        let n = layout.parameters()[index].geometry().chunk_len();
        for indices in selection.indices.chunks(k) {
            assert!(indices.is_sorted_by(|a, b| a < b) && indices.iter().all(|&index| (index as usize) < n));
        }
        assert!(selection.values.iter().all(|value| value.is_finite()));
        let bytes = layout.encode_part(&part, &selection).unwrap();
        (part, bytes)
    };
    let parts: Vec<_> = (0..layout.parameters().len()).map(encode).collect();
    layout.assemble(&parts).unwrap()
}

#[test]
fn mutated_payloads_are_refused_or_canonical() {
    let specs = [spec("a", &[64, 32]), spec("b", &[35, 22]), spec("c", &[48])];
    // Both codes of index sets, both forms of values, all coefficients and one.
    let settings = [(16, 4, true), (16, 4, false), (32, 200, true), (8, 64, false), (64, 1, true), (5, 3, false)];
    let (mut accepted, mut refused) = (0, 0);
    for (chunk, topk, one_bit) in settings {
        let layout = Layout::new(&specs, chunk, topk, one_bit).unwrap();
        let (one, other) = (noisy_payload(&layout, 1), noisy_payload(&layout, 2));
        let mut fuzzer = Fuzzer { rng: ChaCha8Rng::seed_from_u64(chunk as u64) };
        let mut bytes = one.clone();
        for round in 0..ROUNDS / settings.len() as u64 {
            fuzzer.mutate(&mut bytes, &other);
            match layout.validate(&bytes) {
                Ok(valid) => {
                    assert_eq!(again(&layout, &valid), bytes, "round {round}");
                    accepted += 1;
                }
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    refused += 1;
                }
            }
            // Several changes on top of each other, then afresh.
            if round % 3 == 0 || bytes.len() != one.len() {
                bytes.clone_from(&one);
            }
        }
    }
    assert!(accepted > 1000 && refused > 1000, "{accepted} accepted, {refused} refused");
}
