#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may unwrap")]

use tch::{Device, Kind};

use super::*;
use crate::codec::Layout;
use crate::flat::Flat;
use crate::testing::{on_ranks, tiny_config};

const LAYOUTS: [(usize, usize); 5] = [(1, 1), (2, 1), (1, 2), (2, 2), (3, 1)];

fn layout_of(mesh: &MeshRank) -> NodeLayout {
    let config = tiny_config();
    let codec = Layout::new(&config.parameters(), 8, 4, true).unwrap();
    NodeLayout::new(&config, codec, mesh.topology()).unwrap()
}

/// A number that tells parameter and element, and is not one in bf16.
fn element(parameter: usize, index: usize) -> f32 {
    ((index * 37 + parameter * 1013) % 4001) as f32 / 1000.0 - 2.0
}

fn owned_by(rank: usize, layout: &NodeLayout) -> Vec<f32> {
    let pieces = layout.pieces(rank).iter();
    pieces.flat_map(|piece| piece.part.elements().map(|index| element(piece.part.parameter(), index))).collect()
}

/// The same elements in the host's memory and as what a device would hold, which on the CPU is a tensor, too.
fn both_stores(elements: &[f32]) -> [Flat; 2] {
    [Flat::Host(elements.to_vec()), Flat::Device(Tensor::from_slice(elements))]
}

/// This rank's shard of what [`element`] says, in one dimension.
fn shard_of(parameter: usize, layout: &NodeLayout, tensor_index: usize) -> Vec<f32> {
    let (shard, geometry) = (layout.shard(parameter, tensor_index), layout.codec.parameters()[parameter].geometry());
    let row = |row: usize| shard.columns.clone().map(move |column| element(parameter, row * geometry.width() + column));
    shard.rows.clone().flat_map(row).collect()
}

#[test]
fn weights_spread_to_every_rank_from_any_store_in_any_element_type() {
    for layout in LAYOUTS {
        for result in on_ranks(layout, |mesh| {
            let layout = layout_of(&mesh);
            for store in both_stores(&owned_by(mesh.rank(), &layout)) {
                for kind in [Kind::Float, Kind::BFloat16] {
                    let zeros = |parameter| {
                        let shape = layout.shard_shape(parameter, mesh.tensor_index());
                        Tensor::zeros(shape, (kind, Device::Cpu)).set_requires_grad(true)
                    };
                    let compute: Vec<Tensor> = (0..layout.codec.parameters().len()).map(zeros).collect();
                    spread(&mesh, &layout, store.view(), &compute).unwrap();
                    for (parameter, copy) in compute.iter().enumerate() {
                        let expected = Tensor::from_slice(&shard_of(parameter, &layout, mesh.tensor_index())).to_kind(kind);
                        assert!(copy.view([-1]).equal(&expected), "parameter {parameter} as {kind:?}");
                    }
                }
            }
            mesh.agree(()).unwrap();
        }) {
            result.unwrap();
        }
    }
}

#[test]
fn gradients_of_all_replicas_add_up_in_any_store() {
    for (data_parallel, tensor_parallel) in LAYOUTS {
        for result in on_ranks((data_parallel, tensor_parallel), |mesh| {
            let layout = layout_of(&mesh);
            // The last replica had no sample, unless it is the only one.
            let idle = data_parallel > 1 && mesh.data_index() == data_parallel - 1;
            let gradients: Vec<Option<Tensor>> = (0..layout.codec.parameters().len())
                .map(|parameter| {
                    let shard = Tensor::from_slice(&shard_of(parameter, &layout, mesh.tensor_index()));
                    let scaled = shard.g_mul_scalar(f64::from(1 << mesh.data_index()));
                    (!idle).then(|| scaled.view(layout.shard_shape(parameter, mesh.tensor_index()).as_slice()))
                })
                .collect();
            let working = (data_parallel - 1).max(1);
            let factor = ((1 << working) - 1) as f32;
            let owned = owned_by(mesh.rank(), &layout);
            for mut store in both_stores(&vec![f32::NAN; owned.len()]) {
                collect(&mesh, &layout, &gradients, store.view_mut()).unwrap();
                let sums = store.to_host().unwrap();
                assert_eq!(sums.len(), owned.len());
                assert!(sums.iter().zip(&owned).all(|(sum, one)| (sum - one * factor).abs() <= 1e-5 * factor));
            }
            let nothing: Vec<Option<Tensor>> = gradients.iter().map(|_| None).collect();
            for mut store in both_stores(&vec![f32::NAN; owned.len()]) {
                collect(&mesh, &layout, &nothing, store.view_mut()).unwrap();
                assert!(store.to_host().unwrap().iter().all(|&sum| sum == 0.0));
            }
        }) {
            result.unwrap();
        }
    }
}
