use std::collections::HashSet;

use super::super::bits::{BitReader, BitWriter};
use super::super::subset::SubsetCode;

fn write(code: &SubsetCode, indices: &[u32]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut out = BitWriter::new(&mut bytes);
    code.write(indices, &mut out);
    out.finish();
    bytes
}

fn subsets(n: u32, k: usize) -> Vec<Vec<u32>> {
    (0..1_u32 << n)
        .filter(|set| set.count_ones() as usize == k)
        .map(|set| (0..n).filter(|i| set >> i & 1 == 1).collect())
        .collect()
}

#[test]
fn every_code_of_small_sets_is_canonical_and_everything_else_is_refused() {
    for n in 1..=9_u32 {
        for k in 1..=n as usize {
            for code in [SubsetCode::new(n as usize, k), SubsetCode::elias_fano(n as usize, k)] {
                let all = subsets(n, k);
                let codes: HashSet<Vec<u8>> = all.iter().map(|indices| write(&code, indices)).collect();
                assert_eq!(codes.len(), all.len());
                let mut accepted = 0;
                for bits in 0..1_u64 << code.bits() {
                    let bytes = bits.to_le_bytes();
                    let mut indices = vec![0; k];
                    if code.read(&mut BitReader::at(&bytes, 0), &mut indices) {
                        accepted += 1;
                        assert_eq!(write(&code, &indices), bytes[..code.bits().div_ceil(8)], "n {n}, k {k}");
                    }
                    assert!(indices.iter().all(|&index| index < n));
                }
                assert_eq!(accepted, all.len(), "n {n}, k {k}");
            }
        }
    }
}

#[test]
fn lengths_are_those_of_the_documentation() {
    // Ceilings of log2 C(n, k), computed with another program.
    for (n, k, bits) in
        [(4096, 8, 81), (4096, 13, 124), (1024, 8, 65), (64, 8, 33), (64, 64, 0), (65536, 8, 113), (128, 64, 125)]
    {
        assert_eq!(SubsetCode::new(n, k).bits(), bits, "n {n}, k {k}");
    }
    // Elias–Fano: k · l + k + ⌊(n − 1) / 2^l⌋ with l = 7, 6 and 0.
    for (n, k, bits) in [(4096, 32, 32 * 7 + 32 + 31), (4096, 64, 64 * 6 + 64 + 63), (65536, 65536, 65536 + 65535)] {
        assert_eq!(SubsetCode::new(n, k).bits(), bits, "n {n}, k {k}");
    }
}

#[test]
fn extreme_sets_survive_both_codes() {
    for (n, k) in [(4096, 8), (4096, 13), (4096, 32), (65536, 9), (65536, 40), (1024, 1020), (256, 250), (5000, 2500)] {
        let low: Vec<u32> = (0..k as u32).collect();
        let high: Vec<u32> = (0..k).map(|i| (n - k + i) as u32).collect();
        let spread: Vec<u32> = (0..k).map(|i| (i * (n - 1) / (k - 1)) as u32).collect();
        for code in [SubsetCode::new(n, k), SubsetCode::elias_fano(n, k)] {
            for set in [&low, &high, &spread] {
                let bytes = write(&code, set);
                let mut read = vec![0; k];
                assert!(code.read(&mut BitReader::at(&bytes, 0), &mut read));
                assert_eq!(&read, set, "n {n}, k {k}");
            }
        }
    }
}

#[test]
fn a_rank_that_names_no_set_is_refused() {
    let code = SubsetCode::new(4096, 8);
    let mut indices = [0; 8];
    assert!(!code.read(&mut BitReader::at(&[0xff; 11], 0), &mut indices));
    let last: Vec<u32> = (4088..4096).collect();
    let mut bytes = write(&code, &last);
    assert!(code.read(&mut BitReader::at(&bytes, 0), &mut indices));
    // The last set has the largest rank: one more is none.
    let rank = bytes.iter().rev().fold(0_u128, |rank, &byte| rank << 8 | u128::from(byte)) + 1;
    let used = bytes.len();
    bytes.copy_from_slice(&rank.to_le_bytes()[..used]);
    assert!(!code.read(&mut BitReader::at(&bytes, 0), &mut indices));
}

#[test]
fn bits_come_back_as_they_were_written_at_any_offset() {
    let values = [(1_u64, 1), (0x1ff, 9), (0, 3), (u64::MAX, 64), (0x1234_5678_9abc, 49), (5, 3), (u64::MAX >> 1, 63)];
    let mut bytes = Vec::new();
    let mut out = BitWriter::new(&mut bytes);
    values.iter().for_each(|&(value, count)| out.push(value, count));
    out.push_wide(u128::MAX >> 7, 121);
    out.finish();
    let mut reader = BitReader::at(&bytes, 0);
    for (value, count) in values {
        assert_eq!(reader.take(count), value);
    }
    assert_eq!(reader.take_wide(121), u128::MAX >> 7);
    // Past the end there are only zeros.
    assert_eq!(reader.take_wide(128), 0);
}
