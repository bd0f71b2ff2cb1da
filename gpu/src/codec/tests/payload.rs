use proptest::prelude::*;
use rand_chacha::rand_core::RngCore;

use super::*;

/// Every selection of a payload.
fn decode_all(layout: &Layout, payload: &[u8]) -> Result<Vec<Selection>, CodecError> {
    let valid = layout.validate(payload)?;
    (0..layout.parameters().len()).map(|index| valid.decode(&layout.whole(index)?)).collect()
}

fn bits_of(selections: &[Selection]) -> Vec<(Vec<u32>, Vec<u32>)> {
    selections.iter().map(|s| (s.indices.clone(), s.values.iter().map(|v| v.to_bits()).collect())).collect()
}

/// Small layouts of every kind.
fn any_layout() -> impl Strategy<Value = Layout> {
    let shape = prop::collection::vec(1..40_usize, 1..4);
    (prop::collection::vec(shape, 1..4), 1..17_usize, 1..40_usize, any::<bool>()).prop_map(|(shapes, chunk, topk, one_bit)| {
        let specs: Vec<_> = shapes.iter().enumerate().map(|(i, shape)| spec(&format!("p{i}"), shape)).collect();
        Layout::new(&specs, chunk, topk, one_bit).unwrap()
    })
}

#[test]
fn eight_of_4096_take_at_most_eleven_and_a_half_bytes_per_chunk() {
    for shape in [[64, 64 * 8], [64 * 16, 64], [64 * 3, 64 * 3], [4096, 256], [688, 256]] {
        let layout = Layout::new(&[spec("a", &shape)], 64, 8, true).unwrap();
        let g = layout.parameters()[0].geometry();
        let per_chunk = (layout.payload_len() - 1) as f64 / g.chunks() as f64;
        assert!(per_chunk <= 11.5, "{shape:?}: {per_chunk}");
        assert_eq!(noisy_payload(&layout, 1).len(), layout.payload_len());
    }
}

#[test]
fn one_bit_payloads_carry_signs_with_zero_as_plus_one() {
    let layout = Layout::new(&[spec("a", &[8, 8])], 8, 4, true).unwrap();
    let part = layout.whole(0).unwrap();
    let selection = Selection { indices: vec![0, 9, 40, 63], values: vec![-0.5, 0.0, 3.0, -1e-30] };
    let payload = layout.assemble(&[(part.clone(), layout.encode_part(&part, &selection).unwrap())]).unwrap();
    let decoded = layout.validate(&payload).unwrap().decode(&part).unwrap();
    assert_eq!(decoded.indices, selection.indices);
    assert_eq!(decoded.values, [-1.0, 1.0, 1.0, -1.0]);
}

#[test]
fn the_bytes_of_a_payload_are_the_committed_ones() {
    let specs = [spec("a", &[64 * 3, 64 * 3]), spec("b", &[40]), spec("c", &[64, 64])];
    for (file, topk, one_bit) in [
        (include_str!("../../../tests/golden/payload_one_bit.txt"), 8, true),
        (include_str!("../../../tests/golden/payload_bf16.txt"), 32, false),
    ] {
        let layout = Layout::new(&specs, 64, topk, one_bit).unwrap();
        let encode = |index| {
            let part = layout.whole(index).unwrap();
            let parameter = &layout.parameters()[index];
            let (n, k) = (parameter.geometry().chunk_len(), parameter.k());
            let mut selection = Selection::default();
            for chunk in part.chunks() {
                selection.indices.extend((0..k).map(|i| (i * (n / k) + (chunk + i * i) % (n / k)) as u32));
                let value = |i: usize| ((chunk * 7 + i * 5) % 11) as f32 - 5.0;
                selection.values.extend((0..k).map(value));
            }
            let bytes = layout.encode_part(&part, &selection).unwrap();
            (part, bytes)
        };
        let payload = layout.assemble(&[encode(0), encode(1), encode(2)]).unwrap();
        let hex: String = payload.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, file.split_whitespace().collect::<String>());
        assert!(layout.validate(&payload).is_ok());
    }
}

#[test]
fn bf16_payloads_round_to_nearest_even_and_stay_finite() {
    let layout = Layout::new(&[spec("a", &[1, 8])], 8, 8, false).unwrap();
    let part = layout.whole(0).unwrap();
    let largest = f32::from_bits(0x7f7f_0000);
    let values = vec![1.0, -0.0, f32::MAX, -f32::MAX, f32::from_bits(0x3f80_8000), f32::from_bits(0x3f81_8000), 1e-45, -2.5];
    let selection = Selection { indices: (0..8).collect(), values };
    let payload = layout.assemble(&[(part.clone(), layout.encode_part(&part, &selection).unwrap())]).unwrap();
    let decoded = layout.validate(&payload).unwrap().decode(&part).unwrap().values;
    assert_eq!(decoded, [1.0, 0.0, largest, -largest, 1.0, f32::from_bits(0x3f82_0000), 0.0, -2.5]);
    assert_eq!(decoded[1].to_bits(), 0);
}

#[test]
fn values_that_are_not_canonical_are_refused() {
    let layout = Layout::new(&[spec("a", &[1, 8])], 8, 8, false).unwrap();
    let part = layout.whole(0).unwrap();
    // Infinity, a NaN, minus zero. All 8 of 8 indices need no bits, so the values start at byte 1.
    for bits in [0x7f80_u16, 0xff80, 0x7fc1, 0x8000] {
        let selection = Selection { indices: (0..8).collect(), values: vec![1.0; 8] };
        let mut payload = layout.assemble(&[(part.clone(), layout.encode_part(&part, &selection).unwrap())]).unwrap();
        assert!(layout.validate(&payload).is_ok());
        payload[5..7].copy_from_slice(&bits.to_le_bytes());
        let refused = CodecError::PayloadValue { parameter: 0, chunk: 0 };
        assert_eq!(layout.validate(&payload).unwrap_err(), refused);
    }
}

#[test]
fn selections_that_do_not_fit_are_not_encoded() {
    let layout = Layout::new(&[spec("a", &[8, 8]), spec("b", &[8, 8])], 8, 2, true).unwrap();
    let part = layout.whole(0).unwrap();
    let encode = |indices: &[u32], values: &[f32]| {
        layout.encode_part(&part, &Selection { indices: indices.to_vec(), values: values.to_vec() })
    };
    assert!(encode(&[3, 63], &[1.0, 2.0]).is_ok());
    for indices in [[3, 3], [4, 3], [3, 64]] {
        assert_eq!(encode(&indices, &[1.0, 2.0]), Err(CodecError::IndexOrder { chunk: 0 }));
    }
    for bad in [f32::NAN, f32::INFINITY] {
        assert_eq!(encode(&[3, 4], &[1.0, bad]), Err(CodecError::NotFinite { chunk: 0 }));
    }
    assert!(matches!(encode(&[3], &[1.0]), Err(CodecError::BufferLength { .. })));
    assert!(matches!(encode(&[3, 4], &[1.0]), Err(CodecError::BufferLength { .. })));
    let foreign = Layout::new(&[spec("a", &[64, 64])], 8, 2, true).unwrap().whole(0).unwrap();
    let selection = Selection { indices: vec![3, 4], values: vec![1.0; 2] };
    assert!(matches!(layout.encode_part(&foreign, &selection), Err(CodecError::OutsideLayout { .. })));
    let bytes = layout.encode_part(&part, &selection).unwrap();
    assert!(matches!(layout.assemble(&[(part.clone(), &bytes)]), Err(CodecError::Coverage { .. })));
    let twice = [(part.clone(), &bytes), (part.clone(), &bytes)];
    assert!(matches!(layout.assemble(&twice), Err(CodecError::Coverage { .. })));
}

#[test]
fn payloads_of_another_length_or_format_are_refused() {
    let layout = mixed_layout(16, 4, true);
    let payload = noisy_payload(&layout, 9);
    let expected = payload.len();
    for actual in [0, 1, expected - 1] {
        let refused = CodecError::PayloadLength { expected, actual };
        assert_eq!(layout.validate(&payload[..actual]).unwrap_err(), refused);
    }
    let mut longer = payload.clone();
    longer.push(0);
    assert_eq!(layout.validate(&longer).unwrap_err(), CodecError::PayloadLength { expected, actual: expected + 1 });
    let mut other = payload;
    other[0] = 2;
    assert_eq!(layout.validate(&other).unwrap_err(), CodecError::PayloadFormat { expected: 1, actual: 2 });
}

#[test]
fn every_single_bit_flip_is_refused_or_decodes_to_something_else() {
    for (chunk, topk, one_bit) in [(16, 4, true), (16, 4, false), (64, 32, true), (8, 64, true)] {
        let specs = [spec("a", &[128, 64]), spec("b", &[35, 22]), spec("c", &[48])];
        let layout = Layout::new(&specs, chunk, topk, one_bit).unwrap();
        let mut payload = noisy_payload(&layout, 11);
        let original = bits_of(&decode_all(&layout, &payload).unwrap());
        let bits = payload.len() * 8;
        let step = (bits / 3000).max(1);
        let mut refused = 0;
        for bit in (0..bits).step_by(step) {
            payload[bit / 8] ^= 1 << (bit % 8);
            match decode_all(&layout, &payload) {
                Ok(selections) => assert_ne!(bits_of(&selections), original, "bit {bit}"),
                Err(_) => refused += 1,
            }
            payload[bit / 8] ^= 1 << (bit % 8);
        }
        assert!(refused > 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn prop_a_payload_decodes_to_what_was_encoded(layout in any_layout(), seed: u64) {
        let payload = noisy_payload(&layout, seed);
        let valid = layout.validate(&payload).unwrap();
        for index in 0..layout.parameters().len() {
            let part = layout.whole(index).unwrap();
            let rows = noise(seed + index as u64, part.elements().len());
            let sent = layout.compress(&part, &rows, Threads::ONE).unwrap();
            let received = valid.decode(&part).unwrap();
            prop_assert_eq!(&received.indices, &sent.indices);
            for (received, sent) in received.values.iter().zip(&sent.values) {
                match layout.quantization() {
                    Quantization::OneBit => prop_assert_eq!(*received, if *sent < 0.0 { -1.0 } else { 1.0 }),
                    Quantization::Bf16 => prop_assert!((received - sent).abs() <= sent.abs() / 256.0),
                }
            }
        }
    }

    #[test]
    fn prop_owners_encode_the_same_payload_as_one_node(layout in any_layout(), owners in 1..6_usize, seed: u64) {
        let mut parts = Vec::new();
        for part in layout.split(owners).into_iter().flatten().rev() {
            let tensor = layout.whole(part.parameter()).unwrap().elements().len();
            let rows = noise(seed + part.parameter() as u64, tensor);
            let selection = layout.compress(&part, &rows[part.elements()], Threads::ONE).unwrap();
            let bytes = layout.encode_part(&part, &selection).unwrap();
            parts.push((part, bytes));
        }
        let payload = layout.assemble(&parts).unwrap();
        prop_assert_eq!(&payload, &noisy_payload(&layout, seed));
        let valid = layout.validate(&payload).unwrap();
        for (part, bytes) in &parts {
            prop_assert_eq!(&layout.encode_part(part, &valid.decode(part).unwrap()).unwrap(), bytes);
        }
    }

    #[test]
    fn prop_arbitrary_bytes_are_refused_or_canonical(layout in any_layout(), seed: u64, kind in 0..3_u8) {
        let mut payload = vec![0; layout.payload_len()];
        match kind {
            0 => ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut payload),
            1 => payload.fill(0xff),
            // Mostly zeros: often valid ranks.
            _ => payload.iter_mut().step_by(1 + seed as usize % 13).for_each(|byte| *byte = seed as u8 & 0x11),
        }
        payload[0] = layout.quantization().format_byte();
        if let Ok(valid) = layout.validate(&payload) {
            let encode = |index| {
                let part = layout.whole(index).unwrap();
                let bytes = layout.encode_part(&part, &valid.decode(&part).unwrap()).unwrap();
                (part, bytes)
            };
            let parts: Vec<_> = (0..layout.parameters().len()).map(encode).collect();
            prop_assert_eq!(layout.assemble(&parts).unwrap(), payload);
        }
    }
}
