#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

use super::*;
use crate::testing::tiny_config;

fn layout(data_parallel: usize, tensor_parallel: usize) -> NodeLayout {
    let config = tiny_config();
    let codec = Layout::new(&config.parameters(), 8, 4, true).unwrap();
    NodeLayout::new(&config, codec, Topology::new(data_parallel, tensor_parallel).unwrap()).unwrap()
}

#[test]
fn every_element_of_a_shard_comes_from_exactly_one_piece() {
    for (data_parallel, tensor_parallel) in [(1, 1), (3, 1), (1, 2), (2, 2), (5, 2)] {
        let layout = layout(data_parallel, tensor_parallel);
        for tensor_index in 0..tensor_parallel {
            for parameter in 0..layout.codec.parameters().len() {
                let mut covered = vec![0; layout.shard_shape(parameter, tensor_index).iter().product::<i64>() as usize];
                for piece in (0..layout.topology.ranks()).flat_map(|rank| layout.pieces(rank)) {
                    if piece.part.parameter() != parameter {
                        continue;
                    }
                    let Some(overlap) = layout.overlap(piece, tensor_index) else { continue };
                    for row in 0..overlap.rows {
                        let start = overlap.in_shard.start + row * overlap.in_shard.stride;
                        covered[start..start + overlap.columns].iter_mut().for_each(|count| *count += 1);
                    }
                }
                assert!(covered.iter().all(|&count| count == 1), "parameter {parameter}, tensor index {tensor_index}");
            }
        }
    }
}

#[test]
fn every_element_of_a_piece_gets_each_replicas_gradient_once() {
    let layout = layout(2, 2);
    for rank in 0..4 {
        let mut covered = vec![0; layout.pieces(rank).last().map_or(0, |piece| piece.at.end)];
        for piece in layout.pieces(rank) {
            for tensor_index in layout.gradient_sources(piece.part.parameter()) {
                let Some(overlap) = layout.overlap(piece, tensor_index) else { continue };
                for row in 0..overlap.rows {
                    let start = overlap.in_piece.start + row * overlap.in_piece.stride;
                    covered[start..start + overlap.columns].iter_mut().for_each(|count| *count += 1);
                }
            }
        }
        assert!(covered.iter().all(|&count| count == 1), "rank {rank}");
    }
}

#[test]
fn a_tensor_parallelism_that_divides_nothing_is_refused_with_the_numbers() {
    let config = tiny_config();
    let codec = Layout::new(&config.parameters(), 8, 4, true).unwrap();
    let error = NodeLayout::new(&config, codec, Topology::new(1, 3).unwrap()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("tensor parallelism 3") && text.contains("num_key_value_heads 2"), "{text}");
    assert!(Topology::new(0, 1).is_err() && Topology::new(usize::MAX, 2).is_err());
}
