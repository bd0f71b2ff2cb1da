use super::*;

#[test]
fn chunks_take_the_largest_divisors_of_the_last_two_dimensions() {
    // shape, chunk → height, width, chunk rows, chunks per row
    let cases: [(&[usize], usize, [usize; 4]); 9] = [
        (&[128, 320], 64, [64, 64, 2, 5]),
        (&[688, 256], 64, [43, 64, 16, 4]),
        (&[4096], 64, [1, 64, 1, 64]),
        (&[37], 64, [1, 37, 1, 1]),
        (&[131], 64, [1, 1, 1, 131]),
        (&[131, 64], 64, [1, 64, 131, 1]),
        (&[2, 3, 96, 40], 64, [48, 40, 12, 1]),
        (&[1, 1], 1, [1, 1, 1, 1]),
        (&[512, 512], 256, [256, 256, 2, 2]),
    ];
    for (shape, chunk, expected) in cases {
        let g = Geometry::new(shape, chunk).unwrap();
        let found = [g.chunk_height(), g.chunk_width(), g.chunk_rows(), g.chunks_per_row()];
        assert_eq!(found, expected, "{shape:?}");
        assert_eq!(g.chunks() * g.chunk_len(), shape.iter().product::<usize>());
        assert_eq!(g.chunk_rows() * g.slab_len(), g.elements());
    }
}

#[test]
fn empty_shapes_and_unusable_edges_are_refused() {
    for shape in [&[][..], &[0], &[4, 0], &[0, 4]] {
        assert_eq!(Geometry::new(shape, 64), Err(CodecError::EmptyShape { shape: shape.to_vec() }));
    }
    for chunk in [0, MAX_CHUNK + 1, usize::MAX] {
        assert_eq!(Geometry::new(&[4, 4], chunk), Err(CodecError::ChunkEdge { chunk, max: MAX_CHUNK }));
    }
    assert!(matches!(Geometry::new(&[usize::MAX, 2], 64), Err(CodecError::TooLarge { .. })));
    assert!(matches!(Geometry::new(&[1 << 62, 1], 1), Err(CodecError::TooLarge { .. })));
}

#[test]
fn gathering_every_chunk_and_scattering_it_restores_the_tensor() {
    let g = Geometry::new(&[2, 6, 10], 4).unwrap();
    let tensor: Vec<f32> = (0..120).map(|i| i as f32).collect();
    let mut copy = vec![0.0; 120];
    let mut chunk = vec![0.0; g.chunk_len()];
    for (from, to) in tensor.chunks(g.slab_len()).zip(copy.chunks_mut(g.slab_len())) {
        for column in 0..g.chunks_per_row() {
            g.gather(from, column, &mut chunk);
            g.scatter(&chunk, column, to);
        }
    }
    assert_eq!(copy, tensor);
    // Element [1, 3 + i, 2 + j] lies in chunk row 3, column 1.
    g.gather(&tensor[3 * g.slab_len()..], 1, &mut chunk);
    let expected: Vec<f32> = (0..3).flat_map(|i| (0..2).map(move |j| (60 + (3 + i) * 10 + 2 + j) as f32)).collect();
    assert_eq!(chunk, expected);
}

#[test]
fn a_layout_needs_distinct_names_and_a_top_k() {
    let twice = [spec("a", &[4, 4]), spec("a", &[4])];
    assert_eq!(Layout::new(&twice, 4, 2, true).unwrap_err(), CodecError::DuplicateParameter { name: "a".into() });
    assert_eq!(Layout::new(&twice[..1], 4, 0, true).unwrap_err(), CodecError::ZeroTopK);
    let huge = [spec("a", &[1 << 30, 1 << 30])];
    assert!(matches!(Layout::new(&huge, 1, 1, false), Err(CodecError::TooLarge { .. })));
}

#[test]
fn a_split_gives_every_block_one_owner_and_balances_elements() {
    let layout = mixed_layout(16, 4, true);
    let total: usize = layout.parameters().iter().map(|p| p.geometry().elements()).sum();
    for owners in [1, 2, 3, 4, 7, 500] {
        let split = layout.split(owners);
        assert_eq!(split.len(), owners);
        let mut next = 1;
        let mut elements = 0;
        for part in split.iter().flatten() {
            assert_eq!(part.bytes().start, next);
            next = part.bytes().end;
            elements += part.elements().len();
        }
        assert_eq!(next, layout.payload_len());
        assert_eq!(elements, total);
        let largest = layout.parameters().iter().map(ParameterLayout::block_elements).max().unwrap();
        for parts in split {
            let owned: usize = parts.iter().map(|part| part.elements().len()).sum();
            assert!(owned.abs_diff(total / owners) <= largest, "{owners} owners: {owned} of {total}");
        }
    }
}

#[test]
fn a_part_names_the_same_region_as_chunks_rows_elements_and_bytes() {
    let layout = Layout::new(&[spec("a", &[2, 96, 128])], 32, 8, true).unwrap();
    // 4 chunks of 32 × 32 per chunk row, so 2 chunk rows per block; C(1024, 8) takes 65 bits, with signs 73.
    let part = layout.part(0, 1..3).unwrap();
    assert_eq!(part.chunk_rows(), 2..6);
    assert_eq!(part.chunks(), 8..24);
    assert_eq!(part.rows(), 64..192);
    assert_eq!(part.elements(), 64 * 128..192 * 128);
    assert_eq!(part.bytes(), 1 + 73..1 + 3 * 73);
    assert!(layout.part(0, 2..2).is_err());
    assert!(layout.part(0, 2..4).is_err());
    assert!(layout.part(1, 0..1).is_err());
}
