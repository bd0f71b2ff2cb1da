//! How weights get from their owners to the ranks that compute with them, and gradients back, on CPU devices.
//!
//! Each transfer is one exchange of the whole mesh: ranks lend what they have and copy, or add, what they need.

use tch::{Kind, Tensor};

use crate::GpuError;
use crate::layout::{NodeLayout, Place};
use crate::mesh::{MeshRank, Window};

/// Fills this rank's compute copies from `owned`, which every rank lends: one flat buffer of its pieces.
///
/// # Shapes
/// `compute`: by parameter, this rank's shard of it, contiguous; what is not f32 is rounded to nearest.
///
/// # Errors
/// A broken mesh; tensors that the CPU can't reach.
pub(crate) fn spread(mesh: &MeshRank, layout: &NodeLayout, owned: &Vec<f32>, compute: &[Tensor]) -> Result<(), GpuError> {
    if compute.iter().any(|copy| copy.kind() != Kind::Float) {
        let exact = compute.iter().map(|copy| tch::no_grad(|| copy.f_to_kind(Kind::Float))).collect::<Result<Vec<_>, _>>()?;
        spread(mesh, layout, owned, &exact)?;
        return tch::no_grad(|| {
            compute.iter().zip(&exact).try_for_each(|(copy, exact)| Ok(drop(copy.shallow_clone().f_copy_(exact)?)))
        });
    }
    let windows = compute.iter().map(Window::of).collect::<Result<Vec<_>, _>>()?;
    mesh.exchange(owned, |all| {
        for (rank, from) in all.iter().enumerate() {
            for piece in layout.pieces(rank) {
                let Some(overlap) = layout.overlap(piece, mesh.tensor_index()) else { continue };
                let window = &windows[piece.part.parameter()];
                // SAFETY: the window covers a live tensor of this rank, which nobody else uses: it is not lent, and no
                // autograd graph over it exists between two steps.
                let to = unsafe { std::slice::from_raw_parts_mut(window.pointer, window.len) };
                for row in 0..overlap.rows {
                    to[line(overlap.in_shard, row, overlap.columns)]
                        .copy_from_slice(&from[line(overlap.in_piece, row, overlap.columns)]);
                }
            }
        }
    })
}

/// Adds up every replica's gradients, in the order of the replicas, for the pieces that this rank owns.
///
/// # Shapes
/// `gradients`: by parameter, contiguous f32 of this rank's shard, or none where it had no sample; `owned`: the rank's
/// flat buffer, overwritten.
///
/// # Errors
/// A broken mesh; tensors that the CPU can't reach.
pub(crate) fn collect(
    mesh: &MeshRank,
    layout: &NodeLayout,
    gradients: &[Option<Tensor>],
    owned: &mut [f32],
) -> Result<(), GpuError> {
    let lent = gradients.iter().map(|gradient| gradient.as_ref().map(Window::of).transpose());
    let lent = lent.collect::<Result<Vec<_>, _>>()?;
    owned.fill(0.0);
    mesh.exchange(&lent, |all| {
        for piece in layout.pieces(mesh.rank()) {
            let parameter = piece.part.parameter();
            for tensor_index in layout.gradient_sources(parameter) {
                let Some(overlap) = layout.overlap(piece, tensor_index) else { continue };
                let replicas = all.iter().skip(tensor_index).step_by(layout.topology.tensor_parallel());
                for window in replicas.filter_map(|lent| lent[parameter].as_ref()) {
                    // SAFETY: the owner keeps the gradient alive and unchanged until the exchange ends, and every rank
                    // only reads what is lent here.
                    let from = unsafe { std::slice::from_raw_parts(window.pointer, window.len) };
                    for row in 0..overlap.rows {
                        let to = &mut owned[line(overlap.in_piece, row, overlap.columns)];
                        let from = &from[line(overlap.in_shard, row, overlap.columns)];
                        to.iter_mut().zip(from).for_each(|(sum, gradient)| *sum += gradient);
                    }
                }
            }
        }
    })
}

/// Elements of one row of a rectangle inside the buffer in which it lies.
fn line(place: Place, row: usize, columns: usize) -> std::ops::Range<usize> {
    let start = place.start + row * place.stride;
    start..start + columns
}
