#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

use super::*;

fn specs() -> Vec<ParameterSpec> {
    let spec = |name: &str, shape: &[usize]| ParameterSpec { name: name.into(), shape: shape.to_vec() };
    vec![spec("a", &[96, 32]), spec("b", &[48]), spec("c", &[24, 80])]
}

fn layout() -> Layout {
    Layout::new(&specs(), 8, 2, true).unwrap()
}

fn tensor(index: usize, len: usize) -> Vec<f32> {
    (0..len).map(|i| (i * 31 + index * 7) as f32 / 64.0 - 10.0).collect()
}

/// Digests a model whose parts have `owners`, each with some threads; `change` may edit the tensors first.
fn root(layout: &Layout, owners: usize, threads: usize, change: impl Fn(usize, &mut [f32])) -> [u8; 32] {
    let mut owned = Vec::new();
    for part in layout.split(owners).into_iter().flatten().rev() {
        let mut whole = tensor(part.parameter(), layout.whole(part.parameter()).unwrap().elements().len());
        change(part.parameter(), &mut whole);
        let digests = block_digests(layout, &part, &whole[part.elements()], Threads::new(threads)).unwrap();
        owned.push((part, digests));
    }
    combine(&parameter_digests(layout, &owned).unwrap())
}

#[test]
fn owners_and_threads_do_not_change_the_digest() {
    let layout = layout();
    let one = root(&layout, 1, 1, |_, _| {});
    for (owners, threads) in [(1, 4), (2, 1), (3, 2), (7, 1), (100, 3)] {
        assert_eq!(root(&layout, owners, threads, |_, _| {}), one);
    }
    assert_eq!(blake3::Hash::from(one).to_hex().as_str(), include_str!("../../tests/golden/digest.txt").trim());
}

#[test]
fn one_changed_bit_anywhere_changes_the_digest() {
    let layout = layout();
    let one = root(&layout, 1, 1, |_, _| {});
    for (parameter, element) in [(0, 0), (0, 3071), (1, 20), (2, 1919)] {
        let changed = root(&layout, 1, 1, |index, whole| {
            if index == parameter {
                whole[element] = f32::from_bits(whole[element].to_bits() ^ 1);
            }
        });
        assert_ne!(changed, one);
    }
}

#[test]
fn names_and_shapes_are_part_of_the_digest_but_order_is_not() {
    let plain = root(&layout(), 1, 1, |_, _| {});
    for edit in [|s: &mut ParameterSpec| s.name = "x".into(), |s: &mut ParameterSpec| s.shape = vec![32, 96]] {
        let mut specs = specs();
        edit(&mut specs[0]);
        assert_ne!(root(&Layout::new(&specs, 8, 2, true).unwrap(), 1, 1, |_, _| {}), plain);
    }
    let digests = ["b", "a"].map(|name| ParameterDigest { name: name.into(), digest: [name.len() as u8; 32] });
    let mut reversed = digests.clone();
    reversed.reverse();
    assert_eq!(combine(&digests), combine(&reversed));
    assert_ne!(combine(&digests), combine(&digests[..1]));
}

#[test]
fn missing_and_doubled_parts_are_refused() {
    let layout = layout();
    let all: Vec<_> = (0..3)
        .map(|index| {
            let part = layout.whole(index).unwrap();
            let rows = tensor(index, part.elements().len());
            let digests = block_digests(&layout, &part, &rows, Threads::ONE).unwrap();
            (part, digests)
        })
        .collect();
    assert!(parameter_digests(&layout, &all).is_ok());
    for missing in 0..3 {
        let mut some = all.clone();
        some.remove(missing);
        assert!(matches!(parameter_digests(&layout, &some), Err(CodecError::Coverage { .. })));
        some.push(all[(missing + 1) % 3].clone());
        assert!(matches!(parameter_digests(&layout, &some), Err(CodecError::Coverage { .. })));
    }
    let mut short = all;
    short[0].1.pop();
    assert!(matches!(parameter_digests(&layout, &short), Err(CodecError::BufferLength { .. })));
    let part = layout.whole(0).unwrap();
    assert!(block_digests(&layout, &part, &[0.0; 3], Threads::ONE).is_err());
}
